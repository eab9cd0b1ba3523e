"""Joint training: a network trained anew on all tasks so far."""

from __future__ import annotations

from torch import Tensor

from regrow.continual.baselines.shared import OneBody, joined
from regrow.continual.baselines.training import Setup, Tell, fit
from regrow.continual.streams.task import Part, Stream, TaskData
from regrow.training.batch import Batch

__all__ = ["Joint"]


class Joint(OneBody):
    """Train a new network on all tasks so far, whenever another one comes.

    It keeps all data, which no continual learner may, and takes longer with every task.

    Args:
        setup: network, training, seed.
        stream: the tasks; the one to be learnt must be the stream's next.
    """

    def __init__(self, setup: Setup, stream: Stream) -> None:
        super().__init__(setup)
        self.stream = stream

    def learn(self, task: TaskData, tell: Tell = lambda _: None) -> None:
        """Learn all tasks so far anew, together with the next one."""
        number = self.learnt
        if number >= len(self.stream) or task.name != self.stream[number].name:
            raise ValueError(f"task={task.name!r}: is not task {number} of {self.stream.name}")
        tasks = [*self.stream[:number], task] if number else [task]
        network = self._new()
        for i, one in enumerate(tasks):
            network.add_head(one.classes, i)
        inputs, targets, owners = joined([one.train for one in tasks])
        network.train()

        def loss(batch: Batch) -> Tensor:
            return network.mixed_loss(batch.inputs, batch.targets, owners[batch.ids])

        optimizer = self.setup.training.make_optimizer(network.parameters())
        fit(loss, optimizer, Part(inputs, targets), self.setup, "joint", number, tell=tell)
        self.network = network
