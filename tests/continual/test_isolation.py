"""Exact by construction: what a task answers never changes, whatever is learnt after it."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

import regrow
from regrow.continual import TaskNetwork
from regrow.engine.allocation import ERK, Uniform
from regrow.engine.scores import Gradient, Momentum, Random, Unfired


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


def convolution(norm):
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
    "batch norm": lambda: convolution(nn.BatchNorm2d),
    "group norm": lambda: convolution(lambda channels: nn.GroupNorm(2, channels)),
    "attention": Attention,
}
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.02, weight_decay=0.5),
}
X = torch.randn(12, 24, generator=torch.Generator().manual_seed(3))


def learn(network, task, optimizer, steps=8):
    """Train the task that was added; inputs and labels depend on the task."""
    network.sparsify(optimizer, total_steps=steps)
    classes = len(network.tasks[task].classes)
    for _ in range(steps):
        optimizer.zero_grad()
        labels = torch.arange(len(X)) % classes
        functional.cross_entropy(network.model(X.roll(task, 1)), labels).backward()
        optimizer.step()


@settings(max_examples=60)
@given(
    model=st.sampled_from(list(MODELS)),
    optimizers=st.lists(st.sampled_from(list(OPTIMIZERS)), min_size=5, max_size=5),
    classes=st.lists(st.integers(1, 6), min_size=5, max_size=5),
    grow=st.sampled_from([Random(), Unfired(), Gradient(), Momentum(), None]),
    policy=st.sampled_from(
        [("chosen", "fixed", "error"), ("chosen", "free", "error"), ("all", "fixed", "reuse"),
         ("all", "free", "error"), ("none", "free", "error")]
    ),
    density=st.sampled_from([0.1, 0.3, 0.5]),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_earlier_tasks_answer_bit_for_bit(model, optimizers, classes, grow, policy, density, seed):
    reuse, share, when_full = policy
    allocation = Uniform() if reuse == "none" else ERK()
    if grow is None:
        method = regrow.Static(density=density, allocation=allocation)
    else:
        method = regrow.Dynamic(
            density=density, grow=grow, drop_fraction=0.5, update_every=2, stop_at=1.0,
            allocation=allocation,
        )  # fmt: skip
    torch.manual_seed(seed)
    network = TaskNetwork(
        MODELS[model](), method, reuse=reuse, share=share, when_full=when_full, seed=seed
    )
    before: list[torch.Tensor] = []
    for number, (kind, labels) in enumerate(zip(optimizers, classes, strict=True)):
        network.add_task(labels)
        learn(network, number, OPTIMIZERS[kind](network.parameters()))
        network.model.eval()
        with torch.no_grad():
            trained = network.model(X)
        network.finish_task()
        before.append(trained)
        assert trained.shape == (len(X), labels)
        for task, logits in enumerate(before):
            assert network.logits(X, task).equal(logits)
