"""What a checkpoint holds of a replay buffer: real features; noise and shadows are made again.

Noise follows from seeds and counts, and shadows follow from what was seen: of 100 features in an
observation, 95 of them noise, five are worth keeping. Segments that were compared lie in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from regrow.control.environments.base import Bools, Environments
from regrow.control.noise import NoiseFeatures
from regrow.control.replay import Replay
from regrow.control.reward import RewardModels
from regrow.control.shadows import Shadows

__all__ = ["begun_anew", "compact_state", "large_state", "load_models_", "load_replay_"]

_MADE_AGAIN = ("inputs", "following")


def begun_anew(environments: Environments, state: Mapping[str, Tensor]) -> Bools:
    """Return which runs are in another episode than their state says: those that cannot be saved.

    Args:
        environments: that went on from the state.
        state: theirs.
    """
    begun: Bools = (environments.state_dict()["numbers"] != state["numbers"]).numpy()
    return begun


def large_state(
    replay: Replay, models: RewardModels, noise: NoiseFeatures, step: int
) -> dict[str, dict[str, Any]]:
    """Return the states of buffer and models: without what is made again, if it has not wrapped.

    Args:
        replay: the buffer.
        models: of the reward, whose segments lie in it.
        noise: says which features are real.
        step: of the agents.
    """
    whole = step > replay.capacity
    kept = replay.state_dict() if whole else compact_state(replay, noise)
    return {"models": models.state_dict(segments=whole), "replay": kept}


def load_replay_(
    replay: Replay, noise: NoiseFeatures, shadows: Shadows, seed_steps: int,
    state: Mapping[str, Tensor],
) -> None:  # fmt: skip
    """Fill a buffer by its part of :func:`large_state`.

    Args:
        replay: filled.
        noise: if noise is made again, left as it is after as many steps.
        shadows: likewise.
        seed_steps: after which the shadows of the first steps were filled.
        state: of the buffer.
    """
    if "inputs" in state:
        replay.load_state_dict(state)
    else:
        _rebuild_(replay, noise, shadows, seed_steps, state)


def load_models_(models: RewardModels, replay: Replay, state: Mapping[str, Any]) -> None:
    """Take over the models' part of :func:`large_state`, once the buffer is there."""
    models.load_state_dict(state)
    if "wide" not in state:
        _refill_(models, replay)


def compact_state(replay: Replay, noise: NoiseFeatures) -> dict[str, Tensor]:
    """Return the state of a buffer that has not wrapped, without noise and shadows.

    Args:
        replay: the buffer.
        noise: says which features are real.
    """
    state = replay.state_dict(leave_out=_MADE_AGAIN)
    kept, d = slice(0, len(replay)), replay.observations
    places = noise.places[:, None].expand(-1, len(replay), -1)
    state["real"] = replay.inputs[:, kept].gather(2, places)
    state["real following"] = replay.following[:, kept].gather(2, places)
    return state | {"actions": replay.inputs[:, kept, d:].clone()}


@torch.no_grad()
def _rebuild_(
    replay: Replay, noise: NoiseFeatures, shadows: Shadows, seed_steps: int,
    state: Mapping[str, Tensor],
) -> None:  # fmt: skip
    """Fill a buffer by a state of :func:`compact_state`: everything is seen again, by steps."""
    replay.load_state_dict(state)
    real, following, d = state["real"], state["real following"], replay.observations
    steps = real.shape[1]
    real, following = real.to(replay.inputs.device), following.to(replay.inputs.device)
    replay.inputs[:, :steps, d:] = state["actions"].to(replay.inputs.device)
    noise.restart_()
    shadows.restart_()
    see = _sight(noise, shadows)
    if not steps:
        return
    seen = see(real[:, 0], False)
    over = replay.episode[:, 1:steps] != replay.episode[:, : steps - 1]
    begins = over.any(0).tolist()
    for step in range(steps):
        replay.inputs[:, step, :d] = seen
        replay.following[:, step] = seen = see(following[:, step], False)
        if step + 1 < steps and begins[step]:
            seen = torch.where(over[:, step, None], see(real[:, step + 1], True), seen)
        if step + 1 == seed_steps:
            shadows.fill_(replay.inputs[:, :seed_steps], replay.following[:, :seed_steps])


def _sight(noise: NoiseFeatures, shadows: Shadows) -> Callable[[Tensor, bool], Tensor]:
    return lambda real, again: shadows(noise(real, again=again), again=again)


def _refill_(models: RewardModels, replay: Replay) -> None:
    """Take the segments that were compared from the buffer again."""
    most = int(models.count.max())
    if not most:
        return
    length, margin = models.setting.segment, models.margin
    wide = replay.segments(models.starts[:, :most], length, "inputs", margin=margin)
    models.wide[:, :most] = wide * models.inside[:, :most, ..., None]
