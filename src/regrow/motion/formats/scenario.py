"""Reads the scenarios of the Waymo Open Motion Dataset, without TensorFlow or protobuf."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.motion.formats.tfrecord import Skipped, read_records
from regrow.motion.formats.wire import Fields, Value, content, fields, integer, packed, rows
from regrow.motion.scene import KINDS, LINES, Scene, plausible
from regrow.reading import UnreadableError, decoding

__all__ = ["EDGE_TYPES", "LANE_TYPES", "LINE_TYPES", "decode_scenario", "read_scenarios"]

Array = npt.NDArray[Any]

KINDS_OF = (KINDS.index("other"), *range(1, len(KINDS)), KINDS.index("other"))
"""Waymo's ``object_type``, 0 to 4, as places in ``KINDS``."""

LANE_TYPES = ("unknown", "freeway", "street", "bike lane")
LINE_TYPES = (
    "unknown",
    "broken white",
    "solid white",
    "double white",
    "broken yellow",
    "broken double yellow",
    "solid yellow",
    "double yellow",
    "passing double yellow",
)
EDGE_TYPES = ("unknown", "road edge", "median")

# Fields of MapFeature: of which kind it is, or the types it can have, with the fields of its type
# and of its points.
FEATURES: dict[int, tuple[tuple[str, ...], int, int]] = {
    3: (LANE_TYPES, 2, 8),
    4: (LINE_TYPES, 1, 2),
    5: (EDGE_TYPES, 1, 2),
    7: (("stop sign",), 0, 2),
    8: (("crosswalk",), 0, 1),
    9: (("speed bump",), 0, 1),
    10: (("driveway",), 0, 1),
}

STATE_FIELDS = {2: "<f8", 3: "<f8", 4: "<f8", **dict.fromkeys(range(5, 11), "<f4"), 11: "varint"}
POINT_FIELDS = {1: "<f8", 2: "<f8", 3: "<f8"}


def read_scenarios(path: Path, skipped: Skipped | None = None) -> Iterator[Scene]:
    """Give the scenarios of a shard of the Waymo Open Motion Dataset, as scenes.

    Args:
        path: a TFRecord file of scenarios.
        skipped: told of each damaged record, which is left out; None: the first one is an error.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableError: a record is damaged; the message names the file and the record.
    """
    for number, record in read_records(path, skipped):
        try:
            yield decode_scenario(record, f"{path}, record {number}")
        except UnreadableError as error:
            if skipped is None:
                raise
            skipped(error)


def decode_scenario(data: bytes, of: object = "scenario") -> Scene:
    """Return a scenario as a scene.

    Traffic lights, lane neighbours, difficulties and camera tokens are not kept. A state that is
    said to be valid and is not finite, or 10,000 km away, counts as not valid.

    Args:
        data: a message of type ``waymo.open_dataset.Scenario``.
        of: what it is, for errors.

    Raises:
        UnreadableError: it is no scenario, or contradicts itself.

    Source: Waymo Open Dataset, scenario.proto and map.proto.
    """
    with decoding(of):
        return _scene(fields(data))


def _scene(found: Fields) -> Scene:
    times = packed(found.get(1, []), "<f8")
    tracks = [fields(content(track)) for track in found.get(2, [])]
    if not len(times) or not tracks:
        raise ValueError(f"has {len(times)} time stamps and {len(tracks)} tracks")
    states, valid = _states(tracks, len(times))
    wanted = [integer(fields(content(one)), 1) for one in found.get(11, [])]
    targets = list(dict.fromkeys(wanted))
    ego = integer(found, 6, -1)
    for name, places in (("tracks_to_predict", targets), ("sdc_track_index", [max(ego, 0)])):
        if places and not 0 <= min(places) <= max(places) < len(tracks):
            raise ValueError(f"{name} names track {max(places, key=abs)} of {len(tracks)}")
    lines = _lines([fields(content(feature)) for feature in found.get(8, [])])
    return Scene(
        name=content(found[5][-1]).decode() if 5 in found else "",
        times=np.array(times),
        now=integer(found, 10),
        ids=np.array([integer(track, 1) for track in tracks]),
        kinds=np.array([_type(track, 2, KINDS_OF, "object_type") for track in tracks]),
        states=states,
        valid=valid,
        targets=np.array(targets, np.int64),
        ego=ego if ego >= 0 else None,
        line_points=lines[0],
        line_lengths=lines[1],
        line_kinds=lines[2],
    )


def _states(tracks: list[Fields], steps: int) -> tuple[Array, npt.NDArray[np.bool_]]:
    for place, track in enumerate(tracks):
        if (count := len(track.get(3, []))) != steps:
            raise ValueError(f"track {place} has {count} states, of {steps} time stamps")
    columns = rows([state for track in tracks for state in track[3]], STATE_FIELDS)
    states = np.stack([columns[number] for number in range(2, 11)], axis=1)
    valid = (columns[11] != 0) & plausible(states)
    states[~valid] = 0.0
    return states.reshape(len(tracks), steps, -1), valid.reshape(len(tracks), steps)


def _lines(features: list[Fields]) -> tuple[Array, Array, Array]:
    """Return points, lengths and kinds of the map's lines; features not known yet have none."""
    kinds: list[int] = []
    points: list[list[Value]] = []
    for feature in features:
        number = next((number for number in FEATURES if number in feature), None)
        if number is None:
            continue
        types, type_field, point_field = FEATURES[number]
        own = fields(content(feature[number][-1]))
        if of_line := own.get(point_field, []):
            named = tuple(LINES[name] for name in types)
            kinds.append(_type(own, type_field, named, "a map feature's type"))
            points.append(of_line)
    columns = rows([point for of_line in points for point in of_line], POINT_FIELDS)
    places = np.stack(list(columns.values()), axis=1)
    lengths = np.array([len(of_line) for of_line in points], np.int64)
    if not (good := plausible(places)).all():
        line = int(np.searchsorted(np.cumsum(lengths), np.argmin(good), side="right"))
        raise ValueError(
            f"line {line} of the map has a point that is not finite, or 10,000 km away"
        )
    return places, lengths, np.array(kinds, np.int64)


def _type(found: Fields, number: int, kinds: tuple[int, ...], name: str) -> int:
    value = integer(found, number) if number else 0
    if not 0 <= value < len(kinds):
        raise ValueError(f"{name} is {value}; must be 0 to {len(kinds) - 1}")
    return kinds[value]
