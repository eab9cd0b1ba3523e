"""Gymnasium's environments in pixels, as those of a population: a user's own, one for each run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.functional import interpolate

from regrow.control.distractions.pixels import Pixels
from regrow.control.distractions.videos import Frames
from regrow.control.environments.gymnasium import GymnasiumRuns

__all__ = ["GymnasiumPixels"]


class GymnasiumPixels(GymnasiumRuns, Pixels):
    """Environments of any kind that Gymnasium knows, seen in pixels.

    Seen are their observations, if those are pictures, uint8 (h, w, 3), or else what ``render()``
    gives where they were made with ``render_mode="rgb_array"``; either is resized. Actions in −1..1
    are stretched to their bounds. Where an episode begins follows from its run's seed and number.
    Such an environment cannot be saved: a run that is resumed begins a new episode.

    Args:
        make: makes one, such as
            ``lambda: gymnasium.make("Pendulum-v1", render_mode="rgb_array")``.
        seeds: of the runs.
        size: pixels of a frame's side.
        episode: steps after which an episode is over for its length; None: as its spec says.

    Raises:
        ValueError: there are neither pictures nor such a mode, actions are no box of finite bounds,
            or no length of episodes is known.
    """

    def __init__(
        self,
        make: Callable[[], Any],
        seeds: Sequence[int],
        *,
        size: int = 84,
        episode: int | None = None,
    ) -> None:
        first, length = self.open_(make, seeds, episode)
        super().__init__(seeds, length, size)
        self._renders = _renders(first)
        self._seen: Frames = np.zeros((self.runs, *self.shape), dtype=np.uint8)

    def see_(self, run: int, seen: Any) -> None:
        """Take over the picture that an environment shows, resized."""
        picture = np.asarray(self._environments[run].render() if self._renders else seen)
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise ValueError(
                f"{self._environments[run]} gave {picture.dtype} of shape {picture.shape}: a "
                "picture is uint8, (h, w, 3)"
            )
        self._seen[run] = _resized(picture, self.size)


def _renders(environment: Any) -> bool:
    """Tell whether an environment is seen by rendering it, and not by its observations."""
    space = environment.observation_space
    shape: tuple[int, ...] = getattr(space, "shape", None) or ()
    if space.dtype == np.uint8 and len(shape) == 3 and shape[2] == 3:
        return False
    if environment.render_mode == "rgb_array":
        return True
    raise ValueError(
        f"{environment}: observations are {space}, and render_mode={environment.render_mode!r}; "
        "pictures are needed: make it with render_mode='rgb_array'"
    )


def _resized(picture: Frames, size: int) -> Frames:
    """Return a picture of a square's size, bilinear, and smoothed where it shrinks."""
    if picture.shape[:2] == (size, size):
        return picture
    pixels = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float()
    small = interpolate(pixels, (size, size), mode="bilinear", antialias=True)
    resized: Frames = small[0].permute(1, 2, 0).round().clamp(0, 255).byte().numpy()
    return resized
