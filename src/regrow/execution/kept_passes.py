"""Inputs and output gradients of the backward passes that one weight's gradient is the sum of.

A dense gradient is formed of them, and it has to be that of the very batches whose gradient the
optimizer sees: not of a pass that made gradients of the inputs alone, as an attack does, nor of a
batch that was thrown away, as GradScaler does with infinite ones.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["KeptPasses"]


class KeptPasses:
    """What the backward passes of one layer leave for an update.

    Attributes:
        counted: pairs of an input and an output gradient, in the order of their passes.

    Example:
        >>> weight, passes = torch.nn.Parameter(torch.ones(1)), KeptPasses()
        >>> passes.keep(weight, torch.ones(1), torch.ones(1))  # called inside a backward pass
        >>> len(passes.counted)  # the weight has got no gradient of it
        0
    """

    counted: list[tuple[Tensor, Tensor]]

    def __init__(self) -> None:
        self._hooks: list[Any] = []
        self.release()

    def release(self) -> None:
        """Forget everything."""
        for hook in self._hooks:
            hook.remove()
        self.counted, self._hooks = [], []
        # Of passes whose weight has got no gradient yet, with the pass they are of: torch makes a
        # weight's gradient after all parts of it.
        self._open: list[tuple[int, Tensor, Tensor]] = []
        self._added = 0  # how many are in weight.grad
        self._sum: tuple[Tensor, int] | None = None  # it, and how often it was written until then

    def keep(self, weight: Tensor, x: Tensor, gradient: Tensor) -> None:
        """Keep a part of the pass that is going on, until the weight gets its gradient of it."""
        self._open.append((torch._C._current_graph_task_id(), x, gradient))
        if not self._hooks:
            self._hooks = [
                weight.register_hook(lambda _: self._count_(weight)),
                weight.register_post_accumulate_grad_hook(self._note_),
            ]

    def _count_(self, weight: Tensor) -> None:
        """Count the pass that has just made a gradient of the weight, and no other."""
        if self._added and self._cleared(weight):
            del self.counted[: self._added]
            self._added = 0
        now = torch._C._current_graph_task_id()
        self.counted += [(x, gradient) for task, x, gradient in self._open if task == now]
        # Of a pass around this one (checkpoints make passes inside others), more may come.
        self._open = [part for part in self._open if part[0] != now]

    def _note_(self, weight: Tensor) -> None:
        assert weight.grad is not None
        self._added, self._sum = len(self.counted), (weight.grad, weight.grad._version)

    def _cleared(self, weight: Tensor) -> bool:
        """Tell whether a gradient was cleared since it was made: its batch is thrown away."""
        if weight.grad is None or self._sum is None:
            return True
        gradient, writes = self._sum
        # Cleared in place it is plus zero throughout; a gradient that is so by itself, since no
        # active weight has learnt anything, was not written since.
        if weight.grad is gradient and gradient._version == writes:
            return False
        return not bool(weight.grad.any() | weight.grad.signbit().any())

    def __getstate__(self) -> dict[str, Any]:
        """Leave everything behind: copies of weights have no gradient."""
        return KeptPasses().__dict__
