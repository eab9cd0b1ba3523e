"""Corruptions are the same on a GPU: what is random, and what is done with it."""

import pytest
import torch

from regrow.vision.corruptions import CORRUPTIONS, EXTRA, corrupt
from regrow.vision.corruptions.draws import Draws

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def test_a_gpu_draws_the_same_numbers():
    here, there = (Draws(("test",), torch.arange(9, device=device)) for device in ("cpu", "cuda"))
    for draw in ("words", "uniform", "normal"):
        assert torch.equal(getattr(here, draw)(1000), getattr(there, draw)(1000).cpu())


@pytest.mark.parametrize("name", CORRUPTIONS + EXTRA)
def test_a_gpu_corrupts_alike(name):
    images = torch.rand(4, 3, 20, 32, generator=torch.Generator().manual_seed(0))
    images = torch.nn.functional.avg_pool2d(images, 3, 1, 1)
    here, there = corrupt(images, name, 3), corrupt(images.cuda(), name, 3)
    assert there.is_cuda
    difference = (here - there.cpu()).abs()
    # Sums are taken in another order: steps that a value just misses here may be taken there.
    assert float(difference.mean()) < 1e-3
    assert float((difference > 0.02).float().mean()) < 0.01
