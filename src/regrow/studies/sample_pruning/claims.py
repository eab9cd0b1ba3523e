"""What is claimed of choosing samples, and the rules that decide it, fixed before the runs."""

from __future__ import annotations

from typing import Any

from regrow.lab.claims import Answer
from regrow.lab.effects import EVERY, LOWEST, Effect, gain
from regrow.lab.rules import claim, each
from regrow.studies.sample_pruning.design import BY_HEART, FIRST
from regrow.studies.sample_pruning.nested import APART, NESTED

__all__ = ["CLAIMS", "MARGIN", "over_cyclic", "over_full"]

MARGIN = 0.3  # points of accuracy that matter
SHARE = 0.7  # the share at which the papers claim that nothing is lost


def over_cyclic(arm: str, condition: str = "clean", keep: Any = EVERY, **more: Any) -> Effect:
    """Ask what an arm gains over choice at random, without replacement across epochs."""
    return gain(arm, "cyclic", condition=condition, keep=keep, **more)


def over_full(arm: str, keep: float = SHARE) -> Effect:
    """Ask what a share of the steps, on chosen samples, loses to all steps on all data."""
    return gain({"arm": arm, "keep": keep}, {"arm": "full"}, condition="clean")


CLAIMS = (
    claim(
        "Visits by the square root of the loss beat choice at random, at equal steps.",
        "ours: a prototype on Fashion-MNIST at 14×14",
        {c: over_cyclic("ours", c) for c in ("clean", "copies", "imbalanced")},
        above=0,
        answer=Answer(
            "visits by the square root of the loss beat choice at random at equal steps",
            "visits by the square root of the loss do not beat choice at random at equal steps",
        ),
    ),
    claim(
        "With wrong labels they lose nothing.",
        "ours: a prototype",
        over_cyclic("ours", "wrong"),
        above=-MARGIN,
    ),
    claim(
        "Where wrong labels are learnt by heart, the guard wins over choice at random.",
        "ours: a prototype on digits (60 epochs)",
        over_cyclic("ours", BY_HEART),
        above=0,
        answer=Answer(
            "where wrong labels are learnt by heart they beat it",
            "where wrong labels are learnt by heart they do not beat it",
        ),
    ),
    claim(
        "It is the guard: without it they lose there.",
        "ours: a prototype on digits",
        gain("ours", "ours, no guard", condition=BY_HEART, keep=EVERY),
        above=0,
    ),
    NESTED,
    APART,
    claim(
        "Weights for unbiased gradients take a part of the gain away.",
        "ours: a prototype",
        gain(FIRST, "ours, weighted", condition="clean", keep=EVERY),
        above=0,
    ),
    claim(
        "InfoBatch on 70 % of the data is as good as full data.",
        "Qin et al. 2024 (abstract: lossless, 40 % saved)",
        each(("InfoBatch", "InfoBatch raw"), over_full),
        above=-MARGIN,
        note="Here without the full data at the end, which a fixed number of steps has to pay for.",
    ),
    claim(
        "SeTa on 70 % of the data is as good as full data.",
        "SeTa (CVPR 2025; abstract)",
        over_full("SeTa"),
        above=-MARGIN,
    ),
    claim(
        "So is choice at random on 70 %: what claims of losing nothing are to be held against.",
        "a control of ours",
        over_full("cyclic"),
        above=-MARGIN,
    ),
    claim(
        "InfoBatch is better than choice at random, at equal steps.",
        "a control of ours",
        over_cyclic("InfoBatch"),
        above=0,
        answer=Answer(
            "InfoBatch beats choice at random",
            "InfoBatch does not beat choice at random",
        ),
    ),
    claim(
        "SeTa is better than choice at random, at equal steps.",
        "a control of ours",
        over_cyclic("SeTa"),
        above=0,
    ),
    claim(
        "Dynamic choice at random beats a static one.",
        "Raju et al. 2021 (abstract: at aggressive rates)",
        gain("random", "random once", condition="clean", keep=LOWEST),
        above=0,
    ),
    claim(
        "UCB and epsilon-greedy beat dynamic choice at random.",
        "Raju et al. 2021 (abstract)",
        each(
            ("UCB", "epsilon-greedy"),
            lambda arm: gain(arm, "random", condition="clean", keep=EVERY),
        ),
        above=0,
    ),
    claim(
        "From easy to hard, 70 % of the data reach full data.",
        "DDP-ASR 2024 (abstract), there for speech",
        over_full("easy to hard"),
        above=-MARGIN,
    ),
    claim(
        "Only hard samples are worse than random ones where labels are wrong.",
        "a control of ours",
        over_cyclic("hard", "wrong"),
        below=0,
    ),
    claim(
        "Drawing without replacement across epochs beats drawing anew.",
        "a control of ours",
        gain("cyclic", "random", condition="clean", keep=LOWEST),
        above=0,
    ),
)
