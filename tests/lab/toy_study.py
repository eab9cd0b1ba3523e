"""A study for tests of the lab; a module of its own, so that other processes can import it."""

from __future__ import annotations

import functools
import json
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from regrow.lab import charts
from regrow.lab.claims import Claim, above
from regrow.lab.design import Labelled, grid
from regrow.lab.effects import ACCURACY, Measure, gain, level
from regrow.lab.learnt import Known
from regrow.lab.rules import claim, each
from regrow.lab.section import Section
from regrow.lab.study import Preset, Study
from regrow.lab.trial import Trial

DENSITIES = (0.05, 0.1, 0.5)
METHODS = ("RigL", "SET", "Static")


@dataclass(frozen=True, kw_only=True)
class Fit(Trial):
    """Pretends to train: accuracy grows with density, and a little by method."""

    method: str = "Static"
    density: float = 0.1
    data: str = "made up"
    steps: int = 3
    pause: float = 0.0
    ends: str = "well"

    def run(self, run):
        if self.ends == "raises":
            raise ZeroDivisionError("<b>one & all</b>")
        if self.ends == "memory":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        shift = 0.0
        if self.data == "file":
            shift = json.loads((Path(run.options["data_dir"]) / "shift.json").read_text())
        rng = torch.Generator().manual_seed(10 * self.seed + METHODS.index(self.method))
        noise = 0.01 * float(torch.randn((), generator=rng))
        gain = {"RigL": 0.03, "SET": 0.02, "Static": 0.0}[self.method]
        accuracy = 0.9 + 0.05 * self.density + gain * (1 - self.density) + noise + shift
        state = run.load() or {"step": 0}
        for step in range(state["step"], self.steps):
            time.sleep(self.pause)
            run.log(step=step, accuracy=accuracy * (step + 1) / self.steps, phase="train")
            run.save({"step": step + 1})
            run.tell((step + 1) / self.steps)
        return {"accuracy": accuracy, "curve": [0.5, accuracy], "device": run.options["device"]}


def arm(method):
    return lambda density: {"method": method, "density": density}


def trials(seeds, task="toy", **fields):
    arms = {method: arm(method) for method in METHODS}
    base = Fit(seed=0, **fields)
    return grid(base, arms, seeds=seeds, labels={"task": task}, density=DENSITIES)


def trouble(seeds):
    odd = [Fit(seed=7, ends="raises"), Fit(seed=8, ends="memory"), Fit(seed=9, data="file")]
    return [*trials(seeds), *(Labelled({"part": "trouble"}, one) for one in odd)]


def preset(cost, seeds, **more):
    designs = {
        "made up": functools.partial(trials, seeds),
        "file": functools.partial(trials, seeds, "file", data="file"),
        "slow": functools.partial(trials, seeds, "slow", pause=0.04),
        "trouble": functools.partial(trouble, seeds),
    }
    return Preset(cost, designs, default="made up", **more)


POINTS = Measure("accuracy", ACCURACY.read, "points")


def numbers(view):
    lines = {m: [level(m, POINTS, density=d).maybe(view) for d in DENSITIES] for m in METHODS}
    columns = [f"{density:g}" for density in DENSITIES]
    yield Section("All numbers", "By density.", table=charts.values_table(lines, columns))


def curves(view):
    lines = charts.curves_of(view, lambda m, d: level(m, POINTS, density=d), METHODS, DENSITIES)
    text = "Dynamic methods gain most where few weights are kept."
    yield from charts.curves(
        "Accuracy against density", text, {"": lines}, x="density", y="accuracy, %"
    )


def gains_over_static(view):
    gains = {m: gain(m, "Static", POINTS, density=0.05).interval(view) for m in ("RigL", "SET")}
    title = "Gain over the static topology"
    yield from charts.rows(title, "At density 0.05.", {"": gains}, x="points of accuracy")


STUDY = Study(
    name="toy",
    title="Does a toy <learn>?",
    source="Nobody et al. 2020, section 3",
    about="Numbers made up to look like accuracies, with a static topology as the control.",
    presets={"smoke": preset("a second", 2, judges=False), "quick": preset("two seconds", 5)},
    claims=(
        claim(
            "Every dynamic method beats the static topology at density 0.05.",
            "section 3.1",
            each(("RigL", "SET"), lambda m: gain(m, "Static", POINTS, density=0.05)),
            above=0,
        ),
        claim(
            "At density 0.5 it makes no difference.",
            "section 3.2",
            gain("RigL", "Static", POINTS, density=0.5),
            within=1,
        ),
        Claim(
            "SET is better than RigL.",
            "abstract",
            "The 95 % interval of the accuracy of SET lies above 95 % at density 0.05.",
            lambda view: above(level("SET", POINTS, density=0.05).interval(view), 95),
        ),
        claim("GraNet is best.", "table 2", gain("GraNet", "RigL", POINTS), above=0),
    ),
    page=(numbers, curves, gains_over_static),
    known=(Known({"arm": "Static"}, 90.0, "the toy itself"),),
)
