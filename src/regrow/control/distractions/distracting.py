"""The Distracting Control Suite: camera, colours and background change all the time."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from regrow.control.distractions.camera import Camera
from regrow.control.distractions.modes import Clean, check_textures
from regrow.control.distractions.scenes import Scene
from regrow.control.distractions.videos import Videos
from regrow.control.environments.base import Floats

__all__ = ["INTENSITIES", "Distracting", "clips_of", "scale_of"]

_SUITE = {"easy": 0.1, "medium": 0.2, "hard": 0.3}
_CLIPS = {0.025: 2, 0.05: 2, 0.1: 4, 0.15: 6, 0.2: 8, 0.3: None, 0.4: None, 0.5: None}
INTENSITIES = (*_SUITE, *_CLIPS)
"""Of the suite itself, by name, and of the benchmark that took it over, by number."""
_FLOOR = {"walker": 1.0, "cheetah": 1.0, "cartpole": 0.3, "ball_in_cup": 0.3, "finger": 0.3,
          "reacher": 0.0}  # fmt: skip


def scale_of(intensity: str | float) -> float:
    """Return how strong an intensity is, 0..1.

    Raises:
        ValueError: neither the suite nor the benchmark has it.

    Example:
        >>> scale_of("hard"), scale_of(0.025)
        (0.3, 0.025)
    """
    if intensity not in INTENSITIES:
        known = ", ".join(map(repr, INTENSITIES))
        raise ValueError(f"intensity={intensity!r}: must be one of {known}")
    return _SUITE[intensity] if isinstance(intensity, str) else float(intensity)


def clips_of(intensity: str | float) -> int | None:
    """Return how many clips an intensity has, the first of the folder; None: all."""
    return _CLIPS[scale_of(intensity)]


class Distracting(Clean):
    """Camera, colours and background of each run change.

    Each control step the camera moves and turns, colours of materials walk at random, and the video
    on the sky goes on, forwards or backwards; floors are see-through, but for walkers and cheetahs.
    With an intensity of the suite itself the video moves each control step; with one of the
    benchmark that took it over, every second.

    Args:
        scenes: one for each run.
        size: pixels of a picture's side.
        fast: neither shadows nor reflections nor smooth edges.
        videos: the clips, of which as many are used as belong to the intensity.
        intensity: one of :data:`INTENSITIES`.
        dynamic: False: nothing changes within an episode.
        repeat: control steps of a step of the agent.

    Source: Stone et al. 2021 (arXiv 2101.02722); Hansen & Wang 2021 (arXiv 2011.13389). A clip that
    ends turns back; theirs shows its last frame twice before.
    """

    def __init__(
        self,
        scenes: Sequence[Scene],
        size: int,
        *,
        fast: bool,
        videos: Videos,
        intensity: str | float,
        dynamic: bool,
        repeat: int,
    ) -> None:
        if scenes[0].domain not in _FLOOR:
            raise ValueError(
                f"mode='distracting' knows {', '.join(_FLOOR)}; not {scenes[0].domain}"
            )
        check_textures(scenes[0], ("skybox",))
        super().__init__(scenes, size, fast=fast)
        self.videos, self.scale, self.dynamic, self.repeat = (
            videos,
            scale_of(intensity),
            dynamic,
            repeat,
        )
        self._clips = min(clips_of(intensity) or len(videos), len(videos))
        self._pace = 1 if isinstance(intensity, str) else 2
        self._usual = scenes[0].model.mat_rgba[:, :3].copy()
        model, textures = scenes[0].model, range(scenes[0].model.ntex)
        self._sky = next(i for i in textures if model.tex(i).name == "skybox")
        self.looks = [self.look(_square_sky(model, self._sky, videos.size)) for _ in scenes]
        for scene in scenes:
            floors = [i for i in range(model.nmat) if model.mat(i).name == "grid"]
            scene.model.mat_rgba[floors, 3] = _FLOOR[scene.domain]
        self._shown: list[tuple[int, int, int]] = [(0, 0, 1)] * len(scenes)  # clip, start, way
        self._colours: list[Floats] = [self._usual[None]] * len(scenes)
        self._cameras: list[Camera | None] = [None] * len(scenes)

    def begin(self, run: int, key: Sequence[int], random: np.random.Generator) -> None:
        """Draw all that an episode will show."""
        frames = self.scenes[run].frames if self.dynamic else 0
        clip = int(random.integers(self._clips))
        start = int(random.integers(len(self.videos[clip])))
        self._shown[run] = (clip, start, int(random.choice([-1, 1])))
        self._colours[run] = _walk(self._usual, self.scale, frames, random)
        self._cameras[run] = Camera(self.scenes[run], self.scale, frames, random)

    def prepare(self, run: int, step: int) -> None:
        """Set colours, camera and sky."""
        scene, now = self.scenes[run], step * self.repeat
        walk, camera, look = self._colours[run], self._cameras[run], self.looks[run]
        scene.model.mat_rgba[:, :3] = walk[min(now, len(walk) - 1)]
        if camera is not None:
            camera.place(now)
        clip, start, way = self._shown[run]
        frames = self.videos[clip]
        moved = way * (now // self._pace) if self.dynamic else 0
        frame = frames[_there_and_back(start + moved, len(frames))]
        first = look.model.tex_adr[self._sky]
        look.model.tex_data[first : first + frame.size] = frame.ravel()
        look.upload(self._sky)


def _square_sky(model: Any, sky: int, side: int) -> Any:
    """Return a copy of a model whose sky has one picture, which GL repeats on the cube's faces."""
    square = copy.copy(model)
    square.tex_width[sky] = square.tex_height[sky] = side
    return square


def _walk(usual: Floats, scale: float, steps: int, random: np.random.Generator) -> Floats:
    """Return colours that begin anywhere within ± scale and walk there, (steps + 1, n, 3)."""
    low, high = np.clip(usual - scale, 0, 1), np.clip(usual + scale, 0, 1)
    walk = np.empty((steps + 1, *usual.shape))
    walk[0] = random.uniform(low, high)
    moves = 0.03 * scale * random.standard_normal((steps, *usual.shape))
    for step in range(steps):
        np.clip(walk[step] + moves[step], low, high, out=walk[step + 1])
    return walk


def _there_and_back(place: int, length: int) -> int:
    """Return a frame's number on a way that turns at both ends."""
    turn = max(2 * (length - 1), 1)
    return min(place % turn, turn - place % turn) if length > 1 else 0
