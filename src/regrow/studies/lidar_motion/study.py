"""Does LiDAR on road users help to predict where they go?"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from regrow.lab import charts
from regrow.lab.claims import Answer
from regrow.lab.effects import EVERY, HIGHEST, LOWEST, Effect, Measure, gain, level
from regrow.lab.records import Record
from regrow.lab.rules import claim, each, gated
from regrow.lab.section import Section, Table, estimate
from regrow.lab.study import Study
from regrow.lab.view import View
from regrow.studies.lidar_motion.design import ARMS, DENSITY, PRESETS
from regrow.studies.lidar_motion.predict import keep_all

__all__ = ["STUDY"]

MARGIN = 0.05  # metres of minADE that matter
_MAIN, _CROWDS = ("simulator",), ("crowds",)
_SWEPT = {"fewer points": "points", "fewer frames": "few", "less reliable": "reliability"}
_AT_RANGE = "LiDAR at a range", "MTR at a range"


def _field(name: str, field: str, unit: str, factor: float = 1.0) -> Measure:
    def read(record: Record) -> float:
        if (value := record.result.get(field)) is None:
            raise ValueError(f"no {name}")
        return factor * float(value)

    return Measure(name, read, unit)


ADE = _field("minADE", "waymo_min_ade", "m")
MAP = _field("mAP", "waymo_map", "points of mAP", 100)
ALL = _field("minADE over all steps", "min_ade", "m")
FIRST = _field("error of the likeliest future", "ade_1", "m")


def ade_of(group: str, *names: str, says: str = "") -> Measure:
    """Read the mean error of some of the targets.

    Args:
        group: how targets are told apart, such as "by_kind".
        names: whose error, such as "pedestrian"; or ends of names, such as ", cue".
        says: what they are, in words.
    """

    def read(record: Record) -> float:
        rows = [
            row
            for name, row in record.result.get(group, {}).items()
            if any(name == one or (one.startswith(",") and name.endswith(one)) for one in names)
        ]
        total = sum(row["targets"] for row in rows)
        if not total:
            raise ValueError(f"no targets {', '.join(names)}")
        return float(sum(row["min_ade"] * row["targets"] for row in rows if row["targets"]) / total)

    return Measure(f"minADE of {says or ', '.join(names)}", read, "m")


CUE = ade_of("by_story", ", cue", says="those whose body alone tells")
BY_MAP = ade_of("by_story", ", map", says="those for whom map and track suffice")
NEAR = ade_of("by_range", "0 to 15", says="those within 15 m")
FAR = ade_of("by_range", "35 to 75", says="those beyond 35 m")
KINDS = {kind: ade_of("by_kind", kind) for kind in ("vehicle", "pedestrian", "cyclist")}

_LIMTR = "LiMTR (arXiv 2410.15819), abstract"
_CONTROL = "a control of ours"
_OURS = "ours"


def over_mtr(arm: str = "LiDAR", measure: Measure = ADE, **at: Any) -> Effect:
    """Ask what an arm gains over the network without LiDAR; below 0 an error falls."""
    return gain(arm, "MTR", measure, **at)


on_simulator = partial(claim, tasks=_MAIN)

LEARNT = on_simulator(
    "Without LiDAR the network has learnt: it errs by less than 2 m where map and track suffice.",
    _CONTROL,
    level("MTR", BY_MAP),
    below=2.0,
)
GAINS = (
    on_simulator(
        "LiDAR improves minADE.",
        f"{_LIMTR}: by 6.20 %",
        over_mtr(),
        below=0,
        answer=Answer(
            "LiDAR on road users helps to predict where they go",
            "LiDAR on road users does not help to predict where they go",
        ),
    ),
    on_simulator("LiDAR improves mAP.", f"{_LIMTR}: by 1.58 %", over_mtr(measure=MAP), above=0),
    on_simulator(
        "It improves the likeliest future.",
        f"{_OURS}: six futures cover four intents, one does not",
        over_mtr(measure=FIRST),
        below=0,
    ),
    on_simulator(
        "It helps with pedestrians and cyclists more than with vehicles.",
        f"{_LIMTR}: diverse road users",
        {
            kind: over_mtr(measure=KINDS[kind]) - over_mtr(measure=KINDS["vehicle"])
            for kind in ("pedestrian", "cyclist")
        },
        below=0,
    ),
    on_simulator(
        "It helps within 15 m more than beyond 35 m.",
        f"{_OURS}: fewer points lie on who is far",
        over_mtr(measure=NEAR) - over_mtr(measure=FAR),
        below=0,
    ),
    on_simulator(
        "Learnt and tested at one range, it helps at the nearest more than at the farthest.",
        f"{_OURS}: the gain decays with range",
        gain(*_AT_RANGE, CUE, distance=LOWEST) - gain(*_AT_RANGE, CUE, distance=HIGHEST),
        below=0,
    ),
    on_simulator("It helps where the body alone tells.", _OURS, over_mtr(measure=CUE), below=0),
    on_simulator(
        "It does no harm where map and track suffice.",
        _OURS,
        over_mtr(measure=BY_MAP),
        below=MARGIN,
    ),
    on_simulator(
        "Each fusion alone helps.",
        _OURS,
        each(("token", "centre", "keys"), over_mtr),
        below=0,
    ),
)
CONTROLS = (
    on_simulator(
        "LiDAR that is zeroed, another's, or says nothing of the intent does not help.",
        _CONTROL,
        each(("zeroed", "shuffled", "chance"), over_mtr),
        within=MARGIN,
    ),
    on_simulator(
        "Bodies that are always right help more than those that are half of the time.",
        _CONTROL,
        gain(
            {"arm": "less reliable", "reliability": HIGHEST},
            {"arm": "less reliable", "reliability": LOWEST},
            CUE,
        ),
        below=0,
    ),
    claim(
        "On real tracks with bodies that tell no more than the track, LiDAR gains nothing.",
        f"{_CONTROL}: UCY",
        gain("LiDAR", "MTR", ALL),
        above=-MARGIN,
        tasks=_CROWDS,
    ),
)
ENCODERS = (
    on_simulator(
        f"LiMTR's encoder at density {DENSITY:g} keeps the gain.",
        _OURS,
        gain("sparse", "faithful", ADE),
        below=MARGIN,
    ),
    on_simulator(
        "Moving masks beat static ones.", _CONTROL, gain("sparse", "static", ADE), below=0
    ),
    on_simulator(
        "It is no worse than a dense encoder of as many parameters.",
        _CONTROL,
        gain("sparse", "narrow", ADE),
        below=MARGIN,
    ),
    on_simulator(
        "An encoder under a million parameters does what LiMTR's 21 million do.",
        _OURS,
        gain("LiDAR", "faithful", ADE),
        below=MARGIN,
    ),
)
CLAIMS = gated(LEARNT, *GAINS, *CONTROLS, *ENCODERS)


# ---------------------------------------------------------------------- the page


def worth(view: View) -> Iterator[Section]:
    """Draw what each arm gains over the network without LiDAR."""
    arms = [arm for arm in ARMS if not arm.startswith("MTR")]
    for task, here in view.by("task").items():
        measure = ADE if task in _MAIN else ALL
        effects = {arm: _whole(arm, measure) for arm in arms}
        panels = {"": charts.rows_of(here, effects)}
        text = (
            "Difference of minADE to the network without LiDAR, paired by seed. Below 0 is better."
        )
        title = f"What LiDAR is worth: {task}"
        yield from charts.rows(title, text, panels, x="m of minADE", band=MARGIN)


def _whole(arm: str, measure: Measure) -> Effect:
    if arm in _AT_RANGE:
        return gain(*_AT_RANGE, measure, distance=EVERY)
    return over_mtr(arm, measure, **({_SWEPT[arm]: EVERY} if arm in _SWEPT else {}))


def for_whom(view: View) -> Iterator[Section]:
    """Draw whom LiDAR helps: kinds, stories, distances."""
    here = view.where(task=_MAIN[0])
    stories = [f"{one}, {by}" for one in ("stand", "walk", "ride") for by in ("cue", "map")]
    groups = {
        "kind": {kind: over_mtr(measure=KINDS[kind]) for kind in KINDS},
        "story, and what tells": {
            name: over_mtr(measure=ade_of("by_story", name))
            for name in (*stories, "drive, map", "drive, nothing")
        },
        "distance, m": {
            name: over_mtr(measure=ade_of("by_range", name))
            for name in ("0 to 15", "15 to 25", "25 to 35", "35 to 75")
        },
    }
    for name, effects in groups.items():
        panels = {"": charts.rows_of(here, effects)}
        text = "LiDAR less no LiDAR, minADE over all steps. Below 0 is better."
        yield from charts.rows(f"Whom it helps, by {name}", text, panels, x="m of minADE")


def sweeps(view: View) -> Iterator[Section]:
    """Draw errors by points, frames and reliability."""
    here = view.where(task=_MAIN[0])
    names = {"points": "points of a frame, at most", "few": "frames of the past"}
    for arm, axis in _SWEPT.items():
        places = here.where(arm=arm).axis(axis)
        asked = partial(_at, axis)
        found = charts.curves_of(here, asked, [arm], places)
        bars = charts.rows_of(here, {name: level(name, CUE) for name in ("MTR", "LiDAR")})
        yield from charts.curves(
            f"Error by {names.get(axis, axis)}",
            "minADE of those whose body alone tells.",
            {"": found},
            x=names.get(axis, axis),
            y="minADE, m",
            levels={"": bars},
        )


def ranges(view: View) -> Iterator[Section]:
    """Draw errors of networks that learn and are tested at one range."""
    here = view.where(task=_MAIN[0])
    found = charts.curves_of(
        here, partial(_at, "distance"), _AT_RANGE, here.where(arm=_AT_RANGE[0]).axis("distance")
    )
    text = "minADE of those whose body alone tells; all to predict are within 10 m of a distance."
    yield from charts.curves("Error by range", text, {"": found}, x="distance, m", y="minADE, m")


def _at(axis: str, arm: str, place: float) -> Effect:
    return level(arm, CUE, **{axis: place})


def all_arms(view: View) -> Iterator[Section]:
    """Write errors, mAP, parameters and time of every arm."""
    for task, here in view.by("task").items():
        main = task in _MAIN
        measures = (ADE, MAP, FIRST, CUE, BY_MAP) if main else (ALL, FIRST)
        rows = []
        for arm in ARMS:
            records = [record for _, record in here.where(arm=arm).rows]
            if not records or arm in _SWEPT or arm in _AT_RANGE:
                continue
            means = [estimate(level(arm, measure).maybe(here)) for measure in measures]
            kept = records[0].result["nonzeros"] / 1e6
            seconds = sum(r.result["train_seconds"] for r in records) / len(records)
            rows.append((arm, *means, f"{kept:.2f} M", f"{seconds:.0f}"))
        head = ("arm", *(measure.name for measure in measures), "parameters kept", "seconds")
        text = "Means over seeds, with half the 95 % interval. Errors in metres, mAP in per cent."
        yield Section(f"All arms: {task}", text, table=Table(head, rows))


STUDY = Study(
    name="lidar-motion",
    title="Does LiDAR on road users help to predict where they go?",
    source="LiMTR: Time Series Motion Prediction for Diverse Road Users through Multimodal Feature "
    "Integration (arXiv 2410.15819), upon MTR (Shi et al. 2022, arXiv 2209.13508)",
    about="Scenes made up so that bodies alone tell what comes, mixed with those in which map and "
    "track suffice; and real tracks with bodies that tell nothing. Controls: LiDAR zeroed, "
    "another's, at chance; static masks; a dense encoder of as many parameters. One recipe.",
    presets=PRESETS,
    claims=CLAIMS,
    page=(partial(charts.verdicts_by_task, CLAIMS), worth, for_whom, sweeps, ranges, all_arms),
    prepare=keep_all,
)
