"""The claims of the paper, and of its controls, with the rules that decide them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from regrow.lab.claims import Claim, Verdict, above, all_of, within
from regrow.lab.records import Records
from regrow.lab.statistics import Interval, differences
from regrow.lab.tasks import mean_over_tasks, of_each
from regrow.studies.hard_samples.conditions import ATTACKED, Condition, hardest, random, severity
from regrow.studies.hard_samples.view import BySeed, Task, tasks

__all__ = ["CLAIMS", "MARGIN", "advantage", "effect"]

MARGIN = 1.0  # points of accuracy that matter
SPARSE = ("SET", "SNIP ratios")
_HALF, _FIFTH = hardest(0.5), random(0.2)
_ADVERSARIAL_DENSITY = 0.1
_POINTS = "points of accuracy"
_SOURCE = "Xiao et al. 2024"

Value = Callable[[Task], BySeed]


def effect(records: Records, value: Value) -> Interval:
    """Average an effect over all tasks: paired by seed inside a task, tasks weighing the same."""
    return mean_over_tasks(of_each(tasks(records), value))


def advantage(
    one: str,
    other: str,
    condition: Condition,
    density: float | None = None,
    field: str = "accuracy",
) -> Value:
    """Return what computes :meth:`Task.gain` of a task."""
    return lambda task: task.gain(one, other, condition, density, field)


def _at_end(one: str, other: str, condition: Condition, end: Callable[..., float]) -> Value:
    """Return the gain at the least (``min``) or greatest (``max``) density of a condition."""

    def value(task: Task) -> BySeed:
        densities = task.densities(condition, one)
        if not densities:
            raise ValueError(f"no records of {task.name}, {condition}: {one}")
        return task.gain(one, other, condition, end(densities))

    return value


def _more(value: Value, than: Value) -> Value:
    """Return by how much one effect is larger than another, paired by seed."""
    return lambda task: differences(value(task), than(task), common=True)


def _ends_differ(one: str, condition: Condition, more: Callable[..., float]) -> Value:
    """Return how much more one method gains over dense at one end of the densities."""

    def value(task: Task) -> BySeed:
        if len(task.densities(condition, one)) < 2:
            raise ValueError(f"fewer than two densities of {task.name}, {condition}: {one}")
        less = min if more is max else max
        ends = (_at_end(one, "dense", condition, end) for end in (more, less))
        return _more(*ends)(task)

    return value


def _each(
    records: Records, value: Callable[[str], Value], bar: float = 0.0, methods: Sequence[str] = ()
) -> Verdict:
    parts = {name: above(effect(records, value(name)), bar, _POINTS) for name in methods or SPARSE}
    return all_of(parts)


def _match_on_hardest(records: Records) -> Verdict:
    return _each(records, lambda name: advantage(name, "dense", _HALF), -MARGIN)


def _better_when_sparsest(records: Records) -> Verdict:
    return _each(records, lambda name: _at_end(name, "dense", _HALF, min))


def _better_on_few(records: Records) -> Verdict:
    return _each(records, lambda name: advantage(name, "dense", _FIFTH))


def _more_when_sparser(records: Records) -> Verdict:
    return _each(records, lambda name: _ends_differ(name, _FIFTH, min))


def _corruption_at_high_density(records: Records) -> Verdict:
    return above(effect(records, _ends_differ("SET", severity(5), max)), 0, _POINTS)


def _severe_gains_more(records: Records) -> Verdict:
    five, two = (advantage("SET", "dense", severity(n)) for n in (5, 2))
    return above(effect(records, _more(five, two)), 0, _POINTS)


def _attacked(name: str, field: str = "accuracy") -> Value:
    return advantage(name, "dense", ATTACKED, _ADVERSARIAL_DENSITY, field)


def _clean_comparable(records: Records) -> Verdict:
    parts = {name: within(effect(records, _attacked(name)), MARGIN, _POINTS) for name in SPARSE}
    return all_of(parts)


def _robust_higher(records: Records) -> Verdict:
    return _each(records, lambda name: _attacked(name, "robust_accuracy"))


def _layers_matter(records: Records) -> Verdict:
    return above(effect(records, advantage("static ERK", "static uniform", _HALF)), 0, _POINTS)


def _trained_weights_help(records: Records) -> Verdict:
    return above(effect(records, _at_end("OMP", "LTH", _HALF, min)), 0, _POINTS)


def _pruning_helps(records: Records) -> Verdict:
    return above(effect(records, advantage("OMP", "dense twice", _HALF)), 0, _POINTS)


def _moving_matters(records: Records) -> Verdict:
    return above(effect(records, advantage("SET", "static ERK", _HALF)), 0, _POINTS)


def _size_is_not_all(records: Records) -> Verdict:
    return above(effect(records, advantage("SET", "small dense", _HALF)), 0, _POINTS)


def _more_on_hard(records: Records) -> Verdict:
    def more(name: str) -> Value:
        return _more(*(advantage(name, "dense", c) for c in (_HALF, random(0.5))))

    return _each(records, more)


CLAIMS: Sequence[Claim] = (
    Claim(
        "On the hardest half of the samples sparse networks match or beat dense ones.",
        f"{_SOURCE}, on intrinsic hardness (figures only: half of the samples by EL2N)",
        "On the hardest 50 % by EL2N, SET and SNIP ratios (what the paper's code calls SNIP) are "
        f"each no more than {MARGIN:g} point below dense (mean over densities and tasks, paired by "
        f"seed): both intervals lie above −{MARGIN:g}.",
        _match_on_hardest,
    ),
    Claim(
        "On the hardest half they beat dense ones where they are sparsest.",
        f"{_SOURCE}, on intrinsic hardness (SET and SNIP best, above all at high sparsity)",
        "On the hardest 50 % by EL2N, at the least density run, SET and SNIP ratios are each "
        "better than dense: both intervals lie above 0.",
        _better_when_sparsest,
    ),
    Claim(
        "With little data sparse networks beat dense ones.",
        f"{_SOURCE}, on the share of the data (20 %)",
        "On a random 20 %, SET and SNIP ratios are each better than dense (mean over densities): "
        "both intervals lie above 0.",
        _better_on_few,
    ),
    Claim(
        "With little data they gain more the sparser they are.",
        f"{_SOURCE}, on the share of the data",
        "On a random 20 %, what SET and SNIP ratios gain over dense is larger at the least density "
        "than at the greatest, paired by seed: both intervals lie above 0.",
        _more_when_sparser,
    ),
    Claim(
        "Under severe corruption, with all data, it is denser networks that gain.",
        f"{_SOURCE}, on common corruptions (severity 5)",
        "At severity 5 what SET gains over dense is larger at the greatest density than at the "
        "least, paired by seed: the interval lies above 0.",
        _corruption_at_high_density,
    ),
    Claim(
        "The harder the corruption, the more sparse networks gain.",
        f"{_SOURCE}, appendix B (severity 2: about equal or worse; 4 and more: gains)",
        "What SET gains over dense (mean over densities) is larger at severity 5 than at 2, paired "
        "by seed: the interval lies above 0.",
        _severe_gains_more,
    ),
    Claim(
        "Trained adversarially, sparse networks are as accurate on clean images.",
        f"{_SOURCE}, on adversarial attacks (density {_ADVERSARIAL_DENSITY:g})",
        f"At density {_ADVERSARIAL_DENSITY:g} the clean accuracy of SET and SNIP ratios differs "
        f"from dense's by less than {MARGIN:g} point, with the whole interval.",
        _clean_comparable,
    ),
    Claim(
        "Trained adversarially, sparse networks are more robust.",
        f"{_SOURCE}, on adversarial attacks (density {_ADVERSARIAL_DENSITY:g})",
        f"At density {_ADVERSARIAL_DENSITY:g} SET and SNIP ratios are each more accurate than "
        "dense on images attacked by 20 steps of projected gradient descent: both intervals lie "
        "above 0.",
        _robust_higher,
    ),
    Claim(
        "Networks denser in shallow layers are better: ERK beats uniform.",
        f"{_SOURCE}, on layer-wise density",
        "On the hardest 50 % by EL2N a static topology with ERK densities is better than one with "
        "the same density in every layer (mean over densities run of both): the interval lies "
        "above 0.",
        _layers_matter,
    ),
    Claim(
        "At high sparsity pruning needs the trained weights: OMP beats the lottery ticket.",
        f"{_SOURCE}, on layer-wise density (LTH declines, OMP does not)",
        "On the hardest 50 % by EL2N, at the least density run, OMP is better than LTH: the "
        "interval lies above 0.",
        _trained_weights_help,
    ),
    Claim(
        "What one-shot pruning gains is not its longer training.",
        "a control of ours",
        "On the hardest 50 % by EL2N OMP is better than a dense network that goes on as OMP does, "
        "with nothing pruned (mean over densities): the interval lies above 0.",
        _pruning_helps,
    ),
    Claim(
        "Moving the topology is worth something on hard samples.",
        "a control of ours",
        "On the hardest 50 % by EL2N SET is better than a static topology with the same (ERK) "
        "densities (mean over densities): the interval lies above 0.",
        _moving_matters,
    ),
    Claim(
        "On hard samples a sparse network beats a dense one with as many parameters.",
        "a control of ours",
        "On the hardest 50 % by EL2N SET is better than the narrower dense network (mean over "
        "densities): the interval lies above 0.",
        _size_is_not_all,
    ),
    Claim(
        "It is the hardness: sparse networks gain more on hard samples than on as many others.",
        "a control of ours",
        "What SET and SNIP ratios gain over dense (mean over densities) is larger on the hardest "
        "50 % than on a random 50 %, paired by seed: both intervals lie above 0.",
        _more_on_hard,
    ),
)
