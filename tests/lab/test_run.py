"""Checkpoints and metrics of a run: together, whole, and as they were."""

import json
import os
from pathlib import Path

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


def test_a_checkpoint_runs_no_code(tmp_path, caplog):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "ran"),))

    torch.save({"state": Bomb(), "metrics": 0}, tmp_path / "checkpoint.pt")
    assert Run(tmp_path).load() is None
    assert "checkpoint.pt is damaged (Weights only load failed" in caplog.text
    assert not (tmp_path / "ran").exists()


def saved(folder):
    run = Run(folder)
    run.log(step=1, loss=0.5)
    run.save({"step": 1, "weight": torch.arange(100.0)})
    return folder / "checkpoint.pt", folder / METRICS


def flipped(path):
    """Change one bit of a weight, which torch reads as if nothing were."""
    content = bytearray(path.read_bytes())
    place = content.find(torch.arange(100.0).numpy().tobytes())
    content[place + 41] ^= 1
    path.write_bytes(content)


def as_folder(path):
    path.unlink()
    path.mkdir()


DAMAGE = {
    "truncated": lambda checkpoint, _: checkpoint.write_bytes(checkpoint.read_bytes()[:-50]),
    "a bit of a weight": lambda checkpoint, _: flipped(checkpoint),
    "a folder": lambda checkpoint, _: as_folder(checkpoint),
    "another file": lambda checkpoint, _: torch.save([1], checkpoint),
    "a length of text": lambda c, _: torch.save({"state": {}, "metrics": "1"}, c),
    "metrics too short": lambda _, metrics: metrics.write_bytes(metrics.read_bytes()[:-1]),
    "metrics with other numbers": lambda _, metrics: metrics.write_text(
        '{"step": 1, "loss": 0.7}\n'
    ),
    "metrics of NUL": lambda _, metrics: metrics.write_bytes(bytes(metrics.stat().st_size)),
    "no metrics": lambda _, metrics: metrics.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_named_and_the_run_starts_anew(tmp_path, caplog, damage):
    checkpoint, metrics = saved(tmp_path)
    DAMAGE[damage](checkpoint, metrics)
    assert Run(tmp_path, writes=False).load() is None  # on every rank alike
    assert Run(tmp_path).load() is None
    named = metrics if "metrics" in damage else checkpoint
    assert f"{named} is " in caplog.text and "starts anew" in caplog.text
    assert list(tmp_path.iterdir()) == []
    saved(tmp_path)
    assert Run(tmp_path).load()["step"] == 1


def test_metrics_are_on_the_disk_before_the_checkpoint_and_names_after(tmp_path, monkeypatch):
    """After a power cut the metrics could be shorter than their checkpoint says."""
    run, order = Run(tmp_path), []
    run.log(step=1)
    names = {path.stat().st_ino: path.name for path in (tmp_path, tmp_path / METRICS)}
    sync, replace = os.fsync, Path.replace

    def fsync(handle):
        order.append(names.get(os.fstat(handle).st_ino, "part"))
        sync(handle)

    monkeypatch.setattr(files.os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", lambda p, to: (order.append("replace"), replace(p, to)))
    run.save({"step": 1})
    assert order == [METRICS, "part", "replace", tmp_path.name]


@pytest.mark.parametrize("mask", [0o022, 0o007])
def test_files_have_the_mode_that_the_user_asks_for(tmp_path, mask):
    """They were readable by their owner only, whatever the umask."""
    before = os.umask(mask)
    try:
        Run(tmp_path).save({"step": 1})
        files.write_json(tmp_path / "x.json", {})
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {0o666 & ~mask}


def test_a_device_is_not_replaced_by_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe: is a device or a pipe; name a file"):
        files.write_bytes(tmp_path / "pipe", b"x")
    assert (tmp_path / "pipe").is_fifo() and len(list(tmp_path.iterdir())) == 1


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
