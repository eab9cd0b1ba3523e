"""The page of a segmentation run: slices, learning curves, the cases, worst first."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from regrow.lab.figures import COLOURS, figure_style
from regrow.lab.files import read_json, read_lines, write_bytes
from regrow.lab.panels import panels, plots
from regrow.lab.report import page
from regrow.lab.run import METRICS
from regrow.lab.section import Details, Section, Table, duration
from regrow.segmentation.problem import mean_known
from regrow.studies.segmentation.slices import ByCase, slices, worst_first

__all__ = ["write_evaluation", "write_page"]

PAGE = "page.html"
_SHOWN = 12  # rows of a table; the others are folded away, and so would be a longer table
_NAMES = {"dice": "Dice", "surface_dice": "surface Dice, 1 mm", "hausdorff95": "HD95, mm"}
_FEW = 4  # classes, of which a table has all figures side by side


def write_page(record: Path, data: Path) -> Path:
    """Write the page of a finished run into its folder.

    Args:
        record: the run's folder.
        data: the data set's.

    Returns:
        The page.
    """
    result, config = read_json(record / "result.json"), read_json(record / "config.json")
    by_case: ByCase = result["by_case"]
    patch = "×".join(map(str, result["patch"]))
    findings = [_finding(by_case), *(f"{s[0].upper()}{s[1:]}." for s in result.get("absent", ()))]
    findings.append(
        f"{config['model']}, {result['nonzeros']:,} of {result['parameters']:,} parameters active; "
        f"{config['epochs'] * config['batches']:,} steps of {config['batch']} patches of {patch} "
        f"in {duration(result['train_seconds'])}."
    )
    with figure_style():
        sections = [
            *slices(by_case, record / "predictions", data),
            *_curves(read_lines(record / METRICS)),
            *_means(by_case),
            *_tables(by_case),
            *_left_out(result.get("left_out", {})),
        ]
    source = f"{data.name}, fold {config['fold']}: {len(by_case)} cases that were not learnt from."
    html = page("Segmentation of volumes", source, findings, sections, f"Record: {record.name}")
    write_bytes(record / PAGE, html.encode())
    return record / PAGE


def write_evaluation(by_case: ByCase, predictions: Path, data: Path, out: Path) -> str:
    """Write a page on predictions in files.

    Args:
        by_case: figures of each case.
        predictions: the folder that they lie in.
        data: the data set's.
        out: the page.

    Returns:
        What is said of them, and where the page is.
    """
    with figure_style():
        shown = slices(by_case, predictions, data)
        sections = [*shown, *_means(by_case), *_tables(by_case)]
    finding = _finding(by_case)
    html = page(
        "Predictions, judged", f"{data.name}: {len(by_case)} cases.", [finding], sections, ""
    )
    write_bytes(out, html.encode())
    return f"{finding}\n{out}"


def _finding(by_case: ByCase) -> str:
    means = {
        name: mean
        for name in _classes(by_case)
        if (mean := _mean(by_case, name, "dice")) is not None
    }
    if not means:
        return "No class is in any case."
    each = ", ".join(f"{name} {mean:.3f}" for name, mean in means.items())
    each = f": {each}" if len(means) <= _FEW else ""
    return f"Mean Dice {statistics.fmean(means.values()):.3f}{each}."


def _classes(by_case: ByCase) -> list[str]:
    return list(dict.fromkeys(name for case in by_case.values() for name in case))


# ---------------------------------------------------------------------- tables


def _tables(by_case: ByCase) -> Iterator[Section]:
    names, order = _classes(by_case), worst_first(by_case)
    few = len(names) <= _FEW
    kinds = list(_NAMES) if few else ["dice"]
    heads = [f"{n}: {_NAMES[kind]}" for n in names for kind in kinds] if few else names
    columns = ("case", "mean Dice", *heads)
    rows = [
        (case, f"{mean:.3f}", *(_cell(by_case[case], n, kind) for n in names for kind in kinds))
        for mean, case in order
    ]
    details = _others(columns, rows, "cases")
    for kind in [kind for kind in _NAMES if kind not in kinds]:
        lines = [(case, *(_cell(by_case[case], n, kind) for n in names)) for _, case in order]
        details.append(Details(_NAMES[kind], table=Table(("case", *names), lines)))
    counted = [(case, *(_lesions(by_case[case], n) for n in names)) for _, case in order]
    summary = "Lesions, pieces that hang together: found / missed / predicted where there is none"
    details.append(Details(summary, table=Table(("case", *names), counted)))
    yield Section(
        "Cases, the worst first",
        f"{'' if few else 'Dice by class. '}Measured on the grid of the files. A dash: the class "
        "is neither there nor predicted.",
        table=Table(columns, rows[:_SHOWN]),
        details=details,
    )


def _means(by_case: ByCase) -> Iterator[Section]:
    rows = [
        (name, *(_written(_mean(by_case, name, kind)) for kind in _NAMES))
        for name in _classes(by_case)
    ]
    if rows:
        text = "Mean over the cases in which a class is there or predicted."
        columns = "class", *_NAMES.values()
        details = _others(columns, rows, "classes")
        yield Section("Classes", text, table=Table(columns, rows[:_SHOWN]), details=details)


def _others(columns: Sequence[str], rows: Sequence[Sequence[str]], what: str) -> list[Details]:
    """Fold away the rows that a table does not show."""
    if len(rows) <= _SHOWN:
        return []
    return [Details(f"The other {len(rows) - _SHOWN} {what}", table=Table(columns, rows[_SHOWN:]))]


def _mean(by_case: ByCase, name: str, kind: str) -> float | None:
    return mean_known(case[name].get(kind) for case in by_case.values() if name in case)


def _left_out(why: Mapping[str, str]) -> Iterator[Section]:
    if why:
        text = "Neither learnt from nor tested on."
        yield Section("Cases left out", text, table=Table(("case", "why"), list(why.items())))


def _cell(figures: Mapping[str, Mapping[str, float | None]], name: str, kind: str) -> str:
    return _written(figures.get(name, {}).get(kind))


def _written(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "–"
    return "∞" if math.isinf(value) else f"{value:.3f}"


def _lesions(figures: Mapping[str, Mapping[str, float | None]], name: str) -> str:
    counts = [figures.get(name, {}).get(kind) for kind in ("found", "missed", "false")]
    return " / ".join("–" if count is None else f"{count:.0f}" for count in counts)


def _curves(lines: Sequence[Mapping[str, Any]]) -> Iterator[Section]:
    if not lines:
        return
    figures, (left, right) = plots("Loss", "Dice")
    epochs = [line["epoch"] for line in lines]
    mark = "o" if len(lines) == 1 else ""  # a line of one point is nothing
    left.plot(epochs, [line["loss"] for line in lines], mark, color=COLOURS[6])
    left.set(xlabel="epoch", ylabel="loss: cross-entropy + 1 − Dice")
    for name, label, colour in (
        ("train_dice", "training patches", COLOURS[6]),
        ("held_out_dice", "some held-out cases", COLOURS[7]),
    ):
        if all(name in line for line in lines):
            right.plot(epochs, [line[name] for line in lines], mark, color=colour, label=label)
    right.set(xlabel="epoch", ylabel="Dice", ylim=(0, 1))
    right.legend(loc="best", fontsize=8)
    for axes in (left, right):
        axes.locator_params(axis="x", integer=True)
    yield Section(
        "Learning",
        "Patches are augmented, so that held-out cases may be segmented better.",
        panels(figures, "Learning curves"),
        caption="Nothing was chosen by the held-out cases.",
    )
