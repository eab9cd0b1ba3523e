"""Losses on their way from the training loop to the store: checked, many batches at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from regrow.samples.ids import Ids

__all__ = ["Arrivals", "Arrived"]

Positions = npt.NDArray[np.int64]

_TOGETHER = 1 << 13  # samples: a look costs much the same for few and for many


@dataclass(frozen=True)
class Arrived:
    """Losses of one batch, checked.

    Args:
        at: positions, each once.
        losses: float32, one each, finite.
        correct: whether each was answered right, if that was told.
        epoch: in which they were learnt; -1: in none.
        again: how many more losses there were, of samples that were there twice.
    """

    at: Positions
    losses: npt.NDArray[np.float32]
    correct: npt.NDArray[np.bool_] | None
    epoch: int
    again: int = 0


class Arrivals:
    """Takes in losses, and looks at them later, so that a small model's steps hardly feel it.

    What is on a GPU is copied while the GPU goes on. Only the first batch is looked at, and waited
    for, at once, so that a mistake shows.

    Args:
        ids: of the samples.

    Example:
        >>> arrivals = Arrivals(Ids(4))
        >>> [one.at.tolist() for one in arrivals.take([3, 1], torch.ones(2), None, epoch=0)]
        [[3, 1]]
    """

    def __init__(self, ids: Ids) -> None:
        self.ids = ids
        self._here: deque[tuple[Any, Tensor, Tensor | None, int]] = deque()
        self._size = 0  # samples in it
        self._travelling: deque[tuple[Any, Tensor, Tensor | None, int, Any]] = deque()
        self._first = True

    def take(
        self, ids: Any, losses: Tensor, correct: Tensor | None, epoch: int
    ) -> Iterable[Arrived]:
        """Take in a batch, and return those that have arrived.

        Raises:
            TypeError: ids are no ids, losses no floats.
            ValueError: losses are not one finite value an id, or an id is not known.
        """
        check_shapes(ids, losses, correct)
        losses = losses.detach()
        elsewhere = [x for x in (ids, losses, correct) if isinstance(x, Tensor) and not x.is_cpu]
        if not elsewhere and not self._travelling:
            if self._first:
                first = self._arrived(ids, losses, correct, epoch)
                self._first = False  # now: after a mistake the next one shows at once, too
                return [first]
            self._here.append((_copied(ids), losses.clone(), _copied(correct), epoch))
            self._size += losses.shape[0]
            return self._looked_at() if self._size >= _TOGETHER else ()
        ids, losses, correct = map(_off_other_devices, (ids, losses, correct))
        on_device = [x for x in elsewhere if x.is_cuda]
        event = torch.cuda.Event() if on_device else None
        batch = _to_host(ids), _to_host(losses.float()), _to_host(correct), epoch, event
        if event is not None:
            event.record(torch.cuda.current_stream(on_device[0].device))
        self._travelling.append(batch)
        wait, self._first = self._first, False
        return self.arrived(wait=wait)

    def arrived(self, *, wait: bool) -> Iterator[Arrived]:
        """Yield what has arrived, in order; all there is if it is waited for."""
        yield from self._looked_at()
        while self._travelling:
            *batch, event = self._travelling[0]
            if event is not None and not event.query():
                if not wait:
                    break
                event.synchronize()
            self._travelling.popleft()
            yield self._arrived(*batch)

    def _looked_at(self) -> Iterator[Arrived]:
        """Yield what was taken in on the host; what follows a mistake is looked at next time."""
        together = self._together()
        while self._here:
            batch = self._here.popleft()
            self._size -= batch[1].shape[0]
            yield next(together) if together else self._arrived(*batch)

    def _together(self) -> Iterator[Arrived] | None:
        """Check all batches at once; None: one by one is needed, for they are mixed or wrong."""
        ids, losses, right, epochs = zip(*self._here, strict=True) if self._here else ((),) * 4
        if not all(isinstance(x, Tensor) and x.dtype == torch.int64 and x.ndim == 1 for x in ids):
            return None
        if not ids or any(x is not None for x in right):
            return None
        values = torch.cat(losses).float().numpy()
        try:
            at = self.ids.positions(torch.cat(ids))
        except ValueError:
            return None
        ordered = np.sort(at)
        if not np.isfinite(values).all() or np.count_nonzero(ordered[1:] == ordered[:-1]):
            return None
        ends = np.cumsum([len(x) for x in losses]).tolist()
        starts = [0, *ends[:-1]]
        return (
            Arrived(at[a:b], values[a:b], None, epoch)
            for a, b, epoch in zip(starts, ends, epochs, strict=True)
        )

    def _arrived(self, ids: Any, losses: Tensor, correct: Tensor | None, epoch: int) -> Arrived:
        at = self.ids.positions(ids)
        values = losses.float().numpy()
        if np.count_nonzero(np.isfinite(values)) < len(values):
            bad = np.flatnonzero(~np.isfinite(values))
            raise ValueError(
                f"losses: {len(bad)} of {len(values)} are not finite, such as {values[bad[0]]} of "
                f"id {self.ids.at(int(at[bad[0]]))!r}: leave such samples out of update, or mend "
                "what makes them"
            )
        right = None if correct is None else correct.bool().numpy()
        ordered = np.sort(at)
        if np.count_nonzero(ordered[1:] == ordered[:-1]):
            at, values, right = _once_each(at, values, right)
        return Arrived(at, values, right, epoch, len(ordered) - len(at))


def check_shapes(ids: Any, losses: Any, correct: Any = None) -> None:
    """Refuse losses that are not one a sample, without looking at their values."""
    if not isinstance(losses, Tensor) or not losses.is_floating_point():
        kind = losses.dtype if isinstance(losses, Tensor) else type(losses).__name__
        raise TypeError(f"losses of {kind}: a tensor of floats is needed, one a sample")
    if losses.ndim == 0:
        raise ValueError(
            "losses is a single value, a mean or sum over the batch: one loss a sample is needed, "
            "such as cross_entropy(outputs, targets, reduction='none')"
        )
    if isinstance(ids, Tensor) and ids.ndim:  # len() of it is slow
        n = ids.shape[0]
    elif hasattr(ids, "__len__") and getattr(ids, "shape", None) != ():
        n = len(ids)
    else:
        raise TypeError(f"ids={ids!r}: one id a sample is needed, such as [3]")
    if losses.ndim != 1 or losses.shape[0] != n:
        hint = "their mean over all but the first dimension" if losses.ndim > 1 else "one an id"
        raise ValueError(
            f"losses of shape {tuple(losses.shape)} for {n} ids: shape ({n},) is needed; give "
            + hint
        )
    if correct is None:
        return
    if not isinstance(correct, Tensor):
        raise TypeError(f"correct of {type(correct).__name__}: a tensor of bool is needed")
    if correct.shape != (n,):
        raise ValueError(f"correct of shape {tuple(correct.shape)}: shape ({n},) is needed")


def _once_each(
    at: Positions, losses: npt.NDArray[np.float32], correct: npt.NDArray[np.bool_] | None
) -> tuple[Positions, npt.NDArray[np.float32], npt.NDArray[np.bool_] | None]:
    """Return each position once, with the mean of its losses; correct only if always so."""
    once, place, count = np.unique(at, return_inverse=True, return_counts=True)
    means = np.bincount(place, weights=losses) / count
    if correct is not None:
        correct = np.bincount(place, weights=~correct) == 0
    return once, means.astype(np.float32), correct


def _copied(values: Any) -> Any:
    """Copy what the loop may write to again; texts and None stay as they are."""
    if isinstance(values, Tensor):
        return values.clone()
    return values.copy() if isinstance(values, np.ndarray | list) else values


def _off_other_devices(values: Any) -> Any:
    """Return what is on the host or a CUDA device; from any other it is fetched."""
    if isinstance(values, Tensor) and values.device.type not in ("cpu", "cuda"):
        return values.cpu()
    return values


def _to_host(values: Any) -> Any:
    return values.to("cpu", non_blocking=True) if isinstance(values, Tensor) else values
