"""Seconds of a training step: dense in float32, dense in bfloat16, stored at several densities.

All run in turns. A turn of a stored network is as many steps as lie between two updates of its
topology, one update included; what it takes is divided by the number of steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from regrow.engine.methods import RigL
from regrow.engine.sparsifier import Sparsifier
from regrow.engine.sparsify import sparsify
from regrow.measure.timing import Timing, now

__all__ = ["Comparison", "StepSetting", "compare"]


@dataclass(frozen=True)
class StepSetting:
    """What is trained.

    Args:
        name: in words.
        build: makes the network.
        inputs: the shape of a batch.
        classes: outputs.
        optimizer: makes the optimizer.
        exclude: weights that stay dense.
        dense_steps: steps of a dense turn.
        update_every: steps between updates, and of a stored turn.
    """

    name: str
    build: Callable[[], nn.Module]
    inputs: tuple[int, ...]
    classes: int
    optimizer: Callable[[Iterator[nn.Parameter]], Optimizer]
    exclude: tuple[str, ...] = ()
    dense_steps: int = 10
    update_every: int = 100


@dataclass(frozen=True)
class Comparison:
    """What was found for one way of training.

    Args:
        way: "dense float32" or "dense bfloat16", of images also with ", channels last"; or "csr".
        density: of sparse weights; 1 for dense.
        step: seconds a step, updates included; one number a turn.
        update_share: of the time spent in updates; None for dense networks.
    """

    way: str
    density: float
    step: Timing
    update_share: Timing | None


class _Run:
    """One network being trained."""

    def __init__(
        self,
        setting: StepSetting,
        density: float,
        *,
        bfloat16: bool = False,
        layout: torch.memory_format = torch.contiguous_format,
    ) -> None:
        torch.manual_seed(0)
        self.model = setting.build().to(memory_format=layout)  # type: ignore[call-overload]
        self.optimizer = setting.optimizer(self.model.parameters())
        self.images = torch.randn(setting.inputs).contiguous(memory_format=layout)
        self.labels = torch.randint(setting.classes, (setting.inputs[0],))
        self.bfloat16 = bfloat16
        self.sparse: Sparsifier | None = None
        if density < 1:
            self.sparse = sparsify(
                self.model,
                self.optimizer,
                RigL(density=density, update_every=setting.update_every, stop_at=1.0),
                total_steps=1 << 20,
                exclude=list(setting.exclude) or None,
                execution="csr",
            )
        self.steps = setting.update_every if self.sparse else setting.dense_steps

    def loss(self) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            return functional.cross_entropy(self.model(self.images).float(), self.labels)

    def step(self) -> float:
        started = now()
        self.optimizer.zero_grad()
        self.loss().backward()
        self.optimizer.step()
        return now() - started

    def turn(self) -> tuple[float, float]:
        """Make a turn of steps; return seconds a step, and the share of the update."""
        times, update = [], 0.0
        for _ in range(self.steps):
            updates = len(self.sparse.history) if self.sparse else 0
            times.append(self.step())
            if self.sparse and len(self.sparse.history) > updates:
                update = times[-1]
        ordinary = float(np.median(times))
        return sum(times) / len(times), max(update - ordinary, 0.0) / sum(times)


def _channels_last(setting: StepSetting) -> dict[tuple[str, float], _Run]:
    """Dense networks of images in the layout in which torch convolves them fastest."""
    if len(setting.inputs) != 4:
        return {}
    layout = torch.channels_last
    return {
        (f"dense {kind}, channels last", 1.0): _Run(setting, 1.0, bfloat16=half, layout=layout)
        for kind, half in (("float32", False), ("bfloat16", True))
    }


def compare(setting: StepSetting, densities: tuple[float, ...], turns: int = 5) -> list[Comparison]:
    """Train dense and stored networks in turns, and time their steps.

    Args:
        setting: what is trained.
        densities: of the stored networks.
        turns: of each; the medians and the spread are over them.

    Returns:
        The dense networks first.
    """
    runs = {
        ("dense float32", 1.0): _Run(setting, 1.0),
        ("dense bfloat16", 1.0): _Run(setting, 1.0, bfloat16=True),
        **_channels_last(setting),
        **{("csr", density): _Run(setting, density) for density in densities},
    }
    for run in runs.values():
        for _ in range(2):
            run.step()
    found: dict[tuple[str, float], list[tuple[float, float]]] = {key: [] for key in runs}
    for _ in range(turns):
        for key, run in runs.items():
            found[key].append(run.turn())
    return [
        Comparison(
            way,
            density,
            Timing(tuple(seconds for seconds, _ in turns_of)),
            Timing(tuple(share for _, share in turns_of)) if density < 1 else None,
        )
        for (way, density), turns_of in found.items()
    ]
