"""Runs calibration data through a model and sums up what its weights multiply."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from regrow.pruning.inputs import parts_of, vectors
from regrow.pruning.stages import Use

__all__ = ["Forward", "batches_of", "called_in_order", "sums"]

Forward = Callable[[nn.Module, Any], object]


def batches_of(data: Any) -> Iterable[Any]:
    """Return calibration data as something that can be gone through again and again.

    Raises:
        TypeError: it is one batch, or nothing that yields batches.

    Example:
        >>> batches_of(torch.zeros(2) for _ in range(3))
        [tensor([0., 0.]), tensor([0., 0.]), tensor([0., 0.])]
    """
    if isinstance(data, Tensor | Mapping | str) or not isinstance(data, Iterable):
        one = type(data).__name__
        raise TypeError(
            f"data is a {one}: an iterable of batches is needed, such as a DataLoader, or [batch] "
            "for a single one"
        )
    return list(data) if isinstance(data, Iterator) else data


def called_in_order(
    model: nn.Module, uses: Sequence[Use], batches: Iterable[Any], forward: Forward | None
) -> list[Use]:
    """Run all data once; return the modules in the order of their first calls.

    Raises:
        ValueError: there is no batch, or a module was never called.
        FloatingPointError: what a weight multiplies is NaN or infinite.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2))
        >>> use = Use("0", model[0], {"weight": "0.weight"})
        >>> called_in_order(model, [use], [torch.ones(1, 2)], None) == [use]
        True
    """
    called: dict[str, Use] = {}
    finite: dict[str, Tensor] = {}

    def see(use: Use, key: str, part: int, x: Tensor) -> None:
        called.setdefault(use.path, use)
        name = use.names[key]
        fine = x.isfinite().all()
        finite[name] = finite[name] & fine if name in finite else fine

    n = _run(model, uses, batches, forward, see)
    if not n:
        raise ValueError("data has no batch: give some that the model was trained on")
    silent = [name for use in uses for name in use.names.values() if name not in finite]
    if silent:
        raise ValueError(
            f"no calibration data reached {', '.join(dict.fromkeys(silent))}: the model did not "
            "call these layers, or used their weights without calling them; give data that "
            "reaches them, or exclude them"
        )
    _check_finite(finite)
    return list(called.values())


def sums(
    model: nn.Module,
    uses: Sequence[Use],
    batches: Iterable[Any],
    forward: Forward | None,
    *,
    products: bool,
) -> dict[str, Tensor]:
    """Sum up what weights multiply, over all batches, places and calls, in float32 (or float64).

    Args:
        model: in evaluation mode.
        uses: the modules that read the weights.
        batches: calibration data.
        forward: see :func:`regrow.prune`.
        products: whether to return Σ x·xᵀ, shape (parts, in, in), or Σ x² alone, (parts, in).

    Returns:
        The sums by the weight's name.

    Raises:
        FloatingPointError: one is NaN or infinite.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2))
        >>> use = Use("0", model[0], {"weight": "0.weight"})
        >>> sums(model, [use], [torch.tensor([[3.0, 4.0]])], None, products=False)
        {'0.weight': tensor([[ 9., 16.]])}
    """
    found: dict[str, Tensor] = {}

    def see(use: Use, key: str, part: int, x: Tensor) -> None:
        name, parts = use.names[key], parts_of(use.module, key)
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        if name not in found:
            sizes = (parts, *x.shape[2:], *x.shape[2:]) if products else (parts, *x.shape[2:])
            found[name] = torch.zeros(sizes, dtype=x.dtype, device=x.device)
        own = found[name][part : part + len(x)]
        if products:
            own.baddbmm_(x.transpose(1, 2), x)  # in place, which autocast leaves in float32
        else:
            own += x.square().sum(1)

    _run(model, uses, batches, forward, see)
    _check_finite({name: one.isfinite().all() for name, one in found.items()})
    return found


def _check_finite(finite: Mapping[str, Tensor]) -> None:
    if bad := [name for name, fine in finite.items() if not bool(fine)]:
        raise FloatingPointError(
            f"what {', '.join(bad)} multiplies is NaN or infinite on the calibration data: look at "
            "the data and the weights before these layers; in float16, try bfloat16 or float32"
        )


def _run(
    model: nn.Module,
    uses: Sequence[Use],
    batches: Iterable[Any],
    forward: Forward | None,
    see: Callable[[Use, str, int, Tensor], None],
) -> int:
    """Run the batches, show what is seen, and return how many batches there were."""
    n = 0
    with _hooks(uses, see):
        for batch in batches:
            _call(model, batch, forward)
            n += 1
    return n


@contextmanager
def _hooks(uses: Sequence[Use], see: Callable[[Use, str, int, Tensor], None]) -> Iterator[None]:
    def hook(use: Use, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for key, part, x in vectors(module, tuple(use.names), args, kwargs):
            see(use, key, part, x)

    with ExitStack() as stack:
        for use in uses:
            handle = use.module.register_forward_pre_hook(partial(hook, use), with_kwargs=True)
            stack.callback(handle.remove)
        yield


def _call(model: nn.Module, batch: Any, forward: Forward | None) -> None:
    if forward is not None:
        forward(model, batch)
        return
    batch = _moved(batch, model)
    if isinstance(batch, list) and len(batch) == 1:
        batch = batch[0]
    if isinstance(batch, Tensor):
        model(batch)
    elif isinstance(batch, Mapping):
        model(**batch)
    elif isinstance(batch, tuple):
        model(*batch)
    else:
        raise TypeError(
            f"a batch is a {type(batch).__name__}: a tensor, a tuple of the model's arguments or a "
            "dict of its keyword arguments is needed; of others say how the model is called, such "
            "as forward=lambda model, batch: model(batch[0])"
        )


def _moved(batch: Any, model: nn.Module) -> Any:
    """Return a batch with its tensors on the device of the model, if it lies on one alone."""
    devices = {parameter.device for parameter in model.parameters()}
    if len(devices) != 1:
        return batch
    (device,) = devices

    def moved(value: Any) -> Any:
        return value.to(device) if isinstance(value, Tensor) else value

    if isinstance(batch, Mapping):
        return {key: moved(value) for key, value in batch.items()}
    if type(batch) in (tuple, list):
        return type(batch)(moved(value) for value in batch)
    return moved(batch)
