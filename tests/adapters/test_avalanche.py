"""The plugin, called as Avalanche 0.6 calls its plugins."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional

import regrow
from regrow.adapters.avalanche import TaskNetworkPlugin
from regrow.continual import TaskNetwork

X = torch.randn(40, 8, generator=torch.Generator().manual_seed(1))
Y = torch.tensor([7, 3, 5, 1] * 10)


class Strategy:
    """The order of Avalanche's callbacks, and what plugins look at; nothing else of it."""

    train_epochs = 3

    def __init__(self, model, plugin):
        self.model, self.plugin = model, plugin
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    @property
    def mb_y(self):
        return self.mbatch[1]

    def call(self, event):
        if hasattr(self.plugin, event):
            getattr(self.plugin, event)(self)

    def make_optimizer(self, reset_optimizer_state=False):
        assert reset_optimizer_state
        self.optimizer.state.clear()
        self.optimizer.param_groups[0]["params"] = list(self.model.parameters())

    def load(self, experience):
        self.experience = experience
        rows = torch.isin(Y, torch.tensor(experience.classes_in_this_experience))
        batches = zip(X[rows].split(6), Y[rows].split(6), strict=True)
        self.dataloader = [[x, y, None] for x, y in batches]

    def train(self, experience, evaluate=()):
        self.load(experience)
        self.model.train()
        self.call("before_training_exp")
        for _ in range(self.train_epochs):
            for batch in self.dataloader:
                self.mbatch = list(batch)
                self.call("before_forward")
                self.optimizer.zero_grad()
                functional.cross_entropy(self.model(self.mbatch[0]), self.mb_y).backward()
                self.optimizer.step()
            for other in evaluate:
                kept = self.experience, self.dataloader
                self.eval(other)
                self.experience, self.dataloader = kept
        self.call("after_training_exp")

    def eval(self, experience):
        self.load(experience)
        mode = self.model.training
        self.model.eval()
        self.call("before_eval_exp")
        outputs = []
        for batch in self.dataloader:
            self.mbatch = list(batch)
            self.call("before_eval_forward")
            outputs.append(self.model(self.mbatch[0]).detach())
            assert set(self.mb_y.tolist()) <= set(range(outputs[-1].shape[1]))
        self.call("after_eval")
        self.model.train(mode)
        return torch.cat(outputs)


def experience(number, classes):
    return SimpleNamespace(current_experience=number, classes_in_this_experience=classes)


def test_experiences_become_tasks_that_answer_as_before():
    model = nn.Sequential(nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 2))
    network = TaskNetwork(model, regrow.SET(density=0.3, update_every=2))
    strategy = Strategy(network.model, TaskNetworkPlugin(network))
    first, second = experience(0, [7, 3]), experience(1, [1, 5, 7])
    strategy.train(first)
    before = strategy.eval(first)
    strategy.train(second, evaluate=[first])
    assert strategy.eval(first).equal(before)
    assert strategy.eval(second).shape[1] == 3
    assert [task.classes for task in network.tasks] == [(3, 7), (1, 5, 7)]
    with pytest.raises(ValueError, match="task='2' was never added"):
        strategy.eval(experience(2, [1, 3]))
