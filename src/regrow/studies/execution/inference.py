"""Inference of one to many samples: three linear layers dense, stored, and by scipy's CSR."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from regrow.engine.selection import sample, seeded_generator
from regrow.execution.inference import inference_module
from regrow.measure.timing import Timing, interleaved, now

__all__ = ["BATCHES", "DEPTH", "WIDTH", "compare_inference"]

WIDTH, DEPTH = 4096, 3
BATCHES = (1, 2, 3, 4, 8, 15, 16, 32, 64, 256)


def compare_inference(
    width: int,
    densities: tuple[float, ...],
    batch: int,
    *,
    depth: int = DEPTH,
    seconds: float = 4.0,
) -> dict[tuple[str, float], Timing]:
    """Time the outputs of square linear layers for one batch, in turns.

    Every call comes right after one of its own that is not timed, as in a loop of inference.

    Args:
        width: inputs and outputs of each layer.
        densities: of the active weights; the dense layers are timed once.
        batch: samples.
        depth: layers in a row.
        seconds: of timing in all.

    Returns:
        Timings by ("dense", 1.0), ("csr", density) and, where it is installed, ("scipy csr",
        density).
    """
    x = torch.randn(batch, width)
    dense = nn.Sequential(*(nn.Linear(width, width) for _ in range(depth))).eval()
    calls: dict[tuple[str, float], Callable[[], object]] = {("dense", 1.0): lambda: dense(x)}
    for density in densities:
        layers = [nn.Linear(width, width) for _ in range(depth)]
        for number, layer in enumerate(layers):
            kept = torch.zeros(width * width, dtype=torch.bool)
            n = round(density * width * width)
            kept[sample(width * width, n, seeded_generator(0, "layer", str(number)))] = True
            layer.weight.data *= kept.view(width, width)
        fast = inference_module(nn.Sequential(*layers), below=1.1)
        calls["csr", density] = lambda fast=fast: fast(x)  # type: ignore[misc]
        if find_spec("scipy"):
            calls["scipy csr", density] = _scipy([one.weight.detach() for one in layers], x)
    names = {f"{way} {density}": (way, density) for way, density in calls}
    with torch.inference_mode():
        found = interleaved(
            {name: calls[key] for name, key in names.items()},
            seconds=seconds,
            least=15,
            again=True,
            clock=now,
        )
    return {names[name]: timing for name, timing in found.items()}


def _scipy(weights: list[Tensor], x: Tensor) -> Callable[[], object]:
    """Return the products of scipy's compressed rows, features by samples as it wants them."""
    rows = [import_module("scipy.sparse").csr_matrix(weight.numpy()) for weight in weights]
    turned = x.numpy()[0].copy() if len(x) == 1 else x.numpy().T.copy()

    def run() -> object:
        y = turned
        for matrix in rows:
            y = matrix @ y
        return y

    return run
