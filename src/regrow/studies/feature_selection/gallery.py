"""Pictures: which pixels are chosen, and when the others left."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from regrow.lab.panels import PANEL, panels
from regrow.lab.records import Record
from regrow.lab.section import Section
from regrow.lab.view import View
from regrow.studies.feature_selection.design import FASHION
from regrow.studies.feature_selection.selectors import OURS
from regrow.studies.names import in_words

__all__ = ["gallery"]

_SETS = (FASHION, "COIL20", "ORL", "digits")
_SELECTORS = (
    *(OURS, "LightGBM", "ExtraTrees", "ExtraTrees, discounted", "L1", "fastcan", "f_classif"),
    *("mutual information", "SET-Attr", "SET-QS", "QuickSelection", "WAST", "NeuroFS", "random"),
)


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

    drawn = {}
    for name, found in by_name.items():
        drawn[name] = Figure(figsize=(1.8, 1.8))
        axes = drawn[name].subplots()
        axes.imshow(_share(found), cmap="magma", vmin=0, vmax=1)
        axes.axis("off")
    k = max(record.config["k"] for found in by_name.values() for record in found)
    title = f"Which pixels are chosen: {in_words(data)}"
    return Section(
        title,
        f"{k} pixels each. The brighter, the more of the splits and seeds chose it; what is spread "
        "out sees all of the image, what clusters sees the same thing many times.",
        panels(drawn, title, kind="small"),
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
    pixels, live = Figure(figsize=PANEL), Figure(figsize=PANEL)
    left, right = pixels.subplots(), live.subplots()
    pixels.colorbar(left.imshow(scores, cmap="magma"), ax=left, label="rounds outlived")
    left.axis("off")
    total = found[0].result["n_features"]
    steps = [0, *(point["step"] for point in points)]
    right.step(steps, [total, *(point["n_features"] for point in points)], where="post")
    right.set(xlabel="optimizer step", ylabel="features that are live", yscale="log")
    right.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    right.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    right.yaxis.set_minor_formatter(NullFormatter())
    title = f"Importance over training: {in_words(data)}"
    return Section(
        title,
        "How many rounds of elimination a pixel outlived, mean over splits and seeds; constant "
        "pixels have 0. And how many features are live.",
        panels({"rounds outlived": pixels, "features that are live": live}, title),
    )
