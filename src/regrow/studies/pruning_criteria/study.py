"""Where to prune in dynamic sparse training: which weights to drop, and does it matter?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any

from regrow.lab.charts import costs, curves, curves_of, palette, rows, rows_of, values_table
from regrow.lab.claims import Answer
from regrow.lab.effects import ACCURACY, EVERY, HIGHEST, LOWEST, BySeed, Effect, Measure, level
from regrow.lab.effects import gain as over_other
from regrow.lab.figures import ON_DARK, ON_LIGHT, Curves, about_runs
from regrow.lab.learnt import Known
from regrow.lab.panels import panels
from regrow.lab.records import Record
from regrow.lab.rules import claim, each
from regrow.lab.section import Section, estimate
from regrow.lab.statistics import Interval, averaged, mean_interval
from regrow.lab.study import Study
from regrow.lab.view import View
from regrow.studies.pruning_criteria.criteria import CRITERIA, GROWTH, PAPER
from regrow.studies.pruning_criteria.design import PRESETS
from regrow.studies.pruning_criteria.overlaps import ASKED

__all__ = ["CLAIMS", "STUDY"]

LOW, HIGH = 0.05, 0.2
MARGIN = 1.0  # points of accuracy that matter
QUITE_DIFFERENT = 0.5
OTHERS = tuple(name for name in PAPER if name != "magnitude")


def gain(one: Any, over: Any, **at: Any) -> Effect:
    """Ask for a gain in the criteria grid, mean over growth rules, unless labels say otherwise."""
    return over_other(one, over, **{"part": "grid", "growth": EVERY} | at)


@dataclass(frozen=True)
class Spread(Effect):
    """How far the best criterion is above the worst, by seed, mean over growth rules.

    Args:
        density: at which.
    """

    density: float
    measure = ACCURACY

    def by_seed(self, task: View) -> BySeed:
        """Compute it."""
        return averaged([self._spread(task, growth) for growth in GROWTH])

    def _spread(self, task: View, growth: str) -> BySeed:
        here = task.where(part="grid", density=self.density, growth=growth)
        found = [here.where(arm=name).values(ACCURACY) for name in PAPER]
        seeds = set.intersection(*map(set, found))
        return {s: max(of[s] for of in found) - min(of[s] for of in found) for s in seeds}

    def __str__(self) -> str:
        return f"the best of the five criteria over the worst (density {self.density:g})"


_SHARE = 0.25  # of the active weights that criteria choose at the first update


def _first(record: Record, one: str, other: str) -> float:
    """Read how alike two criteria choose at the first update, in the order of their list."""
    return float(record.result["first"][str(_SHARE)][f"{one} | {other}"])


def _later(record: Record, moment: int, other: str) -> float:
    """Read how alike magnitude and another criterion choose during training."""
    return float(record.result["during"][moment]["pairs"][f"magnitude | {other}"])


def _others_first(record: Record) -> float:
    others = ("SNIP", "reciprocal sensitivity")
    return sum(_first(record, "magnitude", other) for other in others) / len(others)


ALIKE = Measure(
    "Jaccard index with the choice of SNIP and with that of reciprocal sensitivity (the mean; a "
    "quarter is dropped, at the first update)",
    _others_first,
    "(Jaccard index)",
)

# ---------------------------------------------------------------------- claims

_SOURCE = "Nowak et al. 2023"
KNOWN = [
    Known({"task": task, "arm": "dense"}, level, source, chance=10.0)
    for task, level, source in (
        ("MLP 100-50 on digits", 97.0, "scikit-learn's example of digits"),
        ("MLP 300-100 on Fashion-MNIST", 87.5, "results/pruning-criteria"),
        ("LeNet-5 on Fashion-MNIST", 90.0, "results/pruning-criteria"),
        ("MLP 1024-512 on CIFAR-10", 53.6, "results/pruning-criteria"),
        ("small CNN on CIFAR-10", 75.6, "results/pruning-criteria"),
        ("ResNet-20 on CIFAR-10", 80.0, "results/pruning-criteria"),
    )
]

CLAIMS = (
    claim(
        "Most criteria give similar results.",
        f"{_SOURCE}, abstract",
        each(OTHERS, lambda name: gain(name, "magnitude", density=HIGH)),
        count=3,
        within=MARGIN,
        answer=Answer(
            "at density 0.2 most criteria are within a point of magnitude",
            "at density 0.2 it matters by which criterion weights are dropped",
        ),
    ),
    claim(
        "Differences between criteria grow at low density.",
        f"{_SOURCE}, abstract",
        Spread(LOW) - Spread(HIGH),
        above=0,
        answer=Answer(
            "at 0.05 they differ more",
            "at 0.05 they differ no more",
        ),
    ),
    claim(
        "At low density magnitude is the best.",
        f"{_SOURCE}, abstract",
        each(OTHERS, lambda name: gain("magnitude", name, density=LOW)),
        above=0,
        answer=Answer(
            "magnitude is the best there",
            "magnitude is not the best there",
        ),
    ),
    claim(
        "Any criterion beats the static topology.",
        f"{_SOURCE}, caption of figure 1",
        {
            f"{name}, {growth}": over_other(
                {"arm": name, "growth": growth}, "static", part="grid", density=EVERY
            )
            for name in PAPER
            for growth in GROWTH
        },
        above=0,
    ),
    claim(
        "Criteria choose quite different weights.",
        f"{_SOURCE}, section on similarity (as summarised by others; unverified)",
        level("magnitude", ALIKE, part="overlaps"),
        below=QUITE_DIFFERENT,
        note="Two random choices have 0.14.",
    ),
    claim(
        "Updating too often hurts.",
        f"{_SOURCE}, figure 4 (direction recalled; unverified)",
        over_other(
            {"part": "periods", "period": LOWEST},
            {"part": "grid"},
            arm=("magnitude", "SNIP"),
            growth=EVERY,
            density=0.1,
        ),
        below=0,
    ),
    claim(
        "Dynamic sparse training at high density regularises.",
        f"{_SOURCE}, figure 5 (direction recalled; unverified)",
        {
            f"against {other}": gain("magnitude", other, part="few samples", density=HIGHEST)
            for other in ("dense", "static")
        },
        above=0,
    ),
    claim(
        "Which weights are dropped matters at all.",
        "a control of ours",
        gain("magnitude", "random", density=LOW),
        above=0,
    ),
    claim(
        "A sparse network that moves beats a dense one with as many parameters.",
        "a control of ours",
        gain("magnitude", "small dense", density=LOW),
        above=0,
    ),
    claim(
        "The sign rule that public code ships as SET is worse than SET's own.",
        "a control of ours",
        gain("SET as shipped", "SET", growth="random", density=EVERY),
        below=0,
    ),
)

# ---------------------------------------------------------------------- figures

_COLOUR = palette((*PAPER, "random", "small dense", "static", "SET as shipped"))
_ACCURACY = "test accuracy, %"


def accuracy_by_criterion(view: View) -> Iterator[Section]:
    """Draw the criteria grid, a panel a growth rule."""
    for task, here in view.where(part="grid").by("task").items():
        panels = {
            f"{growth} growth": curves_of(
                here.where(growth=(growth, None)),
                lambda arm, density: level(arm, density=density),
                (*CRITERIA, "static", "small dense"),
                here.axis("density"),
            )
            for growth in GROWTH
        }
        dense = rows_of(here, {"dense": level("dense")})
        yield from curves(
            f"Accuracy by criterion: {task}",
            "Each line is a rule for what to drop. Small dense: a narrower dense network with no "
            "more parameters. As shipped: the sign rule that public code has under SET's name, "
            "with random growth only.",
            panels,
            x="density",
            y=_ACCURACY,
            colours=_COLOUR,
            levels=dict.fromkeys(panels, dense),
            limits=_limits([*panels.values(), {"dense": dense}]),
            note="What lies far below is cut off; the tables hold all numbers.",
        )


def _limits(panels: Sequence[Mapping[str, Mapping[Any, Interval]]]) -> tuple[float, float]:
    """Frame the better criteria and the controls, so that they can be told apart."""
    framed = ("dense", "static", "small dense", "magnitude", "SET")
    means = [i.mean for panel in panels for name in framed for i in panel.get(name, {}).values()]
    room = max(0.35 * (max(means) - min(means)), 0.5)
    return min(means) - room, max(means) + room / 2


def against_magnitude(view: View) -> Iterator[Section]:
    """Draw what each criterion and control gains over dropping by magnitude."""
    tasks = view.where(part="grid").by("task").values()
    everywhere = set.intersection(*(set(task.axis("density")) for task in tasks)) if tasks else ()
    others = (*OTHERS, "random", "static", "small dense")
    gains = {
        f"density {density:g}": rows_of(
            view, {name: gain(name, "magnitude", density=density) for name in others}
        )
        for density in sorted(everywhere)
    }
    over = "both growth rules"
    if len(tasks) > 1:
        over += f" and {len(tasks)} models and data sets, each weighing the same"
    yield from rows(
        "What each choice is worth, over all models",
        f"Difference to dropping by magnitude, paired by seed, averaged over {over}. The band is "
        f"± {MARGIN:g} point.",
        gains,
        x="points of accuracy over magnitude",
        band=MARGIN,
    )


def update_periods(view: View) -> Iterator[Section]:
    """Draw accuracies by the steps between updates, those of the criteria grid among them."""
    for task, every in view.by("task").items():
        for density, swept in every.where(part="periods").by("density").items():
            here = every.where(part=("grid", "periods"), density=density)
            drawn = {
                f"{name}, {growth} growth": points
                for growth in GROWTH
                for name, points in curves_of(
                    here.where(growth=growth),
                    lambda name, period: level(name, period=period),
                    CRITERIA,
                    here.axis("period"),
                ).items()
                if len(points) > 1
            }
            (own,) = every.where(part="grid").axis("period")
            yield from curves(
                f"How often to update: {task}, density {density:g}",
                f"The criteria grid has {own} steps between updates. Few updates leave the "
                "topology nearly where it was drawn; with many, new weights have no time to grow.",
                {"": drawn},
                x="optimizer steps between updates",
                y=_ACCURACY,
                log_x=True,
                levels={"": rows_of(swept, {"static": level("static")})},
            )


def same_choices(view: View) -> Iterator[Section]:
    """Draw how alike criteria choose from one state, at the first update and during training."""
    for task, here in view.where(part="overlaps").by("task").items():
        yield _first_choices(str(task), here)
        yield from curves(
            f"Do they go on to agree? During training: {task}",
            "What each criterion would drop, beside magnitude, half of the active weights dropped; "
            "the network itself is trained with magnitude and gradient growth.",
            {"": _later_choices(here)},
            x="optimizer step",
            y="Jaccard index",
            even=False,
            limits=(0, 1.02),
            levels={"": {"two random choices": Interval(1 / 3, math.nan, math.nan, 1)}},
        )


def _first_choices(task: str, here: View) -> Section:
    """Draw a matrix of all pairs of criteria."""
    from matplotlib.figure import Figure  # noqa: PLC0415 (an extra, and slow to import)

    names = list(ASKED)
    figure = Figure(figsize=(4.2, 3.4))
    axes = figure.subplots()
    matrix = [[math.nan] * len(names) for _ in names]
    shown = []
    for (i, one), (j, other) in combinations(enumerate(names), 2):
        alike = mean_interval(here.values(partial(_first, one=one, other=other)))
        matrix[j][i] = alike.mean
        shown.append(alike)
        said = f"{alike.mean:.2f}" + f"\n± {alike.half_width:.2f}" * (alike.n > 1)
        colour = ON_DARK if alike.mean < 0.5 else ON_LIGHT
        axes.text(i, j, said, ha="center", va="center", color=colour, fontsize=6)
    image = axes.imshow(matrix, vmin=0, vmax=1, cmap="cividis")
    axes.set_xticks(range(len(names) - 1), names[:-1], rotation=30, ha="right")
    axes.set_yticks(range(1, len(names)), names[1:])
    axes.set_xlim(-0.5, len(names) - 1.5)
    axes.set_ylim(len(names) - 0.5, 0.5)
    axes.grid(visible=False)
    figure.colorbar(image, ax=axes, label="Jaccard index of what they would drop", shrink=0.8)
    title = f"Do criteria choose the same weights? First update: {task}"
    return Section(
        title,
        "All criteria look at the same network and would drop a quarter of its active weights. "
        f"1: the same weights; two random choices have {_SHARE / (2 - _SHARE):.2f}.",
        panels({"": figure}, title),
        caption=about_runs(shown),
    )


def _later_choices(here: View) -> Curves:
    lines: dict[str, dict[float, Interval]] = {}
    for i, moment in enumerate(here.records[0].result["during"]):
        for other in [name for name in ASKED if name != "magnitude"]:
            alike = mean_interval(here.values(partial(_later, moment=i, other=other)))
            lines.setdefault(f"magnitude and {other}", {})[float(moment["step"])] = alike
    return lines


def as_regulariser(view: View) -> Iterator[Section]:
    """Draw what dropout and sparse training gain over dense training on few samples."""
    for task, here in view.where(part="few samples").by("task").items():
        gains = {
            f"dense, dropout {share:g}": gain("dropout", "dense", part="few samples", dropout=share)
            for share in here.axis("dropout")
        } | {
            f"{arm}, {density:g}": gain(arm, "dense", part="few samples", density=density)
            for density in here.axis("density")
            for arm in ("static", "magnitude")
        }
        yield from rows(
            f"As a regulariser: {task}",
            f"Dense training reaches {estimate(here.where(arm='dense').mean(ACCURACY))} %. "
            "Differences to it, paired by seed; magnitude is the mean over both growth rules.",
            {"": rows_of(here, gains)},
            x="points of accuracy over dense training",
        )


# ---------------------------------------------------------------------- tables


def accuracies(view: View) -> Iterator[Section]:
    """Write all accuracies of the criteria grid."""
    for task, here in view.where(part="grid").by("task").items():
        densities = here.axis("density")
        lines = {"dense": [here.where(arm="dense").mean(ACCURACY)] * len(densities)}
        for arm in ("small dense", "static", *CRITERIA):
            for growth in GROWTH if arm in CRITERIA else (None,):
                line = here.where(arm=arm, growth=growth)
                lines[f"{arm}, {growth} growth" if growth else arm] = [
                    line.where(density=density).mean(ACCURACY) for density in densities
                ]
        yield Section(
            f"All accuracies: {task}",
            "Test accuracy in per cent, mean ± half the 95 % interval (Student's t), and n.",
            table=values_table(lines, [f"density {density:g}" for density in densities]),
        )


def cost_table(view: View) -> Iterator[Section]:
    """Tell what dropping by magnitude costs, as a share of the dense network's."""
    compared = {
        f"{task}, {density:g}, {growth} growth": (
            here.where(arm="magnitude", density=density, growth=growth).first,
            here.where(arm="dense").first,
        )
        for task, here in view.where(part="grid").by("task").items()
        for density in here.axis("density")
        for growth in GROWTH
    }
    if table := costs(compared):
        yield Section(
            "What it costs, counted",
            "Networks that drop by magnitude, as a fraction of the dense network's. Networks were "
            "trained under masks, which saves neither: this is what active weights alone would "
            "take. Weights, gradients and optimizer state, with indices of four bytes a weight.",
            table=table,
        )


STUDY = Study(
    name="pruning-criteria",
    title="Where to prune in dynamic sparse training",
    source="Nowak, Grooten, Mocanu & Tabor 2023, Fantastic Weights and How to Find Them "
    "(NeurIPS, arXiv 2306.12230)",
    about="Dynamic sparse training drops weights and grows others. Does it matter which it drops? "
    "Five criteria of the paper with both growth rules, beside dropping at random, a static random "
    "topology, dense networks with as many parameters, the dense network, and the sign rule that "
    "public code ships as SET's. Differs from the paper: counts are exact where its code draws "
    "them at random; optimizer state of grown weights starts at zero; updates follow the optimizer "
    "step for every criterion; a weight that is dropped and grown in one update keeps its value; "
    "the quick preset trains for 8 to 12 epochs instead of 100 to 200, with as many updates.",
    presets=PRESETS,
    claims=CLAIMS,
    known=KNOWN,
    page=(
        accuracy_by_criterion,
        against_magnitude,
        update_periods,
        same_choices,
        as_regulariser,
        accuracies,
        cost_table,
    ),
)
