"""Batches of scenes, each with all of its targets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from regrow.data.order import Order
from regrow.motion.features import Example, Featurer
from regrow.motion.scene import Scene
from regrow.training.batch import Batch

__all__ = ["INPUTS", "SceneBatches", "collate", "in_order"]

INPUTS = (
    "agents",
    "agents_valid",
    "map",
    "map_valid",
    "centre",
    "kind",
    "lidar",
    "lidar_valid",
)
"""What the network is given of an example; all else are targets."""

# By name, the dimensions that are filled up with 0 to the longest of a batch.
_PADDED = {
    "agents": (1,),
    "agents_valid": (1,),
    "others": (1,),
    "others_valid": (1,),
    "map": (1,),
    "map_valid": (1,),
    "lidar": (2,),
    "lidar_valid": (2,),
}

Tensors = dict[str, Tensor]


def collate(examples: Sequence[Example]) -> tuple[Tensors, Tensors]:
    """Lay the targets of several scenes one after the other.

    Args:
        examples: of :class:`regrow.motion.features.Featurer`, with n targets together.

    Returns:
        Inputs of the network: ``agents``, shape (n, agents, past, 18 + past), ``agents_valid``;
        ``map``, shape (n, polylines, 20, 9), ``map_valid``; ``centre``, the target's place among
        the agents, and ``kind``, both shape (n,); with LiDAR ``lidar``, shape
        (n, frames, points, channels), ``lidar_valid``. Agents, polylines and points are filled up
        with what is not valid.

        And targets: ``future``, shape (n, future, 4), x, y, vx, vy of the target,
        ``future_valid``; ``others``, shape (n, agents, future, 4), ``others_valid``; ``origin``,
        float64, shape (n, 4), the frame's x, y, z, heading in its scene; ``scene``, shape (n,),
        which of the examples, ``agent``, shape (n,), which agent of the scene.

    Example:
        >>> one = {"kind": np.array([1]), "map_valid": np.ones((1, 2, 20), dtype=bool)}
        >>> two = {"kind": np.array([2]), "map_valid": np.ones((1, 3, 20), dtype=bool)}
        >>> inputs, targets = collate([one, two])
        >>> inputs["map_valid"].any(-1).tolist(), targets["scene"].tolist()
        ([[True, True, False], [True, True, True]], [0, 1])
    """
    found = {name: _joined(name, [one[name] for one in examples]) for name in examples[0]}
    sizes = torch.tensor([len(one["kind"]) for one in examples])
    found["scene"] = torch.arange(len(examples)).repeat_interleave(sizes)
    inputs = {name: x for name, x in found.items() if name in INPUTS}
    return inputs, {name: x for name, x in found.items() if name not in INPUTS}


def _joined(name: str, arrays: Sequence[np.ndarray[Any, Any]]) -> Tensor:
    dims = _PADDED.get(name, ())
    shape = [sum(len(a) for a in arrays), *arrays[0].shape[1:]]
    for dim in dims:
        shape[dim] = max(a.shape[dim] for a in arrays)
    whole = np.zeros(shape, dtype=arrays[0].dtype)
    row = 0
    for array in arrays:
        inside = tuple(slice(0, size) for size in array.shape[1:])
        whole[(slice(row, row + len(array)), *inside)] = array
        row += len(array)
    return torch.from_numpy(whole)


class _Examples(Dataset[Example]):
    """Examples of scenes by (place, key of the random numbers)."""

    def __init__(self, scenes: Sequence[Scene], featurer: Featurer) -> None:
        self.scenes, self.featurer = scenes, featurer

    def __getitem__(self, key: tuple[int, tuple[int, ...] | None]) -> Example:
        place, drawn = key
        rng = None if drawn is None else np.random.default_rng(drawn)
        return self.featurer(self.scenes[place], rng)


def _loader(
    scenes: Sequence[Scene], featurer: Featurer, keys: Sequence[Any], workers: int
) -> DataLoader[Any]:
    return DataLoader(
        _Examples(scenes, featurer),
        batch_sampler=keys,
        num_workers=workers,
        collate_fn=collate,
        generator=torch.Generator(),  # nothing is drawn from it, nor from the one of training
        # Workers that are forked would hold locks of threads that are not there.
        multiprocessing_context="spawn" if workers else None,
    )


class SceneBatches:
    """Batches of scenes in an order of their own in every epoch.

    Args:
        scenes: may be read when they are asked for; with workers they must be picklable.
        featurer: makes arrays of them.
        batch: scenes in a batch, over all ranks.
        seed: of the order, and of which LiDAR points are left.
        rank: which process this is.
        ranks: how many train together.
        workers: processes that make arrays of scenes; 0: this one does.

    Raises:
        ValueError: there are fewer scenes than a batch has, or a batch cannot be shared out.
    """

    def __init__(
        self,
        scenes: Sequence[Scene],
        featurer: Featurer,
        *,
        batch: int,
        seed: int,
        rank: int = 0,
        ranks: int = 1,
        workers: int = 0,
    ) -> None:
        if workers < 0:
            raise ValueError(f"workers={workers}: must be at least 0")
        self.scenes, self.featurer, self.seed, self.workers = scenes, featurer, seed, workers
        size = min(batch, len(scenes) // ranks * ranks)
        self.order = Order(len(scenes), size, seed, rank, ranks)

    def __len__(self) -> int:
        return len(self.order)

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield this rank's batches of an epoch; ``ids`` are places of scenes."""
        ids = list(self.order.epoch(number))
        keys = [[(i, (self.seed, number, i)) for i in batch.tolist()] for batch in ids]
        loader = _loader(self.scenes, self.featurer, keys, self.workers)
        for numbers, (inputs, targets) in zip(ids, loader, strict=True):
            yield Batch(inputs, targets, numbers)


def in_order(
    scenes: Sequence[Scene],
    featurer: Featurer,
    places: Sequence[int],
    *,
    batch: int,
    workers: int = 0,
) -> Iterator[tuple[list[int], Mapping[str, Tensor], Mapping[str, Tensor]]]:
    """Yield places of scenes, inputs and targets, batch by batch, without randomness."""
    groups = [list(places[i : i + batch]) for i in range(0, len(places), batch)]
    keys = [[(place, None) for place in group] for group in groups]
    loader = _loader(scenes, featurer, keys, workers)
    for group, (inputs, targets) in zip(groups, loader, strict=True):
        yield group, inputs, targets
