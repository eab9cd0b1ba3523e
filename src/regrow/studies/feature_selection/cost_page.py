"""Figures and tables of what a selector costs, and of how stable its choice is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from regrow.features.stability import jaccard, kuncheva
from regrow.lab.records import Record, Records
from regrow.lab.report import COLOURS, Section, Table, svg
from regrow.studies.feature_selection.columns import ALL, OURS, RANDOM
from regrow.studies.feature_selection.view import (
    Cells,
    accuracy,
    cells,
    in_order,
    one_machine,
    shared_sets,
)

__all__ = ["costs", "stability"]


def costs(records: Records) -> Iterator[Section]:
    """Show accuracy against seconds, and a table of seconds, memory and FLOPs."""
    points = cells(records, accuracy("svc"))
    records = one_machine(records)
    seconds = cells(records, lambda record: float(record.result["fit_cpu_seconds"]))
    names = [name for name in seconds if name not in (ALL, RANDOM)]
    if not names:
        return
    most = max(len(seconds[name]) for name in names)
    names = in_order(points, [name for name in names if len(seconds[name]) == most])
    sets = shared_sets(seconds, *names)
    spent = {name: _geometric(seconds[name], sets) for name in names}
    figure = Figure(figsize=(7.2, 4.4))
    axes = figure.subplots()
    places = {
        name: (spent[name], float(np.mean([np.mean(list(points[name][d].values())) for d in sets])))
        for name in names
    }
    for name, place in places.items():
        axes.plot(*place, "o", color=COLOURS[7] if name == OURS else COLOURS[6])
        left = any(_in_the_way(place, other) for other in places.values())
        axes.annotate(
            name,
            place,
            (-5 if left else 5, 4),
            textcoords="offset points",
            fontsize=8.5,
            ha="right" if left else "left",
        )
    axes.set(xscale="log", xlabel="CPU seconds of a fit, one thread", ylabel="accuracy, %")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if _decades(spent) < 2 else (1,)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.18)
    title = "What accuracy costs"
    yield Section(
        title,
        "SVM's accuracy, and the geometric mean of the CPU seconds of a fit, over "
        f"{', '.join(sets)}; seconds of the processor that made most records.",
        svg(figure, title),
        caption="Upper left is better.",
    )
    yield _cost_table(records, names, sets, spent)


def _in_the_way(place: tuple[float, float], other: tuple[float, float]) -> bool:
    """Whether another point would lie in a label to the right of this one."""
    return 0 < math.log10(other[0] / place[0]) < 0.6 and abs(other[1] - place[1]) < 0.5


def _decades(spent: Mapping[str, float]) -> float:
    return math.log10(max(spent.values()) / min(spent.values()))


def _cost_table(
    records: Records, names: Sequence[str], sets: Sequence[str], spent: Mapping[str, float]
) -> Section:
    def read(field: str) -> Cells:
        def measure(record: Record) -> float | None:
            value = record.result.get(field)
            return None if value is None else float(value)

        return cells(records, measure)

    wall, peaks, flops = read("fit_seconds"), read("fit_peak_bytes"), read("flops")
    rows = []
    for name in names:
        peak = [float(np.mean(list(peaks[name][d].values()))) for d in sets if name in peaks]
        count = _geometric(flops[name], sets) / 1e9 if name in flops else None
        rows.append(
            (
                name,
                f"{spent[name]:.2g}",
                f"{_geometric(wall[name], sets):.2g}",
                f"{np.mean(peak) / 1e6:.0f}" if peak else "–",
                f"{max(peak) / 1e6:.0f}" if peak else "–",
                f"{count:,.1f}" if count else "–",
            )
        )
    columns = ("", "CPU seconds", "wall seconds", "peak, MB", "largest peak, MB", "counted GFLOPs")
    note = (
        "Seconds and FLOPs are geometric means over data sets, peaks arithmetic ones. A peak is "
        "how far resident memory rose above what it was before the fit (VmHWM of Linux, set back "
        "before). Wall seconds depend on what else the machine did. FLOPs are counted from active "
        "weights, where the method allows it."
    )
    return Section("Seconds, memory and FLOPs of a fit", "", table=Table(columns, rows, note))


def _geometric(units: Mapping[str, Mapping[int, float]], sets: Sequence[str]) -> float:
    means = [float(np.mean(list(units[data].values()))) for data in sets if data in units]
    return math.exp(sum(math.log(max(mean, 1e-9)) for mean in means) / len(means))


def stability(records: Records) -> Iterator[Section]:
    """Show how alike the chosen sets are, over splits and over seeds."""
    chosen: dict[str, dict[str, list[Record]]] = {}
    for record in records.where(trial="Select", protocol="fair"):
        if record.config["selector"] != ALL:
            of_name = chosen.setdefault(record.config["selector"], {})
            of_name.setdefault(record.config["data"], []).append(record)
    rows = []
    for name, sets in chosen.items():
        found = [_alike(several) for several in sets.values()]
        rows.append((name, *(_mean([one[i] for one in found]) for i in range(4))))
    if not rows:
        return
    rows.sort(key=lambda row: (row[1] != "–", row[1]), reverse=True)
    columns = ("", "Jaccard, splits", "Kuncheva, splits", "Jaccard, seeds", "Kuncheva, seeds")
    yield Section(
        "How stable the choice is",
        "Similarity of the sets chosen in two splits (same seed), and by two seeds (same split), "
        "averaged over pairs and data sets. Kuncheva's index is 0 for random sets.",
        table=Table(columns, rows),
    )


def _alike(records: Sequence[Record]) -> list[float | None]:
    """Return both similarities over splits, then over seeds; None where there is no pair."""
    found: list[float | None] = []
    for same, other in (("seed", "split"), ("split", "seed")):
        pairs = [
            (set(a.result["selected"]), set(b.result["selected"]), a.result["n_features"])
            for a, b in combinations(records, 2)
            if a.config[same] == b.config[same] and a.config[other] != b.config[other]
        ]
        found.append(float(np.mean([jaccard(a, b) for a, b, _ in pairs])) if pairs else None)
        found.append(float(np.mean([kuncheva(a, b, d) for a, b, d in pairs])) if pairs else None)
    return found


def _mean(values: Sequence[float | None]) -> str:
    there = [value for value in values if value is not None]
    return f"{np.mean(there):.2f}".replace("-", "−") if there else "–"
