"""Losses of samples are told to what remembers them, weighed by it, and saved with the run."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

import regrow
from regrow.lab.run import Run
from regrow.training import Batch, Problem, Setting, Source, start, train

N = 12


class Remembered:
    """Counts how often a sample was seen; some samples may not count."""

    def __init__(self, weights=None):
        self.seen, self.losses = torch.zeros(N), torch.zeros(N)
        self.given = weights

    def update(self, ids, losses):
        assert losses.shape == ids.shape and not losses.requires_grad
        self.seen[ids] += 1
        self.losses[ids] = losses

    def weights(self, ids):
        return None if self.given is None else self.given[ids]

    def state_dict(self):
        return {"seen": self.seen, "losses": self.losses}

    def load_state_dict(self, state):
        self.seen, self.losses = state["seen"], state["losses"]


class Growing:
    """An epoch has one batch more than the one before."""

    x = torch.randn(N, 3, generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return 2

    def epoch(self, number):
        for b in range(number + 1):
            ids = torch.arange(4) + 4 * (b % 3)
            yield Batch(self.x[ids], self.x[ids].sum(1, keepdim=True), ids)


@dataclass(frozen=True, kw_only=True)
class Sums(Setting, Problem):
    memory: object = None
    steps: int | None = 6

    def open(self, setting, run):
        made = {"memory": self.memory or Remembered(), "steps": self.steps}
        return Source(batches=Growing(), example=lambda n: torch.zeros(n, 3), **made)

    def build(self, source):
        return nn.Linear(3, 1)

    def loss(self, outputs, batch):
        return (outputs - batch.targets).square().mean(1)

    def test(self, trainer, run):
        return {}


SUMS = Sums(
    seed=0, method=regrow.Dense(), epochs=3, batch=4, learning_rate=0.05, schedule="cosine",
    nesterov=False, momentum=0.0, weight_decay=0.0,
)  # fmt: skip


def test_the_learning_rate_ends_with_the_planned_steps(tmp_path):
    trainer = start(SUMS, SUMS, Run(tmp_path, {"device": "cpu"}))
    rates, told = [], []
    for _ in range(3):
        trainer.run_epoch(tell=told.append)
        rates.append(trainer.optimizer.param_groups[0]["lr"])
    assert trainer.steps == 6 and told == [pytest.approx(i / 6) for i in range(1, 7)]
    assert rates[-1] == pytest.approx(0.0, abs=1e-12) and rates[0] > rates[1] > 0


def test_what_is_remembered_is_every_loss_of_every_sample(tmp_path):
    trainer = start(SUMS, SUMS, Run(tmp_path, {"device": "cpu"}))
    for _ in range(3):
        trainer.run_epoch()
    memory = trainer.source.memory
    assert memory.seen.tolist() == [3] * 4 + [2] * 4 + [1] * 4
    assert (memory.losses > 0).all()


def test_samples_of_no_weight_are_not_learnt(tmp_path):
    none = replace(SUMS, memory=Remembered(torch.zeros(N)))
    trainer = start(none, none, Run(tmp_path, {"device": "cpu"}))
    before = trainer.model.weight.detach().clone()
    trainer.run_epoch()
    assert trainer.model.weight.equal(before)
    assert trainer.source.memory.losses[:4].min() > 0  # remembered unweighed


def test_memory_goes_on_with_the_run(tmp_path):
    class Cut(Exception):
        pass

    def stop(values):
        if values["epoch"] == 2:
            raise Cut

    def run(folder, **kind):
        folder.mkdir(exist_ok=True)
        run = Run(folder, {"device": "cpu"}, save_every=0, **kind)
        memory = Remembered()
        trial = replace(SUMS, memory=memory)
        return train(trial, start(trial, trial, run), run), memory

    with pytest.raises(Cut):
        run(tmp_path / "cut", show=stop)
    (again, resumed), (whole, memory) = run(tmp_path / "cut"), run(tmp_path / "whole")
    assert again["loss"] == whole["loss"]
    assert resumed.seen.equal(memory.seen) and resumed.losses.equal(memory.losses)
