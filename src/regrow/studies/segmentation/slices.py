"""Slices of cases that were segmented: image, truth, prediction, error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from regrow.lab.figures import COLOURS, Look
from regrow.lab.panels import panels
from regrow.lab.section import Section
from regrow.segmentation.cases import read_prediction
from regrow.segmentation.folders import Folder, open_folder
from regrow.segmentation.normalise import channel_of
from regrow.segmentation.problem import mean_known
from regrow.segmentation.survey import read
from regrow.studies.segmentation.predict import file_of

__all__ = ["ByCase", "slices", "worst_first"]

_ERRORS = {"wrong or too much": "#d55e00", "missed": "#f0e442"}
_FURTHER = (8, 10, 12, 18, 4, 6, 16, 9, 13, 5, 7, 11, 3, 1, 17, 19)  # of matplotlib's tab20
_PLANES = ("axial", "coronal", "sagittal")  # across depth, height, width
_VIEWS = (
    "Axial: the front is up, the patient's right is on the right.",
    "Coronal: the head is up, the patient's right is on the right.",
    "Sagittal: the head is up, the front is on the right.",
)

Array = npt.NDArray[Any]

ByCase = Mapping[str, Mapping[str, Mapping[str, float | None]]]
"""Figures by case, class and name."""


def worst_first(by_case: ByCase) -> list[tuple[float, str]]:
    """Return cases with their mean Dice; one without any class counts as right."""
    means = {
        case: mean_known(of.get("dice") for of in figures.values())
        for case, figures in by_case.items()
    }
    return sorted((1.0 if mean is None else mean, case) for case, mean in means.items())


class Cut(NamedTuple):
    """A slice of a case.

    Args:
        image: (rows, columns), the top row first.
        truth: labels, of the same shape.
        predicted: labels, of the same shape.
        tall: how tall the slice is, of its width.
        axis: that it is cut across: 0, 1, 2: depth, height, width.
        window: intensities that are black and white.
    """

    image: Array
    truth: Array
    predicted: Array
    tall: float
    axis: int
    window: tuple[float, float]


def slices(by_case: ByCase, predictions: Path, data: Path) -> Iterator[Section]:
    """Show the worst, the middle and the best case: image, truth, prediction, error."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    order = worst_first(by_case)
    if not order:
        return
    folder = open_folder(data)
    chosen = {"worst": order[0], "middle": order[len(order) // 2], "best": order[-1]}
    if len(order) < len(chosen):
        chosen = {f"case {i + 1}": one for i, one in enumerate(order)}
    drawn, axes, there, values = {}, set[int](), set[int](), sorted(folder.labels)
    for word, (mean, name) in chosen.items():
        cut = _slice(name, predictions, folder)
        size = 3.4, 2 * (0.3 + 1.6 * min(max(cut.tall, 0.4), 1.6))
        figure = Figure(figsize=size, dpi=200)
        drawn[f"{word}: {name}, {_PLANES[cut.axis]}, Dice {mean:.3f}"] = figure
        _draw(list(figure.subplots(2, 2).flat), cut, values)
        axes.add(cut.axis)
        there |= {
            int(value) for labels in (cut.truth, cut.predicted) for value in np.unique(labels)
        }
    caption = (
        "The slice with most labelled voxels; of a case without any, with most predicted ones. "
        + " ".join(_VIEWS[axis] for axis in sorted(axes))
    )
    names = {folder.labels[value]: i for i, value in enumerate(values[1:]) if value in there}
    yield Section("Slices", "", panels(drawn, "Slices", _looks(names)), caption=caption)


def _looks(names: Mapping[str, int]) -> dict[str, Look]:
    """Name the colours of labels, and those of errors."""
    from matplotlib.colors import to_hex  # noqa: PLC0415

    colours = {name: to_hex(_colour(number)) for name, number in names.items()}
    colours |= {f"error: {name}": colour for name, colour in _ERRORS.items()}
    return {name: Look(colour, "s", "") for name, colour in colours.items()}


def _slice(name: str, predictions: Path, folder: Folder) -> Cut:
    case = next(case for case in folder.judged if case.name == name)
    whole = read(case, folder)
    file = file_of(name, predictions)
    assert file is not None and whole.labels is not None
    predicted = read_prediction(case, file, folder.values, whole)
    sides, spacing = whole.labels.shape, whole.grid.spacing
    # The plane that was scanned: across the widest voxels, or the only slice.
    axis = max(range(3), key=lambda a: (sides[a] == 1, spacing[a]))
    labelled = whole.labels > 0 if (whole.labels > 0).any() else predicted > 0
    place = int(np.moveaxis(labelled, axis, 0).sum((1, 2)).argmax())
    # Rows are drawn from the top: up is the front, or the head.
    image, truth, said = (
        np.moveaxis(array, axis, 0)[place, ::-1]
        for array in (whole.image[0], whole.labels, predicted)
    )
    high, wide = (spacing[a] * sides[a] for a in range(3) if a != axis)
    hounsfield = channel_of(folder.channels[0]) == "ct" and folder.preprocessed is None
    window = _window(image, truth if (truth > 0).any() else said, hounsfield=hounsfield)
    return Cut(image, truth, said, high / wide, axis, window)


def _window(image: Array, labels: Array, *, hounsfield: bool) -> tuple[float, float]:
    """Return which intensities are black and white; of CT those of what is labelled, ± 200 HU."""
    if hounsfield and (labels > 0).any():
        middle = float(np.median(image[labels > 0]))
        return middle - 200, middle + 200
    low, high = np.percentile(image, (1, 99))
    return float(low), max(float(high), float(low) + 1e-6)


def _draw(axes: Sequence[Any], cut: Cut, values: Sequence[int]) -> None:
    from matplotlib.colors import ListedColormap, to_rgba  # noqa: PLC0415

    rows, columns = cut.image.shape
    ratio = cut.tall * columns / rows
    low, high = cut.window
    for axis, title in zip(axes, ("image", "truth", "prediction", "error"), strict=True):
        axis.set_title(title)
        axis.imshow(cut.image, cmap="gray", vmin=low, vmax=high, aspect=ratio)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.grid(visible=False)
        axis.spines[:].set_visible(False)
    palette = ListedColormap([(0, 0, 0, 0), *(_colour(i) for i in range(len(values) - 1))])
    for axis, labels in zip(axes[1:3], (cut.truth, cut.predicted), strict=True):
        shown = np.searchsorted(values, labels).clip(0, len(values) - 1)
        axis.imshow(
            shown,
            cmap=palette,
            vmin=0,
            vmax=len(values) - 1,
            aspect=ratio,
            alpha=0.65,
            interpolation="nearest",
        )
    error = np.zeros((rows, columns, 4))
    wrong, missed = (to_rgba(colour, 0.85) for colour in _ERRORS.values())
    error[(cut.predicted != cut.truth) & (cut.predicted > 0)] = wrong
    error[(cut.predicted == 0) & (cut.truth > 0)] = missed
    axes[3].imshow(error, aspect=ratio, interpolation="nearest")


def _colour(number: int) -> Any:
    """Return the colour of a class: none of those of errors, and no grey as of the image."""
    from matplotlib import colormaps  # noqa: PLC0415
    from matplotlib.colors import to_rgba  # noqa: PLC0415

    few = COLOURS[2:7]
    if number < len(few):
        return to_rgba(few[number])
    return colormaps["tab20"](_FURTHER[(number - len(few)) % len(_FURTHER)])
