"""The study's records as its questions see them: streams, and accuracies by who learnt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from regrow.continual.metrics import learning_transfer
from regrow.lab.records import Record, Records
from regrow.lab.statistics import Interval, averaged, differences, mean_interval
from regrow.lab.tasks import by_setting, mean_over_tasks, of_each
from regrow.studies.continual_dst.learners import ALLOCATIONS, GROWTH

__all__ = [
    "CELLS",
    "CONTROLS",
    "ISOLATED",
    "BySeed",
    "Course",
    "courses",
    "density_of",
    "effect",
    "interval",
    "learner_of",
    "moving",
]

BySeed = Mapping[int, float]

CONTROLS = (
    "naive",
    "EWC",
    "replay",
    "joint",
    "independent",
    "independent, same size",
    "independent, sparse",
    "PackNet",
    "SpaceNet-like",
    "NISPA-like",
)
"""Learners that are not the method, by the names a reader knows."""

CELLS = tuple(f"{allocation}, {rule}" for allocation in ALLOCATIONS for rule in (*GROWTH, "static"))
"""The method: an allocation with a growth rule."""

ISOLATED = (*CELLS, *CONTROLS[4:])
"""Learners that never change what answers an earlier task."""

_NAMES = {
    "FineTuned": "naive",
    "Consolidated": "EWC",
    "Rehearsed": "replay",
    "Joined": "joint",
    "Packed": "PackNet",
    "SpaceReserved": "SpaceNet-like",
    "Stabilised": "NISPA-like",
}
# Two records of one setting differ in learner and seed only.
_SETTING = ("stream", "model", "samples", "tests", "augment", "training")


def learner_of(record: Record) -> str:
    """Name who learnt, as :data:`CELLS` and :data:`CONTROLS` do."""
    kind = str(record.get("learner.kind"))
    if kind == "Subnetworks":
        return f"{record.get('learner.allocation')}, {record.get('learner.growth')}"
    if kind == "Separate":
        if record.get("learner.same_total"):
            return "independent, same size"
        return "independent" if record.get("learner.density") == 1 else "independent, sparse"
    return _NAMES[kind]


def density_of(record: Record) -> float | None:
    """Return the density of a record's learner; None if it is dense."""
    density = record.get("learner.density")
    return None if density in (None, 1) else float(density)


@dataclass(frozen=True)
class Course:
    """A network that learns a stream, in one setting.

    Args:
        name: for readers.
        records: of this setting.
    """

    name: str
    records: Records

    def found(self, learner: str, density: float | None = None) -> dict[int, Record]:
        """Return records by seed.

        Args:
            learner: of :data:`CELLS` or :data:`CONTROLS`.
            density: of its networks; None for those that have none.

        Raises:
            ValueError: there are no such records.
        """
        here = self.records.where(
            lambda record: learner_of(record) == learner and density_of(record) == density
        )
        if not (by_seed := {record.config["seed"]: record for record in here}):
            at = "" if density is None else f" at density {density:g}"
            raise ValueError(f"no records of {self.name}, {learner}{at}")
        return dict(sorted(by_seed.items()))

    def values(self, learner: str, density: float | None = None, field: str = "ACC") -> BySeed:
        """Return a field in points of accuracy, by seed.

        Args:
            learner: of :data:`CELLS` or :data:`CONTROLS`.
            density: of its networks.
            field: "ACC", "BWT", "incremental", or "FWT": what tasks gained over networks that
                learnt them alone, dense and of full size.
        """
        found = self.found(learner, density)
        if field != "FWT":
            return {seed: 100 * float(record.result[field]) for seed, record in found.items()}
        alone = {
            seed: [row[-1] for row in record.result["accuracies"]]
            for seed, record in self.found("independent").items()
        }
        return {
            seed: 100 * learning_transfer(record.result["accuracies"], alone[seed])
            for seed, record in found.items()
            if seed in alone
        }

    @property
    def densities(self) -> list[float]:
        """The densities of the method's networks."""
        here = self.records.where(learner__kind="Subnetworks")
        return [float(density) for density in here.distinct("learner.density")]

    @property
    def middle(self) -> float:
        """The density that is drawn where there is room for one."""
        return self.densities[len(self.densities) // 2]


def courses(records: Records) -> list[Course]:
    """Return the settings in which streams were learnt."""

    def name(group: Records) -> str:
        return f"{group.all[0].get('stream')}, {group.all[0].get('model')}"

    groups = by_setting(records.where(trial="LearnStream"), _SETTING, name)
    return [Course(name, group) for name, group in groups.items()]


def effect(records: Records, value: Callable[[Course], BySeed]) -> Interval:
    """Average an effect over streams: paired by seed inside one, streams weighing the same."""
    return mean_over_tasks(of_each(courses(records), value))


def moving(
    course: Course,
    density: float,
    allocations: Sequence[str] = tuple(ALLOCATIONS),
    growth: Sequence[str] = tuple(GROWTH),
    over: str | None = None,
) -> BySeed:
    """Average ACC over cells of the method, by seed.

    Args:
        course: a stream.
        density: of the networks.
        allocations: of the cells.
        growth: of the cells.
        over: subtract that of cells with this growth, such as "static".
    """
    parts = []
    for allocation in allocations:
        for rule in growth:
            values = course.values(f"{allocation}, {rule}", density)
            if over is not None:
                base = course.values(f"{allocation}, {over}", density)
                values = differences(dict(values), dict(base), common=True)
            parts.append(values)
    return averaged(parts)


def interval(
    course: Course, learner: str, density: float | None = None, field: str = "ACC"
) -> Interval | None:
    """Return the mean of a field with its interval; None if there is none."""
    for asked in dict.fromkeys((density, None)):
        try:
            return mean_interval(course.values(learner, asked, field))
        except ValueError:
            continue
    return None
