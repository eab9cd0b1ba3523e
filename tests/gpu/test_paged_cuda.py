"""On a GPU: bitsandbytes' paged 8-bit optimizers, which on a CPU fall back to unpaged ones."""

import pytest
import torch
from torch import nn

import regrow
from regrow.engine.moments import slots

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


@pytest.mark.parametrize("name", ["PagedAdamW8bit", "PagedAdam8bit", "PagedLion8bit"])
def test_grown_weights_find_zeros_and_move_as_far_as_others(name):
    optimizers = pytest.importorskip("bitsandbytes.optim", reason="needs bitsandbytes")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)).cuda()
    optimizer = getattr(optimizers, name)(model.parameters(), lr=1e-3, min_8bit_size=1)
    method = regrow.RigL(density=0.3, update_every=5, drop_fraction=0.5, stop_at=1.0)
    sparse = regrow.sparsify(model, optimizer, method, total_steps=1000)
    for step in range(20):
        before, was = sparse.masks, [w.detach().clone() for w in sparse.weights()]
        inputs = torch.randn(32, 64, device="cuda")
        optimizer.zero_grad()
        (model(inputs) - inputs).square().mean().backward()
        optimizer.step()
        for (key, mask), old in zip(sparse.masks.items(), was, strict=True):
            weight, grown = model.get_parameter(key), mask & ~before[key]
            assert not weight[~mask].any()
            assert int(mask.sum()) == int(before[key].sum())
            assert (weight - old)[mask & before[key]].abs().max() <= 6e-3  # six learning rates
            if sparse.history and sparse.history[-1].step == step + 1:
                assert grown.any()
                assert not any(slot[grown].any() for slot in slots(optimizer, weight).values())
    assert len(sparse.history) == 4
