"""Time of sparse layers and of whole training steps on the CPU, beside dense ones.

    python benchmarks/csr_layers.py --threads 2 --json csr.json

Everything compared is run in turn, several rounds; printed are medians and the quartiles of the
ratio taken round by round. A step is zero_grad, forward, loss, backward and a fused Adam, whose
state is for nonzeros only where the weights are. With one thread the clock is CPU time, which other
processes disturb little; with more it is wall time."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from csr_models import ResNet20, mlp, sparse_conv, sparse_linear
from torch import nn
from torch.nn import functional

from regrow.execution.csr import dispatch

Calls = dict[str, Callable[[], object]]
BATCH = 128


def timed(calls: Calls, rounds: int) -> dict[str, list[float]]:
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 2):
        for name, call in calls.items():
            begin = clock()
            call()
            times[name].append(1e3 * (clock() - begin))
    return {name: values[2:] for name, values in times.items()}


def passes(layer: nn.Module, x: torch.Tensor) -> Calls:
    """Forward and the two backward products, each from a graph that needs nothing else."""
    inputs = x.clone().requires_grad_()
    layer.requires_grad_(False)
    for_input = layer(inputs)
    weight = layer.weight.requires_grad_()
    for_weight = layer(x)
    grad = torch.empty_like(for_input).normal_()
    return {
        "forward": lambda: layer(x),
        "dX": lambda: torch.autograd.grad(for_input, inputs, grad, retain_graph=True),
        "dW": lambda: torch.autograd.grad(for_weight, weight, grad, retain_graph=True),
    }


def step(model: nn.Module, x: torch.Tensor, bf16: bool = False) -> Callable[[], object]:
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    target = torch.randint(10, (len(x),))

    def run() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = functional.cross_entropy(model(x).float(), target)
        loss.backward()
        optimizer.step()

    return run


def compare(name: str, times: dict[str, list[float]], baseline: str) -> list[dict]:
    rows = []
    for key, values in times.items():
        ratios = sorted(b / a for a, b in zip(values, times[baseline], strict=True))
        low, _, high = statistics.quantiles(ratios, n=4)
        median = statistics.median(values)
        ratio = statistics.median(times[baseline]) / median
        rows.append(
            {"case": name, "what": key, "ms": median, "ratio": ratio, "quartiles": [low, high]}
        )
        print(f"{name:42s} {key:18s} {median:9.2f} ms  {ratio:6.1f}x  ({low:.1f}–{high:.1f})")
    return rows


def layers(densities: list[float], rounds: int) -> list[dict]:
    rows = []
    for inputs, outputs in ((3072, 4000), (4000, 1000), (4000, 4000)):
        x = torch.randn(BATCH, inputs)
        packed = x.t().contiguous().t()
        dense = passes(nn.Linear(inputs, outputs), x)
        for density in densities:
            sparse = passes(sparse_linear(inputs, outputs, density, None), packed)
            rows += by_pass(f"linear {inputs}→{outputs} @{density}", dense, sparse, rounds)
    for channels, size, stride in (
        (16, 32, 1),
        (64, 32, 1),
        (128, 16, 1),
        (256, 8, 1),
        (64, 32, 2),
    ):
        x = torch.randn(BATCH, channels, size, size)
        packed = x.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2)
        dense = passes(nn.Conv2d(channels, channels, 3, stride, 1, bias=False), x)
        for density in densities:
            sparse = passes(sparse_conv(channels, channels, 3, stride, density), packed)
            name = f"conv 3x3 {channels}x{size}x{size}/{stride} @{density}"
            rows += by_pass(name, dense, sparse, rounds)
    return rows


def by_pass(name: str, dense: Calls, sparse: Calls, rounds: int) -> list[dict]:
    calls = {f"dense {k}": c for k, c in dense.items()} | {
        f"sparse {k}": c for k, c in sparse.items()
    }
    times = timed(calls, rounds)
    for kind in ("dense", "sparse"):
        parts = [times[f"{kind} {k}"] for k in dense]
        times[f"{kind} all"] = [sum(values) for values in zip(*parts, strict=True)]
    rows = []
    for key in [*dense, "all"]:
        pair = {"dense": times[f"dense {key}"], "sparse": times[f"sparse {key}"]}
        rows += compare(f"{name} {key}", pair, "dense")[1:]
    return rows


def steps(densities: list[float], rounds: int, widths: list[int]) -> list[dict]:
    rows = []
    for sizes in ([3072, 4000, 1000, 4000, 10], [784, 1000, 1000, 1000, 10]):
        x = torch.randn(BATCH, sizes[0])
        calls: Calls = {"dense": step(mlp(sizes, None), x)}
        calls["dense bf16"] = step(mlp(sizes, None), x, bf16=True)
        calls |= {f"sparse {d}": step(mlp(sizes, d), x) for d in densities}
        rows += compare("-".join(map(str, sizes)), timed(calls, rounds), "dense")
    for width in widths:
        x = torch.randn(BATCH, 3, 32, 32)
        last = {"memory_format": torch.channels_last}
        calls = {
            "dense": step(ResNet20(width, None), x),
            "dense channels last": step(ResNet20(width, None).to(**last), x.to(**last)),
            "bf16 channels last": step(ResNet20(width, None).to(**last), x.to(**last), bf16=True),
        }
        calls |= {f"sparse {d}": step(ResNet20(width, d), x) for d in densities}
        times = timed(calls, max(7, rounds // 2))
        # The rival that a user would choose: which layout is faster differs between machines.
        layouts = ("dense", "dense channels last")
        rows += compare(
            f"ResNet-20 width {width}",
            times,
            min(layouts, key=lambda name: statistics.median(times[name])),
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--density", type=float, nargs="+", default=[0.1, 0.05, 0.01])
    parser.add_argument("--width", type=int, nargs="*", default=[16, 64], help="of ResNet-20")
    parser.add_argument("--only", choices=["layers", "steps"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    rows = []
    if arguments.only != "steps":
        rows += layers(arguments.density, arguments.rounds)
    if arguments.only != "layers":
        rows += steps(arguments.density, arguments.rounds, arguments.width)
    if arguments.json:
        environment = {
            "torch": torch.__version__,
            "python": platform.python_version(),
            "threads": torch.get_num_threads(),
            "kernels": dispatch.in_use(),
            "batch": BATCH,
        }
        content = {"environment": environment, "rows": rows}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
