"""What values of label files mean: published label maps, regions, and classes of a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["LABEL_MAPS", "LabelMap", "classes_of", "of_classes", "of_regions", "regions_of"]

Labels = npt.NDArray[Any]


@dataclass(frozen=True)
class LabelMap:
    """What the values of a data set's label files mean.

    Args:
        names: of each value, the background (0) included.
        regions: overlapping regions that the data set is judged by: their values, largest first.
    """

    names: Mapping[int, str]
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def _named(*names: str) -> LabelMap:
    return LabelMap(dict(enumerate(("background", *names))))


def _brats(core: int, oedema: int, enhancing: int) -> LabelMap:
    names = {0: "background", core: "necrotic core", oedema: "oedema", enhancing: "enhancing"}
    regions = {
        "whole tumour": tuple(sorted((core, oedema, enhancing))),
        "tumour core": tuple(sorted((core, enhancing))),
        "enhancing tumour": (enhancing,),
    }
    return LabelMap(dict(sorted(names.items())), regions)


LABEL_MAPS: Mapping[str, LabelMap] = {
    "amos": _named(
        *("spleen", "right kidney", "left kidney", "gall bladder", "oesophagus", "liver"),
        *("stomach", "aorta", "postcava", "pancreas", "right adrenal gland"),
        *("left adrenal gland", "duodenum", "bladder", "prostate or uterus"),
    ),
    "btcv": _named(
        *("spleen", "right kidney", "left kidney", "gall bladder", "oesophagus", "liver"),
        *("stomach", "aorta", "inferior vena cava", "portal and splenic veins", "pancreas"),
        *("right adrenal gland", "left adrenal gland"),
    ),
    "brats": _brats(core=1, oedema=2, enhancing=4),
    "brats-2023": _brats(core=1, oedema=2, enhancing=3),
    "brats-decathlon": _brats(core=2, oedema=1, enhancing=3),
}
"""Published label maps by name.

BraTS has three, and files do not say which: 4 is enhancing tumour up to 2021 and 3 since 2023;
the Medical Segmentation Decathlon (Task01) and nnU-Net exchange core and oedema, too.
"""


def regions_of(labels: Labels, regions: Mapping[str, Sequence[int]]) -> npt.NDArray[np.bool_]:
    """Return one mask a region, which may overlap.

    Args:
        labels: of any shape.
        regions: name to values.

    Returns:
        (regions, …), in the mapping's order.

    Example:
        >>> brats = LABEL_MAPS["brats"]
        >>> regions_of(np.array([0, 1, 2, 4]), brats.regions).astype(int).tolist()
        [[0, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 1]]
    """
    return np.stack([np.isin(labels, list(values)) for values in regions.values()])


def of_regions(masks: npt.NDArray[np.bool_], order: Sequence[int]) -> Labels:
    """Write masks of regions over one another, as nnU-Net does.

    Args:
        masks: (regions, …), of which later ones win.
        order: the value that each writes (nnU-Net's ``regions_class_order``).

    Example:
        >>> brats = LABEL_MAPS["brats"]
        >>> masks = regions_of(np.array([0, 1, 2, 4]), brats.regions)
        >>> of_regions(masks, (2, 1, 4)).tolist()
        [0, 1, 2, 4]
    """
    if len(masks) != len(order):
        raise ValueError(f"order: {len(order)} values for {len(masks)} masks")
    labels = np.zeros(masks.shape[1:], np.int64)
    for mask, value in zip(masks, order, strict=True):
        labels[mask] = value
    return labels


def classes_of(labels: Labels, values: Sequence[int]) -> Labels:
    """Number labels from 0 without gaps, as networks want them.

    Args:
        labels: of any shape.
        values: that occur, ascending; the background (0) first.

    Raises:
        ValueError: a label is none of the values.

    Example:
        >>> classes_of(np.array([0, 4, 2]), (0, 1, 2, 4)).tolist()
        [0, 3, 2]
    """
    known = np.asarray(values)
    places = np.searchsorted(known, labels).clip(0, len(known) - 1)
    if not (known[places] == labels).all():
        strange = sorted(set(np.unique(labels).tolist()) - set(known.tolist()))
        raise ValueError(f"labels: {strange} are none of {known.tolist()}")
    return places


def of_classes(classes: Labels, values: Sequence[int]) -> Labels:
    """Return the labels of classes: the inverse of :func:`classes_of`.

    Example:
        >>> of_classes(np.array([0, 3, 2]), (0, 1, 2, 4)).tolist()
        [0, 4, 2]
    """
    labels: Labels = np.asarray(values)[classes]
    return labels
