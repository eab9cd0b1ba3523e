"""The claims of the paper, and of its controls, with the rules that decide them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from regrow.lab.claims import Claim, Outcome, Verdict, above, all_of, below, within
from regrow.lab.records import Records
from regrow.lab.statistics import Interval, averaged, differences, mean_interval
from regrow.lab.tasks import mean_over_tasks, of_each
from regrow.studies.pruning_criteria.criteria import GROWTH, PAPER
from regrow.studies.pruning_criteria.view import (
    BySeed,
    Task,
    few,
    first_overlap,
    gap,
    overlaps,
    tasks,
)

__all__ = ["CLAIMS", "HIGH", "LOW", "MARGIN", "OTHERS", "effect", "versus"]

LOW, HIGH = 0.05, 0.2
MARGIN = 1.0  # points of accuracy that matter
QUITE_DIFFERENT = 0.5
OTHERS = tuple(name for name in PAPER if name != "magnitude")
_POINTS = "points of accuracy"
_SOURCE = "Nowak et al. 2023"


def effect(records: Records, value: Callable[[Task], BySeed]) -> Interval:
    """Average an effect over all tasks: paired by seed inside a task, tasks weighing the same."""
    return mean_over_tasks(of_each(tasks(records), value))


def versus(one: str, other: str, density: float) -> Callable[[Task], BySeed]:
    """Return what computes :func:`gap` of a task."""
    return lambda task: gap(task, one, other, density)


def _similar(records: Records) -> Verdict:
    found = [
        within(effect(records, versus(name, "magnitude", HIGH)), MARGIN, _POINTS) for name in OTHERS
    ]
    found.sort(key=lambda verdict: abs(verdict.effect.mean if verdict.effect else 0.0))
    outcomes = [verdict.outcome for verdict in found]
    each = ", ".join(f"{outcomes.count(o)} {o}" for o in dict.fromkeys(outcomes))
    deciding = found[2]
    outcome: Outcome
    if outcomes.count("supported") >= 3:
        outcome = "supported"
    elif outcomes.count("not supported") >= 2:
        outcome = "not supported"
    else:
        outcome = "inconclusive"
    why = f"the third closest of four; {each}"
    return Verdict(outcome, deciding.effect, _POINTS, why)


def _spread(task: Task, density: float) -> BySeed:
    """Return by seed how far the best criterion is above the worst, averaged over growth."""
    found = []
    for growth in GROWTH:
        each = [task.accuracy(name, density, growth) for name in PAPER]
        common = set.intersection(*map(set, each))
        found.append({s: max(e[s] for e in each) - min(e[s] for e in each) for s in common})
    return averaged(found)


def _differences_grow(records: Records) -> Verdict:
    def growth_of_spread(task: Task) -> BySeed:
        return differences(_spread(task, LOW), _spread(task, HIGH), common=True)

    return above(effect(records, growth_of_spread), 0, _POINTS)


def _magnitude_is_best(records: Records) -> Verdict:
    parts = {
        name: above(effect(records, versus("magnitude", name, LOW)), 0, _POINTS) for name in OTHERS
    }
    return all_of(parts)


def _any_beats_static(records: Records) -> Verdict:
    parts = {}
    for name in PAPER:
        for growth in GROWTH:

            def gain(task: Task, name: str = name, growth: str = growth) -> BySeed:
                return averaged(
                    [
                        differences(
                            task.accuracy(name, density, growth),
                            task.accuracy("static", density),
                            common=True,
                        )
                        for density in task.densities
                    ]
                )

            parts[f"{name}, {growth}"] = above(effect(records, gain), 0, _POINTS)
    return all_of(parts)


def _choosing_matters(records: Records) -> Verdict:
    return above(effect(records, versus("magnitude", "random", LOW)), 0, _POINTS)


def _beats_small_dense(records: Records) -> Verdict:
    return above(effect(records, versus("magnitude", "small dense", LOW)), 0, _POINTS)


def _shipped_rule_is_worse(records: Records) -> Verdict:
    def loss(task: Task) -> BySeed:
        return averaged(
            [
                differences(
                    task.accuracy("SET as shipped", density, "random"),
                    task.accuracy("SET", density, "random"),
                    common=True,
                )
                for density in task.densities
            ]
        )

    return below(effect(records, loss), 0, _POINTS)


def _too_often_hurts(records: Records) -> Verdict:
    def loss(task: Task) -> BySeed:
        shortest = min(task.periods)
        if shortest == task.period:
            raise ValueError(f"no other periods were tried on {task.name}")
        found = []
        for growth in GROWTH:
            pair = [
                averaged([task.accuracy(c, 0.1, growth, period) for c in ("magnitude", "SNIP")])
                for period in (shortest, task.period)
            ]
            found.append(differences(*pair, common=True))
        return averaged(found)

    return below(effect(records, loss), 0, _POINTS)


def _choose_differently(records: Records) -> Verdict:
    found = {
        name: averaged(
            [
                first_overlap(here, 0.25, "magnitude", other)
                for other in ("SNIP", "reciprocal sensitivity")
            ]
        )
        for name, here in overlaps(records).items()
    }
    if not found:
        raise ValueError("there are no records of overlaps")
    return below(mean_over_tasks(found), QUITE_DIFFERENT, "(Jaccard index)")


def _regularises(records: Records) -> Verdict:
    tasks = few(records)
    if not tasks:
        raise ValueError("there are no records of few samples")
    task = tasks[0]
    density = max(task.densities)
    parts = {
        f"against {other}": above(mean_interval(gap(task, "magnitude", other, density)), 0, _POINTS)
        for other in ("dense", "static")
    }
    return all_of(parts)


CLAIMS: Sequence[Claim] = (
    Claim(
        "Most criteria give similar results.",
        f"{_SOURCE}, abstract",
        f"At density {HIGH}: of SET, MEST, SNIP and reciprocal sensitivity at least three differ "
        f"from magnitude by less than {MARGIN:g} point, with the whole interval (mean over tasks "
        "and both growth rules, paired by seed). Not supported if two differ by more.",
        _similar,
    ),
    Claim(
        "Differences between criteria grow at low density.",
        f"{_SOURCE}, abstract",
        f"The distance from the best to the worst of the five criteria is larger at density {LOW} "
        f"than at {HIGH} (mean over tasks and growth rules): the interval lies above 0.",
        _differences_grow,
    ),
    Claim(
        "At low density magnitude is the best.",
        f"{_SOURCE}, abstract",
        f"At density {LOW} magnitude is better than each of the other four (mean over tasks and "
        "growth rules, paired by seed): every interval lies above 0. Not supported if one lies "
        "below.",
        _magnitude_is_best,
    ),
    Claim(
        "Any criterion beats the static topology.",
        f"{_SOURCE}, caption of figure 1",
        "Each of the five criteria with each growth rule is better than a static random topology "
        "(mean over tasks and densities, paired by seed): every interval lies above 0. Not "
        "supported if one lies below.",
        _any_beats_static,
    ),
    Claim(
        "Criteria choose quite different weights.",
        f"{_SOURCE}, section on similarity (as summarised by others; unverified)",
        "At the first update, a quarter dropped: the Jaccard index of magnitude with SNIP and with "
        f"reciprocal sensitivity is below {QUITE_DIFFERENT:g} on average. Two random choices have "
        "0.14.",
        _choose_differently,
    ),
    Claim(
        "Updating too often hurts.",
        f"{_SOURCE}, figure 4 (direction recalled; unverified)",
        "At density 0.1 the shortest period tried is worse than the grid's (mean over magnitude "
        "and SNIP and both growth rules, paired by seed): the interval lies below 0.",
        _too_often_hurts,
    ),
    Claim(
        "Dynamic sparse training at high density regularises.",
        f"{_SOURCE}, figure 5 (direction recalled; unverified)",
        "On few samples, at the highest density tried, magnitude with either growth is better than "
        "dense training and than a static topology of the same density: both intervals lie above "
        "0.",
        _regularises,
    ),
    Claim(
        "Which weights are dropped matters at all.",
        "a control of ours",
        f"At density {LOW} magnitude is better than dropping at random (mean over tasks and growth "
        "rules): the interval lies above 0.",
        _choosing_matters,
    ),
    Claim(
        "A sparse network that moves beats a dense one with as many parameters.",
        "a control of ours",
        f"At density {LOW} magnitude is better than the narrower dense network (mean over tasks "
        "and growth rules): the interval lies above 0.",
        _beats_small_dense,
    ),
    Claim(
        "The sign rule that public code ships as SET is worse than SET's own.",
        "a control of ours",
        "With random growth (mean over tasks and densities, paired by seed) the interval of the "
        "difference lies below 0.",
        _shipped_rule_is_worse,
    ),
)
