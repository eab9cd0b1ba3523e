"""Which layers follow one another: only those of which the structure leaves no doubt."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import regrow
from regrow.engine.chains import follows


def shared():
    layer = nn.Linear(4, 4)
    return nn.Sequential(layer, nn.ReLU(), layer, nn.ReLU(), nn.Linear(4, 4))


def tied():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    return model


def parametrized():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    parametrize.register_parametrization(model[0], "weight", nn.Identity())
    return model


class Residual(nn.Sequential):
    def forward(self, inputs):
        return inputs + super().forward(inputs)


class Attention(nn.Module):
    """Four projections of one shape: in the order of registration, k comes "after" q."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(16, 16, bias=False) for _ in range(4))

    def forward(self, x):
        seen = torch.softmax(self.q(x) @ self.k(x).transpose(-1, -2), -1)
        return self.o(seen @ self.v(x))


def one(between):
    return nn.Sequential(nn.Linear(4, 4), between, nn.Linear(4, 4))


CHAIN = {"2.weight": "0.weight"}


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        *((one(m), CHAIN) for m in (nn.ReLU(), nn.GELU(), nn.PReLU(), nn.Dropout(), nn.Identity())),
        *((one(m), CHAIN) for m in (nn.BatchNorm1d(4), nn.LayerNorm(4), nn.GroupNorm(2, 4))),
        *((one(m), {}) for m in (nn.Flatten(), nn.GLU(), nn.Softmax(-1), nn.LSTM(4, 4))),
        (one(Residual(nn.ReLU())), {}),
        (nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), {"1.weight": "0.weight"}),
        (
            nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1)),
            {"3.weight": "0.weight"},
        ),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4, 2)), {}),
        (
            nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.Tanh()), nn.Linear(4, 4)),
            {"1.weight": "0.0.weight"},
        ),
        (
            nn.ModuleDict({"body": one(nn.ReLU()), "head": nn.Linear(4, 4)}),
            {"body.2.weight": "body.0.weight"},
        ),
        (nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)]), {}),
        (nn.Sequential(Residual(nn.Linear(4, 4)), nn.Linear(4, 4)), {}),
        (nn.Linear(4, 4), {}),
        (shared(), {}),
        (tied(), {}),
        (parametrized(), {}),
        (Attention(), {}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_follows_what(model, expected):
    assert follows(model) == expected


def test_the_plan_says_it_of_sparse_weights():
    model = one(nn.ReLU())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparse = regrow.sparsify(model, optimizer, regrow.Static(density=0.5), total_steps=9)
    assert [layer.after for layer in sparse.plan.layers] == [None, "0.weight"]


@pytest.mark.parametrize("seed", range(3))
def test_parallel_layers_that_were_taken_for_a_chain(seed):
    """Of q, k, v and o each lost what its neighbour in the order of registration did not read."""
    torch.manual_seed(0)
    model = Attention()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    method = regrow.CHT(density=0.1, drop_fraction=0.2, update_every=1, regrow_dropped=False)
    sparse = regrow.sparsify(model, optimizer, method, total_steps=9, seed=seed)
    assert any(not mask.any(0).all() for mask in sparse.masks.values())  # some input is not read
    model(torch.randn(4, 5, 16)).square().mean().backward()
    optimizer.step()
    for change in sparse.history[0].layers.values():
        assert change.dropped == int(0.2 * change.active)
