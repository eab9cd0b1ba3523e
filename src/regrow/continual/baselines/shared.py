"""Learners that train one body for all tasks: naive fine-tuning, EWC, replay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy

from regrow.continual.baselines.learner import Learner
from regrow.continual.baselines.network import MultiHead
from regrow.continual.baselines.training import Loss, Setup, Tell, fit, predict_in_parts
from regrow.continual.streams.task import Part, TaskData
from regrow.engine.selection import seeded_generator
from regrow.training.batch import Batch

__all__ = ["EWC", "FineTuning", "OneBody", "Replay", "joined"]

_CHUNK = 32  # samples whose gradients are held at a time


class OneBody(Learner):
    """One body for all tasks, with a head a task.

    Args:
        setup: network, training, seed.
    """

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
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


class FineTuning(OneBody):
    """Train the whole body on each task in turn, and do nothing against forgetting.

    The lower bound that all others are compared with. Each task has a head of its own; the body,
    with the statistics of its norms, is that of the last task.

    Args:
        setup: network, training, seed.
    """

    def learn(self, task: TaskData, tell: Tell = lambda _: None) -> None:
        """Learn the next task."""
        number, network = self.learnt, self.network
        network.add_head(task.classes, self._seed("head"))
        network.train()
        fit(
            self._loss(number),
            self.setup.training.make_optimizer(self._trained(number)),
            task.train,
            self.setup,
            "task",
            number,
            before_step=self._before_step,
            tell=tell,
        )
        self._remember(task, number)

    def _loss(self, number: int) -> Loss:
        """Return the loss of a batch of a task."""
        network = self.network
        return lambda batch: cross_entropy(network(batch.inputs, number), batch.targets)

    def _trained(self, number: int) -> list[nn.Parameter]:
        """Return what a task changes."""
        return [*self.network.body.parameters(), *self.network.heads[number].parameters()]

    def _before_step(self) -> None:
        """Change gradients before each step."""

    def _remember(self, task: TaskData, number: int) -> None:
        """Keep what later tasks need of one just learnt."""


class EWC(FineTuning):
    """Elastic weight consolidation: hold weights the more, the more earlier tasks need them.

    The loss has λ/2 · Σ_k Σ_i F_{k,i} (θ_i - θ_{k,i})² added, where F_k is the diagonal of the
    Fisher information of task k, of labels drawn from the network itself, and θ_k are the weights
    after it.

    Args:
        setup: network, training, seed.
        strength: λ, at least 0.
        samples: of each task, for its Fisher information.

    Raises:
        ValueError: an argument is out of range.

    Source: Kirkpatrick et al. 2017 (arXiv 1612.00796), equation 3.

    Differs from the paper: λ ΣF is capped at 1 / learning rate weight by weight, without which a
    large λ makes steps overshoot; norms keep their running statistics, which nothing holds.
    """

    def __init__(self, setup: Setup, strength: float = 100.0, samples: int = 256) -> None:
        if strength < 0 or samples < 1:
            raise ValueError(f"strength={strength}, samples={samples}: at least 0 and 1 are needed")
        super().__init__(setup)
        self.strength, self.samples = strength, samples
        weights = list(self.network.body.parameters())
        self._fisher = [torch.zeros_like(w) for w in weights]
        self._pull = [torch.zeros_like(w) for w in weights]  # Σ_k F_k θ_k

    def _before_step(self) -> None:
        if self.learnt == 1:
            return
        cap = 1 / self.setup.training.learning_rate
        weights = self.network.body.parameters()
        for weight, fisher, pull in zip(weights, self._fisher, self._pull, strict=True):
            if weight.grad is not None:
                held = (self.strength * fisher).clamp_(max=cap)
                anchor = torch.where(fisher > 0, pull / fisher, weight.detach())
                weight.grad += held * (weight.detach() - anchor)

    @torch.no_grad()
    def _remember(self, task: TaskData, number: int) -> None:
        part = task.train.some(self.samples, self.setup.seed, "fisher", number)
        found = self._fisher_of(part, number)
        weights = self.network.body.parameters()
        for weight, fisher, pull, new in zip(weights, self._fisher, self._pull, found, strict=True):
            fisher.add_(new)
            pull.addcmul_(new, weight)

    def _fisher_of(self, part: Part, number: int) -> list[Tensor]:
        """Return the mean squared gradient of log-likelihoods of labels drawn by the network."""
        network = self.network.eval()
        chances = self.predict(number, part.inputs).softmax(1).cpu()
        key = seeded_generator(self.setup.seed, "labels", number)
        labels = torch.multinomial(chances, 1, generator=key)[:, 0].to(part.inputs.device)
        body = {n: p.detach() for n, p in network.body.named_parameters()}

        def loss(weights: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
            features = functional_call(network.body, weights, (image.unsqueeze(0),))
            return cross_entropy(network.heads[number](features), label.unsqueeze(0))

        totals = [torch.zeros_like(weight) for weight in body.values()]
        for images, drawn in zip(part.inputs.split(_CHUNK), labels.split(_CHUNK), strict=True):
            each = vmap(grad(loss), in_dims=(None, 0, 0))(body, images, drawn)
            for total, name in zip(totals, body, strict=True):
                total.add_(each[name].square().sum(0))
        return [total / len(part) for total in totals]

    def state_dict(self) -> dict[str, Any]:
        """Return what it has learnt."""
        return super().state_dict() | {"fisher": self._fisher, "pull": self._pull}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        super().load_state_dict(state)
        for mine, saved in ((self._fisher, state["fisher"]), (self._pull, state["pull"])):
            for tensor, value in zip(mine, saved, strict=True):
                tensor.copy_(value)


class Replay(FineTuning):
    """Experience replay: every step also learns from a few kept samples of earlier tasks.

    The buffer is shared equally by the tasks so far. A step's loss is the mean over a batch of new
    samples and as many of the buffer, drawn with replacement, each answered by its own task's head.

    Args:
        setup: network, training, seed.
        capacity: samples kept in all, at least 1.

    Raises:
        ValueError: the capacity is below 1.

    Source: Chaudhry et al. 2019 (arXiv 1902.10486), with tasks in place of a reservoir.
    """

    def __init__(self, setup: Setup, capacity: int = 500) -> None:
        if capacity < 1:
            raise ValueError(f"capacity={capacity}: at least one sample is needed")
        super().__init__(setup)
        self.capacity = capacity
        self.buffer: list[Part] = []

    def _loss(self, number: int) -> Loss:
        network = self.network
        memory = joined(self.buffer) if self.buffer else None
        drawn = seeded_generator(self.setup.seed, "replay", number)

        def loss(batch: Batch) -> Tensor:
            inputs, targets = batch.inputs, batch.targets
            tasks = torch.full_like(targets, number)
            if memory is not None:
                index = torch.randint(len(memory[1]), (len(targets),), generator=drawn)
                old = [tensor[index.to(tensor.device)] for tensor in memory]
                new = (inputs, targets, tasks)
                inputs, targets, tasks = (torch.cat(pair) for pair in zip(new, old, strict=True))
            return network.mixed_loss(inputs, targets, tasks)

        return loss

    def _trained(self, number: int) -> list[nn.Parameter]:
        return list(self.network.parameters())

    def _remember(self, task: TaskData, number: int) -> None:
        share = max(self.capacity // (number + 1), 1)
        parts = [*self.buffer, task.train]
        self.buffer = [p.some(share, self.setup.seed, "buffer", i) for i, p in enumerate(parts)]

    def state_dict(self) -> dict[str, Any]:
        """Return what it has learnt, with the samples kept."""
        kept = [(part.inputs.cpu(), part.targets.cpu()) for part in self.buffer]
        return super().state_dict() | {"buffer": kept}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        super().load_state_dict(state)
        where = self.setup.device
        self.buffer = [Part(x.to(where), y.to(where)) for x, y in state["buffer"]]


def joined(parts: Sequence[Part]) -> tuple[Tensor, Tensor, Tensor]:
    """Join parts of several tasks.

    Args:
        parts: of the tasks, in their order.

    Returns:
        Inputs, targets, and the number of each sample's task.
    """
    owners = [torch.full_like(part.targets, i) for i, part in enumerate(parts)]
    inputs, targets = ([getattr(p, name) for p in parts] for name in ("inputs", "targets"))
    return torch.cat(inputs), torch.cat(targets), torch.cat(owners)
