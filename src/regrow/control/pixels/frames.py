"""The replay buffer of an agent that sees: single frames in bytes, stacked when they are read."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from regrow.control.memory import check_memory
from regrow.control.pixels.images import windows

__all__ = ["Frames"]


class Frames:
    """The latest frames, each kept once, and the transitions between them.

    An observation is a frame and those before it in its episode; at an episode's begin the first
    frame stands for those that are not there. A transition is given while all of its frames are
    there. The host counts; what sampling reads lies on the device, where a CUDA graph can read it.

    Args:
        capacity: frames, of which an episode of n steps has n + 1.
        channels: of a frame.
        size: of its sides.
        actions: numbers in an action.
        device: where all is kept.
        stack: frames in an observation.

    Attributes:
        frames: uint8, (capacity, channels, size, size).
        frames_added: so far.
        added: transitions so far.

    Raises:
        ValueError: the frames do not fit into memory; the message says how many would.

    Example:
        >>> ring = Frames(8, 3, 2, 1, torch.device("cpu"))
        >>> ring.begin_(torch.full((3, 2, 2), 7, dtype=torch.uint8))
        >>> ring.add_(torch.zeros(1), 1.0, False, torch.full((3, 2, 2), 8, dtype=torch.uint8))
        >>> now, then = ring.numbers(torch.tensor([0]))
        >>> now.tolist(), then.tolist(), len(ring)
        ([[0, 0, 0]], [[0, 0, 1]], 1)
    """

    def __init__(
        self,
        capacity: int,
        channels: int,
        size: int,
        actions: int,
        device: torch.device,
        stack: int = 3,
    ) -> None:
        if capacity < stack + 2:
            raise ValueError(f"replay={capacity}: must hold {stack + 2} frames at least")
        check_memory(capacity, channels * size * size + 4 * (actions + 2) + 16, device)
        self.capacity, self.stack, self.device = capacity, stack, device
        shape = (capacity, channels, size, size)
        self.frames = torch.empty(shape, dtype=torch.uint8, device=device)
        self.actions = torch.zeros(capacity, actions, device=device)
        self.rewards = torch.zeros(capacity, 1, device=device)
        self.ended = torch.zeros(capacity, 1, device=device)
        # Of a transition: the number of its frame, of all added, and how many came before it.
        self.places = torch.zeros(capacity, 2, dtype=torch.int64, device=device)
        self._kept = torch.zeros(2, dtype=torch.int64, device=device)  # the oldest, and how many
        self._oldest_frame = np.zeros(capacity, dtype=np.int64)  # of each transition
        self.frames_added = self.added = self._oldest = self._age = 0

    def __len__(self) -> int:
        """Return how many transitions can be read."""
        return self.added - self._oldest

    def begin_(self, frame: Tensor) -> None:
        """Add the first frame of an episode, uint8."""
        self._age = 0
        self._put_(frame)
        self._tell_()

    def add_(self, action: Tensor, reward: float, ended: bool, following: Tensor) -> None:
        """Add a transition from the latest frame to the one that follows it.

        Args:
            action: (actions,).
            reward: of it.
            ended: whether the episode is over for good.
            following: uint8, (channels, size, size).
        """
        place = self.added % self.capacity
        frame = self.frames_added - 1
        self.actions[place] = self._there(action)
        row = self._there(torch.tensor([reward, float(ended)], dtype=torch.float32))
        self.rewards[place], self.ended[place] = row[:1], row[1:]
        self.places[place] = self._there(torch.tensor([frame, self._age]))
        self._oldest_frame[place] = frame - min(self._age, self.stack - 1)
        self.added += 1
        self._age += 1
        self._put_(following)
        self._tell_()

    def _put_(self, frame: Tensor) -> None:
        self.frames[self.frames_added % self.capacity] = self._there(frame)
        self.frames_added += 1

    def _there(self, values: Tensor) -> Tensor:
        """Bring values to the device without waiting for what it computes."""
        return values.to(self.device, non_blocking=True)

    def _tell_(self) -> None:
        """Leave out the transitions of which a frame is gone."""
        gone = self.frames_added - self.capacity  # frames of lower numbers
        while self._oldest < self.added and (
            self._oldest_frame[self._oldest % self.capacity] < gone
        ):
            self._oldest += 1
        self._kept.copy_(torch.tensor([self._oldest, len(self)]), non_blocking=True)

    # ------------------------------------------------------------------ reading

    def chosen(self, uniform: Tensor) -> Tensor:
        """Turn numbers in (0, 1) into places of transitions that are kept; int64, (B,)."""
        oldest, count = self._kept
        # float64: 24 bits do not reach all of half a million places evenly.
        ranks = torch.minimum((uniform.double() * count).long(), count - 1)
        places: Tensor = (oldest + ranks) % self.capacity
        return places

    def numbers(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Return the places of the frames of observation and next observation, (B, stack) each."""
        frame, age = self.places[places].unbind(1)
        back = torch.arange(self.stack - 1, -1, -1, device=self.device)
        now = frame[:, None] - torch.minimum(back, age[:, None])
        then = frame[:, None] + 1 - torch.minimum(back, age[:, None] + 1)
        return now % self.capacity, then % self.capacity

    def stacked(self, numbers: Tensor, starts: Tensor | None = None, size: int = 0) -> Tensor:
        """Return observations, uint8, (B, stack · channels, size, size).

        Args:
            numbers: places of frames, (B, stack).
            starts: row and column of a square to be cut out, as in
                :func:`regrow.control.pixels.images.windows`; None: all.
            size: of that square.
        """
        if starts is not None and self.device.type == "cuda":
            return self._cut(numbers, starts, size)
        whole = self.frames.index_select(0, numbers.flatten())
        whole = whole.view(len(numbers), -1, *whole.shape[2:])
        return whole if starts is None else windows(whole, starts, size)

    def _cut(self, numbers: Tensor, starts: Tensor, size: int) -> Tensor:
        """Read only what is cut out; faster on a GPU, where a CPU copies whole frames faster."""
        b, height = len(numbers), self.frames.shape[2]
        places = torch.arange(size, device=self.device)
        rows = (starts[:, :1] + places).clamp(0, height - 1)[:, None, None, :, None]
        columns = (starts[:, 1:] + places).clamp(0, height - 1)[:, None, None, None, :]
        channels = torch.arange(self.frames.shape[1], device=self.device)[None, None, :, None, None]
        found = self.frames[numbers[:, :, None, None, None], channels, rows, columns]
        return found.reshape(b, -1, size, size)

    # ------------------------------------------------------------------ state

    def state_dict(self) -> dict[str, object]:
        """Return everything but the frames, which are many: see ``kept.py``."""
        state: dict[str, object] = {name: getattr(self, name).cpu().clone() for name in _STATE}
        state["oldest frames"] = torch.from_numpy(self._oldest_frame.copy())
        state["counts"] = [self.frames_added, self.added, self._oldest, self._age]
        return state

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Take over a state; the frames are put back apart."""
        for name in _STATE:
            getattr(self, name).copy_(state[name])
        oldest: Tensor = state["oldest frames"]  # type: ignore[assignment]
        self._oldest_frame = oldest.numpy().copy()
        counts: list[int] = state["counts"]  # type: ignore[assignment]
        self.frames_added, self.added, self._oldest, self._age = counts
        self._tell_()

    def read(self, first: int, last: int) -> npt.NDArray[np.uint8]:
        """Return the frames of numbers first to last − 1, which must still be there."""
        numbers = torch.arange(first, last, device=self.device) % self.capacity
        found: npt.NDArray[np.uint8] = self.frames[numbers].cpu().numpy()
        return found

    def write_(self, first: int, frames: npt.NDArray[np.uint8]) -> None:
        """Put frames back, of numbers from first on."""
        numbers = torch.arange(first, first + len(frames), device=self.device) % self.capacity
        self.frames[numbers] = torch.from_numpy(frames).to(self.device)


_STATE = ("actions", "rewards", "ended", "places")
