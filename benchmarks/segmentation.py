"""A training step and an inference of networks of volumes, beside nnU-Net's: milliseconds, memory.

    python benchmarks/segmentation.py --patch 128 128 128 --json OUT.json

Each has a process of its own, in which it is compiled beside the others; then they are timed in
turns, one at a time. Channels last, cuDNN's algorithms chosen by trial; on a GPU in bfloat16. A
step is loss with deep supervision, backward pass and optimizer. Memory is the peak of a call on a
GPU, and on a CPU how far building and three calls raise what is resident.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import nn

import regrow
from regrow.measure.memory import nonzeros
from regrow.segmentation import (
    E2ENet,
    PlainConvUNet,
    ResidualEncoderUNet,
    channel_links,
    feature_fusion,
    kernels,
    lean_shape,
    pack,
)
from regrow.segmentation.fusion import LEAN
from regrow.segmentation.loss import dice_ce
from regrow.segmentation.rivals import monai_unet, seg_res_net
from regrow.studies.measured import measured

CLASSES = 16
_AVAILABLE = kernels.available
KINDS = ("step", "infer")


SHAPE = 1, CLASSES, (32, 64, 128, 256, 320, 320)
NNUNET = partial(PlainConvUNet, *SHAPE)
NETWORKS: dict[str, tuple[Callable[[], nn.Module], dict[str, Any], dict[str, Any] | None]] = {
    # How it is built, what makes it sparse, and how it is packed then.
    "nnU-Net": (NNUNET, {}, None),
    "nnU-Net, fused norms": (NNUNET, {}, None),
    "E2ENet, masks": (partial(E2ENet, 1, CLASSES), feature_fusion(0.2), None),
    "E2ENet, links": (partial(E2ENet, 1, CLASSES), channel_links(0.2), {}),
    "E2ENet, links, fused": (partial(E2ENet, 1, CLASSES), channel_links(0.2), {"fused": True}),
    "lean, masks": (partial(E2ENet, *SHAPE, **lean_shape(6)), feature_fusion(LEAN), None),
    "lean, links": (partial(E2ENet, *SHAPE, **lean_shape(6)), channel_links(0.25), {}),
    "lean, links, fused": (
        partial(E2ENet, *SHAPE, **lean_shape(6)),
        channel_links(0.25),
        {"fused": True},
    ),
    "residual nnU-Net": (partial(ResidualEncoderUNet, *SHAPE), {}, None),
    "MONAI U-Net": (partial(monai_unet, *SHAPE), {}, None),
    "SegResNet": (partial(seg_res_net, 1, CLASSES, SHAPE[2][0]), {}, None),
}


@dataclass
class Bench:
    """One network, ready to be stepped or asked."""

    name: str
    patch: Sequence[int]
    batch: int
    device: str
    dtype: torch.dtype
    mode: str | None  # of torch.compile; None: not compiled

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        build, sparse, packed = NETWORKS[self.name]
        # As a user of nnU-Net has it: of torch's operations.
        kernels.available = _AVAILABLE and self.name != "nnU-Net"
        self.model = build().to(self.device, memory_format=torch.channels_last_3d)
        self.optimizer = self._optimizer()
        if sparse:
            made = regrow.sparsify(self.model, self.optimizer, total_steps=10**6, **sparse)
            if packed is not None:
                self.model = pack(self.model, made.masks, **packed)
                self.optimizer = self._optimizer()
        compiled = partial(torch.compile, mode=self.mode) if self.mode else lambda what: what
        self.call, self.loss = compiled(self.model), compiled(dice_ce)
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
    """Return GiB at the peak of a call on a GPU."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() / 2**30


def seconds_of(call: Callable[[], object], times: int) -> list[float]:
    """Time a call; the first one, which finds cold caches, does not count."""
    taken = []
    for _ in range(times + 1):
        began = perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        taken.append(perf_counter() - began)
    return taken[1:]


def called(name: str, shape: tuple[Any, ...], kind: str) -> Bench:
    """Build a network and call it until it is warm."""
    bench = Bench(name, *shape)
    for _ in range(3):
        getattr(bench, kind)()
    return bench


def serve(name: str, options: argparse.Namespace, parent: Connection) -> None:
    """Build and compile a network, tell what it holds, then time it whenever the parent asks."""
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    if options.threads:
        torch.set_num_threads(options.threads)
    dtype = torch.float32 if options.float32 else torch.bfloat16
    mode = "reduce-overhead" if options.graphs else None if options.eager else "default"
    shape = options.patch, options.batch, options.device, dtype, mode
    calls, row = {}, {}
    for kind in KINDS:
        before = torch.cuda.memory_allocated() if torch.cuda.is_available() else 0
        bench, cost = measured(partial(called, name, shape, kind), fresh=kind == KINDS[0])
        calls[kind] = getattr(bench, kind)
        row["parameters"] = nonzeros(bench.model)
        if torch.cuda.is_available():
            row[f"{kind} GiB"] = peak(calls[kind]) - before / 2**30
        elif cost["peak_bytes"] is not None:
            row[f"{kind} GiB"] = cost["peak_bytes"] / 2**30
    parent.send(row)
    while times := parent.recv():
        parent.send({kind: seconds_of(call, times) for kind, call in calls.items()})


def measure(names: Sequence[str], options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Return parameters, memory and milliseconds of each network."""
    context = get_context("spawn")
    ends, processes = {}, []
    for name in names:
        ends[name], other = context.Pipe()
        processes.append(context.Process(target=serve, args=(name, options, other), daemon=True))
        processes[-1].start()
        other.close()  # so that the end of a process is noticed
    rows: dict[str, dict[str, Any]] = {}
    for name, end in list(ends.items()):
        try:
            rows[name] = end.recv()
        except EOFError:  # its process said why; the others go on
            print(name, "ended early", flush=True)
            del ends[name]
    taken: dict[str, dict[str, list[float]]] = {name: {k: [] for k in KINDS} for name in ends}
    for _ in range(options.rounds):
        for name, end in ends.items():
            end.send(options.times)
            for kind, seconds in end.recv().items():
                taken[name][kind] += seconds
    for name, end in ends.items():
        end.send(0)
        for kind, seconds in taken[name].items():
            rows[name][f"{kind} ms"] = 1e3 * statistics.median(seconds)
            low, _, high = statistics.quantiles(seconds, n=4)
            rows[name][f"{kind} quartiles"] = [1e3 * low, 1e3 * high]
        print(name, rows[name], flush=True)
    for process in processes:
        process.join()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patch", type=int, nargs=3, default=(128, 128, 128))
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--float32", action="store_true")
    parser.add_argument("--eager", action="store_true")
    parser.add_argument("--graphs", action="store_true", help="capture CUDA graphs, too")
    parser.add_argument("--threads", type=int, help="of each process, on a CPU")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--times", type=int, default=4, help="calls a round")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = measure(options.networks, options)
    if options.json:
        told: dict[str, Any] = {"patch": options.patch, "batch": options.batch, "networks": rows}
        told |= {name: getattr(options, name) for name in ("float32", "eager", "graphs", "threads")}
        if options.device == "cuda":
            from block_timing import environment  # noqa: PLC0415 needs Triton
        else:
            from regrow.lab.environment import environment  # noqa: PLC0415
        told["environment"] = environment()
        options.json.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
