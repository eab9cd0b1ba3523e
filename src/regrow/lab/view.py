"""A view of labelled records: those with some labels, and what they hold by seed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from regrow.lab.design import Label, Labels
from regrow.lab.records import Record
from regrow.lab.statistics import Interval, mean_interval

__all__ = ["Gaps", "NotRun", "View"]


@dataclass(frozen=True)
class NotRun(Record):
    """A trial that was asked for and has not run; it stands in while a rule is looked through."""


@dataclass(frozen=True)
class Gaps:
    """Why records may not be fit to be judged by.

    Args:
        rows: labels of each trial that was asked for and is not there.
        held: why no verdict at all may rest on these records; empty if one may.
        unlearnt: identities of controls that did not learn: what reads them is not judged.
    """

    rows: Sequence[tuple[Labels, NotRun]] = ()
    held: str = ""
    unlearnt: frozenset[str] = frozenset()


@dataclass(frozen=True)
class View:
    """Records by their labels; a record with two sets of labels is in two rows.

    Args:
        rows: labels and records.
        gaps: what is not there or did not learn; claims are held back by it, figures are not.
        seen: gathers the identities of the records whose numbers are asked for; None: nobody does.
    """

    rows: Sequence[tuple[Labels, Record]]
    gaps: Gaps = Gaps()
    seen: set[str] | None = field(default=None, repr=False, compare=False)
    # A page asks the same of the same records hundreds of times.
    _narrowed: dict[Any, View] = field(default_factory=dict, init=False, repr=False, compare=False)
    _axes: dict[str, list[Any]] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def of(cls, records: Iterable[Record]) -> View:
        """See records by the labels they were kept with; those without labels are left out."""
        return cls([(labels, record) for record in records for labels in record.labels])

    def filled(self, seen: set[str]) -> View:
        """See what was not run as if it were there, so that a rule can be asked what it reads.

        Args:
            seen: gathers the identities of what it reads.
        """
        return View([*self.rows, *self.gaps.rows], seen=seen)

    def __bool__(self) -> bool:
        """Whether there are any records."""
        return bool(self.rows)

    @property
    def records(self) -> list[Record]:
        """The records, each once, in the order of their identities."""
        self._note()
        return sorted({r.identity: r for _, r in self.rows}.values(), key=lambda r: r.identity)

    @property
    def first(self) -> Record | None:
        """The record with the lowest seed; None if there are no records."""
        return min(self.records, key=lambda record: record.config["seed"], default=None)

    def where(self, **wanted: Any) -> View:
        """Keep the records that have these labels.

        Args:
            wanted: a value by axis; a tuple admits each of its values, None the lack of the label.
        """
        key = tuple(sorted(wanted.items()))
        if key not in self._narrowed:
            allowed = {axis: v if isinstance(v, tuple) else (v,) for axis, v in wanted.items()}

            def fits(row: tuple[Labels, Any]) -> bool:
                return all(row[0].get(axis) in values for axis, values in allowed.items())

            gaps = replace(self.gaps, rows=[row for row in self.gaps.rows if fits(row)])
            rows = [row for row in self.rows if fits(row)]
            self._narrowed[key] = View(rows, gaps, self.seen)
        return self._narrowed[key]

    def at(self, **place: Any) -> View:
        """Keep the records at a place, as :meth:`where`, by those axes that any of them has."""
        return self.where(**{axis: value for axis, value in place.items() if self.axis(axis)})

    def axis(self, name: str) -> list[Any]:
        """Return the places of an axis, in order."""
        if name not in self._axes:
            places = {labels[name] for labels, _ in self.rows if name in labels}
            self._axes[name] = sorted(places, key=lambda place: (isinstance(place, str), place))
        return self._axes[name]

    def by(self, name: str) -> dict[Label, View]:
        """Part the records by an axis; those without that label are left out."""
        return {place: self.where(**{name: place}) for place in self.axis(name)}

    def values(self, measure: Callable[[Record], float]) -> dict[int, float]:
        """Return a measure by seed; by split, the mean over its seeds, if ``split`` is a label.

        Splits of a data set are what is paired then: seeds of one split are of the same rows. A
        record with two sets of labels counts once.

        Raises:
            ValueError: there are no records, or a seed occurs twice, or only some are of a split:
                these are records of more than one cell; the message names the axes in which they
                differ.
        """
        if len({"split" in labels for labels, _ in self.rows}) > 1:
            raise ValueError(f"only some are of a split: say which {self._differing()}")
        self._note()
        values: dict[int, dict[int, float]] = {}
        for labels, record in {
            id(record): (labels, record) for labels, record in self.rows
        }.values():
            seed = record.config["seed"]
            of_split = values.setdefault(int(labels.get("split", seed)), {})
            if seed in of_split:
                raise ValueError(f"seed {seed} occurs twice: say which {self._differing()}")
            of_split[seed] = 0.0 if isinstance(record, NotRun) else measure(record)
        if not values:
            raise ValueError("no records")
        return {place: sum(seeds.values()) / len(seeds) for place, seeds in values.items()}

    def mean(self, measure: Callable[[Record], float]) -> Interval | None:
        """Return a measure's mean over seeds; None if there are no records that have it."""
        try:
            return mean_interval(self.values(measure))
        except ValueError:
            return None

    def _differing(self) -> str:
        axes = dict.fromkeys(axis for labels, _ in self.rows for axis in labels if axis != "split")
        differ = [a for a in axes if len({labels.get(a) for labels, _ in self.rows}) > 1]
        return ", ".join(differ) or "records (two have the same labels)"

    def _note(self) -> None:
        if self.seen is not None:
            self.seen.update(record.identity for _, record in self.rows)
