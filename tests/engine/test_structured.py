"""Dynamic N:M and dynamic blocks are RigL in their patterns, and take no others."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

import regrow
from regrow.engine.patterns import NM, Block, Element, FanIn, Kernel


@pytest.mark.parametrize(
    ("method", "spelled_out"),
    [
        (regrow.DynamicNM(update_every=2), {"density": 0.5, "pattern": NM(2, 4)}),
        (
            regrow.DynamicNM(pattern=NM(1, 4), update_every=2),
            {"density": 0.25, "pattern": NM(1, 4)},
        ),
        (
            regrow.DynamicBlock(density=0.3, pattern=Block(2), update_every=2),
            {"density": 0.3, "pattern": Block(2)},
        ),
    ],
    ids=["2:4", "1:4", "blocks"],
)
def test_each_is_rigl_in_its_pattern(mlp, train, snapshot, assert_same, method, spelled_out):
    runs = []
    for chosen in (method, regrow.RigL(update_every=2, **spelled_out)):
        model = mlp()
        optimizer = torch.optim.AdamW(model.parameters())
        sparse = regrow.sparsify(model, optimizer, chosen, total_steps=20)
        train(model, optimizer, range(12))
        assert len(sparse.history) > 3
        runs.append((snapshot(model, optimizer), sparse.masks, sparse.history))
    assert_same(*runs)


def test_the_density_of_n_of_m_follows_the_pattern():
    method = regrow.DynamicNM()
    assert method.density == 0.5
    other = dataclasses.replace(method, pattern=NM(1, 8))
    assert other == regrow.DynamicNM(pattern=NM(1, 8))
    assert other.density == 1 / 8


@pytest.mark.parametrize("pattern", [Element(), FanIn(), Kernel()])
def test_another_pattern_is_refused(pattern):
    with pytest.raises(ValueError, match=r"pattern=.*such as NM\(2, 4\)"):
        regrow.DynamicNM(pattern=pattern)
    with pytest.raises(ValueError, match=r"pattern=.*such as Block\(64\)"):
        regrow.DynamicBlock(density=0.1, pattern=pattern)


def test_a_first_layer_that_reads_colours_has_to_be_excluded_from_two_of_four():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"0\.weight: .*3 input channels.*exclude this layer"):
        regrow.sparsify(model, optimizer, regrow.DynamicNM(), total_steps=9)
    regrow.sparsify(model, optimizer, regrow.DynamicNM(), total_steps=900, exclude="0.*")
