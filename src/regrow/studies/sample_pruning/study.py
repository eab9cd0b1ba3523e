"""Which samples to train on: does a choice by loss beat choice at random, at equal steps?"""

from __future__ import annotations

from regrow.lab.learnt import Known
from regrow.lab.study import Study
from regrow.studies.sample_pruning.claims import CLAIMS
from regrow.studies.sample_pruning.design import PRESETS
from regrow.studies.sample_pruning.page import PAGE

__all__ = ["CLAIMS", "STUDY"]

_CLEAN = {"arm": "full", "condition": "clean"}

STUDY = Study(
    name="sample-pruning",
    title="Which samples to train on?",
    source="Qin et al. 2024, InfoBatch (ICLR, arXiv 2303.04947); SeTa (CVPR 2025); Raju et al. "
    "2021 (arXiv 2111.12621); Xiao et al. 2024, DDP-ASR (Interspeech, arXiv 2406.18373)",
    about="A classifier of images, spoken digits or texts learns 30, 50 or 70 % of its samples in "
    "each epoch, chosen by chance or by their losses, on clean data, with copies, with rare "
    "classes, with a fifth of the labels wrong, and with wrong labels that are learnt by heart. "
    "All arms but full data take as many steps. The base is random choice without replacement "
    "across epochs: full data, stopped after as many steps. Ours is visits by the square root of "
    "the loss, with a guard against wrong labels: that of today, that of the first records, which "
    "took hard samples and rare classes for wrong, and none.",
    presets=PRESETS,
    claims=CLAIMS,
    known=[
        Known(_CLEAN | {"task": task}, level, "results/sample-pruning", chance=10.0)
        for task, level in (
            ("MLP 100-50 on digits", 96.8),
            ("MLP 300-100 on Fashion-MNIST", 89.6),
            ("MLP 100-50 on spoken digits", 63.5),
            ("MLP 50 on WordNet glosses", 71.4),
        )
    ],
    page=PAGE,
)
