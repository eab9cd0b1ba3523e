"""A trial that asks all criteria, now and again, what they would drop from the same state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from regrow.engine.dynamic import Dynamic
from regrow.lab.run import Run
from regrow.measure.movement import jaccard
from regrow.studies.pruning_criteria.criteria import CRITERIA
from regrow.studies.supervised.classify import Classifier, Classify

__all__ = ["ASKED", "FRACTIONS", "Overlaps"]

ASKED = {name: score for name, score in CRITERIA.items() if score.exact}
FRACTIONS = (0.5, 0.25, 0.125, 0.0625)


@dataclass(frozen=True, kw_only=True)
class Overlaps(Classify):
    """Train, and compare what criteria would drop: at the first update and at every n-th.

    Args:
        every: updates from one comparison during training to the next.
    """

    every: int = 4

    def run(self, run: Run) -> Mapping[str, Any]:
        """Train without checkpoints, for runs of minutes.

        Returns:
            ``first``: the Jaccard index by share dropped and pair, at the first update; ``during``:
            a list of ``step`` and the index by ``pairs`` for the largest share.
        """
        method = self.method
        assert isinstance(method, Dynamic)
        trainer = self.start(run)
        found: dict[str, Any] = {"first": {}, "during": []}
        step = 0

        def compare() -> None:
            nonlocal step
            step += 1
            update, rest = divmod(step, method.update_every)
            if rest:
                return
            if update == 1:
                found["first"] = {str(share): _pairs(trainer, share) for share in FRACTIONS}
            if update % self.every == 1:
                share = FRACTIONS[0]
                found["during"].append({"step": step, "pairs": _pairs(trainer, share)})

        while trainer.epoch < self.epochs:
            logged = trainer.run_epoch(
                before_step=compare, tell=lambda done: run.tell(done, "comparing criteria")
            )
            run.log(epoch=trainer.epoch, **logged)
        return {**self.test(trainer, run), "steps": step, **found}


def _pairs(trainer: Classifier, share: float) -> dict[str, float]:
    """Return the Jaccard index of what each two criteria would drop, over all layers."""
    chosen = {name: trainer.sparse.would_drop(score, share) for name, score in ASKED.items()}
    return {
        f"{one} | {other}": jaccard(chosen[one], chosen[other])["total"]
        for one, other in combinations(chosen, 2)
    }
