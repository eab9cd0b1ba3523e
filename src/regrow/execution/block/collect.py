"""Keeps the inputs and output gradients of layers whose next update looks at a dense gradient.

It happens where the gradient of the stored blocks is computed, inside an operator that
torch.compile does not look into: an update step is then the same graph as any other.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from regrow.execution.stored_module import StoredModule

__all__ = ["collect", "known_", "note_capture_", "wanted_by_"]

_KNOWN: weakref.WeakSet[StoredModule] = weakref.WeakSet()
# Few, and only for a step: every backward pass asks whether there are any.
_WANTED_BY: list[weakref.ref[StoredModule]] = []


def wanted_by_(module: StoredModule, wanted: bool) -> None:
    """Let the next backward passes of a module be kept, or no longer."""
    others = [held for held in _WANTED_BY if held() not in (None, module)]
    _WANTED_BY[:] = [*others, weakref.ref(module)] if wanted else others


def known_(module: StoredModule) -> None:
    """Let a module be found by the memory of its layout."""
    _KNOWN.add(module)


def note_capture_(layout: Tensor) -> None:
    """Note that a CUDA graph captures the layer with this layout, if one does."""
    if layout.is_cuda and torch.cuda.is_current_stream_capturing():
        for module in _KNOWN:
            if _is_of(layout, module):
                module.graphed = True


def _is_of(layout: Tensor, module: StoredModule) -> bool:
    # By memory: what a compiled graph saves for its backward pass is another object.
    return bool(module.layout.data_ptr() == layout.data_ptr())  # type: ignore[operator]


def collect(layout: Tensor, x: Tensor, gradient: Tensor, *, lent: bool) -> None:
    """Keep a backward pass for the layer that it belongs to, should that want it.

    While a CUDA graph is being captured nothing is computed, and replays would call nobody: nothing
    is then kept, so that an update finds that nothing is there.

    Args:
        layout: of the layer; by its memory the layer is known.
        x: (tokens, in).
        gradient: (tokens, out).
        lent: a compiled graph may write something else into both afterwards; copies are kept then.
    """
    if not _WANTED_BY or (layout.is_cuda and torch.cuda.is_current_stream_capturing()):
        return
    for held in list(_WANTED_BY):
        module = held()
        if module is not None and _is_of(layout, module):
            pair = (x.detach(), gradient.detach())
            module.keep(*((t.clone() for t in pair) if lent else pair))
