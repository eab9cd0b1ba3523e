"""The page of a run: the worst predictions first, in pictures; errors by kind, range, speed."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.lab.figures import COLOURS, figure_style
from regrow.lab.files import read_json, read_lines, write_bytes
from regrow.lab.panels import panels, plots
from regrow.lab.report import page
from regrow.lab.run import METRICS
from regrow.lab.section import Details, Section, Table, counted, duration
from regrow.motion.scene import KINDS, Scene
from regrow.studies.lidar_motion.looks import ON_DARK
from regrow.studies.lidar_motion.pictures import draw_scene
from regrow.studies.lidar_motion.results import errors_of
from regrow.studies.lidar_motion.trained import forecast_of

__all__ = ["write_evaluation", "write_page"]

PAGE = "page.html"
_DRAWN = 4  # targets of each sort that are drawn
_SHOWN = 20  # rows of a table; the others are folded away

Found = Mapping[str, npt.NDArray[Any]]

_GROUPS = {
    "by_kind": ("Kinds of road users", "kind"),
    "by_range": ("Distance from the LiDAR or its car, now", "metres"),
    "by_speed": ("Speed, now", "metres a second"),
    "by_points": ("LiDAR points on them", "points"),
    "by_story": ("Stories, and what tells how they go on", "story"),
}
_WAYMO = {
    "min_ade": "minADE, m",
    "min_fde": "minFDE, m",
    "miss_rate": "miss rate",
    "overlap_rate": "overlap rate",
    "map": "mAP",
    "soft_map": "soft mAP",
}
_ARGOVERSE = {
    "min_ade": "minADE, m",
    "min_fde": "minFDE, m",
    "miss": "miss rate",
    "brier_min_fde": "brier-minFDE, m",
}


def write_page(record: Path, found: Found, scenes: Sequence[Scene]) -> Path:
    """Write the page of a finished run into its folder.

    Args:
        record: the run's folder.
        found: forecasts of the test scenes.
        scenes: the test scenes.

    Returns:
        The page.
    """
    result, config = read_json(record / "result.json"), read_json(record / "config.json")
    lidar = "no LiDAR" if config["lidar"] == "none" else f"LiDAR ({config['lidar']})"
    findings = [_finding(result)]
    findings.append(
        f"Network of size {config['size']}, {lidar}; {result['nonzeros']:,} of "
        f"{result['parameters']:,} parameters active; epochs: {config['epochs']}, in "
        f"{duration(result['train_seconds'])}."
    )
    sections = [*_sections(found, scenes, result), *_curves(read_lines(record / METRICS))]
    data = {"simulator": "Made-up scenes", "crowds": "Recordings of UCY with made-up bodies"}
    of = data.get(config["data"], "A cache of scenes")
    source = f"{of}: {counted(len(scenes), 'scene')} to test on"
    both = result.get("in_both", 0)
    source += f", of which {both:,} were learnt from, too." if both else ", not learnt from."
    html = page("Motion of road users", source, findings, sections, f"Record: {record.name}")
    write_bytes(record / PAGE, html.encode())
    return record / PAGE


def write_evaluation(
    found: Found, scenes: Sequence[Scene], result: Mapping[str, Any], source: str, out: Path
) -> str:
    """Write a page on predictions of scenes.

    Args:
        found: forecasts.
        scenes: those that were predicted.
        result: of :func:`regrow.studies.lidar_motion.results.results`.
        source: what the scenes are.
        out: the page.

    Returns:
        What is said of them, and where the page is.
    """
    finding = _finding(result)
    sections = list(_sections(found, scenes, result))
    html = page("Predictions, judged", source, [finding], sections, "")
    write_bytes(out, html.encode())
    return f"{finding}\n{out}"


def _finding(result: Mapping[str, Any]) -> str:
    if result["min_ade"] is None:
        return "Of no target the future is known: nothing can be measured."
    said = f"minADE {result['min_ade']:.2f} m and minFDE {result['min_fde']:.2f} m of six futures"
    likely = f"{result['ade_1']:.2f} m of the likeliest"
    targets = counted(result["targets"], "target")
    if (precision := result.get("waymo_map")) is not None:
        return f"{said}, {likely}; mAP {precision:.3f}; {targets}."
    return f"{said}, {likely}; {targets}."


def _sections(
    found: Found, scenes: Sequence[Scene], result: Mapping[str, Any]
) -> Iterator[Section]:
    errors = errors_of(found)["min_ade"]
    known = np.flatnonzero(np.isfinite(errors))
    if not len(known):
        return
    order = known[np.argsort(-errors[known], kind="stable")]
    yield from _pictures(found, scenes, errors, order)
    yield from _waymo(result)
    yield from _argoverse(result)
    for group, (title, head) in _GROUPS.items():
        if rows := result.get(group):
            yield _table(title, head, rows)
    yield from _worst(found, scenes, errors, order)


def _where(scenes: Sequence[Scene], row: int) -> tuple[Scene, int]:
    """Return the scene of a row, and which of its targets it is."""
    ends = list(itertools.accumulate(len(scene.targets) for scene in scenes))
    place = bisect.bisect_right(ends, row)
    return scenes[place], row - (ends[place - 1] if place else 0)


def _pictures(
    found: Found, scenes: Sequence[Scene], errors: npt.NDArray[Any], order: npt.NDArray[Any]
) -> Iterator[Section]:
    middle = order[len(order) // 2 : len(order) // 2 + 1]
    chosen = {"worst": order[:_DRAWN], "middle": middle, "best": order[::-1][:1]}
    drawn: dict[str, Any] = {}
    done: set[int] = set()
    for word, places in chosen.items():
        rows = [int(row) for row in places if row not in done]  # of few each is drawn once
        done.update(rows)
        for rank, row in enumerate(rows, 1):
            scene, target = _where(scenes, row)
            kind = KINDS[found["kind"][row]]
            number = f"{word} {rank}" if len(rows) > 1 else word
            title = f"{number.capitalize()}: {kind} in {scene.name}, {errors[row]:.2f}\u00a0m"
            shown = draw_scene(scene, target, forecast_of(found, row), title=" ", tall=True)
            drawn[title] = shown
    if drawn:
        text = "By minADE: the worst, the middle one, the best."
        yield Section("Predictions", text, panels(drawn, "From above", dark=ON_DARK))


def _table(title: str, head: str, rows: Mapping[str, Mapping[str, Any]]) -> Section:
    columns = (head, "minADE, m", "minFDE, m", "likeliest, m", "targets")
    cells = [
        (
            name,
            *(_written(row[key]) for key in ("min_ade", "min_fde", "ade_1")),
            f"{row['targets']:,}",
        )
        for name, row in rows.items()
    ]
    return Section(title, "Means over all steps that are known.", table=Table(columns, cells))


def _waymo(result: Mapping[str, Any]) -> Iterator[Section]:
    if rows := result.get("waymo"):
        cells = [(kind, *(_written(row[name]) for name in _WAYMO)) for kind, row in rows.items()]
        whole = ("mean of kinds", *(_written(result[f"waymo_{name}"]) for name in _WAYMO))
        text = "As Waymo's challenge has them: points 0.5 seconds apart, means over 3, 5 and 8 s."
        yield Section("Waymo's metrics", text, table=Table(("", *_WAYMO.values()), [*cells, whole]))


def _argoverse(result: Mapping[str, Any]) -> Iterator[Section]:
    if row := result.get("argoverse"):
        cells = [("all targets", *(_written(row[name]) for name in _ARGOVERSE))]
        text = "As Argoverse 2 has them: all of the future that ends nearest, over six seconds."
        columns = ("", *_ARGOVERSE.values())
        yield Section("Argoverse 2's metrics", text, table=Table(columns, cells))


def _worst(
    found: Found, scenes: Sequence[Scene], errors: npt.NDArray[Any], order: npt.NDArray[Any]
) -> Iterator[Section]:
    rows = []
    for row in order[: 10 * _SHOWN]:
        scene, target = _where(scenes, int(row))
        points = scene.points
        count = "–" if points is None else f"{int(points.counts[target].sum()):,}"
        agent = f"{scene.ids[scene.targets[target]]}"
        kind = KINDS[found["kind"][row]]
        rows.append((scene.name, agent, kind, f"{errors[row]:.2f}", count))
    columns = ("scene", "agent", "kind", "minADE, m", "LiDAR points")
    more = Table(columns, rows[_SHOWN:])
    details = [Details(f"The next {len(more.rows)}", table=more)] if more.rows else []
    table = Table(columns, rows[:_SHOWN])
    yield Section("Targets, the worst first", "", table=table, details=details)


def _curves(lines: Sequence[Mapping[str, Any]]) -> Iterator[Section]:
    if not lines:
        return
    with figure_style():
        figures, (left, right) = plots("Loss", "minADE")
        epochs = [line["epoch"] for line in lines]
        mark = "o" if len(lines) == 1 else ""
        left.plot(epochs, [line["loss"] for line in lines], mark, color=COLOURS[6])
        left.set(xlabel="epoch", ylabel="loss")
        right.plot(epochs, [line["train_min_ade"] for line in lines], mark, color=COLOURS[6])
        right.set(xlabel="epoch", ylabel="minADE in training, m", ylim=(0, None))
        for axes in (left, right):
            axes.locator_params(axis="x", integer=True)
        yield Section("Learning", "", panels(figures, "Learning curves"))


def _written(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
