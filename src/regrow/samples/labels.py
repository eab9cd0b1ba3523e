"""Lengths and strata of samples, as they are given: checked, and made numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from regrow.samples.strata import bins

__all__ = ["Labels", "all_labels", "checked_lengths"]

_LENGTH_BINS = 10


@dataclass(frozen=True)
class Labels:
    """The stratum of each sample.

    Args:
        numbers: int64, shape (n,), from 0.
        words: what each number stands for.
    """

    numbers: Tensor
    words: list[str]


def checked_lengths(lengths: Any, n: int) -> npt.NDArray[np.float64]:
    """Return lengths as float64.

    Args:
        lengths: of each sample, such as seconds, frames or tokens: at least 0 and finite.
        n: how many samples there are.

    Raises:
        ValueError: they are not one such number a sample.

    Example:
        >>> checked_lengths([3, 1.5], 2).tolist()
        [3.0, 1.5]
    """
    array = np.array(lengths.detach().cpu() if isinstance(lengths, Tensor) else lengths)
    if array.shape != (n,) or array.dtype.kind not in "fiu":
        raise ValueError(
            f"lengths of shape {array.shape}, {array.dtype}: must be one number for each of {n} "
            "samples"
        )
    array = array.astype(np.float64)
    if len(bad := np.flatnonzero(~(np.isfinite(array) & (array >= 0)))):
        raise ValueError(
            f"lengths: {array[bad[0]]} at position {bad[0]}: must be at least 0 and finite"
        )
    return array


def all_labels(
    strata: Mapping[str, Any], lengths: npt.NDArray[np.float64] | None, n: int
) -> dict[str, Labels]:
    """Return strata by name; with lengths, ten bins of them among them, as "length".

    Args:
        strata: by name a label for each sample: integers or texts.
        lengths: of the samples.
        n: how many samples there are.

    Raises:
        ValueError: labels are not one integer or text a sample.

    Example:
        >>> all_labels({"speaker": ["b", "a", "b"]}, None, 3)["speaker"].words
        ['a', 'b']
    """
    found = {} if lengths is None else {"length": _length_bins(lengths)}
    return found | {name: _labels(name, values, n) for name, values in strata.items()}


def _labels(name: str, values: Any, n: int) -> Labels:
    array = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)
    if array.shape != (n,) or array.dtype.kind not in "iuUb":
        raise ValueError(
            f"strata[{name!r}] of shape {array.shape}, {array.dtype}: must be one integer or text "
            f"for each of {n} samples"
        )
    words, numbers = np.unique(array, return_inverse=True)
    return Labels(torch.from_numpy(numbers.astype(np.int64)), [str(word) for word in words])


def _length_bins(lengths: npt.NDArray[np.float64]) -> Labels:
    numbers = bins(torch.from_numpy(lengths), _LENGTH_BINS)
    words = []
    for number in range(_LENGTH_BINS):
        inside = lengths[(numbers == number).numpy()]
        words.append(f"{inside.min():g}..{inside.max():g}" if len(inside) else "none")
    return Labels(numbers, words)
