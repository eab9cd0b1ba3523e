"""Joint training: what could be learnt if all tasks were there at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from regrow.continual.baselines.learner import Learner, Setup
from regrow.continual.baselines.network import MultiHead
from regrow.continual.baselines.training import Tell, fit, predict_in_parts
from regrow.continual.streams.task import Part, Stream, TaskData

__all__ = ["Joint"]


class Joint(Learner):
    """Train a new network on all tasks so far, whenever another one comes.

    It keeps all data, which no continual learner may, and takes longer with every task.

    Args:
        setup: network, training, seed.
        stream: the tasks; the one to be learnt must be the stream's next.
    """

    def __init__(self, setup: Setup, stream: Stream) -> None:
        super().__init__(setup)
        self.stream = stream
        self.network = self._new()

    def _new(self) -> MultiHead:
        return MultiHead(self.setup.build, self.setup.seed).to(self.setup.device)

    @property
    def learnt(self) -> int:
        """How many tasks it has learnt."""
        return len(self.network.heads)

    @property
    def weights_used(self) -> int:
        """How many weights the body has."""
        return sum(weight.numel() for weight in self.network.weights)

    def learn(self, task: TaskData, tell: Tell = lambda _: None) -> None:
        """Learn all tasks so far anew, together with the next one."""
        number = self.learnt
        if number >= len(self.stream) or task.name != self.stream[number].name:
            raise ValueError(f"task={task.name!r}: is not task {number} of {self.stream.name}")
        tasks = [*self.stream[:number], task] if number else [task]
        network = self._new()
        for i, one in enumerate(tasks):
            network.add_head(one.classes, i)
        # A batch's "targets" are its samples' numbers: both targets and tasks are looked up.
        inputs = torch.cat([one.train.inputs for one in tasks])
        targets = torch.cat([one.train.targets for one in tasks])
        owners = torch.cat([torch.full_like(t.train.targets, i) for i, t in enumerate(tasks)])
        samples = Part(inputs, torch.arange(len(targets), device=targets.device))
        network.train()
        fit(
            lambda x, index: network.mixed_loss(x, targets[index], owners[index]),
            self.setup.training.make_optimizer(network.parameters()),
            samples,
            self.setup.training,
            self.setup.seed,
            "joint",
            number,
            augment=self.setup.augment,
            tell=tell,
        )
        self.network = network

    def predict(self, task: int, inputs: Tensor) -> Tensor:
        """Return a task's own logits."""
        self._check(task)
        network = self.network
        return predict_in_parts(network, lambda x: network(x, task), inputs, self.setup.training)

    def state_dict(self) -> dict[str, Any]:
        """Return what it has learnt."""
        return {"classes": self.network.classes, "network": self.network.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        for classes in state["classes"]:
            self.network.add_head(classes, 0)
        self.network.load_state_dict(state["network"])
