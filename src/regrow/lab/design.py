"""Designs of experiments: arms, axes and seeds make trials, with labels that say what each is."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, NamedTuple, TypeAlias, TypeVar

from regrow.lab.trial import Trial

__all__ = ["Arm", "Label", "Labelled", "Labels", "grid", "labels_by_identity"]

Label: TypeAlias = str | int | float | bool
Labels: TypeAlias = Mapping[str, Label]
"""What a trial is in its study, by axis, such as ``{"task": "cifar10", "arm": "SET"}``."""

Arm: TypeAlias = Callable[..., Mapping[str, Any]]
"""Makes the fields of a trial that one arm of a study decides.

Its parameters name what it depends on: axes of the design, and what the design gives to all arms.
"""

T = TypeVar("T", bound=Trial)


class Labelled(NamedTuple):
    """A trial and its labels.

    Labels are no part of the trial: two labelled trials may be one trial, seen by two questions.
    """

    labels: Labels
    trial: Trial


def grid(
    base: Trial,
    arms: Mapping[str, Arm],
    *,
    seeds: int,
    labels: Labels | None = None,
    given: Mapping[str, Any] | None = None,
    **axes: Sequence[Label],
) -> list[Labelled]:
    """Cross every arm with the axes it depends on, and with all seeds.

    Args:
        base: the trial that all have in common; an arm replaces some of its fields.
        arms: by name; the name becomes the label ``arm``.
        seeds: how many, from 0.
        labels: that all have in common, such as the task.
        given: values that arms may ask for and that are no axes, such as steps between updates.
        axes: places by the axis's name. An arm without that parameter does not depend on it: it is
            made once, and has no such label.

    Raises:
        ValueError: no arm depends on an axis, or an arm asks for something that is neither an axis
            nor given.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True, kw_only=True)
        ... class Train(Trial):
        ...     density: float = 1.0
        ...     def run(self, run): ...
        >>> arms = {"dense": lambda: {}, "SET": lambda density: {"density": density}}
        >>> for one in grid(Train(seed=0), arms, seeds=1, density=(0.1, 0.2)):
        ...     print(one.labels, one.trial)
        {'arm': 'dense'} Train(seed=0)
        {'arm': 'SET', 'density': 0.1} Train(seed=0, density=0.1)
        {'arm': 'SET', 'density': 0.2} Train(seed=0, density=0.2)
    """
    asked = {name: tuple(inspect.signature(arm).parameters) for name, arm in arms.items()}
    _check(asked, axes, given or {})
    made = []
    for name, arm in arms.items():
        own = [axis for axis in axes if axis in asked[name]]
        fixed = {key: value for key, value in (given or {}).items() if key in asked[name]}
        for place in product(*(axes[axis] for axis in own)):
            at = dict(zip(own, place, strict=True))
            fields = arm(**at, **fixed)
            told = {**(labels or {}), "arm": name, **at}
            made += [Labelled(told, replace(base, seed=s, **fields)) for s in range(seeds)]
    return made


def _check(
    asked: Mapping[str, Sequence[str]], axes: Mapping[str, Any], given: Mapping[str, Any]
) -> None:
    for axis in axes:
        if not any(axis in names for names in asked.values()):
            raise ValueError(f"{axis}: no arm of {', '.join(asked)} depends on it: leave it out")
    for arm, names in asked.items():
        if unknown := [name for name in names if name not in axes and name not in given]:
            raise ValueError(
                f"arm {arm!r} asks for {', '.join(unknown)}: give it, or an axis of it"
            )


def labels_by_identity(trials: Iterable[Labelled]) -> dict[str, list[Labels]]:
    """Gather the labels of each trial; equal labels count once."""
    gathered: dict[str, list[Labels]] = {}
    for labels, trial in trials:
        known = gathered.setdefault(trial.identity, [])
        if labels not in known:
            known.append(labels)
    return gathered
