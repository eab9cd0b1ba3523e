"""Reads WOMD-LiDAR: the sweeps of the Waymo Open Motion Dataset's first 1.1 seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.motion.crop import Sweep
from regrow.motion.formats.delta import decode_delta
from regrow.motion.formats.tfrecord import read_records
from regrow.motion.formats.wire import Fields, Value, content, fields, integer, packed
from regrow.reading import damaged, decoding

__all__ = ["TOP", "cartesian", "decode_sweep", "read_sweeps", "rotations"]

Array = npt.NDArray[Any]

TOP = 1
"""The laser on the roof, the only one whose pixels have poses of their own."""


def read_sweeps(path: Path) -> list[Sweep | None]:
    """Return the sweeps of a scenario, one for each step up to now; None: that frame is empty.

    Args:
        path: the file ``{scenario_id}.tfrecord`` of WOMD-LiDAR.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableError: it is damaged; the message names the file and the record.
    """
    records = [record for _, record in read_records(path)]
    if len(records) != 1:
        raise damaged(path, f"has {len(records)} records, not one")
    with decoding(of := f"{path}, record 0"):
        frames = fields(records[0]).get(12, [])
        return [decode_sweep(content(frame), of) for frame in frames]


def decode_sweep(data: bytes, of: object = "a range image") -> Sweep | None:
    """Return the points of all lasers, first and second returns, in the frame's vehicle frame.

    The vehicle moves while a sweep is taken: each pixel of the roof's laser has a pose of its own,
    by which its point goes to the world, and from there to the vehicle as of the frame's pose.

    Args:
        data: a message ``CompressedFrameLaserData``.
        of: what it is of, for the error that it unpacks to too much.

    Returns:
        The sweep; None if it has no laser.

    Raises:
        ValueError: it contradicts itself.

    Source: Waymo Open Dataset, compressed_lidar.proto, womd_lidar_utils.py and
    range_image_utils.py.
    """
    found = fields(data)
    if not found.get(1):
        return None
    pose = _transform(found, 3)
    calibrations = {integer(one, 1): one for one in map(_fields, found.get(2, []))}
    parts = []
    for laser in map(_fields, found[1]):
        name = integer(laser, 1)
        if name not in calibrations:
            raise ValueError(f"laser {name} has no calibration")
        parts += _returns(laser, calibrations[name], pose if name == TOP else None, of)
    sensor = next((name for name in (TOP, *calibrations) if name in calibrations), TOP)
    return Sweep(
        points=np.concatenate([np.zeros((0, 6)), *parts]),
        pose=pose,
        sensor=_transform(calibrations[sensor], 5)[:3, 3],
    )


def _returns(laser: Fields, calibration: Fields, pose: Array | None, of: object) -> list[Array]:
    """Return the points of both returns of a laser; ``pose``: its pixels have poses."""
    extrinsic, parts = _transform(calibration, 5), []
    images = [_fields(laser[number][-1]) for number in (2, 3) if number in laser]
    if pose is not None and (not images or 4 not in images[0]):
        raise ValueError("the laser on the roof has no pixel poses")
    pixels = None if pose is None else decode_delta(content(images[0][4][-1]), of)
    for image in images:
        if 1 not in image:
            continue
        cells = decode_delta(content(image[1][-1]), of)
        if cells.shape[2] < 3 or (pixels is not None and pixels.shape != (*cells.shape[:2], 6)):
            raise ValueError(f"a range image has shape {cells.shape}, its poses do not fit")
        inclinations = _inclinations(calibration, len(cells))
        places = cartesian(cells[..., 0], extrinsic, inclinations, pixels, pose)
        parts.append(np.concatenate([places, cells[cells[..., 0] > 0][:, :3]], axis=1))
    return parts


def cartesian(
    ranges: Array,
    extrinsic: Array,
    inclinations: Array,
    pixels: Array | None = None,
    pose: Array | None = None,
) -> Array:
    """Return the points of a range image in the vehicle, row by row; cells of 0 have none.

    Args:
        ranges: float, (rows, columns): metres; the first row looks highest, columns go clockwise
            from behind.
        extrinsic: float, (4, 4): from the sensor to the vehicle.
        inclinations: float, (rows,): radians up, from the lowest row to the highest.
        pixels: float, (rows, columns, 6): roll, pitch, yaw, x, y, z of the vehicle in the world as
            each pixel was measured; None: the vehicle does not move.
        pose: float, (4, 4): of the vehicle in the world, for the whole frame; goes with ``pixels``.

    Returns:
        float, (points, 3).
    """
    row, column = np.nonzero(ranges > 0)
    distance, width = ranges[row, column], ranges.shape[1]
    offset = np.arctan2(extrinsic[1, 0], extrinsic[0, 0])
    azimuth = ((width - np.arange(width) - 0.5) / width * 2 - 1) * np.pi - offset
    up = inclinations[::-1]
    flat = np.cos(up)[row] * distance
    points = np.stack(
        [
            np.cos(azimuth)[column] * flat,
            np.sin(azimuth)[column] * flat,
            np.sin(up)[row] * distance,
        ],
        axis=1,
    )
    points = points @ extrinsic[:3, :3].T + extrinsic[:3, 3]
    if pixels is None or pose is None:
        return points
    own = pixels[row, column]
    world = np.einsum("nij,nj->ni", rotations(own[:, :3]), points) + own[:, 3:]
    moved: Array = (world - pose[:3, 3]) @ np.linalg.inv(pose[:3, :3]).T
    return moved


def rotations(angles: Array) -> Array:
    """Return the rotations by roll, then pitch, then yaw, about the world's axes.

    Args:
        angles: float, (points, 3): radians.

    Returns:
        float, (points, 3, 3).
    """
    (cr, cp, cy), (sr, sp, sy) = np.cos(angles).T, np.sin(angles).T
    rows = [
        [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
        [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
        [-sp, cp * sr, cp * cr],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def _inclinations(calibration: Fields, rows: int) -> Array:
    """Return the inclinations of an image's rows, lowest first; even if only ends are given."""
    given = packed(calibration.get(2, []), "<f8")
    if not len(given):
        low, high = (float(packed(calibration[number], "<f8")[-1]) for number in (3, 4))
        return low + (high - low) * (np.arange(rows) + 0.5) / rows
    if len(given) != rows:
        raise ValueError(f"a range image has {rows} rows, its laser {len(given)} inclinations")
    return given


def _transform(found: Fields, number: int) -> Array:
    values = packed(_fields(found[number][-1])[1], "<f8") if number in found else np.zeros(0)
    if len(values) != 16 or not np.isfinite(values).all():
        raise ValueError(f"a pose has {len(values)} numbers; must be 16, all finite")
    return values.reshape(4, 4)


def _fields(value: Value) -> Fields:
    return fields(content(value))
