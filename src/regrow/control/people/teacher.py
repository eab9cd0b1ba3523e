"""A teacher who asks people, and waits for them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from regrow.control.people.drawings import Clip, Drawing
from regrow.control.people.store import Preferences
from regrow.control.teachers import Answers, Query

__all__ = ["People"]

_LABELS = {"first": 0.0, "second": 1.0, "equal": 0.5, "skip": 0.5}


def _nothing(answered: int, asked: int) -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class People:
    """Puts questions into a file, from which ``regrow preferences serve`` shows them, and waits.

    A training that was killed asks the same questions again, whose answers are in the file.

    Args:
        preferences: the file.
        draw: makes a clip of observations without noise, (segment, d).
        places: of the real features among all, (runs, d): only those are drawn.
        repeat: control steps of a step of the agent.
        tell: is told how many of how many questions are answered, whenever that changes.
        every: seconds between two looks into the file.
    """

    preferences: Preferences
    draw: Drawing
    places: Tensor
    repeat: int = 1
    tell: Callable[[int, int], None] = field(default=_nothing)
    every: float = 0.5

    def __call__(self, query: Query) -> Answers:
        """Ask, wait until all is answered, and return what was said."""
        runs, count = query.rewards.shape[:2]
        pairs = [
            (self._clip(query, run, number, 0), self._clip(query, run, number, 1))
            for run in range(runs)
            for number in range(count)
        ]
        numbers, told = self.preferences.ask(pairs), -1
        while told < len(numbers):
            said = self.preferences.answers(numbers)
            answered = sum(one is not None for one in said)
            if answered != told:
                self.tell(answered, len(said))
            if (told := answered) < len(said):
                time.sleep(self.every)
        labels = torch.tensor([_LABELS[str(one)] for one in said]).view(runs, count)
        known = torch.tensor([one != "skip" for one in said]).view(runs, count)
        return Answers(labels.to(query.rewards.device), known.to(query.rewards.device))

    def _clip(self, query: Query, run: int, number: int, which: int) -> Clip:
        seen = query.observations[run, number, which].cpu()[:, self.places[run].cpu()]
        return self.draw(np.asarray(seen, dtype=np.float64), self.repeat)
