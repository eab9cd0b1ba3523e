"""Two GPUs under NCCL are one process: the scenarios of tests/engine/test_distributed.py again."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from tests.engine import test_distributed as engine
from tests.engine.conftest import check_same as same

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA GPUs"),
]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return engine.launch(tmp_path_factory.mktemp("ranks"), "nccl", "cuda", limit=280)


@pytest.mark.parametrize("scenario", engine.named("ddp"))
def test_two_gpus_under_ddp_are_one_process(ranks, scenario):
    engine.check_ddp(ranks, scenario, same)


@pytest.mark.parametrize("scenario", engine.named("fsdp"))
def test_two_gpus_under_fsdp_are_one_process(ranks, scenario):
    engine.check_fsdp(ranks, scenario, same)


def test_a_sharded_model_tells_and_chooses_as_a_whole_one(ranks):
    engine.check_odds_and_ends(ranks, same)


def test_all_ranks_refuse_what_one_cannot_do(ranks):
    engine.check_bad_numbers(ranks)


@pytest.mark.parametrize(("rate", "status"), [("0.1", 0), ("1e9", 1)])
def test_the_command_trains_on_two_gpus_or_fails_on_both(tmp_path, rate, status):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "-m", "regrow", "train", "--device", "cuda"]
    command += ["--epochs", "3", "--learning-rate", rate, "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == status, done.stderr
    assert "cuda on 2 ranks" in done.stdout
    assert len(list((tmp_path / ("failed" if status else "trials")).iterdir())) == 1
