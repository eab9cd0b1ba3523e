"""Scenes as data sets: from a cache, by number, made when asked for, or in a stream from files."""

from __future__ import annotations

import bisect
import itertools
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from regrow.motion.scene import Scene
from regrow.motion.shards import SUFFIX, Shard

__all__ = ["CachedScenes", "LazyScenes", "SceneStream", "shard_files"]


class CachedScenes(Dataset[Scene]):
    """All scenes of a cache by number; with ``DistributedSampler`` on several ranks.

    Files are mapped into memory, in each worker process anew.

    Args:
        folder: what ``regrow motion prepare`` wrote; folders in it count, too.

    Raises:
        FileNotFoundError: there is no shard in it.
        UnreadableError: a shard is damaged.
    """

    def __init__(self, folder: Path) -> None:
        paths = sorted(folder.rglob(f"*{SUFFIX}"))
        if not paths:
            raise FileNotFoundError(
                f"{folder}: has no {SUFFIX} files: name a folder that regrow motion prepare wrote"
            )
        self.shards = [Shard(path) for path in paths]
        self._ends = list(itertools.accumulate(len(shard) for shard in self.shards))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, place: int) -> Scene:
        """Read a scene.

        Raises:
            IndexError: there is no such place.
            UnreadableError: it is damaged; the message names the file and the scene.
        """
        if not 0 <= place < len(self):
            raise IndexError(f"scene {place}: must be 0 to {len(self) - 1}")
        shard = bisect.bisect_right(self._ends, place)
        return self.shards[shard][place - (self._ends[shard - 1] if shard else 0)]


class LazyScenes(Sequence[Scene]):
    """Scenes, each made when it is asked for. A subclass makes them.

    Args:
        count: how many.
    """

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Scene: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Scene]: ...

    def __getitem__(self, index: int | slice) -> Scene | Sequence[Scene]:
        places = range(self._count)[index]
        if isinstance(places, range):
            return [self.made(place) for place in places]
        return self.made(places)

    @abstractmethod
    def made(self, place: int) -> Scene:
        """Make the scene of a place, 0 to count - 1."""


class SceneStream(IterableDataset[Scene]):
    """Scenes of many files one after the other, each once over all ranks and worker processes.

    Where there are at least as many files as ranks times workers, each takes files of its own; else
    all read all files, and each takes every n-th scene. Ranks may get a scene or some files more
    than others: stop all at the same step.

    Args:
        paths: the files.
        read: gives the scenes of a file.
        seed: shuffle the files and, by a buffer, scenes; None: leave them in order.
        buffer: scenes to draw the next one from.
        rank: of this process; None: as ``torch.distributed`` says.
        ranks: processes; None: as ``torch.distributed`` says.

    Example:
        >>> from regrow.motion.formats.scenario import read_scenarios
        >>> stream = SceneStream([], read_scenarios)
        >>> list(stream)
        []
    """

    def __init__(
        self,
        paths: Sequence[Path],
        read: Callable[[Path], Iterable[Scene]],
        *,
        seed: int | None = None,
        buffer: int = 256,
        rank: int | None = None,
        ranks: int | None = None,
    ) -> None:
        self._paths, self._read = list(paths), read
        self._seed, self._buffer, self._epoch = seed, buffer, 0
        self._rank, self._ranks = _rank() if rank is None else rank, ranks or _ranks()

    def set_epoch(self, epoch: int) -> None:
        """Choose the shuffle of an epoch; all ranks must choose the same.

        Args:
            epoch: its number.
        """
        self._epoch = epoch

    def __iter__(self) -> Iterator[Scene]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        own, of = self._rank * workers + worker, self._ranks * workers
        paths = self._paths
        if self._seed is not None:
            order = np.random.default_rng([self._seed, self._epoch]).permutation(len(paths))
            paths = [paths[place] for place in order]
        if len(paths) >= of:
            scenes = (scene for path in paths[own::of] for scene in self._read(path))
        else:
            all_scenes = (scene for path in paths for scene in self._read(path))
            scenes = itertools.islice(all_scenes, own, None, of)  # type: ignore[assignment]
        if self._seed is None:
            return scenes
        return _shuffled(scenes, self._buffer, [self._seed, self._epoch, own])


def shard_files(folder: Path) -> list[Path]:
    """Return the TFRecord files in a folder, sorted by name, those in folders in it included.

    Args:
        folder: of WOMD scenarios, with names such as ``training.tfrecord-00000-of-01000``.

    Raises:
        FileNotFoundError: there is none.
    """
    found = sorted(
        path
        for path in folder.rglob("*.tfrecord*")
        if path.is_file() and path.suffix not in (SUFFIX, ".part")
    )
    if not found:
        raise FileNotFoundError(f"{folder}: has no .tfrecord files: name a folder of scenarios")
    return found


def _shuffled(scenes: Iterator[Scene], size: int, seed: list[int]) -> Iterator[Scene]:
    """Give scenes in random order, each drawn from a buffer that is filled again."""
    rng = np.random.default_rng(seed)
    buffer: list[Scene] = []
    for scene in scenes:
        if len(buffer) < size:
            buffer.append(scene)
            continue
        place = int(rng.integers(len(buffer)))
        chosen, buffer[place] = buffer[place], scene
        yield chosen
    for place in rng.permutation(len(buffer)):
        yield buffer[place]


def _rank() -> int:
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def _ranks() -> int:
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
