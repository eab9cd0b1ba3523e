"""What outputs of a network mean: classes or regions, and the values that files have for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.segmentation.folders import Folder
from regrow.segmentation.labels import classes_of, of_classes, of_regions
from regrow.segmentation.planning import Preparation
from regrow.segmentation.prepare import Prepared, restore_scores

__all__ = ["Meaning"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Meaning:
    """What a network's outputs mean.

    Args:
        values: of label files, ascending, the background (0) first: class i is the i-th.
        names: of the values.
        regions: name to the values it consists of; later ones are written over earlier ones.
            Without any, outputs are the classes.
        ignore: the value of voxels that nobody has judged.
        written: the value that each region writes.
    """

    values: tuple[int, ...]
    names: tuple[str, ...]
    regions: Mapping[str, tuple[int, ...]]
    ignore: int | None = None
    written: tuple[int, ...] = ()

    @classmethod
    def of(cls, folder: Folder) -> Meaning:
        """Return what the labels of a data set mean."""
        labels = dict(sorted(folder.labels.items()))
        names = tuple(labels.values())
        return cls(tuple(labels), names, dict(folder.regions), folder.ignore, folder.written)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the network's outputs."""
        return tuple(self.regions) if self.regions else self.names

    @property
    def judged(self) -> dict[str, tuple[int, ...]]:
        """The values of each class but the background, or of each region, by name."""
        if self.regions:
            return dict(self.regions)
        return {n: (v,) for v, n in zip(self.values, self.names, strict=True) if v}

    @property
    def region_classes(self) -> list[list[int]] | None:
        """The classes of each region, if outputs are regions."""
        if not self.regions:
            return None
        return [[self.values.index(v) for v in of] for of in self.regions.values()]

    def classes(self, labels: Array) -> Array:
        """Number labels by class; what nobody has judged is -1.

        Example:
            >>> Meaning((0, 4), ("background", "tumour"), {}, ignore=9).classes(np.array([4, 0, 9]))
            array([ 1,  0, -1])
        """
        if self.ignore is None:
            return classes_of(labels, self.values)
        judged = labels != self.ignore
        return np.where(judged, classes_of(np.where(judged, labels, 0), self.values), -1)

    def labels(self, scores: Sequence[Array], prepared: Prepared, how: Preparation) -> Array:
        """Return the labels, on the grid of the input, that class scores say.

        Raises:
            FloatingPointError: scores are not finite, which would all be background.
        """
        strange = sum(int((~np.isfinite(score)).sum()) for score in scores)
        if strange:
            raise FloatingPointError(
                f"case {prepared.name}: {strange:,} scores of the network are not finite: train "
                "with --precision bfloat16 or float32, or at a lower learning rate"
            )
        if not self.regions:
            return of_classes(restore_scores(scores, prepared, how), self.values)
        masks = [restore_scores([np.zeros_like(s), s], prepared, how) > 0 for s in scores]
        return of_regions(np.stack(masks), self.written)
