"""Every bad value of every option is refused by name, before anything is written."""

import contextlib
import os
import re

import pytest

from tests.fuzz.budget import run
from tests.fuzz.commands import OPTIONS, call, case, volumes

REFUSED = [
    # words, what must be said: option, value, what is allowed
    ("train --batch 0", "batch=0: must be at least 1"),
    ("train --epochs -1", "epochs=-1: must be at least 1"),
    ("train --samples 0", "samples=0: must be at least 1, or None"),
    ("train --seed -1", "seed=-1: must be at least 0 and below 2**63"),
    ("train --seed 18446744073709551615", "must be at least 0 and below 2**63"),
    ("train --threads 1000000", "threads=1000000: must be at least 1 and at most "),
    ("train --threads 0", "threads=0: must be at least 1"),
    ("train --option density=.5 --density .2", "density is given twice, as 0.2 and 0.5"),
    ("train --option update_every=5 update_every=6", "update_every is given twice, as 5 and 6"),
    ("train --density nan", "density=nan"),
    ("train --learning-rate inf", "learning_rate=inf: must be at least 0 and finite"),
    ("train --learning-rate -1", "learning_rate=-1.0: must be at least 0"),
    ("train --weight-decay nan", "weight_decay=nan: must be at least 0 and finite"),
    ("train --momentum 1", "momentum=1.0: must be at least 0 and below 1"),
    ("train --dropout 1", "dropout=1.0: must be at least 0 and below 1"),
    ("train --label-smoothing -1", "label_smoothing=-1.0: must be"),
    ("train --validation nan", "validation=nan: must be"),
    ("train --clip inf", "clip=inf: must be above 0 and finite; None does not clip"),
    ("train --warmup 31", "warmup=31.0: must lie in 0..30"),
    ("train --data mnist", "data='mnist': must be one of cifar10"),
    ("train --config file", "config=file: must be a file that ends in .toml or .json"),
    ("train --config x.toml", "x.toml: no such file"),
    ("train --config x.toml --config=y.toml", "--config is given twice, as 'y.toml' and 'x.toml'"),
    ("train --data ./nothing", "nothing: no such file or folder"),
    ("train --data pipe", "pipe is a pipe, not a file: give a file's path"),
    ("train --target y", "target='y' is of data of your own, and 'digits' is not"),
    ("train --model mlp-0", "model='mlp-0': must be one of conv-net"),
    ("train --method x", "method 'x': must be one of"),
    ("train --out ''", "--out '': is empty"),
    ("train --out=", "--out '': is empty"),
    ("train --out file", "out=file: File exists; name a folder"),
    ("train --out file/in", "out=file/in: Not a directory; name a folder"),
    ("train --out /proc/x", "out=/proc/x: No such file or directory; name a folder"),
    ("train --option pattern=" + "-" * 9000 + "1", "nested too deep"),
    ("study run demo --jobs 0", "jobs=0: must be at least 1, or -1"),
    ("study run demo --jobs -2", "jobs=-2: must be at least 1, or -1"),
    ("study run demo --out ''", "--out '': is empty"),
    ("study run demo --out file/in", "out=file/in: Not a directory"),
    ("study run demo --only ''", "--only '': is empty"),
    ("study run demo --preset smoke", "preset='smoke': demo has 'quick'"),
    ("demo --seeds 0", "seeds=0: must be at least 1"),
    ("demo --seeds 1000000000", "seeds=1000000000: must be at least 1 and at most 10000"),
    ("demo --first-seed -1", "first_seed=-1: must be at least 0"),
    ("demo --out file/in", "out=file/in: Not a directory"),
    ("report new --page .", "page=.: is no file"),
    ("report new --page nowhere/x.html", "there is no folder nowhere"),
    ("report new --csv pipe", "csv=pipe: is no file"),
    ("report new --parquet /proc/nowhere/x", "parquet=/proc/nowhere/x: there is no folder"),
    ("report file", "file: there is no run and no study; name a folder"),
    ("bench model --batch 0", "batch=0: must be at least 1"),
    ("bench model --width 1000000000", "width=1000000000: must be"),
    ("bench model --densities 0", "densities=0.0: must be above 0"),
    ("bench model --threads 1000000", "threads=1000000"),
    ("bench execution --turns 0", "turns=0: must be at least 1"),
    ("bench execution --json .", "json=.: is no file"),
    ("methods ''", "an argument '': is empty"),
    ("segment train set --threads 1000000", "threads=1000000: must be at least 1 and at most "),
    ("segment train set --batch 0", "batch=0: must be at least 1"),
    ("segment train set --batches 0", "batches=0: must be at least 1"),
    ("segment train set --update-every 0", "update_every=0: must be at least 1"),
    ("segment train set --tested -1", "tested=-1: must be at least 1; None takes all"),
    ("segment train set --cases 0", "cases=0: must be at least 1; None takes all"),
    ("segment train set --mirror 0 0", "mirror=(0, 0): axes are 0, 1, 2, each once"),
    ("segment train set --patch 1 1 1", "patch=(1, 1, 1): must hold more than one voxel"),
    ("segment train set --shift 2", "shift=2: must be an odd number"),
    ("segment train set --depth-kernel 2", "depth_kernel=2: must be 1, 3 or 5"),
    ("segment train set --width 2", "a source of 2 channels cannot see 3 shifts"),
    ("segment train set --fusion dense --density .5", "density=0.5: a dense network keeps all"),
    ("segment train set --model nnunet --density .5", "density=0.5: a dense network keeps all"),
    ("segment train set --out file", "out=file: File exists; name a folder"),
    ("segment train file", "file: no dataset.json in it"),
    ("segment train pipe", "pipe: no dataset.json in it"),
    ("segment train ~nobody-of-this-name", "~nobody-of-this-name: no dataset.json in it"),
    ("segment predict set set --out new", "set: no result.json in it"),
    ("segment evaluate set set --out nowhere/e.html", "out=nowhere/e.html: there is no folder"),
    ("segment evaluate set set --out file", "out=file: a page is written, which must be called"),
]


@pytest.mark.parametrize(("line", "words"), REFUSED, ids=[line[:40] for line, _ in REFUSED])
def test_a_bad_value_is_refused_by_name_and_leaves_nothing(tmp_path, line, words):
    (tmp_path / "file").write_text("kept")
    os.mkfifo(tmp_path / "pipe")
    volumes(tmp_path / "set")
    with contextlib.chdir(tmp_path):
        ended, said = call(["" if word == "''" else word for word in line.split()])
    assert (ended, words in said) == ("refused", True), said
    assert {path.name for path in tmp_path.iterdir()} == {"file", "pipe", "set"}


def test_every_option_that_help_shows_is_tried():
    for command, options in OPTIONS.items():
        if "" in options:
            continue
        _, said = call([*command.split(), "--help"])
        shown = set(re.findall(r"^\W*(--[a-z][a-z-]+)", said, re.MULTILINE)) - FLAGS
        tried = options.keys() | (BENCH if command.startswith("bench") else set())
        assert shown and shown <= tried, command


FLAGS = {"--augment", "--regression", "--rescale"}  # without a value
BENCH = OPTIONS["bench model"].keys() | OPTIONS["bench execution"].keys()


def test_no_momentum_is_no_nesterov_either(tmp_path):
    assert call(["train", "--momentum", "0", "--out", str(tmp_path)])[0] == "started"


def test_bad_command_lines_are_lines_for_a_while():
    assert run(case, 0, range(15))[1] == []
