"""Slices of cases that were segmented: image, truth, prediction, error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.lab.figures import COLOURS, Look
from regrow.lab.panels import panels
from regrow.lab.section import Section
from regrow.segmentation.cases import read_prediction
from regrow.segmentation.folders import Folder, open_folder
from regrow.segmentation.problem import mean_known
from regrow.segmentation.survey import read
from regrow.studies.segmentation.predict import file_of

__all__ = ["ByCase", "slices", "worst_first"]

_ERRORS = {"wrong or too much": "#d55e00", "missed": "#f0e442"}

ByCase = Mapping[str, Mapping[str, Mapping[str, float | None]]]
"""Figures by case, class and name."""


def worst_first(by_case: ByCase) -> list[tuple[float, str]]:
    """Return cases with their mean Dice; one without any class counts as right."""
    means = {
        case: mean_known(of.get("dice") for of in figures.values())
        for case, figures in by_case.items()
    }
    return sorted((1.0 if mean is None else mean, case) for case, mean in means.items())


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
    drawn = {}
    for word, (mean, name) in chosen.items():
        image, truth, predicted, ratio = _slice(name, predictions, folder)
        figure = drawn[f"{word}: {name}, Dice {mean:.3f}"] = Figure(figsize=(3.4, 4.1), dpi=200)
        grid = figure.subplots(2, 2).flat
        _draw(list(grid), image, truth, predicted, ratio, sorted(folder.labels))
    caption = (
        "The slice with most labelled voxels; of a case without any, with most predicted ones. "
        "The front is up, the patient's right is on the right."
    )
    names = [name for value, name in sorted(folder.labels.items()) if value]
    yield Section("Slices", "", panels(drawn, "Slices", _looks(names)), caption=caption)


def _looks(names: Sequence[str]) -> dict[str, Look]:
    """Name the colours of labels, and those of errors."""
    from matplotlib.colors import to_hex  # noqa: PLC0415

    colours = {name: to_hex(_colour(i)) for i, name in enumerate(names)}
    colours |= {f"error: {name}": colour for name, colour in _ERRORS.items()}
    return {name: Look(colour, "s") for name, colour in colours.items()}


def _slice(
    name: str, predictions: Path, folder: Folder
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any], float]:
    """Return image, truth and prediction of a slice, and the voxels' height over their width."""
    case = next(case for case in folder.judged if case.name == name)
    truth = read(case, folder)
    file = file_of(name, predictions)
    assert file is not None
    predicted = read_prediction(case, file, folder.values, truth)
    assert truth.labels is not None
    labelled = truth.labels > 0
    depth = int((labelled if labelled.any() else predicted > 0).sum((1, 2)).argmax())
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
    for axis, title in zip(axes, ("image", "truth", "prediction", "error"), strict=True):
        axis.set_title(title)
        axis.imshow(image, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), aspect=ratio)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.grid(visible=False)
        axis.spines[:].set_visible(False)
    palette = ListedColormap([(0, 0, 0, 0), *(_colour(i) for i in range(len(values) - 1))])
    for axis, labels in zip(axes[1:3], (truth, predicted), strict=True):
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
    error = np.zeros((*truth.shape, 4))
    wrong, missed = (to_rgba(colour, 0.85) for colour in _ERRORS.values())
    error[(predicted != truth) & (predicted > 0)] = wrong
    error[(predicted == 0) & (truth > 0)] = missed
    axes[3].imshow(error, aspect=ratio, interpolation="nearest")


def _colour(number: int) -> Any:
    from matplotlib import colormaps  # noqa: PLC0415
    from matplotlib.colors import to_rgba  # noqa: PLC0415

    few = COLOURS[2:]
    return to_rgba(few[number]) if number < len(few) else colormaps["tab20"](number % 20)
