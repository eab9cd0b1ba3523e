"""What forecasts are worth: Waymo's metrics, errors by kind, by story and by distance."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.motion.metrics import MotionMetrics, argoverse_mean, argoverse_metrics
from regrow.motion.scene import KINDS, Scene

__all__ = ["RANGES", "SPEEDS", "errors_of", "in_scene", "results"]

Array = npt.NDArray[Any]

RANGES = (0.0, 15.0, 25.0, 35.0, 75.0, np.inf)
"""Metres from the sensor, now: edges of the ranges that are told apart."""

SPEEDS = (0.0, 0.5, 2.0, 4.0, 8.0, 40.0, np.inf)
"""Metres a second, now: edges of the speeds that are told apart."""

_EVERY = 5  # steps between the points that Waymo's metrics look at
_STEPS = 80
_ARGOVERSE_STEPS = 60
_SECONDS = 0.1  # a step of both, whose thresholds are for times

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
        told, story, with the number of targets. Of scenes with a step each 0.1 s, where all have
        eight seconds to come, Waymo's metrics, such as ``waymo_map``, and these by kind as
        ``waymo``; where all have six, as Argoverse's have, theirs as ``argoverse``.
    """
    errors = errors_of(found)
    now = [scene.states[scene.targets, scene.now] for scene in scenes]
    speeds = np.concatenate([np.hypot(state[:, 7], state[:, 8]) for state in now])
    groups = {
        "by_kind": [KINDS[kind] for kind in found["kind"]],
        "by_speed": _binned(speeds, SPEEDS),
    }
    if any(scene.points is not None for scene in scenes):
        groups["by_points"] = _points(scenes)
    if np.isfinite(ranges := _ranges(scenes)).any():
        groups["by_range"] = _binned(ranges, RANGES)
    if stories is not None:
        groups["by_story"] = list(stories)
    return {
        **_means(errors, np.ones(len(speeds), bool)),
        **{name: _grouped(errors, labels) for name, labels in groups.items()},
        **_challenges(found, scenes),
    }


def _points(scenes: Iterable[Scene]) -> list[str]:
    """Say of each target whether it has LiDAR points: "some", "none", or "no LiDAR" at all."""
    found = []
    for scene in scenes:
        if scene.points is None:
            found += ["no LiDAR"] * len(scene.targets)
        else:
            found += ["some" if count else "none" for count in scene.points.counts.sum(1)]
    return found


def _ranges(scenes: Iterable[Scene]) -> Array:
    """Return how far each target is from the LiDAR, else from its car; NaN: neither is known."""
    found = []
    for scene in scenes:
        places, sensor = scene.states[scene.targets, scene.now, :2], np.full(2, np.nan)
        if scene.points is not None:
            sensor = scene.points.sensor[-1, :2]
        elif scene.ego is not None and scene.valid[scene.ego, scene.now]:
            sensor = scene.states[scene.ego, scene.now, :2]
        found.append(np.linalg.norm(places - sensor, axis=1))
    return np.concatenate(found)


def _binned(values: Array, edges: Sequence[float]) -> list[str]:
    """Name the bin of each value, such as "15 to 25", "over 75" or "not known".

    Example:
        >>> _binned(np.array([3.0, 75.0, np.nan]), (0, 15, 75, np.inf))
        ['0 to 15', 'over 75', 'not known']
    """
    pairs = itertools.pairwise(edges)
    names = [f"{a:g} to {b:g}" if np.isfinite(b) else f"over {a:g}" for a, b in pairs]
    places = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(names) - 1)
    known = np.isfinite(values)
    return [names[i] if there else "not known" for i, there in zip(places, known, strict=True)]


def _grouped(errors: Mapping[str, Array], labels: Sequence[str]) -> dict[str, dict[str, Any]]:
    names = np.array(labels)
    found = {name: _means(errors, names == name) for name in dict.fromkeys(labels)}
    return dict(sorted(found.items(), key=lambda item: _order(item[0])))


def _order(name: str) -> tuple[float, str]:
    """Sort by the number that a name begins with; words before them, "not known" last."""
    first = name.removeprefix("over ").split(" ", maxsplit=1)[0]
    number = float(first) if first.replace(".", "").isdigit() else -1.0
    return (np.inf if name == "not known" else number, name)


def _means(errors: Mapping[str, Array], chosen: Array) -> dict[str, Any]:
    chosen = chosen & np.isfinite(errors["min_ade"])
    if not chosen.any():
        return {**dict.fromkeys(errors), "targets": 0}
    means = {name: float(error[chosen].mean()) for name, error in errors.items()}
    return {**means, "targets": int(chosen.sum())}


def _challenges(found: Found, scenes: Sequence[Scene]) -> dict[str, Any]:
    """Return Waymo's metrics or Argoverse's, whose scenes these are by their lengths."""
    futures = [len(scene.times) - 1 - scene.now for scene in scenes]
    steps = [float(np.median(np.diff(scene.times))) for scene in scenes if len(scene.times) > 1]
    if not futures or any(abs(step / _SECONDS - 1) > 0.1 for step in steps):
        return {}
    paths = in_scene(found["paths"], found["origin"])
    ends = np.cumsum([len(scene.targets) for scene in scenes])
    rows = [slice(end - len(scene.targets), end) for scene, end in zip(scenes, ends, strict=True)]
    parts = [
        (scene, paths[row], found["probabilities"][row])
        for scene, row in zip(scenes, rows, strict=True)
    ]
    if min(*futures, paths.shape[2]) >= _STEPS:
        return _waymo(parts)
    if set(futures) == {_ARGOVERSE_STEPS} and paths.shape[2] >= _ARGOVERSE_STEPS:
        return _argoverse(parts)
    return {}


def _waymo(parts: Sequence[tuple[Scene, Array, Array]]) -> dict[str, Any]:
    metrics = MotionMetrics()
    for scene, paths, probabilities in parts:
        metrics.add(scene, paths[:, :, _EVERY - 1 : _STEPS : _EVERY], probabilities)
    values = metrics.values()
    told = {f"waymo_{name}": value for name, value in values.headline().items()}
    rows = {kind: _without_nan(row) for kind, row in values.table().items()}
    return {**_without_nan(told), "waymo": rows}


def _argoverse(parts: Sequence[tuple[Scene, Array, Array]]) -> dict[str, Any]:
    measured = [
        argoverse_metrics(scene, paths[:, :, :_ARGOVERSE_STEPS], probabilities)
        for scene, paths, probabilities in parts
    ]
    return {"argoverse": _without_nan(argoverse_mean(measured))}


def _without_nan(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: None if np.isnan(value) else value for name, value in values.items()}
