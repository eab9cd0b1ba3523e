"""Small models, optimizers and a training loop for tests of continual learning."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional

X = torch.randn(12, 24, generator=torch.Generator().manual_seed(3))


class Attention(nn.Module):
    """A token mixer: attention, layer norm, an embedding of places."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.randn(4, 8) * 0.1)
        self.embed = nn.Linear(6, 8)
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.out = nn.Linear(8, 3)

    def forward(self, x):
        x = self.embed(x.reshape(len(x), 4, 6)) + self.places
        x = self.norm(x + self.attend(x, x, x, need_weights=False)[0])
        return self.out(x.mean(1))


def linear():
    return nn.Sequential(
        nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 3)
    )


def convolution(norm=nn.BatchNorm2d):
    return nn.Sequential(
        nn.Unflatten(1, (2, 3, 4)),
        nn.Conv2d(2, 8, 3, padding=1),
        norm(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, bias=False),
        norm(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(96, 5),
    )


MODELS = {
    "linear": linear,
    "batch norm": convolution,
    "group norm": lambda: convolution(lambda channels: nn.GroupNorm(2, channels)),
    "attention": Attention,
}
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.02, weight_decay=0.5),
}


def step(network, task, optimizer):
    """One step; inputs and labels depend on the task."""
    optimizer.zero_grad()
    labels = torch.arange(len(X)) % len(network.tasks[task].classes)
    functional.cross_entropy(network.model(X.roll(task, 1)), labels).backward()
    optimizer.step()


def learn(network, classes=2, kind="sgd", steps=8, **options):
    """Add a task and train it; it is not finished. Return its number and its optimizer."""
    task = network.add_task(classes, **options)
    optimizer = OPTIMIZERS[kind](network.parameters())
    network.sparsify(optimizer, total_steps=steps)
    for _ in range(steps):
        step(network, task, optimizer)
    return task, optimizer


@pytest.fixture(scope="session")
def lab():
    """What the tests share; of the whole session, as hypothesis wants it."""
    return SimpleNamespace(
        models=MODELS, optimizers=OPTIMIZERS, x=X, step=step, learn=learn, linear=linear,
        convolution=convolution,
    )  # fmt: skip
