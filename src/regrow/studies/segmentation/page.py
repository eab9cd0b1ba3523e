"""The page of a segmentation run: slices, learning curves, the cases, worst first."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.lab.figures import COLOURS, figure_style, svg
from regrow.lab.files import read_json, read_lines, write_bytes
from regrow.lab.report import page
from regrow.lab.run import METRICS
from regrow.lab.section import Details, Section, Table
from regrow.segmentation.cases import read_prediction
from regrow.segmentation.folders import Folder, open_folder
from regrow.segmentation.problem import mean_known
from regrow.segmentation.survey import read
from regrow.studies.segmentation.predict import file_of

__all__ = ["write_evaluation", "write_page"]

PAGE = "page.html"
_SHOWN = 20  # rows of the table; the others are folded away
_NAMES = {"dice": "Dice", "surface_dice": "surface Dice, 1 mm", "hausdorff95": "HD95, mm"}
_ERRORS = "#d55e00", "#0072b2"  # labelled wrongly or too much, and missed

ByCase = Mapping[str, Mapping[str, Mapping[str, float | None]]]
"""Figures by case, class and name."""


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
        f"in {result['train_seconds'] / 60:.1f} minutes."
    )
    with figure_style():
        sections = [
            *_slices(by_case, record / "predictions", data),
            *_curves(read_lines(record / METRICS)),
            *_tables(by_case),
            *_left_out(result.get("left_out", {})),
        ]
    source = (
        f"{data.name}, fold {config['fold']} of 5: {len(by_case)} cases that were not learnt from."
    )
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
        sections = [*_slices(by_case, predictions, data), *_tables(by_case)]
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
        if (mean := mean_known(case[name].get("dice") for case in by_case.values() if name in case))
        is not None
    }
    if not means:
        return "No class is in any case."
    each = ", ".join(f"{name} {mean:.3f}" for name, mean in means.items())
    return f"Mean Dice {statistics.fmean(means.values()):.3f}: {each}."


def _classes(by_case: ByCase) -> list[str]:
    return list(dict.fromkeys(name for case in by_case.values() for name in case))


def _worst_first(by_case: ByCase) -> list[tuple[float, str]]:
    """Return cases with their mean Dice; one without any class counts as right."""
    means = {
        case: mean_known(of.get("dice") for of in figures.values())
        for case, figures in by_case.items()
    }
    return sorted((1.0 if mean is None else mean, case) for case, mean in means.items())


# ---------------------------------------------------------------------- tables


def _tables(by_case: ByCase) -> Iterator[Section]:
    rows = [
        (case, f"{mean:.3f}", *_cells(by_case[case], _classes(by_case)))
        for mean, case in _worst_first(by_case)
    ]
    columns = (
        "case",
        "mean Dice",
        *(f"{n}: {c}" for n in _classes(by_case) for c in _NAMES.values()),
    )
    details = []
    if len(rows) > _SHOWN:
        summary = f"The other {len(rows) - _SHOWN} cases"
        details.append(Details(summary, table=Table(columns, rows[_SHOWN:])))
    yield Section(
        "Cases, the worst first",
        "Measured on the grid of the files. A dash: the class is neither there nor predicted.",
        table=Table(columns, rows[:_SHOWN]),
        details=details,
    )


def _left_out(why: Mapping[str, str]) -> Iterator[Section]:
    if why:
        text = "Neither learnt from nor tested on."
        yield Section("Cases left out", text, table=Table(("case", "why"), list(why.items())))


def _cells(figures: Mapping[str, Mapping[str, float | None]], names: Sequence[str]) -> list[str]:
    values = [figures.get(name, {}).get(key) for name in names for key in _NAMES]
    return ["–" if v is None or math.isnan(v) else f"{v:.3f}" for v in values]


# ---------------------------------------------------------------------- figures


def _curves(lines: Sequence[Mapping[str, Any]]) -> Iterator[Section]:
    from matplotlib.figure import Figure  # noqa: PLC0415 (an extra, and slow to import)

    if not lines:
        return
    figure = Figure(figsize=(7.2, 2.8))
    left, right = figure.subplots(1, 2)
    epochs = [line["epoch"] for line in lines]
    left.plot(epochs, [line["loss"] for line in lines], color=COLOURS[6])
    left.set(xlabel="epoch", ylabel="loss: cross-entropy + 1 − Dice")
    for name, label, colour in (
        ("train_dice", "training patches", COLOURS[6]),
        ("held_out_dice", "some held-out cases", COLOURS[7]),
    ):
        if all(name in line for line in lines):
            right.plot(epochs, [line[name] for line in lines], color=colour, label=label)
    right.set(xlabel="epoch", ylabel="Dice", ylim=(0, 1))
    right.legend(loc="lower right", fontsize=8)
    for axes in (left, right):
        axes.xaxis.get_major_locator().set_params(integer=True)
    yield Section(
        "Learning",
        "Patches are augmented, so that held-out cases may be segmented better.",
        svg(figure, "Learning curves"),
        caption="Nothing was chosen by the held-out cases.",
    )


def _slices(by_case: ByCase, predictions: Path, data: Path) -> Iterator[Section]:
    """Show the worst, the middle and the best case: image, truth, prediction, error."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    order = _worst_first(by_case)
    if not order:
        return
    folder = open_folder(data)
    chosen = {"worst": order[0], "middle": order[len(order) // 2], "best": order[-1]}
    if len(order) < len(chosen):
        chosen = {f"case {i + 1}": one for i, one in enumerate(order)}
    figure = Figure(figsize=(7.2, 2.1 * len(chosen)))
    grid = figure.subplots(len(chosen), 4, squeeze=False)
    for axes, (word, (mean, name)) in zip(grid, chosen.items(), strict=True):
        image, truth, predicted, ratio = _slice(name, predictions, folder)
        _draw(axes, image, truth, predicted, ratio, sorted(folder.labels))
        axes[0].set_ylabel(f"{word}: {name}\nDice {mean:.3f}", fontsize=8)
    for axis, title in zip(grid[0], ("image", "truth", "prediction", "error"), strict=True):
        axis.set_title(title, fontsize=9)
    names = [name for value, name in sorted(folder.labels.items()) if value]
    caption = (
        "The slice with most labelled voxels. Error: orange where a label is wrong or too much, "
        f"blue where one is missing. Labels in the order of colours: {', '.join(names)}."
    )
    yield Section("Slices", "", svg(figure, "Slices of cases"), caption=caption)


def _slice(
    name: str, predictions: Path, folder: Folder
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any], float]:
    """Return image, truth and prediction of a slice, and the voxels' height over their width."""
    case = next(case for case in folder.cases if case.name == name)
    truth = read(case, folder)
    file = file_of(name, predictions)
    assert file is not None
    predicted = read_prediction(case, file, folder.values, truth)
    assert truth.labels is not None
    depth = int(((truth.labels > 0) | (predicted > 0)).sum((1, 2)).argmax())
    _, high, wide = truth.grid.spacing
    # Up in the picture is towards the front; rows are drawn from the top.
    cut = np.s_[depth, ::-1]
    return truth.image[0][cut], truth.labels[cut], predicted[cut], high / wide


def _draw(
    axes: Sequence[Any],
    image: npt.NDArray[Any],
    truth: npt.NDArray[Any],
    predicted: npt.NDArray[Any],
    ratio: float,
    values: Sequence[int],
) -> None:
    from matplotlib.colors import ListedColormap, to_rgba  # noqa: PLC0415

    low, high = np.percentile(image, (1, 99))
    for axis in axes:
        axis.imshow(image, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), aspect=ratio)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.grid(visible=False)
    palette = ListedColormap([(0, 0, 0, 0), *(_colour(i) for i in range(len(values) - 1))])
    for axis, labels in zip(axes[1:3], (truth, predicted), strict=True):
        shown = np.searchsorted(values, labels).clip(0, len(values) - 1)
        axis.imshow(
            shown,
            cmap=palette,
            vmin=0,
            vmax=len(values) - 1,
            aspect=ratio,
            alpha=0.55,
            interpolation="nearest",
        )
    error = np.zeros((*truth.shape, 4))
    error[(predicted != truth) & (predicted > 0)] = to_rgba(_ERRORS[0], 0.8)
    error[(predicted == 0) & (truth > 0)] = to_rgba(_ERRORS[1], 0.8)
    axes[3].imshow(error, aspect=ratio, interpolation="nearest")


def _colour(number: int) -> Any:
    from matplotlib import colormaps  # noqa: PLC0415
    from matplotlib.colors import to_rgba  # noqa: PLC0415

    few = COLOURS[2:]
    return to_rgba(few[number]) if number < len(few) else colormaps["tab20"](number % 20)
