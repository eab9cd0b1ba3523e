"""Evaluates an agent that sees: returns, and how well its masks cover what does not matter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from regrow.control.distractions.judge import auc, best_iou
from regrow.control.distractions.pixels import Pixels
from regrow.control.environments.base import Bools
from regrow.control.pixels.agent import PixelAgent
from regrow.control.pixels.eyes import Bytes, Eyes, frames_of

__all__ = ["Evaluation", "evaluate", "foreground_of", "seen_frames"]

Masks = npt.NDArray[np.float32]

_JUDGED_EVERY = 25  # steps


@dataclass
class Evaluation:
    """What was found in one environment.

    Args:
        returns: of the episodes.
        auc: of masks against the true foreground; None: there is no mask, or no truth.
        iou: the best intersection over union over all thresholds.
        inside: the mean mask where it matters.
        outside: the mean mask where it does not.
        frames: of the first episode, uint8, (n, H, W, 3).
        masks: of these, (n, size, size), if there are any.
    """

    returns: list[float]
    auc: float | None = None
    iou: float | None = None
    inside: float | None = None
    outside: float | None = None
    frames: Bytes = field(default_factory=lambda: np.zeros((0, 1, 1, 3), np.uint8))
    masks: npt.NDArray[np.float32] | None = None

    @property
    def mean(self) -> float:
        """The mean return."""
        return float(np.mean(self.returns))

    def numbers(self) -> dict[str, Any]:
        """Return what a record keeps."""
        names = ("auc", "iou", "inside", "outside")
        found = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return {"return": self.mean, "returns": list(self.returns), **found}


def evaluate(
    agent: PixelAgent,
    environments: Pixels,
    episodes: int,
    *,
    film: bool = False,
    tell: Callable[[int], None] = lambda done: None,
) -> Evaluation:
    """Let an agent act as in tests, in the first episodes of the environments' seed.

    Args:
        agent: acts; it learns nothing.
        environments: others than those of training, of one seed; every evaluation is on the same
            episodes, of which as many are played at once as there are runs.
        episodes: how many.
        film: whether frames and masks of the first episode are kept.
        tell: is told now and then how many episodes are over.
    """
    runs = environments.runs
    eyes = Eyes(agent, agent.method.rendered(agent.setting.size), test=True, runs=runs)
    found = Evaluation([])
    judged: list[tuple[Masks, Bools]] = []
    shown: list[tuple[Bytes, Masks | None]] = []
    for first in range(0, episodes, runs):
        numbers = first + np.arange(runs)
        environments.rewind_(numbers)
        seen = environments.reset()
        eyes.begin_(seen_frames(agent, environments, seen))
        totals, over, step = np.zeros(runs), numbers >= episodes, 0
        while not over.all():
            judges, filmed = step % _JUDGED_EVERY == 0, film and first == 0 and not over[0]
            masks = eyes.masks(runs if judges else 1) if judges or filmed else None
            if filmed:
                shown.append(
                    (seen[0], None) if masks is None else (_middle(seen, masks)[0], masks[0])
                )
            if judges:
                tell(len(found.returns) + int(over[numbers < episodes].sum()))
                judged += [] if masks is None else _truth(environments, masks, ~over)
            result = environments.step(eyes.act())
            seen, ended = result.observations, result.terminated | result.truncated
            totals += np.where(over, 0.0, result.rewards)
            over |= ended
            if ended.any() and not over.all():
                seen = environments.reset(ended)  # which is not looked at
            eyes.look_(seen_frames(agent, environments, seen))
            step += 1
        found.returns += [float(total) for total in totals[numbers < episodes]]
    _judge_(found, judged)
    _show_(found, shown)
    return found


def seen_frames(agent: PixelAgent, environments: Pixels, seen: np.ndarray[Any, Any]) -> Tensor:
    """Return what environments show, as frames of the agent's replay, (runs, channels, H, W).

    Args:
        agent: says whether it reads the true foreground.
        environments: that show it.
        seen: uint8, (runs, H, W, 3).

    Raises:
        ValueError: the agent reads the foreground, and the environment does not know it.
    """
    if agent.channels == 3:
        return frames_of(seen, None, agent.device)
    known = foreground_of(environments)
    if known is None:
        raise ValueError(
            f"mask='segmentation': {type(environments).__name__} does not know what is foreground"
        )
    return frames_of(seen, known, agent.device)


def foreground_of(environments: Pixels) -> Bools | None:
    """Return where agent and objects are, bool, (runs, H, W); None: nobody knows."""
    try:
        found: Bools = environments.foreground()
    except NotImplementedError:
        return None
    return found


def _truth(environments: Pixels, masks: Masks, playing: Bools) -> list[tuple[Masks, Bools]]:
    known = foreground_of(environments)
    if known is None:
        return []
    known = _middle(known, masks)
    return [(masks[run], known[run]) for run in np.flatnonzero(playing)]


def _middle(whole: npt.NDArray[Any], masks: Masks) -> npt.NDArray[Any]:
    """Return of frames, (runs, H, W, ...), what masks are of: an agent may see their middle."""
    size = masks.shape[-1]
    edge = (whole.shape[1] - size) // 2
    return whole[:, edge : edge + size, edge : edge + size]


def _judge_(found: Evaluation, judged: list[tuple[Masks, Bools]]) -> None:
    """Set masks against the truth, all frames together; where there is both inside and outside."""
    if not judged:
        return
    masks, truth = np.stack([m for m, _ in judged]), np.stack([t for _, t in judged])
    if truth.all() or not truth.any():
        return
    found.auc, found.iou = auc(masks, truth), best_iou(masks, truth)[0]
    found.inside, found.outside = float(masks[truth].mean()), float(masks[~truth].mean())


def _show_(found: Evaluation, shown: list[tuple[Bytes, Masks | None]]) -> None:
    if not shown:
        return
    found.frames = np.stack([frame for frame, _ in shown])
    masks = [mask for _, mask in shown if mask is not None]
    found.masks = np.stack(masks) if len(masks) == len(shown) else None
