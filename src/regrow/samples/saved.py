"""The saved state of samples: written, and checked before anything is changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from regrow.samples.chooser import Selection
from regrow.samples.course import Course
from regrow.samples.ids import Ids
from regrow.samples.shares import MOST_EPOCHS
from regrow.samples.store import Store, check_values

__all__ = ["check_state", "packed", "restore", "selection_of", "state_of", "unpacked"]

Mask = npt.NDArray[np.bool_]

VERSION = 1
_KEYS = ("version", "ids", "scores", "available", "epoch", "seed", "selection", "done")


def state_of(course: Course) -> dict[str, Any]:
    """Return all that a resume needs: tensors, numbers, texts."""
    return {
        "version": VERSION,
        "ids": course.ids.state(),
        "scores": course.store.state(),
        "available": packed(course.available),
        "epoch": course.epoch,
        "seed": course.chooser.seed,
        "selection": _saved(course.selection),
        "done": [course.done, course.planned],
    }


def restore(course: Course, state: Mapping[str, Any], from_start: bool) -> None:
    """Go on where a state was taken; scores go to their ids.

    Args:
        course: of the samples at hand.
        state: of :func:`state_of`.
        from_start: begin the epoch at its first batch.

    Raises:
        ValueError: it is no such state; nothing is changed.
    """
    theirs = check_state(state)
    epochs, epoch = course.chooser.shares.epochs, state["epoch"]
    if epoch >= (epochs or MOST_EPOCHS):
        raise ValueError(f"state of epoch {epoch}: the run has epochs={epochs}; give Samples more")
    here, there = course.ids.common(theirs)
    n, total = len(course.ids), len(theirs)
    available = np.ones(n, dtype=np.bool_)
    available[here] = unpacked(state["available"], total)[there]
    selection = selection_of(state["selection"], n, here, there, total)
    course.store.load(state["scores"], here, there)
    course.available = available
    course.chooser = course.chooser.with_seed(state["seed"])
    course.forget_arrivals()
    course.go_to(epoch)
    course.use(selection)
    course.ever_under_way, course.from_start = course.store.updates > 0, from_start
    course.done, course.planned = state["done"]


def packed(mask: Mask) -> Tensor:
    """Return a mask as bits, uint8.

    Example:
        >>> unpacked(packed(np.array([True, False, True])), 3).tolist()
        [True, False, True]
    """
    return torch.from_numpy(np.packbits(mask))


def unpacked(bits: Tensor, n: int) -> Mask:
    """Return the mask of :func:`packed`.

    Args:
        bits: uint8.
        n: how many values it has.
    """
    return np.unpackbits(bits.cpu().numpy(), count=n).astype(np.bool_)


def check_state(state: Mapping[str, Any]) -> Ids:
    """Refuse what is no state of samples; return the ids that it is of.

    Raises:
        ValueError: something is missing or does not fit.
    """
    _check_keys(state, _KEYS, "state")
    if isinstance(version := state["version"], Tensor) or version != VERSION:
        raise ValueError(f"state of version {version}: this regrow reads {VERSION}")
    try:
        ids = Ids(state["ids"])
    except TypeError as error:
        raise ValueError(f"state: {error}") from error
    n = len(ids)
    Store.check(state["scores"], n)
    _check_count(state["epoch"], "epoch")
    if not isinstance(done := state["done"], list | tuple) or len(done) != 2:
        raise ValueError(f"state: 'done' is {done!r}, and must be of two counts")
    for count in done:
        _check_count(count, "done")
    if type(state["seed"]) is not int:
        raise ValueError(f"state: 'seed' is {state['seed']!r}, and must be an integer")
    masks = [state["available"]]
    if (selection := state["selection"]) is not None:
        _check_keys(selection, ("mask", "weights", "epoch", "round", "chosen"), "state: selection")
        for name in ("epoch", "round"):
            _check_count(selection[name], name)
        if type(selection["chosen"]) is not bool:
            raise ValueError(f"state: 'chosen' is {selection['chosen']!r}, and must be a bool")
        masks.append(selection["mask"])
        if (weights := selection["weights"]) is not None:
            check_values(weights, n, "weights")
    for bits in masks:
        whole = isinstance(bits, Tensor) and bits.shape == (-(-n // 8),)
        if not whole or bits.dtype != torch.uint8:
            raise ValueError(f"state: a mask is not of {n} samples")
    return ids


def _check_keys(state: object, keys: Sequence[str], what: str) -> None:
    if not isinstance(state, Mapping):
        raise ValueError(f"{what} is a {type(state).__name__}; give what Samples.state_dict() gave")
    if missing := [key for key in keys if key not in state]:
        raise ValueError(f"{what}: {missing[0]!r} is missing; give what Samples.state_dict() gave")


def _check_count(value: object, name: str) -> None:
    if type(value) is not int or value < 0:
        raise ValueError(f"state: {name!r} is {value!r}, and must be a count from 0 on")


def _saved(selection: Selection | None) -> dict[str, Any] | None:
    """Return a selection as tensors and numbers."""
    if selection is None:
        return None
    weights = selection.weights
    return {
        "epoch": selection.epoch,
        "mask": packed(selection.mask),
        "weights": None if weights is None else torch.tensor(weights),
        "round": selection.round,
        "chosen": selection.chosen,
    }


def selection_of(
    saved: Mapping[str, Any] | None,
    n: int,
    here: npt.NDArray[np.int64],
    there: npt.NDArray[np.int64],
    total: int,
) -> Selection | None:
    """Return a saved selection, of the samples at hand.

    Args:
        saved: of :func:`state_of`.
        n: how many samples there are.
        here: positions of samples.
        there: their positions in what was saved.
        total: how many were saved.
    """
    if saved is None:
        return None
    mask = np.zeros(n, dtype=np.bool_)
    mask[here] = unpacked(saved["mask"], total)[there]
    weights = None
    if saved["weights"] is not None:
        weights = np.ones(n, dtype=np.float32)
        weights[here] = saved["weights"].cpu().numpy()[there]
    return Selection(int(saved["epoch"]), mask, weights, int(saved["round"]), bool(saved["chosen"]))
