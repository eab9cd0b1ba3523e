"""Samples on two GPUs under NCCL: the scenarios of tests/samples/test_distributed.py again."""

import pytest
import torch

from tests.samples import test_distributed as ranks

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA GPUs"),
]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("samples-ranks")
    ranks.launch(folder, "nccl")
    return [torch.load(folder / f"rank-{rank}", weights_only=True) for rank in range(ranks.WORLD)]


@pytest.mark.parametrize("how", ranks.HOW)
@pytest.mark.parametrize("name", ranks.CRITERIA)
def test_two_gpus_choose_alike_and_go_on_as_they_were(found, name, how):
    ranks.check_whole(found, name, how)
    ranks.check_stopped(found, name, how)


@pytest.mark.parametrize("name", ranks.CRITERIA)
def test_scores_of_two_gpus_are_merged_to_those_of_one_process(found, name):
    ranks.check_known(found, name)


def test_gpus_may_have_other_numbers_of_batches(found):
    ranks.check_lopsided(found)
