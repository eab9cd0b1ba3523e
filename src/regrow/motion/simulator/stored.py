"""Made-up scenes as a data set: made when they are asked for, or kept in a folder."""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from regrow.engine.checks import check_integer
from regrow.machine import needed
from regrow.motion.scene import Points, Scene
from regrow.motion.simulator.simulate import simulate
from regrow.motion.simulator.world import Truth, World
from regrow.reading import damaged, decoding, open_file, read_file

__all__ = ["Simulated", "Stored", "make_scenes", "story_of"]

Array = npt.NDArray[Any]

_FORM = 1  # raised when scenes of a seed change, or their files
_TOLD = "world.json"
_SHARD = 100  # scenes in a file


class Simulated(Sequence[Scene]):
    """Scenes of consecutive seeds, each made when it is asked for.

    Args:
        count: how many.
        world: what they are made of.
        first: the seed of the first.

    Example:
        >>> scenes = Simulated(1000, first=5000)
        >>> len(scenes), scenes[-1].name
        (1000, 'simulated-5999')
    """

    def __init__(self, count: int, world: World | None = None, *, first: int = 0) -> None:
        for name, value in (("count", count), ("first", first)):
            if check_integer(value, name) < 0:
                raise ValueError(f"{name}={value}: must be 0 or more")
        self._count, self.world, self.first = count, world or World(), first

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Scene: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Scene]: ...

    def __getitem__(self, index: int | slice) -> Scene | Sequence[Scene]:
        if isinstance(index, slice):
            return [self[i] for i in range(self._count)[index]]
        return simulate(self.first + range(self._count)[index], self.world)[0]

    def truths(self, index: int) -> tuple[Truth, ...]:
        """Return what was drawn for each target of a scene."""
        return simulate(self.first + range(self._count)[index], self.world)[1]


class Stored(Sequence[Scene]):
    """Scenes kept in a folder by :func:`make_scenes`, each read when it is asked for.

    Args:
        folder: that they are in.

    Raises:
        FileNotFoundError: there are no such scenes.
        ValueError: not all are there, or what tells of them is damaged.
    """

    def __init__(self, folder: Path) -> None:
        told = _told(folder)
        if told is None:
            raise FileNotFoundError(f"{folder}: no {_TOLD} in it. Give a folder of made-up scenes")
        with decoding(folder / _TOLD):
            self.folder, self._count, self._shard = folder, int(told["count"]), int(told["shard"])
        missing = [
            path.name for path in _paths(folder, self._count, self._shard) if not path.exists()
        ]
        if missing:
            raise ValueError(
                f"{folder}: {missing[0]} and {len(missing) - 1} more are missing; make the scenes "
                "again with the same arguments, which makes those only"
            )

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Scene: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Scene]: ...

    def __getitem__(self, index: int | slice) -> Scene | Sequence[Scene]:
        if isinstance(index, slice):
            return [self[i] for i in range(self._count)[index]]
        arrays = self._arrays(index)
        points = {f.name: arrays.pop(f"points_{f.name}") for f in dataclasses.fields(Points)}
        arrays.pop("truths")
        name = str(arrays.pop("name"))
        with decoding(self.folder):
            return Scene(name=name, now=10, ego=0, points=Points(**points), **arrays)

    def truths(self, index: int) -> tuple[Truth, ...]:
        """Return what was drawn for each target of a scene."""
        rows = self._arrays(index)["truths"].tolist()
        return tuple(Truth(_STORIES[story], *rest) for story, *rest in rows)

    def _arrays(self, index: int) -> dict[str, Array]:
        shard, place = divmod(range(self._count)[index], self._shard)
        path = _paths(self.folder, self._count, self._shard)[shard]
        with decoding(path), open_file(path) as raw, np.load(raw, allow_pickle=False) as file:
            start = f"{place}/"
            found = {name[len(start) :]: file[name] for name in file if name.startswith(start)}
        if "truths" not in found:
            raise damaged(path, f"scene {place} is not in it")
        return found


def make_scenes(
    folder: Path,
    count: int,
    world: World | None = None,
    *,
    first: int = 0,
    jobs: int = 1,
    tell: Callable[[str], object] = str,
) -> Stored:
    """Make scenes and keep them in a folder, in several processes; files that are there stay.

    Args:
        folder: for the scenes; made if it is not there.
        count: how many scenes.
        world: what they are made of.
        first: the seed of the first; the next has the next seed.
        jobs: processes.
        tell: called with the name of each file, as soon as it is there.

    Returns:
        The scenes.

    Raises:
        ValueError: other scenes are in the folder, or an argument is out of range.
    """
    for name, value, least in (("count", count, 1), ("first", first, 0), ("jobs", jobs, 1)):
        if check_integer(value, name) < least:
            raise ValueError(f"{name}={value}: must be {least} or more")
    world = world or World()
    told = {
        "form": _FORM,
        "count": count,
        "shard": _SHARD,
        "first": first,
        "world": dataclasses.asdict(world),
    }
    there = _told(folder)
    if there is not None and there != json.loads(json.dumps(told)):
        raise ValueError(f"{folder}: holds scenes of another world, number or seed; name another")
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / _TOLD, lambda part: part.write_text(json.dumps(told, indent=1)))
    paths = _paths(folder, count, _SHARD)
    seeds = [
        range(first + i * _SHARD, first + min(count, (i + 1) * _SHARD)) for i in range(len(paths))
    ]
    missing = [(path, run) for path, run in zip(paths, seeds, strict=True) if not path.exists()]
    if missing:
        with needed("joblib", "motion"):
            from joblib import Parallel, delayed  # noqa: PLC0415 (an extra)
        calls = (delayed(_make)(path, run, world) for path, run in missing)
        for name in Parallel(jobs, return_as="generator_unordered")(calls):
            tell(name)
    return Stored(folder)


def story_of(truth: Truth) -> str:
    """Return the story of a target, and whether only its body tells what will come.

    Example:
        >>> story_of(Truth("ride", 0, 2, 3)), story_of(Truth("ride", 0, 2, 1))
        ('ride, cue', 'ride, map')
    """
    return f"{truth.story}, {'cue' if truth.ways > 1 else 'map'}"


_STORIES = ("stand", "walk", "ride", "drive")


def _paths(folder: Path, count: int, shard: int) -> list[Path]:
    return [folder / f"scenes-{i:05d}.npz" for i in range(-(-count // shard))]


def _told(folder: Path) -> dict[str, Any] | None:
    path = folder / _TOLD
    if not path.is_file():
        return None
    with decoding(path):
        told = json.loads(read_file(path))
        if not isinstance(told, dict):
            raise ValueError("it is no object")
    return told


def _make(path: Path, seeds: range, world: World) -> str:
    arrays: dict[str, Array] = {}
    for place, seed in enumerate(seeds):
        scene, truths = simulate(seed, world)
        rows = [(_STORIES.index(t.story), t.intent, t.cue, t.ways) for t in truths]
        found = scene.arrays() | {"truths": np.array(rows), "name": np.array(scene.name)}
        arrays |= {f"{place}/{name}": array for name, array in found.items()}
    _write(path, lambda part: np.savez(part, allow_pickle=False, **arrays))
    return path.name


def _write(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file that is there whole, or not at all."""
    part = path.with_name(f".{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        write(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
