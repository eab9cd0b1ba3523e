"""Takes torch's global modes out of play, so that a corruption is the same whoever calls it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from threading import RLock

import torch

__all__ = ["ordinary_modes"]

_LOCK = RLock()  # what is set for the whole process is set by one thread at a time


@contextmanager
def ordinary_modes(device: torch.device | None = None) -> Iterator[None]:
    """Compute as torch does when nobody has changed its modes; afterwards they are as before.

    No gradients, no inference mode, no autocast; tensors are made as float32 on the CPU unless
    something else is said; products are those of float32. What is kept from one call to the next
    is made in here, for a tensor made in inference mode or in another dtype is of no use outside.

    Args:
        device: where is computed, beside the CPU.

    Example:
        >>> with torch.inference_mode(), ordinary_modes():
        ...     torch.is_inference_mode_enabled(), torch.zeros(1).dtype
        (False, torch.float32)
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(mode=False))
        stack.enter_context(torch.no_grad())
        for kind in {"cpu", "cpu" if device is None else device.type}:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if torch.get_default_dtype() != torch.float32:
            stack.enter_context(_ordinary_dtype())
        if torch.get_float32_matmul_precision() != "highest":
            stack.enter_context(_ordinary_products())
        yield


@contextmanager
def _ordinary_dtype() -> Iterator[None]:
    with _LOCK:
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(before)


@contextmanager
def _ordinary_products() -> Iterator[None]:
    with _LOCK:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)
