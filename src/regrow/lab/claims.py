"""Claims: a sentence of a paper, the rule that decides it, and the verdict of the records."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from regrow.lab.statistics import Interval
from regrow.lab.view import View

__all__ = [
    "UNFIT",
    "Answer",
    "Claim",
    "Outcome",
    "Verdict",
    "above",
    "all_of",
    "at_least",
    "below",
    "differs",
    "size",
    "span",
    "undecided",
    "within",
]

UNFIT = (ValueError, LookupError, ArithmeticError, TypeError)
"""What is raised where records are missing, or hold something else than is asked of them."""

Outcome = Literal["supported", "not supported", "inconclusive", "not judged"]
SEEDS_NEEDED = 3
_NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five"}
_ORDINALS = {1: "closest", 2: "second closest", 3: "third closest"}


@dataclass(frozen=True)
class Verdict:
    """What the records say of a claim.

    Args:
        outcome: "supported", "not supported" (the records speak against it) or "inconclusive"; or
            "not judged", where no verdict may rest on the records.
        effect: the size that was judged, with its interval; None if there is nothing to judge.
        unit: of the effect, such as "points of accuracy".
        why: anything a reader must know beside the rule.
        held: why it is not judged whatever the effect is, such as trials that are yet to run.

    Raises:
        ValueError: a decision without an effect, or from fewer than three seeds.
    """

    outcome: Outcome
    effect: Interval | None = None
    unit: str = ""
    why: str = ""
    held: str = ""

    def __post_init__(self) -> None:
        if self.outcome in ("inconclusive", "not judged"):
            return
        if self.effect is None or self.effect.n < SEEDS_NEEDED:
            seeds = self.effect.n if self.effect else 0
            raise ValueError(f"{seeds} seeds: no verdict from fewer than {SEEDS_NEEDED}")

    def __str__(self) -> str:
        """Say what holds it back, then the effect and its interval, then why.

        Example:
            >>> str(Verdict("supported", Interval(1.0, 0.5, 1.5, 3), "points"))
            '1 points (95 % interval 0.5 to 1.5, n = 3)'
        """
        return _joined(self.held, _effect(self.effect, self.unit), self.why)


@dataclass(frozen=True)
class Answer:
    """What a claim's verdict says of the question that a study asks, as a part of a sentence.

    Each must be true whatever stands before it: the other parts may say yes or no.

    Args:
        yes: if it is supported.
        no: if it is not supported.
        open: if neither, or if it is not judged; else that it is open whether ``yes``.
    """

    yes: str
    no: str
    open: str = ""

    def words(self, verdict: Verdict) -> str:
        """Say it, with the effect that was judged.

        Example:
            >>> answer = Answer("it helps", "it does not help")
            >>> answer.words(Verdict("supported", Interval(1.0, 0.5, 1.5, 3), "points"))
            'it helps (1 points)'
            >>> answer.words(Verdict("inconclusive"))
            'whether it helps is open'
        """
        other = self.open or f"whether {self.yes} is open"
        said = {"supported": self.yes, "not supported": self.no}.get(verdict.outcome, other)
        if verdict.effect is None:
            return said
        return f"{said} ({size(verdict.effect.mean, verdict.unit)})"


@dataclass(frozen=True)
class Claim:
    """A sentence, and how it is decided.

    Args:
        sentence: what is claimed, in the paper's words or close to them.
        source: paper and section.
        rule: what decides it, in words, fixed before the runs.
        decide: the rule as a function of the records, seen by their labels.
        gate: what must be supported first, see :func:`regrow.lab.rules.gated`; None: nothing.
        answer: what its verdict says of the study's question; None: it is no part of the answer.
    """

    sentence: str
    source: str
    rule: str
    decide: Callable[[View], Verdict]
    gate: Claim | None = None
    answer: Answer | None = None

    def judge(self, records: View, whole: View | None = None) -> Verdict:
        """Decide it; records that are missing or unfit make it inconclusive, and are named.

        Args:
            records: seen by their labels. Where no verdict may rest on them, the rule reads a
                control that did not learn, or the gate is not supported, the effect is told but
                no verdict.
            whole: what the gate is judged by, where these records are a part; None: by these.

        Example:
            >>> from regrow.lab.effects import gain
            >>> decide = lambda view: above(gain("RigL", "static").interval(view), 0)
            >>> claim = Claim("RigL helps.", "", "The interval of the gain lies above 0.", decide)
            >>> claim.judge(View([])).why
            'there are no records to judge by'
        """
        verdict = self._decided(records)
        if records.gaps.held:
            return _held(verdict, records.gaps.held)
        if self.gate is not None:
            opened = self.gate.judge(records if whole is None else whole)
            if opened.outcome != "supported":
                why = f"it is {opened.outcome} that: {self.gate.sentence}"
                return _held(verdict, why)
        read = self._read(records)
        if unlearnt := read & records.gaps.unlearnt:
            return _held(verdict, f"{_trials(len(unlearnt))} that it reads did not learn")
        if not read:
            return verdict
        return replace(
            verdict, why=_joined(verdict.why, f"{_trials(len(read))} that it asks for left out")
        )

    def _decided(self, records: View) -> Verdict:
        try:
            return self.decide(records)
        except UNFIT as error:
            return Verdict("inconclusive", why=str(error) or type(error).__name__)

    def _read(self, records: View) -> set[str]:
        """Name the trials that the rule reads and that are not there, or did not learn.

        The rule itself tells, asked once more as if all were there. Where it then cannot be
        followed to its end, it may read any that is not there.
        """
        waiting = {record.identity for _, record in records.gaps.rows}
        seen: set[str] = set()
        if waiting:
            try:
                self.decide(records.filled(seen))
            except UNFIT:
                seen |= waiting
        if records.gaps.unlearnt:
            with contextlib.suppress(*UNFIT):
                self.decide(View(records.rows, seen=seen))
        return seen & (waiting | records.gaps.unlearnt)


def above(interval: Interval, bar: float, unit: str = "") -> Verdict:
    """Judge "it is more than the bar": the interval lies above it, below it, or holds it.

    Args:
        interval: of the effect.
        bar: in the effect's unit.
        unit: of the effect.

    Example:
        >>> above(Interval(1.0, 0.5, 1.5, 5), 0.0).outcome
        'supported'
    """
    return _judged(interval, unit, interval.low > bar, interval.high < bar)


def below(interval: Interval, bar: float, unit: str = "") -> Verdict:
    """Judge "it is less than the bar": the interval lies below it, above it, or holds it.

    Args:
        interval: of the effect.
        bar: in the effect's unit.
        unit: of the effect.
    """
    return _judged(interval, unit, interval.high < bar, interval.low > bar)


def within(interval: Interval, margin: float, unit: str = "") -> Verdict:
    """Judge "it makes no difference that matters".

    Args:
        interval: of the difference. Supported if all of it lies inside ± margin, not supported if
            all of it lies outside.
        margin: the smallest difference that matters, in the effect's unit.
        unit: of the effect.

    Raises:
        ValueError: the margin is not positive.

    Example:
        >>> [within(Interval(m, m - 1, m + 1, 5), 2.0).outcome for m in (0, 2, 4)]
        ['supported', 'inconclusive', 'not supported']
    """
    if margin <= 0:
        raise ValueError(f"margin={margin}: must be positive")
    inside = -margin < interval.low and interval.high < margin
    return _judged(interval, unit, inside, interval.low > margin or interval.high < -margin)


def all_of(parts: Mapping[str, Verdict]) -> Verdict:
    """Judge a claim that holds only if each part does; one that is not supported decides.

    Args:
        parts: verdicts by what they are of.

    Example:
        >>> yes, no = (above(Interval(m, m - 1, m + 1, 5), 0) for m in (2, -2))
        >>> all_of({"wide": yes, "narrow": no}).why
        'as for narrow; wide: supported, narrow: not supported'
    """
    if not parts:
        return Verdict("inconclusive", why="nothing to judge")
    order = ("not supported", "inconclusive", "supported")
    name = min(parts, key=lambda part: order.index(parts[part].outcome))
    one = parts[name]
    each = ", ".join(f"{part}: {verdict.outcome}" for part, verdict in parts.items())
    return Verdict(one.outcome, one.effect, one.unit, _joined(f"as for {name}", one.why, each))


def at_least(count: int, parts: Mapping[str, Verdict]) -> Verdict:
    """Judge a claim that holds if so many parts do; the last of them decides, by its mean's size.

    Args:
        count: how many must be supported; it is not supported if too many parts are not.
        parts: verdicts by what they are of, each with an effect.
    """
    ordered = sorted(parts.values(), key=lambda one: abs(one.effect.mean if one.effect else 0.0))
    outcomes = [verdict.outcome for verdict in ordered]
    outcome: Outcome = "inconclusive"
    if outcomes.count("supported") >= count:
        outcome = "supported"
    elif outcomes.count("not supported") > len(parts) - count:
        outcome = "not supported"
    each = ", ".join(f"{outcomes.count(o)} {o}" for o in dict.fromkeys(outcomes))
    deciding = ordered[count - 1]
    place = _ORDINALS.get(count, f"{count}th closest")
    why = f"the {place} of {_NUMBERS.get(len(parts), len(parts))}; {each}"
    return Verdict(outcome, deciding.effect, deciding.unit, why)


def differs(interval: Interval, margin: float, unit: str = "") -> Verdict:
    """Judge "it makes a difference": the interval leaves 0 out, and not all of it is small.

    Args:
        interval: of the difference. Not supported if all of it lies inside ± margin.
        margin: the smallest difference that matters, in the effect's unit.
        unit: of the effect.
    """
    small = -margin < interval.low and interval.high < margin
    return _judged(interval, unit, interval.excludes(0) and not small, small)


def undecided(interval: Interval, unit: str, why: str = "") -> Verdict | None:
    """Return the verdict on too few seeds; None if there are enough."""
    if interval.n >= SEEDS_NEEDED:
        return None
    said = _joined(f"fewer than {SEEDS_NEEDED} seeds", why)
    return Verdict("inconclusive", interval, unit, said)


def span(interval: Interval) -> str:
    """Write from where to where an interval goes; nothing for a single value, which has none.

    Example:
        >>> span(Interval(1.0, -0.5, 2.5, 3))
        '−0.5 to 2.5'
    """
    return "" if interval.n == 1 else f"{_number(interval.low)} to {_number(interval.high)}"


def size(value: float, unit: str) -> str:
    """Write the size of an effect.

    Example:
        >>> size(-0.1234, "points")
        '−0.123 points'
    """
    return f"{_number(value)} {unit}".rstrip()


def _judged(interval: Interval, unit: str, yes: bool, no: bool) -> Verdict:
    if (few := undecided(interval, unit)) is not None:
        return few
    outcome: Outcome = "supported" if yes else "not supported" if no else "inconclusive"
    return Verdict(outcome, interval, unit)


def _held(verdict: Verdict, reason: str) -> Verdict:
    """Keep the effect, take the verdict away, and with it words that give verdicts on parts."""
    parts = any(outcome in verdict.why for outcome in ("supported", "inconclusive"))
    why = "" if parts else verdict.why
    return Verdict("not judged", verdict.effect, verdict.unit, why, reason)


def _joined(*parts: str) -> str:
    """Write parts behind one another; each may be a sentence with its full stop."""
    return "; ".join(part.removesuffix(".") for part in parts if part)


def _number(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")


def _trials(count: int) -> str:
    return f"{count} trial{'s' if count != 1 else ''}"


def _effect(interval: Interval | None, unit: str) -> str:
    if interval is None:
        return ""
    said = size(interval.mean, unit)
    if interval.n == 1:
        return f"{said} (n = 1)"
    return f"{said} (95 % interval {span(interval)}, n = {interval.n})"
