"""Refuses optimizer steps while another task than the one being learnt is active."""

from __future__ import annotations

from typing import Any, Protocol

from torch.optim import Optimizer

__all__ = ["HasCurrentTask", "guard_"]


class HasCurrentTask(Protocol):
    """What the guard looks at before every step."""

    @property
    def optimizer(self) -> Optimizer | None:
        """The optimizer of the task that is being learnt."""

    @property
    def learning(self) -> int | None:
        """The task that is being learnt."""

    @property
    def active(self) -> int | None:
        """The task that is shown."""


def guard_(optimizer: Optimizer, learner: HasCurrentTask) -> Any:
    """Let an optimizer refuse to step on weights that are not its own; return the hook's handle."""

    def check(driven: Optimizer, *_: Any) -> None:
        if learner.optimizer is not driven:
            raise RuntimeError(
                "the optimizer stepped, but the task it was made for is finished: make a new one "
                "after add_task(), and call sparsify()"
            )
        if learner.active != learner.learning:
            raise RuntimeError(
                f"the optimizer stepped while task {learner.active} was shown: "
                f"activate({learner.learning}) first"
            )

    handle = optimizer.register_step_pre_hook(check)
    hooks: Any = optimizer._optimizer_step_pre_hooks  # first: others are not to begin a step
    hooks.move_to_end(handle.id, last=False)
    return handle
