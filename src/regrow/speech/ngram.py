"""A language model of units: n-grams, smoothed by absolute discounting."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from regrow.speech.units import BLANK

__all__ = ["NGram"]


class NGram:
    """Probability of a next unit given those before, from counts in texts.

    p(u | h) = max(c(h u) - D, 0) / c(h) + D · n(h) / c(h) · p(u | h less its first unit), where c
    counts, n(h) is how many different units followed h, and below single units all are equally
    likely.

    Args:
        texts: numbers of units, from 1 on; each ends with an end, numbered 0.
        units: how many there are, the end (0) included.
        order: units that are looked at together.
        discount: D, between 0 and 1.

    Raises:
        ValueError: an argument is out of range.

    Source: Ney, Essen and Kneser 1994.

    Example:
        >>> model = NGram([[1, 2], [1, 2]], units=3, order=2)
        >>> round(model.probability((1,), 2), 3)
        0.75
    """

    def __init__(
        self, texts: Iterable[Sequence[int]], units: int, order: int = 5, discount: float = 0.75
    ) -> None:
        if order < 1:
            raise ValueError(f"order={order}: must be at least 1")
        if not 0 < discount < 1:
            raise ValueError(f"discount={discount}: must lie between 0 and 1")
        self.units, self.order, self.discount = units, order, discount
        self._after: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
        for text in texts:
            whole = [*text, BLANK]
            for end, unit in enumerate(whole):
                for length in range(min(order, end + 1)):
                    self._after[tuple(whole[end - length : end])][unit] += 1
        self._totals = {before: sum(of.values()) for before, of in self._after.items()}

    def probability(self, before: tuple[int, ...], unit: int) -> float:
        """Return p(unit | before)."""
        context = before[len(before) - self.order + 1 :] if len(before) >= self.order else before
        found = 1 / self.units
        for length in range(len(context) + 1):
            shorter = context[len(context) - length :]
            if (total := self._totals.get(shorter)) is None:
                break
            counts = self._after[shorter]
            own = max(counts.get(unit, 0) - self.discount, 0.0)
            found = (own + self.discount * len(counts) * found) / total
        return found

    def __call__(self, before: tuple[int, ...], unit: int) -> float:
        """Return ln p(unit | before), as :func:`regrow.speech.decode.beam` asks for it."""
        return math.log(self.probability(before, unit))
