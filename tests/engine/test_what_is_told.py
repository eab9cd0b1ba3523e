"""What a sparsifier says of itself is short where it can be, and says what to do."""

import logging

import pytest
import torch
from torch import nn

import regrow


def tower(blocks, width=16):
    return nn.Sequential(
        *[part for _ in range(blocks) for part in (nn.Linear(width, width), nn.LayerNorm(width))]
    )


def made_sparse(model, method, **options):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return optimizer, regrow.sparsify(model, optimizer, method, **{"total_steps": 200} | options)


def test_its_repr_is_a_line_that_follows_the_run():
    model = tower(2)
    optimizer, sparse = made_sparse(model, regrow.RigL(density=0.25))
    assert repr(sparse) == "Sparsifier(RigL: 2 layers, density 0.25, step 0 of 200)"
    model(torch.ones(1, 16)).sum().backward()
    optimizer.step()
    assert repr(sparse).endswith("step 1 of 200)")


def test_what_stays_dense_for_one_reason_is_one_line():
    sparse = made_sparse(tower(4), regrow.SET(density=0.2), exclude=["0.weight"])[1]
    said = [line for line in sparse.summary().splitlines() if line.startswith("dense: ")]
    assert said == [
        "dense: 0.weight (excluded)",
        "dense: 12 parameters (fewer than two dimensions): 0.bias, 1.weight, 1.bias, …",
    ]
    few = made_sparse(tower(1), regrow.SET(density=0.2))[1].summary()
    assert few.count("dense: ") == 3  # of which each is named


@pytest.mark.parametrize("method", [regrow.RigL(density=0.2), regrow.SET(density=0.2)])
@pytest.mark.parametrize("steps", [1, 3, 20, 99])
def test_a_run_too_short_for_an_update_is_told_a_period_that_makes_some(method, steps, caplog):
    with caplog.at_level(logging.WARNING):
        made_sparse(tower(1), method, total_steps=steps)
    said = caplog.text
    assert "will make no update" in said
    if "makes" not in said:
        assert steps <= 3  # then no period at all makes one
        return
    words = said.rsplit("update_every=", 1)[1].split()
    period, promised = int(words[0]), int(words[4])
    caplog.clear()
    model = tower(1)
    shorter = type(method)(density=0.2, update_every=period)
    optimizer, sparse = made_sparse(model, shorter, total_steps=steps)
    assert not caplog.text
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(4, 16)).tanh().mean().backward()
        optimizer.step()
    assert 0 < len(sparse.history) <= promised  # the last ones may have nothing to exchange


def test_going_on_at_another_density_says_both():
    saved = made_sparse(tower(1), regrow.SET(density=0.25))[1].state_dict()
    other = made_sparse(tower(1), regrow.SET(density=0.5))[1]
    with pytest.raises(ValueError, match=r"saved at density 0\.25, and the method here keeps 0\.5"):
        other.load_state_dict(saved)
