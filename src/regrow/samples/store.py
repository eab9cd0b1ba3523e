"""The store of scores: for each sample its losses, how often and when it was seen."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["Store", "check_values"]

Floats = npt.NDArray[np.float32]
Positions = npt.NDArray[np.int64]

_OWN = {"forgotten": np.int16, "learnt": np.int8}
_NEVER, _NOW, _NO_LONGER = 0, 1, 2  # values of "learnt"
_STARTS = 3  # updates whose losses tell what an untrained model's is
_MOST = np.iinfo(np.int16).max
_LEARNT_BELOW = float(np.log(2))


class Store:
    """Scores of n samples, by position.

    Args:
        n: how many samples there are.
        newest: the weight of the newest loss in the running average, in (0, 1].
        fields: further values a sample; those of the criterion.

    Attributes:
        last: float32, the last loss; 0 if never seen.
        average: float32, the running average of losses.
        seen: int16, how many losses have come in; at most 32,767.
        epoch: int16, the last epoch in which the sample was learnt; -1: none.
        extra: the further values, by name.

    Example:
        >>> store = Store(3, newest=0.5)
        >>> store.update(np.array([2]), np.array([4.0], dtype=np.float32), epoch=0)
        >>> store.update(np.array([2]), np.array([2.0], dtype=np.float32), epoch=1)
        >>> store.average.tolist(), store.seen.tolist(), store.epoch.tolist()
        ([0.0, 0.0, 3.0], [0, 0, 2], [-1, -1, 1])
    """

    def __init__(self, n: int, newest: float, fields: Iterable[str] = ()) -> None:
        if not 0 < newest <= 1:
            raise ValueError(f"newest={newest}: must be above 0 and at most 1")
        self.newest = np.float32(newest)
        self.last, self.average = np.zeros(n, np.float32), np.zeros(n, np.float32)
        self.seen, self.epoch = np.zeros(n, np.int16), np.full(n, -1, np.int16)
        self.extra: dict[str, npt.NDArray[Any]] = {
            name: np.zeros(n, _OWN.get(name, np.float32)) for name in fields
        }
        self.updates = 0
        self.start_sum, self.start_count = 0.0, 0

    @property
    def start(self) -> float:
        """The mean loss of the first three updates; 0 before."""
        return self.start_sum / max(self.start_count, 1)

    @property
    def starting(self) -> bool:
        """Whether the next losses count as those of the untrained model."""
        return self.updates < _STARTS

    def update(
        self,
        at: Positions,
        losses: Floats,
        epoch: int,
        correct: npt.NDArray[np.bool_] | None = None,
        batches: int = 1,
    ) -> None:
        """Take in losses.

        Args:
            at: positions, each once.
            losses: one each, finite.
            epoch: in which they were learnt; negative: in none, they were only scored.
            correct: whether each was answered right; None: told by its loss.
            batches: how many these are.
        """
        seen, average = self.seen[at], self.average[at]
        moved = average + self.newest * (losses - average)
        self.average[at] = np.where(seen == 0, losses, moved)
        self.last[at] = losses
        self.seen[at] = seen + (seen < _MOST)
        if epoch >= 0:
            self.epoch[at] = epoch
        if "learnt" in self.extra:
            self._count_forgotten(at, losses < _LEARNT_BELOW if correct is None else correct)
        if self.starting:
            self.start_sum += float(losses.sum(dtype=np.float64))
            self.start_count += len(losses)
        self.updates += batches

    def _count_forgotten(self, at: Positions, learnt: npt.NDArray[np.bool_]) -> None:
        before = self.extra["learnt"][at]
        self.extra["forgotten"][at] += (before == _NOW) & ~learnt
        never = np.where(before == _NEVER, _NEVER, _NO_LONGER)
        self.extra["learnt"][at] = np.where(learnt, _NOW, never)

    def tensors(self) -> dict[str, Tensor]:
        """Return the values as tensors that share their memory."""
        named = {name: getattr(self, name) for name in _NAMES} | self.extra
        return {name: torch.from_numpy(values) for name, values in named.items()}

    def state(self) -> dict[str, Any]:
        """Return all that is known, copied."""
        numbers = {"updates": self.updates, "start": [self.start_sum, self.start_count]}
        return {name: values.clone() for name, values in self.tensors().items()} | numbers

    def load(self, state: Mapping[str, Any], here: Positions, there: Positions) -> None:
        """Take over what a state knows of some samples; the others are as never seen.

        Args:
            state: of :meth:`state`, perhaps of other samples and another criterion.
            here: positions here.
            there: positions in the state, one each.
        """
        for name, values in self.tensors().items():
            values.fill_(-1 if name == "epoch" else 0)
            if name in state:
                values[torch.from_numpy(here)] = state[name][torch.from_numpy(there)].to(
                    values.dtype
                )
        self.updates = int(state["updates"])
        self.start_sum, self.start_count = float(state["start"][0]), int(state["start"][1])

    @staticmethod
    def check(state: Mapping[str, Any], n: int) -> None:
        """Refuse a state that does not hold what it should of n samples.

        Raises:
            ValueError: something is missing or has another shape.
        """
        if not isinstance(state, Mapping):
            raise ValueError(f"state: 'scores' is a {type(state).__name__}, and must be a dict")
        counts = state.get("updates"), state.get("start")
        for name in (*_NAMES, *(state.keys() - {"updates", "start", *_NAMES})):
            check_values(state.get(name), n, name)
        match counts:
            case int(updates), [int() | float() as total, int(count)] if min(updates, count) >= 0:
                if math.isfinite(total):
                    return
        raise ValueError("state: counts of updates are missing, or are none")


_NAMES = ("last", "average", "seen", "epoch")


def check_values(values: object, n: int, name: str) -> None:
    """Refuse what is not a tensor of n finite numbers.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(values, Tensor) or values.shape != (n,):
        raise ValueError(f"state: {name!r} is not there for all {n} samples")
    if not bool(values.isfinite().all()):
        raise ValueError(f"state: {name!r} has values that are not finite")
