"""The page of runs that belong to no study, as ``regrow train`` leaves them in a folder."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regrow.lab import charts
from regrow.lab.failures import Failure, read_failures
from regrow.lab.figures import figure_style
from regrow.lab.origin import failures_section, machines_section, rows_of_trials
from regrow.lab.records import Record, Records, flat
from regrow.lab.report import page
from regrow.lab.section import Details, Section, Table, estimate
from regrow.lab.statistics import Interval, mean_interval
from regrow.training.words import measure_words

__all__ = ["Runs", "find_runs", "runs_page"]

# What a test found first is what a run is judged by; of these, less is better.
_MEASURES = ("accuracy", "dice", "return", "wer", "cer", "min_ade", "min_fde")
_LOWEST = ("wer", "cer", "min_ade", "min_fde")
_PERCENT = ("accuracy",)
_PLACES = 40  # on the x axis
_LONG = 70  # characters of a setting


@dataclass(frozen=True)
class Runs:
    """What folders hold of runs.

    Args:
        records: of finished runs.
        failures: runs that failed.
        damaged: what is wrong with files that cannot be read.
    """

    records: Records
    failures: Sequence[Failure]
    damaged: Sequence[str]


def find_runs(folders: Sequence[Path]) -> Runs:
    """Read what folders hold; a file that is damaged is noted, and the rest read.

    Args:
        folders: each was ``--out`` of training commands.

    Raises:
        FileNotFoundError: no run has finished or failed there.
    """
    damaged: list[str] = []
    records = Records.read(*folders, damaged=damaged.append)
    failures = read_failures(*folders, damaged=damaged.append)
    if not (len(records) or failures or damaged):
        raise FileNotFoundError(
            f"{', '.join(map(str, folders))}: there is no run and no study; name a folder that was "
            "--out of regrow train, of another training command, or of regrow study run"
        )
    return Runs(records, failures, damaged)


def runs_page(runs: Runs) -> str:
    """Make the page: the best setting, a table of all, curves, failures, machines.

    Returns:
        HTML.
    """
    by_task: dict[str, list[Record]] = {}
    for record in runs.records:
        by_task.setdefault(_task(record), []).append(record)
    findings, sections = [], []
    for task, records in by_task.items():
        settings = _settings(records)
        measure = _measure(records)
        if measure is None:
            continue
        ranked = _ranked(settings, measure)
        where = task if len(by_task) > 1 else ""
        findings.append(_finding(ranked, measure, len(records), where))
        sections.append(_table(ranked, measure, task))
        sections += _curves(ranked, where)
    if runs.failures:
        findings.append(f"{len(runs.failures)} runs failed.")
        sections.append(failures_section(runs.failures))
    if len(runs.records):
        table = rows_of_trials([*runs.records])
        details = [Details(f"{len(table.rows)} runs: what they are, what they found", table=table)]
        sections.append(Section("All runs", "", details=details))
        sections.append(machines_section(runs.records))
    findings += [f"Left out: {words}." for words in runs.damaged]
    footer = "Made by regrow. Intervals are 95 % intervals over seeds."
    return page("Runs", "", findings, sections, footer)


def _task(record: Record) -> str:
    """Name what was learnt: results on other data are not compared."""
    kind, data = record.config.get("trial", "run"), record.config.get("data")
    names = [data] if isinstance(data, str) else data or []
    return f"{kind} on {', '.join(map(str, names))}" if names else str(kind)


Ranked = Mapping[str, tuple[list[Record], Interval]]
"""Records and their measure by setting, the best setting first."""


def _settings(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Gather records that differ in their seed alone, named by what sets them apart."""
    contents = [{k: v for k, v in r.config.items() if k != "seed"} for r in records]
    flats = [flat(content) for content in contents]
    names = dict.fromkeys(name for one in flats for name in one)
    differ = [n for n in names if len({str(one.get(n)) for one in flats}) > 1]
    differ.sort(key=lambda name: name != "method.kind")
    # What comes with a method says less than its name does, and a digest says nothing to people.
    told = [n for n in differ if n != "digest"]
    told = [
        n for n in told if not n.startswith("method.") or n in ("method.kind", "method.density")
    ]
    by_content: dict[str, list[int]] = {}
    for i, content in enumerate(contents):
        by_content.setdefault(json.dumps(content, sort_keys=True), []).append(i)
    found: dict[str, list[Record]] = {}
    for places in by_content.values():
        one = flats[places[0]]
        name = _named(one, told) or str(records[places[0]].config.get("data", "run"))
        if name in found:  # then it is other arguments of the method that set them apart
            name = _named(one, differ)
        found[_once(name, found)] = [records[i] for i in places]
    return found


def _named(content: Mapping[str, Any], names: Sequence[str]) -> str:
    said = [
        str(content[n]) if n == "method.kind" else f"{n.removeprefix('method.')}={content[n]}"
        for n in names
        if content.get(n) is not None
    ]
    return ", ".join(said)


def _once(name: str, found: Mapping[str, Any]) -> str:
    name = name if len(name) <= _LONG else f"{name[: _LONG - 1]}…"
    return name if name not in found else f"{name[: _LONG - 5]} ({len(found) + 1})"


def _measure(records: Sequence[Record]) -> str | None:
    """Name what all the records are judged by: a number of their results."""
    shared = [
        name
        for name, value in records[0].result.items()
        if all(_is_number(record.result.get(name)) for record in records)
    ]
    return next((name for name in (*_MEASURES, *shared) if name in shared), None)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _ranked(settings: Mapping[str, list[Record]], measure: str) -> Ranked:
    scale = 100.0 if measure in _PERCENT else 1.0
    found = {}
    for name, records in settings.items():
        values = {int(r.config["seed"]): scale * float(r.result[measure]) for r in records}
        found[name] = (records, mean_interval(values))
    sign = 1 if measure in _LOWEST else -1
    return dict(sorted(found.items(), key=lambda one: sign * one[1][1].mean))


def _finding(ranked: Ranked, measure: str, runs: int, task: str) -> str:
    name, (_, best) = next(iter(ranked.items()))
    which = "Lowest" if measure in _LOWEST else "Highest"
    many = f"{runs} run{'s' * (runs > 1)} of {len(ranked)} setting{'s' * (len(ranked) > 1)}"
    of = f"{task}: " if task else ""
    return f"{of}{many}. {which} {_words(measure)}: {estimate(best)}, {name}."


def _words(measure: str) -> str:
    return measure_words(measure) + (" in %" if measure.endswith(_PERCENT) else "")


def _table(ranked: Ranked, measure: str, kind: str) -> Section:
    costs: Mapping[str, Callable[[Record], float | None]] = {
        "density": lambda r: r.get("density"),
        "inference FLOPs, of dense": lambda r: _share(r, "inference_flops"),
        "training FLOPs, of dense": lambda r: _share(r, "training_flops"),
        "seconds": lambda r: r.get("train_seconds"),
    }
    rows = [
        (name, estimate(value), *(_mean([read(r) for r in records]) for read in costs.values()))
        for name, (records, value) in ranked.items()
    ]
    kept = [i for i in range(2 + len(costs)) if i < 2 or any(row[i] != "–" for row in rows)]
    columns = ("", _words(measure), *costs)
    note = "Mean ± half the 95 % interval, and how many seeds; costs are means."
    table = Table([columns[i] for i in kept], [[row[i] for i in kept] for row in rows], note)
    return Section(f"Settings of {kind}", "The best first.", table=table)


def _share(record: Record, name: str) -> float | None:
    own, dense = record.get(name), record.get(f"dense_{name}")
    return own / dense if own and dense else None


def _mean(values: Sequence[float | None]) -> str:
    there = [value for value in values if value is not None]
    return f"{sum(there) / len(there):.4g}" if there else "–"


def _curves(ranked: Ranked, kind: str) -> list[Section]:
    """Draw what was logged on the way, of the best settings."""
    shown = dict([*ranked.items()][: charts.LINES])
    logged = {
        name: [record.metrics() for record in records] for name, (records, _) in shown.items()
    }
    first = next((lines[-1] for runs in logged.values() for lines in runs if lines), {})
    axis = next((name for name in ("epoch", "step") if name in first), None)
    if axis is None:
        return []
    wanted = [n for n in first if n.startswith("validation_")] or [
        n for n in first if n.startswith("train_") or n == "return"
    ]
    made: list[Section] = []
    for name in (*wanted[:1], *(["loss"] if "loss" in first else [])):
        curves = {
            label: _along(runs, [r.config["seed"] for r in shown[label][0]], axis, name)
            for label, runs in logged.items()
        }
        whole = len(shown) == len(ranked)
        some = "" if whole else f", the best {len(shown)} of {len(ranked)} settings"
        words = measure_words(name)
        title = f"{words[0].upper()}{words[1:]} on the way{some}"
        title = f"{kind}: {title}" if kind else title
        with figure_style():
            panels = {"": {label: points for label, points in curves.items() if points}}
            made += charts.curves(title, "", panels, x=axis, y=_words(name), even=False)
    return made


def _along(
    runs: Sequence[Sequence[Mapping[str, Any]]], seeds: Sequence[int], axis: str, name: str
) -> dict[float, Interval]:
    scale = 100.0 if name.endswith(_PERCENT) else 1.0
    values: dict[float, dict[int, float]] = {}
    for seed, lines in zip(seeds, runs, strict=True):
        for line in lines:
            if axis in line and _is_number(line.get(name)):
                values.setdefault(float(line[axis]), {})[seed] = scale * float(line[name])
    places = sorted(values)
    places = places[:: max(1, -(-len(places) // _PLACES))]
    return {place: mean_interval(values[place]) for place in places}
