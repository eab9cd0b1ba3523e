"""Environments of agents that see, by the names of task and mode."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from regrow.control.distractions.pixels import Pixels
from regrow.control.pixels.dot import Dot

__all__ = ["DOT", "Cut", "Quality", "make_task", "repeat_of"]

DOT = "dot"
Cut = Literal["segmentation", "key"]
Quality = Literal["full", "fast"]
_REPEAT = {"cartpole": 8, "finger": 2}  # of others 4, as in papers; their code has 4 everywhere


def repeat_of(task: str, repeat: int | None = None) -> int:
    """Return the control steps of a step of the agent: those given, or those of papers.

    Example:
        >>> repeat_of("cartpole-swingup"), repeat_of("walker-walk"), repeat_of("dot")
        (8, 4, 1)
    """
    return repeat or (1 if task == DOT else _REPEAT.get(task.partition("-")[0], 4))


def make_task(
    task: str,
    seed: int,
    mode: str = "clean",
    *,
    size: int = 84,
    repeat: int | None = None,
    quality: Quality = "full",
    videos: Path | None = None,
    cut: Cut = "segmentation",
    runs: int = 1,
    workers: int = 1,
) -> Pixels:
    """Make environments of one seed.

    Args:
        task: dot, or one of the DeepMind Control Suite, such as walker-walk.
        seed: of its episodes.
        mode: how it looks: clean, or a mode of :mod:`regrow.control.distractions`; moving, of dot.
        size: of the sides of frames.
        repeat: control steps of a step of the agent; None: as in papers.
        quality: how much is drawn: shadows and all (full), or what is fast.
        videos: a folder, for modes of videos.
        cut: how the background is found in these: segmentation, or key: a colour, as the published
            benchmark does.
        runs: episodes that are played at once.
        workers: processes that step and draw them.

    Raises:
        ValueError: there is no such task or mode, or videos are missing.
        ImportError: a package of the extra ``pixels`` is missing.
    """
    if task == DOT:
        if repeat not in (None, 1):
            raise ValueError(
                f"repeat={repeat}: a step of the dot is one control step; leave it out"
            )
        return Dot([seed] * runs, size=size, mode=mode)
    from regrow.control import distractions  # noqa: PLC0415  an extra

    made: Pixels = distractions.make(
        task,
        [seed] * runs,
        mode=mode,
        videos=videos,
        size=size,
        repeat=repeat_of(task, repeat),
        quality=quality,
        cut=cut,
        workers=workers,
    )
    return made
