"""Peak memory of a training process, construction and a topology update included.

Each network is trained in a process of its own: the peak of a process never falls again.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import resource
import sys
from collections.abc import Sequence
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from regrow.engine.methods import RigL
from regrow.engine.sparsify import sparsify
from regrow.execution.empty import empty

__all__ = ["peak_memory", "perceptron"]


def peak_memory(
    sizes: tuple[int, ...],
    density: float,
    batch: int = 128,
    steps: int = 12,
    *,
    plainly: bool = False,
) -> int:
    """Return the bytes by which training raises a process's peak above that of ``import torch``.

    Args:
        sizes: of a multilayer perceptron, inputs and outputs included.
        density: of all layers but the last; 1 trains the dense network.
        batch: images in a batch.
        steps: of Adam, an update every five.
        plainly: build a sparse network as a dense one is built; else under ``regrow.empty()``.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_train, args=(there, sizes, density, batch, steps, plainly))
    process.start()
    there.close()
    try:
        peak: int = here.recv()
    except EOFError:
        raise MemoryError(
            f"training {sizes} at density {density} died: too little memory"
        ) from None
    finally:
        process.join()
    return peak


def _train(
    connection: Connection,
    sizes: tuple[int, ...],
    density: float,
    batch: int,
    steps: int,
    plainly: bool,
) -> None:
    torch.set_num_threads(2)
    before = _peak()
    with contextlib.nullcontext() if plainly or density == 1 else empty():
        model = perceptron(sizes)
    optimizer = torch.optim.Adam(model.parameters())
    if density < 1:
        sparsify(
            model,
            optimizer,
            RigL(density=density, update_every=5, stop_at=1.0),
            total_steps=steps,
            exclude=f"{len(model) - 1}.weight",
            execution="csr",
        )
    images, labels = torch.randn(batch, sizes[0]), torch.randint(sizes[-1], (batch,))
    for _ in range(steps):
        optimizer.zero_grad()
        functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    connection.send(_peak() - before)


def perceptron(sizes: Sequence[int]) -> nn.Sequential:
    """Build a perceptron of these layers, inputs and outputs included."""
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _peak() -> int:
    """Return the largest resident memory of this program.

    Linux's getrusage would count the parent's, too, from before this program took its place.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
