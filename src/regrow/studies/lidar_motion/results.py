"""What forecasts are worth: Waymo's metrics, errors by kind, by story and by distance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.motion.metrics import MotionMetrics
from regrow.motion.scene import KINDS, Scene

__all__ = ["RANGES", "SPEEDS", "errors_of", "in_scene", "results"]

Array = npt.NDArray[Any]

RANGES = (0.0, 15.0, 25.0, 35.0, 75.0)
"""Metres from the sensor, now: edges of the ranges that are told apart."""

SPEEDS = (0.0, 0.5, 2.0, 4.0, 8.0, 40.0)
"""Metres a second, now: edges of the speeds that are told apart."""

_EVERY = 5  # steps between the points that Waymo's metrics look at
_STEPS = 80

Found = Mapping[str, Array]
"""A row a target, of :func:`regrow.motion.forecast.forecast`."""


def in_scene(paths: Array, origin: Array) -> Array:
    """Return futures in the frame of their scene.

    Args:
        paths: float, (n, futures, steps, 2): in the frames of their targets, metres.
        origin: float, (n, 4): x, y, z, heading of these frames.
    """
    cos, sin = np.cos(origin[:, 3]), np.sin(origin[:, 3])
    turn = np.stack([cos, sin, -sin, cos], -1).reshape(-1, 1, 2, 2)
    return np.asarray(paths @ turn + origin[:, None, None, :2])


def errors_of(found: Found) -> dict[str, Array]:
    """Return the errors of each target over all known steps, metres; NaN: none is known.

    Args:
        found: forecasts.

    Returns:
        ``min_ade`` and ``min_fde`` of the best future, ``ade_1`` of the likeliest; (n,) each.
    """
    apart = np.linalg.norm(found["paths"] - found["future"][:, None, :, :2], axis=-1)
    valid = found["future_valid"]
    counts = valid.sum(1)
    last = valid.shape[1] - 1 - valid[:, ::-1].argmax(1)
    rows = np.arange(len(valid))
    ade = np.where(valid[:, None], apart, 0).sum(-1) / np.maximum(counts, 1)[:, None]
    errors = {
        "min_ade": ade.min(1),
        "min_fde": apart[rows, :, last].min(1),
        "ade_1": ade[rows, found["probabilities"].argmax(1)],
    }
    return {name: np.where(counts > 0, error, np.nan) for name, error in errors.items()}


def results(
    found: Found, scenes: Sequence[Scene], stories: Sequence[str] | None = None
) -> dict[str, Any]:
    """Return what forecasts of scenes are worth.

    Args:
        found: a row a target, in the order of scenes and their targets.
        scenes: those that were predicted.
        stories: what was drawn for each target, in the order of the rows; None: nothing is known.

    Returns:
        Means of :func:`errors_of`; the same by kind, range, speed, presence of points and, where
        told, story, with the number of targets; and, where scenes have eight seconds, Waymo's
        metrics, such as ``waymo_map``, and these by kind as ``waymo``.
    """
    errors = errors_of(found)
    now = [scene.states[scene.targets, scene.now] for scene in scenes]
    speeds = np.concatenate([np.hypot(state[:, 7], state[:, 8]) for state in now])
    groups = {
        "by_kind": [KINDS[kind] for kind in found["kind"]],
        "by_speed": _binned(speeds, SPEEDS),
        "by_points": ["some" if count else "none" for count in _counts(scenes)],
    }
    if (ranges := _ranges(scenes)) is not None:
        groups["by_range"] = _binned(ranges, RANGES)
    if stories is not None:
        groups["by_story"] = list(stories)
    return {
        **_means(errors, np.ones(len(speeds), bool)),
        **{name: _grouped(errors, labels) for name, labels in groups.items()},
        **_waymo(found, scenes),
    }


def _counts(scenes: Iterable[Scene]) -> Array:
    return np.concatenate(
        [
            np.zeros(len(scene.targets), int)
            if scene.points is None
            else scene.points.counts.sum(1)
            for scene in scenes
        ]
    )


def _ranges(scenes: Iterable[Scene]) -> Array | None:
    found = []
    for scene in scenes:
        if scene.points is None:
            return None
        places = scene.states[scene.targets, scene.now, :2]
        found.append(np.linalg.norm(places - scene.points.sensor[-1, :2], axis=1))
    return np.concatenate(found)


def _binned(values: Array, edges: Sequence[float]) -> list[str]:
    """Name the bin of each value, such as "12 to 20"; the outer bins are open."""
    places = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    return [f"{edges[i]:g} to {edges[i + 1]:g}" for i in places]


def _grouped(errors: Mapping[str, Array], labels: Sequence[str]) -> dict[str, dict[str, Any]]:
    names = np.array(labels)
    found = {name: _means(errors, names == name) for name in dict.fromkeys(labels)}
    return dict(sorted(found.items(), key=lambda item: _order(item[0])))


def _order(name: str) -> tuple[float, str]:
    first = name.split(" ", maxsplit=1)[0]
    return (float(first) if first.replace(".", "").isdigit() else 0.0, name)


def _means(errors: Mapping[str, Array], chosen: Array) -> dict[str, Any]:
    chosen = chosen & np.isfinite(errors["min_ade"])
    if not chosen.any():
        return {**dict.fromkeys(errors), "targets": 0}
    means = {name: float(error[chosen].mean()) for name, error in errors.items()}
    return {**means, "targets": int(chosen.sum())}


def _waymo(found: Found, scenes: Sequence[Scene]) -> dict[str, Any]:
    if any(len(scene.times) - 1 - scene.now < _STEPS for scene in scenes):
        return {}
    metrics, paths = MotionMetrics(), in_scene(found["paths"], found["origin"])
    ends = np.cumsum([len(scene.targets) for scene in scenes])
    for scene, end in zip(scenes, ends, strict=True):
        rows = slice(end - len(scene.targets), end)
        points = paths[rows, :, _EVERY - 1 : _STEPS : _EVERY]
        metrics.add(scene, points, found["probabilities"][rows])
    values = metrics.values()
    told = {f"waymo_{name}": value for name, value in values.headline().items()}
    table = values.table()
    return {
        **{name: None if np.isnan(value) else value for name, value in told.items()},
        "waymo": {
            kind: {name: None if np.isnan(value) else value for name, value in row.items()}
            for kind, row in table.items()
        },
    }
