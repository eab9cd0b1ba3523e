"""Trainings, populations and sweeps on two GPUs: the scenarios of tests/training/test_ranks.py."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
import torch

from regrow.lab.records import Records
from regrow.lab.sweep import sweep
from regrow.studies.control import together
from tests.ranks import on_ranks
from tests.studies.test_preference_noise import short
from tests.training import test_ranks as ranks
from tests.training.rank_failing import Where, failing
from tests.training.rank_training import ALIKE, SYSTEMS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA GPUs"),
]


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training-ranks")
    ranks.fill(folder, "cuda", ranks.by_torchrun)
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


@pytest.mark.parametrize("name", ["first dies", "second dies"])
def test_a_rank_killed_in_an_update_leaves_what_goes_on(told, tmp_path, name):
    """The other would wait in NCCL for ten minutes."""
    ranks.check_torchrun_ends_the_others(told, tmp_path, "cuda", name)


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


def test_a_sweep_is_spread_over_the_gpus(tmp_path):
    found = sweep([Where(seed=n) for n in range(4)], tmp_path, jobs=2)
    assert len(found.finished) == 4, found.failed[0].error
    used = {record.config["seed"]: record.result["gpu"] for record in Records.read(tmp_path)}
    gpus = torch.cuda.device_count()
    assert used == {n: n % gpus for n in range(4)}
