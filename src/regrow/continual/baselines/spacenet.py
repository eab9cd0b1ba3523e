"""Sparse training among free units, in the manner of SpaceNet."""

from __future__ import annotations

import torch

from regrow.continual.baselines.training import Tell
from regrow.continual.baselines.units import Tensors, UnitLearner
from regrow.continual.streams.task import TaskData

__all__ = ["SpaceNetLike"]


class SpaceNetLike(UnitLearner):
    """Sparse training among free units; the most important ones are reserved for the task.

    Connections are dropped by |w · g| and grown at random among units that no task has reserved. A
    unit is worth Σ |w · g| over its incoming weights and all steps; the best unreserved units of
    each layer are reserved after the task.

    Args:
        setup: network, training, seed.
        density: of a task's own weights, in each layer.
        reserve: the share of the unreserved units that a task reserves.
        updates: of the topology within a task.

    Raises:
        ValueError: an argument is out of range.

    Source: SpaceNet (Sokar, Mocanu & Pechenizkiy 2021, arXiv 2007.07617) and its public code.

    Differs from the paper: tasks are told apart by masks and heads of their own, where the paper
    evaluates one head for all classes; growth is random, not between the units of most importance;
    the number of units reserved is a share of what is free.
    """

    def _learn(
        self, task: TaskData, number: int, free: Tensors, tell: Tell
    ) -> tuple[Tensors, Tensors]:
        weights = {n: p for n, p in self.network.body.named_parameters() if n in free}
        worth = {name: torch.zeros_like(weight) for name, weight in weights.items()}

        def add() -> None:
            for name, weight in weights.items():
                if weight.grad is not None:
                    worth[name] += (weight.detach() * weight.grad).abs_()

        epochs = self.setup.training.epochs
        own = self.train(task, number, self.method, free, epochs, add, tell)
        return own, {name: value.flatten(1).sum(1) for name, value in worth.items()}
