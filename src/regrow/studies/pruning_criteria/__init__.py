"""Where to prune in dynamic sparse training: which weights to drop, and does it matter?"""

from regrow.lab.study import Study
from regrow.studies.pruning_criteria.claims import CLAIMS
from regrow.studies.pruning_criteria.presets import PRESETS

__all__ = ["STUDY"]

STUDY = Study(
    name="pruning-criteria",
    title="Where to prune in dynamic sparse training",
    source="Nowak, Grooten, Mocanu & Tabor 2023, Fantastic Weights and How to Find Them "
    "(NeurIPS, arXiv 2306.12230)",
    about="",
    presets=PRESETS,
    claims=CLAIMS,
    sections=lambda records: [],
)
