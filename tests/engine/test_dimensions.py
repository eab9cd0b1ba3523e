"""What a parameter says of its outputs holds for copies of a sparse model, too."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

import regrow
from regrow.engine.patterns import Channel


class Own(nn.Module):
    """Stores (in, out)."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 6))

    def forward(self, x):
        return x @ self.weight


class OwnLinear(nn.Linear):
    """Of its kind the output would be dimension 0."""

    def forward(self, x):
        return x @ self.weight


def load(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def assign(model):
    model.load_state_dict({"0.weight": torch.randn(6, 6)}, assign=True)
    return model


WAYS = {
    "deepcopy": copy.deepcopy,
    "twice": lambda model: copy.deepcopy(copy.deepcopy(model)),
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "torch.save": load,
    "assign": assign,
    "average": lambda model: torch.optim.swa_utils.AveragedModel(model).module,
}


def sparsify(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    method = regrow.SET(density=0.5, pattern=Channel(), update_every=2)
    return regrow.sparsify(model, optimizer, method, total_steps=9, include="*weight")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("layer", [Own, lambda: OwnLinear(6, 6, bias=False)])
def test_a_copy_goes_by_the_same_outputs(layer, way):
    """deepcopy drops the attribute: outputs became inputs without a word."""
    model = nn.Sequential(layer())
    model[0].weight.output_dim = 1
    first = sparsify(model)
    first.remove()
    again = sparsify(WAYS[way](model)).masks["0.weight"]
    assert again.sum() == 18
    assert again.all(0).sum() == 3  # whole columns
    assert again.equal(first.masks["0.weight"])


def test_what_is_said_anew_holds():
    model = nn.Sequential(Own())
    model[0].weight.output_dim = 1
    sparsify(model).remove()
    model = copy.deepcopy(model)
    model[0].weight.output_dim = 0
    assert sparsify(model).masks["0.weight"].all(1).sum() == 3


def test_a_copy_made_before_is_refused_where_nothing_else_tells():
    model = nn.Sequential(Own())
    model[0].weight.output_dim = 1
    with pytest.raises(ValueError, match=r"not known.*output_dim"):
        sparsify(copy.deepcopy(model))
