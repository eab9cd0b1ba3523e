"""`regrow train` as a function: what it makes of its options, what it says, what it leaves."""

from pathlib import Path

import pytest

import regrow
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


def test_a_failure_is_a_line_and_its_traceback_is_kept(tmp_path, capsys):
    with pytest.raises(SystemExit) as raised:
        train(**QUICK | {"model": "lenet5", "dropout": 0.5}, out=tmp_path)
    line = raised.value.code
    assert line.startswith("regrow: ValueError: dropout=0.5: model='lenet5' has none")
    kept = line.rpartition("traceback in ")[2]
    assert "Traceback" in read_json(Path(kept))["error"]


def test_a_run_another_process_is_at_is_left_to_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("regrow.lab.attempt.attempt", lambda trial, *_: Outcome(trial, "busy"))
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
