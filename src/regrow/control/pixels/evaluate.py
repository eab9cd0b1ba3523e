"""Evaluates an agent that sees: returns, and how well its masks cover what does not matter."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from regrow.control.distractions.judge import auc, best_iou
from regrow.control.distractions.pixels import Pixels
from regrow.control.environments.base import Bools
from regrow.control.pixels.agent import PixelAgent
from regrow.control.pixels.eyes import Bytes, Eyes, frame_of

__all__ = ["Evaluation", "evaluate", "foreground_of", "seen_frame"]

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
    agent: PixelAgent, environments: Pixels, episodes: int, *, film: bool = False
) -> Evaluation:
    """Let an agent act as in tests, in environments of one run, from their first episodes on.

    Args:
        agent: acts; it learns nothing.
        environments: others than those of training; every evaluation is on the same episodes.
        episodes: how many.
        film: whether frames and masks of the first episode are kept.
    """
    environments.rewind_()
    eyes = Eyes(agent, agent.method.rendered(agent.setting.size), test=True)
    found = Evaluation([])
    judged: list[tuple[Masks, Bools]] = []
    shown: list[tuple[Bytes, Masks | None]] = []
    for number in range(episodes):
        seen = environments.reset()
        eyes.begin_(seen_frame(agent, environments, seen))
        total, over, step = 0.0, False, 0
        while not over:
            mask = eyes.mask() if step % _JUDGED_EVERY == 0 or (film and number == 0) else None
            if film and number == 0:
                shown.append((seen[0], mask))
            if mask is not None and step % _JUDGED_EVERY == 0:
                judged += _truth(environments, mask)
            result = environments.step(eyes.act())
            seen = result.observations
            eyes.look_(seen_frame(agent, environments, seen))
            total += float(result.rewards[0])
            over = bool(result.terminated[0] or result.truncated[0])
            step += 1
        found.returns.append(total)
    _judge_(found, judged)
    _show_(found, shown)
    return found


def seen_frame(agent: PixelAgent, environments: Pixels, seen: np.ndarray[Any, Any]) -> Tensor:
    """Return what environments of one run show, as a frame of the agent's replay.

    Args:
        agent: says whether it reads the true foreground.
        environments: of one run.
        seen: uint8, (1, H, W, 3).

    Raises:
        ValueError: the agent reads the foreground, and the environment does not know it.
    """
    if agent.channels == 3:
        return frame_of(seen[0], None, agent.device)
    known = foreground_of(environments)
    if known is None:
        raise ValueError(
            f"mask='segmentation': {type(environments).__name__} does not know what is foreground"
        )
    return frame_of(seen[0], known, agent.device)


def foreground_of(environments: Pixels) -> Bools | None:
    """Return where agent and objects are, bool, (H, W); None: the environment does not know."""
    try:
        found: Bools = environments.foreground()[0]
    except NotImplementedError:
        return None
    return found


def _truth(environments: Pixels, mask: Masks) -> list[tuple[Masks, Bools]]:
    known = foreground_of(environments)
    return [] if known is None else [(mask, known)]


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
