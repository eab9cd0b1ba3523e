"""Does choosing samples by their losses help where numbers are learnt, not classes?

    python benchmarks/samples_numbers.py --json results/samples/numbers.json

Perceptrons learn, by the squared error, how far a Fashion-MNIST image is turned, how far a
pedestrian of ETH and UCY walks ahead in 4.8 s (in $REGROW_DATA; another place is held out by seed),
and Friedman's first function. All arms at a share take as many steps; the base is random choice
without replacement across epochs. Decided before the runs: the guard of RootLoss may be left on for
numbers if it loses nothing (over the three, no interval against no guard lies below 0, and no mean
below -.3 points) where no number is wrong, and gains where a fifth is. Points are of the variance
of true numbers that is explained (100 R²), on data never learnt from.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track
from torch import Tensor, nn

from regrow import samples as rs
from regrow.engine.selection import random_k, seeded_generator
from regrow.lab.environment import environment
from regrow.lab.statistics import mean_interval, paired_interval
from regrow.motion.formats.pedestrians import read_pedestrians
from regrow.studies.sample_pruning.batches import WRONG, changed_index
from regrow.vision.data import load_data

Data = tuple[Tensor, Tensor, Tensor, Tensor]  # what is learnt from, and tested on
ARMS: dict[str, rs.Criterion] = {
    "cyclic": rs.Cyclic(),
    "ours": rs.RootLoss(),
    "ours, no guard": rs.RootLoss(guard=False),
    "InfoBatch": rs.InfoBatch(normalise=True),
    "hard": rs.Hard(),
}
KEEP = 0.5
PLACES = (
    ("biwi_eth",),
    ("biwi_hotel",),
    ("students001", "uni_examples"),
    ("crowds_zara01", "crowds_zara03"),
    ("crowds_zara02",),
)


@dataclass(frozen=True)
class Condition:
    """What the numbers that are learnt from are like.

    Args:
        samples: how many are learnt from; fewer are learnt by heart.
        epochs: over them, of full data.
    """

    samples: int = 6000
    epochs: int = 15


CONDITIONS = {
    "clean": Condition(),
    "copies": Condition(),
    "rare": Condition(),
    "heavy tails": Condition(),
    "wrong": Condition(),
    "wrong, by heart": Condition(1000, 120),
}


@cache
def turned(seed: int) -> Data:
    """Return images turned by -60° to 60°, of 14×14 pixels, and the angles."""
    data = load_data("fashion-mnist")
    generator = seeded_generator(seed, "angles")
    parts = []
    for images, n in ((data.train_inputs, 6000), (data.test_inputs, 4000)):
        chosen = random_k(n, torch.ones(len(images), dtype=torch.bool), generator)
        angle = (torch.rand(n, generator=generator) - 0.5) * (2 * math.pi / 3)
        cos, sin, zero = angle.cos(), angle.sin(), torch.zeros(n)
        turn = torch.stack([cos, -sin, zero, sin, cos, zero], 1).view(n, 2, 3)
        pixels = images[chosen].float() / 255
        grid = nn.functional.affine_grid(turn, list(pixels.shape), align_corners=False)
        pixels = nn.functional.grid_sample(pixels, grid, align_corners=False)
        parts += [nn.functional.avg_pool2d(pixels, 2).flatten(1), angle]
    return parts[0], parts[1], parts[2], parts[3]


@cache
def _walks(name: str) -> tuple[Tensor, Tensor]:
    """Return the last seven velocities in the frame of the last one, and metres walked ahead."""
    path = Path(os.environ["REGROW_DATA"]) / "eth-ucy" / f"{name}.txt"
    inputs, ahead = [], []
    for scene in read_pedestrians(path):
        for one in scene.targets:
            at = scene.states[one, :, :2]
            last = at[7] - at[6]
            along = last / max(float(np.hypot(*last)), 1e-6)
            frame = np.stack([along, [-along[1], along[0]]], 1)
            inputs.append((np.diff(at[:8], axis=0) @ frame).ravel())
            ahead.append((at[-1] - at[7]) @ along)
    return torch.tensor(np.array(inputs)).float(), torch.tensor(np.array(ahead)).float()


@cache
def pedestrians(seed: int) -> Data:
    """Return walks of four places, and those of the fifth."""
    held = PLACES[seed % len(PLACES)]
    parts = [
        [_walks(name) for place in PLACES for name in place if (name in held) is test]
        for test in (False, True)
    ]
    (train, ahead), (test, truth) = (map(torch.cat, zip(*some, strict=True)) for some in parts)
    few = random_k(6000, torch.ones(len(train), dtype=torch.bool), seeded_generator(seed, "walks"))
    return train[few], ahead[few], test, truth


@cache
def friedman(seed: int) -> Data:
    """Return Friedman's first function of ten numbers, with noise of 1; tested without noise.

    y = 10 sin(π x₁ x₂) + 20 (x₃ - ½)² + 10 x₄ + 5 x₅, x uniform in 0..1.
    """
    generator = seeded_generator(seed, "friedman")
    x = torch.rand(10_000, 10, generator=generator)
    y = 10 * (math.pi * x[:, 0] * x[:, 1]).sin() + 20 * (x[:, 2] - 0.5) ** 2
    y += 10 * x[:, 3] + 5 * x[:, 4]
    return x[:6000], y[:6000] + torch.randn(6000, generator=generator), x[6000:], y[6000:]


SETS: dict[str, Callable[[int], Data]] = {
    "angles of images": turned,
    "pedestrians": pedestrians,
    "Friedman 1": friedman,
}


def changed(data: Data, condition: str, seed: int) -> tuple[Data, Tensor]:
    """Return data as a condition makes them, standardized, and which numbers are odd."""
    x, y, test, truth = data
    generator = seeded_generator(seed, "numbers", condition)
    n = min(CONDITIONS[condition].samples, len(y))
    few = random_k(n, torch.ones(len(y), dtype=torch.bool), generator)
    x, y = x[few], y[few].clone()
    odd = torch.zeros(n, dtype=torch.bool)
    if condition in ("copies", "rare"):  # rare: of tenths of the range by rank, up to 20 times
        tenths = y.argsort().argsort() * 10 // n
        index = changed_index(tenths, "copies" if condition == "copies" else "imbalanced", seed)
        x, y, odd = x[index], y[index], odd[index]
        if condition == "copies":
            odd[len(odd) - round(0.3 * len(odd)) :] = True
    elif condition == "heavy tails":  # Student's t with two degrees of freedom: no variance
        normal = torch.randn(3, n, generator=generator)
        y += 0.3 * y.std() * normal[0] / normal[1:].square().mean(0).sqrt()
    elif condition != "clean":  # those of others
        odd = random_k(round(WRONG * n), torch.ones(n, dtype=torch.bool), generator)
        those = odd.nonzero().squeeze(1)
        y[those] = y[those[torch.randperm(len(those), generator=generator)]]
    spread, mean = torch.std_mean(y)
    low, high = x.mean(0), x.std(0).clamp(min=1e-6)
    made = (x - low) / high, (y - mean) / spread, (test - low) / high, (truth - mean) / spread
    return made, odd


def learn(
    data: Data, odd: Tensor, criterion: rs.Criterion, keep: float, epochs: int, seed: int
) -> dict[str, float]:
    """Train, and return R² and how often odd numbers were learnt, relative to all."""
    x, y, test, truth = data
    torch.manual_seed(seed)
    width = x.shape[1]
    model = nn.Sequential(
        *(nn.Linear(width, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))
    )
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    samples = rs.Samples(len(y), criterion, keep, epochs=epochs, seed=seed)
    loader = samples.batch_sampler(32, drop_last=True)
    for _ in range(epochs):
        for index in loader:
            rate = 1e-3 * (1 + math.cos(math.pi * samples.progress))
            optimizer.param_groups[0]["lr"] = rate
            losses = (model(x[index]).squeeze(1) - y[index]).square()
            samples.update(index, losses)
            optimizer.zero_grad()
            (losses * samples.weights(index)).mean().backward()
            optimizer.step()
    with torch.no_grad():
        error = (model(test).squeeze(1) - truth).double().square().mean()
    seen = samples.scores["seen"].double()
    found = {"r2": 1 - float(error / truth.double().var(unbiased=False))}
    if bool(odd.any()):
        found["visits"] = float(seen[odd].mean() / seen.mean())
    return found


def runs(seeds: int) -> Iterator[tuple[str, str, str, float, int]]:
    """Yield set, condition, arm, share and seed of all runs."""
    for where in itertools.product(SETS, CONDITIONS):
        for seed in range(seeds):
            yield (*where, "full", 1.0, seed)
            yield from ((*where, arm, KEEP, seed) for arm in ARMS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for name, condition, arm, keep, seed in track(list(runs(given.seeds)), "training"):
        data, odd = changed(SETS[name](seed), condition, seed)
        criterion = ARMS.get(arm, rs.Cyclic())
        found = learn(data, odd, criterion, keep, CONDITIONS[condition].epochs, seed)
        labels = {"data": name, "condition": condition, "arm": arm, "keep": keep, "seed": seed}
        rows.append(labels | found)
    for name, condition in itertools.product(SETS, CONDITIONS):
        here = [row for row in rows if (row["data"], row["condition"]) == (name, condition)]
        by_arm = {
            arm: {row["seed"]: 100 * row["r2"] for row in here if row["arm"] == arm}
            for arm in ("full", *ARMS)
        }
        print(f"{name}, {condition}: full {mean_interval(by_arm['full']).mean:.1f}")
        for arm in list(ARMS)[1:]:
            told = paired_interval(by_arm[arm], by_arm["cyclic"])
            print(f"    {arm:16} {told.mean:+6.2f} ± {told.half_width:.2f}")
    if given.json:
        record = {"environment": environment(), "rows": rows}
        given.json.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
