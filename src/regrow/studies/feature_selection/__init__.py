"""Feature selection with sparse networks: are they better than what is at hand?"""

from collections.abc import Sequence

from regrow.lab.records import Records
from regrow.lab.report import Section
from regrow.lab.study import Study
from regrow.studies.feature_selection.claims import CLAIMS
from regrow.studies.feature_selection.presets import PRESETS

__all__ = ["STUDY"]


def _sections(records: Records) -> Sequence[Section]:
    from regrow.studies.feature_selection.page import sections  # noqa: PLC0415 (matplotlib is slow)

    return sections(records)


STUDY = Study(
    name="feature-selection",
    title="Feature selection with sparse neural networks",
    source="Atashgahi et al. 2024, Unveiling the Power of Sparse Neural Networks for Feature "
    "Selection (ECAI, arXiv 2408.04583)",
    about="A selector sees a training part and names K features; a classifier then learns from "
    "these alone, and its accuracy on the test part is what they are worth. The paper compares "
    "sparse networks with dense ones, LassoNet and STG; it shows no filter, no trees, no random "
    "choice, and one split of each data set. This study has them: stratified 70/30 splits, "
    "standardised by the training part, three classifiers, and the paper's own protocol. Differs "
    "from the papers: in the quick preset the family trains for 30 epochs instead of 100 or 200, "
    "scores every fifth step, and takes density 0.2 for all data where the paper chose one for "
    "each; LassoNet follows a path of factor 1.1, STG trains for 300 epochs with one penalty, "
    "Boruta grows 20 forests of 200 trees.",
    presets=PRESETS,
    claims=CLAIMS,
    sections=_sections,
)
