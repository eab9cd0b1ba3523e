"""Intention points: where road users of a kind end up, as 64 centres of clusters."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from regrow.machine import needed
from regrow.motion.frames import rotated
from regrow.motion.scene import KINDS, Scene

__all__ = ["ends", "intention_points"]

Array = npt.NDArray[Any]


def ends(scenes: Iterable[Scene], future: int = 80) -> tuple[Array, Array]:
    """Return where targets end, in their frame of now, and of which kind they are.

    Args:
        scenes: their targets' last valid steps among the future ones are looked at.
        future: steps of the future, at most.

    Returns:
        float64, shape (n, 2), in metres, and int64, shape (n,); targets without a future are left
        out.
    """
    places: list[Array] = [np.zeros((0, 2))]
    kinds: list[Array] = [np.zeros(0, dtype=np.int64)]
    for scene in scenes:
        later = slice(scene.now + 1, scene.now + 1 + future)
        valid = scene.valid[scene.targets, later]
        some = scene.targets[valid.any(1) & scene.valid[scene.targets, scene.now]]
        if not len(some):
            continue
        valid = scene.valid[some, later]
        last = valid.shape[1] - 1 - valid[:, ::-1].argmax(1)
        states, now = scene.states[some, later], scene.states[some, scene.now]
        moved = states[np.arange(len(some)), last, :2] - now[:, :2]
        places.append(rotated(moved, -now[:, 6]))
        kinds.append(scene.kinds[some])
    return np.concatenate(places), np.concatenate(kinds).astype(np.int64)


def intention_points(
    scenes: Iterable[Scene], queries: int = 64, *, future: int = 80, seed: int = 0
) -> Tensor:
    """Return the centres of clusters of where targets end, kind by kind.

    Args:
        scenes: to learn from; a few thousand are enough.
        queries: clusters of a kind.
        future: steps of the future.
        seed: of the first centres.

    Returns:
        float32, shape (kinds, queries, 2), in metres, in a target's frame. A kind with fewer ends
        than clusters has those of all kinds; where these are too few as well, ends come again.

    Raises:
        ValueError: no target has a future.
        ImportError: scikit-learn is missing.

    Source: Shi et al. 2022 (MTR), section 3.2. How its points were made is not published, the
    points are derived from Waymo's data and may not be passed on.
    """
    places, kinds = ends(scenes, future)
    if not len(places):
        raise ValueError("scenes: no target has a valid step after now; nothing can be learnt")
    rest = None
    found = []
    for kind in range(len(KINDS)):
        own = places[kinds == kind]
        if len(np.unique(own, axis=0)) >= queries:
            found.append(_centres(own, queries, seed))
            continue
        rest = _centres(places, queries, seed) if rest is None else rest
        found.append(rest)
    return torch.from_numpy(np.stack(found)).float()


def _centres(places: Array, queries: int, seed: int) -> Array:
    """Return centres of clusters, in the order of their angle and distance."""
    with needed("scikit-learn", "motion"):
        from sklearn.cluster import KMeans  # noqa: PLC0415
    distinct = np.unique(places, axis=0)
    if len(distinct) <= queries:
        return np.asarray(np.resize(distinct, (queries, 2)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of clusters that coincide
        fitted = KMeans(queries, n_init=1, random_state=seed).fit(places)
    return np.asarray(fitted.cluster_centers_, dtype=np.float64)
