"""The claims of the paper, and of its controls, with the rules that decide them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from regrow.lab.claims import SEEDS_NEEDED, Claim, Verdict, above, all_of
from regrow.lab.records import Records
from regrow.lab.statistics import Interval, averaged, differences, mean_interval
from regrow.studies.continual_dst.learners import ALLOCATIONS, GROWTH
from regrow.studies.continual_dst.view import (
    ISOLATED,
    BySeed,
    Course,
    effect,
    learner_of,
    moving,
)

__all__ = ["CLAIMS", "HIGH", "LOW", "MARGIN", "allocation_gain", "growth_gain", "moving_gain"]

LOW, HIGH = 0.05, 0.2
MARGIN = 0.5  # points of accuracy that matter
_POINTS = "points of accuracy"
_SOURCE = "Yildirim et al. 2024"

Effect = Callable[[Course], BySeed]


def allocation_gain(density: float, one: str = "ERK", other: str = "uniform") -> Effect:
    """Return what computes by how much one allocation is better, mean over growth rules."""

    def of(course: Course) -> BySeed:
        first, second = (moving(course, density, (name,)) for name in (one, other))
        return differences(dict(first), dict(second), common=True)

    return of


def growth_gain(
    density: float, allocation: str, one: str = "gradient", other: str = "random"
) -> Effect:
    """Return what computes by how much one growth rule is better than another."""
    return lambda course: moving(course, density, (allocation,), (one,), over=other)


def moving_gain(
    density: float, growth: Sequence[str] = tuple(GROWTH), over: str = "static"
) -> Effect:
    """Return what computes by how much moving topologies are better, mean over allocations."""
    return lambda course: moving(course, density, growth=growth, over=over)


def _over(control: str, *, same_density: bool) -> Effect:
    """Return what computes the gain of the method over a control, mean over cells and densities."""

    def of(course: Course) -> BySeed:
        parts = []
        for density in course.densities:
            base = course.values(control, density if same_density else None)
            parts.append(differences(dict(moving(course, density)), dict(base), common=True))
        return averaged(parts)

    return of


def _sharing(course: Course) -> BySeed:
    parts = []
    for density in course.densities:
        shared = course.values("uniform, random", density)
        alone = course.values("independent, sparse", density)
        parts.append(differences(dict(shared), dict(alone), common=True))
    return averaged(parts)


def _gain(value: Effect) -> Callable[[Records], Verdict]:
    return lambda records: above(effect(records, value), 0, _POINTS)


def _moves(records: Records) -> Verdict:
    def of(course: Course) -> BySeed:
        return averaged([moving_gain(density)(course) for density in course.densities])

    return above(effect(records, of), 0, _POINTS)


def _growth_depends(records: Records) -> Verdict:
    def by_density(course: Course) -> BySeed:
        low, high = (
            averaged([growth_gain(density, name)(course) for name in ALLOCATIONS])
            for density in (LOW, HIGH)
        )
        return differences(low, high, common=True)

    def by_allocation(course: Course) -> BySeed:
        erk, uniform = (
            averaged([growth_gain(density, name)(course) for density in course.densities])
            for name in ("ERK", "uniform")
        )
        return differences(erk, uniform, common=True)

    return all_of(
        {
            "by density": _differs(effect(records, by_density)),
            "by allocation": _differs(effect(records, by_allocation)),
        }
    )


def _differs(found: Interval) -> Verdict:
    """Judge "it makes a difference": 0 lies outside the interval, and not all of it is small."""
    small = found.low > -MARGIN and found.high < MARGIN
    if found.n < SEEDS_NEEDED:
        return Verdict("inconclusive", found, _POINTS, f"fewer than {SEEDS_NEEDED} seeds")
    if small:
        return Verdict("not supported", found, _POINTS)
    return Verdict("supported" if found.excludes(0) else "inconclusive", found, _POINTS)


def _nothing_forgotten(records: Records) -> Verdict:
    found: dict[int, float] = {}
    runs = 0
    for record in records.where(lambda one: learner_of(one) in ISOLATED, trial="LearnStream"):
        seed, runs = record.config["seed"], runs + 1
        found[seed] = max(found.get(seed, 0.0), abs(100 * record.result["BWT"]))
    if not found:
        raise ValueError("there are no records of learners that isolate parameters")
    worst = mean_interval(found)
    why = f"{runs} runs; the largest |BWT| of any is {max(found.values()):g}"
    if worst.n < SEEDS_NEEDED:
        return Verdict("inconclusive", worst, _POINTS, f"fewer than {SEEDS_NEEDED} seeds; {why}")
    return Verdict("not supported" if any(found.values()) else "supported", worst, _POINTS, why)


_METHOD = (
    "The method is the mean over both allocations, the four growth rules and all densities tried, "
    "so that nothing is chosen on test images; paired by seed, mean over streams."
)

CLAIMS: Sequence[Claim] = (
    Claim(
        "At low sparsity ERK allocation is better than uniform.",
        f"{_SOURCE}, abstract",
        f"ACC of ERK over uniform at density {HIGH}, mean over the four growth rules and over "
        "streams, paired by seed: the interval lies above 0.",
        _gain(allocation_gain(HIGH)),
    ),
    Claim(
        "At high sparsity uniform allocation is better than ERK.",
        f"{_SOURCE}, abstract",
        f"ACC of uniform over ERK at density {LOW}, mean over the four growth rules and over "
        "streams, paired by seed: the interval lies above 0.",
        _gain(allocation_gain(LOW, "uniform", "ERK")),
    ),
    Claim(
        "How good a growth rule is depends on allocation and sparsity.",
        f"{_SOURCE}, abstract",
        f"The gain of gradient over random growth differs between densities {LOW} and {HIGH} (mean "
        "over allocations), and between ERK and uniform (mean over densities): both intervals "
        f"leave 0 out. Not supported if one lies within ± {MARGIN:g} point.",
        _growth_depends,
    ),
    Claim(
        "Adaptive topologies are better than static ones.",
        f"{_SOURCE}, abstract (adaptivity is promising)",
        "ACC over static random topologies of the same density and allocation, mean over growth "
        "rules, allocations, densities and streams, paired by seed: the interval lies above 0.",
        _moves,
    ),
    Claim(
        "Nothing is forgotten: backward transfer is exactly 0.",
        "a control of ours",
        "BWT of every single run of every learner that isolates parameters (the method, PackNet, "
        "SpaceNet-like, NISPA-like, independent networks) is 0, to the last bit. Not supported if "
        "one is not.",
        _nothing_forgotten,
    ),
    Claim(
        "It is better than naive fine-tuning.",
        "a control of ours",
        f"ACC over naive fine-tuning of the dense network: the interval lies above 0. {_METHOD}",
        _gain(_over("naive", same_density=False)),
    ),
    Claim(
        "It is better than independent networks of the same total size.",
        "a control of ours",
        "ACC over T narrower dense networks, one a task, that together have no more weights than "
        f"the one store: the interval lies above 0. {_METHOD}",
        _gain(_over("independent, same size", same_density=False)),
    ),
    Claim(
        "It is better than PackNet.",
        "a control of ours",
        "ACC over PackNet that keeps the same share, of what is free, for each task: the interval "
        f"lies above 0. {_METHOD}",
        _gain(_over("PackNet", same_density=True)),
    ),
    Claim(
        "Sharing weights with earlier tasks helps.",
        "a control of ours",
        "ACC of uniform allocation with random growth over independent networks of the same "
        "density, allocation and growth, mean over densities and streams, paired by seed: the "
        "interval lies above 0.",
        _gain(_sharing),
    ),
)
