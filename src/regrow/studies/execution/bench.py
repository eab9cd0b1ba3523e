"""All of it in one run: speed, the share of updates, memory; a record and tables to read."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from regrow.execution.csr.native import in_use
from regrow.lab.environment import environment
from regrow.measure.timing import Timing
from regrow.studies.execution.layers import WIDTHS, compare_layers
from regrow.studies.execution.memory import peak_memory
from regrow.studies.execution.steps import Comparison, Setting, compare
from regrow.vision.models import resnet

__all__ = ["DENSITIES", "PARTS", "SETTINGS", "Part", "measure", "surroundings", "title"]

DENSITIES = (0.1, 0.05, 0.01)
PARTS = ("wide", "narrow", "resnet", "layers", "memory")
MEMORY = (3072, 8000, 8000, 8000, 10)


def _perceptron(*sizes: int) -> Callable[[], torch.nn.Module]:
    def build() -> torch.nn.Module:
        layers: list[torch.nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [torch.nn.Linear(before, after), torch.nn.ReLU()]
        return torch.nn.Sequential(*layers[:-1])

    return build


SETTINGS = {
    "wide": Setting(
        "perceptron 3072-4000-1000-4000-10, batch 128, Adam",
        _perceptron(3072, 4000, 1000, 4000, 10),
        (128, 3072),
        10,
        torch.optim.Adam,
        exclude=("6.weight",),
    ),
    "narrow": Setting(
        "perceptron 784-1000-1000-1000-10, batch 128, Adam",
        _perceptron(784, 1000, 1000, 1000, 10),
        (128, 784),
        10,
        torch.optim.Adam,
        exclude=("6.weight",),
        dense_steps=50,
    ),
    "resnet": Setting(
        "ResNet-20 of width 64, 32×32 images, batch 64, SGD with momentum",
        lambda: resnet(3, 64, 10),
        (64, 3, 32, 32),
        10,
        lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
        dense_steps=5,
    ),
}


@dataclass(frozen=True)
class Part:
    """One part of the benchmark.

    Args:
        title: of its table.
        rows: of its table, the header first.
        record: numbers for a file.
    """

    title: str
    rows: list[tuple[str, ...]]
    record: dict[str, Any]

    def __str__(self) -> str:
        """Draw the table."""
        widths = [max(map(len, column)) for column in zip(*self.rows, strict=True)]
        lines = [
            "  ".join(
                cell.rjust(w) if i else cell.ljust(w)
                for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            )
            for row in self.rows
        ]
        return "\n".join([self.title, *(line.rstrip() for line in lines)])


def title(name: str) -> str:
    """Say what a part measures."""
    other = {"memory": "peak memory of a process", "layers": "one layer beside its rivals"}
    return SETTINGS[name].name if name in SETTINGS else other[name]


def measure(name: str, turns: int) -> Part:
    """Run one part of the benchmark.

    Args:
        name: one of :data:`PARTS`.
        turns: repetitions of everything.
    """
    if name == "layers":
        return _layers(turns)
    return _memory() if name == "memory" else _speed(SETTINGS[name], name, turns)


def surroundings() -> dict[str, str]:
    """Tell what it was measured on."""
    return environment() | {
        "threads": str(torch.get_num_threads()),
        "kernels": in_use(),
        "load": " ".join(f"{load:.2f}" for load in os.getloadavg()),
    }


def _speed(setting: Setting, name: str, turns: int) -> Part:
    densities = (0.05,) if name == "resnet" else DENSITIES
    found = compare(setting, densities, turns)
    dense = found[0].step.median
    rows: list[tuple[str, ...]] = [
        ("", "density", "ms a step", "middle half", "× faster", "in updates")
    ]
    for one in found:
        low, high = (seconds * 1e3 for seconds in one.step.quartiles)
        share = "" if one.update_share is None else f"{one.update_share.median:.1%}"
        density = "" if one.density == 1 else f"{one.density:g}"
        rows.append(
            (
                one.way,
                density,
                f"{one.step.median * 1e3:.2f}",
                f"{low:.2f}-{high:.2f}",
                f"{dense / one.step.median:.2f}",
                share,
            )
        )
    title = f"A training step, RigL's updates every 100 steps included: {setting.name}"
    return Part(title, rows, {"part": name, "setting": setting.name, "ways": _record(found)})


def _record(found: Sequence[Comparison]) -> list[dict[str, Any]]:
    def numbers(timing: Timing | None) -> list[float] | None:
        return None if timing is None else [round(value, 7) for value in timing.seconds]

    return [
        {
            "way": one.way,
            "density": one.density,
            "step_seconds": numbers(one.step),
            "update_share": numbers(one.update_share),
        }
        for one in found
    ]


def _layers(turns: int) -> Part:
    rows: list[tuple[str, ...]] = [("", "width", "density", "ms", "middle half", "× faster")]
    record: list[dict[str, Any]] = []
    for width in WIDTHS:
        found = compare_layers(width, DENSITIES, seconds=4.0 * turns)
        dense = found["dense", 1.0].median
        for (way, density), timing in found.items():
            low, high = (seconds * 1e3 for seconds in timing.quartiles)
            rows.append(
                (
                    way,
                    str(width),
                    "" if density == 1 else f"{density:g}",
                    f"{timing.median * 1e3:.2f}",
                    f"{low:.2f}-{high:.2f}",
                    f"{dense / timing.median:.2f}",
                )
            )
            numbers = [round(second, 7) for second in timing.seconds]
            record.append({"way": way, "width": width, "density": density, "seconds": numbers})
    title = "One linear layer, forward and both gradients, batch 128"
    return Part(title, rows, {"part": "layers", "ways": record})


def _memory() -> Part:
    peaks = {density: peak_memory(MEMORY, density) for density in (1.0, *DENSITIES)}
    rows: list[tuple[str, ...]] = [("", "density", "MiB", "× smaller")]
    for density, peak in peaks.items():
        way = ("dense", "") if density == 1 else ("csr", f"{density:g}")
        rows.append((*way, f"{peak / 2**20:.0f}", f"{peaks[1.0] / peak:.2f}"))
    sizes = "-".join(map(str, MEMORY))
    title = f"Peak memory above that of import torch, perceptron {sizes}, batch 128, Adam"
    record = {"part": "memory", "sizes": MEMORY, "bytes": {str(d): p for d, p in peaks.items()}}
    return Part(title, rows, record)
