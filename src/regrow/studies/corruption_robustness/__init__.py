"""Dynamic sparse training and image corruption: is it more robust than dense training?"""

from collections.abc import Sequence

from regrow.lab.records import Records
from regrow.lab.report import Section
from regrow.lab.study import Study
from regrow.studies.corruption_robustness.claims import CLAIMS
from regrow.studies.corruption_robustness.presets import PRESETS

__all__ = ["STUDY"]


def _sections(records: Records) -> Sequence[Section]:
    from regrow.studies.corruption_robustness.page import sections  # noqa: PLC0415 (matplotlib is slow)

    return sections(records)


STUDY = Study(
    name="corruption-robustness",
    title="Dynamic sparse training under image corruption",
    source="Wu et al. 2025, Dynamic Sparse Training versus Dense Training: The Unexpected Winner "
    "in Image Corruption Robustness (ICLR, arXiv 2410.03030)",
    about="Networks are trained on clean images and tested under fifteen corruptions of five "
    "severities. The paper reports that dynamic sparse training beats dense training there at low "
    "sparsity. It shows no clean accuracy, no static topology, no dense network of equal size and "
    "no error bars: this study has them. All methods drop by magnitude, as in the paper; GraNet "
    "starts at density 0.8 (at 1 for higher targets), MEST trains with a tenth more weights than "
    "it keeps. Differs from the paper: runs of the quick preset are 6 to 12 epochs long instead of "
    "200, with 50 updates; corruptions are made by regrow.vision.corruptions from the test images "
    "unless the published sets are asked for.",
    presets=PRESETS,
    claims=CLAIMS,
    sections=_sections,
)
