"""Pictures: which pixels are chosen, and when the others left."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from regrow.lab.figures import svg
from regrow.lab.records import Record
from regrow.lab.section import Section
from regrow.lab.view import View
from regrow.studies.feature_selection.design import FASHION
from regrow.studies.feature_selection.selectors import OURS

__all__ = ["gallery"]

_SETS = (FASHION, "COIL20", "ORL", "digits")
_SELECTORS = (
    *(OURS, "LightGBM", "ExtraTrees", "ExtraTrees, discounted", "L1", "fastcan", "f_classif"),
    *("mutual information", "SET-Attr", "SET-QS", "QuickSelection", "WAST", "NeuroFS", "random"),
)
_ACROSS = 5


def gallery(view: View) -> Iterator[Section]:
    """Draw which pixels are chosen of each data set of images."""
    for data in _SETS:
        here = view.where(protocol="fair", task=data)
        chosen = {name: here.where(arm=name).records for name in _SELECTORS}
        by_name = {name: records for name, records in chosen.items() if records}
        if by_name:
            yield _pixels(data, by_name)
        if by_name.get(OURS):
            yield _rounds(data, by_name[OURS])


def _pixels(data: str, by_name: dict[str, list[Record]]) -> Section:
    from matplotlib.figure import Figure  # noqa: PLC0415 (an extra, and slow to import)

    down = -(-len(by_name) // _ACROSS)
    figure = Figure(figsize=(7.2, 1.72 * down))
    places = figure.subplots(down, _ACROSS, squeeze=False).reshape(-1)
    for axes in places:
        axes.axis("off")
    for axes, (name, found) in zip(places, by_name.items(), strict=False):
        axes.imshow(_share(found), cmap="magma", vmin=0, vmax=1)
        axes.set_title(name, fontsize=9)
    k = max(record.config["k"] for found in by_name.values() for record in found)
    title = f"Which pixels are chosen: {data}"
    return Section(
        title,
        f"{k} pixels each. The brighter, the more of the splits and seeds chose it; what is spread "
        "out sees all of the image, what clusters sees the same thing many times.",
        svg(figure, title),
    )


def _share(found: Sequence[Record]) -> npt.NDArray[np.float64]:
    height, width = found[0].result["shape"]
    counts = np.zeros(height * width)
    for record in found:
        counts[record.result["selected"]] += 1
    return counts.reshape(height, width) / len(found)


def _rounds(data: str, found: Sequence[Record]) -> Section:
    """Show when each pixel left, and how many were live at each step."""
    from matplotlib.figure import Figure  # noqa: PLC0415 (an extra, and slow to import)
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter  # noqa: PLC0415

    shape = found[0].result["shape"]
    scores = np.mean([record.result["scores"] for record in found], axis=0).reshape(shape)
    points = found[0].result["history"]
    figure = Figure(figsize=(7.2, 3.0))
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.5))
    drawn = left.imshow(scores, cmap="magma")
    left.axis("off")
    figure.colorbar(drawn, ax=left, shrink=0.85, label="rounds outlived")
    total = found[0].result["n_features"]
    steps = [0, *(point["step"] for point in points)]
    right.step(steps, [total, *(point["n_features"] for point in points)], where="post")
    right.set(xlabel="optimizer step", ylabel="features that are live", yscale="log")
    right.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    right.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    right.yaxis.set_minor_formatter(NullFormatter())
    title = f"Importance over training: {data}"
    return Section(
        title,
        "Left, how many rounds of elimination a pixel outlived, mean over splits and seeds. "
        "Constant pixels have 0. Right, how many features are live.",
        svg(figure, title),
    )
