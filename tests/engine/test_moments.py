"""Optimizer state of grown weights: which tensors it is, and what each policy writes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import regrow
from regrow.engine.moments import check_policy, first_moments, slots

GROWN = torch.tensor([0, 1, 0, 0, 1, 0, 0, 0], dtype=torch.bool)
SURVIVORS = torch.tensor([1, 0, 1, 0, 0, 0, 0, 1], dtype=torch.bool)
SLOT = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0])


@pytest.mark.parametrize(
    ("kind", "options", "names"),
    [
        ("SGD", {}, ""),
        ("SGD", {"momentum": 0.9}, "momentum_buffer"),
        ("Adam", {}, "exp_avg exp_avg_sq"),
        ("AdamW", {"fused": True}, "exp_avg exp_avg_sq"),
        ("AdamW", {"amsgrad": True}, "exp_avg exp_avg_sq max_exp_avg_sq"),
        ("RMSprop", {"momentum": 0.9, "centered": True}, "square_avg momentum_buffer grad_avg"),
        ("Adagrad", {}, "sum"),
        ("Adadelta", {}, "square_avg acc_delta"),
        ("Adamax", {}, "exp_avg exp_inf"),
        ("NAdam", {}, "exp_avg exp_avg_sq"),
        ("RAdam", {}, "exp_avg exp_avg_sq"),
    ],
)
def test_slots_are_the_tensors_with_one_entry_a_weight(kind, options, names):
    weight = nn.Parameter(torch.ones(3, 2))
    optimizer = getattr(torch.optim, kind)([weight], lr=0.1, **options)
    weight.sum().backward()
    optimizer.step()
    assert set(slots(optimizer, weight)) == set(names.split())


def test_slots_of_a_weight_the_optimizer_has_never_seen_are_none_and_none_is_made():
    optimizer = torch.optim.Adam([nn.Parameter(torch.ones(2))])
    assert slots(optimizer, nn.Parameter(torch.ones(2))) == {}
    assert not optimizer.state


@pytest.mark.parametrize(
    ("policy", "name", "written"),
    [
        ("zero", "exp_avg", [1, 0, 3, 4, 0, 6, 7, 8]),
        ("zero", "exp_avg_sq", [1, 0, 3, 4, 0, 6, 7, 8]),
        ("keep", "exp_avg", [1, 2, 3, 4, 5, 6, 7, 8]),
        ("keep", "exp_avg_sq", [1, 2, 3, 4, 5, 6, 7, 8]),
        ("mean", "exp_avg", [1, 0, 3, 4, 0, 6, 7, 8]),
        ("mean", "momentum_buffer", [1, 0, 3, 4, 0, 6, 7, 8]),
        # The survivors hold 1, 3 and 8.
        ("mean", "exp_avg_sq", [1, 4, 3, 4, 4, 6, 7, 8]),
        ("mean", "max_exp_avg_sq", [1, 4, 3, 4, 4, 6, 7, 8]),
        ("mean", "square_avg", [1, 4, 3, 4, 4, 6, 7, 8]),
        ("mean", "sum", [1, 4, 3, 4, 4, 6, 7, 8]),
    ],
)
def test_what_a_grown_weight_finds(policy, name, written):
    slot = SLOT.clone()
    first_moments({name: slot}, GROWN, SURVIVORS, policy)()
    assert slot.tolist() == written


def test_the_mean_over_no_survivor_is_zero():
    slot = SLOT.clone()
    first_moments({"exp_avg_sq": slot}, GROWN, torch.zeros(8, dtype=torch.bool), "mean")()
    assert slot.tolist() == [1, 0, 3, 4, 0, 6, 7, 8]


def test_a_slot_that_is_not_finite_at_dropped_weights_does_not_reach_the_grown():
    slot = SLOT.clone()
    slot[3] = math.nan
    first_moments({"exp_avg_sq": slot}, GROWN, SURVIVORS, "mean")()
    assert slot[GROWN].tolist() == [4, 4]


@pytest.mark.parametrize("policy", ["Zero", "", None, 0])
def test_an_unknown_policy_is_refused(policy):
    with pytest.raises(ValueError, match=rf"on_grow={policy!r}: must be one of zero, keep, mean"):
        check_policy(policy)


@pytest.mark.parametrize("policy", ["zero", "mean"])
@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize(
    ("make", "name", "first"),
    [
        (lambda p: torch.optim.Rprop(p, lr=0.02), "step_size", 0.02),
        (lambda p: torch.optim.Adagrad(p, initial_accumulator_value=0.5), "sum", 0.5),
    ],
    ids=["Rprop", "Adagrad"],
)
def test_slots_that_start_above_zero_start_there_again(
    mlp, train, policy, stored, make, name, first
):
    """Rprop would lift a step size of zero to its least, 10⁻⁶, only."""
    model = mlp()
    optimizer = make(model.parameters())
    method = regrow.SET(density=0.3, update_every=4, regrow_dropped=False, on_grow=policy)
    execution = "csr" if stored else "masked"
    sparse = regrow.sparsify(model, optimizer, method, total_steps=40, execution=execution)
    train(model, optimizer, range(3))
    was = sparse.masks["0.weight"]
    train(model, optimizer, [3])
    grown = sparse.masks["0.weight"] & ~was
    slot = optimizer.state[model[0].weight][name]
    found = slot[grown[sparse.masks["0.weight"]]] if stored else slot[grown]
    assert len(found) > 10
    if policy == "zero" or name == "step_size":
        assert found.tolist() == pytest.approx([first] * len(found))
    else:
        assert found.min() == found.max() > first  # the survivors' mean


@pytest.mark.parametrize(("policy", "move"), [("zero", 0.1 / math.sqrt(0.001)), ("mean", 0.1)])
def test_the_first_move_of_a_weight_grown_late_under_adam(policy, move):
    """Bias correction has long ended, so zeroed squares let the first move be 3.16 rates long."""
    weight = nn.Parameter(torch.zeros(8, dtype=torch.float64))
    optimizer = torch.optim.Adam([weight], lr=1e-3, eps=0.0)
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    for slot in slots(optimizer, weight).values():
        slot.fill_(1.0)  # as after a long time of gradients of size one
    optimizer.state[weight]["step"].fill_(100_000)
    first_moments(slots(optimizer, weight), GROWN, SURVIVORS, policy)()
    before = weight.detach().clone()
    optimizer.step()
    moved = (weight.detach() - before).abs() / 1e-3
    assert moved[GROWN].tolist() == pytest.approx([move, move], rel=1e-3)
    assert moved[SURVIVORS].tolist() == pytest.approx([1.0, 1.0, 1.0], rel=1e-3)
