"""Independent networks: one a task, which share nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn.functional import cross_entropy

import regrow
from regrow.continual.baselines.learner import Learner, hash_seed
from regrow.continual.baselines.network import MultiHead
from regrow.continual.baselines.training import Setup, Tell, fit, predict_in_parts
from regrow.continual.streams.task import TaskData
from regrow.training.batch import Batch

__all__ = ["Independent"]


class Independent(Learner):
    """Train a new network on each task: nothing is forgotten, and nothing is shared.

    Args:
        setup: network, training, seed. For networks of the same total size as one, let ``build``
            make one of a T-th of the weights.
        method: keeps each network sparse; None is dense.
    """

    def __init__(self, setup: Setup, method: regrow.Method | None = None) -> None:
        super().__init__(setup)
        self.method = method
        self.networks: list[MultiHead] = []
        self._sizes: list[int] = []

    @property
    def learnt(self) -> int:
        """How many tasks it has learnt."""
        return len(self.networks)

    @property
    def weights_used(self) -> int:
        """How many weights the bodies have, all together; active ones if they are sparse."""
        return sum(self._sizes)

    def learn(self, task: TaskData, tell: Tell = lambda _: None) -> None:
        """Learn the next task in a network of its own."""
        number, training = self.learnt, self.setup.training
        network = self._new(number, task.classes)
        optimizer = training.make_optimizer(network.parameters())
        sparse = self.method and regrow.sparsify(
            network,
            optimizer,
            self.method,
            total_steps=training.steps(len(task.train)),
            exclude="heads.*",
            seed=hash_seed(self.setup.seed, "topology", number),
        )
        network.train()

        def loss(batch: Batch) -> Tensor:
            return cross_entropy(network(batch.inputs, 0), batch.targets)

        fit(loss, optimizer, task.train, self.setup, "task", number, tell=tell)
        size = sum(weight.numel() for weight in network.weights)
        if sparse:
            size = sum(int(mask.sum()) for mask in sparse.masks.values())
            sparse.remove()
        self.networks.append(network)
        self._sizes.append(size)

    def _new(self, number: int, classes: int) -> MultiHead:
        seed = hash_seed(self.setup.seed, "network", number)
        network = MultiHead(self.setup.build, seed)
        network.add_head(classes, seed)
        return network.to(self.setup.device)

    def predict(self, task: int, inputs: Tensor) -> Tensor:
        """Return a task's own logits."""
        self._check(task)
        network = self.networks[task]
        return predict_in_parts(network, lambda x: network(x, 0), inputs, self.setup.training)

    def state_dict(self) -> dict[str, Any]:
        """Return what it has learnt."""
        return {
            "classes": [network.classes[0] for network in self.networks],
            "sizes": list(self._sizes),
            "networks": [network.state_dict() for network in self.networks],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        for number, (classes, saved) in enumerate(
            zip(state["classes"], state["networks"], strict=True)
        ):
            network = self._new(number, classes)
            network.load_state_dict(saved)
            self.networks.append(network)
        self._sizes = list(state["sizes"])
