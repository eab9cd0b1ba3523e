"""Weights stored in other ways than (out, in, *kernel): transposed convolutions and experts.

Judged by definitions spelled out index by index, and by what modules put out and read.
"""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import regrow
from regrow.engine.allocation import ER, ERK, Uniform
from regrow.engine.layouts import Layout, turned
from regrow.engine.links import LinkPrediction
from regrow.engine.patterns import NM, Block, Channel, FanIn, Kernel
from regrow.engine.plan import make_plan

fast = settings(max_examples=60, deadline=None)


class Experts(nn.Module):
    """Layers of 8 inputs and 6 outputs in one tensor, which a method may be told of."""

    def __init__(self, way, count=3):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(count, 8, 6) if way else torch.randn(count, 6, 8))
        self.weight.output_dim, self.weight.input_dim = (2, 1) if way else (1, 2)


def place(layout, shape, index):
    """(Layer, output, input, place in the kernel) of a weight, by definition."""
    if layout.experts:
        other = (index[2], index[1]) if layout.output == 2 else (index[1], index[2])
        return index[0], *other, ()
    each = shape[0] // layout.groups
    return index[0] // each, index[1], index[0] % each, index[2:]


def unit(pattern, layout, shape, index):
    """What tells the unit of a weight from others, by definition."""
    layer, output, source, where = place(layout, shape, index)
    match pattern:
        case Channel():
            return layer, output
        case Block(size):
            return layer, output // size, source // size
        case Kernel():
            return layer, output, source
    return layer, output, source, where


transposed = st.builds(
    lambda groups, each, outputs, kernel: (
        Layout("transposed", 1, 0, groups=groups),
        (groups * each, outputs, *kernel),
    ),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 3),
    st.lists(st.integers(1, 3), max_size=3),
)
experts = st.builds(
    lambda way, shape: (Layout("experts", *((2, 1) if way else (1, 2)), experts=True), shape),
    st.booleans(),
    st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5)),
)
cases = st.one_of(
    st.tuples(transposed, st.sampled_from([Channel(), FanIn(), NM(1, 1)])),
    st.tuples(
        experts, st.sampled_from([Channel(), FanIn(), NM(1, 1), Kernel(), Block(2), Block(3)])
    ),
)


@fast
@given(cases)
def test_every_weight_belongs_to_the_unit_the_definition_says(case):
    (layout, shape), pattern = case
    one = turned(pattern, layout)
    numbers = torch.arange(one.units(shape)).reshape(one.grid(shape))
    spread = one.expand(numbers, shape)
    named = {}
    for index in product(*map(range, shape)):
        number = int(spread[index])
        assert named.setdefault(number, unit(pattern, layout, shape, index)) == unit(
            pattern, layout, shape, index
        )
    assert len(set(named.values())) == len(named) == one.units(shape)


@fast
@given(cases, st.integers(0, 2**31))
def test_units_are_summed_and_come_back(case, seed):
    (layout, shape), pattern = case
    one, draw = turned(pattern, layout), torch.Generator().manual_seed(seed)
    values = torch.rand(shape, generator=draw, dtype=torch.float64)
    numbers = torch.arange(one.units(shape)).reshape(one.grid(shape))
    owner = one.expand(numbers, shape)
    sums = torch.stack([values[owner == number].sum() for number in numbers.flatten()])
    torch.testing.assert_close(one.reduce(values).flatten(), sums)
    units = torch.rand(one.grid(shape), generator=draw) < 0.5
    assert (one.reduce(one.expand(units, shape).float()) > 0).equal(units)


@fast
@given(cases, st.floats(0.05, 1), st.integers(0, 2**31))
def test_as_many_are_drawn_as_are_to_be_kept_in_groups_of_outputs(case, density, seed):
    (layout, shape), pattern = case
    one = turned(pattern, layout)
    k, free = one.kept(density, shape), torch.ones(one.grid(shape), dtype=torch.bool)
    units = one.draw(k, free, free.numel(), torch.Generator().manual_seed(seed))
    assert int(units.sum()) == k
    if not isinstance(pattern, FanIn):
        return
    counts = {}
    for index in one.expand(units, shape).nonzero().tolist():
        output = place(layout, shape, index)[:2]
        counts[output] = counts.get(output, 0) + 1
    assert len(set(counts.values())) == 1 and len(counts) == math.prod(one.grid(shape)[:1])


TRANSPOSED = {
    "1d": lambda: nn.ConvTranspose1d(8, 6, 3, bias=False),
    "2d": lambda: nn.ConvTranspose2d(8, 6, 3, stride=2, bias=False),
    "2d, groups": lambda: nn.ConvTranspose2d(8, 6, (3, 2), groups=2, bias=False),
    "3d, groups": lambda: nn.ConvTranspose3d(8, 6, 2, groups=2, bias=False),
}


def reads(conv, mask):
    """(outputs, inputs, places): which weights an output reads, by derivatives in the middle."""
    conv.weight.data.copy_(mask)
    sides = (5,) * (conv.weight.ndim - 2)
    basis = torch.zeros(conv.in_channels, conv.in_channels, *sides)
    for channel in range(conv.in_channels):
        basis[(channel, channel, *(2,) * len(sides))] = 1
    # One input channel at a time is 1 in one place: what comes out is its kernels.
    return (conv(basis) != 0).transpose(0, 1).flatten(2)


@pytest.mark.parametrize("make", TRANSPOSED.values(), ids=TRANSPOSED)
class TestTransposedConvolutions:
    def train(self, conv, method):
        optimizer = torch.optim.Adam(conv.parameters(), lr=0.01)
        sparse = regrow.sparsify(conv, optimizer, method, total_steps=100)
        first = sparse.masks["weight"]
        for _ in range(5):
            optimizer.zero_grad()
            conv(torch.randn(2, 8, *(4,) * (conv.weight.ndim - 2))).square().sum().backward()
            optimizer.step()
            sparse._topology.check_state(sparse.state_dict()["layers"])
        assert not sparse.masks["weight"].equal(first)
        return sparse.plan.layers[0], sparse.masks["weight"]

    def test_channels_are_features_of_the_output(self, make):
        conv = make()
        options = {"pattern": Channel(), "update_every": 1, "drop_fraction": 0.6}
        method = regrow.SET(density=0.5, **options)
        layer, mask = self.train(conv, method)
        found = reads(conv, mask).flatten(1).sum(1)
        every = reads(conv, torch.ones(mask.shape)).flatten(1).sum(1)
        assert layer.units == 6
        assert int((found > 0).sum()) == layer.final == 3
        assert found[found > 0].equal(every[found > 0])

    def test_every_output_reads_equally_many(self, make):
        conv = make()
        method = regrow.RigL(density=0.25, pattern=FanIn(), update_every=1)
        layer, mask = self.train(conv, method)
        counts = reads(conv, mask).flatten(1).sum(1)
        assert counts.tolist() == [layer.final // 6] * 6

    def test_two_of_four_inputs_are_read_in_every_place(self, make):
        conv = make()
        _, mask = self.train(conv, regrow.DynamicNM(update_every=1))
        of_four = reads(conv, mask).unflatten(1, (-1, 4)).sum(2)
        assert set(of_four.unique().tolist()) <= {0, 2}
        assert int(of_four.sum()) == int(mask.sum()) == mask.numel() // 2

    def test_neurons_are_ablated_whole(self, make):
        conv = make()
        method = regrow.SRigL(density=0.25, gamma=0.95, ablate_last=True, update_every=1)
        _, mask = self.train(conv, method)
        counts = reads(conv, mask).flatten(1).sum(1)
        assert counts[counts > 0].unique().numel() == 1


KERNELS = {
    "Conv3d": lambda: nn.Conv3d(4, 6, (3, 2, 1), bias=False),
    "Conv3d, groups": lambda: nn.Conv3d(4, 6, 2, groups=2, bias=False),
    "ConvTranspose3d": lambda: nn.ConvTranspose3d(4, 6, (3, 2, 1), bias=False),
    "ConvTranspose3d, groups": lambda: nn.ConvTranspose3d(4, 6, 2, groups=2, bias=False),
}


@pytest.mark.parametrize("make", KERNELS.values(), ids=KERNELS)
class TestKernelsInSpace:
    """What E2ENet fuses features by: whole kernels of convolutions over volumes."""

    def connected(self, conv, mask):
        """(outputs, inputs): whether an output changes with an input."""
        conv.weight.data.copy_(mask)
        out = conv(torch.zeros(1, 4, 4, 4, 4))
        found = torch.zeros(out.shape[1], 4, dtype=torch.bool)
        for channel in range(4):
            images = torch.zeros(1, 4, 4, 4, 4)
            images[:, channel] = 1
            found[:, channel] = conv(images)[0].flatten(1).any(1)
        return found

    def test_a_kernel_joins_one_input_to_one_output(self, make):
        conv = make()
        every = self.connected(conv, torch.ones(conv.weight.shape))
        pattern, shape, met = Kernel(), tuple(conv.weight.shape), set()
        assert pattern.units(shape) == int(every.sum())
        for number in range(pattern.units(shape)):
            one = (torch.arange(pattern.units(shape)) == number).reshape(pattern.grid(shape))
            mask = pattern.expand(one, shape)
            assert int(mask.sum()) == math.prod(shape[2:])
            ((output, source),) = self.connected(conv, mask).nonzero().tolist()
            met.add((output, source))
        assert met == set(map(tuple, every.nonzero().tolist()))

    @pytest.mark.parametrize("allocation", [Uniform(), ER(), ERK()])
    def test_counts_are_of_kernels_and_exact_through_updates(self, make, allocation):
        model = nn.Sequential(make(), nn.Conv3d(6, 4, 1, bias=False))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        options = {"pattern": Kernel(), "allocation": allocation, "update_every": 1}
        options["drop_fraction"] = 0.7
        method = regrow.RigL(density=0.4, **options)
        sparse = regrow.sparsify(model, optimizer, method, total_steps=50)
        asked = allocation({n: tuple(p.shape) for n, p in model.named_parameters()}, 0.4)
        for _ in range(4):
            optimizer.zero_grad()
            model(torch.randn(2, 4, 4, 4, 4)).square().sum().backward()
            optimizer.step()
            for layer in sparse.plan.layers:
                units = math.prod(layer.shape[:2])
                assert layer.units == units
                assert layer.final == max(1, math.floor(asked[layer.name] * units + 0.5))
                kernels = sparse.masks[layer.name].flatten(2).sum(2)
                side = math.prod(layer.shape[2:])
                assert kernels.unique().tolist() in ([0, side], [side])
                assert int((kernels > 0).sum()) == layer.final
        assert len(sparse.history) >= 3


@pytest.mark.parametrize("way", [False, True])
class TestExperts:
    @pytest.mark.parametrize("pattern", [Kernel(), Block(2), Block(4)], ids=repr)
    def test_units_lie_inside_experts_through_updates(self, way, pattern):
        """Kernels were rows of an expert; blocks reached over several experts."""
        model = Experts(way)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        method = regrow.SET(density=0.5, pattern=pattern, update_every=1)
        sparse = regrow.sparsify(model, optimizer, method, total_steps=50, include="weight")
        side = getattr(pattern, "size", 1)
        for _ in range(4):
            model.weight.grad = torch.randn(model.weight.shape)
            optimizer.step()
            mask = sparse.masks["weight"]
            mask = mask.mT if way else mask
            kept = 0
            for one in mask:
                for rows in one.split(side):
                    for tile in rows.split(side, dim=1):
                        assert tile.all() or not tile.any()
                        kept += int(tile.all())
            assert kept == sparse.plan.layers[0].final
            assert kept == sparse.plan.layers[0].units // 2
            sparse._topology.check_state(sparse.state_dict()["layers"])

    def test_how_many_experts_there_are_says_nothing_of_their_width(self, way):
        """ER took the number of experts for their outputs: eight hundred times too dense."""
        model = nn.ModuleDict({"experts": Experts(way, 4), "layer": nn.Linear(8, 6)})
        method = regrow.Static(density=0.25, allocation=ER())
        plan = make_plan(model, method, include=["experts.weight", "layer.weight"])
        assert [layer.final / layer.units for layer in plan.layers] == [0.25, 0.25]

    def test_links_between_units_of_several_layers_are_refused(self, way):
        method = regrow.Dynamic(density=0.5, grow=LinkPrediction())
        with pytest.raises(ValueError, match=r"grow=LinkPred.* does not fit weight: .*experts"):
            make_plan(Experts(way), method, include="weight")


@pytest.mark.parametrize("pattern", [Kernel(), Block(2)], ids=repr)
def test_three_dimensions_of_no_known_layer_are_refused_with_the_way_out(pattern):
    model = nn.ParameterDict({"weight": torch.randn(4, 6, 8)})
    method = regrow.Static(density=0.5, pattern=pattern)
    with pytest.raises(ValueError, match=r"does not fit weight: .*experts.*input_dim = 2"):
        make_plan(model, method, include="weight")
    model["weight"].output_dim = 0
    assert make_plan(model, method, include="weight").layers[0].layout.plain
    model["weight"].output_dim, model["weight"].input_dim = 2, 1
    units = make_plan(model, method, include="weight").layers[0].units
    assert units == {"Kernel()": 4 * 6 * 8, "Block(size=2)": 4 * 3 * 4}[repr(pattern)]


@pytest.mark.parametrize("said", [(2, None), (1, 2), (0, 0), ("out", None), (0, 2)])
def test_a_parameter_that_says_nonsense_is_not_known(said):
    model = nn.ParameterDict({"weight": torch.randn(4, 6)})
    model["weight"].output_dim, model["weight"].input_dim = said
    with pytest.raises(ValueError, match=r"does not fit weight: .* not known: say so"):
        make_plan(model, regrow.Static(density=0.5, pattern=Channel()), include="weight")
