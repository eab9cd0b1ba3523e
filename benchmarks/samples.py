"""What choosing samples costs: of a training step, and of an epoch of ten million ids.

    python benchmarks/samples.py --json results/samples/overhead.json

What is spent within ``samples.update`` is summed, each time with other ids of a million, for losses
are looked at many batches at a time. Steps are timed with and without it, too, in turns of a
hundred, whose difference has the noise of a step. On the CPU in seconds of the processor. An epoch
is the choice, the order and the first batch, in seconds of the processor and in memory: the highest
resident size of a process of its own, less what it had before, and less what it had once all losses
were in. One thread. Losses are drawn from an exponential distribution; lengths, where they count,
from a gamma distribution, 50 frames and more, 850 on average.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from regrow import samples as rs
from regrow.lab.environment import environment

CRITERIA = {
    type(criterion).__name__: criterion
    for criterion in (
        *(rs.RootLoss(), rs.Cyclic(), rs.Random(), rs.Hard(), rs.Easy(), rs.EasyToHard(), rs.UCB()),
        *(rs.EpsilonGreedy(), rs.SeTa(), rs.Forgetting(), rs.Coverage(), rs.InfoBatch()),
    )
}
# A criterion, of how large a share of what, and the frames of a batch.
WITH_LENGTHS = {
    "RootLoss inside Stratified": (rs.Stratified("length", rs.RootLoss()), "samples", None),
    "RootLoss, a share of the frames": (rs.RootLoss(), "length", None),
    "Random, batches of 16,000 frames": (rs.Random(), "samples", 16_000),
}
TURN = 128  # steps: of 128 samples, two looks
MODELS = {
    "perceptron 784-128-64-10": lambda: nn.Sequential(
        nn.Flatten(),
        nn.Linear(784, 128),
        nn.ReLU(),
        nn.Linear(128, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    ),
    "convolutional 16-32": lambda: nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(32 * 49, 64), nn.ReLU(), nn.Linear(64, 10)),
    ),
}


def resident() -> float:
    """Return this process's memory in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


def epoch(name: str, n: int, keep: float) -> dict[str, float]:
    """Measure the third epoch of a criterion, in this process."""
    torch.set_num_threads(1)
    torch.rand(100_000).kthvalue(3), torch.rand(10).sort()
    rng = np.random.default_rng(0)
    criterion, of, most = WITH_LENGTHS.get(name) or (CRITERIA[name], "samples", None)
    lengths = np.floor(rng.gamma(2, 400, n)) + 50 if name in WITH_LENGTHS else None
    before, highest, ended = resident(), [0.0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.002):
            highest[0] = max(highest[0], resident())

    threading.Thread(target=watch, daemon=True).start()
    samples = rs.Samples(n, criterion, keep=keep, epochs=4, lengths=lengths, share_of=of)
    sampler = samples.batch_sampler(max_length=most) if most else samples.sampler()
    seconds = []
    for start in range(0, n, 1 << 17):
        ids = np.arange(start, min(start + (1 << 17), n))
        samples.update(ids, torch.from_numpy(rng.standard_exponential(len(ids), dtype=np.float32)))
    held = resident()
    for _ in range(3):
        began = time.thread_time()
        next(iter(sampler))
        seconds.append(time.thread_time() - began)
        sampler.set_epoch(samples.epoch + 1)
    ended.set()
    more = {"megabytes": highest[0] - before, "more_megabytes": highest[0] - held}
    return {"seconds": max(seconds[1:])} | more


def steps(batch: int, repeats: int, device: str) -> list[dict[str, object]]:
    """Time steps of small models with and without an update."""
    clock = time.thread_time if device == "cpu" else time.perf_counter
    x, y = torch.randn(batch, 1, 28, 28, device=device), torch.randint(10, (batch,), device=device)
    samples = rs.Samples(1_000_000, keep=0.7)
    next(iter(samples.sampler()))
    order = torch.randperm(1_000_000).split(batch)
    numbers, spent = itertools.count(), [0.0]

    def step(model: nn.Module, optimizer: torch.optim.Optimizer, update: bool) -> None:
        ids = order[next(numbers) % (len(order) - 1)]
        losses = functional.cross_entropy(model(x), y, reduction="none")
        if update:
            began = clock()
            samples.update(ids, losses)
            spent[0] += clock() - began
        optimizer.zero_grad()
        losses.mean().backward()
        optimizer.step()

    def turn(model: nn.Module, optimizer: torch.optim.Optimizer, update: bool) -> float:
        wait = torch.cuda.synchronize if device == "cuda" else int
        wait()
        began = clock()
        for _ in range(TURN):
            step(model, optimizer, update)
        wait()
        return (clock() - began) / TURN

    rows = []
    for name, make in MODELS.items():
        model = make().to(device)
        spent[0] = 0.0
        how = model, torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        times = [(turn(*how, False), turn(*how, True)) for _ in range(max(1, repeats // TURN))]
        alone = statistics.median(a for a, _ in times)
        more = statistics.median(b - a for a, b in times)
        within = spent[0] / TURN / len(times)
        row = {"model": name, "step_ms": 1e3 * alone, "more_ms": 1e3 * more}
        row |= {"update_ms": 1e3 * within, "share": within / alone}
        rows.append(row)
    return rows


def main() -> None:
    """Print, and write if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=10_000_000)
    parser.add_argument("--keep", type=float, default=0.7)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=2560)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--epoch", help="measure one criterion and print JSON")
    args = parser.parse_args()
    if args.epoch:
        print(json.dumps(epoch(args.epoch, args.n, args.keep)))
        return
    torch.set_num_threads(1)
    rows = steps(args.batch, args.repeats, args.device)
    for row in rows:
        print({k: v if isinstance(v, str) else round(v, 4) for k, v in row.items()})
    epochs: dict[str, dict[str, float]] = {}
    for name in (*CRITERIA, *WITH_LENGTHS):
        command = [sys.executable, __file__, "--epoch", name, "--n", str(args.n)]
        command += ["--keep", str(args.keep)]
        epochs[name] = row = json.loads(subprocess.check_output(command))
        figures = f"{row['seconds']:.2f} s {row['megabytes']:.0f} MB {row['more_megabytes']:.0f} MB"
        print(f"{name:32} {figures}")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        asked = {"n": args.n, "keep": args.keep, "batch": args.batch, "device": args.device}
        with_lengths = {name: epochs.pop(name) for name in WITH_LENGTHS}
        found = asked | {"environment": environment(), "steps": rows, "epochs": epochs}
        found |= {"with_lengths": with_lengths}
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
