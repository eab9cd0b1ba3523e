"""All of it in one run: speed, the share of updates, rivals, memory. A record, and tables of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from regrow.execution.csr.dispatch import in_use
from regrow.lab.environment import environment
from regrow.measure.timing import Timing
from regrow.studies.execution.foretold import compare_advice
from regrow.studies.execution.inference import BATCHES, DEPTH, WIDTH, compare_inference
from regrow.studies.execution.layers import WIDTHS, compare_layers
from regrow.studies.execution.memory import peak_memory, perceptron
from regrow.studies.execution.steps import StepSetting, compare
from regrow.vision.models import resnet

__all__ = ["DENSITIES", "PARTS", "SETTINGS", "measure", "surroundings", "table", "title"]

DENSITIES = (0.1, 0.05, 0.01)
PARTS = ("wide", "narrow", "resnet", "layers", "inference", "memory", "advice")
ADVISED = ("wide", "narrow")
MEMORY = (3072, 8000, 8000, 8000, 10)

Rows = list[tuple[str, ...]]


SETTINGS = {
    "wide": StepSetting(
        "perceptron 3072-4000-1000-4000-10, batch 128, Adam",
        partial(perceptron, (3072, 4000, 1000, 4000, 10)),
        (128, 3072),
        10,
        torch.optim.Adam,
        exclude=("6.weight",),
    ),
    "narrow": StepSetting(
        "perceptron 784-1000-1000-1000-10, batch 128, Adam",
        partial(perceptron, (784, 1000, 1000, 1000, 10)),
        (128, 784),
        10,
        torch.optim.Adam,
        exclude=("6.weight",),
        dense_steps=50,
    ),
    "resnet": StepSetting(
        "ResNet-20 of width 64, 32×32 images, batch 64, SGD with momentum",
        lambda: resnet(3, 64, 10),
        (64, 3, 32, 32),
        10,
        lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
        dense_steps=5,
    ),
}


def title(name: str) -> str:
    """Say what a part measures."""
    if name in SETTINGS:
        return f"A training step, RigL's updates every 100 steps included: {SETTINGS[name].name}"
    if name == "layers":
        return "One linear layer, forward and both gradients, batch 128"
    if name == "inference":
        return f"Outputs of {DEPTH} linear layers {WIDTH}×{WIDTH} for some samples at once"
    if name == "advice":
        return "How much faster a step is than dense: told by regrow.advise, and then measured"
    sizes = "-".join(map(str, MEMORY))
    return f"Peak memory above that of import torch, perceptron {sizes}, batch 128, Adam"


def measure(name: str, turns: int) -> dict[str, Any]:
    """Run one part of the benchmark.

    Args:
        name: one of :data:`PARTS`.
        turns: repetitions of everything.

    Returns:
        Its record: numbers and strings only.
    """
    ways: list[dict[str, Any]]
    if name == "memory":
        peaks = {("dense", 1.0): peak_memory(MEMORY, 1.0)}
        peaks |= {("csr", density): peak_memory(MEMORY, density) for density in DENSITIES}
        for density in DENSITIES:
            peaks["csr, built plainly", density] = peak_memory(MEMORY, density, plainly=True)
        ways = [
            {"way": way, "density": density, "bytes": peak}
            for (way, density), peak in peaks.items()
        ]
    elif name == "layers":
        ways = [
            {"way": way, "width": width, "density": density, "seconds": _rounded(timing)}
            for width in WIDTHS
            for (way, density), timing in compare_layers(
                width, DENSITIES, seconds=4.0 * turns
            ).items()
        ]
    elif name == "inference":
        ways = [
            {"way": way, "batch": batch, "density": density, "seconds": _rounded(timing)}
            for batch in BATCHES
            for (way, density), timing in compare_inference(
                WIDTH, DENSITIES[:2], batch, seconds=1.0 * turns
            ).items()
        ]
    elif name == "advice":
        ways = [
            {"network": network, **way}
            for network in ADVISED
            for way in compare_advice(SETTINGS[network], DENSITIES, turns)
        ]
    else:
        densities = (0.05,) if name == "resnet" else DENSITIES
        ways = [
            {
                "way": one.way,
                "density": one.density,
                "seconds": _rounded(one.step),
                "update_share": one.update_share and _rounded(one.update_share),
            }
            for one in compare(SETTINGS[name], densities, turns)
        ]
    return {"part": name, "title": title(name), "ways": ways, "environment": surroundings()}


def surroundings() -> dict[str, str]:
    """Tell what it was measured on."""
    return environment() | {
        "threads": str(torch.get_num_threads()),
        "kernels": in_use(),
        "load": " ".join(f"{load:.2f}" for load in os.getloadavg()),
    }


def table(record: Mapping[str, Any]) -> Rows:
    """Make the rows of a part's table, the header first.

    Example:
        >>> ways = [{"way": "dense", "density": 1.0, "bytes": 2**21}]
        >>> ways += [{"way": "csr", "density": 0.1, "bytes": 2**20}]
        >>> table({"part": "memory", "ways": ways})[-1]
        ('csr', '0.1', '1', '2.00')
    """
    ways = record["ways"]
    if record["part"] == "memory":
        rows: Rows = [("", "density", "MiB", "× smaller")]
        for way in ways:
            smaller = ways[0]["bytes"] / way["bytes"]
            rows.append((*_names(way), f"{way['bytes'] / 2**20:.0f}", f"{smaller:.2f}"))
        return rows
    if record["part"] == "advice":
        return _advice_table(ways)
    by = next((key for key in ("width", "batch") if key in ways[0]), None)
    header = ("", "density", "ms", "middle half", "× faster")
    rows = [(*header, by or "in updates")]
    for way in ways:
        timing, baseline = Timing(tuple(way["seconds"])), _baseline(ways, way, by)
        low, high = (1e3 * seconds for seconds in timing.quartiles)
        faster = f"{baseline.median / timing.median:.2f}"
        row = (*_names(way), f"{1e3 * timing.median:.2f}", f"{low:.2f}-{high:.2f}", faster)
        share = way.get("update_share")
        last = str(way[by]) if by else share and f"{Timing(tuple(share)).median:.1%}"
        rows.append((*row, last or ""))
    return rows


def _baseline(ways: list[dict[str, Any]], way: dict[str, Any], by: str | None) -> Timing:
    """Return the fastest way that is dense in float32, of the same width or batch."""
    dense = [
        Timing(tuple(one["seconds"]))
        for one in ways
        if one["way"].startswith("dense")
        and "bfloat16" not in one["way"]
        and (by is None or one[by] == way[by])
    ]
    return min(dense, key=lambda timing: timing.median)


def _advice_table(ways: list[dict[str, Any]]) -> Rows:
    rows: Rows = [("network", "density", "told ×", "measured ×", "off by", "seconds it took")]
    for way in ways:
        told, measured, took = (Timing(tuple(way[k])) for k in ("told", "measured", "took"))
        off = Timing(tuple(a / b - 1 for a, b in zip(way["told"], way["measured"], strict=True)))
        numbers = (f"{told.median:.2f}", f"{measured.median:.2f}", f"{off.median:+.0%}")
        rows.append((way["network"], f"{way['density']:g}", *numbers, f"{took.median:.1f}"))
    return rows


def _names(way: Mapping[str, Any]) -> tuple[str, str]:
    return way["way"], "" if way["density"] == 1 else f"{way['density']:g}"


def _rounded(timing: Timing) -> list[float]:
    return [round(second, 7) for second in timing.seconds]
