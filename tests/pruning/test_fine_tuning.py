"""Fine-tuning wins back what pruning cost: attention, convolutions, recurrence; three seeds."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

import regrow

datasets = pytest.importorskip("sklearn.datasets", reason="pip install '.[vision]'")


class Convolutional(nn.Sequential):
    def __init__(self):
        super().__init__(
            *(nn.Unflatten(1, (1, 8)), nn.Conv2d(1, 12, 3), nn.ReLU(), nn.Conv2d(12, 16, 3)),
            *(nn.ReLU(), nn.Flatten(), nn.Linear(256, 10)),
        )


class Recurrent(nn.Module):
    """Reads an image row by row."""

    def __init__(self):
        super().__init__()
        self.memory, self.head = nn.LSTM(8, 32, batch_first=True), nn.Linear(32, 10)

    def forward(self, x):
        return self.head(self.memory(x)[0][:, -1])


class Attention(nn.Module):
    """Rows are tokens, told apart by what is added to each."""

    def __init__(self):
        super().__init__()
        self.tokens, self.places = nn.Linear(8, 32), nn.Parameter(torch.randn(8, 32) / 4)
        self.layer = nn.TransformerEncoderLayer(32, 2, 64, dropout=0.0, batch_first=True)
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        return self.head(self.layer(self.tokens(x) + self.places).mean(1))


@pytest.fixture(scope="module")
def digits():
    images, labels = datasets.load_digits(return_X_y=True)
    x, y = torch.tensor(images / 16, dtype=torch.float32).reshape(-1, 8, 8), torch.tensor(labels)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    train, test = order[:1200], order[1200:]
    return x[train], y[train], x[test], y[test]


def fit(model, optimizer, data, steps, seed):
    x, y, *_ = data
    draw = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        rows = torch.randint(len(x), (32,), generator=draw)
        optimizer.zero_grad()
        functional.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()


def adam(model):
    return torch.optim.Adam(model.parameters(), lr=5e-3)


@torch.no_grad()
def loss_of(model, data):
    return functional.cross_entropy(model(data[2]), data[3]).item()


@pytest.mark.parametrize("kind", [Attention, Convolutional, Recurrent])
def test_fine_tuned_is_better_than_one_shot_and_counts_stay_exact(kind, digits):
    for seed in range(3):
        torch.manual_seed(seed)
        model = kind()
        fit(model, adam(model), digits, 100, seed)
        assert loss_of(model, digits) < 1.2  # of ln 10 = 2.3: it has learnt
        pruned = regrow.prune(model, regrow.SparseGPT(density=0.15), digits[0][:256].split(64))
        one_shot = loss_of(model, digits)
        options = {"density": pruned.density, "start": pruned.start}
        for method in (regrow.Static(**options), regrow.RigL(**options, update_every=5)):
            tuned = copy.deepcopy(model)
            optimizer = adam(tuned)
            plan = {"total_steps": 30, "include": pruned.names}
            sparse = regrow.sparsify(tuned, optimizer, method, **plan)
            fit(tuned, optimizer, digits, 30, 10 + seed)
            assert loss_of(tuned, digits) < one_shot, (seed, method)
            masks = sparse.masks
            for name, kept in pruned.kept.items():
                assert int(masks[name].sum()) == kept
                assert not tuned.get_parameter(name)[~masks[name]].any()
            stayed = all(torch.equal(masks[name], pruned.masks[name]) for name in pruned.names)
            assert stayed == isinstance(method, regrow.Static)
