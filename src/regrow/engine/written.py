"""Notices writes to weights that are none of the topology's: cheap enough for every step."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from regrow.engine.presence import Place, places
from regrow.engine.sharding import local

__all__ = ["Seen"]


class Seen:
    """Where weights hang in a model, and how often they were written, when last looked at.

    Args:
        model: that they are in.
        names: of all sparse weights.
        weights: whose writes are noticed.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> seen = Seen(layer, ["weight"], [layer.weight])
        >>> _ = nn.init.ones_(layer.weight)
        >>> seen.written, seen.exchanged
        (True, False)
    """

    def __init__(self, model: nn.Module, names: Sequence[str], weights: Sequence[Tensor]) -> None:
        self._places: list[Place] = places(model, names)
        self._weights = list(weights)
        self.sharded = any(hasattr(weight, "full_tensor") for weight in self._weights)
        self.note_()

    def note_(self) -> None:
        """Remember how often each weight was written: what comes on top is others' doing."""
        self._marks = self._marks_now()

    @property
    def touched(self) -> bool:
        """Whether, since the last note, a weight was written or exchanged."""
        return self.written or self.exchanged

    @property
    def written(self) -> bool:
        """Whether a weight was written since the last note."""
        return self._marks_now() != self._marks

    @property
    def exchanged(self) -> bool:
        """Whether a weight, or a module around one, was exchanged since this was made."""
        for held, key, was in self._places:  # noqa: SIM110 (no generator: asked at every step)
            if held.get(key) is not was:
                return True
        return False

    def _marks_now(self) -> list[tuple[int, int]]:
        # What changes when a weight is written in place, or given other values by ``.data =``; a
        # write in place *through* ``.data`` changes neither. Nothing is called a weight where
        # nothing is sharded.
        if self.sharded:
            return [(local(w)._version, local(w).data_ptr()) for w in self._weights]
        return [(weight._version, weight.data_ptr()) for weight in self._weights]
