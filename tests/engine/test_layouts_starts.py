"""Starts with patterns by output, on weights that are not stored as (out, in, *kernel)."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import regrow
from regrow.engine.kept import KeptWeights
from regrow.engine.layouts import layouts_of, turned
from regrow.engine.patterns import NM, Channel, FanIn
from regrow.engine.saliency import LargestWeights


class Experts(nn.Module):
    """Layers of 8 inputs and 6 outputs in one tensor, which a method may be told of."""

    def __init__(self, way, count=3):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(count, 8, 6) if way else torch.randn(count, 6, 8))
        self.weight.output_dim, self.weight.input_dim = (2, 1) if way else (1, 2)


def conv1d():
    module = pytest.importorskip("transformers.pytorch_utils", reason="needs transformers")
    return module.Conv1D(6, 8)


STORED = {
    "Conv1D": (conv1d, 1),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(8, 6, 3, groups=2), 1),
    "experts (E, in, out)": (lambda: Experts(way=True), 2),
    "experts (E, out, in)": (lambda: Experts(way=False), 1),
}


def outputs_of(mask, name):
    """The mask as (outputs, what they read), spelled out."""
    if name == "ConvTranspose1d":
        return torch.cat([half.transpose(0, 1) for half in mask.chunk(2)]).flatten(1)
    if name == "Conv1D":
        return mask.T
    return torch.cat([one.T if "in, out" in name else one for one in mask])


@pytest.mark.parametrize("name", STORED)
class TestStarts:
    """A chosen start with a pattern by output was refused on every such weight."""

    def sparsify(self, model, method):
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        return regrow.sparsify(model, optimizer, method, total_steps=100, include="weight")

    @pytest.mark.parametrize("scope", ["global", "layer"])
    def test_the_outputs_with_the_largest_weights_are_kept(self, name, scope):
        model = STORED[name][0]()
        worth = outputs_of(model.weight.detach().abs(), name).sum(1)
        best = torch.zeros(len(worth), dtype=torch.bool)
        best[worth.topk(len(worth) // 2).indices] = True
        method = regrow.Static(density=0.5, pattern=Channel(), start=LargestWeights(scope=scope))
        mask = outputs_of(self.sparsify(model, method).masks["weight"], name)
        assert mask.equal(best.unsqueeze(1).expand(mask.shape))

    def test_kept_channels_go_on(self, name):
        model = STORED[name][0]()
        rows = outputs_of(torch.arange(model.weight.numel()).reshape(model.weight.shape), name)
        units = torch.arange(len(rows)) % 2 == 0
        model.weight.data.put_(rows[~units], torch.tensor(0.0).expand(rows[~units].shape))
        before = model.weight.detach().clone()
        method = regrow.SET(density=0.5, pattern=Channel(), start=KeptWeights(), update_every=1)
        sparse = self.sparsify(model, method)
        assert model.weight.equal(before)
        mask = outputs_of(sparse.masks["weight"], name)
        assert mask.all(1).equal(units) and mask.any(1).equal(units)

    @pytest.mark.parametrize("pattern", [FanIn(), NM(2, 4)], ids=repr)
    def test_kept_masks_with_equal_groups_go_on_and_others_are_refused(self, name, pattern):
        model = STORED[name][0]()
        shape = tuple(model.weight.shape)
        one = turned(pattern, layouts_of(model)["weight"])
        free = torch.ones(one.grid(shape), dtype=torch.bool)
        units = one.draw(one.kept(0.5, shape), free, free.numel(), torch.Generator())
        mask = one.expand(units, shape)
        options = {"density": 0.5, "pattern": pattern, "update_every": 1}
        start = KeptWeights(masks={"weight": mask})
        sparse = self.sparsify(model, regrow.RigL(start=start, **options))
        assert sparse.masks["weight"].equal(mask)
        model.weight.grad = torch.randn(shape)
        sparse.update_()
        assert not sparse.masks["weight"].equal(mask)
        by_output = outputs_of(sparse.masks["weight"], name)
        assert by_output.sum(1).unique().numel() == 1
        # A pair of entries changed over between two outputs: as many, but not equally many.
        other = mask.clone(memory_format=torch.contiguous_format)
        rows = outputs_of(torch.arange(mask.numel()).reshape(shape), name)
        flat = other.view(-1)
        first, second = rows[0], rows[1]
        flat[first[flat[first]][0]] = False
        flat[second[~flat[second]][0]] = True
        start = KeptWeights(masks={"weight": other})
        fresh = STORED[name][0]()
        with pytest.raises(ValueError, match="do not keep equally many"):
            self.sparsify(fresh, regrow.RigL(start=start, **options))

    def test_held_weights_hold_their_outputs(self, name):
        model = STORED[name][0]()
        rows = outputs_of(torch.arange(model.weight.numel()).reshape(model.weight.shape), name)
        available = torch.ones(model.weight.numel(), dtype=torch.bool)
        available[rows[1][0]] = False
        start = LargestWeights(scope="layer")
        method = regrow.Static(density=0.3, pattern=Channel(), start=start)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        sparse = regrow.sparsify(
            model,
            optimizer,
            method,
            total_steps=10,
            include="weight",
            available={"weight": available.reshape(model.weight.shape)},
        )
        assert not sparse._topology.layers[0].units()[1]
        assert outputs_of(sparse.masks["weight"], name)[1].all()  # held, as it was
