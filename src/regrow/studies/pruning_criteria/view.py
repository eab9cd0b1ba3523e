"""The study's records as its questions see them: tasks, and accuracies by what was done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from regrow.lab.records import Record, Records
from regrow.lab.statistics import averaged, differences
from regrow.lab.tasks import by_setting
from regrow.studies.pruning_criteria.criteria import GROWTH, criterion_of, growth_of
from regrow.studies.vision.words import model_on_data

__all__ = [
    "BySeed",
    "Task",
    "few",
    "first_overlap",
    "gap",
    "overlaps",
    "tasks",
]

BySeed = Mapping[int, float]

# Two records of one setting differ in method, seed, dropout and narrowness only.
_SETTING = ("data", "model", "samples", "epochs", "batch", "validation", "learning_rate")


@dataclass(frozen=True)
class Task:
    """A model that learns a data set, in one setting.

    Args:
        name: for readers.
        records: of this setting.
        period: steps between the updates of the criteria grid.
    """

    name: str
    records: Records
    period: int

    def accuracy(
        self,
        criterion: str,
        density: float,
        growth: str = "",
        period: int | None = None,
        field: str = "accuracy",
    ) -> dict[int, float]:
        """Return test accuracy in per cent by seed.

        Args:
            criterion: of the study, or "static", "dense", "small dense".
            density: of the method; of the network that a small dense one is as large as.
            growth: of the study, for criteria.
            period: steps between updates; None is the grid's.
            field: another field of the records, as it is.

        Raises:
            ValueError: there are no such records.
        """

        def fits(record: Record) -> bool:
            if criterion in ("dense", "small dense"):
                share = density if criterion == "small dense" else 1.0
                return criterion_of(record) == "dense" and record.get("narrow") == share
            if criterion_of(record) != criterion or record.get("method.density") != density:
                return False
            every = record.get("method.update_every")
            return growth_of(record) == growth and every in (None, period or self.period)

        found = self.records.where(fits, dropout=0.0).values(field)
        if not found:
            raise ValueError(f"no records of {self.name}, {criterion}, {growth}, {density:g}")
        return {s: 100 * v if field == "accuracy" else v for s, v in found.items()}

    @property
    def densities(self) -> list[float]:
        """The densities at which the criteria were run with the grid's period."""
        moving = self.records.where(
            lambda record: criterion_of(record) == "magnitude",
            method__update_every=self.period,
        )
        return [float(density) for density in moving.distinct("method.density")]

    @property
    def periods(self) -> list[int]:
        """The steps between updates that were tried."""
        return [int(period) for period in self.records.distinct("method.update_every")]


def tasks(records: Records) -> list[Task]:
    """Return the tasks of the criteria grid."""
    groups = _settings(records)
    return [
        Task(name, group, _period(group))
        for name, group in groups.items()
        if not _has_dropout(group) and _period(group)
    ]


def few(records: Records) -> list[Task]:
    """Return the tasks of few samples: those in which dropout was tried."""
    groups = _settings(records)
    return [
        Task(name, group, _period(group)) for name, group in groups.items() if _has_dropout(group)
    ]


def overlaps(records: Records) -> dict[str, Records]:
    """Return the records of overlaps by data set and model."""
    groups: dict[str, list[Record]] = {}
    for record in records.where(trial="Overlaps"):
        groups.setdefault(f"{record.get('model')} on {record.get('data')}", []).append(record)
    return {name: Records(group) for name, group in groups.items()}


def first_overlap(records: Records, share: float, one: str, other: str) -> dict[int, float]:
    """Return by seed the Jaccard index of two criteria's choice of a share, at the first update.

    Args:
        records: of one entry of :func:`overlaps`.
        share: of the active weights.
        one: a criterion.
        other: a criterion; one is named before the other in the study's list.
    """
    pair = f"{one} | {other}"
    return {record.config["seed"]: record.result["first"][str(share)][pair] for record in records}


def gap(task: Task, one: str, other: str, density: float) -> dict[int, float]:
    """Return by how many points one criterion is better than another, by seed.

    The mean over both growth rules; what does not grow is compared with each.
    """
    found = []
    for growth in GROWTH:
        pair = [
            task.accuracy(
                name, density, "" if name in ("static", "dense", "small dense") else growth
            )
            for name in (one, other)
        ]
        found.append(differences(*pair, common=True))
    return averaged(found)


def _settings(records: Records) -> dict[str, Records]:
    return by_setting(records.where(trial="Classify"), _SETTING, _name)


def _name(group: Records) -> str:
    few = f", {group.all[0].get('samples')} samples" if _has_dropout(group) else ""
    return model_on_data(group) + few


def _has_dropout(group: Records) -> bool:
    return any(record.get("dropout") for record in group)


def _period(group: Records) -> int:
    counts = Counter(record.get("method.update_every") for record in group)
    del counts[None]
    return int(counts.most_common(1)[0][0]) if counts else 0
