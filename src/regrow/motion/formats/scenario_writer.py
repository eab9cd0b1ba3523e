"""Writes scenes as scenarios of the Waymo Open Motion Dataset, which other tools then read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy.typing as npt

from regrow.motion.formats.scenario import FEATURES, KINDS_OF, POINT_FIELDS, STATE_FIELDS
from regrow.motion.formats.tfrecord import write_records
from regrow.motion.formats.wire import field
from regrow.motion.scene import KINDS, LINES, Scene

__all__ = ["encode_scenario", "write_scenarios"]

_TYPES = {0: 4, **{kind: kind for kind in range(1, len(KINDS))}}
assert all(KINDS_OF[value] == kind for kind, value in _TYPES.items())


def write_scenarios(path: Path, scenes: Iterable[Scene]) -> None:
    """Write a shard of scenarios; LiDAR points are not written.

    Args:
        path: of the TFRecord file; one that is there is replaced.
        scenes: to write.
    """
    write_records(path, (encode_scenario(scene) for scene in scenes))


def encode_scenario(scene: Scene) -> bytes:
    """Return a scene as a message of type ``waymo.open_dataset.Scenario``.

    Sizes, headings and velocities are stored as float32, positions as float64.

    Args:
        scene: the scene; LiDAR points are left out.

    Example:
        >>> import numpy as np
        >>> from regrow.motion.formats.scenario import decode_scenario
        >>> one = Scene("tea", np.zeros(1), 0, np.array([7]), np.array([2]),
        ...             np.zeros((1, 1, 9)), np.ones((1, 1), bool), np.array([0]))
        >>> decode_scenario(encode_scenario(one)).ids
        array([7])
    """
    parts = [field(1, float(time)) for time in scene.times]
    for place, ident in enumerate(scene.ids):
        states = zip(scene.states[place], scene.valid[place], strict=True)
        track = field(1, int(ident)) + field(2, _TYPES[int(scene.kinds[place])])
        track += b"".join(field(3, _state(state, bool(valid))) for state, valid in states)
        parts.append(field(2, track))
    parts += [field(5, scene.name), field(10, int(scene.now))]
    parts += [field(6, int(scene.ego))] if scene.ego is not None else []
    for place, (kind, points) in enumerate(scene.lines()):
        parts.append(field(8, field(1, place) + _line(kind, points)))
    parts += [field(11, field(1, int(target))) for target in scene.targets]
    return b"".join(parts)


def _state(state: npt.NDArray[Any], valid: bool) -> bytes:
    if not valid:
        return field(11, 0)
    numbers = zip(STATE_FIELDS.items(), state, strict=False)
    return b"".join(field(n, float(x), kind) for (n, kind), x in numbers) + field(11, 1)


def _line(kind: int, points: npt.NDArray[Any]) -> bytes:
    name = next(name for name, value in LINES.items() if value == kind)
    number = next(n for n, (types, _, _) in FEATURES.items() if name in types)
    types, type_field, point_field = FEATURES[number]
    content = field(type_field, types.index(name)) if type_field else b""
    for point in points:
        place = (field(n, float(x)) for n, x in zip(POINT_FIELDS, point, strict=True))
        content += field(point_field, b"".join(place))
    return field(number, content)
