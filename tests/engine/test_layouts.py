"""Which dimension is the output: patterns that go by it, on weights stored either way round."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import regrow
from regrow.engine.layouts import Layout, layouts_of, turned
from regrow.engine.patterns import NM, Block, Channel, Element, FanIn, InputChannel, Kernel
from regrow.engine.plan import make_plan


def conv1d():
    """A layer of GPT-2, 8 inputs and 12 outputs: stores (8, 12)."""
    module = pytest.importorskip("transformers.pytorch_utils", reason="needs transformers")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return module.Conv1D(12, 8)


class Experts(nn.Module):
    """Two layers of 8 inputs and 4 outputs in one tensor, as transformers stores them."""

    def __init__(self, way):
        super().__init__()
        self.num_experts = 2
        if way is not None:
            self.is_transposed = way
        self.weight = nn.Parameter(torch.randn(2, 8, 4) if way else torch.randn(2, 4, 8))


def by_output(model, name, mask):
    """The mask as (outputs, inputs), spelled out from what the module computes."""
    if isinstance(model, Experts):
        way = model.is_transposed
        return torch.cat([one.T if way else one for one in mask])
    return mask.T if "Conv1D" in type(model).__name__ else mask.flatten(1)


MODELS = {
    "Conv1D": conv1d,
    "experts (E, out, in)": lambda: Experts(way=False),
    "experts (E, in, out)": lambda: Experts(way=True),
    "linear": lambda: nn.Linear(8, 12),
}
METHODS = {
    "channels": lambda: regrow.SET(density=0.5, pattern=Channel(), update_every=1),
    "fan-in": lambda: regrow.RigL(density=0.5, pattern=FanIn(), update_every=1),
    "fan-in, at random": lambda: regrow.SET(density=0.25, pattern=FanIn(), update_every=1),
    "SRigL": lambda: regrow.SRigL(density=0.25, update_every=1),
    "2:4": lambda: regrow.DynamicNM(update_every=1),
    "static 2:4": lambda: regrow.Static(density=0.5, pattern=NM(2, 4)),
}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("method", METHODS)
def test_outputs_stay_whole_through_updates(filled, model, method):
    """Channels switched inputs off, and of experts whole ones; 2:4 did not lie along inputs."""
    model, method = MODELS[model](), METHODS[method]()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    sparse = regrow.sparsify(model, optimizer, method, total_steps=100, include="weight", seed=1)
    first = sparse.masks["weight"]
    for step in range(8):
        for weight in model.parameters():
            weight.grad = filled(weight.shape, seed=step)
        optimizer.step()
        mask = by_output(model, "weight", sparse.masks["weight"])
        inputs, counts = mask.shape[1], mask.sum(1)
        if isinstance(method.pattern, Channel):
            assert sorted(counts.unique().tolist()) == [0, inputs]
            assert int((counts > 0).sum()) == len(mask) // 2
        elif isinstance(method.pattern, NM):
            assert (mask.reshape(-1, 4).sum(1) == 2).all()
        else:
            assert counts[counts > 0].unique().numel() == 1
        assert not model.weight[~sparse.masks["weight"]].any()
        sparse._topology.check_state(sparse.state_dict()["layers"])
    assert isinstance(method, regrow.Static) or not sparse.masks["weight"].equal(first)


@pytest.mark.parametrize("shape", [(4, 6), (2, 3, 4)])
@pytest.mark.parametrize("pattern", [Channel(), InputChannel(), FanIn(), NM(1, 1)])
def test_a_turned_pattern_is_the_pattern_of_the_turned_weight(filled, pattern, shape):
    experts = len(shape) == 3
    layout = Layout("experts", 2, 1, experts=True) if experts else Layout("Conv1D", 1, 0)
    values = filled(shape).mul(64).round()  # sums of whole numbers are exact in any order
    other = values.transpose(-1, -2).flatten(0, -2)
    one = turned(pattern, layout)
    assert one.grid(shape) == pattern.grid(tuple(other.shape))
    assert one.reduce(values).equal(pattern.reduce(other))
    spread = one.expand(one.reduce(values), shape)
    again = pattern.expand(pattern.reduce(other), tuple(other.shape))
    assert spread.transpose(-1, -2).flatten(0, -2).equal(again)
    assert one.group(shape) == pattern.group(tuple(other.shape))
    assert one.kept(0.5, shape) == pattern.kept(0.5, tuple(other.shape))


@pytest.mark.parametrize("pattern", [Channel(), FanIn(), NM(2, 4)])
@pytest.mark.parametrize(
    "model",
    [lambda: Experts(way=None), lambda: nn.ParameterDict({"weight": torch.randn(8, 8)})],
    ids=["experts", "a bare parameter"],
)
def test_outputs_that_are_not_known_are_refused_with_the_way_out(model, pattern):
    method = regrow.Static(density=0.5, pattern=pattern)
    with pytest.raises(ValueError, match=r"does not fit weight: it goes by outputs.*output_dim"):
        make_plan(model(), method, include="weight")
    for other in (Element(), Kernel(), Block(2)):
        make_plan(model(), regrow.Static(density=0.5, pattern=other), include="weight")


@pytest.mark.parametrize("output", [0, 1])
def test_a_parameter_may_say_it_itself(output):
    model = nn.ParameterDict({"weight": torch.randn(8, 4)})
    model["weight"].output_dim = output
    plan = make_plan(model, regrow.Static(density=0.5, pattern=Channel()), include="weight")
    assert plan.layers[0].units == (8, 4)[output]


@pytest.mark.parametrize(
    ("model", "kinds"),
    [
        (nn.Linear(3, 2), {("linear", 0)}),
        (nn.MultiheadAttention(4, 2, kdim=3, vdim=3), {("linear", 0)}),
        (nn.Conv2d(3, 2, 3), {("convolution", 0)}),
        (nn.ConvTranspose2d(3, 2, 3), {("transposed", 1)}),
        (nn.LSTM(3, 4, proj_size=2), {("recurrent", 0)}),
        (nn.GRUCell(3, 2), {("recurrent", 0)}),
        (nn.Bilinear(3, 2, 4), {("bilinear", 0)}),
        (nn.Embedding(3, 2), {("unknown", None)}),
        (Experts(way=False), {("experts", 1)}),
        (Experts(way=True), {("experts", 2)}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_weight_has_a_layout(model, kinds):
    assert {(one.kind, one.output) for one in layouts_of(model).values()} == kinds
