"""The study's records as its questions see them: tasks, and what each network did by seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from regrow.lab.records import Record, Records
from regrow.lab.statistics import Interval, averaged, differences
from regrow.lab.tasks import by_setting, mean_over_tasks, of_each
from regrow.studies.corruption_robustness.methods import MOVING, density_of, method_of
from regrow.studies.vision.words import model_on_data

__all__ = ["BySeed", "Measure", "Task", "clean", "effect", "gain", "robustness", "tasks", "under"]

BySeed = Mapping[int, float]
Measure = Callable[[Record], float]
"""Reads a number from a record."""

_SETTING = ("data", "model", "samples", "epochs", "batch", "learning_rate", "tested", "published")


def robustness(record: Record) -> float:
    """Return robustness accuracy in per cent: the mean over corruptions and severities."""
    return 100 * float(record.result["robustness"])


def clean(record: Record) -> float:
    """Return accuracy on clean test images in per cent."""
    return 100 * float(record.result["accuracy"])


def under(
    corruptions: Sequence[str] | None = None, severities: Sequence[int] | None = None
) -> Measure:
    """Return what reads the mean accuracy, in per cent, under some corruptions and severities.

    Args:
        corruptions: which; None is all.
        severities: which; None is all.
    """

    def measure(record: Record) -> float:
        found = record.result["corrupted"]
        each = [
            found[name][str(severity)]
            for name in corruptions or found
            for severity in severities or found[name]
        ]
        return 100 * float(sum(each) / len(each))

    return measure


@dataclass(frozen=True)
class Task:
    """A model that learned a data set, in one setting.

    Args:
        name: for readers.
        records: of this setting.
    """

    name: str
    records: Records

    def values(self, method: str, density: float, measure: Measure) -> dict[int, float]:
        """Return a measure by seed.

        Args:
            method: one of :data:`~.methods.METHODS`.
            density: of the network; dense ones have 1 whatever is asked for.
            measure: what is read.

        Raises:
            ValueError: there are no such records.
        """
        wanted = 1.0 if method == "dense" else density
        found = {
            int(record.config["seed"]): measure(record)
            for record in self.records
            if method_of(record) == method and density_of(record) == wanted
        }
        if not found:
            raise ValueError(f"no records of {self.name}, {method}, density {wanted:g}")
        return found

    def versus(self, one: str, other: str, density: float, measure: Measure) -> dict[int, float]:
        """Return by seed how much more one method has than another."""
        pair = (self.values(name, density, measure) for name in (one, other))
        return differences(*pair, common=True)

    @property
    def densities(self) -> list[float]:
        """The densities at which anything moved, the highest first."""
        found = {density_of(record) for record in self.records if method_of(record) in MOVING}
        return sorted(found, reverse=True)

    @property
    def moving(self) -> list[str]:
        """The methods of the paper that were tried."""
        found = {method_of(record) for record in self.records}
        return [name for name in MOVING if name in found]


def tasks(records: Records) -> list[Task]:
    """Return what was learned by which model; the same two in another setting are another task."""
    groups = by_setting(records.where(trial="Robust"), _SETTING, model_on_data)
    return [Task(name, group) for name, group in groups.items()]


def gain(
    method: str, over: str, measure: Measure, densities: Sequence[float]
) -> Callable[[Task], dict[int, float]]:
    """Return what computes a method's mean gain over another, by seed, of a task.

    Densities that a task was not run at are left out; a task with none of them is a ValueError.
    """

    def of(task: Task) -> dict[int, float]:
        here = [density for density in densities if density in task.densities]
        if not here:
            raise ValueError(f"{task.name} was run at none of the densities asked for")
        return averaged([task.versus(method, over, density, measure) for density in here])

    return of


def effect(records: Records, value: Callable[[Task], BySeed]) -> Interval:
    """Average an effect over all tasks that have it, each weighing the same.

    Raises:
        ValueError: no task has it.
    """
    return mean_over_tasks(of_each(tasks(records), value))
