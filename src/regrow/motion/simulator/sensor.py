"""A spinning LiDAR like Waymo's: its rays, its noise, and the points that it sees on boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.motion.simulator.rays import Body, ground_hits, hits

__all__ = ["Sensor"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Sensor:
    """A LiDAR that sends beams at fixed elevations, column by column.

    A sweep takes no time here: road users and the sensor stand still while it turns.

    Args:
        beams: rows of a sweep.
        lowest: elevation of the lowest beam, degrees.
        highest: elevation of the highest beam, degrees.
        columns: of a sweep, all around.
        height: above the ground, metres.
        noise: standard deviation of a range, metres.
        lost: share of the rays that do not come back.
        margin: points this far outside of a box count as its own, metres.
        most: points of a box in one frame; of more a random part is kept.
    """

    beams: int = 64
    lowest: float = -17.6
    highest: float = 2.4
    columns: int = 2650
    height: float = 2.2
    noise: float = 0.02
    lost: float = 0.05
    margin: float = 0.15
    most: int = 2048

    def __post_init__(self) -> None:
        allowed = {
            "beams": (self.beams >= 2, "2 or more"),
            "lowest": (-90 < self.lowest < self.highest, "between -90 and highest"),
            "highest": (self.highest < 90, "below 90 degrees"),
            "columns": (self.columns >= 8, "8 or more"),
            "height": (0 < self.height < np.inf, "above 0 metres"),
            "noise": (0 <= self.noise < np.inf, "0 metres or more"),
            "lost": (0 <= self.lost < 1, "from 0 to below 1"),
            "margin": (0 <= self.margin < np.inf, "0 metres or more"),
            "most": (self.most >= 1, "1 or more"),
        }
        for name, (good, what) in allowed.items():
            if not good:
                raise ValueError(f"{name}={getattr(self, name)}: must be {what}")

    @cached_property
    def elevations(self) -> Array:
        """Elevation of each beam, lowest first, radians."""
        return np.radians(np.linspace(self.lowest, self.highest, self.beams))

    def rays(self, facing: float, centre: Array, size: Array) -> Array:
        """Return the directions of the rays that can meet a box and its margin.

        Args:
            facing: where the sensor's first column looks, radians in the scene.
            centre: float, (3,): of the box, from the sensor.
            size: float, (3,): of the box, metres.

        Returns:
            float, (rays, 3): of length one, in the scene.
        """
        azimuth, half = map(float, _windows(centre, size, self.margin))
        step = 2 * np.pi / self.columns
        first, last = np.ceil((azimuth - half - facing) / step), (azimuth + half - facing) / step
        columns = facing + step * np.arange(
            first, min(np.floor(last), first + self.columns - 1) + 1
        )
        rows = self.elevations[self._rows(centre, size)]
        cos = np.cos(rows)[:, None]
        grid = [cos * np.cos(columns), cos * np.sin(columns), np.sin(rows)[:, None] + 0 * columns]
        return np.stack(grid, -1).reshape(-1, 3)

    def _rows(self, centre: Array, size: Array) -> Array:
        distance, reach = float(np.hypot(*centre[:2])), float(_reach(size, self.margin))
        spans = (max(distance - reach, 1e-3), distance + reach)
        heights = centre[2] + (size[2] / 2 + self.margin) * np.array([-1.0, 1.0])
        ends = [np.arctan2(height, span) for height in heights for span in spans]
        return np.asarray((self.elevations >= min(ends)) & (self.elevations <= max(ends)))

    def look(
        self,
        target: int,
        bodies: Sequence[Body],
        boxes: Array,
        origin: Array,
        facing: float,
        frame: int,
        draw: np.random.Generator,
    ) -> Array:
        """Return the points on one road user in one frame.

        Args:
            target: which of the bodies.
            bodies: of all road users that can be seen or be in the way.
            boxes: float, (bodies, 7): x, y, z, length, width, height, heading in this frame.
            origin: float, (3,): where the sensor is.
            facing: where its first column looks, radians.
            frame: which of the bodies' frames.
            draw: of noise and of lost rays.

        Returns:
            float, (points, 4): x, y, z from the centre of the box along the axes of the scene, and
            range. Points on the ground and on others inside of the box and its margin are among
            them, as in a crop of real points.
        """
        places = boxes[:, :3] - origin
        rays = self.rays(facing, places[target], boxes[target, 3:6])
        ranges = ground_hits(rays, origin[2])
        for other in self._in_the_way(target, places, boxes[:, 3:6]):
            ranges = np.minimum(ranges, hits(rays, origin, bodies[other], frame))
        seen = np.isfinite(ranges) & (draw.random(len(rays)) >= self.lost)
        ranges = ranges[seen] + draw.normal(0, self.noise, int(seen.sum()))
        points = rays[seen] * ranges[:, None] - places[target]
        kept = np.flatnonzero(_inside(points, boxes[target], self.margin))
        if len(kept) > self.most:
            kept = np.sort(draw.choice(kept, self.most, replace=False))
        return np.concatenate([points[kept], ranges[kept, None]], 1)

    def _in_the_way(self, target: int, places: Array, sizes: Array) -> list[int]:
        """Return the target and all nearer road users whose directions overlap with its own."""
        distances, reach = np.hypot(places[:, 0], places[:, 1]), _reach(sizes, self.margin)
        azimuths, halves = _windows(places, sizes, self.margin)
        apart = np.abs((azimuths - azimuths[target] + np.pi) % (2 * np.pi) - np.pi)
        nearer = distances - reach < distances[target] + reach[target]
        found = (apart < halves + halves[target]) & nearer
        found[target] = True
        return np.flatnonzero(found).tolist()


def _reach(sizes: Array, margin: float) -> Array:
    """Return how far boxes and their margins reach from their centres, seen from above."""
    return np.asarray(np.hypot(sizes[..., 0] / 2 + margin, sizes[..., 1] / 2 + margin))


def _windows(centres: Array, sizes: Array, margin: float) -> tuple[Array, Array]:
    """Return the azimuths of boxes, and how far they reach to either side."""
    distance, reach = np.hypot(centres[..., 0], centres[..., 1]), _reach(sizes, margin)
    share = np.divide(reach, distance, out=np.ones_like(distance), where=distance > reach)
    half = np.where(distance > reach, np.arcsin(share), np.pi)
    return np.arctan2(centres[..., 1], centres[..., 0]), half


def _inside(points: Array, box: Array, margin: float) -> Array:
    cos, sin = np.cos(box[6]), np.sin(box[6])
    own = np.stack(
        [points[:, 0] * cos + points[:, 1] * sin, points[:, 1] * cos - points[:, 0] * sin], -1
    )
    half = box[3:6] / 2 + margin
    return np.asarray((np.abs(own) <= half[:2]).all(-1) & (np.abs(points[:, 2]) <= half[2]))
