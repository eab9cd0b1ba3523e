"""The points that a LiDAR sees on road users, frame after frame."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.motion.scene import Points
from regrow.motion.simulator.rays import Body
from regrow.motion.simulator.sensor import Sensor

__all__ = ["scan"]

Array = npt.NDArray[Any]


def scan(
    sensor: Sensor,
    bodies: Sequence[Body | None],
    states: Array,
    valid: Array,
    targets: Iterable[int],
    places: Array,
    facings: Array,
    draws: Callable[[int], np.random.Generator],
) -> Points:
    """Return the points on the targets in each frame.

    Intensity is a number of each road user and noise, elongation noise: both tell nothing.

    Args:
        sensor: what sees them.
        bodies: of all road users; None: neither seen nor in the way, as the sensor's own car.
        states: float, (road users, frames, 9), see ``STATE``: their boxes.
        valid: bool, (road users, frames): who is there.
        targets: those whose points are wanted.
        places: float, (frames, 2): of the sensor, metres.
        facings: float, (frames,): where its first column looks, radians.
        draws: gives the random numbers of a target.
    """
    origins = np.concatenate([places, np.full((len(places), 1), sensor.height)], 1)
    values, counts = [np.zeros((0, 6))], []
    for target in targets:
        draw = draws(target)
        shine = draw.uniform(0.05, 0.6)
        for frame, (origin, facing) in enumerate(zip(origins, facings, strict=True)):
            there = [i for i, body in enumerate(bodies) if body is not None and valid[i, frame]]
            seen = np.zeros((0, 4))
            if target in there:
                here = [body for body in (bodies[i] for i in there) if body is not None]
                boxes = states[there, frame, :7]
                at = there.index(target)
                seen = sensor.look(at, here, boxes, origin, float(facing), frame, draw)
            intensity = np.clip(shine + draw.normal(0, 0.05, len(seen)), 0, 1)
            elongation = np.abs(draw.normal(0, 0.02, len(seen)))
            values.append(np.concatenate([seen, np.stack([intensity, elongation], 1)], 1))
            counts.append(len(seen))
    shape = -1, len(places)
    return Points(np.concatenate(values), np.array(counts, np.int64).reshape(shape), origins)
