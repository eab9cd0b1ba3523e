"""Stable and plastic units, in the manner of NISPA."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

import regrow
from regrow.continual.baselines.training import Tell, predict_in_parts
from regrow.continual.baselines.units import Tensors, UnitLearner, rows, write_
from regrow.continual.streams.task import Part, TaskData
from regrow.engine.allocation import Uniform
from regrow.engine.chains import follows

__all__ = ["NISPALike"]


class NISPALike(UnitLearner):
    """Sparse training, then only connections among stable units are kept and trained on.

    After half of a task's epochs the units of each layer that are most active on its samples become
    stable. The task's weights into all others, and out of all others where the layers' order is
    known, are given back; the rest is trained on and frozen.

    Args:
        setup: network, training, seed.
        density: of a task's own weights while it looks for units, in each layer.
        reserve: the share of the plastic units that become stable with a task.
        updates: of the topology within a task.

    Raises:
        ValueError: an argument is out of range.

    Source: NISPA (Gurbuz & Dovrolis 2022, arXiv 2206.09117).

    Differs from the paper: units are chosen once, and a share of them, not in phases until they
    hold a share of the activation; connections are dropped by |w · g|; tasks have masks, biases and
    norms of their own. Where a layer's inputs are not surely the outputs of another (residual
    networks), only outgoing units count.
    """

    def _learn(
        self, task: TaskData, number: int, free: Tensors, tell: Tell
    ) -> tuple[Tensors, Tensors]:
        epochs = self.setup.training.epochs
        first = max(epochs // 2, 1)
        found = self.train(
            task, number, self.method, free, first, tell=lambda done: tell(done * first / epochs)
        )
        worth = self._activity(task.train.some(1000, self.setup.seed, "activity", number), number)
        own = self._among_stable(found, worth)
        weights = dict(self.network.body.named_parameters())
        given_back = {n: weights[n].detach() * ~(mask & ~own[n]) for n, mask in found.items()}
        write_(self.network.body, given_back)
        if epochs > first and all(mask.any() for mask in own.values()):
            static = regrow.Static(density=1.0, allocation=Uniform())
            self.train(
                task,
                number,
                static,
                own,
                epochs - first,
                tell=lambda done: tell((first + done * (epochs - first)) / epochs),
            )
        return own, worth

    def _among_stable(self, found: Tensors, worth: Tensors) -> Tensors:
        """Return the weights from and to units that are stable, or become so."""
        stable = {name: self.reserve_units(name, worth[name]) for name in found}
        before = follows(self.network.body)
        own = {}
        for name, mask in found.items():
            kept = mask & rows(stable[name], mask)
            if name in before:
                kept &= rows(stable[before[name]], mask.transpose(0, 1)).transpose(0, 1)
            own[name] = kept
        return own

    @torch.no_grad()
    def _activity(self, part: Part, number: int) -> Tensors:
        """Return the mean positive output of every unit."""
        network, found = self.network, {}
        with _outputs(network.body, list(self.store)) as outputs:
            predict_in_parts(
                network, lambda x: network(x, number), part.inputs, self.setup.training
            )
            for name, output in outputs.items():
                last = output.ndim == 2 or output.shape[1] != len(self.reserved[name])
                units = output.movedim(-1 if last else 1, 0)
                found[name] = units.flatten(1).relu().mean(1).float()
        return found


@contextmanager
def _outputs(model: nn.Module, names: Sequence[str]) -> Iterator[Tensors]:
    """Collect the outputs of the last batch of the modules whose weights have these names."""
    outputs: Tensors = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda _module, _inputs, output: outputs.__setitem__(name, output.detach())

    handles = [
        model.get_submodule(name.rpartition(".")[0]).register_forward_hook(keep(name))
        for name in names
    ]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
