"""One linear layer, forward and both gradients: ours beside what else computes active weights.

The rivals are torch's own compressed rows and the package `sparselab`, where it is installed. All
compute the same: the output, the gradient of the input, and the gradient of the active weights, for
a batch of ordinary activations [batch, features] that each turns into its own layout.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from regrow.engine.selection import sample, seeded_generator
from regrow.execution.csr.linear import CsrLinear
from regrow.measure.timing import Timing, interleaved

__all__ = ["WIDTHS", "compare_layers"]

WIDTHS = (1024, 3000)


def compare_layers(
    width: int, densities: tuple[float, ...], batch: int = 128, *, seconds: float = 20.0
) -> dict[tuple[str, float], Timing]:
    """Time the passes of a square layer: dense, ours and the rivals', in turns.

    Args:
        width: inputs, and outputs.
        densities: of the active weights; the dense layer is timed once.
        batch: samples.
        seconds: of timing in all.

    Returns:
        Timings by ("dense", 1.0), ("csr", density), ("torch csr", density) and ("sparselab",
        density).
    """
    x, grad = torch.randn(batch, width), torch.randn(batch, width)
    calls = {("dense", 1.0): _passes(nn.Linear(width, width), x, grad)}
    for density in densities:
        n = round(density * width * width)
        positions = sample(width * width, n, seeded_generator(0, "layer", str(density)))
        values = torch.randn(n)
        layer = CsrLinear(width, width, positions, values, torch.zeros(width))
        calls["csr", density] = _passes(layer, x, grad)
        calls["torch csr", density] = _torch_csr(layer.dense_weight(), x, grad)
        if find_spec("sparselab"):
            rival = import_module("sparselab").SparseLinear(width, width, sparsity=1 - density)
            calls["sparselab", density] = _passes(rival, x, grad)
    names = {f"{way} {density}": (way, density) for way, density in calls}
    found = interleaved(
        {name: calls[key] for name, key in names.items()}, seconds=seconds, least=15
    )
    return {names[name]: timing for name, timing in found.items()}


def _passes(layer: nn.Module, x: Tensor, grad: Tensor) -> Callable[[], object]:
    inputs = x.clone().requires_grad_()

    def run() -> None:
        inputs.grad = None
        layer.zero_grad()
        layer(inputs).backward(grad)

    return run


def _torch_csr(weight: Tensor, x: Tensor, grad: Tensor) -> Callable[[], object]:
    """Return the three products on torch's compressed rows."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        by_row, by_column = weight.to_sparse_csr(), weight.t().to_sparse_csr()

    def run() -> None:
        turned, turned_grad = x.t().contiguous(), grad.t().contiguous()
        (by_row @ turned).t()
        (by_column @ turned_grad).t()
        torch.sparse.sampled_addmm(by_row, turned_grad, x, beta=0.0)

    return run
