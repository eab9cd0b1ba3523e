"""What blocks cost in accuracy: the same network, density and method with units of different sizes.

    python benchmarks/block_accuracy.py --data fashion-mnist --json accuracy.json

A perceptron with two hidden layers is trained by RigL with single weights and with blocks as units,
beside the dense network and a static topology of single weights. The last layer is dense, all
others are equally dense (uniform). Nothing is tuned: Adam at 1e-3, batches of 128, test accuracy
after the last epoch. Differences to single weights are paired over seeds."""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

import regrow
from regrow.engine.allocation import Uniform
from regrow.engine.patterns import Block, Element
from regrow.lab.statistics import mean_interval, paired_interval
from regrow.vision.data import load_data
from regrow.vision.models import mlp

BATCH = 128


def method_of(name: str, density: float) -> regrow.Method:
    if name == "dense":
        return regrow.Dense()
    if name == "static 1":
        return regrow.Static(density=density, allocation=Uniform())
    side = int(name.split()[1])
    pattern = Element() if side == 1 else Block(side)
    return regrow.RigL(density=density, allocation=Uniform(), pattern=pattern)


def accuracy(model: torch.nn.Module, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        found = torch.cat([model(part).argmax(1) for part in x.split(5000)])
    return float((found == y).float().mean())


def train(data: tuple[Tensor, ...], method: regrow.Method, args: argparse.Namespace, seed: int):
    x, y, test_x, test_y = data
    torch.manual_seed(seed)
    model = mlp(x[0].numel(), args.width, 10).to(x.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=x.is_cuda)
    total = args.epochs * (len(x) // BATCH)
    regrow.sparsify(model, optimizer, method, total_steps=total, exclude="5.weight", seed=seed)
    for _ in range(args.epochs):
        order = torch.randperm(len(x), device=x.device)
        for part in order[: len(x) // BATCH * BATCH].view(-1, BATCH):
            optimizer.zero_grad()
            functional.cross_entropy(model(x[part]), y[part]).backward()
            optimizer.step()
    return accuracy(model, test_x, test_y)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="fashion-mnist", choices=["fashion-mnist", "cifar10"])
    parser.add_argument("--data-dir")
    parser.add_argument("--density", type=float, nargs="+", default=[0.2, 0.1, 0.05])
    parser.add_argument("--blocks", type=int, nargs="+", default=[1, 16, 32, 64, 128])
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    images = load_data(args.data, args.data_dir)
    x, test_x = (part.flatten(1).to(args.device) for part in images.standardized())
    data = (x, images.train_labels.to(args.device), test_x, images.test_labels.to(args.device))
    cells = [("dense", 1.0)]
    for density in args.density:
        names = ["static 1", *(f"RigL {side}" for side in args.blocks)]
        cells += [(name, density) for name in names]
    found: dict[tuple[str, float], list[float]] = {}
    rows = []
    for name, density in cells:
        begin = time.perf_counter()
        method = method_of(name, density)
        values = [100 * train(data, method, args, seed) for seed in range(args.seeds)]
        found[name, density] = values
        one = mean_interval(values)
        row = {"units": name, "density": density, "accuracy": values}
        single = found.get(("RigL 1", density))
        said = f"{name:9s} {density:5.2f}  {one.mean:6.2f} ± {one.half_width:.2f}"
        if single and name != "RigL 1":
            gain = paired_interval(values, single)
            said += f"  {gain.mean:+.2f} ± {gain.half_width:.2f} to single weights"
        rows.append(row)
        print(f"{said}  ({time.perf_counter() - begin:.0f} s)", flush=True)
        write(args, images.source, rows)


def write(args: argparse.Namespace, source: str, rows: list[dict]) -> None:
    if not args.json:
        return
    where = {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name() if args.device == "cuda" else "cpu",
        "source": source,
    }
    setting = {key: value for key, value in vars(args).items() if key not in ("json", "data_dir")}
    content = {"environment": where, "setting": setting, "rows": rows}
    args.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
