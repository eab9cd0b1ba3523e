"""Trainings, populations and sweeps on two GPUs: the scenarios of tests/training/test_ranks.py."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, replace

import pytest
import torch

from regrow.engine.ranks import rank_and_ranks
from regrow.lab.run import CHECKPOINT
from regrow.lab.sweep import sweep
from regrow.lab.trial import Trial
from regrow.studies.control import together
from tests.ranks import on_ranks
from tests.studies.test_preference_noise import short
from tests.training import test_ranks as ranks
from tests.training.rank_failing import failing
from tests.training.rank_training import ALIKE, SYSTEMS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA GPUs"),
]


def by_torchrun(folder, device, *names):
    """Run trainings on two GPUs as users do; return what was said if they failed."""
    words = (folder, device, *names)
    done = ranks.torchrun(*words, module="tests.training.rank_training", limit=200)
    return done.stderr if done.returncode else ""


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training-ranks")
    ranks.fill(folder, "cuda", by_torchrun)
    shutil.copytree(folder / "second dies", folder / "first dies")
    return folder


@pytest.mark.parametrize("name", SYSTEMS)
def test_two_gpus_have_the_same_masks_after_every_update(told, name):
    ranks.check_alike(told, name)


@pytest.mark.parametrize("name", ALIKE)
def test_two_gpus_find_what_one_finds(told, name):
    ranks.check_one(told, name, name, 2)


@pytest.mark.parametrize(("resumed", "on"), [("from one", 2), ("from two", 1)])
def test_a_checkpoint_of_one_number_of_gpus_goes_on_on_another(told, resumed, on):
    ranks.check_one(told, ranks.WHOLE, resumed, on)


@pytest.mark.parametrize("name", ["second dies", "first dies"])
def test_a_rank_killed_in_an_update_leaves_what_goes_on(told, name):
    """Torchrun ends the other, which would wait in NCCL for ten minutes."""
    before = (told / name / CHECKPOINT).read_bytes()
    began = time.monotonic()
    said = by_torchrun(told, "cuda", name)
    assert "Signal 9 (SIGKILL)" in said
    assert time.monotonic() - began < 90
    ranks.check_dead(told, name, before)
    (told / name).rename(told / "resumed")
    for old in told.glob("resumed-*.pt"):
        old.unlink()
    assert not by_torchrun(told, "cuda", "resumed")
    ranks.check_resumed(told, "resumed")
    (told / "resumed").rename(told / f"{name}, resumed")


@pytest.mark.parametrize("wrong", [0, 1])
def test_a_rank_that_fails_alone_does_not_keep_the_other_waiting(tmp_path, wrong):
    """The next trial trains on both again."""
    began = time.monotonic()
    for rank in on_ranks(failing, tmp_path, "cuda", wrong, limit=150):
        assert rank.returncode == 0, rank.stderr
    said = (tmp_path / "said").read_text()
    assert "ZeroDivisionError: this rank has had enough" in said
    assert ("on rank 1:" in said) == (wrong == 1)
    assert (tmp_path / "next").read_text() == "4.0"
    assert time.monotonic() - began < 100


def test_populations_on_two_gpus_have_the_results_of_one(tmp_path):
    white = [t for t in short() if t.noise and t.noise_kind == "gaussian"]
    trials = [t for t in white if t.method in ("r2n", "static") and t.reward != "true"]
    trials += [replace(t, seed=t.seed + 1) for t in trials]
    assert together._devices({}) == [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    ((_, one),) = together.train_together(trials, tmp_path, {"device": "cuda:0"})
    apart = list(together.train_together(trials, tmp_path, {"device": "cuda"}))
    assert len(apart) == min(len(trials), torch.cuda.device_count())
    found = {name: result for _, more in apart for name, result in more["results"].items()}
    assert found.keys() == one["results"].keys()
    for name, result in one["results"].items():
        for key in ("returns", "late_returns", "real_features"):
            assert found[name][key] == pytest.approx(result[key], rel=1e-2), key
        assert found[name]["comparisons"] == result["comparisons"]


@dataclass(frozen=True, kw_only=True)
class Where(Trial):
    """Tells on which GPU it computes, and takes long enough that others run beside it."""

    def run(self, run):
        x = torch.ones(8, device="cuda")
        time.sleep(1)
        assert rank_and_ranks() == (0, 1)
        return {"gpu": x.device.index, "sum": float(x.sum())}


def test_a_sweep_is_spread_over_the_gpus(tmp_path):
    found = sweep([Where(seed=n) for n in range(4)], tmp_path, jobs=2)
    assert len(found.finished) == 4, found.failed[0].error
    from regrow.lab.records import Records

    used = {record.config["seed"]: record.result["gpu"] for record in Records.read(tmp_path)}
    gpus = torch.cuda.device_count()
    assert used == {n: n % gpus for n in range(4)}
