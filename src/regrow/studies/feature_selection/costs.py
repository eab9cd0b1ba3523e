"""The page's parts on what a selector costs, and on how stable its choice is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np

from regrow.lab.effects import BySeed, Measure
from regrow.lab.figures import COLOURS
from regrow.lab.panels import panels
from regrow.lab.records import Record
from regrow.lab.section import Section, Table
from regrow.lab.view import View
from regrow.studies.feature_selection.cells import (
    SVM,
    average,
    cells,
    complete,
    mean,
    number,
    on_one_machine,
)
from regrow.studies.feature_selection.selectors import ALL, OURS, RANDOM

__all__ = ["costs", "stability"]

Place = tuple[float, float]


def costs(view: View) -> Iterator[Section]:
    """Draw accuracy against seconds; write seconds, memory and FLOPs."""
    here = on_one_machine(view).where(protocol="fair")
    cpu, wall, peaks, flops = (
        cells(here, Measure(field, number(field)))
        for field in ("fit_cpu_seconds", "fit_seconds", "fit_peak_bytes", "flops")
    )
    timed = {name: cell for name, cell in cpu.items() if name not in (ALL, RANDOM)}
    if not timed:
        return
    fits = complete(timed)
    sets = list(next(iter(fits.values())))
    points = cells(view.where(protocol="fair"), SVM)
    places = {
        name: (_geometric(cell), mean(_on(points[name], sets))) for name, cell in fits.items()
    }
    places = dict(sorted(places.items(), key=lambda item: item[1][1], reverse=True))
    title = "What accuracy costs"
    yield Section(
        title,
        "SVM's accuracy, and the geometric mean of the CPU seconds of a fit, over "
        f"{', '.join(sets)}; seconds of the processor that made most records.",
        _scatter(places, title),
        caption="Upper left is better.",
    )
    lines = []
    for name, (seconds, _) in places.items():
        peak = [average(units) / 1e6 for units in _on(peaks.get(name, {}), sets).values()]
        count = f"{_geometric(_on(flops[name], sets)) / 1e9:,.1f}" if name in flops else "–"
        of_peaks = (f"{np.mean(peak):.0f}", f"{max(peak):.0f}") if peak else ("–", "–")
        own = _geometric(_on(wall[name], sets))
        lines.append((name, f"{seconds:.2g}", f"{own:.2g}", *of_peaks, count))
    columns = ("", "CPU seconds", "wall seconds", "peak, MB", "largest peak, MB", "counted GFLOPs")
    note = (
        "Seconds and FLOPs are geometric means over data sets, peaks arithmetic ones. A peak is "
        "how far resident memory rose above what it was before the fit (VmHWM of Linux, set back "
        "before). Wall seconds depend on what else the machine did. FLOPs are counted from active "
        "weights, where the method allows it."
    )
    yield Section("Seconds, memory and FLOPs of a fit", "", table=Table(columns, lines, note))


def _on(cell: Mapping[str, BySeed], sets: Sequence[str]) -> dict[str, BySeed]:
    return {data: cell[data] for data in sets if data in cell}


def _geometric(cell: Mapping[str, BySeed]) -> float:
    """Average the means of data sets, geometrically."""
    means = [average(units) for units in cell.values()]
    return math.exp(sum(math.log(max(one, 1e-9)) for one in means) / len(means))


def _scatter(places: Mapping[str, Place], title: str) -> str:
    from matplotlib.figure import Figure  # noqa: PLC0415 (an extra, and slow to import)
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter  # noqa: PLC0415

    figure = Figure(figsize=(4.6, 3.6))
    axes = figure.subplots()
    for name, place in places.items():
        axes.plot(*place, "o", ms=4, color=COLOURS[7] if name == OURS else COLOURS[6])
        left = any(_in_the_way(place, other) for other in places.values())
        where, side = ((-3, 3), "right") if left else ((3, 3), "left")
        axes.annotate(name, place, where, textcoords="offset points", fontsize=6.5, ha=side)
    seconds = [place[0] for place in places.values()]
    marks = (1, 2, 5) if max(seconds) < 100 * min(seconds) else (1,)
    axes.set(xscale="log", xlabel="CPU seconds of a fit, one thread", ylabel="accuracy, %")
    axes.xaxis.set_major_locator(LogLocator(subs=marks))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.18)
    return panels({"": figure}, title)


def _in_the_way(place: Place, other: Place) -> bool:
    """Whether another point would lie in a label to the right of this one."""
    return 0 < math.log10(other[0] / place[0]) < 0.6 and abs(other[1] - place[1]) < 0.5


def stability(view: View) -> Iterator[Section]:
    """Write how alike the chosen sets are, over splits and over seeds."""
    lines = []
    for name, here in view.where(protocol="fair").by("arm").items():
        alike = zip(*(_alike(there.records) for there in here.by("task").values()), strict=True)
        lines.append((str(name), *map(_mean_of_known, alike)))
    lines = [line for line in lines if line[0] != ALL]
    if not lines:
        return
    lines.sort(key=lambda line: (line[1] != "–", line[1]), reverse=True)
    columns = ("", "Jaccard, splits", "Kuncheva, splits", "Jaccard, seeds", "Kuncheva, seeds")
    yield Section(
        "How stable the choice is",
        "Similarity of the sets chosen in two splits (same seed), and by two seeds (same split), "
        "averaged over pairs and data sets. Kuncheva's index is 0 for random sets.",
        table=Table(columns, lines),
    )


def _alike(records: Sequence[Record]) -> list[float | None]:
    """Return both similarities over splits, then over seeds; None where there is no pair."""
    from regrow.features.stability import jaccard, kuncheva  # noqa: PLC0415 (needs scikit-learn)

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


def _mean_of_known(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{np.mean(known):.2f}".replace("-", "−") if known else "–"
