"""Which optimizer drives a topology, and whether it can."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from regrow.engine.method import Method
from regrow.engine.optimizers import exchanges_weights, minds_no_gradients, steps_in_backward

__all__ = ["check_optimizer", "check_together", "driver", "hook"]


def driver(optimizer: Optimizer) -> Optimizer:
    """Return the optimizer whose hooks run: wrappers of Accelerate and Fabric step another.

    SAM's ``first_step()`` and ``second_step()`` are no steps to torch; that of its base is.
    """
    base = getattr(optimizer, "base_optimizer", None)
    if isinstance(optimizer, Optimizer) and isinstance(base, Optimizer):
        return driver(base)
    inner = getattr(optimizer, "optimizer", None)
    if not isinstance(optimizer, Optimizer) or not isinstance(inner, Optimizer):
        return optimizer
    # Fabric's passes every attribute on, the hooks too: it is the inner one that steps.
    hooks = getattr(optimizer, "_optimizer_step_pre_hooks", None)
    own = hooks is not None and hooks is not inner._optimizer_step_pre_hooks
    return optimizer if own else driver(inner)


def check_optimizer(optimizer: Optimizer, weights: Mapping[str, Tensor]) -> None:
    """Raise unless an optimizer holds these weights, and moves them in its steps."""
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer={optimizer!r}: a torch.optim.Optimizer is needed")
    if reason := steps_in_backward(optimizer):
        raise ValueError(
            f"optimizer: {reason}: weights move inside backward(), where no topology follows them. "
            "Use one optimizer that moves all weights in its step(), such as AdamW"
        )
    # By identity: tensors compare entry by entry, and a model moved after its optimizer was built
    # may hold other tensors under the same names.
    holds = {id(p) for group in optimizer.param_groups for p in group["params"]}
    missing = [name for name, weight in weights.items() if id(weight) not in holds]
    if missing:
        raise ValueError(
            f"optimizer does not hold {', '.join(missing)}: build it from this model's parameters "
            "(after the model is moved and wrapped), or exclude these weights"
        )


def check_together(optimizer: Optimizer, method: Method) -> None:
    """Raise ValueError if an optimizer and a method cannot do with each other."""
    name, kind = method.name, type(optimizer).__name__
    if method.replaces_step and minds_no_gradients(optimizer):
        raise ValueError(
            f"{name}'s updates take the place of a step, for which {kind} gets no gradient, and "
            f"it raises without any: use {name}(replaces_step=False, ...) or another optimizer"
        )
    if method.reserves and exchanges_weights(optimizer):
        raise ValueError(
            f"{name} keeps weights aside of which {kind}, by train() and eval(), would make "
            "others: use an optimizer that keeps one set of weights, such as AdamW, or a method "
            "that keeps none aside, such as RigL"
        )


def hook(optimizer: Optimizer, before: Callable[..., Any], after: Callable[..., None]) -> list[Any]:
    """Let functions run before and after each of an optimizer's steps; return their handles.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
        >>> handles = hook(optimizer, lambda *_: print("before"), lambda *_: print("after"))
        >>> optimizer.step()
        before
        after
    """
    # Should the user compile optimizer.step, what the hooks do is not to be traced.
    untraced: Callable[..., Any] = torch.compiler.disable
    return [
        optimizer.register_step_pre_hook(untraced(before)),
        optimizer.register_step_post_hook(untraced(after)),
    ]
