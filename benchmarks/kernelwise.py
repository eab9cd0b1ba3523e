"""Inference of one volume on one CPU thread: sparse by whole kernels, beside dense.

    python benchmarks/kernelwise.py --json results/execution/kernelwise.json

Fusion convolutions of E2ENet's levels 0 to 3, and whole networks, for a volume of 16 x 64 x 64.
Everything compared runs in turns; seconds are those of the thread's CPU, since others may use the
machine, and the best of several counts. Dense layers and networks run in both layouts of memory."""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import nn

import regrow
from regrow.engine.patterns import Kernel
from regrow.execution.csr import layout
from regrow.execution.export import inference_module
from regrow.lab.environment import environment
from regrow.measure.timing import interleaved
from regrow.segmentation import E2ENet, PlainConvUNet, feature_fusion
from regrow.segmentation.segmenter import FlatConv3d

SIDES = (16, 64, 64)
STRIDES = [(1, 2, 2), 2, 2, 2, 2]
# Inputs, outputs and sides of the convolution that joins three sources (two at level 0).
LEVELS = [
    (96, 48, (16, 64, 64)),
    (240, 96, (16, 32, 32)),
    (480, 192, (8, 16, 16)),
    (832, 320, (4, 8, 8)),
]
Calls = dict[str, Callable[[], object]]


def channels_last(x: torch.Tensor) -> torch.Tensor:
    """Copy a volume so that its channels lie last, also where torch sees no difference."""
    last = torch.empty(len(x), *x.shape[2:], x.shape[1]).permute(0, 4, 1, 2, 3)
    return last.copy_(x)


def best(calls: Calls, least: int) -> dict[str, float]:
    timings = interleaved(calls, seconds=0, warmup=1, least=least, clock=time.thread_time)
    return {name: round(1e3 * min(timing.seconds), 2) for name, timing in timings.items()}


def other_csr(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Compute a layer as csr layers of single weights do: sixteen samples side by side."""
    way = layer.way(x).shifted
    return way.forward(layout.batch_last(x), layer.weight, layer.bias, False)


def layer_calls(inputs: int, outputs: int, sides: tuple[int, ...], densities: list[float]) -> Calls:
    x = torch.randn(1, inputs, *sides)
    dense = FlatConv3d(inputs, outputs, (1, 3, 3), padding=(0, 1, 1))
    turned = copy.deepcopy(dense).to(memory_format=torch.channels_last_3d)
    calls: Calls = {"dense": partial(dense, x)}
    calls["dense channels last"] = partial(turned, channels_last(x))
    for density in densities:
        sparse = copy.deepcopy(dense)
        kept = torch.rand(outputs, inputs) < density
        sparse.weight.data *= Kernel().expand(kept, sparse.weight.shape)
        stored = inference_module(nn.Sequential(sparse), below=1.1)
        torch.testing.assert_close(stored(x), sparse(x), rtol=1e-4, atol=1e-5)
        calls[f"kernels {density}"] = partial(stored, x)
        calls[f"other csr {density}"] = partial(other_csr, stored[0], x)
    return calls


def layers(densities: list[float], least: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for level, sizes in enumerate(LEVELS):
        rows.append({"level": level, "ms": best(layer_calls(*sizes, densities), least)})
        print(rows[-1], flush=True)
    return rows


def networks(density: float, least: int) -> dict[str, float]:
    x, calls = torch.randn(1, 1, *SIDES), {}
    lattice = E2ENet(1, 16, strides=STRIDES, deep_supervision=False)
    optimizer = torch.optim.SGD(lattice.parameters(), lr=0.1)
    regrow.sparsify(lattice, optimizer, total_steps=10**6, **feature_fusion(density))
    lattice.eval()(x)
    models = {
        "E2ENet, masks": lattice,
        "E2ENet, kernels": inference_module(lattice),
        "nnU-Net": PlainConvUNet(1, 16, strides=STRIDES, deep_supervision=False).eval(),
    }
    for name, model in models.items():
        turned = copy.deepcopy(model).to(memory_format=torch.channels_last_3d)
        calls[name] = partial(model, x)
        calls[f"{name}, channels last"] = partial(turned, channels_last(x))
    torch.testing.assert_close(models["E2ENet, kernels"](x), lattice(x), rtol=1e-3, atol=1e-3)
    return best(calls, least)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--density", type=float, nargs="+", default=[0.5, 0.3, 0.2, 0.1])
    parser.add_argument("--least", type=int, default=7, help="repetitions")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    record = {
        "environment": environment(),
        "measured": "the best CPU milliseconds of one thread, one volume, float32",
        "networks": networks(0.2, options.least),
    }
    print(record["networks"], flush=True)
    record["layers"] = layers(options.density, options.least)
    if options.json:
        options.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
