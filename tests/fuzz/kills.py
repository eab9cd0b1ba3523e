"""Kills running sweeps: run again, they end with the records of one that was never killed.

A case starts a sweep of four trainings in a process of its own, kills it at a random moment at
which a trial is running, sometimes does so again, and lets it end. Every number must be that of the
sweep that was left alone, and what had finished before a kill must not have changed.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import signal
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from regrow import SET, RigL
from regrow.lab.record_files import RESULT
from regrow.lab.records import RUNNING, TRIALS, Records
from regrow.lab.run import METRICS
from regrow.lab.sweep import sweep
from regrow.studies.supervised.classify import Classify
from regrow.training.train import WEIGHTS
from tests.fuzz.budget import main


@dataclass(frozen=True, kw_only=True)
class Training(Classify):
    """A short training that saves a checkpoint after every epoch."""

    def run(self, run):
        run.save_every = 0.0
        return super().run(run)


_SMALL = {"data": "digits", "model": "mlp-16-8", "epochs": 5, "samples": 400, "batch": 50}
TRIALS_OF_ALL = [
    Training(seed=seed, method=method(density=0.3, update_every=3), **_SMALL)
    for seed in (0, 1)
    for method in (SET, RigL)
]
_OPTIONS = {"device": "cpu", "data_dir": None, "keep_weights": True}


def _sweep(out: Path, executor: str) -> None:
    found = sweep(TRIALS_OF_ALL, out, options=_OPTIONS, executor=executor, jobs=2)
    assert not found.failed, found.failed


def _start(out: Path, executor: str) -> int:
    """Run the sweep in a group of its own, in a fork: torch takes long to import."""
    if child := os.fork():
        return child
    status = 1
    try:
        os.setsid()
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 2)
        _sweep(out, executor)
        status = 0
    finally:
        os._exit(status)


@functools.cache
def _whole() -> tuple[dict[str, tuple], float]:
    """What the sweep finds if nothing happens to it, and how long it takes."""
    with tempfile.TemporaryDirectory(prefix="fuzz-kills-") as top:
        _sweep(Path(top), "inline")
        began = time.monotonic()
        _sweep(Path(top) / "again", "inline")
        return _data(Path(top)), time.monotonic() - began


def _data(out: Path) -> dict[str, tuple]:
    """All that was found, bit for bit, but for the seconds it took."""
    found = {}
    for record in Records.read(out):  # raises if one is damaged
        result = dict(record.result)
        del result["train_seconds"]
        weights = torch.load(record.folder / WEIGHTS, weights_only=True)
        shown = repr([(name, one.tolist()) for name, one in weights["model"].items()])
        metrics = (record.folder / METRICS).read_bytes()
        found[record.identity] = (json.dumps(result, sort_keys=True), metrics, shown)
    return found


def _finished(out: Path) -> dict[str, bytes]:
    """The records that are there: folders appear whole."""
    return {path.name: (path / RESULT).read_bytes() for path in (out / TRIALS).glob("*")}


def _under_way(out: Path) -> bool:
    """Whether a trial is running: it is in training, or about to be moved to where it counts."""
    return any(path.exists() for path in (out / RUNNING).glob(f"*/{METRICS}"))


def _killed(out: Path, executor: str, rng: random.Random) -> bool:
    """Start the sweep and kill it; say whether a trial was running then, beyond its start."""
    process = _start(out, executor)
    while not _under_way(out) and not os.waitid(os.P_PID, process, _LOOK):
        time.sleep(0.001)
    time.sleep(rng.uniform(0, _whole()[1] / 3))  # of a sweep: it goes on from kill to kill
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    assert status == 0 or os.WIFSIGNALED(status), "the sweep failed"
    return bool(status) and _under_way(out)


_LOOK = os.WEXITED | os.WNOHANG | os.WNOWAIT


def _worker_dies(out: Path, rng: random.Random) -> bool:
    """Kill one of the processes that run trials; the sweep must end all the same."""
    process = _start(out, "local")
    while not _under_way(out) and not os.waitid(os.P_PID, process, _LOOK):
        time.sleep(0.001)
    time.sleep(rng.uniform(0, _whole()[1] / 3))
    workers = [int(word) for word in _children(process)]
    hit = _under_way(out)
    if workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(rng.choice(workers), signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    assert status == 0, "the sweep failed when one of its processes died"
    return bool(workers) and hit


def _children(process: int) -> list[str]:
    """List the processes that run trials: all children but the one that keeps count of files."""
    with contextlib.suppress(OSError):
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
        return [
            child
            for child in children
            if b"resource_tracker" not in Path(f"/proc/{child}/cmdline").read_bytes()
        ]
    return []


def case(rng: random.Random) -> str:
    """Kill a sweep up to four times while a trial runs; look at what is there, and let it end."""
    whole, _ = _whole()
    executor = rng.choices(["inline", "local", "worker"], [14, 1, 1])[0]
    with tempfile.TemporaryDirectory(prefix="fuzz-kills-", ignore_cleanup_errors=True) as top:
        out, finished, hits = Path(top), {}, 0
        while hits < 4 and len(finished) < len(whole):
            if executor == "worker":
                hits += _worker_dies(out, rng)
            else:
                hits += _killed(out, executor, rng)
            assert finished.items() <= _finished(out).items(), "a finished record is lost"
            assert _data(out).items() <= whole.items(), "a record is not what it should be"
            finished = _finished(out)
        _sweep(out, "inline")
        assert _data(out) == whole, "not the records of a sweep that was left alone"
        assert finished.items() <= _finished(out).items(), "a finished record was run again"
    return f"with {hits} hits of {executor}"


if __name__ == "__main__":
    main("kills", case, budget=500)
