"""Draws the importances of features: bars of the best, or a map where features are pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from regrow.machine import needed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_importances"]

_SELECTED, _OTHER = "#0072b2", "#999999"  # Okabe & Ito 2008: told apart by the colour-blind, too


def plot_importances(
    selector: Any,
    *,
    k: int = 20,
    names: Sequence[str] | None = None,
    shape: tuple[int, int] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the importances of a fitted selector.

    Bars of the best features, the best on top; those that are selected have a colour. With a shape,
    features are pixels: a map of all importances, on which those selected are framed.

    Args:
        selector: with ``feature_importances_``, such as one of this package or a forest of
            scikit-learn's. Which are selected is told by ``support_``, if there is one.
        k: how many bars, at least 1.
        names: of all features; None: ``feature_names_in_``, else their numbers.
        shape: height and width of the image that the features are, row by row; None: bars.
        ax: where to draw; None: in a new figure.

    Returns:
        The axes; ``axes.figure.savefig("importances.svg")`` writes them.

    Raises:
        ValueError: k is below 1, or names or shape are not of so many features.
        ImportError: matplotlib is missing.

    Example:
        >>> from types import SimpleNamespace
        >>> fitted = SimpleNamespace(feature_importances_=np.array([0.2, 0.7, 0.1]))
        >>> axes = plot_importances(fitted, k=2, names=["heat", "steep", "cup"])
        >>> [label.get_text() for label in axes.get_yticklabels()]
        ['steep', 'heat']
    """
    with needed("matplotlib", "report"):
        from matplotlib.figure import Figure  # noqa: PLC0415 (an extra, and slow to import)
        from matplotlib.patches import Rectangle  # noqa: PLC0415
    importances = np.asarray(selector.feature_importances_, dtype=np.float64)
    count = len(importances)
    selected = np.asarray(getattr(selector, "support_", np.zeros(count)), dtype=bool)
    if k < 1:
        raise ValueError(f"k={k}: must be at least 1")
    if shape is not None and (len(shape) != 2 or shape[0] * shape[1] != count):
        raise ValueError(f"shape={shape}: must be height and width of {count} features")
    if names is not None and len(names) != count:
        raise ValueError(f"names: {len(names)} of them for {count} features")
    best = np.argsort(-importances, kind="stable")[:k]
    if ax is None:
        high = 4.0 if shape is not None else 0.8 + 0.25 * len(best)
        ax = Figure(figsize=(5.2, high), layout="constrained").subplots()
    if shape is not None:
        drawn = ax.imshow(importances.reshape(shape), cmap="viridis")
        ax.figure.colorbar(drawn, ax=ax, label="importance")
        for place in np.flatnonzero(selected):
            corner = place % shape[1] - 0.5, place // shape[1] - 0.5
            ax.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="white", linewidth=0.8))
        ax.set(xticks=[], yticks=[])
        return ax
    known = getattr(selector, "feature_names_in_", None) if names is None else names
    labels = [str(i if known is None else known[i]) for i in best]
    colours = [_SELECTED if selected[i] else _OTHER for i in best]
    ax.barh(range(len(best)), importances[best], color=colours)
    ax.set_yticks(range(len(best)), labels)
    ax.invert_yaxis()
    ax.set_xlabel("importance")
    return ax
