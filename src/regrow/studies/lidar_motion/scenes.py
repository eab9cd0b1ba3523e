"""The scenes of the study: made up once and kept, or real tracks with made-up bodies."""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from regrow.data.places import Places
from regrow.machine import cache_folder, expanded, needed
from regrow.motion.datasets import CachedScenes, LazyScenes
from regrow.motion.formats.pedestrians import read_pedestrians
from regrow.motion.scene import Scene
from regrow.motion.simulator import World
from regrow.motion.simulator.controls import with_points_of, without_points
from regrow.motion.simulator.embody import embody
from regrow.motion.simulator.stored import Lot, make_lots

__all__ = [
    "CROWDS",
    "Changed",
    "Control",
    "alike",
    "cached_scenes",
    "check_once",
    "crowd_scenes",
    "digest_of",
    "has_lidar",
    "keep",
    "lot_of",
    "seconds_of",
    "step_of",
]

Control = Literal["none", "zeroed", "shuffled"]

CROWDS = {
    "training": ("crowds_zara02", "crowds_zara03", "students001", "uni_examples"),
    "test": ("crowds_zara01",),
}
"""Recordings of UCY that are learnt from, and the one that is tested on."""

_FEW = 500  # scenes that are made in this process
T = TypeVar("T")


class Changed(LazyScenes):
    """Some scenes of a cache, as a control wants them.

    Args:
        scenes: all of them.
        count: how many of them count, evenly spread.
        control: "none"; "zeroed": the LiDAR sees nothing; "shuffled": each road user has the
            points of one of its kind in another scene, always the same one.
    """

    def __init__(self, scenes: CachedScenes, count: int, control: Control) -> None:
        super().__init__(min(count, len(scenes)))
        self.scenes, self.control = scenes, control

    @property
    def made_up(self) -> bool:
        """Whether it is known what was drawn for these scenes."""
        return all("truths" in shard.about for shard in self.scenes.shards)

    def made(self, place: int) -> Scene:
        """Make the scene of a place."""
        scene = self._whole(place)
        if self.control == "none" or scene.points is None:
            return scene
        if self.control == "shuffled":
            # Half of the way round: never itself, where there are two scenes.
            other = self._whole((place + self._count // 2) % self._count)
            if other.points is not None:
                return with_points_of(scene, other)
        return without_points(scene)

    def names(self) -> list[str]:
        """Return the names of the scenes."""
        every = [name for shard in self.scenes.shards for name in shard.names]
        return [every[place * len(every) // self._count] for place in range(self._count)]

    def _whole(self, place: int) -> Scene:
        return self.scenes[place * len(self.scenes) // self._count]


class _Embodied(LazyScenes):
    def __init__(self, scenes: Sequence[Scene], control: Control) -> None:
        super().__init__(len(scenes))
        self.scenes, self.control = scenes, control

    def made(self, place: int) -> Scene:
        """Make the scene of a place."""
        seen = embody(self.scenes[place], seed=place)
        if self.control == "zeroed":
            return without_points(seen)
        if self.control == "shuffled":
            other = (place + self._count // 2) % self._count
            return with_points_of(seen, embody(self.scenes[other], seed=other))
        return seen


def lot_of(count: int, world: World, first: int, data_dir: str | None) -> Lot:
    """Return made-up scenes as they are kept: in a folder of their own.

    Args:
        count: how many.
        world: what they are made of.
        first: the seed of the first.
        data_dir: the folder that the folder is in; None: the user's cache.
    """
    digest = hashlib.sha256(repr((world, count, first)).encode()).hexdigest()[:12]
    root = expanded(data_dir) if data_dir else cache_folder()
    return Lot(root / "simulated-motion" / digest, count, world, first)


def keep(lots: Iterable[Lot], tell: Callable[[str], object]) -> None:
    """Make the scenes that lack of some lots, in a process a core; others wait meanwhile.

    Args:
        lots: which.
        tell: called with what is going on.

    Raises:
        RuntimeError: a script that has no ``__main__`` part would be run by each process anew.
    """
    # Without this such a process would wait for the lock, which its parent holds, for ever.
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise RuntimeError(
            "scenes are made in several processes, which import the script that was started: put "
            "what it does below: if __name__ == '__main__':"
        )
    with needed("filelock", "lab"):
        from filelock import FileLock  # noqa: PLC0415 (an extra)
    # In one order, whoever asks: two that wait for each other's would wait for ever.
    chosen = sorted(set(lots), key=lambda lot: lot.folder)
    few = sum(lot.count for lot in chosen) < _FEW
    with contextlib.ExitStack() as locks:
        for lot in chosen:
            lot.folder.parent.mkdir(parents=True, exist_ok=True)
            locks.enter_context(FileLock(lot.folder.with_suffix(".lock")))
        jobs = 1 if few else len(os.sched_getaffinity(0))
        make_lots(chosen, jobs=jobs, told=lambda name: tell(f"made {name}"))


def cached_scenes(folder: Path, most: int, control: Control) -> Changed:
    """Return scenes that ``regrow motion prepare`` wrote.

    Args:
        folder: of the cache.
        most: scenes, evenly spread.
        control: as of :class:`Changed`.

    Raises:
        FileNotFoundError: there is no file of scenes.
        ValueError: no file has a scene, or there is LiDAR to be changed, and no scene has any.
    """
    scenes = CachedScenes(folder)
    if not len(scenes):
        raise ValueError(f"{folder}: its files hold no scene; prepare a folder that has some")
    if control != "none" and not has_lidar(scenes):
        raise ValueError(f"control={control!r}: the scenes of {folder} have no LiDAR")
    return Changed(scenes, most, control)


def check_once(scenes: CachedScenes) -> None:
    """Refuse scenes to test on of which one is there twice, which would count twice.

    Raises:
        ValueError: the message names the scene and its files.
    """
    files: dict[str, Path] = {}
    for shard in scenes.shards:
        for name in shard.names:
            if name in files:
                raise ValueError(
                    f"scene {name}: is there twice, in {files[name]} and {shard.path}; each scene "
                    "to test on must be there once. Delete one of the files, or prepare the folder "
                    "without copies"
                )
            files[name] = shard.path


def has_lidar(scenes: CachedScenes) -> bool:
    """Return whether scenes of a cache have LiDAR: some, or, of files not prepared, the first."""
    return any(
        shard.about["prepared"]["lidar"] > 0
        if "prepared" in shard.about
        else shard[0].points is not None
        for shard in scenes.shards
        if len(shard)
    )


def step_of(*caches: CachedScenes) -> float:
    """Return the seconds from one step to the next of the scenes of caches.

    Args:
        caches: whose scenes are learnt from, tested on, predicted; each file's first tells.

    Raises:
        ValueError: they differ by more than a tenth.
    """
    found: dict[float, str] = {}
    for shard in (shard for cache in caches for shard in cache.shards if len(shard)):
        found.setdefault(seconds_of(shard[0]), str(shard.path))
    least, most = min(found), max(found)
    if not alike(least, most):
        raise ValueError(
            f"scenes of {found[least]} have a step each {least:g} s, those of {found[most]} each "
            f"{most:g} s; a network learns and predicts in steps of one length"
        )
    return least


def alike(one: float, other: float) -> bool:
    """Return whether steps are of one length, in seconds: they differ by at most a tenth.

    Example:
        >>> alike(0.1, 0.105), alike(0.1, 0.4)
        (True, False)
    """
    return max(one, other) <= 1.1 * min(one, other)


def seconds_of(scene: Scene) -> float:
    """Return the seconds from one step of a scene to the next."""
    return round(float(np.median(np.diff(scene.times))), 3)


def digest_of(*folders: Path) -> str:
    """Return what changes where scenes of caches do.

    Args:
        folders: of caches.
    """
    shards = [shard for folder in folders for shard in CachedScenes(folder).shards]
    told = [(s.path.name, s.path.stat().st_size, s.names) for s in shards]
    return hashlib.sha256(repr(told).encode()).hexdigest()[:12]


def crowd_scenes(part: str, most: int, control: Control, data_dir: str | None) -> Sequence[Scene]:
    """Return windows of UCY's recordings, people with made-up bodies.

    Args:
        part: "training" or "test".
        most: scenes, evenly spread.
        control: as of :class:`Changed`.
        data_dir: the folder with ``eth-ucy``; None: the usual places.

    Raises:
        FileNotFoundError: a recording is not there.
    """
    places = Places("eth-ucy", data_dir)
    advice = "text files of Social-STGCNN, public on GitHub: frame, person, x, y"
    paths: list[Path] = [places.file([f"{name}.txt"], advice) for name in CROWDS[part]]
    scenes = [scene for path in paths for scene in read_pedestrians(path)]
    return _Embodied(spread(scenes, most), control)


def spread(items: Sequence[T], most: int) -> list[T]:
    """Return up to so many items, evenly spread."""
    if len(items) <= most:
        return list(items)
    return [items[i * len(items) // most] for i in range(most)]
