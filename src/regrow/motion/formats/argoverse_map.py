"""Reads the vector maps of Argoverse 2: lanes, what is painted beside them, edges, crossings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.motion.scene import LINES, plausible
from regrow.reading import decoding, read_file

__all__ = ["MARKS", "read_map"]

Array = npt.NDArray[Any]

LANES = {"VEHICLE": "street", "BIKE": "bike lane", "BUS": "street"}
MARKS = {
    "DASHED_WHITE": "broken white",
    "DOUBLE_DASH_WHITE": "broken white",
    "SOLID_WHITE": "solid white",
    "DASH_SOLID_WHITE": "solid white",
    "SOLID_DASH_WHITE": "solid white",
    "DOUBLE_SOLID_WHITE": "double white",
    "DASHED_YELLOW": "broken yellow",
    "DOUBLE_DASH_YELLOW": "broken double yellow",
    "SOLID_YELLOW": "solid yellow",
    "DOUBLE_SOLID_YELLOW": "double yellow",
    "DASH_SOLID_YELLOW": "passing double yellow",
    "SOLID_DASH_YELLOW": "passing double yellow",
    "SOLID_BLUE": "unknown",
    "UNKNOWN": "unknown",
}
"""What is painted on a lane's side as kinds of ``LINES``; of NONE there is no line."""


def read_map(path: Path) -> tuple[Array, Array, Array]:
    """Return the points, lengths and kinds of a map's lines, as in ``Scene``.

    A line that two lanes share is taken once. Where a lane has no centre line, as in sensor logs,
    it is the middle between its sides.

    Args:
        path: ``log_map_archive_*.json``.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableError: it is damaged.

    Source: Argoverse 2, "Map API"; https://argoverse.github.io/user-guide/api/hd_maps.html.
    """
    content = read_file(path)
    with decoding(path):
        lines = list(_once(_lines(json.loads(content))))
    return (
        np.concatenate([np.zeros((0, 3)), *(points for _, points in lines)]),
        np.array([len(points) for _, points in lines], np.int64),
        np.array([LINES[kind] for kind, _ in lines], np.int64),
    )


def _lines(archive: dict[str, Any]) -> Iterator[tuple[str, Array]]:
    for lane in archive["lane_segments"].values():
        sides = {side: _points(lane[f"{side}_lane_boundary"]) for side in ("left", "right")}
        centre = (
            _points(lane["centerline"])
            if "centerline" in lane
            else _middle(sides["left"], sides["right"])
        )
        yield LANES[lane["lane_type"]], centre
        for side, points in sides.items():
            if (mark := lane[f"{side}_lane_mark_type"]) != "NONE":
                yield MARKS[mark], points
    for area in archive["drivable_areas"].values():
        yield "road edge", _points(area["area_boundary"])
    for crossing in archive["pedestrian_crossings"].values():
        around = np.concatenate([_points(crossing["edge1"]), _points(crossing["edge2"])[::-1]])
        yield "crosswalk", around


def _once(lines: Iterator[tuple[str, Array]]) -> Iterator[tuple[str, Array]]:
    """Leave out lines that were there already, the same way or backwards."""
    seen: set[tuple[str, bytes]] = set()
    for kind, points in lines:
        if (kind, points.tobytes()) not in seen:
            seen |= {(kind, points.tobytes()), (kind, points[::-1].tobytes())}
            yield kind, points


def _points(listed: list[dict[str, float]]) -> Array:
    points = np.array([[point["x"], point["y"], point["z"]] for point in listed], float)
    if points.ndim != 2 or not plausible(points).all():
        raise ValueError("a line of the map has no points, or one that is nowhere on Earth")
    return points


def _middle(left: Array, right: Array) -> Array:
    """Return ten points of the line midway between two, evenly along each."""
    middle: Array = (_evenly(left, 10) + _evenly(right, 10)) / 2
    return middle


def _evenly(line: Array, points: int) -> Array:
    way = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    at = np.linspace(0, way[-1], points)
    return np.stack([np.interp(at, way, line[:, axis]) for axis in range(3)], axis=1)
