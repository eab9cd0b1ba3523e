"""Patterns against the definition: a loop that asks of every weight which unit it belongs to."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import regrow
from regrow.engine.allocation import Uniform
from regrow.engine.links import LinkPrediction
from regrow.engine.patterns import NM, Block, Channel, Element, FanIn, InputChannel, Kernel

fast = settings(max_examples=60, deadline=None)

BLOCKS = (Block(1), Block(2), Block(3), Block(64))
PATTERNS = (Element(), Kernel(), Channel(), InputChannel(), FanIn(), NM(1, 1), *BLOCKS)
patterns = st.sampled_from(PATTERNS)
shapes = st.lists(st.integers(1, 4), min_size=2, max_size=5).map(tuple)


def unit_of(pattern, shape, index):
    """The unit a weight belongs to, from the definition of the pattern."""
    match pattern:
        case Element():  # FanIn() is one
            return index
        case NM():
            return index[0], *index[2:], index[1]
        case Kernel():
            return index[:2]
        case Channel():
            return index[:1]
        case InputChannel():
            return index[1:2]
        case Block(size):
            column = 0
            for side, position in zip(shape[1:], index[1:], strict=True):
                column = column * side + position
            return index[0] // size, column // size


@fast
@given(patterns, shapes)
def test_every_weight_belongs_to_the_unit_the_definition_says(pattern, shape):
    units = torch.arange(pattern.units(shape)).reshape(pattern.grid(shape))
    spread = pattern.expand(units, shape)
    assert spread.shape == shape
    for index in product(*map(range, shape)):
        assert spread[index] == units[unit_of(pattern, shape, index)]


@fast
@given(patterns, shapes)
def test_every_unit_holds_a_weight_and_reduce_sums_over_it(pattern, shape):
    values = torch.arange(math.prod(shape), dtype=torch.float64).reshape(shape)
    units = torch.arange(pattern.units(shape)).reshape(pattern.grid(shape))
    owner = pattern.expand(units, shape)
    sums = torch.stack([values[owner == unit].sum() for unit in range(units.numel())])
    assert pattern.reduce(values).equal(sums.reshape(units.shape))
    assert (pattern.reduce(torch.ones(shape)) >= 1).all()


@fast
@given(patterns, shapes, st.integers(0, 2**31))
def test_reducing_a_spread_choice_gives_the_choice_back(pattern, shape, seed):
    generator = torch.Generator().manual_seed(seed)
    units = torch.rand(pattern.grid(shape), generator=generator) < 0.5
    weights = pattern.expand(units, shape)
    assert weights.dtype == torch.bool
    assert (pattern.reduce(weights.float()) > 0).equal(units)


@pytest.mark.parametrize(
    ("pattern", "shape", "grid"),
    [
        (Element(), (8, 4, 3, 3), (8, 4, 3, 3)),
        (Kernel(), (8, 4, 3, 3), (8, 4)),
        (Kernel(), (8, 4, 3, 3, 3), (8, 4)),
        (Kernel(), (8, 4), (8, 4)),
        (Channel(), (8, 4, 3, 3), (8,)),
        (InputChannel(), (8, 4, 3, 3), (4,)),
        (FanIn(), (8, 4, 3, 3), (8, 4, 3, 3)),
        (NM(2, 4), (8, 4), (8, 4)),
        (NM(2, 4), (8, 4, 3, 5), (8, 3, 5, 4)),
        (Block(4), (8, 4, 3, 3), (2, 9)),
        (Block(4), (9, 5), (3, 2)),
        (Block(100), (9, 5), (1, 1)),
        (Block(1), (9, 5), (9, 5)),
    ],
)
def test_grid(pattern, shape, grid):
    assert pattern.grid(shape) == grid
    assert pattern.units(shape) == math.prod(grid)


def test_tiles_at_the_edge_hold_fewer_weights():
    held = Block(2).reduce(torch.ones(3, 5))
    assert held.tolist() == [[4.0, 4.0, 2.0], [2.0, 2.0, 1.0]]


@pytest.mark.parametrize("size", [0, -1, 2.5, "x", None])
def test_block_refuses_what_is_no_side(size):
    with pytest.raises((TypeError, ValueError), match=rf"size={size!r}"):
        Block(size)


@pytest.mark.parametrize(("n", "m"), [(2.0, 4), (2, 4.0), (True, 4), ("2", 4)])
def test_n_of_m_takes_whole_numbers(n, m):
    with pytest.raises(TypeError, match=rf"n={n!r}, m={m!r}: whole numbers"):
        NM(n, m)


@pytest.mark.parametrize(
    ("pattern", "rows", "allowed"),
    [
        (Element(), [[1, 1, 1, 0], [0, 0, 0, 0]], True),
        (NM(2, 4), [[1, 0, 1, 0], [0, 1, 1, 0]], True),
        (NM(2, 4), [[1, 1, 1, 0], [0, 0, 1, 0]], False),
        (NM(2, 4), [[1, 1, 0, 0], [0, 0, 0, 0]], False),
        (FanIn(), [[1, 0, 1, 0], [0, 1, 1, 0]], True),
        (FanIn(), [[1, 1, 1, 0], [0, 0, 0, 0]], True),  # an ablated neuron
        (FanIn(), [[1, 1, 1, 0], [0, 0, 0, 1]], False),
    ],
)
def test_groups_keep_equally_many(pattern, rows, allowed):
    assert pattern.allows(torch.tensor(rows, dtype=torch.bool)) == allowed


def test_input_channels_that_are_no_multiple_of_m_are_named():
    """Their number counts, not that of all inputs: 6 · 2 · 2 would do."""
    with pytest.raises(ValueError, match=r"6 input channels.*no multiple of 4; exclude"):
        NM(2, 4).grid((8, 6, 2, 2))


def test_links_are_predicted_between_groups_of_any_size():
    """They were refused for groups of more than four: what was asked is whether units are rows."""
    LinkPrediction().check_pattern(NM(2, 8))


class TestGroupsOfConvolutions:
    """Trained for some updates; every count is taken from the weight's own layout."""

    @pytest.fixture
    def trained(self):
        def train(pattern, **options):
            model = nn.Conv2d(8, 6, (3, 2))
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            method = regrow.Dynamic(
                allocation=Uniform(), pattern=pattern, update_every=1, stop_at=1.0, **options
            )
            sparse = regrow.sparsify(model, optimizer, method, total_steps=20)
            first = sparse.masks["weight"]
            for _ in range(10):
                optimizer.zero_grad()
                model(torch.randn(4, 8, 5, 5)).square().mean().backward()
                optimizer.step()
            assert not first.equal(sparse.masks["weight"])
            return first, sparse.masks["weight"]

        return train

    @pytest.mark.parametrize("n", [1, 2])
    def test_n_of_m_that_were_taken_across_the_kernel(self, trained, n):
        """Sparse tensor cores take four input channels, of one output and one place."""
        for mask in trained(NM(n, 4), density=n / 4):
            for out, row, column in product(range(6), range(3), range(2)):
                channels = mask[out, :, row, column]
                assert [int(channels[:4].sum()), int(channels[4:].sum())] == [n, n]

    def test_every_output_has_the_same_fan_in(self, trained):
        for mask in trained(FanIn(), density=0.25):
            assert mask.flatten(1).sum(1).tolist() == [12] * 6


def test_patterns_are_values():
    assert Block(2) == Block(2) != Block(3)
    assert len({Element(), Element(), Kernel()}) == 2
