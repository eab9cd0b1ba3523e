"""The ten published systems that this library is the home of, and the command to try each."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["SYSTEMS", "System"]


class System(NamedTuple):
    """A system.

    Args:
        does: what it does, in a few words.
        study: which holds it against its paper's claims, by the name in the registry.
    """

    does: str
    study: str

    @property
    def command(self) -> str:
        """What to type: a minute on two cores, without a download; too small to judge by.

        Example:
            >>> SYSTEMS[-1].command
            'regrow study run pruning-criteria --preset smoke'
        """
        return f"regrow study run {self.study} --preset smoke"


SYSTEMS = (
    System("Where road users go, by LiDAR (LiMTR)", "lidar-motion"),
    System("Sparse networks on damaged images", "corruption-robustness"),
    System("Sparse networks on hard samples", "hard-samples"),
    System("Which columns of a table matter", "feature-selection"),
    System("Speech from fewer samples (DDP-ASR)", "speech-pruning"),
    System("Preferences among noise (R2N)", "preference-noise"),
    System("Masks against distractions (MaDi)", "distraction-masks"),
    System("Medical volumes, segmented (E2ENet)", "segmentation"),
    System("Task after task in one network", "continual-dst"),
    System("Where to prune while training", "pruning-criteria"),
)
