"""Real tracks of people on foot with made-up bodies: head and body follow the course."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from regrow.engine.checks import check_integer
from regrow.motion.scene import KINDS, Scene
from regrow.motion.simulator.bodies import pedestrian
from regrow.motion.simulator.draws import Purpose, draws
from regrow.motion.simulator.rays import Body
from regrow.motion.simulator.scan import scan
from regrow.motion.simulator.sensor import Sensor
from regrow.motion.simulator.stories import grounded, walked_until
from regrow.reading import damaged, read_file

__all__ = ["Crowd", "read_tracks"]

Array = npt.NDArray[Any]

_SECONDS = 0.4 / 10  # a frame of the files, which give every tenth
_PAST, _FUTURE, _STEP = 10, 80, 0.1
_SIZE = (0.9, 0.85, 1.75)
_STANDS = 0.1  # metres a second: who is slower keeps the course that he or she had
_HEAD_NOISE = np.radians(20)


def read_tracks(path: Path) -> dict[int, Array]:
    """Read tracks of people as ETH and UCY are handed on.

    A line is frame, person, x, y, apart by blanks; or, as in ``obsmat.txt``, frame, person, x, z,
    y and three velocities. Frames count 25 a second; x and y are metres.

    Args:
        path: the file.

    Returns:
        For each person, by number: seconds, x, y, (points, 3), in order of time.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableError: a line is no such line; the message says which.
    """
    rows: dict[int, list[tuple[float, float, float]]] = {}
    for number, line in enumerate(read_file(path).decode("utf-8", "replace").splitlines(), 1):
        if not (words := line.split()):
            continue
        try:
            values = [float(word) for word in words]
        except ValueError:
            raise damaged(path, f"line {number}: {line[:60]!r} holds no numbers") from None
        if len(values) not in (4, 8) or not np.isfinite(values).all():
            raise damaged(
                path, f"line {number}: {line[:60]!r} is not frame, person, x, y, nor 8 numbers"
            )
        x, y = values[2], values[3 if len(values) == 4 else 4]
        rows.setdefault(int(values[1]), []).append((values[0] * _SECONDS, x, y))
    if not rows:
        raise damaged(path, "it holds no tracks")
    tracks = {person: np.array(sorted(points)) for person, points in sorted(rows.items())}
    for person, points in tracks.items():
        if (np.diff(points[:, 0]) <= 0).any():
            raise damaged(path, f"person {person} is in two places in one frame")
    return tracks


class Crowd(Sequence[Scene]):
    """Scenes of a crowd on foot: windows of real tracks, bodies made up, seen by a LiDAR.

    Between the points of a file, 0.4 seconds apart, people walk straight; now is always at such a
    point, so that no state up to now knows of the next. The body faces where the person has come
    from that point on, the head too but for noise: nothing is claimed of real gaze, and nothing in
    the LiDAR tells more than the track, which makes these scenes a control.

    Args:
        path: a file of tracks, see :func:`read_tracks`.
        seed: of heads, of body heights, of the sensor's place and noise.
        every: seconds between the starts of windows, a multiple of 0.4.
        near: metres from the sensor to the middle of the crowd, at least.
        far: metres from the sensor to the middle of the crowd, at most.
        sensor: the LiDAR, at rest.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableError: the file is damaged.
        ValueError: an argument is out of its bounds, or no window holds anyone to predict.
    """

    def __init__(
        self,
        path: Path,
        *,
        seed: int = 0,
        every: float = 2.0,
        near: float = 8.0,
        far: float = 30.0,
        sensor: Sensor | None = None,
    ) -> None:
        if check_integer(seed, "seed") < 0:
            raise ValueError(f"seed={seed}: must be 0 or more")
        if not (every > 0 and abs(every / 0.4 - round(every / 0.4)) < 1e-6):
            raise ValueError(f"every={every}: must be a multiple of 0.4 seconds, such as 2.0")
        if not 0 < near <= far < np.inf:
            raise ValueError(f"near={near}, far={far}: must be above 0, and near at most far")
        self.path, self.seed, self.near, self.far = path, seed, near, far
        self.sensor, self._tracks = sensor or Sensor(), read_tracks(path)
        first = min(points[0, 0] for points in self._tracks.values()) + 1.2
        last = max(points[-1, 0] for points in self._tracks.values())
        nows = np.arange(first, last, every)
        self._nows = [now for now in nows if any(_predicted(t, now) for t in self._tracks.values())]
        if not self._nows:
            raise ValueError(f"{path}: nobody is there for a second and moves on after it")

    def __len__(self) -> int:
        return len(self._nows)

    @overload
    def __getitem__(self, index: int) -> Scene: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Scene]: ...

    def __getitem__(self, index: int | slice) -> Scene | Sequence[Scene]:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        return self._scene(range(len(self))[index])

    def _scene(self, index: int) -> Scene:
        now = self._nows[index]
        times = now + np.arange(-_PAST, _FUTURE + 1) * _STEP
        people = [p for p, t in self._tracks.items() if _there(t, times).any()]
        tracks = [self._tracks[p] for p in people]
        valid = np.stack([_there(track, times) for track in tracks])
        own = [draws(self.seed, index * 100_000 + p, Purpose.BODY) for p in people]
        acted = [
            _act(track, times, there, draw)
            for track, there, draw in zip(tracks, valid, own, strict=True)
        ]
        states = np.stack([each[0] for each in acted])
        bodies = [each[1] for each in acted]
        targets = np.flatnonzero([_predicted(track, now) for track in tracks])
        seen = slice(_PAST + 1)
        draw = draws(self.seed, index, Purpose.LAYOUT)
        middle = states[targets, _PAST, :2].mean(0)
        place = middle + _away(draw.uniform(-np.pi, np.pi), draw.uniform(self.near, self.far))
        points = scan(
            self.sensor,
            bodies,
            states[:, seen],
            valid[:, seen],
            targets,
            np.tile(place, (_PAST + 1, 1)),
            np.zeros(_PAST + 1),
            lambda target: draws(self.seed, index * 100_000 + people[target], Purpose.RAYS),
        )
        return Scene(
            name=f"{self.path.stem}-{now:.1f}",
            times=(times - times[0]).round(9),
            now=_PAST,
            ids=np.array(people),
            kinds=np.full(len(people), KINDS.index("pedestrian")),
            states=states,
            valid=valid,
            targets=targets,
            points=points,
        )


def _there(track: Array, times: Array) -> Array:
    """Return when a person is there; who is lost for over a second is not."""
    after = np.searchsorted(track[:, 0], times - 1e-6).clip(1, len(track) - 1)
    gap = track[after, 0] - track[after - 1, 0] if len(track) > 1 else np.full(len(times), np.inf)
    within = (times >= track[0, 0] - 1e-6) & (times <= track[-1, 0] + 1e-6)
    return np.asarray(within & (gap <= 1.0))


def _predicted(track: Array, now: float) -> bool:
    """Tell whether a person is there for the second up to now, and for one after it."""
    return bool(_there(track, now + np.arange(-_PAST, 11) * _STEP).all())


def _act(track: Array, times: Array, valid: Array, draw: np.random.Generator) -> tuple[Array, Body]:
    """Return the states of a person, and the body up to now."""
    places = np.stack([np.interp(times, track[:, 0], track[:, i]) for i in (1, 2)], 1)
    before = np.stack([np.interp(times - _STEP, track[:, 0], track[:, i]) for i in (1, 2)], 1)
    speeds = (places - before) / _STEP
    course = _course(speeds, float(draw.uniform(-np.pi, np.pi)))
    scale = float(np.clip(draw.normal(1, 0.05), 0.85, 1.15))
    size = np.array(_SIZE) * (1, 1, scale)
    states = np.zeros((len(times), 9))
    states[:, :2], states[:, 2], states[:, 3:6] = places, size[2] / 2, size
    states[:, 6], states[:, 7:] = course, speeds
    states[~valid] = 0
    past = slice(_PAST + 1)
    head = course[past] + draw.normal(0, _HEAD_NOISE)
    walked = draw.uniform(0, 2) + walked_until(places[past])
    return states, pedestrian(grounded(places[past]), course[past], head, walked, scale)


def _course(speeds: Array, first: float) -> Array:
    """Return where a person heads; who stands heads where he or she last went."""
    course, last = np.zeros(len(speeds)), first
    for step, speed in enumerate(speeds):
        if np.hypot(*speed) > _STANDS:
            last = float(np.arctan2(speed[1], speed[0]))
        course[step] = last
    return course


def _away(angle: float, metres: float) -> Array:
    return metres * np.array([np.cos(angle), np.sin(angle)])
