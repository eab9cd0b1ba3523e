"""Are sparse networks better at hard samples: hard in themselves, corrupted, attacked, or few?"""

from collections.abc import Sequence

from regrow.lab.records import Records
from regrow.lab.report import Section
from regrow.lab.study import Study
from regrow.studies.hard_samples.claims import CLAIMS
from regrow.studies.hard_samples.presets import PRESETS

__all__ = ["STUDY"]


def _sections(records: Records) -> Sequence[Section]:
    from regrow.studies.hard_samples.page import sections  # noqa: PLC0415 (matplotlib is slow)

    return sections(records)


_ABOUT = (
    "Sparse networks, moving and static, beside dense ones, on samples that are hard: the hardest "
    "by EL2N, few of them, corrupted ones, attacked ones. Controls: random shares of the same "
    "size, a static random topology, dense networks with as many parameters, clean accuracy. "
    "Differs from the paper: scores are means over several dense runs; each image is corrupted by "
    "one of 15 corruptions, drawn once, for training as for testing; SNIP is taken of the network "
    "as it was initialised and of its cross-entropy, and its own mask is run beside the random one "
    "with its layer densities (SNIP ratios), which the paper's code calls SNIP; topologies move 50 "
    "times a run, whatever its length; counts are exact, and optimizer state of grown weights "
    "starts at zero. The lottery ticket (LTH) and one-shot pruning (OMP) train a dense network "
    "first, in the same setting and as long: their runs take twice the others' steps, and a dense "
    "network that goes on as OMP does (dense twice) is their control. The quick "
    "preset trains on 400,000 samples a run instead of 10 million, with 3 steps of attack instead "
    "of 10; on CIFAR-10 it warms up for an epoch, and the rate falls along a cosine, not in steps."
)

STUDY = Study(
    name="hard-samples",
    title="Are sparse networks better at hard samples?",
    source="Xiao, Wu, Yin, Gadzinski, Huang, Pechenizkiy & Mocanu 2024, Are Sparse Neural Networks "
    "Better Hard Sample Learners? (BMVC, arXiv 2409.09196)",
    about=_ABOUT,
    presets=PRESETS,
    claims=CLAIMS,
    sections=_sections,
)
