"""Sweeps lose nothing: failures, deaths, kills at any moment, two at once, a full disk."""

import functools
import json
import os
import random
import signal
import sys
import time
from dataclasses import dataclass

import pytest
import torch
from toy_study import STUDY
from toy_trials import Walk, walks

from regrow.lab import attempt as module
from regrow.lab import executors
from regrow.lab.attempt import attempt, shares
from regrow.lab.records import FAILED, RUNNING, TRIALS, Records
from regrow.lab.run import METRICS, PROGRESS
from regrow.lab.sweep import sweep
from regrow.studies.registry import STUDIES
from tests.ranks import begin, command, on_ranks

FILES = {"config.json", "environment.json", METRICS, "result.json"}


def contents(out):
    """What every finished trial found, apart from seconds and surroundings."""
    return {
        path.name: {name: (path / name).read_bytes() for name in FILES - {"environment.json"}}
        for path in (out / TRIALS).iterdir()
    }


def assert_whole(out):
    for path in (out / TRIALS).iterdir():
        assert {file.name for file in path.iterdir()} == FILES
        assert json.loads((path / "result.json").read_text())
    for path in (out / RUNNING).iterdir():
        assert path.suffix == ".lock" or path.is_dir()


@pytest.mark.parametrize("executor", ["inline", "local"])
def test_what_is_finished_is_skipped(tmp_path, executor):
    trials = walks(3)
    told = []
    first = sweep(trials, tmp_path, executor=executor, tell=told.append)
    assert (len(first.skipped), len(first.finished), len(first.failed)) == (0, 3, 0)
    assert {outcome.trial for outcome in told} == set(trials)
    before = contents(tmp_path)
    again = sweep([*trials, Walk(seed=7)], tmp_path, executor=executor)
    assert (len(again.skipped), len(again.finished)) == (3, 1)
    assert before.items() <= contents(tmp_path).items()
    assert_whole(tmp_path)


def test_equal_trials_run_once(tmp_path):
    found = sweep([Walk(seed=1), Walk(seed=1)], tmp_path, executor="inline")
    assert len(found.finished) == 1


@pytest.mark.parametrize("executor", ["inline", "local"])
@pytest.mark.parametrize(
    ("ends", "said"),
    [("raises", "ZeroDivisionError"), ("full", "No space left"), ("memory", "CUDA out of memory")],
)
def test_a_trial_that_fails_is_recorded_and_the_others_go_on(tmp_path, executor, ends, said):
    trials = [*walks(2), Walk(seed=5, name="bad", ends=ends), Walk(seed=6)]
    found = sweep(trials, tmp_path, executor=executor, jobs=2)
    assert len(found.finished) == 3
    [failure] = found.failed
    assert said in failure.error
    record = json.loads((tmp_path / FAILED / f"{failure.trial.identity}.json").read_text())
    assert said in record["error"] and "toy_trials" in record["error"]
    assert record["config"]["name"] == "bad"
    assert len(Records.read(tmp_path)) == 3
    assert_whole(tmp_path)


def test_a_trial_that_failed_is_tried_again_and_goes_on_from_its_checkpoint(tmp_path):
    options = {"mended": str(tmp_path / "mended")}
    trial = Walk(seed=2, ends="mends")
    assert sweep([trial], tmp_path / "out", options=options, executor="inline").failed
    found = sweep([trial], tmp_path / "out", options=options, executor="inline")
    assert found.finished
    assert not (tmp_path / "out" / FAILED / f"{trial.identity}.json").exists()
    [record] = Records.read(tmp_path / "out")
    assert [line["step"] for line in record.metrics()] == [1, 2, 3, 4, 5, 6]


def test_a_process_that_dies_drags_nobody_along(tmp_path):
    bad = Walk(seed=9, name="bad", ends="dies")
    trials = [*walks(3, pause=0.02), bad, *[Walk(seed=s, pause=0.02) for s in (4, 5)]]
    found = sweep(trials, tmp_path, executor="local", jobs=2)
    assert [outcome.trial for outcome in found.failed] == [bad]
    assert "died 2 times" in found.failed[0].error
    assert len(found.finished) == 5
    assert_whole(tmp_path)


@pytest.mark.long
def test_a_process_that_has_grown_and_is_replaced_holds_nobody_up(tmp_path):
    """joblib stops processes that grew, and warned of it in a thread: as an error, that hung."""
    trials = [Walk(seed=seed, steps=1, ends="keeps", pause=0.6) for seed in range(10)]
    assert len(sweep(trials, tmp_path, executor="local", jobs=2).finished) == 10
    assert_whole(tmp_path)


@pytest.mark.parametrize(("gpus", "taken"), [(0, []), (1, []), (3, [0, 1, 2, 0, 1])])
def test_trials_side_by_side_are_spread_over_the_gpus(tmp_path, monkeypatch, gpus, taken):
    seen = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "set_device", seen.append)
    for number, trial in enumerate(walks(5)):
        assert executors._on_gpu(number, trial, tmp_path, {}).status == "finished"
    assert seen == taken


def test_a_disk_too_full_even_for_the_failure_is_told(tmp_path, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device")

    (tmp_path / RUNNING).mkdir()
    monkeypatch.setattr(module, "write_json", full)
    found = sweep(walks(2), tmp_path, executor="inline")
    assert len(found.failed) == 2
    assert all("No space left" in outcome.error for outcome in found.failed)
    monkeypatch.undo()
    assert len(sweep(walks(2), tmp_path, executor="inline").finished) == 2


def test_a_folder_nobody_may_write_to_is_a_failure_of_each_trial(tmp_path):
    blocked = tmp_path / "out"
    blocked.write_text("a file")
    outcome = attempt(Walk(seed=1), blocked, {})
    assert outcome.status == "failed"
    assert "out" in outcome.error


@dataclass(frozen=True, kw_only=True)
class Picky(Walk):
    """Refuses what it was asked for, before it begins or after its first step."""

    late: bool = False

    def run(self, run):
        if self.late:
            run.tell(0.1)
        raise FileNotFoundError("tea.csv: no such file")


def test_what_whoever_asked_can_mend_is_raised_and_nothing_is_kept(tmp_path):
    """A mistyped file was a failed trial with a traceback."""
    with pytest.raises(FileNotFoundError, match=r"tea\.csv"):
        attempt(Picky(seed=1), tmp_path, {}, lets_out=True)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"]
    for trial, lets_out in ((Picky(seed=1), False), (Picky(seed=1, late=True), True)):
        assert attempt(trial, tmp_path, {}, lets_out=lets_out).status == "failed"
    bug = Walk(seed=1, ends="raises")
    assert attempt(bug, tmp_path, {}, lets_out=True).status == "failed"


def test_what_was_begun_before_is_kept_when_a_mistake_is_made_later(tmp_path, monkeypatch):
    trial = Walk(seed=1, ends="raises")
    attempt(trial, tmp_path, {})
    before = (tmp_path / RUNNING / trial.identity / "checkpoint.pt").read_bytes()
    monkeypatch.setattr(Walk, "run", Picky.run)
    monkeypatch.setattr(Walk, "late", False, raising=False)
    with pytest.raises(FileNotFoundError):
        attempt(trial, tmp_path, {}, lets_out=True)
    assert (tmp_path / RUNNING / trial.identity / "checkpoint.pt").read_bytes() == before


def walk(out, n, steps, pause):
    sweep(walks(n, steps=steps, pause=pause), out, executor="inline")


def kill(process):
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:  # it does not lead its group yet
        process.kill()
    process.join()


def test_only_what_has_told_something_since_is_under_way(tmp_path):
    """What an earlier sweep left unfinished counted as running."""
    trials, now = walks(3), time.time()
    for trial, when in zip(trials[:2], (now - 100, now), strict=True):
        path = tmp_path / RUNNING / trial.identity / PROGRESS
        path.parent.mkdir(parents=True)
        path.write_text('{"done": 0.25, "words": ""}')
        os.utime(path, (when, when))
    assert shares(trials, tmp_path, now - 1) == [0.25]


def test_a_trial_that_failed_is_under_way_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr("regrow.lab.run._TELL_EVERY", 0.0)
    trial = Walk(seed=1, ends="raises")
    assert attempt(trial, tmp_path, {}).status == "failed"
    assert shares([trial], tmp_path, 0) == []


def test_what_a_killed_write_left_is_no_part_of_the_record(tmp_path):
    """A checkpoint killed half way lay hidden in the finished trial's folder."""
    folder = tmp_path / RUNNING / Walk(seed=1).identity
    folder.mkdir(parents=True)
    (folder / ".checkpoint.pt.abc.part").write_bytes(b"half")
    assert attempt(Walk(seed=1), tmp_path, {}).status == "finished"
    assert_whole(tmp_path)


def study(out, executor):
    """Give the command that runs the toy study."""
    STUDIES["toy"] = "toy_study:STUDY"
    words = ["study", "run", "toy", "--preset", "smoke", "--data", "slow"]
    command(*words, "--executor", executor, "--jobs", "2", "--out", out)


@pytest.mark.long
def test_killed_at_any_moment_nothing_is_lost_and_nothing_is_half(tmp_path):
    """The same command, killed at random moments, ends with the records of one run."""
    whole, out = tmp_path / "whole", tmp_path / "killed"
    begun = functools.partial(begin, study, out, output=tmp_path)
    trials = [one.trial for one in STUDY.trials("smoke", "slow")]
    options = {"device": "auto", "data_dir": None}
    sweep(trials, whole, executor="inline", options=options)
    rng, finished = random.Random(0), set()
    for wanted in (0, 1, 4, 8, 12):  # finished trials, and then a random moment
        process = begun(rng.choice(["inline", "local"]))
        while len(finished) < wanted and process.is_alive():
            time.sleep(0.02)
            finished = {path.name for path in (out / TRIALS).glob("*")}
        time.sleep(rng.uniform(0, 0.3))
        kill(process)
        if (out / TRIALS).exists():
            assert_whole(out)
            now = {path.name for path in (out / TRIALS).iterdir()}
            assert finished <= now
            finished = now
    assert 12 <= len(finished) < len(trials)
    process = begun("inline")
    process.join(120)
    assert process.exitcode == 0, (tmp_path / "err-0").read_text()
    assert f"{len(finished)} were finished before" in (tmp_path / "out-0").read_text()
    assert contents(out) == contents(whole)
    assert (out / "report.html").read_text("utf-8").endswith("</html>")


@pytest.mark.slow
def test_two_sweeps_on_one_folder_share_the_work(tmp_path):
    for ended in on_ranks(walk, tmp_path, 6, 10, 0.02):
        assert ended.returncode == 0, ended.stderr
    assert len(Records.read(tmp_path)) == 6
    assert_whole(tmp_path)
    whole = tmp_path / "whole"
    sweep(walks(6, steps=10, pause=0.02), whole, executor="inline")
    assert contents(tmp_path) == contents(whole)


def test_a_trial_another_process_is_at_is_left_to_it(tmp_path):
    process = begin(walk, tmp_path, 1, 30, 0.1, output=tmp_path)
    trial = Walk(seed=0, steps=30, pause=0.1)
    while not (tmp_path / RUNNING / trial.identity).exists():
        time.sleep(0.05)
    assert attempt(trial, tmp_path, {}).status == "busy"
    kill(process)
    assert attempt(trial, tmp_path, {}).status == "finished"


@pytest.mark.long
@pytest.mark.slow
def test_ray_finds_what_local_processes_find(tmp_path):
    ray = pytest.importorskip("ray", reason="needs the extra regrow[ray]")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        trials = [*walks(3), Walk(seed=5, name="bad", ends="raises")]
        on_ray = sweep(trials, tmp_path / "ray", executor="ray", jobs=2)
        dying = sweep([Walk(seed=8, ends="dies")], tmp_path / "ray", executor="ray")
        here = sweep(trials, tmp_path / "local", executor="local", jobs=2)
    finally:
        ray.shutdown()
    assert len(on_ray.finished) == len(here.finished) == 3
    assert [outcome.trial for outcome in on_ray.failed] == [trials[-1]]
    assert "ZeroDivisionError" in on_ray.failed[0].error
    assert "died 2 times" in dying.failed[0].error
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")


def test_without_the_extra_the_error_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"pip install ray, or pip install .\.\[ray\]."):
        sweep(walks(1), tmp_path, executor="ray")
