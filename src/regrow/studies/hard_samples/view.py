"""The study's records as its questions see them: tasks, and accuracies by what was done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from regrow.lab.records import Record, Records
from regrow.lab.statistics import averaged, differences
from regrow.lab.tasks import by_setting
from regrow.studies.hard_samples.conditions import Condition, condition_of
from regrow.studies.hard_samples.methods import METHODS, WHOLE, density_of, method_of
from regrow.studies.vision.words import model_on_data

__all__ = ["BySeed", "Task", "tasks"]

BySeed = Mapping[int, float]

# Two records of one task differ in method, seed, condition and length only.
_SETTING = (
    *("data", "model", "batch", "learning_rate", "schedule"),
    *("precision", "validation", "samples"),
)


@dataclass(frozen=True)
class Task:
    """A model that learns a data set, in one setting.

    Args:
        name: for readers.
        records: of this setting.
    """

    name: str
    records: Records

    @property
    def conditions(self) -> list[Condition]:
        """What was tried to make samples hard."""
        return sorted({condition_of(record) for record in self.records}, key=Condition.order)

    def methods(self, condition: Condition) -> list[str]:
        """Return which methods were run under a condition, in the study's order."""
        found = {method_of(record) for record in self.under(condition)}
        return [name for name in METHODS if name in found]

    def densities(self, condition: Condition, *methods: str) -> list[float]:
        """Return at which densities all of these methods were run; dense ones have none."""
        sparse = [name for name in methods if name not in WHOLE]
        each = [
            {density_of(r) for r in self.under(condition) if method_of(r) == name}
            for name in sparse
        ]
        return sorted(set.intersection(*each)) if each else []

    def found(
        self, method: str, density: float, condition: Condition, field: str = "accuracy"
    ) -> dict[int, float]:
        """Return a field of the records by seed; accuracies in per cent.

        Args:
            method: of the study.
            density: of the method; of the network that a small dense one is as large as.
            condition: what was learnt.
            field: of the result.

        Raises:
            ValueError: there are no such records.
        """
        values = self.one(method, density, condition).values(field)
        if not values:
            where = f"{self.name}, {condition}: {method}"
            raise ValueError(f"no {field} of {where} at density {density:g}")
        factor = 100 if field.endswith("accuracy") else 1
        return {seed: factor * value for seed, value in values.items()}

    def one(self, method: str, density: float, condition: Condition) -> Records:
        """Return the records of one cell, one a seed."""

        def fits(record: Record) -> bool:
            right = method_of(record) == method
            return right and (method in WHOLE or density_of(record) == density)

        return self.under(condition).where(fits)

    def gain(
        self,
        one: str,
        other: str,
        condition: Condition,
        density: float | None = None,
        field: str = "accuracy",
    ) -> dict[int, float]:
        """Return by how many points one method is better than another, paired by seed.

        Args:
            one: a method.
            other: a method.
            condition: what was learnt.
            density: of both; None is the mean over the densities at which both were run.
            field: another accuracy.

        Raises:
            ValueError: there are no such records.
        """
        at = self.densities(condition, one, other) if density is None else [density]
        if not at:
            raise ValueError(f"{self.name}, {condition}: no density has both {one} and {other}")
        return averaged(
            [
                differences(
                    self.found(one, d, condition, field),
                    self.found(other, d, condition, field),
                    common=True,
                )
                for d in at
            ]
        )

    def under(self, condition: Condition) -> Records:
        """Return the records of a condition."""
        return self.records.where(lambda record: condition_of(record) == condition)


def tasks(records: Records) -> list[Task]:
    """Return the tasks, in the order of their names."""
    groups = by_setting(records.where(trial="HardSamples"), _SETTING, model_on_data)
    return [Task(name, group) for name, group in groups.items()]
