"""What is run: criteria, what the data are like, and the sizes of the study."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import regrow
from regrow.lab.design import Arm, Labelled, grid
from regrow.lab.study import Preset
from regrow.samples import (
    UCB,
    Coverage,
    Criterion,
    Cyclic,
    Easy,
    EasyToHard,
    EpsilonGreedy,
    Forgetting,
    Hard,
    InfoBatch,
    Random,
    RootLoss,
    SeTa,
    Stratified,
)
from regrow.studies.names import in_words
from regrow.studies.sample_pruning.trial import PruneSamples

__all__ = ["ARMS", "BY_HEART", "CONDITIONS", "CORE", "FIRST", "KEEPS", "PRESETS", "SPARED", "Task"]


def _arm(criterion: Criterion, **more: Any) -> Arm:
    return lambda keep: {"criterion": criterion, "keep": keep, **more}


FIRST = "ours, first guard"
ARMS: dict[str, Arm] = {
    "full": lambda: {"criterion": Cyclic(), "keep": 1.0},
    "cyclic": _arm(Cyclic()),
    "ours": _arm(RootLoss()),
    "InfoBatch": _arm(InfoBatch(normalise=True)),
    "InfoBatch raw": _arm(InfoBatch()),
    "SeTa": _arm(SeTa()),
    "UCB": _arm(UCB()),
    "epsilon-greedy": _arm(EpsilonGreedy(0.5)),
    "hard": _arm(Hard()),
    "easy to hard": _arm(EasyToHard()),
    "random": _arm(Random()),
    "random once": _arm(Random(), every=None),
    "coverage": _arm(Coverage()),
    "by class": _arm(Stratified("class", Cyclic())),
    "forgetting": _arm(Forgetting()),
    "easy": _arm(Easy()),
    "ours, no guard": _arm(RootLoss(guard=False)),
    # The rule of the first records, and its weights: what these were run with.
    FIRST: _arm(RootLoss(guard=True)),
    "ours, weighted": _arm(RootLoss(guard=True, weighted=True)),
}
SPARED: dict[str, Arm] = {"spared": _arm(Cyclic(), spared=True)}
CORE = (*tuple(ARMS)[:12], "ours, no guard", FIRST)
KEEPS = (0.3, 0.5, 0.7)
CONDITIONS = ("clean", "copies", "imbalanced", "wrong")
BY_HEART = "wrong, by heart"
_FEW = ("cyclic", "ours", "hard", "ours, no guard")


@dataclass(frozen=True)
class Task:
    """How a model learns a data set, whatever is chosen.

    Args:
        base: all of the trial but criterion, share, condition and seed.
        by_heart: what is other where wrong labels are learnt by heart: fewer samples, more epochs.
    """

    base: PruneSamples
    by_heart: dict[str, Any]

    def trials(
        self,
        seeds: int,
        conditions: Sequence[str],
        keeps: Sequence[float],
        arms: Sequence[str],
    ) -> Iterator[Labelled]:
        """Run every arm at every share under every condition, with all seeds."""
        for condition in conditions:
            base = self.under(condition)
            labels = {"task": in_words(f"{base.model} on {base.data}"), "condition": condition}
            here = {name: ARMS[name] for name in arms}
            if condition not in ("clean", "imbalanced"):
                here |= SPARED
            # Raw weights grow with what is left out, and training with them diverges.
            raw = {"InfoBatch raw": here.pop("InfoBatch raw")} if "InfoBatch raw" in here else {}
            yield from grid(base, here, seeds=seeds, labels=labels, keep=keeps)
            if raw:
                yield from grid(base, raw, seeds=seeds, labels=labels, keep=(max(keeps),))

    def under(self, condition: str) -> PruneSamples:
        """Return the trial of a condition."""
        if condition == BY_HEART:
            return replace(self.base, condition="wrong", **self.by_heart)
        return replace(self.base, condition=condition)  # type: ignore[arg-type]


def _base(**fields: Any) -> PruneSamples:
    common: dict[str, Any] = {"seed": 0, "method": regrow.Dense(), "schedule": "cosine"}
    common |= {"validation": 0.1}  # for nested validation
    return PruneSamples(criterion=Cyclic(), keep=1.0, **common | fields)


# Rates are those of the hard-samples study; nothing was tuned on test images.
_DIGITS = Task(
    _base(data="digits", model="mlp-100-50", epochs=20, batch=32, augment=False),
    {"epochs": 60},
)
_FASHION = Task(
    _base(
        data="fashion-mnist",
        model="mlp-300-100",
        learning_rate=0.05,
        epochs=12,
        warmup=0.5,
        augment=False,
    ),
    {"samples": 5000, "epochs": 60, "warmup": 2.0},
)
# Of 0.01, 0.02 and 0.05 the rate at which full data were best on validation samples, with seed 0.
# They have learnt if full data reach 60 % on test samples in the mean; else nothing is to be read.
_SPEECH = Task(
    _base(
        data="spoken-digits",
        model="mlp-100-50",
        learning_rate=0.02,
        epochs=20,
        batch=32,
        warmup=1.0,
        augment=False,
    ),
    {"epochs": 60},
)
_TEXT = Task(
    _base(data="wordnet", model="mlp-50", learning_rate=0.01, epochs=6, warmup=0.5, augment=False),
    {"samples": 5000, "epochs": 40, "warmup": 2.0},
)
_CIFAR = Task(
    _base(data="cifar10", model="resnet18", epochs=20, precision="bfloat16", warmup=1.0),
    {"samples": 10_000, "epochs": 60, "warmup": 2.0, "augment": False},
)


def _smoke() -> Iterator[Labelled]:
    short = Task(replace(_DIGITS.base, epochs=6), {"samples": 300, "epochs": 15})
    yield from short.trials(3, ("clean",), (0.7,), tuple(ARMS))
    yield from short.trials(3, ("wrong", BY_HEART), (0.7,), _FEW)
    yield from short.trials(3, ("copies", "imbalanced"), (0.7,), _FEW[:2])


def _small(task: Task) -> Iterator[Labelled]:
    yield from task.trials(5, ("clean",), KEEPS, tuple(ARMS))
    yield from task.trials(5, (*CONDITIONS[1:], BY_HEART), KEEPS, CORE)


def _cifar() -> Iterator[Labelled]:
    yield from _CIFAR.trials(3, ("clean",), KEEPS, CORE)
    yield from _CIFAR.trials(3, ("copies", "imbalanced", "wrong"), (0.5,), _FEW)


def _paper() -> Iterator[Labelled]:
    base = replace(_CIFAR.base, epochs=200, warmup=5.0)
    full = replace(_CIFAR, base=base)
    yield from full.trials(3, CONDITIONS, KEEPS, tuple(ARMS))
    yield from full.trials(3, (BY_HEART,), KEEPS, CORE)


PRESETS = {
    "smoke": Preset("a minute on two CPU cores (digits)", {"digits": _smoke}, judges=False),
    "quick": Preset(
        "two million steps of a perceptron: on an H200 with --jobs 16 about eight minutes (not "
        "measured); with --data digits, spoken-digits or wordnet half an hour to an hour on a CPU "
        "core; with --data cifar10 half a million steps of ResNet-18: on an H200 an hour (not "
        "measured)",
        {
            "fashion-mnist": partial(_small, _FASHION),
            "digits": partial(_small, _DIGITS),
            "spoken-digits": partial(_small, _SPEECH),
            "wordnet": partial(_small, _TEXT),
            "cifar10": _cifar,
        },
        default="fashion-mnist",
    ),
    "paper": Preset("GPU weeks: 200 epochs on CIFAR-10", {"cifar10": _paper}),
}
