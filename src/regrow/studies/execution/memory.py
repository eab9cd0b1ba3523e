"""Peak memory of a training process, construction and a topology update included.

Each network is trained in a process of its own: what one has held and freed would help the next.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from regrow.engine.methods import RigL
from regrow.engine.sparsify import sparsify
from regrow.execution.empty import empty
from regrow.studies.measured import alone, measured

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

    Raises:
        MemoryError: the process died.
        OSError: the system does not tell the peak of a process.
    """
    peak = alone(_peak, sizes, density, batch, steps, plainly)
    if peak is None:
        raise OSError("this system does not tell the peak memory of a process")
    return int(peak)


def _peak(*setting: object) -> float | None:
    torch.set_num_threads(2)
    return measured(partial(_train, *setting), fresh=True)[1]["peak_bytes"]  # type: ignore[arg-type]


def _train(sizes: tuple[int, ...], density: float, batch: int, steps: int, plainly: bool) -> None:
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


def perceptron(sizes: Sequence[int]) -> nn.Sequential:
    """Build a perceptron of these layers, inputs and outputs included."""
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
