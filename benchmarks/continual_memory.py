"""What a hundred tasks in one ResNet-18 weigh: masks at one bit a weight, heads and norms.

    python benchmarks/continual_memory.py --tasks 100 --json continual.json

Each task makes one optimizer step, which is enough: what it stores does not depend on how long it
learns. Printed are bytes, counted in what is kept and in what is saved, and, after the last task,
whether the first answers bit for bit as it did."""

from __future__ import annotations

import argparse
import io
import json
import platform
import time
from pathlib import Path

import torch
from torch.nn import functional

import regrow
from regrow.continual import TaskNetwork
from regrow.vision.models import build_model


def nbytes(tensors: dict[str, torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())


def saved(network: TaskNetwork) -> int:
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    return file.tell()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=100)
    parser.add_argument("--classes", type=int, default=5)
    parser.add_argument("--density", type=float, default=0.05)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    model = build_model(arguments.model, (3, 32, 32), arguments.classes)
    dense = sum(p.nbytes for p in model.parameters()) + sum(b.nbytes for b in model.buffers())
    network = TaskNetwork(model, regrow.Static(density=arguments.density))
    x, y = torch.randn(4, 3, 32, 32), torch.arange(4) % arguments.classes
    sizes, first, begin = [], None, time.perf_counter()
    for _ in range(arguments.tasks):
        number = network.add_task(arguments.classes)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
        network.sparsify(optimizer, total_steps=1)
        functional.cross_entropy(network.model(x), y).backward()
        optimizer.step()
        task = network.finish_task()
        head = {n: t for n, t in task.own.items() if network.view.of_head(n)}
        own = {n: t for n, t in task.own.items() if n not in head}
        sizes.append((nbytes(task.masks), nbytes(head), nbytes(own)))
        if number == 0:
            first, at_first = network.logits(x, 0), saved(network)
    same = first is not None and first.equal(network.logits(x, 0))
    at_last = saved(network)
    masks, heads, own = (sum(part) for part in zip(*sizes, strict=True))
    more = (at_last - at_first) / max(arguments.tasks - 1, 1)
    row = {
        "tasks": arguments.tasks,
        "dense_bytes": dense,
        "store_bytes": nbytes(network.view.store),
        "mask_bytes_a_task": masks / arguments.tasks,
        "head_bytes_a_task": heads / arguments.tasks,
        "norm_bytes_a_task": own / arguments.tasks,
        "saved_bytes": at_last,
        "saved_bytes_a_task": more,
        "percent_of_dense_a_task": 100 * more / dense,
        "free": network.capacity().free,
        "first_task_bit_identical": same,
        "seconds_a_task": (time.perf_counter() - begin) / arguments.tasks,
    }
    for name, value in row.items():
        print(f"{name:26s} {value:,.4g}" if isinstance(value, float) else f"{name:26s} {value:,}")
    if arguments.json:
        where = {"torch": torch.__version__, "python": platform.python_version()}
        arguments.json.write_text(
            json.dumps({"environment": where, "rows": [row]}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
