"""Attacks on a GPU: within the ball, from the CPU's starts, and without side effects."""

import copy

import pytest
import torch
from torch import nn

from regrow.vision.adversarial import pgd

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("half", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_attacks_stay_within_the_ball_and_leave_the_model_alone(half, layout):
    torch.manual_seed(1)
    images, labels = torch.rand(16, 3, 8, 8), torch.randint(4, (16,))
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(512, 4),
    )
    start = pgd(model, images, labels, steps=0)
    model.cuda()
    images, labels = images.cuda().contiguous(memory_format=layout), labels.cuda()
    before, state = torch.cuda.get_rng_state(), copy.deepcopy(model.state_dict())
    with torch.autocast("cuda", dtype=half, enabled=half is not None):
        found = pgd(model, images, labels)
    assert found.dtype == torch.float32 and found.is_cuda
    assert float((found - images).abs().max()) <= 8 / 255 + 1e-6
    assert torch.cuda.get_rng_state().equal(before)
    assert all(value.equal(state[name]) for name, value in model.state_dict().items())
    torch.testing.assert_close(pgd(model, images, labels, steps=0).cpu(), start, rtol=0, atol=1e-6)
