"""Calls the command line with good and bad values of every option: a line, never a traceback.

What a command would compute is cut short, so that a case is about its options only. A command line
that is refused is refused before a trial is made or a file is written.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import sys
import tempfile
from pathlib import Path
from unittest import mock

from regrow.cli import main as command_line
from tests.fuzz.budget import main

_COUNT = ["1", "3", "0", "-1", "-5", "1000000", "99999999999999999999", "1.5", "x", "nan", ""]
_SHARE = ["0.1", "0.9", "0", "1", "-0.5", "2", "nan", "inf", "1e-400", "1e400", "x", ""]
_PLACE = [
    "new",
    "new/inner",
    ".",
    "",
    "file",
    "file/inside",
    "pipe",
    "x" * 300,
    "/proc/x",
    "\u00e4 b",
]
_WORD = ["x", "", "digits", "mnist", "RigL", "--", "\udcff", "a b", "0", "None"]
_SEED = [*_COUNT, "18446744073709551615", "-9223372036854775809"]
_ARGUMENTS = [
    "density=.5", "density=.2", "density=x", "density=", "=", "x", "update_every=0", "stop_at=2",
    "update_every=1e400", "pattern=Block(", "pattern=Block(0)", "pattern=Block(32)", "grow=Random",
    "pattern=" + "(" * 300, "pattern=" + "-" * 3000 + "1", "drop_fraction=Cosine(nan)",
    "allocation=ERK(dense=3)", "pattern={[]: 1}", "pattern=NM(2, 1)", "grow=Block(2)", "seed=1",
    "allocation=Explicit({})", "drop=Soft(1, 2)", "pattern=print(3)", "drop_fraction=None",
]  # fmt: skip

OPTIONS: dict[str, dict[str, list[str]]] = {
    "train": {
        "--data": _WORD, "--model": [*_WORD, "mlp-0", "mlp-", "mlp-99999999999", "mlp-8"],
        "--label-smoothing": _SHARE, "--dropout": _SHARE, "--samples": [*_COUNT, "None"],
        "--validation": _SHARE, "--seed": _SEED, "--epochs": _COUNT, "--batch": _COUNT,
        "--optimizer": ["sgd", "adamw", "x"], "--learning-rate": _SHARE, "--momentum": _SHARE,
        "--clip": ["0", "-1", "1", "nan", "inf", "x"],
        "--include": ["*", "0.*", "", "none.of.these"],
        "--weight-decay": _SHARE, "--schedule": ["steps", "cosine", "x"], "--warmup": _SHARE,
        "--exclude": _WORD, "--precision": ["float32", "float16", "x"],
        "--method": ["RigL", "rig", "SET", "Dense", "SNIP", "DynamicNM", "", "x"],
        "--density": _SHARE, "--option": _ARGUMENTS, "--data-dir": _PLACE,
        "--device": ["cpu", "auto", "tpu"], "--execution": ["masked", "csr", "x"],
        "--threads": _COUNT, "--out": _PLACE, "--target": _WORD, "--leave-out": _WORD,
        "--pixels": _COUNT, "--log": ["x", ""], "--config": _PLACE,
    },
    "study run demo": {
        "--preset": ["quick", "smoke", "x"], "--data": _WORD, "--data-dir": _PLACE,
        "--executor": ["inline", "local", "x"], "--jobs": _COUNT, "--out": _PLACE,
        "--device": ["cpu", "x"], "--only": ["", "zz", "0", "a"],
    },
    "demo": {
        "--seeds": ["0", "-1", "x", "1000000000", "nan"], "--first-seed": _SEED, "--out": _PLACE,
    },
    "report": {
        "--page": _PLACE, "--csv": _PLACE, "--parquet": _PLACE, "--tensorboard": _PLACE,
        "--pack": _PLACE, "--left-out": ["", " ", "why"],
    },
    "bench model": {
        "--json": _PLACE, "--turns": _COUNT, "--threads": _COUNT, "--width": _COUNT,
        "--batch": _COUNT, "--densities": _SHARE, "--model": ["mlp-8", "conv-net", "x"],
        "--shape": _COUNT, "--classes": _COUNT,
    },
    "bench execution": {"--json": _PLACE, "--parts": ["wide", "x", ""], "--turns": _COUNT},
    "segment train": {
        "--config": _PLACE,
        "--fusion": ["kernels", "channels", "dense", "x"], "--density": _SHARE,
        "--update-every": _COUNT, "--device": ["cpu", "x"], "--threads": _COUNT, "--out": _PLACE,
        "--model": ["e2enet", "nnunet", "nnunet-residual", "x"], "--width": _COUNT,
        "--shift": _COUNT, "--depth-kernel": _COUNT, "--batches": _COUNT, "--foreground": _SHARE,
        "--mirror": ["0", "3", "-1", "x"], "--overlap": _SHARE, "--fold": _COUNT,
        "--cases": _COUNT, "--tested": _COUNT, "--batch": _COUNT, "--epochs": _COUNT,
        "--seed": _SEED, "--clip": _SHARE, "--learning-rate": _SHARE, "--momentum": _SHARE,
        "--precision": ["float32", "x"], "--warmup": _SHARE, "--weight-decay": _SHARE,
        "--schedule": ["poly", "cosine", "x"], "--optimizer": ["sgd", "adamw", "x"],
        "--patch": ["1 1 1", "8 8 8", "8 8", "-8 8 8", "0 8 8"],
    },
    "segment predict": {
        "--out": _PLACE, "--device": ["cpu", "x"], "--mirror": ["1", "x"], "--no-mirror": [],
    },
    "segment evaluate": {"--out": [*_PLACE, "e.html", "file.html/e.html"]},
    "methods": {"": ["RigL", "rig", "", "x", "--"]},
    "study": {"": ["list", "run", "x", ""]},
}  # fmt: skip


_POSITIONAL = {"report": 1, "segment train": 1, "segment predict": 2, "segment evaluate": 2}


def volumes(folder: Path) -> None:
    """Write the list of a data set of six volumes, which are empty: none is read here."""
    names = [f"{part}/case_{i}.nii.gz" for part in ("imagesTr", "labelsTr") for i in range(6)]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    listed = [
        {"image": image, "label": label} for image, label in zip(names[:6], names[6:], strict=True)
    ]
    labels = {"background": 0, "organ": 1}
    content = {"labels": labels, "modality": {"0": "MRI"}, "training": listed}
    (folder / "dataset.json").write_text(json.dumps(content))


class _Started(BaseException):
    """All options were taken: here the command would begin to compute."""


def _start(*_: object, **__: object) -> None:
    raise _Started


_COMPUTING = (
    "regrow.lab.attempt.attempt",
    "regrow.lab.study_run.sweep",
    "regrow.execution.advise.advise",
    "regrow.studies.execution.bench.measure",
)


def call(words: list[str]) -> tuple[str, str]:
    """Call a command; return how it ended (started, done, refused) and all that it said."""
    said = io.StringIO()
    with contextlib.ExitStack() as stack:
        for place in _COMPUTING:
            stack.enter_context(mock.patch(place, _start))
        stack.enter_context(mock.patch("torch.set_num_threads"))
        stack.enter_context(mock.patch.object(sys, "argv", ["regrow", *words]))
        stack.enter_context(contextlib.redirect_stdout(said))
        stack.enter_context(contextlib.redirect_stderr(said))
        try:
            command_line()
        except _Started:
            return "started", said.getvalue()
        except SystemExit as ended:
            if ended.code not in (0, None):
                code = ended.code if isinstance(ended.code, str) else ""
                return "refused", said.getvalue() + code
    return "done", said.getvalue()


def case(rng: random.Random) -> str:
    """Call one command with a few options, each of a good or a bad value."""
    command = rng.choice(sorted(OPTIONS))
    options = OPTIONS[command]
    words = command.split()
    for option in rng.sample(sorted(options), min(len(options), rng.choice([1, 1, 2, 4]))):
        many = option == "--option" and rng.random() < 0.3
        words += [option] if option else []
        given = [rng.choice(options[option]) for _ in range(2 if many else 1) if options[option]]
        words += given[0].split() if option == "--patch" else given
    places = ["new", "file", "pipe", ".", "nowhere", *["set"] * 5 * ("segment" in command)]
    for _ in range(_POSITIONAL.get(command, 0)):
        words.insert(len(command.split()), rng.choice(places))
    with tempfile.TemporaryDirectory(prefix="fuzz-commands-") as top, contextlib.chdir(top):
        Path("file").write_text("kept")
        os.mkfifo("pipe")
        volumes(Path("set"))
        before = {str(path) for path in Path().rglob("*")}
        ended, said = call(words)
        left = {str(path) for path in Path().rglob("*")} - before
        assert Path("file").read_text() == "kept" and Path("pipe").is_fifo(), f"{words}: written to"
        if ended == "refused":
            assert said.strip(), f"{words}: refused without a word"
            assert "Traceback" not in said, f"{words}: {said}"
            assert not left, f"{words}: refused, and left {left}"
    return f"{command.split()[0]} {ended}"


if __name__ == "__main__":
    main("commands", case, budget=3000)
