"""Notices writes to weights that are none of the topology's: cheap enough for every step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from regrow.engine.presence import Place, places
from regrow.engine.sharding import local

__all__ = ["Seen"]


class Seen:
    """Where weights hang in a model, and how often they were written, when last looked at.

    Args:
        model: that they are in.
        weights: all sparse weights, by name.
        watched: those whose writes are noticed.

    Attributes:
        sharded: whether they are (FSDP2).

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> seen = Seen(layer, {"weight": layer.weight}, [layer.weight])
        >>> _ = nn.init.ones_(layer.weight)
        >>> seen.touched, seen.exchanged
        (True, False)
    """

    def __init__(
        self, model: nn.Module, weights: Mapping[str, Tensor], watched: Sequence[Tensor]
    ) -> None:
        self._weights = list(weights.values())
        self._places: list[Place] = places(model, weights)
        self._watched = list(watched)
        self.sharded = any(hasattr(weight, "full_tensor") for weight in self._watched)
        self.note_()

    def note_(self) -> None:
        """Remember how often each weight was written: what comes on top is others' doing."""
        # What changes when a weight is written in place, or given other values by ``.data =``; a
        # write in place *through* ``.data`` changes neither.
        parts = self._parts() if self.sharded else self._watched
        self._marks = [(part, part._version, part.data_ptr()) for part in parts]

    @property
    def ids(self) -> frozenset[int]:
        """Those of all sparse weights, as long as none is exchanged."""
        return frozenset(map(id, self._weights))  # asked anew: a copy of this has copied weights

    # Asked at every step: loops without a call of Python, and no list or generator.

    @property
    def touched(self) -> bool:
        """Whether, since the last note, a weight was written, or exchanged."""
        marks = self._marks
        if self.sharded:
            # The local part of a sharded weight may be another by now.
            marks = [(p, *m[1:]) for p, m in zip(self._parts(), marks, strict=True)]
        for part, version, address in marks:
            if part._version != version or part.data_ptr() != address:
                return True
        return self.exchanged

    @property
    def exchanged(self) -> bool:
        """Whether a weight, or a module around one, was exchanged since this was made."""
        for held, key, was in self._places:  # noqa: SIM110
            if held.get(key) is not was:
                return True
        return False

    def _parts(self) -> list[Tensor]:
        return [local(weight) for weight in self._watched]
