"""Figures and tables of the study's page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from regrow.lab.figures import about_runs, draw_curves, draw_rows
from regrow.lab.records import Records
from regrow.lab.report import COLOURS, Section, gathered, if_there, svg
from regrow.lab.statistics import Interval, mean_interval
from regrow.studies.hard_samples.claims import MARGIN, advantage, effect
from regrow.studies.hard_samples.conditions import ALL, ATTACKED, Condition
from regrow.studies.hard_samples.methods import CORE, EXTRA, WHOLE
from regrow.studies.hard_samples.tables import tables
from regrow.studies.hard_samples.view import Task, tasks

__all__ = ["sections"]

_COLOUR = {
    "dense twice": "#000000",
    "small dense": COLOURS[0],
    "static ERK": COLOURS[1],
    "static uniform": "#c9b3a0",
    "SET": COLOURS[7],
    "RigL": COLOURS[3],
    "SNIP ratios": COLOURS[6],
    "SNIP": COLOURS[2],
    "GMP": COLOURS[4],
    "OMP": COLOURS[5],
    "LTH": "#8b6fb3",
}
_ORDER = (*CORE, *EXTRA)  # those of every panel first: marks go by place
_GAIN = "points over dense"
_SAID = {
    "SNIP ratios": "a random topology with the layer densities that SNIP gives.",
    "small dense": "a narrower dense network with no more parameters.",
    "dense twice": "a dense network trained as long as LTH and OMP.",
}


def sections(records: Records) -> Sequence[Section]:
    """Make the sections, figures first."""
    parts = (
        _by_condition,
        _by_density,
        _by_amount,
        _by_severity,
        _under_attack,
        tables,
    )
    return gathered(records, parts)


def _by_condition(records: Records) -> Iterator[Section]:
    """Draw what moving sparse networks gain over each control, condition by condition."""
    every = {condition for task in tasks(records) for condition in task.conditions}
    shown: list[Interval] = []
    panels: dict[str, dict[str, Interval]] = {}
    for other in ("dense", "static ERK", "small dense"):
        rows: dict[str, Interval] = {}
        for condition in sorted(every, key=Condition.order):
            found = _effect(records, "SET", other, condition)
            if found is not None:
                rows[str(condition)] = found
        if rows:
            panels[other] = rows
            shown += rows.values()
    if not panels:
        return
    most = max(map(len, panels.values()))
    figure = Figure(figsize=(7.2, 0.9 + 0.28 * most))
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axis, (other, rows) in zip(axes, panels.items(), strict=True):
        draw_rows(axis, rows, x="points of accuracy", zero=0.0)
        axis.axvspan(-MARGIN, MARGIN, color="#e8e8e8", zorder=0)
        axis.set_title(f"SET over {other}", fontsize=10)
    n = len(tasks(records))
    title = "What a moving sparse network gains, by what makes samples hard"
    yield Section(
        title,
        "Test accuracy of SET less that of dense networks and of the controls, paired by seed, the "
        f"mean over densities{f' and {n} models' if n > 1 else ''}. The band is ± {MARGIN:g} "
        "point. Where training images are corrupted, test images are; none is attacked here.",
        svg(figure, title),
        caption=about_runs(shown),
    )


def _effect(records: Records, one: str, other: str, condition: Condition) -> Interval | None:
    return if_there(lambda: effect(records, advantage(one, other, condition)))


def _by_density(records: Records) -> Iterator[Section]:
    """Draw, side by side, the hardest shares and as many random samples."""
    for task in tasks(records):
        shares = sorted({c.share for c in task.conditions if c.pick == "hardest"}, reverse=True)
        for share in shares:
            pair = [c for c in task.conditions if _plain(c) and c.share == share]
            title = f"The hardest {100 * share:g} % of the samples: {task.name}"
            yield from _panels(
                {str(condition): _over_densities(task, condition) for condition in pair},
                "density",
                title,
                "What each method gains over the dense network on the same samples.",
            )


def _by_amount(records: Records) -> Iterator[Section]:
    for task in tasks(records):
        amounts = [c for c in task.conditions if _plain(c) and c.pick == "random"]
        panels = _over_places(task, amounts, lambda c: 100 * c.share)
        title = f"How much data there is: {task.name}"
        text = "Random shares of the training samples."
        yield from _panels(panels, "per cent of the samples", title, text)


def _by_severity(records: Records) -> Iterator[Section]:
    for task in tasks(records):
        for share in sorted({c.share for c in task.conditions if c.severity}, reverse=True):
            fits = [c for c in task.conditions if c.share == share and not c.attacked]
            fits = [c for c in fits if c.severity or c == ALL]
            panels = _over_places(task, fits, lambda c: float(c.severity))
            of = "" if share == 1 else f", {100 * share:g} % of the samples"
            title = f"How corrupted the images are: {task.name}{of}"
            text = (
                "Every image, for training and for testing, is corrupted once, by one of the 15 "
                "common corruptions at this severity; 0 is clean."
            )
            yield from _panels(panels, "severity", title, text)


def _under_attack(records: Records) -> Iterator[Section]:
    for task in tasks(records):
        for condition in [c for c in task.conditions if c.attacked]:
            panels: dict[str, dict[str, Interval]] = {}
            for field, words in (("accuracy", "clean"), ("robust_accuracy", "attacked")):
                rows = {}
                for name in task.methods(condition):
                    for density in _drawn_at(task, name, condition):
                        gained = _gain(task, name, condition, density, field)
                        if gained is not None:
                            rows[name if name in WHOLE else f"{name}, {density:g}"] = gained
                panels[words] = rows
            if not panels["attacked"]:
                continue
            figure = Figure(figsize=(7.2, 0.9 + 0.28 * len(panels["clean"])))
            axes = figure.subplots(1, 2, sharey=True)
            for axis, (words, rows) in zip(axes, panels.items(), strict=True):
                draw_rows(axis, rows, x=_GAIN, zero=0.0)
                axis.set_title(f"accuracy on {words} images", fontsize=10)
            of = "" if condition == ATTACKED else f", {100 * condition.share:g} % of the samples"
            title = f"Adversarial training: {task.name}{of}"
            dense = [
                mean_interval(task.found("dense", 1.0, condition, field)).mean
                for field in ("accuracy", "robust_accuracy")
            ]
            yield Section(
                title,
                f"The dense network reaches {dense[0]:.2f} % on clean and {dense[1]:.2f} % on "
                "attacked test images. Differences to it at the density named, paired by seed. "
                + _attack_words(task, condition),
                svg(figure, title),
                caption=about_runs(i for rows in panels.values() for i in rows.values()),
            )


def _attack_words(task: Task, condition: Condition) -> str:
    (record, *_) = task.one("dense", 1.0, condition)
    attack = record.config["attack"]
    radius, step = (f"{255 * attack[name]:.3g}/255" for name in ("radius", "step"))
    return (
        f"Projected gradient descent in the maximum norm, radius {radius}, from a random start: "
        f"{attack['steps']} steps of {step} in training, {attack['test_steps']} in testing."
    )


# ---------------------------------------------------------------------- curves


def _plain(condition: Condition) -> bool:
    return not condition.severity and not condition.attacked


def _gain(
    task: Task, name: str, condition: Condition, density: float, field: str = "accuracy"
) -> Interval | None:
    return if_there(lambda: mean_interval(task.gain(name, "dense", condition, density, field)))


def _drawn_at(task: Task, name: str, condition: Condition) -> Sequence[float]:
    """Return a method's densities; those of one-shot pruning for the dense network beside it."""
    if name == "dense":
        return []
    return task.densities(condition, "OMP" if name == "dense twice" else name)


Curves = Mapping[str, Mapping[float, Interval]]


def _over_densities(task: Task, condition: Condition) -> Curves:
    curves: dict[str, dict[float, Interval]] = {}
    for name in _ORDER:
        for density in _drawn_at(task, name, condition):
            if (gained := _gain(task, name, condition, density)) is not None:
                curves.setdefault(name, {})[density] = gained
    return curves


def _over_places(
    task: Task, conditions: Sequence[Condition], place: Callable[[Condition], float]
) -> dict[str, Curves]:
    """Return a panel a density: what methods that were run at two places or more gain."""
    panels: dict[str, Curves] = {}
    for density in sorted({d for c in conditions for d in task.densities(c, "SET")}, reverse=True):
        curves: dict[str, dict[float, Interval]] = {}
        for condition in conditions:
            for name in _ORDER:
                gained = None if name == "dense" else _gain(task, name, condition, density)
                if gained is not None:
                    curves.setdefault(name, {})[place(condition)] = gained
        several = {name: points for name, points in curves.items() if len(points) > 1}
        if several:
            panels[f"density {density:g}"] = several
    return panels


def _panels(panels: Mapping[str, Curves], x: str, title: str, text: str) -> Iterator[Section]:
    """Draw panels side by side, three in a row, under one legend; say what its odd names mean."""
    panels = {name: curves for name, curves in panels.items() if curves}
    if not panels:
        return
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(7.2, 0.9 + 2.9 * rows))
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    labels: dict[str, Any] = {}
    for axis, (name, curves) in zip(axes, panels.items(), strict=False):
        draw_curves(axis, curves, x=x, y=_GAIN, colours=_COLOUR, even=True)
        axis.axhline(0.0, color="black", linewidth=0.8)
        axis.set_title(name, fontsize=10)
        axis.label_outer(remove_inner_ticks=False)
        axis.set_xlabel(x)
        handles, names = axis.get_legend_handles_labels()
        labels |= {n: h for h, n in zip(handles, names, strict=True) if n not in labels}
    for axis in axes[len(panels) :]:
        axis.remove()
    figure.legend(
        list(labels.values()), list(labels), loc="outside upper left", ncols=5, fontsize=9
    )
    shown = [i for curves in panels.values() for points in curves.values() for i in points.values()]
    said = [f"{name[0].upper()}{name[1:]}: {_SAID[name]}" for name in labels if name in _SAID]
    yield Section(title, " ".join([text, *said]), svg(figure, title), caption=about_runs(shown))
