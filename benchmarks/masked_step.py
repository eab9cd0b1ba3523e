"""What masks add to a training step of ResNet-50: forward, backward, optimizer.

    python benchmarks/masked_step.py --batch 256 --json masked.json

Dense, dense once more (its difference is noise) and RigL between its updates run in turns; printed
are medians and quartiles, and the difference to dense taken round by round. On a GPU the step runs
in bfloat16 and channels last."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

import regrow
from regrow.vision.models import imagenet_resnet


def build(device: str, sparse: bool, density: float) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = imagenet_resnet(50).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=device == "cuda")
    if sparse:
        regrow.sparsify(
            model, optimizer, regrow.RigL(density=density, update_every=10**6), total_steps=10**8
        )
    return model, optimizer


def seconds(model: nn.Module, optimizer: torch.optim.Optimizer, batch: tuple, steps: int) -> float:
    x, y = batch
    synchronize(x.device.type)
    begin = time.perf_counter()
    for _ in range(steps):
        optimizer.zero_grad()
        with torch.autocast(x.device.type, torch.bfloat16, enabled=x.is_cuda):
            loss = functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
    synchronize(x.device.type)
    return (time.perf_counter() - begin) / steps


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--density", type=float, default=0.1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    device = arguments.device
    x = torch.randn(arguments.batch, 3, arguments.size, arguments.size, device=device)
    x = x.to(memory_format=torch.channels_last)
    batch = (x, torch.randint(1000, (arguments.batch,), device=device))
    runs = {
        name: build(device, name == "masked", arguments.density)
        for name in ("dense", "dense again", "masked")
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(arguments.rounds + 1):
        for name, (model, optimizer) in runs.items():
            times[name].append(seconds(model, optimizer, batch, arguments.steps))
    rows = []
    for name, all_values in times.items():
        values = all_values[1:]
        low, _, high = statistics.quantiles([1e3 * v for v in values], n=4)
        more = [100 * (v / d - 1) for v, d in zip(values, times["dense"][1:], strict=True)]
        row = {"what": name, "ms": 1e3 * statistics.median(values), "quartiles": [low, high]}
        row["percent_over_dense"] = statistics.median(more)
        rows.append(row)
        spread = f"({low:.3f}-{high:.3f})"
        print(f"{name:12s} {row['ms']:9.3f} ms {spread}  {row['percent_over_dense']:+.2f} %")
    if arguments.json:
        where = {
            "torch": torch.__version__,
            "python": platform.python_version(),
            "batch": arguments.batch,
            "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        }
        arguments.json.write_text(json.dumps({"environment": where, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
