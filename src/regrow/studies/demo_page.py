"""The demo's numbers in a table and as the figures of its page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from regrow.lab.effects import Measure, gain, level, percent
from regrow.lab.figures import COLOURS, about_runs
from regrow.lab.panels import PANEL, panels
from regrow.lab.section import Section, Table
from regrow.lab.statistics import Interval
from regrow.lab.view import View
from regrow.studies.systems import SYSTEMS

__all__ = ["BYTES", "NETWORKS", "PAGE", "SECONDS", "SHARE", "demo_table"]

SECONDS = Measure(
    "CPU seconds of training", lambda r: r.result["cpu_seconds"], "times as long", True
)
BYTES = Measure("peak memory of training", lambda r: r.result["peak_bytes"], "times as much", True)
SHARE = percent("digit_share", "connections at the digit's pixels", "points")

NETWORKS = {
    "dense": "all weights",
    "RigL": "1 in 200, and the least are exchanged for those whose gradients are largest",
    "static": "1 in 200, which stay where they were drawn",
    "random": "1 in 200, exchanged at random as often",
    "small dense": "all weights of a network so narrow that it has as many",
}
"""Arms in the order of a table, and which weights they train."""

_LEVELS: Mapping[str, Measure] = {
    "test accuracy, %": percent("accuracy", "test accuracy"),
    "CPU seconds": Measure("", lambda record: record.result["cpu_seconds"]),
    "peak memory, MiB": Measure("", lambda record: record.result["peak_bytes"] / 2**20),
}
_MARKED = "RigL"


def demo_table(view: View) -> Table:
    """Write the results, a row a network."""
    lines = []
    for arm in NETWORKS:
        if (record := view.where(arm=arm).first) is None:
            continue
        levels = [level(arm, measure=one).maybe(view) for one in _LEVELS.values()]
        times = [
            gain("dense", arm, measure=one).maybe(view) if arm != "dense" else None
            for one in (SECONDS, BYTES)
        ]
        cells = [
            f"{record.result['weights']:,}",
            *(_written(one, digits) for one, digits in zip(levels, (1, 2, 0), strict=True)),
            *("" if one is None else f"{one.mean:.1f}×" for one in times),
        ]
        lines.append((arm, *cells))
    note = (
        "Means with 95 % intervals (Student's t) over seeds; the last two columns are ratios to "
        "the dense network, paired by seed. Seconds are those that the one thread computed, of "
        "building and training, every update of the topology included. Memory is the highest that "
        "the training's own process held, above what it held with all libraries and data in it."
    )
    return Table(("", "weights", *_LEVELS, "faster", "smaller"), lines, note)


def _written(interval: Interval | None, digits: int) -> str:
    if interval is None:
        return "–"
    places = 1 if digits == 2 and interval.mean >= 10 else digits  # 80 columns are few
    mean = f"{interval.mean:.{places}f}"
    return mean if interval.n == 1 else f"{mean} ± {interval.half_width:.{places}f}"


def accuracy_time_and_memory(view: View) -> Iterator[Section]:
    """Draw what was measured as bars, a panel a measure."""
    found = {
        name: {arm: one for arm in NETWORKS if (one := level(arm, measure=m).maybe(view))}
        for name, m in _LEVELS.items()
    }
    found = {name: bars for name, bars in found.items() if bars}
    if not found:
        return
    title = "Accuracy, time and memory"
    drawn = {name: _bars(bars) for name, bars in found.items()}
    each = "; ".join(f"{arm}: {what}" for arm, what in NETWORKS.items())
    text = f"What is trained of a perceptron 4096-2400-1000-10. {each[0].upper()}{each[1:]}."
    caption = about_runs(one for bars in found.values() for one in bars.values())
    yield Section(title, text, panels(drawn, title), caption=caption)


def _bars(found: Mapping[str, Interval]) -> Any:
    from matplotlib.figure import Figure  # noqa: PLC0415 (an extra, and slow to import)

    figure = Figure(figsize=(PANEL[0], 0.45 + 0.32 * len(found)))
    axes = figure.subplots()
    means = [one.mean for one in found.values()]
    errors = [one.half_width if one.n > 1 else 0.0 for one in found.values()]
    colours = [COLOURS[6] if arm == _MARKED else COLOURS[1] for arm in found]
    axes.barh(range(len(found)), means, xerr=errors, color=colours, ecolor="black", height=0.62)
    top = max(mean + error for mean, error in zip(means, errors, strict=True))
    for place, (mean, error) in enumerate(zip(means, errors, strict=True)):
        said = f"{mean:.3g}" if mean < 100 else f"{mean:.0f}"
        axes.text(mean + error + 0.02 * top, place, said, va="center", fontsize=8)
    axes.set(xlim=(0, 1.2 * top), ylim=(len(found) - 0.5, -0.5))
    axes.set_yticks(range(len(found)), list(found))
    axes.grid(visible=False, axis="y")
    return figure


def where_the_network_looks(view: View) -> Iterator[Section]:
    """Draw one image, and the connections of each pixel before and after training."""
    start, end = (view.where(arm=arm).records for arm in ("static", _MARKED))
    looked = {
        "connections as drawn": start,
        "connections after training": end,
    }
    if not all(looked.values()):
        return
    config = end[0].config
    image, own = _image(config)
    counts = {
        name: np.mean([record.result["pixels"] for record in records], 0).reshape(image.shape)
        for name, records in looked.items()
    }
    high = max(float(one.max()) for one in counts.values())
    drawn = {"an image": _picture(image, own, float(image.max()), "Greys")}
    drawn |= {name: _picture(one, own, high, "cividis") for name, one in counts.items()}
    first, last = (level(arm, measure=SHARE).maybe(view) for arm in ("static", _MARKED))
    said = (
        f" They had {first.mean:.1f} % of them and have {last.mean:.1f} %."
        if first and last
        else ""
    )
    title = "What was kept"
    text = (
        "The square is where the digit is; nothing tells the network. Pixel by pixel all squares "
        "look alike. Connections of the first layer are drawn at random and gather at the pixels "
        f"that tell digits apart, {own[2] ** 2} of {image.size}.{said}"
    )
    caption = (
        f"Connections: means over n = {len(end)} seeds; the brighter, the more, to {high:.0f}."
    )
    yield Section(title, text, panels(drawn, title), caption=caption)


def _image(config: Mapping[str, Any]) -> tuple[Any, tuple[int, int, int]]:
    """Hide one image again; return it with the row, column and side of the square that it is in."""
    import torch  # noqa: PLC0415 (slow to import)

    from regrow.studies.demo_trial import Hide  # noqa: PLC0415
    from regrow.vision.data import load_data  # noqa: PLC0415

    data = load_data(config["data"], download=False)
    tiles, home = config["tiles"], config["home"]
    field = Hide(tiles, home, config["seed"])(data, torch.device("cpu")).train_inputs[0, 0]
    side = len(field) // tiles
    row, column = divmod(home, tiles)
    return field.numpy(), (row * side, column * side, side)


def _picture(values: Any, own: Sequence[int], high: float, colours: str) -> Any:
    from matplotlib.figure import Figure  # noqa: PLC0415 (an extra, and slow to import)
    from matplotlib.patches import Rectangle  # noqa: PLC0415

    figure = Figure(figsize=(PANEL[0], PANEL[0]))
    axes = figure.subplots()
    axes.imshow(values, vmin=0, vmax=high, cmap=colours)
    row, column, side = own
    place = (column - 0.5, row - 0.5)
    axes.add_patch(Rectangle(place, side, side, fill=False, edgecolor=COLOURS[7], linewidth=1.6))
    axes.set_axis_off()
    return figure


def all_numbers(view: View) -> Iterator[Section]:
    """Write what each network reached and what it took."""
    if (table := demo_table(view)).rows:
        yield Section("All numbers", "", table=table)


def ten_systems(_: View) -> Iterator[Section]:
    """Name what else there is, and how to try it."""
    text = (
        "Each is a published system, and each line below runs it small, in about a minute and "
        "without a download: to see that it works, too small to judge by. "
        "“regrow study list” tells the larger sizes and what they take."
    )
    wide = max(len(system.command) for system in SYSTEMS)
    lines = [f"{system.command:{wide}}  # {system.does}" for system in SYSTEMS]
    yield Section("From here: ten systems", text, code="\n".join(lines))


PAGE = (accuracy_time_and_memory, where_the_network_looks, all_numbers, ten_systems)
