"""Which updates a GPU makes at once: those whose every part the kernels know, and no others.

Asked on the CPU, as if it were a GPU; nothing is launched.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

import regrow
from regrow.engine import many, swift
from regrow.engine.criteria import Taylor
from regrow.engine.links import LinkPrediction, Soft
from regrow.engine.patterns import FanIn, Kernel
from regrow.engine.scores import Magnitude, Momentum, Random, Unfired
from regrow.engine.update import Moves


class Odd(torch.Tensor):
    """A weight of a class of its own."""


def asked(method=None, optimizer=None, shapes=((8, 6), (4, 8)), change=None, **options):
    """What swift.layers_of says of a model that has made a step."""
    method = method or regrow.RigL(density=0.3)
    model = nn.ParameterDict({str(i): nn.Parameter(torch.randn(s)) for i, s in enumerate(shapes)})
    for weight in model.values():
        weight.output_dim = 0
    made = (optimizer or (lambda w: torch.optim.SGD(w, lr=0.1, momentum=0.9)))(model.parameters())
    sparse = regrow.sparsify(model, made, method, total_steps=100, include="*", **options)
    for weight in model.values():
        weight.grad = torch.randn_like(weight)
    made.step()
    pairs = sparse._topology.pairs()
    if change is not None:
        pairs = change(pairs)
    moves = {layer.name: Moves(exchange=1) for layer, _ in pairs}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(many, "available", lambda _: True)
        return swift.layers_of(method, moves, pairs, made)


def dynamic(**options):
    return regrow.Dynamic(**{"density": 0.3} | options)


@pytest.mark.parametrize(
    "method",
    [
        regrow.RigL(density=0.3),
        regrow.SET(density=0.3, on_grow="keep"),
        regrow.MEST(density=0.3),
        regrow.RigLITOP(density=0.3),
        regrow.GraNet(density=0.3),
        dynamic(drop=Random(), grow=Unfired(), regrow_dropped=False),
        dynamic(drop=Taylor(), grow=Momentum(), initial_density=0.8),
    ],
    ids=lambda method: method.name,
)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_what_most_runs_ask_for_is_made_at_once(method, optimizer):
    kinds = {"sgd": None, "adam": lambda w: torch.optim.AdamW(w, amsgrad=True)}
    layers = asked(method, kinds[optimizer])
    assert [layer.name for layer in layers] == ["0", "1"]
    slots = 0 if method.on_grow == "keep" else {"sgd": 1, "adam": 3}[optimizer]
    assert {len(layer.slots) for layer in layers} == {slots}


@pytest.mark.parametrize(
    "method",
    [
        dynamic(threshold="global"),
        dynamic(redistribute="gradient"),
        dynamic(on_grow="mean"),
        dynamic(pattern=Kernel()),
        dynamic(pattern=FanIn()),
        dynamic(drop=Soft(Magnitude())),
        dynamic(grow=LinkPrediction("CH3", by="node")),
        regrow.SET(density=0.3, legacy=True),
        regrow.CHT(density=0.3),
        regrow.SRigL(density=0.3),
        regrow.TopKAST(density=0.3),
    ],
    ids=lambda method: method.name,
)
def test_methods_that_ask_for_more_go_layer_by_layer(method):
    assert asked(method) is None


@pytest.mark.parametrize(
    "optimizer", [torch.optim.Rprop, torch.optim.Adagrad], ids=lambda kind: kind.__name__
)
@pytest.mark.parametrize("on_grow", ["zero", "keep"])
def test_state_that_does_not_start_at_zero_is_written_layer_by_layer(optimizer, on_grow):
    method = dynamic(on_grow=on_grow)
    assert asked(method, lambda weights: optimizer(weights, lr=0.1)) is None


def test_held_and_frozen_weights_are_written_layer_by_layer():
    where = {"0": torch.rand(8, 6) < 0.9}
    assert asked(available=where) is None
    assert asked(frozen={"0": torch.rand(8, 6) < 0.1}) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda pairs: [(layer, weight.as_subclass(Odd)) for layer, weight in pairs],
        lambda pairs: [(layer, nn.Parameter(weight.double())) for layer, weight in pairs],
        lambda pairs: [(layer, nn.Parameter(weight.half())) for layer, weight in pairs],
        lambda pairs: [(pairs[0][0], nn.Parameter(pairs[0][1].half())), pairs[1]],
        lambda pairs: [
            (layer, nn.Parameter(weight.t().contiguous().t())) for layer, weight in pairs
        ],
        lambda pairs: [],
    ],
    ids=["a class of its own", "64 bits", "other masks", "mixed", "strided", "none"],
)
def test_weights_that_kernels_cannot_read_go_layer_by_layer(change):
    assert asked(change=change) is None


def test_the_sizes_that_fit_end_where_a_place_has_64_bits():
    assert many.fits([torch.empty(many.LARGEST - 1, device="meta")])
    assert not many.fits([torch.empty(many.LARGEST, device="meta")])
    assert not many.fits([torch.empty(0)])
