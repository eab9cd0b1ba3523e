"""Reads tracks of pedestrians from above: ETH and UCY, as text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.motion.scene import KINDS, STATE, Scene, plausible
from regrow.reading import check_size, decoding, read_file

__all__ = ["SECONDS", "SIZE", "read_pedestrians"]

Array = npt.NDArray[Any]

SECONDS = 0.4
"""Between two annotated frames."""
SIZE = (0.5, 0.5, 1.75)
"""Length, width and height of all pedestrians in metres; the data sets have none."""

# Columns of frame, person, x and y, by the number of columns: the text files of Social-STGCNN and
# Trajectron++, and obsmat.txt. Its velocities are not read, nor is the gaze in annotation.vsp: it
# is the direction to the next annotated point, which is to be predicted.
_LAYOUTS = {4: (0, 1, 2, 3), 8: (0, 1, 2, 4)}


def read_pedestrians(
    path: Path, *, past: int = 7, future: int = 12, every: int = 1
) -> Iterator[Scene]:
    """Give scenes of a recording: 3.2 s seen and 4.8 s to predict, as is usual.

    Targets are the people who are there at all steps. Headings and velocities are differences to
    the position before, so that none tells of the future; who stands keeps the heading. There is no
    map.

    Args:
        path: a text file with lines of frame, person, x and y, or ``obsmat.txt``.
        past: steps before the present one.
        future: steps after it.
        every: steps from one scene's present to the next one's.

    Yields:
        Scenes that have a target.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableError: it is damaged.
        ValueError: past, future or every is too small.

    Source: Pellegrini et al. 2009 (ETH); Lerner et al. 2007 (UCY); split of a scene: Alahi et al.
    2016 (Social LSTM).
    """
    for name, value, least in (("past", past, 1), ("future", future, 1), ("every", every, 1)):
        if value < least:
            raise ValueError(f"{name}={value}: must be at least {least}")
    content = read_file(path)
    with decoding(path):
        people, places, known = _tracks(content, path)
        velocities = _velocities(places, known)
        headings = _headings(velocities, known)
    length = past + 1 + future
    for start in range(0, places.shape[1] - length + 1, every):
        window = slice(start, start + length)
        there = known[:, window].any(1)
        valid = known[there, window]
        targets = np.flatnonzero(valid.all(1))
        if not len(targets):
            continue
        states = np.zeros((*valid.shape, len(STATE)))
        states[..., :2], states[..., 2] = places[there, window], SIZE[2] / 2
        states[..., 3:6], states[..., 6] = SIZE, headings[there, window]
        states[..., 7:] = velocities[there, window]
        yield Scene(
            name=f"{path.parent.name}-{path.stem}-{start + past}",
            times=np.arange(length) * SECONDS,
            now=past,
            ids=people[there],
            kinds=np.full(len(valid), KINDS.index("pedestrian")),
            states=np.where(valid[..., None], states, 0.0),
            valid=valid,
            targets=targets,
        )


def _tracks(content: bytes, path: Path) -> tuple[Array, Array, npt.NDArray[np.bool_]]:
    """Return people, their places, (people, steps, 2), and where these are known."""
    lines = [line.replace(",", " ").split() for line in content.decode().splitlines()]
    table = np.array([[float(cell) for cell in line] for line in lines if line])
    if table.ndim != 2 or table.shape[1] not in _LAYOUTS:
        raise ValueError(f"is a table of shape {table.shape}; must have 4 or 8 columns")
    frame, person, x, y = (table[:, column] for column in _LAYOUTS[table.shape[1]])
    if not plausible(np.stack([frame, person, x, y], axis=1)).all():
        raise ValueError("a number is not finite, or beyond 10,000,000")
    frames = np.unique(frame)
    gaps = np.diff(frames)
    between = float(np.median(gaps)) if len(gaps) else 1.0
    if (steps := (frames[-1] - frames[0]) / max(between, 1e-9)) > 100 * len(frames):
        raise ValueError(f"frames go to {frames[-1]:g}, in steps of {between:g}")
    step = np.round((frame - frames[0]) / between).astype(np.int64)
    people, own = np.unique(person, return_inverse=True)
    check_size(path, len(people) * int(steps + 2) * 32, len(content))
    places = np.zeros((len(people), int(step.max()) + 1, 2))
    known = np.zeros(places.shape[:2], bool)
    places[own, step], known[own, step] = np.stack([x, y], axis=1), True
    return people.astype(np.int64), places, known


def _velocities(places: Array, known: Array) -> Array:
    """Return differences to the step before, metres a second; 0 where that is not known."""
    found = np.zeros_like(places)
    both = known[:, 1:] & known[:, :-1]
    found[:, 1:][both] = (np.diff(places, axis=1) / SECONDS)[both]
    return found


def _headings(velocities: Array, known: Array) -> Array:
    """Return headings by velocity; who stands keeps the last one, at first 0."""
    found = np.zeros(known.shape)
    moving = np.hypot(velocities[..., 0], velocities[..., 1]) > 0.1
    angle = np.arctan2(velocities[..., 1], velocities[..., 0])
    for step in range(known.shape[1]):
        before = found[:, max(step - 1, 0)]
        found[:, step] = np.where(moving[:, step], angle[:, step], before)
    return found
