"""`regrow train` as a function: what it makes of its options, what it says, what it leaves."""

import re
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import regrow
from regrow.cli import main
from regrow.cli.commands import load
from regrow.cli.settings import SETTINGS, read_settings, to_toml
from regrow.cli.train import make_method, train
from regrow.engine.allocation import ERK
from regrow.engine.links import Soft
from regrow.engine.patterns import Block, Kernel
from regrow.engine.schedules import Constant, Cosine
from regrow.engine.scores import Magnitude, Random
from regrow.lab.attempt import Outcome
from regrow.lab.files import read_json
from regrow.lab.records import Records

QUICK = {"model": "mlp-12", "epochs": 2, "batch": 128, "device": "cpu"}


@pytest.mark.parametrize(
    ("name", "density", "options", "method"),
    [
        ("RigL", None, (), regrow.RigL(density=0.1)),
        ("rigl", 0.2, ("update_every=50", "stop_at=1.0"), {"update_every": 50, "stop_at": 1.0}),
        ("rigl", 0.2, ("drop_fraction=0.3", "threshold=global"), {"threshold": "global"}),
        ("dense", None, (), regrow.Dense()),
        ("dynamicnm", None, (), regrow.DynamicNM()),
        ("gm", 0.3, (), regrow.GMP(density=0.3)),
        ("set", None, ("density=0.4",), regrow.SET(density=0.4)),
    ],
)
def test_methods_are_made_of_words(name, density, options, method):
    made = make_method(name, density, options)
    if isinstance(method, dict):
        assert {key: getattr(made, key) for key in method} == method
    else:
        assert made == method


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"method": "rig"}, "method 'rig': must be one of RigL, RigLITOP"),
        ({"option": ("update=3",)}, "update=3: RigL has no such argument; it has allocation, den"),
        ({"option": ("update_evry=3",)}, "did you mean update_every?"),
        ({"option": ("update_every",)}, "option 'update_every': must be KEY=VALUE"),
        ({"option": ("update_every=often",)}, "update_every='often': int is needed"),
        ({"option": ("update_every=0",)}, "update_every=0: must be at least 1"),
        ({"method": "snip"}, "method=SNIP needs loss, which cannot be written here"),
        ({"method": "dense", "density": 0.1}, "density=0.1: Dense has no such argument"),
        ({"density": 2.0}, "density=2.0"),
        ({"epochs": 0}, "epochs=0"),
    ],
    ids=str,
)
def test_a_mistake_is_said_and_leaves_no_folder(tmp_path, options, said):
    with pytest.raises(ValueError) as raised:
        train(**QUICK | options, out=tmp_path / "out")
    assert said in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_a_run_is_told_recorded_and_told_again(tmp_path, capsys):
    train(**QUICK, validation=0.1, out=tmp_path)
    said = capsys.readouterr().out
    assert "mlp-12 for inputs of 1×8×8 and 10 classes: 910 parameters; 89 of 888 weights" in said
    lines = [line for line in said.splitlines() if line.startswith("epoch ")]
    assert [line.split(":")[0] for line in lines] == ["epoch 1 of 2", "epoch 2 of 2"]
    assert all("validation accuracy" in line for line in lines)
    [record] = Records.read(tmp_path)
    assert f"test accuracy    {100 * record.result['accuracy']:.2f} %" in said
    assert str(tmp_path / "trials" / record.identity / "weights.pt") in said
    train(**QUICK, validation=0.1, out=tmp_path)
    again = capsys.readouterr().out
    assert "finished before" in again and "epoch 1" not in again
    assert said.endswith(again.partition("before:\n")[2])
    train(**QUICK, seed=1, out=tmp_path)
    assert len(Records.read(tmp_path)) == 2


def test_a_run_that_was_cut_off_goes_on(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("regrow.lab.run.Run.due", lambda _: True)
    log = regrow.lab.run.Run.log

    def stop(run, **values):
        log(run, **values)
        if values["epoch"] == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("regrow.lab.run.Run.log", stop)
        with pytest.raises(KeyboardInterrupt):
            train(**QUICK, out=tmp_path)
    capsys.readouterr()
    train(**QUICK, out=tmp_path)
    said = capsys.readouterr().out
    assert "going on after epoch 1" in said
    assert "epoch 1 of 2" not in said and "epoch 2 of 2" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": "lenet5", "dropout": 0.5}, "dropout=0.5: model='lenet5' has none to set"),
        ({"data": "imagenet", "data_dir": Path("nowhere")}, "there is no such folder"),
        ({"samples": 5000}, "samples=5000: data='digits' has 898"),
        ({"model": "resnet18"}, "takes images of 3 channels, and these have 1"),
    ],
    ids=str,
)
def test_a_mistake_that_is_found_late_is_an_error_and_no_failed_trial(
    tmp_path, options, said, alone
):
    with pytest.raises((ValueError, OSError), match=re.escape(said)):
        train(**QUICK | options, out=tmp_path)
    assert not list(tmp_path.rglob("*.json"))


def test_a_failure_is_a_line_and_its_traceback_is_kept(tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr("regrow.studies.supervised.classify.Classify.loss", broken)
    with pytest.raises(SystemExit) as raised:
        train(**QUICK, out=tmp_path)
    line = raised.value.code
    assert line.startswith("regrow: RuntimeError: shapes differ")
    kept = line.rpartition("traceback in ")[2]
    assert "Traceback" in read_json(Path(kept))["error"]


def test_a_run_another_process_is_at_is_left_to_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        "regrow.lab.attempt.attempt", lambda trial, *_, **__: Outcome(trial, "busy")
    )
    with pytest.raises(SystemExit, match="another process is at this very run"):
        train(**QUICK, out=tmp_path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("pattern=Block(32)", Block(32)),
        ("pattern=Kernel", Kernel()),
        ("pattern=Kernel()", Kernel()),
        ("allocation=ERK(dense=('fc.*',))", ERK(dense=("fc.*",))),
        ("drop_fraction=Cosine(0.3, 0.1)", Cosine(0.3, 0.1)),
        ("grow=Random()", Random()),
        ("drop=Soft(Magnitude(), Constant(2.0))", Soft(Magnitude(), Constant(2.0))),
    ],
)
def test_parts_of_a_method_are_written_as_in_python(text, value):
    """pattern=Block(32) arrived as a word, and was refused."""
    name = text.partition("=")[0]
    assert getattr(make_method("RigL", 0.1, (text,)), name) == value


@pytest.mark.parametrize("text", ["pattern=Block()", "pattern=Blok(3)", "pattern=print(3)"])
def test_parts_that_are_none_are_said_and_nothing_is_called(text, capsys):
    with pytest.raises(ValueError, match=r"Block"):
        make_method("RigL", 0.1, (text,))
    assert capsys.readouterr().out == ""


def test_pruning_by_magnitude_says_that_the_network_is_not_trained(tmp_path, capsys):
    train(**QUICK | {"method": "OMP"}, out=tmp_path)
    assert "OMP keeps the largest weights of a trained network" in capsys.readouterr().err
    train(**QUICK | {"method": "RigL"}, out=tmp_path)
    assert "trained network" not in capsys.readouterr().err


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_loss_that_is_no_number_names_where_numbers_ended(tmp_path, precision):
    options = {"precision": precision, "learning_rate": 1e30}
    with pytest.raises(SystemExit, match=r"the loss is nan in epoch 1 \(weights of [01]\.weight\)"):
        train(**QUICK | options, out=tmp_path)


# ---------------------------------------------------------------------- options as a file


def typed(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["regrow", "train", *map(str, words)])
    main()


def test_a_run_writes_its_options_and_takes_them_back(tmp_path, monkeypatch, capsys):
    words = ["--model", "mlp-12", "--epochs", 1, "--batch", 128, "--exclude", "3.*", "--device=cpu"]
    typed(monkeypatch, *words, "--out", tmp_path)
    [kept] = tmp_path.glob(f"trials/*/{SETTINGS}")
    found = read_settings(kept)
    assert found["exclude"] == ["3.*"] and found["epochs"] == 1 and "density" not in found
    capsys.readouterr()
    typed(monkeypatch, "--config", kept)
    assert "it was finished before" in capsys.readouterr().out
    typed(monkeypatch, "--config", kept, "--seed", 4)  # what is typed counts more
    assert {record.config["seed"] for record in Records.read(tmp_path)} == {0, 4}
    [other] = {*tmp_path.glob(f"trials/*/{SETTINGS}")} - {kept}
    assert read_settings(other) == found | {"seed": 4}


def test_a_file_of_json_does_the_same(tmp_path, monkeypatch):
    path = tmp_path / "run.json"
    path.write_text(
        '{"model": "mlp-12", "epochs": 1, "learning-rate": 1, "samples": 400, "clip": null, '
        f'"device": "cpu", "out": "{tmp_path}/out"}}'
    )
    typed(monkeypatch, "--config", path)
    [record] = Records.read(tmp_path / "out")
    assert record.config["samples"] == 400 and record.config["learning_rate"] == 1.0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epoch = 3", "regrow train has no option 'epoch'; did you mean epochs?"),
        ("epochs = 'many'", "epochs = 'many': must be a whole number"),
        ("epochs = true", "epochs = True: must be a whole number"),
        ("optimizer = 'adam'", "optimizer = 'adam': must be one of sgd, adamw"),
        ("exclude = 'fc'", "exclude = 'fc': must be a list, each text in quotes"),
        ("samples = 1.5", 'samples = 1.5: must be a whole number or "None"'),
        ("[train]\nepochs = 3", "has no option 'train'"),
        ("epochs = ", "cannot be read"),
        ("config = 'other.toml'", "has no option 'config'"),
    ],
)
def test_a_wrong_option_in_a_file_names_file_option_and_what_is_allowed(
    tmp_path, monkeypatch, text, said
):
    (tmp_path / "run.toml").write_text(text)
    with pytest.raises(SystemExit) as ended:
        typed(monkeypatch, "--config", tmp_path / "run.toml", "--out", tmp_path / "out")
    assert said in ended.value.code and "run.toml" in ended.value.code
    assert not (tmp_path / "out").exists()


@given(
    st.dictionaries(
        st.from_regex("[a-z_]{1,9}", fullmatch=True),
        st.one_of(
            st.integers(-(2**63), 2**63 - 1),
            st.floats(allow_nan=False, allow_infinity=False),
            st.booleans(),
            st.text(st.characters(exclude_categories=["Cs"])),
            st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=3),
        ),
    )
)
def test_whatever_is_written_is_read_back(values):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.toml"
        path.write_bytes(to_toml(values, "a run").encode())
        assert read_settings(path) == values


def test_data_of_ones_own_is_trained_on_and_known_by_its_content(tmp_path, capsys):
    table = tmp_path / "tea.csv"
    rows = [f"{i % 7},{i % 2},{'ab'[i % 2]}" for i in range(80)]
    table.write_text("\n".join(["x,z,class", *rows]))
    options = QUICK | {"data": str(table), "batch": 16, "method": "Dense", "epochs": 5}
    train(**options, out=tmp_path / "out")
    assert "(tea.csv, a fifth of each class for testing" in capsys.readouterr().out
    [record] = Records.read(tmp_path / "out")
    assert record.config["data"] == "tea.csv" and record.result["accuracy"] == 1.0
    table.write_text("\n".join(["x,z,class", *rows[:60]]))
    train(**options, out=tmp_path / "out")  # another content is another trial
    assert len(Records.read(tmp_path / "out")) == 2


def test_a_column_that_is_asked_for_needs_data_of_ones_own(tmp_path):
    with pytest.raises(ValueError, match="target='y' is of data of your own, and 'digits' is not"):
        train(**QUICK, target="y", out=tmp_path)


def test_the_method_in_a_file_decides_which_training_of_agents_it_is(tmp_path):
    path = tmp_path / "run.toml"
    for method, name in (("MaDi", "control_train_pixels"), ("r2n", "control_train")):
        path.write_text(f'method = "{method}"')
        assert load("control train", ["control", "train", f"--config={path}"]).__name__ == name
    words = ["control", "train", "--config", str(path), "--method", "MaDi"]
    assert load("control train", words).__name__ == "control_train_pixels"
