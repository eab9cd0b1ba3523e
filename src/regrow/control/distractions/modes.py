"""What is done to pictures of a task: nothing, other colours, or a video behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from regrow.control.distractions.colours import KEY, Colours, paint
from regrow.control.distractions.cutting import has_key_colour, put_behind
from regrow.control.distractions.painter import Ids, Look
from regrow.control.distractions.scenes import Scene
from regrow.control.distractions.videos import Frames, Videos

__all__ = ["Clean", "OtherColours", "VideoBehind", "check_textures"]


class Clean:
    """Pictures as dm_control draws them; other modes change what these methods do.

    Args:
        scenes: one for each run.
        size: pixels of a picture's side.
        fast: neither shadows nor reflections nor smooth edges.

    Attributes:
        needs_ids: whether ``finish`` is told which geom is seen in each pixel.
    """

    needs_ids = False

    def __init__(self, scenes: Sequence[Scene], size: int, *, fast: bool) -> None:
        self.scenes, self.size, self.fast = scenes, size, fast
        self.looks: list[Look] = [self.look(scenes[0].model)] * len(scenes)

    def look(self, model: Any) -> Look:
        """Return a look of this mode's size and care."""
        return Look(model, self.size, fast=self.fast)

    def begin(self, run: int, key: Sequence[int], random: np.random.Generator) -> None:
        """Begin an episode of a run; its key is the run's seed and the episode's number, from 0."""

    def prepare(self, run: int, step: int) -> None:
        """Make ready for a picture of a run, at a step of its episode; in the painter's thread."""

    def finish(self, run: int, step: int, frame: Frames, ids: Ids | None) -> Frames:
        """Return what is seen, of what was drawn."""
        return frame


class OtherColours(Clean):
    """Other colours of sky, floor and agent in each episode.

    A run's episode has set (seed + number of the episode) mod sets.

    Args:
        scenes: one for each run.
        size: pixels of a picture's side.
        fast: neither shadows nor reflections nor smooth edges.
        colours: sets of them.
    """

    def __init__(
        self, scenes: Sequence[Scene], size: int, *, fast: bool, colours: Sequence[Colours]
    ) -> None:
        check_textures(scenes[0], ("skybox", "grid"))
        super().__init__(scenes, size, fast=fast)
        self.colours = colours
        self._usual = scenes[0].model.mat_rgba.copy()

    def begin(self, run: int, key: Sequence[int], random: np.random.Generator) -> None:
        """Take the next set of colours."""
        model = self.scenes[run].model
        model.mat_rgba[:] = self._usual
        painted = paint(model, self.colours[sum(key) % len(self.colours)])
        model.mat_rgba[:] = painted.mat_rgba
        self.looks[run] = self.look(painted)


class VideoBehind(Clean):
    """A video behind the task. It goes on by a frame with each step of the agent.

    A run's episode shows clip (seed + number of the episode) mod clips, and step t of it the frame
    t mod frames.

    Args:
        scenes: one for each run.
        size: pixels of a picture's side.
        fast: neither shadows nor reflections nor smooth edges.
        videos: the clips.
        background: numbers of the geoms that are replaced, too; none: the sky only.
        key: whether the background is found by its colour, as in the published benchmark, and not
            by a second picture that tells geoms apart.
    """

    def __init__(
        self,
        scenes: Sequence[Scene],
        size: int,
        *,
        fast: bool,
        videos: Videos,
        background: Sequence[int],
        key: bool,
    ) -> None:
        super().__init__(scenes, size, fast=fast)
        if key:
            check_textures(scenes[0], ("skybox", "grid") if background else ("skybox",))
            colours = {n: rgb for n, rgb in KEY.items() if background or n.startswith("skybox")}
            self.looks = [self.look(paint(scenes[0].model, colours))] * len(scenes)
        self.videos, self._background = videos, list(background)
        self.needs_ids = not key
        self._clips = [0] * len(scenes)

    def begin(self, run: int, key: Sequence[int], random: np.random.Generator) -> None:
        """Take the next clip."""
        self._clips[run] = sum(key) % len(self.videos)

    def finish(self, run: int, step: int, frame: Frames, ids: Ids | None) -> Frames:
        """Put the video behind."""
        if ids is None:
            kept = ~has_key_colour(frame)
        else:
            kept = (ids != -1) & ~np.isin(ids, self._background)
        clip = self.videos[self._clips[run]]
        return put_behind(frame, kept, clip[step % len(clip)])


def check_textures(scene: Scene, names: Sequence[str]) -> None:
    """Refuse a task without textures of some names.

    Raises:
        ValueError: one is not there.
    """
    there = [scene.model.tex(i).name for i in range(scene.model.ntex)]
    for name in names:
        if name not in there:
            raise ValueError(
                f"{scene.domain} has no texture {name!r}, whose colours would be changed; it has "
                f"{', '.join(there) or 'none'}: take mode='clean', or a video cut out by "
                "cut='segmentation'"
            )
