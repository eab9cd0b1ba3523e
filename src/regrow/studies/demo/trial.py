"""The demo: sparse networks beside dense ones on real data, in about two minutes on two cores.

Every sparse network has two controls: a dense network with as many parameters, and a static random
topology of the same density.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import CosineAnnealingLR

import regrow
from regrow.measure.flops import count_flops, training_flops
from regrow.measure.memory import bytes_allocated, bytes_of_nonzeros
from regrow.vision.data import load_data
from regrow.vision.models import conv_net, mlp, widest_within

__all__ = [
    "CELLS",
    "DENSE",
    "SETTINGS",
    "Cell",
    "Setting",
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
class Setting:
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
SETTINGS = {
    "digits": Setting(width=256, epochs=60, batch=64),
    "fashion-mnist": Setting(width=256, epochs=6, batch=128, images=20_000),
    "cifar10": Setting(width=16, epochs=8, batch=128, images=10_000, convolutional=True),
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
    data: str, cell: Cell, seed: int, data_dir: str | None = None, setting: Setting | None = None
) -> TrialResult:
    """Train one network, on one thread: its numbers do not depend on how many run side by side.

    Args:
        data: a data set's name.
        cell: what to train.
        seed: of initialisation, topology and batches.
        data_dir: where the data lies, if not in the usual places.
        setting: how to train; None is the data set's own.

    Returns:
        What it did and cost; the same arguments give the same numbers.
    """
    with _one_thread():
        return _train(_Run(data, cell, seed, data_dir, setting or SETTINGS[data]))


def _train(run: _Run) -> TrialResult:
    sparse, first = run.sparse, run.sparse.masks
    connections = sum(int(mask.sum()) for mask in first.values())
    overlap = [(0, 1.0)]
    for step in range(1, run.steps + 1):
        run.step()
        if sparse.history and sparse.history[-1].step == step:
            still = sum(int((first[name] & mask).sum()) for name, mask in sparse.masks.items())
            overlap.append((step, still / connections))
    last = sparse.masks
    density = {name: float(mask.float().mean()) for name, mask in last.items()}
    weights = sum(mask.numel() for mask in last.values())
    kept = sum(int(mask.sum()) for mask in last.values())
    flops = count_flops(run.model, run.train_images[: run.setting.batch])
    dense = kept == weights
    allocated = bytes_allocated(run.model, run.optimizer, None if dense else sparse)
    needed = allocated if dense else bytes_of_nonzeros(run.model, run.optimizer, sparse)
    return TrialResult(
        cell=run.cell,
        seed=run.seed,
        accuracy=run.accuracy(),
        parameters=sum(p.numel() for p in run.model.parameters()) - weights + kept,
        inference_flops=flops.forward(density) / run.setting.batch,
        training_flops=training_flops(flops, sparse),
        bytes_allocated=allocated.total,
        bytes_needed=needed.total,
        densities={name: (float(first[name].float().mean()), density[name]) for name in last},
        overlap=[*overlap, (run.steps, overlap[-1][1])],
        inputs=_input_connections(first, last),
    )


def step_ratios(
    data: str,
    cells: tuple[Cell, ...],
    data_dir: str | None = None,
    setting: Setting | None = None,
    rounds: int = 15,
) -> dict[str, list[float]]:
    """Time training steps of several cells in turn and compare each round with the first cell's.

    Args:
        data: a data set's name.
        cells: what to time; the first is what the others are compared with.
        data_dir: where the data lies, if not in the usual places.
        setting: how to train; None is the data set's own.
        rounds: how many times the turn goes round.

    Returns:
        By cell, one ratio a round: seconds a step over the first cell's seconds a step.
    """
    setting = setting or SETTINGS[data]
    with _one_thread():
        runs = [_Run(data, cell, 0, data_dir, replace(setting, epochs=10**4)) for cell in cells]
        block = _UPDATES  # so that every round holds its share of updates
        seconds: list[list[float]] = [[] for _ in runs]
        for _ in range(rounds + 1):
            for run, times in zip(runs, seconds, strict=True):
                begin = time.perf_counter()
                for _ in range(block):
                    run.step()
                times.append((time.perf_counter() - begin) / block)
    warm = [times[1:] for times in seconds]
    return {
        str(cell): [ours / base for ours, base in zip(times, warm[0], strict=True)]
        for cell, times in zip(cells, warm, strict=True)
    }


class _Run:
    """One network, its optimizer and its endless batches."""

    def __init__(
        self, data: str, cell: Cell, seed: int, data_dir: str | None, setting: Setting
    ) -> None:
        self.cell, self.seed, self.setting = cell, seed, setting
        self.train_images, self.train_labels, self.test_images, self.test_labels = _arrays(
            data, data_dir, setting.images
        )
        classes = int(self.train_labels.max()) + 1
        self.steps = setting.epochs * (len(self.train_labels) // setting.batch)
        torch.manual_seed(seed)
        self.model = self._build(classes)
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4
        )
        self.schedule = CosineAnnealingLR(self.optimizer, self.steps)
        self.sparse = regrow.sparsify(
            self.model,
            self.optimizer,
            self._method(),
            total_steps=self.steps,
            rescale=True,
            seed=seed,
        )
        self.batches = self._batches()

    def step(self) -> None:
        images, labels = next(self.batches)
        self.optimizer.zero_grad()
        cross_entropy(self.model(images), labels).backward()
        self.optimizer.step()
        self.schedule.step()

    @torch.no_grad()
    def accuracy(self) -> float:
        self.model.eval()
        outputs = [self.model(batch) for batch in self.test_images.split(1000)]
        return float((torch.cat(outputs).argmax(1) == self.test_labels).double().mean())

    def _build(self, classes: int) -> nn.Module:
        shape = tuple(self.train_images.shape[1:])

        def build(width: int) -> nn.Module:
            if self.setting.convolutional:
                return conv_net(shape[0], width, classes)
            return mlp(torch.Size(shape).numel(), width, classes)

        if self.cell.method != "Small dense":
            return build(self.setting.width)
        large = build(self.setting.width)
        weights = sum(p.numel() for p in large.parameters() if p.ndim > 1)
        others = sum(p.numel() for p in large.parameters()) - weights
        return build(widest_within(round(self.cell.density * weights) + others, build))

    def _method(self) -> regrow.Method:
        method, density = self.cell.method, self.cell.density
        every = max(self.steps // _UPDATES, 1)
        if method == "Static":
            return regrow.Static(density=density)
        if method == "SET":
            return regrow.SET(density=density, update_every=every)
        if method == "RigL":
            return regrow.RigL(density=density, update_every=every)
        return regrow.Dense()

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(self.seed)
        while True:
            order = torch.randperm(len(self.train_labels), generator=generator)
            whole = len(order) // self.setting.batch * self.setting.batch
            for index in order[:whole].split(self.setting.batch):
                yield self.train_images[index], self.train_labels[index]


class _one_thread:
    def __enter__(self) -> None:
        self.threads = torch.get_num_threads()
        torch.set_num_threads(1)

    def __exit__(self, *_: object) -> None:
        torch.set_num_threads(self.threads)


@functools.lru_cache(maxsize=1)
def _arrays(
    data: str, data_dir: str | None, images: int | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    loaded = load_data(data, data_dir, download=False)
    train, test = loaded.standardized()
    return train[:images], loaded.train_labels[:images], test, loaded.test_labels


def _input_connections(
    first: dict[str, Tensor], last: dict[str, Tensor]
) -> tuple[list[int], list[int]] | None:
    name = next(iter(first))
    if first[name].ndim != 2:
        return None
    return first[name].sum(0).tolist(), last[name].sum(0).tolist()
