"""Made-up scenes as a data set: made when they are asked for, or kept in a folder."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from regrow.engine.checks import check_integer
from regrow.motion.datasets import CachedScenes, LazyScenes
from regrow.motion.scene import Scene
from regrow.motion.shards import SUFFIX, remove_leftovers, whole, write_shard
from regrow.motion.simulator.simulate import simulate
from regrow.motion.simulator.world import Truth, World

__all__ = ["Lot", "Simulated", "make_lots", "make_scenes", "story_of", "truths_of"]

_FORM = 1  # raised when the scene of a seed changes
_SHARD = 100  # scenes in a file
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Simulated(LazyScenes):
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
        super().__init__(count)
        self.world, self.first = world or World(), first

    def made(self, place: int) -> Scene:
        """Make the scene of a place."""
        return simulate(self.first + place, self.world)[0]

    def truths(self, index: int) -> tuple[Truth, ...]:
        """Return what was drawn for each target of a scene."""
        return simulate(self.first + range(self._count)[index], self.world)[1]


@dataclass(frozen=True)
class Lot:
    """Scenes that are kept in one folder.

    Args:
        folder: for the scenes; made if it is not there.
        count: how many.
        world: what they are made of.
        first: the seed of the first; the next has the next seed.

    Raises:
        ValueError: a number is out of range.
    """

    folder: Path
    count: int
    world: World = World()  # noqa: RUF009 (it is frozen)
    first: int = 0

    def __post_init__(self) -> None:
        for name, least in (("count", 1), ("first", 0)):
            if check_integer(value := getattr(self, name), name) < least:
                raise ValueError(f"{name}={value}: must be {least} or more")


def make_scenes(
    folder: Path,
    count: int,
    world: World | None = None,
    *,
    first: int = 0,
    jobs: int = 1,
    told: Callable[[str], object] = str,
) -> CachedScenes:
    """Make scenes and keep them in a folder, packed, in several processes.

    Files that are there stay: the same call goes on where it was cut off.

    Args:
        folder: for the scenes; made if it is not there.
        count: how many scenes.
        world: what they are made of.
        first: the seed of the first; the next has the next seed.
        jobs: processes.
        told: called with the name of each file, as soon as it is there.

    Returns:
        The scenes, in the order of their seeds.

    Raises:
        ValueError: other scenes are in the folder, or an argument is out of range.
    """
    make_lots([Lot(folder, count, world or World(), first)], jobs=jobs, told=told)
    return CachedScenes(folder)


def make_lots(lots: Sequence[Lot], *, jobs: int = 1, told: Callable[[str], object] = str) -> None:
    """Make several lots of scenes, in processes that are started once for all of them.

    Args:
        lots: what is wanted; files that are there stay.
        jobs: processes.
        told: called with the name of each file, as soon as it is there.

    Raises:
        ValueError: other scenes are in a folder, or jobs is below 1.
    """
    if check_integer(jobs, "jobs") < 1:
        raise ValueError(f"jobs={jobs}: must be 1 or more")
    missing = []
    for lot in lots:
        tasks = list(_tasks(lot))
        _check_alone(lot.folder, {path for path, _, _ in tasks})
        missing += [task for task in tasks if not _is_there(*task)]
        remove_leftovers(lot.folder)
    if jobs == 1 or len(missing) <= 1:
        for task in missing:
            told(_make(*task))
        return
    workers = min(jobs, len(missing))
    with _one_thread(), ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for name in pool.map(_make, *zip(*missing, strict=True)):
            told(name)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Let processes that are started compute with one thread each: there is one for each core."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def truths_of(scenes: CachedScenes) -> list[tuple[Truth, ...]]:
    """Return what was drawn for the targets of each scene that :func:`make_scenes` kept.

    Args:
        scenes: of made-up scenes.

    Raises:
        ValueError: they are others.
    """
    found = []
    for shard in scenes.shards:
        if "truths" not in shard.about:
            raise ValueError(
                f"{shard.path}: its scenes are not made up: nothing was drawn for them"
            )
        found += [tuple(Truth(*row) for row in rows) for rows in shard.about["truths"]]
    return found


def story_of(truth: Truth) -> str:
    """Return the story of a target, and what tells how it goes on: the map, a cue, or nothing.

    Example:
        >>> [story_of(Truth("ride", 0, 2, ways)) for ways in (1, 3)]
        ['ride, map', 'ride, cue']
        >>> story_of(Truth("drive", 0, -1, 3))
        'drive, nothing'
    """
    if truth.ways == 1:
        return f"{truth.story}, map"
    return f"{truth.story}, {'cue' if truth.cue >= 0 else 'nothing'}"


Task = tuple[Path, range, World]


def _tasks(lot: Lot) -> Iterator[Task]:
    for start in range(0, lot.count, _SHARD):
        seeds = range(lot.first + start, lot.first + min(start + _SHARD, lot.count))
        yield lot.folder / f"simulated-{start // _SHARD:05}{SUFFIX}", seeds, lot.world


def _about(seeds: range, world: World) -> dict[str, Any]:
    told = {"form": _FORM, "world": dataclasses.asdict(world), "seeds": [seeds[0], seeds[-1]]}
    back: dict[str, Any] = json.loads(json.dumps(told))
    return back


def _is_there(path: Path, seeds: range, world: World) -> bool:
    before = whole(path)
    if before is None:
        return False
    if any(before.about.get(key) != value for key, value in _about(seeds, world).items()):
        raise ValueError(
            f"{path}: holds scenes of another world, number or seed; name another folder"
        )
    return True


def _check_alone(folder: Path, own: set[Path]) -> None:
    others = sorted(set(folder.rglob(f"*{SUFFIX}")) - own) if folder.is_dir() else []
    if others:
        raise ValueError(f"{others[0]}: is none of the scenes to be made; name another folder")


def _make(path: Path, seeds: range, world: World) -> str:
    truths: list[list[tuple[Any, ...]]] = []
    about = {**_about(seeds, world), "truths": truths}

    def scenes() -> Iterator[Scene]:
        for seed in seeds:
            scene, drawn = simulate(seed, world)
            truths.append([dataclasses.astuple(truth) for truth in drawn])
            yield scene

    write_shard(path, scenes(), about)
    return path.name
