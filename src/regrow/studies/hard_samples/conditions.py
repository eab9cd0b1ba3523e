"""What makes samples hard, in a trial and in its record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from regrow.lab.records import Record
from regrow.studies.hard_samples.ranking import Score
from regrow.vision.hardness import Pick

__all__ = ["ALL", "ATTACKED", "Condition", "condition_of", "hardest", "random", "severity"]


@dataclass(frozen=True)
class Condition:
    """Which samples are learnt, and what was done to them.

    Args:
        share: of the training samples.
        pick: "random", or "hardest" or "easiest" by a score.
        score: by which, of :data:`~regrow.studies.hard_samples.ranking.SCORES`; "" if at random.
        severity: of the corruptions; 0: none.
        attacked: whether training is adversarial.

    Example:
        >>> str(Condition(0.5, "hardest", "el2n")), str(Condition(severity=5)), str(Condition())
        ('hardest 50 %', 'severity 5', 'all samples')
    """

    share: float = 1.0
    pick: Pick = "random"
    score: Score | Literal[""] = ""
    severity: int = 0
    attacked: bool = False

    def order(self) -> tuple[object, ...]:
        """Return what conditions are sorted by: what is hard by itself first, then as it grows."""
        return self.attacked, self.severity, self.pick, self.score, -self.share

    def __str__(self) -> str:
        """Say it in two or three words."""
        said = []
        if self.pick != "random":
            by = "" if self.score == "el2n" else f" by {self.score}"
            said.append(f"{self.pick} {100 * self.share:g} %{by}")
        elif self.share < 1:
            said.append(f"random {100 * self.share:g} %")
        if self.severity:
            said.append(f"severity {self.severity}")
        if self.attacked:
            said.append("attacked")
        return ", ".join(said) or "all samples"


ALL, ATTACKED = Condition(), Condition(attacked=True)


def hardest(share: float) -> Condition:
    """Return the hardest share by EL2N."""
    return Condition(share, "hardest", "el2n")


def random(share: float) -> Condition:
    """Return a random share."""
    return Condition(share)


def severity(number: int, share: float = 1.0) -> Condition:
    """Return corrupted images, all of them or a random share."""
    return Condition(share, severity=number)


def condition_of(record: Record) -> Condition:
    """Return the condition of a record."""
    return Condition(
        float(record.get("share")),
        record.get("pick"),
        record.get("ranking.score") or "",
        int(record.get("severity")),
        record.get("attack.steps") is not None,
    )
