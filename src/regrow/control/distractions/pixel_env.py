"""An environment in pixels as Gymnasium knows them."""

from __future__ import annotations

from typing import Any

import numpy as np

from regrow.control.distractions.pixels import Pixels
from regrow.control.distractions.videos import Frames
from regrow.control.environments.base import Floats
from regrow.machine import needed

with needed("gymnasium", "control"):
    import gymnasium

__all__ = ["PixelEnv"]


class PixelEnv(gymnasium.Env[Frames, Floats]):
    """Environments of one run as ``gymnasium.Env``; its wrappers stack frames and write films.

    Observations are uint8, (size, size, 3); actions are in −1..1. ``reset(seed=s)`` begins the
    first episode of the seed s; ``reset()`` begins the next.

    Args:
        environments: of one run.
        render_mode: "rgb_array", for ``render()``, or None.

    Raises:
        ValueError: there are several runs, or the mode is another.
    """

    def __init__(self, environments: Pixels, render_mode: str | None = None) -> None:
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": 25}
        if environments.runs != 1:
            raise ValueError(f"environments of {environments.runs} runs: one is needed")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode={render_mode!r}: must be 'rgb_array' or None")
        self.environments, self.render_mode = environments, render_mode
        self.observation_space = gymnasium.spaces.Box(0, 255, environments.shape, np.uint8)
        self.action_space = gymnasium.spaces.Box(-1, 1, (environments.actions,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Frames, dict[str, Any]]:
        """Begin an episode."""
        super().reset(seed=seed)
        if seed is not None:
            self.environments.count_anew_([seed])
        return self.environments.reset()[0], {}

    def step(self, action: Floats) -> tuple[Frames, float, bool, bool, dict[str, Any]]:
        """Step."""
        step = self.environments.step(np.asarray(action)[None])
        over = (bool(step.terminated[0]), bool(step.truncated[0]))
        return step.observations[0], float(step.rewards[0]), *over, {}

    def render(self) -> Frames | None:
        """Return what is seen now."""
        return self.environments.observe()[0] if self.render_mode else None
