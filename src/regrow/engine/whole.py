"""Changes that are made whole or not at all, whatever interrupts: an error, no memory, Ctrl-C.

What changes during training goes forward (:func:`finish`): all that can fail is computed first, and
the writes that are left are made to the end. What makes a model sparse goes back
(:func:`unchanged_on_error`): nobody would hold the sparsifier of a model that was changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from regrow.engine.optimizers import inside
from regrow.engine.sharding import local

__all__ = ["finish", "unchanged_on_error"]

_TRIES = 3  # of one write; what fails so often is not interrupted but impossible


def finish(writes: Iterable[Callable[[], object]]) -> None:
    """Make all of these writes, and only then raise what interrupted one.

    Args:
        writes: functions that leave the same when they are called again, whole or after an
            interruption. What they need, memory above all, is computed before.

    Raises:
        BaseException: what interrupted; every write was made all the same, unless one failed again
            and again.

    Example:
        >>> made, ctrl_c = [], iter([KeyboardInterrupt])
        >>> def write():
        ...     for signal in ctrl_c:
        ...         raise signal
        ...     made.append("first")
        >>> try:
        ...     finish([write, lambda: made.append("second")])
        ... except KeyboardInterrupt:
        ...     made
        ['first', 'second']
    """
    interruption: BaseException | None = None
    for write in writes:
        for _ in range(_TRIES):
            try:
                write()
            except BaseException as error:  # Ctrl-C, too; it is raised below
                interruption = interruption or error
            else:
                break
    if interruption is not None:
        raise interruption


@contextmanager
def unchanged_on_error(
    model: nn.Module, optimizer: Optimizer, written: Iterable[Tensor]
) -> Iterator[None]:
    """Put model and optimizer back as they were if the block raises.

    Args:
        model: its modules, parameters and buffers are put back, should they be replaced.
        optimizer: its parameters, state and hooks are put back.
        written: parameters whose values the block changes in place; copied meanwhile.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> optimizer, before = torch.optim.SGD(layer.parameters(), lr=0.1), layer.weight.clone()
        >>> try:
        ...     with torch.no_grad(), unchanged_on_error(layer, optimizer, [layer.weight]):
        ...         raise KeyboardInterrupt(layer.weight.zero_())
        ... except KeyboardInterrupt:
        ...     torch.equal(layer.weight, before)
        True
    """
    undo = [partial(_put_back_, module, _insides(module)) for module in model.modules()]
    undo += [partial(_write_, weight, local(weight.detach()).clone()) for weight in written]
    undo += [
        partial(group.__setitem__, "params", list(group["params"]))
        for group in optimizer.param_groups
    ]
    for one in inside(optimizer):
        # Some keep numbers there, too, that belong to no parameter.
        state = {k: dict(v) if isinstance(v, dict) else v for k, v in one.state.items()}
        undo.append(partial(_refill_, one.state, state))
    for hooks in (optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks):
        undo.append(partial(_refill_, hooks, dict(hooks)))
    try:
        yield
    except BaseException:
        finish(undo)
        raise


_PARTS = ("_modules", "_parameters", "_buffers")


def _insides(module: nn.Module) -> tuple[type[nn.Module], dict[str, dict[str, Any]]]:
    return type(module), {part: dict(getattr(module, part)) for part in _PARTS}


def _put_back_(
    module: nn.Module, insides: tuple[type[nn.Module], Mapping[str, Mapping[str, Any]]]
) -> None:
    kind, parts = insides
    if type(module) is not kind:  # a batch norm that was exchanged for a faster one
        module.__class__ = kind
    for part, before in parts.items():
        _refill_(getattr(module, part), before)


def _refill_(mapping: Any, before: Mapping[Any, Any]) -> None:
    """Give a dictionary its former entries, in place and in their order."""
    mapping.clear()
    mapping.update(before)


@torch.no_grad()
def _write_(weight: Tensor, values: Tensor) -> None:
    local(weight).copy_(values)
