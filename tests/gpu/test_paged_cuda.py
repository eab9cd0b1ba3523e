"""On a GPU: bitsandbytes' paged optimizers, which on a CPU fall back to unpaged ones."""

import pytest
import torch
from torch import nn

import regrow
from regrow.engine.moments import slots

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")

WIDTH = 320  # state of fewer than 100,000 weights is not paged


def begin(name, method):
    optimizers = pytest.importorskip("bitsandbytes.optim", reason="needs bitsandbytes")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH)).cuda()
    options = {"min_8bit_size": 1} if name.endswith("8bit") else {}
    optimizer = getattr(optimizers, name)(model.parameters(), lr=1e-3, **options)
    return model, optimizer, regrow.sparsify(model, optimizer, method, total_steps=1000)


def take_step(model, optimizer):
    inputs = torch.randn(32, WIDTH, device="cuda")
    optimizer.zero_grad()
    (model(inputs) - inputs).square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize("name", ["PagedAdamW8bit", "PagedAdam8bit", "PagedLion8bit", "PagedAdamW"])
def test_grown_weights_find_zeros_and_move_as_far_as_others(name):
    method = regrow.RigL(density=0.3, update_every=5, drop_fraction=0.5, stop_at=1.0)
    model, optimizer, sparse = begin(name, method)
    for step in range(20):
        before, was = sparse.masks, [w.detach().clone() for w in sparse.weights()]
        take_step(model, optimizer)
        for (key, mask), old in zip(sparse.masks.items(), was, strict=True):
            weight, grown = model.get_parameter(key), mask & ~before[key]
            assert getattr(optimizer.state[weight]["state1"], "is_paged", False)
            assert not weight[~mask].any()
            assert int(mask.sum()) == int(before[key].sum())
            assert (weight - old)[mask & before[key]].abs().max() <= 6e-3  # six learning rates
            if sparse.history and sparse.history[-1].step == step + 1:
                assert grown.any()
                found = [slot.to("cuda") for slot in slots(optimizer, weight).values()]
                assert found
                assert not any(slot[grown].any() for slot in found)
                assert all(slot[mask & ~grown].any() for slot in found)
    assert len(sparse.history) == 4


@pytest.mark.parametrize("name", ["PagedAdamW8bit", "PagedAdamW"])
@pytest.mark.parametrize("kind", ["SNFS", "SET"])
def test_moments_on_the_host_are_read_where_the_weights_are(name, kind):
    """SNFS grows by momentum; means of squares are taken over survivors."""
    on_grow = "mean" if kind == "SET" else "zero"
    chosen = regrow.METHODS[kind](density=0.3, update_every=5, stop_at=1.0, on_grow=on_grow)
    model, optimizer, sparse = begin(name, chosen)
    for _ in range(20):
        take_step(model, optimizer)
        assert all(not model.get_parameter(n)[~mask].any() for n, mask in sparse.masks.items())
    assert len(sparse.history) == 4
    assert all(bool(weight.isfinite().all()) for weight in sparse.weights())
