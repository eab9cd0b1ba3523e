"""Environments in pixels, by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from regrow.control.distractions.colours import Colours, checked_colours, draw_colours
from regrow.control.distractions.distracting import Distracting, scale_of
from regrow.control.distractions.modes import Clean, OtherColours, VideoBehind
from regrow.control.distractions.pixels import Pixels, SpreadPixels, SuitePixels
from regrow.control.distractions.scenes import Scene, background_geoms, check_task
from regrow.control.distractions.videos import Videos
from regrow.engine.checks import check_choice, check_integer

__all__ = ["MODES", "TASKS", "make"]

TASKS = (
    "cartpole-swingup",
    "cartpole-balance",
    "ball_in_cup-catch",
    "finger-spin",
    "walker-stand",
    "walker-walk",
)
"""Names of tasks that are usual here; any other of the DeepMind Control Suite is made, too."""

MODES = ("clean", "color_easy", "color_hard", "video_easy", "video_hard", "distracting")
"""What is done to pictures."""


def make(
    task: str,
    seeds: Sequence[int],
    *,
    mode: str = "clean",
    videos: str | Path | Videos | None = None,
    size: int = 84,
    repeat: int = 4,
    quality: Literal["full", "fast"] = "full",
    cut: Literal["segmentation", "key"] = "segmentation",
    intensity: str | float = "easy",
    dynamic: bool = True,
    colours: Sequence[Colours] | None = None,
    background: Sequence[str] | None = None,
    workers: int = 1,
) -> Pixels:
    """Make a task in pixels for each run.

    Args:
        task: such as "walker-walk": one of :data:`TASKS`, or another of the suite.
        seeds: of the runs.
        mode: "clean"; "color_easy" and "color_hard", other colours in each episode; "video_easy", a
            video instead of the sky, and "video_hard", of sky and floor; "distracting", the
            Distracting Control Suite.
        videos: a folder of clips, or clips that are shared, for modes with videos. Which of them
            are for training and which for testing is yours to keep apart.
        size: pixels of a frame's side.
        repeat: control steps of a step of the agent.
        quality: "full", as dm_control draws; "fast", neither shadows nor reflections nor smooth
            edges, 7 to 18 times as fast without a GPU, and not comparable.
        cut: how a video finds its place: "segmentation", a second picture that tells geoms apart;
            or "key", by green, with the green edges of the published benchmark.
        intensity: of mode "distracting": "easy", "medium", "hard" of the suite itself, or a number
            of the benchmark that took it over, 0.025 to 0.5.
        dynamic: whether what distracts moves, in mode "distracting".
        colours: of modes "color_easy" and "color_hard"; None: 100 draws of our own, the same for
            all seeds.
        background: names of the geoms that are background; None: those of the material "grid".
        workers: processes that step and draw, at most one for each run.

    Raises:
        ValueError: a name is unknown, a number out of range, or videos are missing or not used.
        FileNotFoundError: there is no such folder.
        ImportError: mujoco or dm_control is missing, or no GL library is there.
    """
    check_choice(mode, MODES, "mode")
    check_choice(quality, ("full", "fast"), "quality")
    check_choice(cut, ("segmentation", "key"), "cut")
    scale_of(intensity)
    for name, number, least in (("size", size, 8), ("repeat", repeat, 1), ("workers", workers, 1)):
        check_integer(number, name, least)
    if not seeds:
        raise ValueError(f"seeds={seeds}: at least one is needed")
    _check_used(mode, videos, colours)
    check_task(task)
    if min(workers, len(seeds)) > 1:
        return SpreadPixels(
            make, seeds, processes=workers, task=task, mode=mode, videos=videos, size=size,
            repeat=repeat, quality=quality, cut=cut, intensity=intensity, dynamic=dynamic,
            colours=colours, background=background,
        )  # fmt: skip
    scenes = [Scene(task) for _ in seeds]
    geoms, fast = background_geoms(scenes[0], background), quality == "fast"
    steps = -(-scenes[0].frames // repeat) + 1
    made: Clean
    if mode in ("color_easy", "color_hard"):
        drawn = colours or draw_colours(mode.removeprefix("color_"))
        made = OtherColours(scenes, size, fast=fast, colours=drawn)
    elif mode in ("video_easy", "video_hard"):
        clips, floor = _clips(videos, size, steps), geoms if mode == "video_hard" else []
        made = VideoBehind(scenes, size, fast=fast, videos=clips,
                           background=floor, key=cut == "key")  # fmt: skip
    elif mode == "distracting":
        clips = _clips(videos, 2 * size, None)  # a frame shows about half of the sky's side
        made = Distracting(scenes, size, fast=fast, videos=clips, intensity=intensity,
                           dynamic=dynamic, repeat=repeat)  # fmt: skip
    else:
        made = Clean(scenes, size, fast=fast)
    return SuitePixels(scenes, seeds, made, background=geoms, repeat=repeat)


def _check_used(
    mode: str, videos: str | Path | Videos | None, colours: Sequence[Colours] | None
) -> None:
    with_videos = ("video_easy", "video_hard", "distracting")
    if mode in with_videos and videos is None:
        raise ValueError(f"mode={mode!r} needs videos: name a folder of clips")
    if mode not in with_videos and videos is not None:
        raise ValueError(f"mode={mode!r} uses no videos: they belong to {', '.join(with_videos)}")
    if colours is not None and (not mode.startswith("color_") or not colours):
        raise ValueError(f"colours are for modes color_easy and color_hard, at least one: {mode=}")
    if colours is not None:
        checked_colours(list(colours))  # a name that means nothing would change nothing


def _clips(videos: str | Path | Videos | None, size: int, frames: int | None) -> Videos:
    if isinstance(videos, Videos):
        if videos.size != size:
            raise ValueError(f"videos of {videos.size} pixels, where {size} are needed")
        return videos
    assert videos is not None
    return Videos(videos, size, frames=frames)
