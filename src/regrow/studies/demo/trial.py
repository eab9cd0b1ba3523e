"""The demo: sparse networks beside dense ones on real data, in about two minutes on two cores.

Every sparse network has two controls: a dense network with as many parameters, and a static random
topology of the same density.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import regrow
from regrow.studies.vision.classify import Classifier, accuracy
from regrow.studies.vision.source import LabelledSource
from regrow.training.batch import Batch
from regrow.training.costs import costs
from regrow.training.loop import Step
from regrow.training.setting import Setting
from regrow.training.trainer import Trainer
from regrow.vision.data import load_data
from regrow.vision.models import conv_net, mlp, widest_within

__all__ = [
    "CELLS",
    "DENSE",
    "HYPERPARAMETERS",
    "Cell",
    "Hyperparameters",
    "TrialResult",
    "run_trial",
    "step_ratios",
]


@dataclass(frozen=True)
class Cell:
    """One row of the demo's table.

    Args:
        method: "Dense", "Small dense", or a method's name.
        density: of the weights. A small dense network is given as many parameters as the sparse
            ones of this density have.
    """

    method: str
    density: float = 1.0

    def __str__(self) -> str:
        """Name the cell as the table does."""
        return self.method if self.method == "Dense" else f"{self.method} {self.density:g}"


DENSE = Cell("Dense")
CELLS = (
    DENSE,
    *(Cell(m, d) for d in (0.1, 0.05) for m in ("Small dense", "Static", "SET", "RigL")),
)


@dataclass(frozen=True)
class Hyperparameters:
    """How a data set is learnt.

    Args:
        width: of the dense network.
        epochs: passes over the training images.
        batch: images a step.
        images: how many training images are used; None is all.
        convolutional: a convolutional network instead of a multilayer perceptron.
    """

    width: int
    epochs: int
    batch: int
    images: int | None = None
    convolutional: bool = False


# Widths and epochs are chosen for the running time; nothing was tuned on test images.
HYPERPARAMETERS = {
    "digits": Hyperparameters(width=256, epochs=60, batch=64),
    "fashion-mnist": Hyperparameters(width=256, epochs=6, batch=128, images=20_000),
    "cifar10": Hyperparameters(width=16, epochs=8, batch=128, images=10_000, convolutional=True),
}
_UPDATES = 40  # topology updates in a run, were they to go on to its end


@dataclass(frozen=True)
class TrialResult:
    """What one network did and cost.

    Args:
        cell: what it was.
        seed: of initialisation, topology and batches.
        accuracy: on the test images after the last epoch, from 0 to 1.
        parameters: those not masked, biases and norms included.
        inference_flops: operations for one image.
        training_flops: operations of the whole run.
        bytes_allocated: weights, gradients, optimizer state and masks as held here.
        bytes_needed: the same in a format that stores active weights only.
        densities: each layer's first and last density.
        overlap: pairs (step, share of the first topology's connections still active).
        inputs: for a fully connected first layer, the connections of each input value before and
            after training.
    """

    cell: Cell
    seed: int
    accuracy: float
    parameters: int
    inference_flops: float
    training_flops: float
    bytes_allocated: int
    bytes_needed: int
    densities: dict[str, tuple[float, float]]
    overlap: list[tuple[int, float]]
    inputs: tuple[list[int], list[int]] | None


def run_trial(
    data: str,
    cell: Cell,
    seed: int,
    data_dir: str | None = None,
    chosen: Hyperparameters | None = None,
) -> TrialResult:
    """Train one network, on one thread: its numbers do not depend on how many run side by side.

    Args:
        data: a data set's name.
        cell: what to train.
        seed: of initialisation, topology and batches.
        data_dir: where the data lies, if not in the usual places.
        chosen: how to train; None is the data set's own.

    Returns:
        What it did and cost; the same arguments give the same numbers.
    """
    with _one_thread():
        trainer = _trainer(data, cell, seed, data_dir, chosen or HYPERPARAMETERS[data])
        return _train(trainer, cell)


def _train(trainer: Classifier, cell: Cell) -> TrialResult:
    sparse, first = trainer.sparse, trainer.sparse.masks
    overlap = [(0, 1.0)]

    def look(_done: float) -> None:
        if sparse.history and sparse.history[-1].step == sparse.steps > overlap[-1][0]:
            still = sum(int((first[name] & mask).sum()) for name, mask in sparse.masks.items())
            overlap.append((sparse.steps, still / _count(first)))

    while trainer.epoch < trainer.setting.epochs:
        trainer.run_epoch(tell=look)
    last, found = sparse.masks, costs(trainer)
    weights = sum(mask.numel() for mask in last.values())
    return TrialResult(
        cell=cell,
        seed=trainer.setting.seed,
        accuracy=accuracy(trainer, trainer.source.test()),
        parameters=found["parameters"] - weights + _count(last),
        inference_flops=found["inference_flops"],
        training_flops=found["training_flops"],
        bytes_allocated=found["bytes_allocated"],
        bytes_needed=found["bytes_needed"],
        densities={name: (_density(first[name]), _density(mask)) for name, mask in last.items()},
        overlap=[*overlap, (trainer.steps, overlap[-1][1])],
        inputs=_input_connections(first, last),
    )


def step_ratios(
    data: str,
    cells: tuple[Cell, ...],
    data_dir: str | None = None,
    chosen: Hyperparameters | None = None,
    rounds: int = 15,
) -> dict[str, list[float]]:
    """Time training steps of several cells in turn and compare each round with the first cell's.

    Args:
        data: a data set's name.
        cells: what to time; the first is what the others are compared with.
        data_dir: where the data lies, if not in the usual places.
        chosen: how to train; None is the data set's own.
        rounds: how many times the turn goes round.

    Returns:
        By cell, one ratio a round: seconds a step over the first cell's seconds a step.
    """
    chosen = replace(chosen or HYPERPARAMETERS[data], epochs=10**4)
    with _one_thread():
        runs = [_endless(_trainer(data, cell, 0, data_dir, chosen)) for cell in cells]
        block = _UPDATES  # so that every round holds its share of updates
        seconds: list[list[float]] = [[] for _ in runs]
        for _ in range(rounds + 1):
            for run, times in zip(runs, seconds, strict=True):
                begin = time.perf_counter()
                for _ in range(block):
                    next(run)
                times.append((time.perf_counter() - begin) / block)
    warm = [times[1:] for times in seconds]
    return {
        str(cell): [ours / base for ours, base in zip(times, warm[0], strict=True)]
        for cell, times in zip(cells, warm, strict=True)
    }


def _endless(trainer: Classifier) -> Iterator[Step]:
    while True:
        yield from trainer.epoch_steps()


def _trainer(
    data: str, cell: Cell, seed: int, data_dir: str | None, chosen: Hyperparameters
) -> Classifier:
    """Build one network, and what trains it."""
    inputs, labels, test, test_labels = _arrays(data, data_dir, chosen.images)
    batches = _Shuffled(inputs, labels, chosen.batch, seed)
    shape, classes = tuple(inputs.shape[1:]), int(labels.max()) + 1
    source = LabelledSource(
        batches=batches,
        example=lambda n: torch.zeros(n, *shape),
        shape=shape,
        classes=classes,
        validation=lambda: iter(()),
        test=lambda: zip(test.split(1000), test_labels.split(1000), strict=True),
    )
    setting = Setting(
        seed=seed,
        method=_method(cell, chosen.epochs * len(batches)),
        epochs=chosen.epochs,
        batch=chosen.batch,
        learning_rate=0.05,
        nesterov=False,
        schedule="cosine",
        rescale=True,
    )
    torch.manual_seed(seed)
    return Trainer(
        setting,
        _build(cell, chosen, shape, classes),
        source,
        lambda outputs, batch: cross_entropy(outputs, batch.targets),
        lambda outputs, batch: {},
        torch.device("cpu"),
    )


def _build(cell: Cell, chosen: Hyperparameters, shape: Sequence[int], classes: int) -> nn.Module:
    def build(width: int) -> nn.Module:
        if chosen.convolutional:
            return conv_net(shape[0], width, classes)
        return mlp(torch.Size(shape).numel(), width, classes)

    if cell.method != "Small dense":
        return build(chosen.width)
    large = build(chosen.width)
    weights = sum(p.numel() for p in large.parameters() if p.ndim > 1)
    others = sum(p.numel() for p in large.parameters()) - weights
    return build(widest_within(round(cell.density * weights) + others, build))


def _method(cell: Cell, steps: int) -> regrow.Method:
    every = max(steps // _UPDATES, 1)
    if cell.method == "Static":
        return regrow.Static(density=cell.density)
    if cell.method == "SET":
        return regrow.SET(density=cell.density, update_every=every)
    if cell.method == "RigL":
        return regrow.RigL(density=cell.density, update_every=every)
    return regrow.Dense()


class _Shuffled:
    """Batches of arrays, shuffled anew an epoch by one generator; epochs are asked for in turn."""

    def __init__(self, inputs: Tensor, labels: Tensor, size: int, seed: int) -> None:
        self.inputs, self.labels, self.size = inputs, labels, size
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return len(self.labels) // self.size

    def epoch(self, number: int) -> Iterator[Batch]:
        order = torch.randperm(len(self.labels), generator=self.generator)
        for index in order.split(self.size)[: len(self)]:
            yield Batch(self.inputs[index], self.labels[index], index)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@functools.lru_cache(maxsize=1)
def _arrays(
    data: str, data_dir: str | None, images: int | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    loaded = load_data(data, data_dir, download=False)
    train, test = loaded.standardized()
    return train[:images], loaded.train_labels[:images], test, loaded.test_labels


def _count(masks: dict[str, Tensor]) -> int:
    return sum(int(mask.sum()) for mask in masks.values())


def _density(mask: Tensor) -> float:
    return float(mask.float().mean())


def _input_connections(
    first: dict[str, Tensor], last: dict[str, Tensor]
) -> tuple[list[int], list[int]] | None:
    name = next(iter(first))
    if first[name].ndim != 2:
        return None
    return first[name].sum(0).tolist(), last[name].sum(0).tolist()
