"""Rules: a claim whose decision, and the words for it, come from the same effects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from regrow.lab.claims import (
    Answer,
    Claim,
    Verdict,
    above,
    all_of,
    at_least,
    below,
    differs,
    within,
)
from regrow.lab.effects import Average, Effect, Level, together
from regrow.lab.statistics import Interval
from regrow.lab.tasks import mean_over_tasks
from regrow.lab.view import View

__all__ = ["claim", "each", "gated"]

_JUDGES: Mapping[str, Callable[[Interval, float, str], Verdict]] = {
    "above": above,
    "below": below,
    "within": within,
    "differs": differs,
}


def claim(
    sentence: str,
    source: str,
    effects: Effect | Mapping[str, Effect],
    *,
    note: str = "",
    count: int | None = None,
    average: Average = mean_over_tasks,
    over: str = "tasks",
    by: str = "seed",
    tasks: Sequence[str] = (),
    answer: Answer | None = None,
    **bar: float,
) -> Claim:
    r"""Make a claim that is decided by effects.

    Args:
        sentence: what is claimed, in the paper's words or close to them.
        source: paper and section.
        effects: one, or several by what they are of.
        note: what a reader must know beside the rule.
        count: how many effects must lie on the side; None is all of them.
        average: makes an interval of numbers by task and seed.
        over: what is averaged over, in words.
        by: what is paired, in words.
        tasks: those that must have the effects, and no others; else all that have them.
        answer: what the verdict says of the study's question, if it is a part of the answer.
        bar: exactly one of ``above=``, ``below=``, ``within=``, ``differs=``.

    Example:
        >>> from regrow.lab.effects import gain
        >>> made = claim("SET helps.", "", gain("SET", "static", density=0.1), above=0)
        >>> print(made.rule.replace(". ", ".\n"))
        SET over static (density 0.1): test accuracy, difference paired by seed, mean over tasks.
        The interval must lie above 0.
    """
    if len(bar) != 1 or not bar.keys() <= _JUDGES.keys():
        raise ValueError(f"bar={bar}: give one of {', '.join(_JUDGES)}")
    ((side, place),) = bar.items()
    named = {"": effects} if isinstance(effects, Effect) else dict(effects)

    def decide(view: View) -> Verdict:
        parts = {
            name: _JUDGES[side](effect.interval(view, average, tasks), place, effect.measure.unit)
            for name, effect in named.items()
        }
        if count is not None:
            return at_least(count, parts)
        return parts[""] if "" in parts else all_of(parts)

    said = [f"{_asked(named, by)} over {over}.", f"{_wanted(side, place, len(named), count)}."]
    return Claim(sentence, source, " ".join([*said, note]).rstrip(), decide, answer=answer)


def gated(gate: Claim, *claims: Claim) -> tuple[Claim, ...]:
    """Make claims that are judged only if a first one is supported by the same study's records.

    So nothing is concluded from comparisons of what was not trained well to begin with.

    Args:
        gate: such as "the baseline reaches its published accuracy".
        claims: the others.

    Returns:
        All of them, the gate first.

    Example:
        >>> from regrow.lab.claims import Verdict
        >>> from regrow.lab.effects import gain
        >>> fails = Claim("It learns.", "", "", lambda _: Verdict("inconclusive"))
        >>> first, then = gated(fails, claim("SET helps.", "", gain("SET", "static"), above=0))
        >>> then.judge(View([])).held
        'it is inconclusive that: It learns.'
    """
    said = f" Judged only if this is supported: {gate.sentence}"
    return gate, *(replace(one, gate=gate, rule=one.rule + said) for one in claims)


def each(names: Iterable[str], effect: Callable[[str], Effect]) -> dict[str, Effect]:
    """Ask the same of several arms."""
    return {name: effect(name) for name in names}


def _asked(effects: Mapping[str, Effect], by: str) -> str:
    """Say what is measured, and how it is averaged."""
    measure = next(iter(effects.values())).measure
    asked = _together({name: str(effect) for name, effect in effects.items()})
    what, mean = ("ratio", "geometric mean") if measure.ratio else ("difference", "mean")
    paired = f", {what} paired by {by}"
    if all(isinstance(effect, Level) for effect in effects.values()):
        paired = ""
    return f"{asked}: {measure.name}{paired}, {mean}"


def _wanted(side: str, bar: float, n: int, count: int | None) -> str:
    """Say where the intervals of n effects must lie."""
    whose = {1: "The interval", 2: "Both intervals"}.get(n, "Every interval")
    if count is not None:
        whose = f"At least {count} of {n} intervals"
    if side == "differs":
        return f"{whose} must leave 0 out; one inside ±{bar:g} speaks against it"
    place = f"{bar:g}".replace("-", "−")
    return f"{whose} must lie {side} {'±' if side == 'within' else ''}{place}"


def _together(words: Mapping[str, str]) -> str:
    """Write phrases as one where they differ only in what they are of.

    Example:
        >>> _together({"SET": "SET over dense", "RigL": "RigL over dense"})
        'for each of SET, RigL: it over dense'
    """
    phrases = list(words.values())
    alike = {phrase.replace(name, "it") for name, phrase in words.items()}
    if len(phrases) > 1 and len(alike) == 1:
        return f"for each of {', '.join(words)}: {alike.pop()}"
    return together(phrases)
