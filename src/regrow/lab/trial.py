"""A trial: everything that decides what a run does, and its name, which follows from that."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from regrow.lab.run import Run

__all__ = ["Trial", "brief", "identity_of", "plain", "varying"]


@dataclass(frozen=True, kw_only=True)
class Trial(ABC):
    """One run of one setting with one seed: a frozen dataclass whose fields say all of it.

    Two trials with equal content are one trial; a field that does not change what is computed (such
    as where data lie) does not belong here. A field that came later, with metadata
    ``{"later": True}``, belongs to the content where it is not at its default: identities stay.

    Args:
        seed: of everything random.

    Attributes:
        version: is part of the content: raise it when :meth:`run` computes something else.
    """

    seed: int

    version: ClassVar[int] = 1

    @abstractmethod
    def run(self, run: Run) -> Mapping[str, Any]:
        """Do it.

        Args:
            run: takes metrics, progress and checkpoints.

        Returns:
            The result: numbers, strings, and lists and dicts of them.
        """

    def __str__(self) -> str:
        """Name what differs from the defaults; for people, and not always unique."""
        return brief(self)

    @property
    def content(self) -> dict[str, Any]:
        """What the trial is, in plain data."""
        return {"trial": type(self).__name__, "version": self.version, **plain(self)}

    @property
    def identity(self) -> str:
        """A hash of the content, 16 hexadecimal digits: the name of the trial's folder."""
        return identity_of(self.content)


def identity_of(content: Mapping[str, Any]) -> str:
    """Hash the content of a trial, as it was or as it was read again.

    Raises:
        ValueError: a number is NaN or infinite.
    """
    text = json.dumps(content, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def varying(trials: Iterable[Trial]) -> frozenset[str]:
    """Name the fields in which some of the trials differ."""
    found: dict[str, set[str]] = {}
    for trial in trials:
        for field in dataclasses.fields(trial):
            found.setdefault(field.name, set()).add(repr(getattr(trial, field.name)))
    return frozenset(name for name, values in found.items() if len(values) > 1)


def brief(value: Any, only: Collection[str] = ()) -> str:
    """Write a dataclass as it could have been called, less what is a default.

    Args:
        value: a dataclass; anything else is written as Python does.
        only: its fields to be written, default or not; none: those that are no defaults.

    Example:
        >>> from regrow.engine.schedules import Cosine
        >>> brief(Cosine(0.5)), brief(Cosine(0.5, end=0.1))
        ('Cosine(start=0.5)', 'Cosine(start=0.5, end=0.1)')
    """
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return repr(value)
    said = [
        f"{field.name}={brief(getattr(value, field.name))}"
        for field in dataclasses.fields(value)
        if field.init
        and (field.name in only if only else getattr(value, field.name) != field.default)
    ]
    return f"{type(value).__name__}({', '.join(said)})"


def plain(value: Any) -> Any:
    """Turn dataclasses, tuples and paths into dicts, lists and strings that JSON can hold.

    A dataclass becomes its fields; one inside another also tells its class, as ``kind``.

    Raises:
        TypeError: there is something else in it.
        ValueError: a number is NaN or infinite, or a key is no string.

    Example:
        >>> from regrow.engine.schedules import Cosine
        >>> plain({"fraction": Cosine(0.3), "sizes": (1, 2)})
        {'fraction': {'kind': 'Cosine', 'start': 0.3, 'end': 0.0}, 'sizes': [1, 2]}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _inside(found) for f, found in _said(value)}
    return _inside(value)


def _said(value: Any) -> Iterator[tuple[dataclasses.Field[Any], Any]]:
    for field in dataclasses.fields(value):
        found = getattr(value, field.name)
        if not (field.metadata.get("later") and found == field.default):
            yield field, found


def _inside(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value}: a trial holds finite numbers only")
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {"kind": type(value).__name__, **plain(value)}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple | list):
        return [_inside(item) for item in value]
    if isinstance(value, Mapping):
        if bad := [key for key in value if not isinstance(key, str)]:
            raise ValueError(f"key {bad[0]!r}: keys are strings")
        return {key: _inside(item) for key, item in value.items()}
    raise TypeError(f"{value!r}: a trial holds numbers, strings, containers and dataclasses only")
