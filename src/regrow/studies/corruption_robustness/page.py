"""Figures and tables of the study's page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from matplotlib.figure import Figure

from regrow.lab.by_task import verdicts_by_task
from regrow.lab.figures import about_runs, draw_curves, draw_rows, legend_above
from regrow.lab.records import Record, Records
from regrow.lab.report import COLOURS, Section, Table, cell, gathered, if_there, svg
from regrow.lab.statistics import Interval, mean_interval
from regrow.studies.corruption_robustness.claims import CLAIMS, dst_gain
from regrow.studies.corruption_robustness.methods import METHODS
from regrow.studies.corruption_robustness.view import (
    BySeed,
    Measure,
    Task,
    clean,
    gain,
    robustness,
    tasks,
    under,
)

__all__ = ["sections"]

_COLOUR = dict(zip(METHODS, ("black", *COLOURS[:2], *COLOURS[2:8]), strict=False))
_SEVERITIES = (1, 2, 3, 4, 5)


def sections(records: Records) -> Sequence[Section]:
    """Make the sections, figures first."""
    parts = (
        _by_task,
        _by_density,
        _over_dense,
        _by_corruption,
        _by_severity,
        _by_radius,
        _tables,
        _filters,
    )
    return gathered(records, parts)


def _by_task(records: Records) -> Iterator[Section]:
    return verdicts_by_task(CLAIMS, {task.name: task.records for task in tasks(records)})


def _by_density(records: Records) -> Iterator[Section]:
    for task in tasks(records):
        figure = Figure(figsize=(7.2, 4.4))
        shown: list[Interval] = []
        for axis, (what, measure) in zip(
            figure.subplots(1, 2), {"corrupted": robustness, "clean": clean}.items(), strict=True
        ):
            curves = _seen(_curves(task, measure))
            shown += [interval for points in curves.values() for interval in points.values()]
            draw_curves(axis, curves, x="density", y="accuracy, %", colours=_COLOUR, even=True)
            axis.set_title(f"{what} test images", fontsize=10)
            if dense := _mean(task, "dense", 1.0, measure):
                axis.axhline(dense.mean, color="black", linewidth=1, linestyle=":", label="dense")
                axis.axhspan(dense.low, dense.high, color="#e8e8e8", zorder=0)
                shown.append(dense)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.axes[1].set_ylabel("")
        figure.legend(handles, labels, loc="outside upper left", ncols=3, fontsize=9)
        title = f"Robust and clean accuracy: {task.name}"
        yield Section(
            title,
            "Left, the mean over all corruptions and severities. Small dense: a narrower dense "
            "network with no more parameters. The band is the interval of dense training. What has "
            "fewer than three seeds is in the tables only.",
            svg(figure, title),
            caption=about_runs(shown),
        )


def _seen(curves: dict[str, dict[float, Interval]]) -> dict[str, dict[float, Interval]]:
    """Leave out points of one or two seeds, whose intervals hide the others, if these have more."""
    least = min(3, max((i.n for points in curves.values() for i in points.values()), default=1))
    seen = {
        name: {place: interval for place, interval in points.items() if interval.n >= least}
        for name, points in curves.items()
    }
    return {name: points for name, points in seen.items() if points}


def _curves(task: Task, measure: Measure) -> dict[str, dict[float, Interval]]:
    curves: dict[str, dict[float, Interval]] = {}
    for name in METHODS[1:]:
        for density in task.densities:
            if found := _mean(task, name, density, measure):
                curves.setdefault(name, {})[density] = found
    return curves


def _mean(task: Task, name: str, density: float, measure: Measure) -> Interval | None:
    return _interval(task, lambda task: task.values(name, density, measure))


def _over_dense(records: Records) -> Iterator[Section]:
    for task in tasks(records):
        points: dict[str, dict[float, Interval]] = {}
        for density in task.densities:
            for name in METHODS[1:]:
                found = _interval(task, gain(name, "dense", robustness, (density,)))
                if found:
                    points[f"{name}, {density:g}"] = {density: found}
        rows = {label: next(iter(one.values())) for label, one in _seen(points).items()}
        if not rows:
            continue
        figure = Figure(figsize=(7.2, 0.8 + 0.24 * len(rows)))
        draw_rows(figure.subplots(), rows, x="points of robustness accuracy over dense", zero=0.0)
        title = f"What each method is worth against dense training: {task.name}"
        yield Section(
            title,
            "By method and density, paired by seed.",
            svg(figure, title),
            caption=about_runs(rows.values()),
        )


def _by_corruption(records: Records) -> Iterator[Section]:
    for task in tasks(records):
        names = _corruptions(task)
        rows = {}
        for name in names:
            found = _interval(task, dst_gain("dense", under((name,))))
            if found:
                rows[name.replace("_", " ")] = found
        if not rows:
            continue
        figure = Figure(figsize=(7.2, 0.9 + 0.27 * len(rows)))
        draw_rows(figure.subplots(), rows, x="points of accuracy over dense", zero=0.0)
        title = f"By corruption: {task.name}"
        yield Section(
            title,
            "SET and RigL together, mean over severities and densities from 0.9 to 0.5, paired by "
            "seed, in the benchmark's order: noise, blur, weather, digital.",
            svg(figure, title),
            caption=about_runs(rows.values()),
        )


def _corruptions(task: Task) -> list[str]:
    return list(next(iter(task.records)).result["corrupted"])


def _interval(task: Task, value: Callable[[Task], BySeed]) -> Interval | None:
    return if_there(lambda: mean_interval(value(task)))


def _by_severity(records: Records) -> Iterator[Section]:
    curves: dict[str, dict[float, Interval]] = {}
    for task in tasks(records):
        for severity in _SEVERITIES:
            if found := _interval(task, dst_gain("dense", under(severities=(severity,)))):
                curves.setdefault(task.name, {})[float(severity)] = found
    if not curves:
        return
    figure = Figure(figsize=(7.2, 4.2))
    axes = figure.subplots()
    draw_curves(axes, curves, x="severity", y="points of accuracy over dense")
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xticks(_SEVERITIES)
    legend_above(axes, 2)
    title = "By severity"
    yield Section(
        title,
        "SET and RigL together, mean over corruptions and densities from 0.9 to 0.5, paired by "
        "seed.",
        svg(figure, title),
        caption=about_runs(i for points in curves.values() for i in points.values()),
    )


def _by_radius(records: Records) -> Iterator[Section]:
    for task in tasks(records):
        if not next(iter(task.records)).result.get("low_pass"):
            continue
        density = 0.5 if 0.5 in task.densities else task.densities[0]
        figure = Figure(figsize=(7.2, 4.2))
        axes = figure.subplots(1, 2, sharey=True)
        shown: list[Interval] = []
        for axis, which in zip(axes, ("low", "high"), strict=True):
            curves = _radius_curves(task, density, f"{which}_pass")
            shown += [interval for points in curves.values() for interval in points.values()]
            draw_curves(axis, curves, x="radius", y="accuracy, %", colours=_COLOUR)
            kept = "inside" if which == "low" else "outside"
            axis.set_title(f"frequencies {kept} the radius", fontsize=10)
        axes[1].set_ylabel("")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=3, fontsize=9)
        title = f"Which frequencies are needed: {task.name}, density {density:g}"
        yield Section(
            title,
            "Accuracy on clean images of which only some frequencies are kept. A radius of 1 is "
            "the highest frequency along an axis, half a cycle a pixel.",
            svg(figure, title),
            caption=about_runs(shown),
        )


def _radius_curves(task: Task, density: float, which: str) -> dict[str, dict[float, Interval]]:
    curves: dict[str, dict[float, Interval]] = {}
    for name in ("dense", "small dense", "static", "SET", "RigL"):
        for radius in next(iter(task.records)).result[which]:

            def measure(record: Record, radius: str = radius) -> float:
                return 100 * float(record.result[which][radius])

            if found := _mean(task, name, density, measure):
                curves.setdefault(name, {})[float(radius)] = found
    return curves


def _tables(records: Records) -> Iterator[Section]:
    for task in tasks(records):
        for what, measure in {"Robustness": robustness, "Clean accuracy": clean}.items():
            rows = []
            for name in METHODS:
                places = [1.0] * len(task.densities) if name == "dense" else task.densities
                found = [_mean(task, name, density, measure) for density in places]
                if any(found):
                    rows.append((name, *(cell(one) for one in found)))
            yield Section(
                f"{what}: {task.name}",
                "Test accuracy in per cent, mean ± half the 95 % interval (Student's t), and n.",
                table=Table(("", *(f"density {d:g}" for d in task.densities)), rows),
            )


def _filters(records: Records) -> Iterator[Section]:
    for task in tasks(records):
        rows = []
        for density in task.densities:
            for name in METHODS:
                found = [_filter_words(task, name, density, f) for f in _FILTER_FIELDS]
                if any(words != "–" for words in found) and not (
                    name == "dense" and density != task.densities[0]
                ):
                    label = name if name == "dense" else f"{name}, {density:g}"
                    rows.append((label, *found))
        if rows:
            yield Section(
                f"Filters: {task.name}",
                "The share of kernels with any active weight, and the entropy (base 10) of what "
                "the principal patterns of a layer's kernels explain, mean over layers.",
                table=Table(("", "kernels left, %", "entropy"), rows),
            )


_FILTER_FIELDS = {"remaining_kernels": 100.0, "filter_entropy": 1.0}


def _filter_words(task: Task, name: str, density: float, field: str) -> str:
    def measure(record: Record) -> float:
        found = record.result.get(field)
        if found is None:
            raise ValueError(f"no {field}")
        return _FILTER_FIELDS[field] * float(found)

    return cell(_mean(task, name, density, measure))
