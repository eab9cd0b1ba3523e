"""The base of learners that reserve whole units for tasks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import regrow
from regrow.continual.baselines.learner import Learner, hash_seed
from regrow.continual.baselines.network import MultiHead, seeded_build
from regrow.continual.baselines.training import Setup, Tell, fit, predict_in_parts
from regrow.continual.streams.task import TaskData
from regrow.engine.allocation import Uniform, units_kept
from regrow.engine.criteria import WeightTimesGradient
from regrow.engine.schedules import Cosine
from regrow.engine.scores import Random
from regrow.engine.selection import top_k

__all__ = ["Tensors", "UnitLearner", "rows", "write_"]

Tensors: TypeAlias = dict[str, Tensor]


class UnitLearner(Learner):
    """Reserve output units of every layer for each task; later tasks may not grow into them.

    Weights of earlier tasks are frozen and read by all later ones. What a task answers is computed
    under its own mask, with its own biases and norms, so that nothing is forgotten.

    Args:
        setup: network, training, seed.
        density: of what a task may take, layer by layer.
        reserve: the share of the unreserved units of each layer that a task reserves, in (0, 1].
        updates: of the topology within a task.
    """

    def __init__(
        self, setup: Setup, density: float, reserve: float = 0.2, updates: int = 20
    ) -> None:
        if not 0 < reserve <= 1:
            raise ValueError(f"reserve={reserve}: must lie in (0, 1], the share of free units")
        super().__init__(setup)
        self.reserve, self.updates = reserve, updates
        self.method = regrow.Dynamic(
            density=density,
            allocation=Uniform(),
            drop=WeightTimesGradient(),
            grow=Random(),
            drop_fraction=Cosine(0.5, 0.005),
            stop_at=1.0,
        )
        self.network = MultiHead(setup.build, setup.seed).to(setup.device)
        body = self.network.body
        self.store = {n: torch.zeros_like(p) for n, p in body.named_parameters() if p.ndim > 1}
        self.used = {n: torch.zeros_like(p, dtype=torch.bool) for n, p in self.store.items()}
        self.reserved = {n: used.new_zeros(len(used)) for n, used in self.used.items()}
        self._first = {n: t.clone() for n, t in self._own().items()}
        self._tasks: list[tuple[Tensors, Tensors]] = []  # of each: masks, own tensors

    @property
    def learnt(self) -> int:
        """How many tasks it has learnt."""
        return len(self._tasks)

    @property
    def weights_used(self) -> int:
        """How many shared weights some task has learnt."""
        return sum(int(used.sum()) for used in self.used.values())

    @property
    def masks(self) -> Sequence[Mapping[str, Tensor]]:
        """The active weights of each task."""
        return [masks for masks, _ in self._tasks]

    def learn(self, task: TaskData, tell: Tell = lambda _: None) -> None:
        """Learn the next task."""
        number = self.learnt
        self.network.add_head(task.classes, self._seed("head"))
        free = {n: ~used & ~rows(self.reserved[n], used) for n, used in self.used.items()}
        self._show_fresh(free)
        own, worth = self._learn(task, number, free, tell)
        weights = dict(self.network.body.named_parameters())
        for name, new in own.items():
            self.store[name] = torch.where(new, weights[name].detach(), self.store[name])
            self.used[name] = self.used[name] | new
            self.reserved[name] = self.reserve_units(name, worth[name])
        masks = {name: used.cpu() for name, used in self.used.items()}
        self._tasks.append((masks, {n: t.detach().clone() for n, t in self._own().items()}))

    def predict(self, task: int, inputs: Tensor) -> Tensor:
        """Return a task's own logits."""
        self._check(task)
        masks, own = self._tasks[task]
        shown = {n: w * masks[n].to(w.device) for n, w in self.store.items()}
        write_(self.network.body, shown | own)
        network = self.network
        return predict_in_parts(network, lambda x: network(x, task), inputs, self.setup.training)

    @abstractmethod
    def _learn(
        self, task: TaskData, number: int, free: Tensors, tell: Tell
    ) -> tuple[Tensors, Tensors]:
        """Train; return which free weights are the task's, and what each unit is worth to it."""

    def reserve_units(self, name: str, worth: Tensor) -> Tensor:
        """Return the reserved units, those with the task's own among them."""
        open_ = ~self.reserved[name]
        if not (n := int(open_.sum())):
            return self.reserved[name]
        return self.reserved[name] | top_k(worth, units_kept(self.reserve, n), open_)

    def _own(self) -> Tensors:
        """Return the body's tensors that belong to one task: biases, norms, statistics."""
        body = self.network.body
        tensors: Tensors = dict(body.named_parameters()) | dict(body.named_buffers())
        return {name: tensor for name, tensor in tensors.items() if name not in self.store}

    def _show_fresh(self, free: Tensors) -> None:
        """Show earlier tasks' weights, fresh free ones, and zeros where nothing may grow."""
        seed = hash_seed(self.setup.seed, "fresh", self.learnt)
        fresh = dict(seeded_build(self.setup.build, seed).named_parameters())
        values = {n: torch.where(free[n], fresh[n].to(w), w) for n, w in self.store.items()}
        write_(self.network.body, values | self._first)

    def train(
        self,
        task: TaskData,
        number: int,
        method: regrow.Method,
        available: Tensors,
        epochs: int,
        before_step: Callable[[], None] = lambda: None,
        tell: Tell = lambda _: None,
    ) -> Tensors:
        """Train for some epochs; return which available weights are active at the end."""
        network, training = self.network, replace(self.setup.training, epochs=epochs)
        held = [*network.body.parameters(), *network.heads[number].parameters()]
        optimizer = training.make_optimizer(held)
        steps = training.steps(len(task.train))
        if isinstance(method, regrow.Dynamic):
            method = replace(method, update_every=max(steps // self.updates, 1))
        body = {f"body.{name}": mask for name, mask in available.items()}
        sparse = regrow.sparsify(
            network,
            optimizer,
            replace(method, density=_fitting(method, body)),
            total_steps=steps,
            include=list(body),
            available=body,
            seed=hash_seed(self.setup.seed, "topology", number),
        )
        network.train()
        fit(
            lambda batch: cross_entropy(network(batch.inputs, number), batch.targets),
            optimizer,
            task.train,
            replace(self.setup, training=training),
            "task",
            number,
            epochs,
            before_step=before_step,
            tell=tell,
        )
        masks = sparse.masks
        sparse.remove()
        return {name: masks[f"body.{name}"] & mask for name, mask in available.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return what it has learnt."""
        return {
            "classes": self.network.classes,
            "heads": self.network.heads.state_dict(),
            "store": self.store,
            "used": self.used,
            "reserved": self.reserved,
            "tasks": [list(task) for task in self._tasks],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        for classes in state["classes"]:
            self.network.add_head(classes, 0)
        self.network.heads.load_state_dict(state["heads"])
        where = self.setup.device
        self.store, self.used, self.reserved = (
            {name: tensor.to(where) for name, tensor in state[part].items()}
            for part in ("store", "used", "reserved")
        )
        self._tasks = [
            (dict(masks), {name: tensor.to(where) for name, tensor in own.items()})
            for masks, own in state["tasks"]
        ]


def rows(units: Tensor, weight: Tensor) -> Tensor:
    """Spread a bool a unit over the weights into it; shape of the weight."""
    return units.view(-1, *(1,) * (weight.ndim - 1)).expand(weight.shape)


def _fitting(method: regrow.Method, available: Tensors) -> dict[str, float]:
    """Return densities that ask for no more than is available; 1 stands for all of that."""
    assert not isinstance(method.density, Mapping)
    room = {name: int(mask.sum()) / mask.numel() for name, mask in available.items()}
    return {n: method.density if method.density < share else 1.0 for n, share in room.items()}


@torch.no_grad()
def write_(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Write parameters and buffers in place, by name."""
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    for name, value in values.items():
        tensors[name].copy_(value)
