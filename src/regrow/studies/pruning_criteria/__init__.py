"""Where to prune in dynamic sparse training: which weights to drop, and does it matter?"""

from collections.abc import Sequence

from regrow.lab.records import Records
from regrow.lab.report import Section
from regrow.lab.study import Study
from regrow.studies.pruning_criteria.claims import CLAIMS
from regrow.studies.pruning_criteria.presets import PRESETS

__all__ = ["STUDY"]


def _sections(records: Records) -> Sequence[Section]:
    from regrow.studies.pruning_criteria.page import sections  # noqa: PLC0415 (matplotlib is slow)

    return sections(records)


STUDY = Study(
    name="pruning-criteria",
    title="Where to prune in dynamic sparse training",
    source="Nowak, Grooten, Mocanu & Tabor 2023, Fantastic Weights and How to Find Them "
    "(NeurIPS, arXiv 2306.12230)",
    about="Dynamic sparse training drops weights and grows others. Does it matter which it drops? "
    "Five criteria of the paper with both growth rules, beside dropping at random, a static random "
    "topology, dense networks with as many parameters, the dense network, and the sign rule that "
    "public code ships as SET's. Differs from the paper: counts are exact where its code draws "
    "them at random; optimizer state of grown weights starts at zero; updates follow the optimizer "
    "step for every criterion; a weight that is dropped and grown in one update keeps its value; "
    "the quick preset trains for 8 to 12 epochs instead of 100 to 200, with as many updates.",
    presets=PRESETS,
    claims=CLAIMS,
    sections=_sections,
)
