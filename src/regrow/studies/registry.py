"""The studies by name; each is imported when it is asked for."""

from __future__ import annotations

from pkgutil import resolve_name
from typing import TYPE_CHECKING

from regrow.spelling import did_you_mean

if TYPE_CHECKING:  # torch is slow to import, and names are asked for without it
    from regrow.lab.study import Study

__all__ = ["STUDIES", "load_study"]

# "module:attribute" by name.
STUDIES: dict[str, str] = {
    "continual-dst": "regrow.studies.continual_dst.study:STUDY",
    "corruption-robustness": "regrow.studies.corruption_robustness.study:STUDY",
    "distraction-masks": "regrow.studies.distraction_masks.study:STUDY",
    "demo": "regrow.studies.demo:STUDY",
    "feature-selection": "regrow.studies.feature_selection.study:STUDY",
    "hard-samples": "regrow.studies.hard_samples.study:STUDY",
    "lidar-motion": "regrow.studies.lidar_motion.study:STUDY",
    "segmentation": "regrow.studies.segmentation.study:STUDY",
    "speech-pruning": "regrow.studies.speech.pruning:STUDY",
    "preference-noise": "regrow.studies.control.study:STUDY",
    "pruning-criteria": "regrow.studies.pruning_criteria.study:STUDY",
    "sample-pruning": "regrow.studies.sample_pruning.study:STUDY",
    "update-schedule": "regrow.studies.update_schedule:STUDY",
}


def load_study(name: str) -> Study:
    """Import a study.

    Args:
        name: one of `STUDIES`.

    Raises:
        ValueError: there is no such study.
    """
    if name not in STUDIES:
        known = ", ".join(sorted(STUDIES)) or "none yet"
        meant = did_you_mean(name, STUDIES)
        raise ValueError(f"study {name!r}: there is none; known are: {known}{meant}")
    study: Study = resolve_name(STUDIES[name])
    return study
