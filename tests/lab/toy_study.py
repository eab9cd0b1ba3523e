"""A study for tests of the lab, and the command line that knows it."""

from __future__ import annotations

import functools
import json
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from regrow.lab.claims import Claim, above, all_of, within
from regrow.lab.statistics import mean_interval, paired_interval
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


def trials(seeds, data):
    if data not in (None, "file", "slow", "trouble"):
        raise ValueError(f"data={data!r}: must be 'file', 'slow' or 'trouble'")
    settings = {"data": "file"} if data == "file" else {"pause": 0.04 * (data == "slow")}
    made = [
        Fit(seed=seed, method=method, density=density, **settings)
        for seed in range(seeds)
        for method in METHODS
        for density in DENSITIES
    ]
    if data == "trouble":
        made += [Fit(seed=7, ends="raises"), Fit(seed=8, ends="memory"), Fit(seed=9, data="file")]
    return made


def gain(records, method, density):
    values = records.where(data="made up", density=density)
    ours, theirs = (values.need("accuracy", method=name) for name in (method, "Static"))
    return paired_interval(ours, theirs, common=True).times(100)


def every(records):
    return all_of({m: above(gain(records, m, 0.05), 0, "points") for m in ("RigL", "SET")})


def sections(records):
    from matplotlib.figure import Figure

    from regrow.lab.figures import about_runs, draw_curves, draw_rows, legend_above, series
    from regrow.lab.report import Section, Table, svg

    found = series(
        records.where(data="made up", ends="well"),
        "accuracy",
        over="density",
        by="method",
        factor=100,
    )
    curves, rows = Figure(), Figure(figsize=(7.2, 2.0))
    axes = curves.subplots()
    draw_curves(axes, found, x="density (fraction of weights kept)", y="accuracy, %", even=True)
    legend_above(axes)
    gains = {m: gain(records, m, 0.05) for m in ("RigL", "SET")}
    draw_rows(rows.subplots(), gains, x="gain over static, points of accuracy", zero=0)
    intervals = [interval for points in found.values() for interval in points.values()]
    table = Table(
        ("method", *(f"{density:g}" for density in DENSITIES)),
        [(m, *(f"{p.mean:.2f} ± {p.half_width:.2f}" for p in found[m].values())) for m in found],
        f"Accuracy in % by density. {about_runs(intervals)}",
    )
    return [
        Section("All numbers", "Accuracy by method and density.", table=table),
        Section(
            "Accuracy against density",
            "Dynamic methods gain most where few weights are kept.",
            svg(curves, "Accuracy against density"),
            caption=about_runs(intervals),
        ),
        Section(
            "Gain over the static topology",
            "At density 0.05, paired over seeds.",
            svg(rows, "Gain over the static topology"),
            caption=about_runs(gains.values()),
        ),
    ]


STUDY = Study(
    name="toy",
    title="Does a toy <learn>?",
    source="Nobody et al. 2020, section 3",
    about="Numbers made up to look like accuracies, with a static topology as the control.",
    presets={
        "smoke": Preset("a second", functools.partial(trials, 2)),
        "quick": Preset("two seconds", functools.partial(trials, 5)),
    },
    claims=(
        Claim(
            "Every dynamic method beats the static topology at density 0.05.",
            "section 3.1",
            "The 95 % interval of the paired gain lies above 0 for RigL and for SET.",
            every,
        ),
        Claim(
            "At density 0.5 it makes no difference.",
            "section 3.2",
            "The 95 % interval of RigL's paired gain lies within ± 1 point.",
            lambda records: within(gain(records, "RigL", 0.5), 1, "points"),
        ),
        Claim(
            "SET is better than RigL.",
            "abstract",
            "The 95 % interval of the accuracy of SET lies above 0.95 at density 0.05.",
            lambda records: above(
                mean_interval(
                    records.where(data="made up", ends="well", density=0.05).need(
                        "accuracy", method="SET"
                    )
                ),
                0.95,
            ),
        ),
        Claim(
            "GraNet is best.",
            "table 2",
            "The 95 % interval of its paired gain over RigL lies above 0.",
            lambda records: above(mean_interval(records.need("accuracy", method="GraNet")), 0),
        ),
    ),
    sections=sections,
)

if __name__ == "__main__":
    from regrow.cli import main
    from regrow.studies.registry import STUDIES

    STUDIES["toy"] = "toy_study:STUDY"
    main()
