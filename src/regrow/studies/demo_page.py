"""The demo's numbers in a table, in sentences, and as the figures of its page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import wraps
from typing import Any

import numpy as np

from regrow.lab.charts import curves, curves_of, palette, rows, rows_of
from regrow.lab.claims import SEEDS_NEEDED
from regrow.lab.effects import Effect, Measure, gain, level
from regrow.lab.heatmaps import heatmaps
from regrow.lab.section import Section, Table
from regrow.lab.statistics import Interval
from regrow.lab.study import Part
from regrow.lab.view import View

__all__ = ["DENSITIES", "MOVING", "NETWORKS", "PAGE", "demo_table", "findings", "judge"]

DENSITIES = (0.1, 0.05)
MOVING = ("SET", "RigL")
SPARSE = ("static", *MOVING)
SMALL = ("small dense", *SPARSE)
NETWORKS: dict[str, Mapping[str, Any]] = {
    "dense": {"arm": "dense"},
    **{f"{arm} {d:g}": {"arm": arm, "density": d} for d in DENSITIES for arm in SMALL},
}
"""Their labels by name, in the order of a table."""

CONTROLS = {
    "static": "a static random topology",
    "small dense": "a dense network with as many parameters",
    "dense": "the full dense network",
}
COUNTED = {
    name: Measure(name, lambda record, field=field: record.result[field], ratio=True)  # type: ignore[misc]
    for name, field in {
        "FLOPs, inference": "inference_flops",
        "FLOPs, training": "training_flops",
        "bytes of nonzeros": "bytes_needed",
        "bytes held here": "bytes_allocated",
    }.items()
}
_COLOURS = palette(SMALL)


def findings(view: View) -> Iterator[str]:
    """Say what the numbers show, in sentences, whichever way they turned out."""
    for name, own in NETWORKS.items():
        if own["arm"] in MOVING and (accuracy := level(**own).maybe(view)):
            asked = rows_of(view, {words: _over(own, arm) for arm, words in CONTROLS.items()})
            judged = [f"{judge(found)} {words}" for words, found in asked.items()]
            yield f"{name}: {accuracy.mean:.1f} %. {'; '.join(judged)}."


def judge(difference: Interval) -> str:
    """Say a difference in points of accuracy, and what it is worth."""
    if difference.n < SEEDS_NEEDED:
        return f"{_written(difference, '+')} points (too few seeds to judge) against"
    verdict = "no clear difference to"
    if difference.excludes(0):
        verdict = "better than" if difference.mean > 0 else "worse than"
    return f"{_written(difference, '+')}, {verdict}"


def demo_table(view: View) -> Table:
    """Write the results of one task, a row a network."""
    lines = []
    for name, own in NETWORKS.items():
        if (record := view.where(**own).first) is None:
            continue
        compared = own["arm"] not in ("dense", "static")
        over = _over(own, "static").maybe(view) if compared else None
        shares = [gain(own, "dense", measure=m).maybe(view) for m in COUNTED.values()]
        lines.append(
            (
                name,
                f"{record.result['active_parameters']:,}",
                _written(level(**own).maybe(view)),
                _written(over, "+"),
                *("–" if share is None else f"{share.mean:.3f}" for share in shares),
            )
        )
    note = (
        "Mean and 95 % interval (Student's t) over seeds; the difference to the static topology of "
        "the same density is paired by seed. FLOPs and bytes are counted, as a fraction of the "
        "dense network's. Bytes are those of weights, gradients and optimizer state: in a format "
        "that stores active weights only, and as held in this run, where every weight is stored "
        "densely with a mask beside it."
    )
    columns = ("network", "parameters", "test accuracy, %", "over static, points", *COUNTED)
    return Table(columns, lines, note)


def _over(own: Mapping[str, Any], control: str) -> Effect:
    return gain(own["arm"], control, density=own["density"])


def _written(interval: Interval | None, sign: str = "") -> str:
    if interval is None:
        return ""
    mean = f"{interval.mean:{sign}.2f}".replace("-", "−")
    return mean if interval.n == 1 else f"{mean} ± {interval.half_width:.2f}"


# ---------------------------------------------------------------------- figures


def accuracy_against_density(view: View) -> Iterator[Section]:
    """Draw accuracies at each density, and the dense network's."""
    yield from curves(
        "Accuracy against density",
        "The black line is the dense network's, with its interval.",
        {"": curves_of(view, lambda arm, d: level(arm, density=d), SMALL, DENSITIES)},
        x="density (fraction of weights kept)",
        y="test accuracy, %",
        colours=_COLOURS,
        levels={"": rows_of(view, {"dense": level("dense")})},
        band="dense",
    )


def all_numbers(view: View) -> Iterator[Section]:
    """Write what each network reached, what it would cost, and what that shows."""
    said = [(sentence,) for sentence in findings(view)]
    heading = "Differences in points of test accuracy, paired by seed, with 95 % intervals"
    yield Section("What was found", "", table=Table((heading,), said))
    yield Section("All numbers", "", table=demo_table(view))


def how_the_topology_moved(view: View) -> Iterator[Section]:
    """Draw how much of the first topology is still there, epoch by epoch."""
    last = max(record.get("epochs") for record in view.where(arm=SPARSE).records)
    shown = [*range(0, last, max(last // 12, 1)), last]

    def share(arm: str, density: float, epoch: float) -> Any:
        at = Measure("", lambda r: r.metrics()[int(epoch) - 1]["still_active"] if epoch else 1.0)
        return level(arm, density=density, measure=at)

    panels = {
        f"density {d:g}": curves_of(view, lambda arm, e, d=d: share(arm, d, e), SPARSE, shown)  # type: ignore[misc]
        for d in DENSITIES
    }
    text = (
        "Share of connections that the first topology had. Updates stop at 75 % of the run for "
        "RigL and go on to the end for SET."
    )
    how: dict[str, Any] = {"colours": _COLOURS, "even": False, "limits": (0, 1.05)}
    y = "share from the first topology"
    yield from curves("How the topology moved", text, panels, x="epoch", y=y, **how)


def where_the_network_looks(view: View) -> Iterator[Section]:
    """Draw the connections of each pixel, before and after."""
    looked = view.where(arm="RigL", density=min(DENSITIES)).records
    if not looked or (inputs := looked[0].get("inputs")) is None:
        return
    side = int(len(inputs["before"]) ** 0.5)
    means = {w: np.mean([record.result["inputs"][w] for record in looked], 0) for w in inputs}
    text = (
        f"Connections of each pixel to the first layer under RigL {min(DENSITIES):g}: drawn at "
        "random at the start, they gather where the images carry information."
    )
    panels = {f"{when} training": mean.reshape(side, side) for when, mean in means.items()}
    title = "Where the network looks"
    yield from heatmaps(title, text, panels, scale="connections", low=0.0, columns=2)


def density_of_each_layer(view: View) -> Iterator[Section]:
    """Draw how dense each layer was and is."""

    def density(own: Mapping[str, Any], field: str, layer: str) -> Any:
        return level(**own, measure=Measure("density", lambda record: record.result[field][layer]))

    when = {"before": "first_densities", "after": "densities"}
    panels = {}
    for name, own in NETWORKS.items():
        if own["arm"] in MOVING and (first := view.where(**own).first):
            asked = {
                f"{layer}, {words}": density(own, field, layer)
                for layer in first.result["densities"]
                for words, field in when.items()
            }
            panels[name] = rows_of(view, asked)
    text = (
        "These methods move connections inside a layer and never between layers, so each layer "
        "ends as dense as it began; the small layers are given more (ERK)."
    )
    yield from rows("Density of each layer, before and after", text, panels, x="density")


def operations_and_bytes(view: View) -> Iterator[Section]:
    """Draw what networks take, as a fraction of what the dense one takes."""
    panels = {
        kind: rows_of(view, {n: gain(o, "dense", measure=m) for n, o in list(NETWORKS.items())[1:]})
        for kind, m in list(COUNTED.items())[:3]
    }
    text = (
        "As a fraction of the dense network's. This is what arithmetic on active weights alone "
        "takes; masked execution does not collect it."
    )
    yield from rows("Operations and bytes, counted", text, panels, x="fraction")


def time_of_a_step(view: View) -> Iterator[Section]:
    """Draw measured seconds a step, as a multiple of the dense network's."""
    if (record := view.where(arm="times").first) is None:
        return
    seconds = {name: np.array(own) for name, own in record.result["step_seconds"].items()}
    panel = {}
    for name, own in seconds.items():
        low, middle, high = np.percentile(own / seconds["dense"], (25, 50, 75))
        panel[f"{name}: {middle:.2f}×"] = Interval(middle, low, high, len(own))
    text = (
        "Masked execution multiplies dense matrices that contain zeros: it saves no time and no "
        "memory, and costs a little for the masks. Only the small dense network is faster. Steps "
        f"of all networks, at density {max(DENSITIES):g}, were timed in turn."
    )
    caption = f"Medians over {len(seconds['dense'])} rounds, with the middle half of them."
    x = "seconds a step, as a multiple of the dense network's"
    yield from rows("Time of a step, measured", text, {"": panel}, x=x, zero=1.0, caption=caption)


def _each_task(part: Part) -> Part:
    @wraps(part)
    def made(view: View) -> Iterator[Section]:
        for task, here in view.by("task").items():
            yield from (replace(one, title=f"{one.title}: {task}") for one in part(here))

    return made


PAGE = tuple(
    map(
        _each_task,
        (
            accuracy_against_density,
            all_numbers,
            how_the_topology_moved,
            where_the_network_looks,
            density_of_each_layer,
            operations_and_bytes,
            time_of_a_step,
        ),
    )
)
