"""Effects: what one arm of a study gains over another, asked of labelled records.

An effect is a number a seed. Effects can be subtracted and averaged, and they tell in words what
they are, so that the rule a reader sees is the rule that ran.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product, takewhile
from typing import Any, TypeAlias

from regrow.lab.records import Record
from regrow.lab.statistics import Interval, averaged, differences
from regrow.lab.tasks import mean_over_tasks
from regrow.lab.view import View

__all__ = [
    "ACCURACY",
    "EVERY",
    "HIGHEST",
    "LOWEST",
    "Average",
    "BySeed",
    "Effect",
    "Gain",
    "Level",
    "Measure",
    "gain",
    "level",
    "mean_of",
    "percent",
    "together",
]

BySeed: TypeAlias = Mapping[int, float]
Average: TypeAlias = Callable[[Mapping[str, BySeed]], Interval]

EVERY, LOWEST, HIGHEST = "every", "lowest", "highest"
"""The mean over all places of an axis that the records have, the lowest of them, the highest."""


@dataclass(frozen=True)
class Measure:
    """A number that is read from a record.

    Args:
        name: for readers, such as "accuracy on clean images".
        read: returns it; a ValueError says that this record has none.
        unit: of a difference of two.
        ratio: compare by ratio, not by difference; ``read`` then returns a positive number.
    """

    name: str
    read: Callable[[Record], float]
    unit: str = "points of accuracy"
    ratio: bool = False

    def __call__(self, record: Record) -> float:
        """Read it; the logarithm, if ratios are compared."""
        try:
            value = float(self.read(record))
        except TypeError as error:
            raise ValueError(f"trial {record.identity}: {self.name} is no number") from error
        return math.log(value) if self.ratio else value


def percent(field: str, name: str, unit: str = "points of accuracy") -> Measure:
    """Read a share from the results, in per cent; inner fields by dots.

    Example:
        >>> from pathlib import Path
        >>> record = Record("", {"seed": 0}, {"accuracy": 0.5}, {}, Path())
        >>> percent("accuracy", "test accuracy")(record)
        50.0
    """

    def read(record: Record) -> float:
        if (share := record.get(field)) is None:
            raise ValueError(f"no {name}")
        return 100 * float(share)

    return Measure(name, read, unit)


ACCURACY = percent("accuracy", "test accuracy")


class Effect(ABC):
    """A number a seed, of the records of one task."""

    measure: Measure

    @abstractmethod
    def by_seed(self, task: View) -> BySeed:
        """Compute it.

        Raises:
            ValueError: the task has no records for it.
        """

    def __sub__(self, other: Effect) -> Effect:
        one, name = self.measure, other.measure.name
        measure = one if one.name == name else replace(one, name=f"{one.name} less {name}")
        return _Less(measure, self, other)

    def interval(
        self, view: View, average: Average = mean_over_tasks, tasks: Sequence[str] = ()
    ) -> Interval:
        """Average the effect over tasks, each weighing the same.

        Args:
            view: records, labelled by ``task``.
            average: makes an interval of numbers by task and seed.
            tasks: see :meth:`by_task`.

        Raises:
            ValueError: see :meth:`by_task`.
        """
        mean = average(self.by_task(view, tasks))
        if not self.measure.ratio:
            return mean
        return Interval(math.exp(mean.mean), math.exp(mean.low), math.exp(mean.high), mean.n)

    def by_task(self, view: View, tasks: Sequence[str] = ()) -> dict[str, BySeed]:
        """Compute it task by task.

        Args:
            view: records, labelled by ``task``.
            tasks: those that must have it, and no others; else all that have it.

        Raises:
            ValueError: no task has it, the message being the last one's; or one that must has not.
        """
        values, why, last = {}, {}, "there are no records to judge by"
        for name, task in view.by("task").items():
            try:
                if not (found := self.by_seed(task)):
                    raise ValueError("no seed has all that it compares")
                values[str(name)] = found
            except ValueError as error:
                why[str(name)], last = str(error), f"{name}: {self}: {error}"
        if missing := [name for name in tasks if name not in values]:
            said = why.get(missing[0], "no records")
            raise ValueError(f"{self}: {said} on {', '.join(missing)}")
        if not values:
            raise ValueError(last)
        return {name: values[name] for name in tasks or values}

    def maybe(self, view: View, average: Average = mean_over_tasks) -> Interval | None:
        """Return :meth:`interval`; None where no task has it."""
        try:
            return self.interval(view, average)
        except ValueError:
            return None


@dataclass(frozen=True)
class Level(Effect):
    """A measure itself.

    Args:
        measure: what is read.
        at: labels; see :func:`gain`.
    """

    measure: Measure
    at: Mapping[str, Any]

    def by_seed(self, task: View) -> BySeed:
        """Average over the places, seed by seed."""
        return averaged([task.where(**at).values(self.measure) for at in _places(self.at, task)])

    def __str__(self) -> str:
        return _words(self.at)


@dataclass(frozen=True)
class Gain(Effect):
    """By how much one side is above another, paired by seed.

    Args:
        measure: what is compared.
        one: labels of one side only.
        over: labels of the other side only.
        at: labels of both; see :func:`gain`.
    """

    measure: Measure
    one: Mapping[str, Any]
    over: Mapping[str, Any]
    at: Mapping[str, Any]

    def by_seed(self, task: View) -> BySeed:
        """Average the differences over the places, seed by seed."""
        one, over = (task.where(**_own(side, task)) for side in (self.one, self.over))
        parts = []
        for at in _places(self.at, one, over):
            pair = (side.at(**at).values(self.measure) for side in (one, over))
            parts.append(differences(*pair, common=True))
        return averaged(parts)

    def __str__(self) -> str:
        at = f" ({_words(self.at)})" if self.at else ""
        return f"{_words(self.one)} over {_words(self.over)}{at}"


@dataclass(frozen=True)
class _Less(Effect):
    measure: Measure
    one: Effect
    other: Effect

    def by_seed(self, task: View) -> BySeed:
        return differences(self.one.by_seed(task), self.other.by_seed(task), common=True)

    def __str__(self) -> str:
        one, other = str(self.one), str(self.other)
        return one if one == other else together([one, other], "", " less ")


@dataclass(frozen=True)
class _Mean(Effect):
    measure: Measure
    parts: Sequence[Effect]

    def by_seed(self, task: View) -> BySeed:
        return averaged([part.by_seed(task) for part in self.parts])

    def __str__(self) -> str:
        return together(list(map(str, self.parts)), "the mean of", " and ")


def mean_of(*parts: Effect) -> Effect:
    """Average effects, seed by seed."""
    return _Mean(parts[0].measure, parts)


def level(arm: str | None = None, /, measure: Measure = ACCURACY, **at: Any) -> Level:
    """Ask for a measure of one arm, as :func:`gain` does for two."""
    return Level(measure, ({} if arm is None else {"arm": arm}) | at)


def gain(
    one: str | Mapping[str, Any],
    over: str | Mapping[str, Any],
    /,
    measure: Measure = ACCURACY,
    **at: Any,
) -> Gain:
    """Ask by how much one side is above another, paired by seed, mean over tasks.

    Args:
        one: an arm, or the labels of a side.
        over: an arm, or the labels of the other side.
        measure: what is compared.
        at: labels of both sides. A value; several in a tuple, over which is averaged; `EVERY`: the
            mean over all places that both sides have; `LOWEST` or `HIGHEST` of them. A side that
            does not depend on an axis meets each place of the other.

    Example:
        >>> str(gain("SET", "dense", density=LOWEST))
        'SET over dense (lowest density)'
    """
    return Gain(measure, _side(one), _side(over), at)


def _side(side: str | Mapping[str, Any]) -> Mapping[str, Any]:
    return {"arm": side} if isinstance(side, str) else side


def _own(side: Mapping[str, Any], task: View) -> dict[str, Any]:
    """Resolve the lowest and highest place of a side by itself."""
    fixed = {axis: value for axis, value in side.items() if value not in (LOWEST, HIGHEST)}
    for axis in side.keys() - fixed.keys():
        places = task.where(**fixed).axis(axis)
        if not places:
            raise ValueError(f"no records with {_words(fixed)} have {axis}")
        fixed[axis] = places[0 if side[axis] == LOWEST else -1]
    return fixed


def _places(at: Mapping[str, Any], *sides: View) -> Iterator[dict[str, Any]]:
    """Yield the places where sides are compared: plain values first, others among what is left."""
    for axis in at:
        if not any(side.axis(axis) for side in sides):
            raise ValueError(f"no records that have {axis}")
    fixed = {axis: value for axis, value in at.items() if not _open(value)}
    here = [side.at(**fixed) for side in sides]
    open_axes = {axis: _shared(axis, value, here) for axis, value in at.items() if _open(value)}
    for axis, places in open_axes.items():
        if not places:
            raise ValueError(f"no records to compare at {_place(axis, at[axis])}")
    for place in product(*open_axes.values()):
        yield fixed | dict(zip(open_axes, place, strict=True))


def _open(value: Any) -> bool:
    return isinstance(value, tuple) or value in (EVERY, LOWEST, HIGHEST)


def _shared(axis: str, wanted: Any, sides: Sequence[View]) -> list[Any]:
    has = [set(places) for side in sides if (places := side.axis(axis))]
    shared = sorted(set.intersection(*has)) if has else []
    if wanted == LOWEST:
        return shared[:1]
    if wanted == HIGHEST:
        return shared[-1:]
    return shared if wanted == EVERY else [place for place in wanted if place in shared]


def _words(labels: Mapping[str, Any]) -> str:
    """Write labels: arms by their name, others behind that of their axis."""
    return ", ".join(_place(axis, value) for axis, value in labels.items())


def _place(axis: str, value: Any) -> str:
    if value == EVERY:
        return f"mean over {axis}"
    if value in (LOWEST, HIGHEST):
        return f"{value} {axis}"
    words = _value(value) if axis == "arm" else f"{axis} {_value(value)}"
    return f"mean of {words}" if isinstance(value, tuple) else words


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        *most, last = map(_value, value)
        return f"{', '.join(most)} and {last}" if most else last
    return f"{value:g}" if isinstance(value, float) else str(value)


def together(phrases: Sequence[str], lead: str = "each of", between: str = ", ") -> str:
    """Write phrases as one: what all begin and end with is said once.

    Example:
        >>> together(["SET over dense (density 0.1)", "RigL over dense (density 0.1)"])
        'each of SET, RigL over dense (density 0.1)'
        >>> together(["SET over dense (density 0.1)", "SET over dense (density 0.2)"], "", " less ")
        'SET over dense (density 0.1 less 0.2)'
    """
    if len(phrases) == 1:
        return phrases[0]
    split = [re.findall(r"[()\[\],]|[^\s()\[\],]+", phrase) for phrase in phrases]
    head = _alike(split)
    tail = min(_alike([words[::-1] for words in split]), min(map(len, split)) - head)
    first, *_ = split
    middles = [words[head : len(words) - tail] for words in split]
    if not all(words and _closed(words) for words in middles) or head + tail == 0:
        return f"{lead} {between.join(f'[{phrase}]' for phrase in phrases)}".strip()
    if any("," in words for words in middles):
        between = between.replace(", ", "; ")
    said = [*first[:head], lead, between.join(map(" ".join, middles)), *first[len(first) - tail :]]
    return re.sub(r"(?<=[(\[]) | (?=[)\],])", "", " ".join(filter(None, said)))


def _alike(phrases: Sequence[Sequence[str]]) -> int:
    """Count the words with which all phrases begin."""
    return len(list(takewhile(lambda words: len(set(words)) == 1, zip(*phrases, strict=False))))


def _closed(words: Sequence[str]) -> bool:
    """Whether each bracket that is opened is closed."""
    return words.count("(") == words.count(")") and words.count("[") == words.count("]")
