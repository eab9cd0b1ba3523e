"""Checkpoints and metrics of a run: together, whole, and as they were."""

import json

import pytest
import torch

from regrow.lab import files
from regrow.lab.run import METRICS, PROGRESS, Run, progress


def lines(folder):
    return files.read_lines(folder / METRICS)


def test_metrics_logged_after_the_checkpoint_are_taken_back(tmp_path):
    run = Run(tmp_path)
    run.log(step=1, loss=0.5)
    run.save({"step": 1, "weight": torch.ones(3)})
    run.log(step=2, loss=0.25)
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"step": 3, "lo')  # killed while writing
    again = Run(tmp_path)
    state = again.load()
    assert state["step"] == 1
    assert state["weight"].equal(torch.ones(3))
    assert lines(tmp_path) == [{"step": 1, "loss": 0.5}]
    again.log(step=2, loss=0.25)
    assert [line["step"] for line in lines(tmp_path)] == [1, 2]


def test_without_a_checkpoint_a_run_begins_anew(tmp_path):
    Run(tmp_path).log(step=1)
    assert Run(tmp_path).load() is None
    assert lines(tmp_path) == []


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(tmp_path, monkeypatch):
    run = Run(tmp_path)
    run.save({"step": 1})
    monkeypatch.setattr(files.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        run.save({"step": 2})
    assert Run(tmp_path).load() == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_checkpoint_runs_no_code(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (eval, ("1/0",))

    torch.save({"state": Bomb(), "metrics": 0}, tmp_path / "checkpoint.pt")
    with pytest.raises(Exception, match=r"[Ww]eights"):
        Run(tmp_path).load()


def test_progress_is_told_at_most_once_a_second(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("regrow.lab.run.time.monotonic", lambda: now[0])
    run = Run(tmp_path)
    run.tell(0.1)
    assert not (tmp_path / PROGRESS).exists()
    now[0] += 2
    run.tell(0.2, "epoch 2")
    now[0] += 0.5
    run.tell(0.3)
    assert progress(tmp_path) == 0.2
    (tmp_path / PROGRESS).write_text("{")
    assert progress(tmp_path) == 0.0


def test_checkpoints_are_due_as_often_as_asked(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("regrow.lab.run.time.monotonic", lambda: now[0])
    run = Run(tmp_path, save_every=10.0)
    assert not run.due()
    now[0] = 11
    assert run.due()
    run.save({})
    assert not run.due()


def test_a_second_rank_reads_and_writes_nothing(tmp_path):
    first = Run(tmp_path)
    first.log(step=1)
    first.save({"step": 1})
    first.log(step=2)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    second = Run(tmp_path, writes=False)
    assert second.load() == {"step": 1}
    second.log(step=9)
    second.save({"step": 9})
    second.tell(1.0)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_damaged_file_is_named(tmp_path):
    for content in ("{", "[1]"):
        (tmp_path / "x.json").write_text(content)
        with pytest.raises(ValueError, match=r"x\.json is damaged"):
            files.read_json(tmp_path / "x.json")


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "x.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        files.write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]
