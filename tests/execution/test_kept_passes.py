"""Stored layers grow by the gradient that the optimizer sees: masks on the same run are the oracle.

A dense gradient is gathered from backward passes, and not every pass has a part in it.
"""

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import regrow
from regrow.engine.patterns import Block

ATTACK_STEPS = 3


def draw(number):
    return torch.randn(9, 12, generator=torch.Generator().manual_seed(number))


def loss_of(model, x):
    return (model(x) - 1).square().mean()


def plain(model, step):
    loss_of(model, draw(step)).backward()


def summed(model, step):
    for part in range(3):
        loss_of(model, draw(3 * step + part)).backward()


def thrown_away(model, step):
    loss_of(model, 10 * draw(1000 + step)).backward()
    model.zero_grad()
    plain(model, step)


def thrown_away_in_place(model, step):
    loss_of(model, 10 * draw(1000 + step)).backward()
    model.zero_grad(set_to_none=False)
    summed(model, step)


def scaled_down_between(model, step):
    plain(model, step)
    for parameter in model.parameters():
        parameter.grad *= 0.5  # written, and not cleared
    loss_of(model, draw(1000 + step)).backward()


def attacked(model, step):
    x = draw(step)
    for _ in range(ATTACK_STEPS):
        x = x.detach().requires_grad_()
        x = x + 0.3 * torch.autograd.grad(loss_of(model, x), x)[0].sign()
    loss_of(model, x.detach()).backward()


def by_hand(model, step):
    parameters = list(model.parameters())
    parts = [torch.autograd.grad(loss_of(model, draw(7 * step + i)), parameters) for i in range(2)]
    for parameter, *gradients in zip(parameters, *parts, strict=True):
        parameter.grad = sum(gradients)


def around_a_checkpoint(model, step):
    x = draw(step).requires_grad_()
    inside = checkpoint(model[:2], model[:2](x), use_reentrant=True)
    (model[2](model[:2](inside)) - 1).square().mean().backward()


PASSES = [
    plain,
    summed,
    thrown_away,
    thrown_away_in_place,
    attacked,
    by_hand,
    around_a_checkpoint,
]


def train(execution, passes, steps=10):
    """Train twelve inputs' network; return the masks after every step."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    pattern = {"pattern": Block(2)} if execution.endswith("block") else {}
    method = regrow.RigL(density=0.3, update_every=2, stop_at=1.0, drop_fraction=0.5, **pattern)
    stored = "masked" if execution.startswith("masked") else execution
    sparse = regrow.sparsify(model, optimizer, method, total_steps=steps, execution=stored)
    seen = []
    for step in range(steps):
        optimizer.zero_grad()
        passes(model, step)
        optimizer.step()
        seen.append(sparse.masks)
    assert len(sparse.history) == steps // 2 - 1
    return seen


def assert_same(one, other):
    for step, (a, b) in enumerate(zip(one, other, strict=True)):
        for name in a:
            assert torch.equal(a[name], b[name]), (step, name)


@pytest.mark.parametrize("execution", ["csr", "block"])
@pytest.mark.parametrize("passes", PASSES)
def test_growth_reads_the_passes_that_the_gradient_is_the_sum_of(execution, passes):
    masked = "masked block" if execution == "block" else "masked"
    assert_same(train(execution, passes), train(masked, passes))


@pytest.mark.parametrize("execution", ["csr", "block"])
def test_a_gradient_that_was_written_between_two_passes_still_has_both(execution):
    # Growth cannot know by what the first part was multiplied, only that it was not cleared: the
    # sum of both is what clipping or unscaling between passes leaves it.
    assert_same(train(execution, scaled_down_between), train(execution, added_alike))


def added_alike(model, step):
    plain(model, step)
    firsts = [parameter.grad.clone() for parameter in model.parameters()]
    loss_of(model, draw(1000 + step)).backward()
    for parameter, first in zip(model.parameters(), firsts, strict=True):
        parameter.grad -= 0.5 * first


@pytest.mark.parametrize("execution", ["csr", "block"])
@pytest.mark.parametrize("skipped", [{1}, {2, 3}, {4}])
def test_batches_that_gradscaler_skips_leave_nothing_behind(execution, skipped):
    def run(stored):
        scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 4))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        pattern = {"pattern": Block(2)} if execution == "block" else {}
        method = regrow.RigL(density=0.3, update_every=2, stop_at=1.0, drop_fraction=0.5, **pattern)
        sparse = regrow.sparsify(model, optimizer, method, total_steps=10, execution=stored)
        seen = []
        for step in range(10):
            optimizer.zero_grad()
            loss = loss_of(model, draw(step)) * (float("inf") if step in skipped else 1)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            seen.append(sparse.masks)
        assert sparse.steps == 10 - len(skipped)
        return seen

    assert_same(run(execution), run("masked"))


def test_copies_leave_the_passes_behind():
    model = nn.Sequential(nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    method = regrow.RigL(density=0.3, update_every=1)
    sparse = regrow.sparsify(model, optimizer, method, total_steps=10, execution="csr")
    plain(model, 0)
    assert len(model[0].captured) == 1
    twin, *_ = copy.deepcopy((model, optimizer, sparse))
    assert len(twin[0].captured) == 0
    assert len(model[0].captured) == 1
    plain(twin, 0)  # the copy's hooks are its own
    assert len(twin[0].captured) == 1
    assert len(model[0].captured) == 1
