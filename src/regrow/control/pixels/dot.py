"""A task of a few pixels for trials and tests: move a dot to a place; drawn without any renderer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from regrow.control.environments.base import Bools, Environments, Floats
from regrow.engine.checks import check_choice

__all__ = ["DOT_MODES", "Dot"]

DotMode = Literal["clean", "moving"]
DOT_MODES = get_args(DotMode)
_SPEED, _NEAR = 0.15, 0.4  # of a step; distance at which the reward is 1/e
_DOT, _PLACE = (230, 60, 50), (60, 200, 90)
_GREY, _GRAIN = 70, 5


class Dot(Environments):
    """A dot that actions move, and a place where it is worth most; 50 steps.

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
        super().__init__(seeds, episode)
        check_choice(mode, DOT_MODES, "mode")
        if size < 8:
            raise ValueError(f"size={size}: must be at least 8 pixels")
        self.mode, self.size = mode, size
        self.observations = 3 * size * size
        self.shape = (size, size, 3)
        self._at = np.zeros((self.runs, 2))
        self._place = np.zeros((self.runs, 2))
        self._waves = np.zeros((self.runs, 3, _GRAIN))  # of each colour: numbers of its waves

    def begin_(self, run: int, random: np.random.Generator) -> None:
        """Put dot and place anywhere."""
        self._at[run], self._place[run] = random.uniform(-0.8, 0.8, (2, 2))
        self._waves[run] = random.uniform(-1, 1, (3, _GRAIN))

    def advance_(self, actions: Floats) -> tuple[Floats, Bools]:
        """Move the dot."""
        self._at = np.clip(self._at + _SPEED * actions, -0.9, 0.9)
        away = np.linalg.norm(self._at - self._place, axis=1)
        return np.exp(-((away / _NEAR) ** 2)), np.zeros(self.runs, dtype=bool)

    def observe(self) -> npt.NDArray[np.uint8]:
        """Return frames, uint8, (runs, size, size, 3)."""
        return np.stack([self._drawn(run) for run in range(self.runs)])

    def foreground(self) -> Bools:
        """Return where dot and place are, bool, (runs, size, size)."""
        return np.stack([np.logical_or(*self._shapes(run)) for run in range(self.runs)])

    def _drawn(self, run: int) -> npt.NDArray[np.uint8]:
        frame = self._behind(run)
        dot, place = self._shapes(run)
        frame[place], frame[dot] = _PLACE, _DOT
        return frame

    def _shapes(self, run: int) -> tuple[Bools, Bools]:
        x, y = self._grid()
        (dx, dy), (px, py) = self._at[run], self._place[run]
        dot = (x - dx) ** 2 + (y - dy) ** 2 < 0.15**2
        place = (abs(x - px) < 0.15) & (abs(y - py) < 0.15)
        return dot, place

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
        """Return where dots and places are."""
        return {"at": self._at, "place": self._place, "waves": self._waves}

    def set_state_(self, state: Mapping[str, Any]) -> None:
        """Put them back."""
        self._at, self._place = state["at"].copy(), state["place"].copy()
        self._waves = state["waves"].copy()
