"""Continual learning with dynamic sparse training: a sparse network a task, nothing forgotten."""

from collections.abc import Sequence

from regrow.lab.records import Records
from regrow.lab.report import Section
from regrow.lab.study import Study
from regrow.studies.continual_dst.claims import CLAIMS
from regrow.studies.continual_dst.presets import PRESETS

__all__ = ["STUDY"]


def _sections(records: Records) -> Sequence[Section]:
    from regrow.studies.continual_dst.page import sections  # noqa: PLC0415 (matplotlib is slow)

    return sections(records)


STUDY = Study(
    name="continual-dst",
    title="Continual learning with dynamic sparse training",
    source="Yildirim et al. 2024, Continual Learning with Dynamic Sparse Training: Exploring "
    "Algorithms for Effective Model Updates (CPAL)",
    about="Tasks come one after another. Each finds a sparse network inside one store of weights "
    "by dynamic sparse training; weights of earlier tasks are read and never changed. How "
    "should density be shared among layers, how should connections grow, and is it worth "
    "moving them? Beside it: naive fine-tuning, EWC, replay, joint training, independent "
    "networks (dense, as small as the store allows, and as sparse), PackNet, and rules in "
    "the manner of SpaceNet and NISPA. Task-incremental: the task is named at test, and its "
    "own logits alone are compared. ACC: mean accuracy after the last task. BWT: what later "
    "tasks changed. FWT: accuracy right after learning, less that of a dense network that "
    "learnt the task alone. Differs from the paper: weights that are new to a task start at "
    "fresh values, not at zero; a frozen weight that is dropped and regrown has its own "
    "value; test images are not augmented; heads, biases and norms belong to tasks; runs of "
    "the quick preset have a few epochs a task instead of 25 to 100, with 20 updates.",
    presets=PRESETS,
    claims=CLAIMS,
    sections=_sections,
)
