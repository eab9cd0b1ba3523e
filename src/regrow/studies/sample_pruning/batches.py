"""Mini-batches of chosen samples, and data with copies, rare classes or wrong labels."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor

from regrow.data.labels import quotas
from regrow.data.order import Order
from regrow.engine.selection import random_k, seeded_generator
from regrow.samples import Samples
from regrow.training.batch import Batch
from regrow.vision.data.batches import Augment, augmented

__all__ = ["COPIED", "WRONG", "ChosenBatches", "Condition", "changed_index", "wrong_labels"]

Condition = Literal["clean", "copies", "imbalanced", "wrong"]

COPIED = 0.3  # share of the samples that are copies, of a twentieth of the others
WRONG = 0.2  # share of wrong labels
RATIO = 20  # of the largest class to the smallest


class ChosenBatches:
    """Mini-batches of the samples that each epoch chooses, and the memory of their losses.

    Args:
        inputs: shape (n, ...), on any device; batches are there, too.
        labels: int64, shape (n,), on the same device.
        samples: chooses; its ids are places in ``inputs``.
        size: of a batch, all ranks together; a last one that is smaller is left out.
        seed: of what is random in ``augment``.
        augment: changes a batch of inputs: takes them and a generator.
        rank: which process this is.
        ranks: how many train one model.

    Attributes:
        seconds: that choosing took.

    Example:
        >>> from regrow.samples import Random
        >>> samples = Samples(6, Random(), keep=0.7)
        >>> batches = ChosenBatches(torch.arange(6.0), torch.arange(6), samples, 2, seed=0)
        >>> [len(batch) for batch in batches.epoch(0)], len(batches)
        ([2, 2], 2)
    """

    def __init__(
        self,
        inputs: Tensor,
        labels: Tensor,
        samples: Samples,
        size: int,
        *,
        seed: int,
        augment: Augment | None = None,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self.inputs, self.labels, self.samples, self.augment = inputs, labels, samples, augment
        self.order = Order(len(inputs), size, seed, rank, ranks)
        how = {"drop_last": True, "rank": rank, "ranks": ranks}
        self.sampler = samples.batch_sampler(size // ranks, **how)  # type: ignore[arg-type]
        self.seconds = 0.0

    def __len__(self) -> int:
        """Return how many batches an epoch has."""
        return len(self.sampler)

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield the batches of this rank; ids are places in ``inputs``."""
        began = time.perf_counter()
        self.sampler.set_epoch(number)
        self.samples.kept  # noqa: B018 chooses
        self.seconds += time.perf_counter() - began
        for step, index in enumerate(self.sampler):
            yield self._batch(number, step, torch.tensor(index, device=self.inputs.device))

    def _batch(self, epoch: int, step: int, index: Tensor) -> Batch:
        inputs = augmented(self.inputs[index], self.augment, self.order, epoch, step)
        return Batch(inputs, self.labels[index], index)

    def update(self, ids: Tensor, losses: Tensor) -> None:
        """Tell the samples their losses."""
        began = time.perf_counter()
        self.samples.update(ids, losses)
        self.seconds += time.perf_counter() - began

    def weights(self, ids: Tensor) -> Tensor:
        """Return what losses are multiplied with."""
        return self.samples.weights(ids)

    def state_dict(self) -> dict[str, Any]:
        """Return what is known of the samples, for a checkpoint."""
        return {"samples": self.samples.state_dict(), "seconds": self.seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        self.samples.load_state_dict(state["samples"])
        self.seconds = state["seconds"]


def changed_index(labels: Tensor, condition: Condition, seed: int) -> Tensor:
    """Return which samples a data set under a condition has; copies are there several times.

    Args:
        labels: int64, shape (n,), on the CPU.
        condition: "copies": 30 % are copies, of a twentieth of the others; "imbalanced": the
            largest class has 20 times the samples of the smallest, in geometric steps, in random
            order of classes; else all.
        seed: another one, another draw.

    Returns:
        Int64 indices, ascending but for copies, which come last.

    Example:
        >>> labels = torch.arange(10).repeat(100)
        >>> index = changed_index(labels, "copies", seed=0)
        >>> len(index), len(index.unique())
        (1000, 700)
        >>> labels[changed_index(labels, "imbalanced", seed=0)].bincount().sort().values.tolist()
        [5, 7, 10, 14, 19, 26, 37, 51, 72, 100]
    """
    generator = seeded_generator(seed, "condition", condition)
    n = len(labels)
    everyone = torch.ones(n, dtype=torch.bool)
    if condition == "copies":
        own = random_k(n - round(COPIED * n), everyone, generator).nonzero().squeeze(1)
        few = own[random_k(max(len(own) // 20, 1), everyone[: len(own)], generator)]
        copies = few[torch.randint(len(few), (n - len(own),), generator=generator)]
        return torch.cat([own, copies])
    if condition == "imbalanced":
        counts = labels.bincount()
        order = torch.randperm(len(counts), generator=generator)
        kept = torch.zeros(n, dtype=torch.bool)
        for place, label in enumerate(order.tolist()):
            share = RATIO ** (-place / max(len(counts) - 1, 1))
            kept |= random_k(round(share * int(counts[label])), labels == label, generator)
        return kept.nonzero().squeeze(1)
    return everyone.nonzero().squeeze(1)


def wrong_labels(labels: Tensor, classes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Replace a fifth of the labels of each class by other classes, at random.

    Args:
        labels: int64, shape (n,), on the CPU.
        classes: how many there are.
        seed: another one, another draw.

    Returns:
        The labels, and which are wrong: bool, shape (n,).

    Example:
        >>> labels = torch.zeros(10, dtype=torch.int64)
        >>> changed, wrong = wrong_labels(labels, 3, seed=0)
        >>> int(wrong.sum()), bool((changed[wrong] != 0).all()), int(changed[~wrong].sum())
        (2, True, 0)
    """
    generator = seeded_generator(seed, "wrong labels")
    wrong = torch.zeros(len(labels), dtype=torch.bool)
    each = quotas(labels.bincount(), WRONG, round(WRONG * len(labels)))
    for label, count in enumerate(each.tolist()):
        wrong |= random_k(count, labels == label, generator)
    step = torch.randint(1, classes, labels.shape, generator=generator)
    return torch.where(wrong, (labels + step) % classes, labels), wrong
