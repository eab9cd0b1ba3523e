"""A training step and an inference of networks of volumes, beside nnU-Net's: milliseconds, memory.

    python benchmarks/segmentation.py --patch 128 128 128 --json OUT.json

All run in turns in one process: compiled, channels last, cuDNN's algorithms chosen by trial; on a
GPU in bfloat16. A step is loss with deep supervision, backward pass and optimizer.
"""

from __future__ import annotations

import argparse
import gc
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

import regrow
from regrow.measure.memory import nonzeros
from regrow.measure.timing import interleaved
from regrow.segmentation import E2ENet, PlainConvUNet, channel_links, feature_fusion, kernels, pack
from regrow.segmentation.lattice import lean_nodes
from regrow.segmentation.loss import dice_ce

CLASSES = 16
_AVAILABLE = kernels.available
LEAN = {
    "channels": (32, 64, 128, 256, 320, 320),
    "nodes": lean_nodes(6),
    "blocks": (1, 2, 2, 2, 2, 2),
}

NNUNET = partial(PlainConvUNet, 1, CLASSES, (32, 64, 128, 256, 320, 320))
NETWORKS: dict[str, tuple[Callable[[], nn.Module], dict[str, Any], bool]] = {
    # How it is built, what makes it sparse, and whether it is packed then.
    "nnU-Net": (NNUNET, {}, False),
    "nnU-Net, fused norms": (NNUNET, {}, False),
    "E2ENet, masks": (partial(E2ENet, 1, CLASSES), feature_fusion(0.2), False),
    "E2ENet, links": (partial(E2ENet, 1, CLASSES), channel_links(0.2), True),
    "lean, masks": (partial(E2ENet, 1, CLASSES, **LEAN), feature_fusion(0.2), False),
    "lean, links": (partial(E2ENet, 1, CLASSES, **LEAN), channel_links(0.2), True),
}


@dataclass
class Bench:
    """One network, ready to be stepped or asked."""

    name: str
    patch: Sequence[int]
    batch: int
    device: str
    dtype: torch.dtype
    compiled: bool

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        build, sparse, packed = NETWORKS[self.name]
        # As a user of nnU-Net has it: of torch's operations.
        kernels.available = _AVAILABLE and self.name != "nnU-Net"
        self.model = build().to(self.device, memory_format=torch.channels_last_3d)
        self.optimizer = self._optimizer()
        if sparse:
            made = regrow.sparsify(self.model, self.optimizer, total_steps=10**6, **sparse)
            if packed:
                self.model = pack(self.model, made.masks)
                self.optimizer = self._optimizer()
        self.call = torch.compile(self.model) if self.compiled else self.model
        self.loss = torch.compile(dice_ce) if self.compiled else dice_ce
        self.x = torch.randn(self.batch, 1, *self.patch, device=self.device)
        self.y = torch.randint(CLASSES, (self.batch, *self.patch), device=self.device)

    def _optimizer(self) -> torch.optim.Optimizer:
        fused, weights = self.device == "cuda", self.model.parameters()
        return torch.optim.SGD(weights, lr=1e-2, momentum=0.99, nesterov=True, fused=fused)

    def _cast(self) -> torch.autocast:
        on = self.dtype != torch.float32
        return torch.autocast(self.device, dtype=self.dtype, enabled=on)

    def step(self) -> None:
        self.model.train()
        self.model.deep_supervision = True
        with self._cast():
            outputs = self.call(self.x)
        self.loss(outputs, self.y, self.model.loss_weights).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def infer(self) -> None:
        self.model.eval()
        self.model.deep_supervision = False
        with torch.inference_mode(), self._cast():
            self.call(self.x)


def peak(call: Callable[[], object]) -> float:
    """Return GiB at the peak of a call, on a GPU; what others hold there counts not."""
    if not torch.cuda.is_available():
        return float("nan")
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() / 2**30


def measure(names: Sequence[str], options: argparse.Namespace) -> dict[str, dict[str, object]]:
    dtype = torch.float32 if options.float32 else torch.bfloat16
    shape = options.patch, options.batch, options.device, dtype, not options.eager
    rows: dict[str, dict[str, object]] = {}
    for kind in ("step", "infer"):
        benches = {}
        for name in names:
            before = torch.cuda.memory_allocated() if options.device == "cuda" else 0
            bench = Bench(name, *shape)
            call = getattr(bench, kind)
            for _ in range(3):
                call()
            row = rows.setdefault(name, {"parameters": nonzeros(bench.model)})
            row[f"{kind} GiB"] = peak(call) - before / 2**30
            benches[name] = bench
            print(name, kind, row, flush=True)
        calls = {name: getattr(bench, kind) for name, bench in benches.items()}
        for name, timing in interleaved(calls, seconds=options.seconds, least=7).items():
            rows[name][f"{kind} ms"] = 1e3 * timing.median
            rows[name][f"{kind} quartiles"] = [1e3 * q for q in timing.quartiles]
            print(name, kind, f"{1e3 * timing.median:.2f} ms", flush=True)
        del benches, calls, bench, call
        gc.collect()
        torch.compiler.reset()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patch", type=int, nargs=3, default=(128, 128, 128))
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--float32", action="store_true")
    parser.add_argument("--eager", action="store_true")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    rows = measure(options.networks, options)
    if options.json:
        told = {"patch": options.patch, "batch": options.batch, "networks": rows}
        if options.device == "cuda":
            from block_timing import environment  # noqa: PLC0415 needs Triton

            told["environment"] = environment()
        options.json.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
