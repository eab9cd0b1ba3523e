"""Gradients that were masked, thrown away, hidden, or never came: what updates read then."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

import regrow
from regrow.engine.criteria import AverageGradient, Running
from regrow.engine.scores import Magnitude, Random

RIGL = {"density": 0.3, "regrow_dropped": False}


@pytest.fixture
def start(mlp):
    """start(method): model, optimizer and sparsifier, before the first step."""

    def begin(method, **options):
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        return (
            model,
            optimizer,
            regrow.sparsify(model, optimizer, method, total_steps=40, **options),
        )

    return begin


@pytest.fixture
def loss(batch):
    """loss(model, step): on this step's batch."""

    def compute(model, step):
        inputs, labels = batch(step)
        return functional.cross_entropy(model(inputs), labels)

    return compute


# ---------------------------------------------------------------------- masked, then thrown away


@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize("masks_again", [True, False])
def test_a_batch_thrown_away_after_its_gradients_were_masked_grows_nothing(
    start, loss, assert_same, set_to_none, masks_again
):
    """The next batch is all an update sees, masked or not."""
    runs = []
    for thrown_away in (True, False):
        model, optimizer, sparse = start(regrow.RigL(**RIGL, update_every=1))
        if thrown_away:
            (100 * loss(model, 0)).backward()
            sparse.mask_gradients_()
            optimizer.zero_grad(set_to_none=set_to_none)
        loss(model, 1).backward()
        if masks_again:
            sparse.mask_gradients_()
        optimizer.step()
        runs.append((sparse.masks, sparse.history, dict(model.state_dict())))
    assert len(runs[0][1]) == 1
    assert_same(runs[0][0], runs[1][0])
    assert_same(runs[0][2], runs[1][2])


@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize("masks_always", [True, False])
def test_a_step_that_the_scaler_skips_leaves_no_dense_gradient_behind(
    start, loss, assert_same, set_to_none, masks_always
):
    """Its infinite gradients, kept aside for an update that did not come, would reach the next."""
    runs = []
    for batches in ([0, None, 1, 2], [0, 1, 2]):
        model, optimizer, sparse = start(regrow.RigL(**RIGL, update_every=1))
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=1000)
        for batch in batches:
            optimizer.zero_grad(set_to_none=set_to_none)
            infinite = batch is None
            scaler.scale(loss(model, batch or 0) * (torch.inf if infinite else 1.0)).backward()
            scaler.unscale_(optimizer)
            if masks_always or infinite:
                sparse.mask_gradients_()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
        assert [update.step for update in sparse.history] == [1, 2, 3]
        runs.append((sparse.masks, dict(model.state_dict())))
    assert_same(*runs)


def test_gradients_cleared_in_place_after_a_step_are_kept_aside_as_others_are(
    start, batch, assert_same
):
    """Micro-batches that are masked one by one add up, whoever clears the gradient before them."""
    runs = []
    for masks in (True, False):
        model, optimizer, sparse = start(regrow.RigL(**RIGL, update_every=2, stop_at=1.0))
        model.double()
        for step in range(8):
            optimizer.zero_grad(set_to_none=False)
            for part in range(3):
                inputs, _ = batch(9 * step + part, torch.float64)
                model(inputs).square().mean().backward()
                if masks:
                    sparse.mask_gradients_()
            optimizer.step()
        assert len(sparse.history) == 4
        runs.append((sparse.masks, dict(model.state_dict())))
    assert_same(runs[0][0], runs[1][0])
    torch.testing.assert_close(runs[0][1], runs[1][1])


# ---------------------------------------------------------------------- masked, and not kept


def test_an_update_by_hand_after_masking_between_updates_is_refused(
    start, loss, snapshot, assert_same
):
    """All gradients of inactive weights are zero then: the first in order would grow."""
    run = model, _, sparse = start(regrow.RigL(**RIGL, update_every=10))
    loss(model, 0).backward()
    sparse.mask_gradients_()
    before, masks = snapshot(*run), sparse.masks
    with pytest.raises(
        RuntimeError, match=r"0\.weight, 2\.weight was masked .* update_\(\) before"
    ):
        sparse.update_()
    assert_same(snapshot(*run), before)
    assert_same(sparse.masks, masks)


def test_an_update_by_hand_before_masking_or_with_what_was_kept_is_right(start, loss):
    for update_every, masks in ((10, False), (1, True)):
        model, _, sparse = start(regrow.RigL(**RIGL, update_every=update_every))
        loss(model, 0).backward()
        was, gradient = sparse.masks["0.weight"], model[0].weight.grad.abs().clone()
        if masks:
            sparse.mask_gradients_()
        sparse.update_()
        grown, left = sparse.masks["0.weight"] & ~was, ~sparse.masks["0.weight"] & ~was
        assert grown.any()
        assert gradient[grown].min() >= gradient[left].max()


def test_masked_gradients_are_zero_where_the_dense_one_was_infinite(start, loss):
    model, _, sparse = start(regrow.Static(density=0.3))
    loss(model, 0).backward()
    mask = sparse.masks["0.weight"]
    model[0].weight.grad[~mask] = torch.inf
    sparse.mask_gradients_()
    assert not model[0].weight.grad[~mask].any()


def test_a_step_leaves_no_hook_behind(start, loss):
    model, optimizer, sparse = start(regrow.RigL(**RIGL))
    loss(model, 0).backward()
    sparse.mask_gradients_()
    assert model[0].weight._backward_hooks
    optimizer.step()
    assert not any(parameter._backward_hooks for parameter in model.parameters())


# ---------------------------------------------------------------------- of a sparse layout


class TestSparseLayout:
    """An nn.Embedding(sparse=True) has gradients of the rows it looked up, and of no other."""

    @pytest.mark.parametrize(
        "method",
        [
            regrow.RigL(density=0.3),
            regrow.MEST(density=0.3),
            regrow.TopKAST(density=0.3),
            regrow.Dynamic(density=0.3, drop=Running(Magnitude()), grow=AverageGradient()),
            regrow.Dynamic(density=0.3, grow=Random(), redistribute="gradient"),
        ],
        ids=lambda method: method.name,
    )
    def test_is_refused_at_once_by_methods_that_read_gradients(self, method, assert_same):
        table = nn.Embedding(20, 6, sparse=True)
        optimizer, before = (
            torch.optim.SGD(table.parameters(), lr=0.1),
            table.weight.detach().clone(),
        )
        with pytest.raises(ValueError, match=r"weight is of an Embedding with sparse=True"):
            regrow.sparsify(table, optimizer, method, total_steps=9, include="*")
        assert_same(table.weight.detach(), before)

    @pytest.mark.parametrize("method", ["SET", "GMP"])
    def test_drives_methods_that_do_not(self, method):
        table = nn.Embedding(20, 6, sparse=True)
        optimizer = torch.optim.SparseAdam(table.parameters())
        chosen = regrow.METHODS[method](density=0.3, update_every=2, start_at=0, stop_at=1.0)
        sparse = regrow.sparsify(table, optimizer, chosen, total_steps=9, include="*")
        for step in range(4):
            optimizer.zero_grad()
            table(torch.arange(step, step + 5)).square().sum().backward()
            optimizer.step()
        assert len(sparse.history) == 2
        assert not table.weight[~sparse.masks["weight"]].any()

    def test_cannot_be_masked(self):
        table = nn.Embedding(20, 6, sparse=True)
        optimizer = torch.optim.SGD(table.parameters(), lr=0.1)
        method = regrow.Static(density=0.3)
        sparse = regrow.sparsify(table, optimizer, method, total_steps=9, include="*")
        table(torch.arange(5)).sum().backward()
        with pytest.raises(TypeError, match=r"gradient of weight has a sparse layout"):
            sparse.mask_gradients_()


# ---------------------------------------------------------------------- hidden by another


@pytest.mark.parametrize("average_first", [True, False])
def test_averages_see_steps_that_another_sparsifier_of_the_optimizer_replaces(
    start, loss, assert_same, average_first
):
    """Whichever was registered first: the other's gradients are hidden while hooks run."""
    averages = regrow.Dynamic(density=0.3, grow=AverageGradient(), update_every=30, stop_at=1.0)
    rigl = regrow.RigL(density=0.3, update_every=1, stop_at=1.0)
    model, optimizer, first = start(
        *((averages,) if average_first else (rigl,)),
        include="0.weight" if average_first else "2.weight",
    )
    second = regrow.sparsify(
        model,
        optimizer,
        rigl if average_first else averages,
        total_steps=40,
        include="2.weight" if average_first else "0.weight",
    )
    follower = first if average_first else second
    expected = torch.zeros(16, 12)
    for step in range(5):
        optimizer.zero_grad()
        loss(model, step).backward()
        expected = expected.lerp(model[0].weight.grad, 1 - 0.9)
        optimizer.step()
    running = follower._topology.layers[0].running["grow"]
    torch.testing.assert_close(running, expected)
