"""Learners in which each task has a sparse network inside one store: the method, and PackNet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.nn.functional import cross_entropy

import regrow
from regrow.continual.baselines.learner import Learner
from regrow.continual.baselines.network import seeded_build
from regrow.continual.baselines.training import Setup, Tell, fit, predict_in_parts
from regrow.continual.capacity import Reuse, Share, WhenFull
from regrow.continual.network import TaskNetwork
from regrow.continual.streams.task import TaskData
from regrow.engine.allocation import Uniform
from regrow.training.batch import Batch

__all__ = ["PackNet", "SubNetworks"]


class SubNetworks(Learner):
    """Give each task a sparse network inside one store (:class:`regrow.continual.TaskNetwork`).

    Args:
        setup: network, training, seed.
        method: how each task finds its network; its schedule runs within a task.
        reuse: which weights of earlier tasks take part, see the network.
        share: what a density is a fraction of.
        when_full: what to do when too few weights are free.
    """

    def __init__(
        self,
        setup: Setup,
        method: regrow.Method,
        *,
        reuse: Reuse = "chosen",
        share: Share = "fixed",
        when_full: WhenFull = "reuse",
    ) -> None:
        super().__init__(setup)
        self.network = TaskNetwork(
            seeded_build(setup.build, setup.seed).to(setup.device),
            method,
            reuse=reuse,
            share=share,
            when_full=when_full,
            seed=setup.seed,
        )

    @property
    def learnt(self) -> int:
        """How many tasks it has learnt."""
        return len(self.network.tasks)

    @property
    def weights_used(self) -> int:
        """How many shared weights some task has learnt."""
        return sum(self.network.capacity().learnt)

    @property
    def masks(self) -> Sequence[Mapping[str, Tensor]]:
        """The active weights of each task."""
        return [self.network.masks(task) for task in range(self.learnt)]

    def learn(self, task: TaskData, tell: Tell = lambda _: None) -> None:
        """Learn the next task."""
        number, training, network = self.learnt, self.setup.training, self.network
        network.add_task(task.classes)
        optimizer = training.make_optimizer(network.parameters())
        network.sparsify(optimizer, total_steps=training.steps(len(task.train)))

        def loss(batch: Batch) -> Tensor:
            return cross_entropy(network.model(batch.inputs), batch.targets)

        fit(loss, optimizer, task.train, self.setup, "task", number, tell=tell)
        network.finish_task()

    def predict(self, task: int, inputs: Tensor) -> Tensor:
        """Return a task's own logits."""
        self._check(task)
        with self.network.shown(task) as model:
            return predict_in_parts(model, model, inputs, self.setup.training)

    def state_dict(self) -> dict[str, Any]:
        """Return what it has learnt."""
        return self.network.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        self.network.load_state_dict(state)


class PackNet(SubNetworks):
    """Train all free weights, keep the largest, train these on, freeze them.

    Each task reads all weights that earlier tasks have kept, beside its own.

    Args:
        setup: network, training, seed.
        keep: the share of the free weights that a task keeps, in (0, 1), the same in each layer.
        prune_at: the share of a task's steps that come before pruning, in (0, 1).

    Raises:
        ValueError: an argument is out of range.

    Source: Mallya & Lazebnik 2018 (arXiv 1711.05769), section 3.

    Differs from the paper: free weights are drawn anew for each task; biases and norms belong to
    one task, where the paper freezes those of the first; pruning falls inside the task's one
    learning-rate schedule.
    """

    def __init__(self, setup: Setup, keep: float, prune_at: float = 0.5) -> None:
        if not 0 < prune_at < 1:
            raise ValueError(f"prune_at={prune_at}: must lie between 0 and 1")
        method = regrow.Dynamic(
            density=keep,
            allocation=Uniform(),
            initial_density=1.0,
            drop_fraction=0.0,
            start_at=prune_at,
            stop_at=prune_at,
        )
        super().__init__(setup, method, reuse="all", share="free")
