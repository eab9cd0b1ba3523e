"""Dynamic sparse training and image corruption: is it more robust than dense training?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from regrow.lab.charts import (
    curves,
    curves_of,
    palette,
    rows,
    rows_of,
    values_table,
    verdicts_by_task,
)
from regrow.lab.claims import Answer, Claim, Verdict, above, all_of
from regrow.lab.effects import Effect, Measure, gain, level, mean_of, percent
from regrow.lab.figures import Curves
from regrow.lab.learnt import Known
from regrow.lab.records import Record
from regrow.lab.rules import claim, each
from regrow.lab.section import Section
from regrow.lab.statistics import Interval
from regrow.lab.study import Study
from regrow.lab.view import View
from regrow.studies.corruption_robustness.design import ARMS, MOVING, PRESETS
from regrow.vision.corruptions import FAMILIES

__all__ = ["CLAIMS", "STUDY"]

LOW_SPARSITY = (0.9, 0.7, 0.5)  # densities
FEW = 0.5  # points of accuracy that matter
CURVE = 1.0

# ---------------------------------------------------------------------- what is measured

ROBUST = percent("robustness", "robustness accuracy")
CLEAN = percent("accuracy", "accuracy on clean images")
ENTROPY = Measure("entropy of filters", lambda record: _filters(record, "filter_entropy"))
KERNELS = Measure(
    "share of kernels without any weight",
    lambda record: 100 * (1 - _filters(record, "remaining_kernels")),
    "points of a hundred kernels",
)


def under(
    name: str, corruptions: Sequence[str] | None = None, severities: Sequence[int] | None = None
) -> Measure:
    """Measure the mean accuracy, in per cent, under some corruptions and severities.

    Args:
        name: of the measure.
        corruptions: which; None is all.
        severities: which; None is all.
    """

    def read(record: Record) -> float:
        accuracies = record.result["corrupted"]
        chosen = [
            accuracies[corruption][str(severity)]
            for corruption in corruptions or accuracies
            for severity in severities or accuracies[corruption]
        ]
        return 100 * float(sum(chosen) / len(chosen))

    return Measure(name, read)


def change(which: str, radii: Sequence[float], name: str) -> Measure:
    """Measure what the loss of some frequencies changes in clean accuracy, mean over radii."""

    def read(record: Record) -> float:
        accuracies = [record.result[which][str(radius)] for radius in radii]
        return 100 * float(sum(accuracies) / len(accuracies) - record.result["accuracy"])

    return Measure(name, read)


def _filters(record: Record, field: str) -> float:
    if (value := record.result.get(field)) is None:
        raise ValueError("there are no convolutions to look at")
    return float(value)


NOISE = FAMILIES["noise"]
REST = tuple(name for family, names in FAMILIES.items() if family != "noise" for name in names)

# ---------------------------------------------------------------------- claims


def both(over: str = "dense", measure: Measure = ROBUST, density: Any = LOW_SPARSITY) -> Effect:
    """Ask for the gain of SET and RigL together, the mean over densities of low sparsity."""
    return mean_of(*(gain(arm, over, measure, density=density) for arm in ("SET", "RigL")))


def _each_tried(view: View) -> Verdict:
    gains = rows_of(
        view.where(part="main"),
        each(tuple(MOVING), lambda arm: gain(arm, "dense", ROBUST, density=LOW_SPARSITY)),
    )
    if not gains:
        raise ValueError("there are no records of sparse and dense networks to compare")
    weakest_first = sorted(gains, key=lambda arm: gains[arm].mean)
    return all_of({arm: above(gains[arm], 0, ROBUST.unit) for arm in weakest_first})


_SOURCE = "Wu et al. 2025"
KNOWN = [
    Known({"task": task, "arm": "dense"}, level, source, chance=10.0, measure=CLEAN)
    for task, level, source in (
        ("MLP 100-50 on digits", 97.0, "scikit-learn's example of digits"),
        ("ResNet-18 on CIFAR-10", 87.8, "results/corruption-robustness"),
        ("VGG-16 on CIFAR-10", 86.9, "results/corruption-robustness"),
        ("ResNet-20 on Fashion-MNIST", 93.3, "results/corruption-robustness"),
        ("small 3D CNN on moving Fashion-MNIST", 99.6, "results/corruption-robustness"),
    )
]

CLAIMS = (
    Claim(
        "Dynamic sparse training is more robust to image corruption than dense training at low "
        "sparsity.",
        f"{_SOURCE}, abstract",
        "Robustness accuracy over dense of each method that was tried at all densities (mean over "
        "tasks and densities 0.9 to 0.5, paired by seed): every interval lies above 0. Not "
        "supported if one lies below.",
        _each_tried,
        answer=Answer(
            "dynamic sparse training is more robust to corrupted images than dense training",
            "dynamic sparse training is not more robust to corrupted images than dense training",
        ),
    ),
    claim(
        "It still is at density 0.3.",
        f"{_SOURCE}, figure 2 (sparsity up to 0.7; read in reviews)",
        both(density=0.3),
        above=0,
    ),
    claim(
        "The gain grows with severity.",
        f"{_SOURCE}, section on severities (read in reviews; unverified)",
        both(measure=under("accuracy at severities 4 and 5", severities=(4, 5)))
        - both(measure=under("accuracy at severities 1 and 2", severities=(1, 2))),
        above=0,
    ),
    claim(
        "The gain is largest under noise.",
        f"{_SOURCE}, figure 3 (corruptions ordered by frequency; read in reviews)",
        both(measure=under("accuracy under the three kinds of noise", NOISE))
        - both(measure=under("accuracy under the other twelve corruptions", REST)),
        above=0,
    ),
    claim(
        "Taking away high frequencies hurts dynamic sparse training less.",
        f"{_SOURCE}, radius-accuracy curves (read in reviews)",
        both(
            measure=change(
                "low_pass",
                (0.2, 0.3, 0.4, 0.5),
                "accuracy on clean images of which only radii up to 0.2, 0.3, 0.4, 0.5 are kept, "
                "less that on whole ones",
            )
        ),
        above=0,
    ),
    claim(
        "Taking away low frequencies hurts both alike.",
        f"{_SOURCE}, radius-accuracy curves (read in reviews)",
        both(
            measure=change(
                "high_pass",
                (0.1, 0.2, 0.3),
                "accuracy on clean images from which radii up to 0.1, 0.2, 0.3 are taken away, "
                "less that on whole ones",
            )
        ),
        within=CURVE,
    ),
    claim(
        "Dynamic sparse training takes away whole kernels.",
        f"{_SOURCE}, heat maps of kernels (read in reviews)",
        both("static", KERNELS),
        above=0,
    ),
    claim(
        "Clean accuracy is not paid for it.",
        "a control of ours",
        both(measure=CLEAN),
        above=-FEW,
    ),
    claim(
        "The gain in robustness is more than the gain in clean accuracy.",
        "a control of ours",
        both() - both(measure=CLEAN),
        above=0,
    ),
    claim(
        "It is the moving topology that does it, not sparsity.",
        "a control of ours",
        both("static"),
        above=0,
    ),
    claim(
        "It is not the smaller number of weights that does it.",
        "a control of ours",
        both("small dense"),
        above=0,
        answer=Answer(
            "it is more robust than a dense network with as many parameters",
            "it is no more robust than a dense network with as many parameters",
        ),
    ),
)

# ---------------------------------------------------------------------- figures

Place = TypeVar("Place", float, str)
_COLOUR = palette((*MOVING, "small dense", "static"), dense="black")
_OTHERS = [arm for arm in ARMS if arm != "dense"]
_TOGETHER = "SET and RigL together, mean over"


def by_density(view: View) -> Iterator[Section]:
    """Draw accuracies on corrupted and on clean images along densities."""
    measures = {"corrupted test images": ROBUST, "clean test images": CLEAN}
    for task, here in view.by("task").items():
        yield from curves(
            f"Robust and clean accuracy: {task}",
            "Left, the mean over all corruptions and severities. Small dense: a narrower dense "
            "network with no more parameters. The band is the interval of dense training. What has "
            "fewer than three seeds is in the tables only.",
            {name: _seen(_along_densities(here, one)) for name, one in measures.items()},
            x="density",
            y="accuracy, %",
            colours=_COLOUR,
            levels={
                name: rows_of(here, {"dense": level("dense", one)})
                for name, one in measures.items()
            },
            band="dense",
            same_y=False,
        )


def _along_densities(task: View, measure: Measure) -> Curves:
    return curves_of(
        task,
        lambda arm, density: level(arm, measure, density=density),
        _OTHERS,
        task.axis("density"),
    )


def _seen(lines: Mapping[str, Mapping[Place, Interval]]) -> dict[str, dict[Place, Interval]]:
    """Leave out points of one or two seeds, whose intervals hide the others, if these have more."""
    least = min(3, max((i.n for points in lines.values() for i in points.values()), default=1))
    seen = {
        name: {place: interval for place, interval in points.items() if interval.n >= least}
        for name, points in lines.items()
    }
    return {name: points for name, points in seen.items() if points}


def over_dense(view: View) -> Iterator[Section]:
    """Draw what each method and control gains over dense training."""
    for task, here in view.by("task").items():
        gains = {
            f"density {density:g}": rows_of(
                here, {arm: gain(arm, "dense", ROBUST, density=density) for arm in _OTHERS}
            )
            for density in reversed(here.axis("density"))
        }
        yield from rows(
            f"What each method is worth against dense training: {task}",
            "By method and density, paired by seed.",
            _seen(gains),
            x="points of robustness accuracy over dense",
        )


def by_corruption(view: View) -> Iterator[Section]:
    """Draw gains under each corruption."""
    for task, here in view.by("task").items():
        gains = {
            name.replace("_", " "): both(measure=under(name, (name,)))
            for name in here.records[0].result["corrupted"]
        }
        yield from rows(
            f"By corruption: {task}",
            f"{_TOGETHER} severities and densities from 0.9 to 0.5, paired by seed, in the "
            "benchmark's order: noise, blur, weather, digital.",
            {"": rows_of(here, gains)},
            x="points of accuracy over dense",
        )


def by_severity(view: View) -> Iterator[Section]:
    """Draw gains along severities, a curve a task."""
    lines: dict[str, Mapping[float, Interval]] = {}
    for task, here in view.by("task").items():
        lines |= curves_of(
            here, lambda _, n: both(measure=under("", severities=(n,))), [task], (1, 2, 3, 4, 5)
        )
    yield from curves(
        "By severity",
        f"{_TOGETHER} corruptions and densities from 0.9 to 0.5, paired by seed.",
        {"": lines},
        x="severity",
        y="points of accuracy over dense",
        zero=True,
    )


def by_radius(view: View) -> Iterator[Section]:
    """Draw accuracies on clean images of which only some frequencies are kept."""
    for task, every in view.by("task").items():
        densities = every.axis("density")
        density = 0.5 if 0.5 in densities else densities[-1]
        here = every.where(density=(density, None))
        panels = {
            f"frequencies {kept} the radius": _along_radii(here, which)
            for which, kept in {"low_pass": "inside", "high_pass": "outside"}.items()
        }
        yield from curves(
            f"Which frequencies are needed: {task}, density {density:g}",
            "Accuracy on clean images of which only some frequencies are kept. A radius of 1 is "
            "the highest frequency along an axis, half a cycle a pixel.",
            panels,
            x="radius",
            y="accuracy, %",
            colours=_COLOUR,
            even=False,
        )


def _along_radii(task: View, which: str) -> Curves:
    def accuracy(arm: str, radius: str) -> Effect:
        return level(arm, Measure("", lambda record: 100 * float(record.result[which][radius])))

    radii = task.records[0].result.get(which, ())
    return curves_of(task, accuracy, ("dense", "small dense", "static", "SET", "RigL"), radii)


# ---------------------------------------------------------------------- tables


def verdicts(view: View) -> Iterator[Section]:
    """Write what each task says of the claims."""
    return verdicts_by_task(CLAIMS, view)


def accuracies(view: View) -> Iterator[Section]:
    """Write all accuracies."""
    for task, here in view.by("task").items():
        densities = here.axis("density")[::-1]
        for name, measure in {"Robustness": ROBUST, "Clean accuracy": CLEAN}.items():
            lines = {
                arm: [
                    here.where(arm=arm, density=None if arm == "dense" else d).mean(measure)
                    for d in densities
                ]
                for arm in ARMS
            }
            yield Section(
                f"{name}: {task}",
                "Test accuracy in per cent, mean ± half the 95 % interval (Student's t), and n.",
                table=values_table(lines, [f"density {d:g}" for d in densities]),
            )


def filters(view: View) -> Iterator[Section]:
    """Write how many kernels are left, and how varied filters are."""
    kept = percent("remaining_kernels", "kernels left")
    for task, here in view.by("task").items():
        cells = {"dense": here.where(arm="dense")} | {
            f"{arm}, {density:g}": here.where(arm=arm, density=density)
            for density in reversed(here.axis("density"))
            for arm in _OTHERS
        }
        lines = {name: [cell.mean(kept), cell.mean(ENTROPY)] for name, cell in cells.items()}
        table = values_table(lines, ("kernels left, %", "entropy"))
        if table.rows:
            yield Section(
                f"Filters: {task}",
                "The share of kernels with any active weight, and the entropy (base 10) of what "
                "the principal patterns of a layer's kernels explain, mean over layers.",
                table=table,
            )


STUDY = Study(
    name="corruption-robustness",
    title="Dynamic sparse training under image corruption",
    source="Wu et al. 2025, Dynamic Sparse Training versus Dense Training: The Unexpected Winner "
    "in Image Corruption Robustness (ICLR, arXiv 2410.03030)",
    about="Networks are trained on clean images and tested under fifteen corruptions of five "
    "severities. The paper reports that dynamic sparse training beats dense training there at low "
    "sparsity. It shows no clean accuracy, no static topology, no dense network of equal size and "
    "no error bars: this study has them. All methods drop by magnitude, as in the paper; GraNet "
    "starts at density 0.8 (at 1 for higher targets), MEST trains with a tenth more weights than "
    "it keeps. Differs from the paper: runs of the quick preset are 6 to 12 epochs long instead of "
    "200, with 50 updates; corruptions are made by regrow.vision.corruptions from the test images "
    "unless the published sets are asked for.",
    presets=PRESETS,
    claims=CLAIMS,
    known=KNOWN,
    page=(
        verdicts,
        by_density,
        over_dense,
        by_corruption,
        by_severity,
        by_radius,
        accuracies,
        filters,
    ),
)
