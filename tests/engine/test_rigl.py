"""RigL against the rules of its released code (reference page, section 5.5)."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch.nn import functional

import regrow
from regrow.engine.allocation import Uniform
from regrow.engine.moments import slots

HALF = {"density": 0.5, "allocation": Uniform()}


def released_rigl(weight, mask, gradient, fraction):
    """google-research/rigl, sparse_optimizers_base.py, without its noise: (mask, new)."""
    n_ones = int(mask.sum())
    n_prune = int(n_ones * fraction)
    drop_score = np.abs(weight * mask)
    mask1 = np.zeros_like(mask)
    mask1[np.argsort(-drop_score, kind="stable")[: n_ones - n_prune]] = True
    grow_score = np.abs(gradient)
    lifted = np.where(mask1, grow_score.min() - 1, grow_score)
    mask2 = np.zeros_like(mask)
    mask2[np.argsort(-lifted, kind="stable")[:n_prune]] = True
    assert not (mask1 & mask2).any()
    return mask1 | mask2, mask2 & ~mask


class TestRigL:
    @pytest.mark.parametrize("closure", [None, "keyword", "positional"])
    def test_an_update_is_that_of_the_released_code(
        self, before_update, any_optimizer, call_step, closure, assert_same
    ):
        model, optimizer, sparse = before_update(any_optimizer)
        masks, old = sparse.masks, copy.deepcopy((model.state_dict(), optimizer.state_dict()))
        call_step(model, optimizer, 7, closure)
        assert [update.step for update in sparse.history] == [4, 8]
        new = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
        for place, (name, parameter) in enumerate(model.named_parameters()):
            if name not in masks:
                continue
            arrays = (old[0][name], masks[name], parameter.grad)
            mask, grown = (
                torch.from_numpy(found).reshape(parameter.shape)
                for found in released_rigl(*(array.numpy().ravel() for array in arrays), 0.5)
            )
            assert sparse.masks[name].equal(mask)
            assert grown.any()
            # Grown weights start at zero, regrown ones keep their value.
            old[0][name] *= mask & masks[name]
            for slot in slots(optimizer, parameter):
                old[1]["state"][place][slot][grown] = 0
        # Nothing else changed: no bias, no momentum of any other weight, no step count.
        assert_same(new, old)

    def test_gradients_are_as_before_the_step_that_was_replaced(self, before_update, batch):
        model, optimizer, _ = before_update(lambda p: torch.optim.SGD(p, lr=0.1))
        inputs, labels = batch(7)
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs), labels).backward()
        gradients = [parameter.grad.clone() for parameter in model.parameters()]
        optimizer.step()
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            assert parameter.grad.equal(gradient)

    def test_a_closure_returns_its_loss_at_an_update(self, before_update):
        _, optimizer, sparse = before_update(lambda p: torch.optim.SGD(p, lr=0.1))
        weight = sparse.weights()[0]

        def closure():
            weight.grad = torch.ones_like(weight)
            return torch.tensor(3.5)

        assert optimizer.step(closure) == 3.5
        assert len(sparse.history) == 2

    def test_a_closure_that_is_evaluated_twice_accumulates_as_ever(self, mlp, batch):
        class Twice(torch.optim.Optimizer):
            def step(self, closure):
                closure()
                return closure()

        model = mlp()
        optimizer = Twice(model.parameters(), {})
        regrow.sparsify(model, optimizer, regrow.RigL(**HALF, update_every=1), total_steps=9)
        loss = functional.cross_entropy(model(batch(0)[0]), batch(0)[1])
        (once,) = torch.autograd.grad(loss, [model[0].weight], retain_graph=True)

        def closure():
            loss.backward(retain_graph=True)
            return loss

        optimizer.step(closure)
        assert model[0].weight.grad.equal(2 * once)

    def test_a_unit_regrown_at_once_keeps_its_weight_and_state(self, before_update):
        model, optimizer, sparse = before_update(torch.optim.Adam)
        weight, mask = model[0].weight, sparse.masks["0.weight"]
        before, moment = weight.detach().clone(), optimizer.state[weight]["exp_avg"].clone()
        weight.grad = mask.float()  # only active units have a gradient, so all dropped return
        model[2].weight.grad = None
        optimizer.step()
        assert sparse.history[-1].layers["0.weight"].dropped == 0
        assert weight.equal(before)
        assert optimizer.state[weight]["exp_avg"].equal(moment)

    @pytest.mark.parametrize("policy", ["keep", "mean"])
    def test_other_policies_for_the_state_of_grown_weights(self, before_update, call_step, policy):
        model, optimizer, sparse = before_update(torch.optim.Adam, on_grow=policy)
        weight, was = model[0].weight, sparse.masks["0.weight"]
        old = copy.deepcopy(slots(optimizer, weight))
        call_step(model, optimizer, 7, None)
        now = sparse.masks["0.weight"]
        grown, survivors = now & ~was, now & was
        assert grown.any()
        assert not weight[grown].any()
        found = slots(optimizer, weight)
        for name, slot in old.items():
            expected = slot[grown]
            if policy == "mean":
                mean = slot[survivors].mean() if name == "exp_avg_sq" else torch.tensor(0.0)
                expected = mean.expand_as(expected)
            torch.testing.assert_close(found[name][grown], expected)
            assert found[name][~grown].equal(slot[~grown])

    def test_the_share_moved_falls_along_the_cosine_and_ends_at_stop_at(self, mlp, train):
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        method = regrow.RigL(**HALF, update_every=3, stop_at=0.75, regrow_dropped=False)
        sparse = regrow.sparsify(model, optimizer, method, total_steps=80)
        train(model, optimizer, range(59))
        masks = sparse.masks
        train(model, optimizer, range(59, 80))
        expected = {}
        for step in range(3, 60, 3):
            share = 0.15 * (1 + math.cos(math.pi * step / 60))
            moved = {layer.name: math.floor(share * layer.final) for layer in sparse.plan.layers}
            if any(moved.values()):
                expected[step] = {name: count for name, count in moved.items() if count}
        found = {
            update.step: {name: change.dropped for name, change in update.layers.items()}
            for update in sparse.history
        }
        assert found == expected
        assert all(sparse.masks[name].equal(mask) for name, mask in masks.items())
        assert sparse.update_() is None
