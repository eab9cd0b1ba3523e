"""What it costs to notice that others write sparse weights, in percent of a training step.

    python benchmarks/noticing.py --json noticing.json

Steps, and what is asked at every step to notice others, are timed in turns. Printed are medians,
and the least of each, which other programs on the machine disturb least."""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

import regrow
from regrow.engine import others

# Inputs and layers, and how many samples a batch.
MODELS = {"784-300-100": ([784, 300, 100], 128), "12-16-8": ([12, 16, 8], 32)}


def build(sizes: list[int], batch: int) -> tuple[regrow.Sparsifier, Callable[[], None]]:
    torch.manual_seed(0)
    layers = [part for pair in pairwise(sizes) for part in (nn.Linear(*pair), nn.ReLU())]
    model = nn.Sequential(*layers[:-1])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    method = regrow.RigL(density=0.1, update_every=10**6)
    sparse = regrow.sparsify(model, optimizer, method, total_steps=10**8)
    x, y = torch.randn(batch, sizes[0]), torch.randint(sizes[-1], (batch,))

    def step() -> None:
        optimizer.zero_grad()
        functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    return sparse, step


def seconds(call: Callable[[], object], number: int) -> float:
    begin = time.perf_counter()
    for _ in range(number):
        call()
    return (time.perf_counter() - begin) / number


def asked_at_every_step(sparse: regrow.Sparsifier) -> Callable[[], None]:
    """All that a step does to notice others: before it, after it, and for all optimizers."""
    seen, guard, optimizer = sparse._topology.seen, sparse._guard, sparse._optimizer
    tell = torch.compiler.disable(others._tell, recursive=False)

    def ask() -> None:
        assert not seen.touched
        seen.note_()
        guard.mask_copies_()
        tell(optimizer, (), {})

    return ask


def measure(name: str, rounds: int) -> dict[str, Any]:
    gc.collect()  # sparsifiers of other models would be told of steps, too
    sparse, step = build(*MODELS[name])
    ask = asked_at_every_step(sparse)
    seconds(step, 20)
    steps, asked = [], []
    for _ in range(rounds):
        steps.append(1e6 * seconds(step, 1))
        asked.append(1e6 * seconds(ask, 100))
    middle, least = statistics.median(asked) / statistics.median(steps), min(asked) / min(steps)
    return {
        "model": name,
        "step_us": {"median": statistics.median(steps), "least": min(steps)},
        "asked_us": {"median": statistics.median(asked), "least": min(asked)},
        "percent": {"median": 100 * middle, "least": 100 * least},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [measure(name, arguments.rounds) for name in MODELS]
    for row in rows:
        print(row["model"])
        for what in ("median", "least"):
            step, ask, percent = (row[key][what] for key in ("step_us", "asked_us", "percent"))
            print(f"  {what:6s} step {step:8.1f} us, asked {ask:5.2f} us: {percent:.2f} %")
    if arguments.json:
        where = {"torch": torch.__version__, "python": platform.python_version(), "threads": 1}
        arguments.json.write_text(json.dumps({"environment": where, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
