"""A task of a few pixels for trials and tests: move a dot to the middle; drawn by no renderer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from regrow.control.distractions.pixels import Pixels
from regrow.control.environments.base import Bools, Floats
from regrow.engine.checks import check_choice

__all__ = ["DOT_MODES", "Dot"]

DotMode = Literal["clean", "moving"]
DOT_MODES = get_args(DotMode)
_SPEED, _NEAR = 0.15, 0.4  # of a step; distance at which the reward is 1/e
_DOT, _SQUARE, _HALF = (230, 60, 50), (60, 200, 90), 0.15
_GREY, _GRAIN = 70, 5


class Dot(Pixels):
    """A dot that actions move, and a square in the middle, where it is worth most.

    reward = exp(−(distance / 0.4)²) in 0..1. What is behind is grey, or smooth colours that move
    and are others in each episode.

    Args:
        seeds: of the runs.
        size: of the sides of frames.
        mode: what is behind: clean, or moving.
        episode: steps.

    Example:
        >>> env = Dot([0], size=16)
        >>> env.reset().shape, env.foreground().shape
        ((1, 16, 16, 3), (1, 16, 16))
    """

    actions = 2

    def __init__(
        self, seeds: Sequence[int], *, size: int = 32, mode: str = "clean", episode: int = 50
    ) -> None:
        super().__init__(seeds, episode, size)
        check_choice(mode, DOT_MODES, "mode")
        if size < 8:
            raise ValueError(f"size={size}: must be at least 8 pixels")
        self.mode = mode
        self._at = np.zeros((self.runs, 2))
        self._waves = np.zeros((self.runs, 3, _GRAIN))  # of each colour: numbers of its waves

    def begin_(self, run: int, random: np.random.Generator) -> None:
        """Put the dot anywhere."""
        self._at[run] = random.uniform(-0.9, 0.9, 2)
        self._waves[run] = random.uniform(-1, 1, (3, _GRAIN))

    def advance_(self, actions: Floats) -> tuple[Floats, Bools]:
        """Move the dot."""
        self._at = np.clip(self._at + _SPEED * actions, -0.9, 0.9)
        away = np.linalg.norm(self._at, axis=1)
        return np.exp(-((away / _NEAR) ** 2)), np.zeros(self.runs, dtype=bool)

    def observe(self) -> npt.NDArray[np.uint8]:
        """Return frames, uint8, (runs, size, size, 3)."""
        return np.stack([self._drawn(run) for run in range(self.runs)])

    def foreground(self) -> Bools:
        """Return where dot and square are, bool, (runs, size, size)."""
        return np.stack([np.logical_or(*self._shapes(run)) for run in range(self.runs)])

    def _drawn(self, run: int) -> npt.NDArray[np.uint8]:
        frame = self._behind(run)
        dot, square = self._shapes(run)
        frame[square], frame[dot] = _SQUARE, _DOT
        return frame

    def _shapes(self, run: int) -> tuple[Bools, Bools]:
        x, y = self._grid()
        across, down = self._at[run]
        dot = (x - across) ** 2 + (y - down) ** 2 < _HALF**2
        return dot, (abs(x) < _HALF) & (abs(y) < _HALF)

    def _grid(self) -> tuple[Floats, Floats]:
        places = (np.arange(self.size) + 0.5) / self.size * 2 - 1
        return places[None, :], places[:, None]

    def _behind(self, run: int) -> npt.NDArray[np.uint8]:
        if self.mode == "clean":
            return np.full(self.shape, _GREY, dtype=np.uint8)
        x, y = self._grid()
        time = 0.2 * self._steps[run]
        frame = np.empty(self.shape, dtype=np.uint8)
        for colour, (a, b, c, d, e) in enumerate(self._waves[run]):
            wave = np.sin(4 * a * x + 4 * b * y + 6 * c + time * d)
            frame[..., colour] = 128 + 100 * wave * np.cos(3 * e * x * y + time)
        return frame

    def state(self) -> dict[str, Floats]:
        """Return where dots are, and what is behind."""
        return {"at": self._at, "waves": self._waves}

    def set_state_(self, state: Mapping[str, Any]) -> None:
        """Put them back."""
        self._at, self._waves = state["at"].copy(), state["waves"].copy()
