"""Forecasts of many scenes: six futures of each target, beside what came true."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from regrow.motion.batches import in_order
from regrow.motion.decoder import Predicted
from regrow.motion.features import Featurer
from regrow.motion.modes import modes
from regrow.motion.scene import Scene

__all__ = ["displacements", "forecast"]

Array = npt.NDArray[Any]


def displacements(paths: Tensor, future: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Return the average and the final displacement error of each future.

    Args:
        paths: shape (n, futures, steps, 2 or more), in metres.
        future: what came true, shape (n, steps, 2 or more).
        valid: bool, shape (n, steps): the steps that count; the final one is the last of them.

    Returns:
        Both in metres, shape (n, futures); NaN where no step is valid.

    Example:
        >>> paths = torch.tensor([[[[1.0, 0.0], [2.0, 2.0]], [[1.0, 0.0], [2.0, 0.0]]]])
        >>> future = torch.tensor([[[1.0, 0.0], [2.0, 0.0]]])
        >>> displacements(paths, future, torch.tensor([[True, True]]))
        (tensor([[1., 0.]]), tensor([[2., 0.]]))
    """
    errors = (paths[..., :2] - future[:, None, :, :2]).norm(dim=-1)
    count = valid.sum(-1)[:, None]
    average = torch.where(valid[:, None], errors, 0).sum(-1) / count
    steps = torch.arange(valid.shape[-1], device=valid.device)
    last = torch.where(valid, steps, 0).amax(-1)
    final = torch.take_along_dim(errors, last[:, None, None], 2).squeeze(2)
    return average, torch.where(count > 0, final, torch.nan)


def forecast(
    outputs: Callable[[Mapping[str, Tensor]], Predicted],
    scenes: Sequence[Scene],
    featurer: Featurer,
    places: Sequence[int],
    *,
    batch: int = 16,
    keep: int = 6,
    workers: int = 0,
) -> dict[str, Array]:
    """Predict the targets of scenes.

    Args:
        outputs: of the network for inputs of a batch, in evaluation mode.
        scenes: of which some are predicted.
        featurer: makes arrays of them.
        places: of the scenes that are.
        batch: scenes that are predicted together.
        keep: futures of a target.
        workers: processes that make arrays.

    Returns:
        A row a target: ``scene`` and ``agent``, its places; ``kind``; ``paths``, float32, shape
        (n, keep, steps, 2), in metres in the frame ``origin``, shape (n, 4); ``probabilities``,
        shape (n, keep); ``future``, shape (n, steps, 4), and ``future_valid``, what came true;
        ``points``, int64, how many LiDAR points it had.
    """
    rows: dict[str, list[Array]] = {}
    for group, inputs, targets in in_order(scenes, featurer, places, batch=batch, workers=workers):
        paths, probabilities = modes(outputs(inputs), keep)
        valid = inputs.get("lidar_valid")
        none = torch.zeros(len(paths), dtype=torch.int64)
        found = {
            "scene": torch.tensor(group)[targets["scene"]],
            "paths": paths[..., :2],
            "probabilities": probabilities,
            "kind": inputs["kind"],
            "points": none if valid is None else valid.flatten(1).sum(1),
            **{name: targets[name] for name in ("agent", "origin", "future", "future_valid")},
        }
        for name, values in found.items():
            rows.setdefault(name, []).append(values.cpu().numpy())
    return {name: np.concatenate(parts) for name, parts in rows.items()}
