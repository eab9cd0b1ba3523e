"""Does a sparse network a task, in one store of weights, learn well and forget nothing?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from regrow.continual.metrics import learning_transfer
from regrow.lab.charts import curves, curves_of, palette, rows, rows_of, verdicts_by_task
from regrow.lab.claims import Answer, Claim, Verdict, undecided
from regrow.lab.effects import EVERY, Effect, Measure, level, percent
from regrow.lab.effects import gain as over_other
from regrow.lab.heatmaps import Matrix, heatmaps
from regrow.lab.learnt import Known
from regrow.lab.rules import claim
from regrow.lab.section import Section, Table, estimate
from regrow.lab.statistics import Interval, mean_interval
from regrow.lab.study import Study
from regrow.lab.view import View
from regrow.studies.continual_dst.design import ARMS, PRESETS
from regrow.studies.continual_dst.learners import ALLOCATIONS, GROWTH

__all__ = ["CLAIMS", "CONTROLS", "LEARNERS", "STUDY"]

LOW, HIGH = 0.05, 0.2
MARGIN = 0.5  # points of accuracy that matter

# ---------------------------------------------------------------------- who learns, and how well

METHOD = ("DST", "static")
CONTROLS = tuple(arm for arm in ARMS if arm not in METHOD)
CELLS: dict[str, Mapping[str, str]] = {
    f"{allocation}, {rule}": {"allocation": allocation}
    | ({"arm": "static"} if rule == "static" else {"arm": "DST", "growth": rule})
    for allocation in ALLOCATIONS
    for rule in (*GROWTH, "static")
}
LEARNERS = CELLS | {arm: {"arm": arm} for arm in CONTROLS}
"""The labels of learners, by the names that pages give them."""

ACC, BWT = percent("ACC", "ACC"), percent("BWT", "BWT")


def gain(one: str | Mapping[str, str], over: str | Mapping[str, str], **at: Any) -> Effect:
    """Ask for a gain in ACC, mean over all choices that are not named."""
    named = {axis for side in (one, over) if isinstance(side, Mapping) for axis in side}
    rest = {axis: EVERY for axis in ("allocation", "growth", "density") if axis not in named}
    return over_other(one, over, ACC, **rest | at)


# ---------------------------------------------------------------------- claims

ERK, UNIFORM = {"allocation": "ERK"}, {"allocation": "uniform"}
RANDOM, GRADIENT = {"growth": "random"}, {"growth": "gradient"}
# Learners that never change what answers an earlier task.
ISOLATED = (*METHOD, *(arm for arm in CONTROLS if arm not in ("naive", "EWC", "replay", "joint")))

_SOURCE = "Yildirim et al. 2024"
# Tasks of two classes in the one stream, of ten in the other.
KNOWN = [
    Known({"task": task, "arm": "joint"}, level, "results/continual-dst", chance, ACC)
    for task, level, chance in (
        ("permuted Fashion-MNIST, MLP 300-100", 85.0, 10.0),
        ("split CIFAR-10, ResNet-20", 92.7, 50.0),
    )
]
_OURS = "a control of ours"
_BAR: dict[str, Any] = {"above": 0, "over": "streams"}
_EVERY = (
    "The method is the mean over both allocations, the four growth rules and all densities tried, "
    "so that nothing is chosen on test images."
)


def _nothing_forgotten(view: View) -> Verdict:
    """Judge the largest |BWT| of each seed: it must be 0 to the last bit."""
    largest: dict[int, float] = {}
    isolated = view.where(arm=ISOLATED).records
    for record in isolated:
        seed = record.config["seed"]
        largest[seed] = max(largest.get(seed, 0.0), abs(BWT(record)))
    if not largest:
        raise ValueError("there are no records of learners that isolate parameters")
    worst, unit = mean_interval(largest), BWT.unit
    why = f"{len(isolated)} runs; the largest |BWT| of any is {max(largest.values()):g}"
    if (few := undecided(worst, unit, why)) is not None:
        return few
    return Verdict("not supported" if any(largest.values()) else "supported", worst, unit, why)


CLAIMS = (
    claim(
        "At low sparsity ERK allocation is better than uniform.",
        f"{_SOURCE}, abstract",
        gain(ERK, UNIFORM, density=HIGH),
        **_BAR,
    ),
    claim(
        "At high sparsity uniform allocation is better than ERK.",
        f"{_SOURCE}, abstract",
        gain(UNIFORM, ERK, density=LOW),
        **_BAR,
    ),
    claim(
        "How good a growth rule is depends on allocation and sparsity.",
        f"{_SOURCE}, abstract",
        {
            "by density": gain(GRADIENT, RANDOM, density=LOW)
            - gain(GRADIENT, RANDOM, density=HIGH),
            "by allocation": gain(GRADIENT, RANDOM, **ERK) - gain(GRADIENT, RANDOM, **UNIFORM),
        },
        differs=MARGIN,
        over="streams",
    ),
    claim(
        "Adaptive topologies are better than static ones.",
        f"{_SOURCE}, abstract (adaptivity is promising)",
        gain("DST", "static"),
        **_BAR,
        answer=Answer(
            "moving topologies are better than static ones",
            "moving topologies are no better than static ones",
        ),
        note="Static topologies are random, of the same density and allocation.",
    ),
    Claim(
        "Nothing is forgotten: backward transfer is exactly 0.",
        _OURS,
        "BWT of every single run of every learner that isolates parameters (the method, PackNet, "
        "SpaceNet-like, NISPA-like, independent networks) is 0, to the last bit. Not supported if "
        "one is not.",
        _nothing_forgotten,
    ),
    claim(
        "It is better than naive fine-tuning.",
        _OURS,
        gain("DST", "naive"),
        **_BAR,
        answer=Answer(
            "they are better than naive fine-tuning",
            "they are no better than naive fine-tuning",
        ),
        note=f"Naive: the dense network is trained on one task after another. {_EVERY}",
    ),
    claim(
        "It is better than independent networks of the same total size.",
        _OURS,
        gain("DST", "independent, same size"),
        **_BAR,
        answer=Answer(
            "they are better than independent networks of the same total size",
            "they are no better than independent networks of the same total size",
        ),
        note="T narrower dense networks, one a task, together have no more weights than the one "
        f"store. {_EVERY}",
    ),
    claim(
        "It is better than PackNet.",
        _OURS,
        gain("DST", "PackNet"),
        **_BAR,
        note=f"PackNet keeps the same share, of what is free, for each task. {_EVERY}",
    ),
    claim(
        "Sharing weights with earlier tasks helps.",
        _OURS,
        gain({"arm": "DST"} | UNIFORM | RANDOM, "independent, sparse"),
        **_BAR,
        note="Independent, sparse: networks of the same density, allocation and growth.",
    ),
)

# ---------------------------------------------------------------------- figures

_RULES = (*GROWTH, "static")
_SHOWN = tuple(name for name in CELLS if name.endswith(("random", "gradient", "static")))


def _middle(view: View) -> Iterator[tuple[str, float, View]]:
    """Yield each stream at the density that is drawn where there is room for one.

    Learners without a density are part of it; if there are no others the density is 1.
    """
    for stream, here in view.by("task").items():
        densities = here.axis("density") or [1.0]
        middle = densities[len(densities) // 2]
        yield str(stream), middle, here.where(density=(middle, None))


def by_density(view: View) -> Iterator[Section]:
    """Draw accuracies by density, a panel an allocation."""
    for stream, here in view.by("task").items():
        across = {arm: level(arm, ACC) for arm in ("joint", "independent, same size", "naive")}
        yield from curves(
            f"Accuracy after the last task: {stream}",
            "Coloured lines are growth rules; static keeps the topology that was drawn first. "
            "Joint training sees all tasks at once; independent networks of the same size are "
            "dense, one a task, and together as large as the one store.",
            {
                name: curves_of(here, partial(_accuracy, name), _RULES, here.axis("density"))
                for name in ALLOCATIONS
            },
            x="density of a task",
            y="ACC, %",
            colours=palette(_RULES, static="#444444"),
            levels=dict.fromkeys(ALLOCATIONS, rows_of(here, across)),
        )


def _accuracy(allocation: str, rule: str, density: float) -> Effect:
    return level(measure=ACC, density=density, **LEARNERS[f"{allocation}, {rule}"])


def learners(view: View) -> Iterator[Section]:
    """Draw accuracy and transfer of all learners at one density."""
    for stream, density, here in _middle(view):
        yield from rows(
            f"All learners: {stream}, density {density:g}",
            "ACC: mean accuracy on all tasks after the last. BWT: what later tasks changed of what "
            "was learnt; below 0 is forgetting. FWT: accuracy right after learning a task, less "
            "that of a dense network of full size that learnt it alone; it tells what is lost by "
            "sparsity, and gained or lost by what was there before.",
            {
                field: {
                    name: interval
                    for name, labels in LEARNERS.items()
                    if (interval := read(here.where(**labels), here))
                }
                for field, read in _NUMBERS.items()
            },
            x="",
            zero={"BWT, points": 0.0, "FWT, points": 0.0},
        )


def _forward_transfer(own: View, stream: View) -> Interval | None:
    """Return what tasks gain, right after learning, over dense networks that learnt them alone."""
    matrices, alone = (
        {record.config["seed"]: record.result["accuracies"] for record in view.records}
        for view in (own, stream.where(arm="independent"))
    )
    gains = {
        seed: 100 * learning_transfer(matrix, [row[-1] for row in alone[seed]])
        for seed, matrix in matrices.items()
        if seed in alone
    }
    return mean_interval(gains) if gains else None


_NUMBERS: dict[str, Callable[[View, View], Interval | None]] = {
    "ACC, %": lambda own, _: own.mean(ACC),
    "BWT, points": lambda own, _: own.mean(BWT),
    "FWT, points": _forward_transfer,
}
"""Read what is told of a learner from its records, beside those of its stream."""


def choices(view: View) -> Iterator[Section]:
    """Draw what allocation, growth rule and moving are worth, density by density."""
    for stream, here in view.by("task").items():
        asked = {f"density {d:g}": rows_of(here, _choices_at(d)) for d in here.axis("density")}
        yield from rows(
            f"What each choice is worth: {stream}",
            "Differences paired by seed, averaged over what is not named (allocations; for ERK "
            f"over uniform, growth rules). The band is ± {MARGIN:g} point.",
            asked,
            x="points of ACC",
            band=MARGIN,
        )


def _choices_at(density: float) -> dict[str, Effect]:
    at: dict[str, Any] = {"density": density}
    rules: dict[str, Mapping[str, str]] = {rule: {"growth": rule} for rule in GROWTH}
    return {
        "ERK over uniform": gain(ERK, UNIFORM, **at),
        **{
            f"{n} over random growth": gain(r, RANDOM, **at)
            for n, r in rules.items()
            if r != RANDOM
        },
        **{
            f"gradient over random, {name}": gain(GRADIENT, RANDOM, allocation=name, **at)
            for name in ALLOCATIONS
        },
        **{f"{n} over static": gain(r, "static", **at) for n, r in rules.items()},
    }


def matrices(view: View) -> Iterator[Section]:
    """Draw the accuracy matrix of each learner, at one density."""
    for stream, density, here in _middle(view):
        yield from heatmaps(
            f"Accuracy on each task after each: {stream}",
            "A row is a moment, after task 1 at the top to after the last at the bottom; a column "
            "is a task. Where a column keeps its colour downwards nothing is forgotten. Learners "
            f"that have a density are shown at density {density:g}.",
            _means(here, (*CONTROLS, *CELLS), "accuracies"),
            scale="accuracy, %",
        )


def overlaps(view: View) -> Iterator[Section]:
    """Draw how alike the masks of every two tasks are."""
    for stream, density, here in _middle(view):
        means = _means(here, _SHOWN, "overlap")
        for matrix in means.values():
            np.fill_diagonal(matrix, np.nan)
        yield from heatmaps(
            f"Overlap of the tasks' masks: {stream}, density {density:g}",
            "The Jaccard index of the active weights of every two tasks. Two independent random "
            f"masks would have {100 * density / (2 - density):.1f} %.",
            means,
            scale="Jaccard index, %",
            low=0.0,
        )


def _means(stream: View, names: Sequence[str], field: str) -> dict[str, Matrix]:
    """Average a matrix over seeds, in per cent; NaN where a row has no value."""
    means = {}
    for name in names:
        filled = [
            [row + [np.nan] * (len(matrix) - len(row)) for row in matrix]
            for matrix in (r.result[field] for r in stream.where(**LEARNERS[name]).records)
        ]
        if filled:
            means[name] = 100 * np.mean(filled, axis=0)
    return means


def capacity(view: View) -> Iterator[Section]:
    """Draw how much of the store is used, and how much of it is earlier tasks', task by task."""
    shown = (*_SHOWN, "PackNet", "SpaceNet-like", "NISPA-like")
    used, reused = "weights used, % of all", "earlier tasks' weights, % of its own"
    for stream, density, here in _middle(view):
        tasks = range(1, len(here.records[0].result["accuracies"]) + 1)
        yield from curves(
            f"Capacity and reuse: {stream}, density {density:g}",
            "Left: the share of the store that tasks have taken; dotted, 1 − (1 − d)^t of "
            "independent random masks. Right: how much of a task's network are weights that "
            "earlier tasks trained, which it reads and cannot change.",
            {
                used: curves_of(here, partial(_share, "capacity"), shown, tasks),
                reused: curves_of(here, partial(_share, "reused"), shown, tasks),
            },
            x="task",
            y="%",
            colours=palette(shown),
            levels={used: {"random masks": {t: 100 * (1 - (1 - density) ** t) for t in tasks}}},
            even=False,
            same_y=False,
            limits=(0.0, None),
        )


def _share(field: str, learner: str, task: int) -> Effect:
    measure = Measure(field, lambda record: 100 * record.result[field][task - 1])
    return level(measure=measure, **LEARNERS[learner])


# ---------------------------------------------------------------------- tables


def all_numbers(view: View) -> Iterator[Section]:
    """Write accuracy, transfer and size of every learner at every density."""
    for stream, here in view.by("task").items():
        lines = []
        for name, labels in LEARNERS.items():
            own = here.where(**labels)
            for density, at in (own.by("density") or {"–": own}).items():
                if used := [r.result["weights_used"][-1] / r.result["weights"] for r in at.records]:
                    numbers = [estimate(read(at, here)) for read in _NUMBERS.values()]
                    lines.append((name, str(density), *numbers, f"{np.mean(used):.2f}"))
        yield Section(
            f"All numbers: {stream}",
            "Mean ± half the 95 % interval (Student's t), and n. Weights: what answers all tasks, "
            "as a share of the body's weights; heads are not counted.",
            table=Table(("learner", "density", "ACC, %", "BWT", "FWT", "weights"), lines),
        )


STUDY = Study(
    name="continual-dst",
    title="Continual learning with dynamic sparse training",
    source="Yildirim et al. 2024, Continual Learning with Dynamic Sparse Training: Exploring "
    "Algorithms for Effective Model Updates (CPAL)",
    about="Tasks come one after another. Each finds a sparse network inside one store of weights "
    "by dynamic sparse training; weights of earlier tasks are read and never changed. How "
    "should density be shared among layers, how should connections grow, and is it worth "
    "moving them? Beside it: naive fine-tuning, EWC, replay, joint training, independent "
    "networks (dense, as small as the store allows, and as sparse), PackNet, and rules in "
    "the manner of SpaceNet and NISPA. Task-incremental: the task is named at test, and its "
    "own logits alone are compared. ACC: mean accuracy after the last task. BWT: what later "
    "tasks changed. FWT: accuracy right after learning, less that of a dense network that "
    "learnt the task alone. Differs from the paper: weights that are new to a task start at "
    "fresh values, not at zero; a frozen weight that is dropped and regrown has its own "
    "value; test images are not augmented; heads, biases and norms belong to tasks; runs of "
    "the quick preset have a few epochs a task instead of 25 to 100, with 20 updates.",
    presets=PRESETS,
    claims=CLAIMS,
    known=KNOWN,
    page=(
        partial(verdicts_by_task, CLAIMS),
        by_density,
        learners,
        choices,
        matrices,
        capacity,
        overlaps,
        all_numbers,
    ),
)
