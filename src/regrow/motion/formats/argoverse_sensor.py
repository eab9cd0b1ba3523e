"""Reads sensor logs of Argoverse 2: boxes at 10 Hz, LiDAR sweeps, poses and a map."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.motion.crop import Sweep, crop
from regrow.motion.formats.argoverse_map import read_map
from regrow.motion.formats.columns import read_columns
from regrow.motion.formats.tfrecord import Skipped
from regrow.motion.scene import KINDS, STATE, Scene, plausible
from regrow.reading import UnreadableError, check_size, decoding

__all__ = ["SensorLog", "read_log"]

Array = npt.NDArray[Any]

_VEHICLES = (
    *("ARTICULATED_BUS", "BOX_TRUCK", "BUS", "EGO_VEHICLE", "LARGE_VEHICLE", "RAILED_VEHICLE"),
    *("REGULAR_VEHICLE", "SCHOOL_BUS", "TRUCK", "TRUCK_CAB", "VEHICULAR_TRAILER"),
)
_KINDS = {
    **dict.fromkeys(_VEHICLES, "vehicle"),
    **dict.fromkeys(("PEDESTRIAN", "OFFICIAL_SIGNALER"), "pedestrian"),
    **dict.fromkeys(("BICYCLIST", "MOTORCYCLIST", "WHEELED_RIDER"), "cyclist"),
}
_EGO = "EGO_VEHICLE"
_EGO_SIZE = (4.877, 2.0, 1.473)  # of the box that some logs have of the vehicle itself
_SENSOR = np.array([1.35, 0.0, 1.64])  # the LiDARs on the roof, between the two
_POSE = ("timestamp_ns", "qw", "qx", "qy", "qz", "tx_m", "ty_m", "tz_m")
_BOX = (*_POSE, "track_uuid", "category", "length_m", "width_m", "height_m")


@dataclass(frozen=True)
class SensorLog:
    """A log: boxes of all agents in the city, and where its sweeps are.

    Args:
        name: of the log.
        stamps: int, (steps,): nanoseconds.
        ids: int, (agents,): the first 15 hexadecimal digits of their UUIDs; of the vehicle that
            carries the sensors: -1.
        kinds: int, (agents,): places in ``KINDS``.
        states: float, (agents, steps, 9): in the city; velocities are left at 0.
        valid: bool, (agents, steps).
        poses: float, (steps, 4, 4): of the vehicle in the city.
        lines: points, lengths and kinds of map lines.
        sweeps: the file of each step's sweep; None: there is none.
    """

    name: str
    stamps: Array
    ids: Array
    kinds: Array
    states: Array
    valid: Array
    poses: Array
    lines: tuple[Array, Array, Array]
    sweeps: tuple[Path | None, ...]

    def sweep(self, step: int) -> Sweep | None:
        """Read the sweep of a step; None: there is none.

        Raises:
            UnreadableError: it is damaged.
        """
        path = self.sweeps[step]
        if path is None:
            return None
        columns = read_columns(path, ("x", "y", "z", "intensity"))
        places = np.stack([columns[axis].astype(float) for axis in "xyz"], axis=1)
        distance = np.linalg.norm(places - _SENSOR, axis=1)
        brightness = columns["intensity"].astype(float) / 255
        rest = np.stack([distance, brightness, np.zeros(len(places))], axis=1)
        return Sweep(np.concatenate([places, rest], axis=1), self.poses[step], _SENSOR)

    def scene(
        self,
        now: int,
        *,
        past: int = 10,
        future: int = 80,
        reach: float = 60.0,
        most: int | None = None,
        skipped: Skipped | None = None,
    ) -> Scene:
        """Return some seconds of the log as a scene, with LiDAR where the log has sweeps.

        Targets are the vehicles, pedestrians and cyclists near the sensors that are seen now and at
        the end. Velocities, which the data set does not have, are differences to the state before,
        so that none tells of the future; the first state seen has that of the next, if it is seen,
        too.

        Args:
            now: the present step.
            past: steps before it.
            future: steps after it.
            reach: metres from the sensors within which agents are targets.
            most: LiDAR points of a target in a frame to keep; None: all.
            skipped: told of each damaged sweep, which then counts as absent; None: the first one is
                an error.

        Raises:
            ValueError: the log has not these steps.
            UnreadableError: a sweep is damaged.

        Source: Argoverse 2, arXiv 2301.00493. Where we differ: intensity is divided by 255, and
        elongation, which there is none of, is 0.
        """
        steps = len(self.stamps)
        if past < 0 or future < 0 or now - past < 0 or now + future >= steps:
            raise ValueError(
                f"log {self.name}: now={now}, past={past}, future={future}; all must be within its "
                f"{steps} steps"
            )
        window = slice(now - past, now + future + 1)
        valid = self.valid[:, window]
        there = valid[:, : past + 1].any(1) | valid[:, past]
        valid, times = valid[there], (self.stamps[window] - self.stamps[window][0]) * 1e-9
        states = self.states[there, window].copy()
        states[..., 7:9] = _velocities(states, valid, times, past)
        kinds, ego = self.kinds[there], int(np.flatnonzero(self.ids[there] == -1)[0])
        distance = np.hypot(*(states[:, past, :2] - states[ego, past, :2]).T)
        wanted = valid[:, past] & valid[:, -1] & (kinds > 0) & (distance <= reach)
        wanted[ego] = False
        scene = Scene(
            name=f"{self.name}-{now}",
            times=times,
            now=past,
            ids=self.ids[there],
            kinds=kinds,
            states=np.where(valid[..., None], states, 0.0),
            valid=valid,
            targets=np.flatnonzero(wanted),
            ego=ego,
            line_points=self.lines[0],
            line_lengths=self.lines[1],
            line_kinds=self.lines[2],
        )
        sweeps = [self._sweep(step, skipped) for step in range(now - past, now + 1)]
        return replace(scene, points=crop(sweeps, scene, most=most))

    def _sweep(self, step: int, skipped: Skipped | None) -> Sweep | None:
        try:
            return self.sweep(step)
        except UnreadableError as error:
            if skipped is None:
                raise
            skipped(error)
            return None

    def presents(self, *, past: int = 10, future: int = 80, every: int = 10) -> range:
        """Return the present steps of scenes that cover the log.

        Args:
            past: steps before each.
            future: steps after each.
            every: steps from one to the next.

        Raises:
            ValueError: ``every`` is below 1.
        """
        if every < 1:
            raise ValueError(f"every={every}: must be at least 1")
        return range(past, len(self.stamps) - future, every)


def read_log(folder: Path) -> SensorLog:
    """Read a sensor log, but for its sweeps.

    Args:
        folder: of the log, with ``annotations.feather``, ``city_SE3_egovehicle.feather``, ``map``
            and, where there is LiDAR, ``sensors/lidar``.

    Raises:
        FileNotFoundError: a file is missing.
        ImportError: pyarrow is missing.
        UnreadableError: a file is damaged.
    """
    boxes_path = _first(folder, "annotations.feather", "annotations_with_ego.feather")
    poses_path = _first(folder, "city_SE3_egovehicle.feather")
    map_path = _first(folder, "map/log_map_archive_*.json")
    boxes, poses = read_columns(boxes_path, _BOX), read_columns(poses_path, _POSE)
    with decoding(boxes_path):
        stamps = np.unique(boxes["timestamp_ns"])
        agents = len(np.unique(boxes["track_uuid"])) + 1
        check_size(boxes_path, agents * len(stamps) * len(STATE) * 8, boxes_path.stat().st_size)
        own = _poses_at(poses, stamps)
        ids, kinds, states, valid = _boxes(boxes, stamps, own)
    lidar = {int(path.stem): path for path in folder.glob("sensors/lidar/*.feather")}
    return SensorLog(
        name=folder.name,
        stamps=stamps,
        ids=ids,
        kinds=kinds,
        states=states,
        valid=valid,
        poses=own,
        lines=read_map(map_path),
        sweeps=tuple(lidar.get(int(stamp)) for stamp in stamps),
    )


def _first(folder: Path, *patterns: str) -> Path:
    for pattern in patterns:
        if found := sorted(folder.glob(pattern)):
            return found[0]
    raise FileNotFoundError(f"{folder}: has no {patterns[0]}: give the folder of a sensor log")


def _poses_at(columns: dict[str, Array], stamps: Array) -> Array:
    """Return the poses at some time stamps, which must be among those that there are."""
    order = np.argsort(columns["timestamp_ns"])
    place = np.searchsorted(columns["timestamp_ns"][order], stamps)
    row = order[np.minimum(place, len(order) - 1)]
    if (lost := columns["timestamp_ns"][row] != stamps).any():
        raise ValueError(f"there is no pose of the vehicle at {stamps[lost][0]}")
    poses = np.tile(np.eye(4), (len(stamps), 1, 1))
    poses[:, :3, :3] = _turns(*(columns[name][row] for name in ("qw", "qx", "qy", "qz")))
    poses[:, :3, 3] = np.stack([columns[name][row] for name in ("tx_m", "ty_m", "tz_m")], axis=1)
    if not plausible(poses).all():
        raise ValueError("a pose of the vehicle is nowhere on Earth")
    return poses


def _turns(w: Array, x: Array, y: Array, z: Array) -> Array:
    """Return rotations, (n, 3, 3), of unit quaternions."""
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def _boxes(boxes: dict[str, Array], stamps: Array, poses: Array) -> tuple[Array, ...]:
    """Return ids, kinds, states and validity of all agents, the vehicle with the sensors first."""
    other = boxes["category"] != _EGO
    boxes = {name: column[other] for name, column in boxes.items()}
    uuids, first, agent = np.unique(boxes["track_uuid"], return_index=True, return_inverse=True)
    step = np.searchsorted(stamps, boxes["timestamp_ns"])
    states = np.zeros((len(uuids) + 1, len(stamps), len(STATE)))
    valid = np.zeros((len(uuids) + 1, len(stamps)), bool)
    yaws = np.arctan2(poses[:, 1, 0], poses[:, 0, 0])
    states[0, :, :3], states[0, :, 3:6], states[0, :, 6] = poses[:, :3, 3], _EGO_SIZE, yaws
    valid[0] = True
    place = np.stack([boxes[name] for name in ("tx_m", "ty_m", "tz_m")], axis=1)
    pose = poses[step]
    centre = np.einsum("nij,nj->ni", pose[:, :3, :3], place) + pose[:, :3, 3]
    turn = _turns(*(boxes[name] for name in ("qw", "qx", "qy", "qz")))
    heading = np.arctan2(turn[:, 1, 0], turn[:, 0, 0]) + yaws[step]
    sizes = np.stack([boxes[name] for name in ("length_m", "width_m", "height_m")], axis=1)
    heading = (heading + np.pi) % (2 * np.pi) - np.pi
    rows = np.concatenate([centre, sizes, heading[:, None], np.zeros((len(step), 2))], axis=1)
    good = plausible(rows)
    states[agent[good] + 1, step[good]] = rows[good]
    valid[agent[good] + 1, step[good]] = True
    ids = np.array([-1, *(int(uuid.replace("-", "")[:15], 16) for uuid in uuids)])
    kinds = [KINDS.index(_KINDS.get(name, "other")) for name in boxes["category"][first]]
    return ids, np.array([KINDS.index("vehicle"), *kinds]), states, valid


def _velocities(states: Array, valid: Array, times: Array, now: int) -> Array:
    """Return velocities, (agents, steps, 2), from the state before, or between the first two."""
    found = np.zeros((*valid.shape, 2))
    found[:, 1:] = np.diff(states[..., :2], axis=1) / np.diff(times)[:, None]
    known = np.zeros_like(valid)
    known[:, 1:] = valid[:, 1:] & valid[:, :-1]
    after = np.zeros_like(valid)
    after[:, :now] = known[:, 1 : now + 1] & ~known[:, :now]
    found[~known] = 0.0
    found[after] = np.roll(found, -1, axis=1)[after]
    return found
