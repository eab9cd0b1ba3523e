"""What is run: arms, what makes samples hard, models and data, and the sizes of the study."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import regrow
from regrow.engine.allocation import Uniform
from regrow.engine.schedules import Cosine
from regrow.lab.design import Arm, Labelled, Labels, grid
from regrow.lab.study import Preset
from regrow.studies.hard_samples.attacks import Attack
from regrow.studies.hard_samples.ranking import Ranking, Score
from regrow.studies.hard_samples.trial import HardSamples
from regrow.studies.names import in_words
from regrow.vision.hardness import Pick

__all__ = [
    "ALL",
    "ARMS",
    "ATTACKED",
    "CORE",
    "EXTRA",
    "PRESETS",
    "Condition",
    "Task",
    "hardest",
    "random",
    "severity",
]

# ---------------------------------------------------------------------- arms

UPDATES = 50  # in a run, whatever its length: the paper's 200 epochs with one every 4 epochs
_MOVES: dict[str, Any] = {"drop_fraction": Cosine(0.2, 0.001), "stop_at": 1.0}


def _static(chosen: str) -> Arm:
    return lambda density: {"method": regrow.Static(density=density), "chosen": chosen}


ARMS: dict[str, Arm] = {
    "dense": lambda: {"method": regrow.Dense()},
    "small dense": lambda density: {"method": regrow.Dense(), "narrow": density},
    "static ERK": _static("at random"),
    "SET": lambda density, every: {
        "method": regrow.SET(density=density, update_every=every, **_MOVES)
    },
    "SNIP ratios": _static("SNIP ratios"),
    "dense twice": lambda: {"method": regrow.Static(density=1.0), "chosen": "OMP"},
    "static uniform": lambda density: {
        "method": regrow.Static(density=density, allocation=Uniform())
    },
    "RigL": lambda density, every: {
        "method": regrow.RigL(density=density, update_every=every, replaces_step=False, **_MOVES)
    },
    "SNIP": _static("SNIP"),
    "GMP": lambda density, every: {
        "method": regrow.GMP(density=density, update_every=every, shrink="global")
    },
    "OMP": _static("OMP"),
    "LTH": _static("LTH"),
}
CORE = ("dense", "small dense", "static ERK", "SET", "SNIP ratios")
EXTRA = tuple(name for name in ARMS if name not in CORE)
# ---------------------------------------------------------------------- conditions


@dataclass(frozen=True)
class Condition:
    """What makes samples hard: which of them are learnt, and what was done to them.

    Args:
        share: of the training samples.
        pick: "random", or "hardest" or "easiest" by a score.
        score: by which, of :data:`~regrow.studies.hard_samples.ranking.SCORES`; "" if at random.
        severity: of the corruptions; 0: none.
        attacked: whether training is adversarial.

    Example:
        >>> str(Condition(0.5, "hardest", "el2n")), str(Condition(severity=5)), str(Condition())
        ('hardest 50 %', 'severity 5', 'all samples')
    """

    share: float = 1.0
    pick: Pick = "random"
    score: Score | Literal[""] = ""
    severity: int = 0
    attacked: bool = False

    def __str__(self) -> str:
        """Say it in two or three words."""
        said = []
        if self.pick != "random":
            by = "" if self.score == "el2n" else f" by {self.score}"
            said.append(f"{self.pick} {100 * self.share:g} %{by}")
        elif self.share < 1:
            said.append(f"random {100 * self.share:g} %")
        if self.severity:
            said.append(f"severity {self.severity}")
        if self.attacked:
            said.append("attacked")
        return ", ".join(said) or "all samples"

    @property
    def labels(self) -> Labels:
        """The condition as labels: its name, and what it is made of."""
        parts = {"share": self.share, "severity": self.severity, "attacked": self.attacked}
        return {"condition": str(self), "pick": self.pick, **parts}


ALL, ATTACKED = Condition(), Condition(attacked=True)


def hardest(share: float) -> Condition:
    """Return the hardest share by EL2N."""
    return Condition(share, "hardest", "el2n")


def random(share: float) -> Condition:
    """Return a random share."""
    return Condition(share)


def severity(number: int, share: float = 1.0) -> Condition:
    """Return corrupted images, all of them or a random share."""
    return Condition(share, severity=number)


# ---------------------------------------------------------------------- trials


@dataclass(frozen=True)
class Task:
    """How a model learns a data set, whatever the arm and the condition.

    Args:
        base: all of the trial but arm, condition and seed; its epochs are those on all samples.
        train: how many samples there are to train on.
        ranking: how they are scored.
        attack: of adversarial training.
        equal_steps: on a share of the samples train for as many steps as on all; else for as many
            epochs.
        name: of the task; else "model on data".
    """

    base: HardSamples
    train: int
    ranking: Ranking = field(default_factory=Ranking)
    attack: Attack = field(default_factory=Attack)
    equal_steps: bool = False
    name: str = ""

    def under(self, condition: Condition) -> HardSamples:
        """Return the dense trial of a condition."""
        base = self.base
        epochs = round(base.epochs / condition.share) if self.equal_steps else base.epochs
        return replace(
            base,
            epochs=epochs,
            warmup=base.warmup * epochs / base.epochs,
            share=condition.share,
            pick=condition.pick,
            ranking=replace(self.ranking, score=condition.score) if condition.score else None,
            severity=condition.severity,
            attack=self.attack if condition.attacked else None,
        )

    def trials(
        self,
        seeds: int,
        conditions: Sequence[Condition],
        densities: Sequence[float],
        arms: Sequence[str] = CORE,
    ) -> Iterator[Labelled]:
        """Run every arm at every density under every condition, with all seeds."""
        task = in_words(self.name or f"{self.base.model} on {self.base.data}")
        for condition in conditions:
            base = self.under(condition)
            steps = base.epochs * (max(round(base.share * self.train), 1) // base.batch)
            yield from grid(
                base,
                {name: ARMS[name] for name in arms},
                seeds=seeds,
                labels={"task": task, **condition.labels},
                given={"every": max(steps // UPDATES, 1)},
                density=densities,
            )


def _base(**fields: Any) -> HardSamples:
    return HardSamples(seed=0, method=regrow.Dense(), **fields)


_FAST = Attack(steps=3, step=4 / 255)
_DIGITS = Task(
    _base(data="digits", model="mlp-300-100", epochs=12, batch=64, learning_rate=0.1),
    898,
    Ranking(runs=2, epochs=4),
    _FAST,
    equal_steps=True,
)
# 400,000 to 500,000 samples a run. Rate, batch and decay are the paper's for the residual network,
# which has no time to recover from a start at the full rate: it warms up for an epoch. Nothing was
# tuned on test images.
_FASHION = Task(
    _base(data="fashion-mnist", model="mlp-300-100", learning_rate=0.05, epochs=8),
    60_000,
    Ranking(runs=5, epochs=2),
    _FAST,
    equal_steps=True,
)
_CIFAR = Task(
    _base(
        data="cifar10",
        model="resnet18",
        epochs=8,
        precision="bfloat16",
        schedule="cosine",
        warmup=1.0,
    ),
    50_000,
    Ranking(runs=5, epochs=3),
    _FAST,
    equal_steps=True,
)


def _smoke() -> Iterator[Labelled]:
    conditions = (hardest(0.5), random(0.5), random(0.2), severity(2), severity(5))
    yield from _DIGITS.trials(3, conditions, (0.5, 0.2))
    yield from _DIGITS.trials(3, [hardest(0.5)], (0.2,), EXTRA)
    yield from _DIGITS.trials(3, [ATTACKED], (0.1,))


def _quick(task: Task) -> Iterator[Labelled]:
    shares = (hardest(0.5), random(0.5), hardest(0.3), random(0.3), random(0.2), ALL)
    under_attack = (*CORE, "dense twice", "RigL", "OMP")
    yield from task.trials(5, shares, (0.5, 0.2, 0.1))
    yield from task.trials(5, [severity(5), severity(2), severity(4)], (0.5, 0.1))
    yield from task.trials(5, [ATTACKED], (0.1,), under_attack)
    yield from task.trials(5, [hardest(0.5)], (0.2, 0.1), EXTRA)


_TENTHS = tuple(round(0.1 * n, 1) for n in range(1, 10))
_INTRINSIC = (hardest(0.5), hardest(0.3), *map(random, _TENTHS), ALL)
_CORRUPTED = tuple(severity(n, share) for n in (5, 4, 2) for share in (1.0, 0.3))
_ADVERSARIAL = (ATTACKED, Condition(0.5, attacked=True))


def _paper(data: str) -> Iterator[Labelled]:
    """Yield the paper's grid, without its VGG-19, and without severity 6, which does not exist."""
    model, train = {"cifar100": ("resnet18", 50_000), "tiny-imagenet": ("resnet34", 100_000)}.get(
        data, ("vgg16", 50_000)
    )
    base = _base(data=data, model=model, epochs=200)
    name = f"{model} on {data}, 200 epochs"
    every, densities = tuple(ARMS), tuple(reversed(_TENTHS))
    if data != "cifar10":
        task = Task(base, train, name=name)
        yield from task.trials(3, (*_INTRINSIC, *_CORRUPTED), densities, every)
    if data != "tiny-imagenet":
        task = Task(replace(base, validation=0.1), 45_000, name=f"{name}, validation")
        yield from task.trials(3, _ADVERSARIAL, (0.1, 0.2), every)


PRESETS = {
    "smoke": Preset("a minute on two CPU cores (digits)", {"digits": _smoke}, judges=False),
    "quick": Preset(
        "with --data fashion-mnist two hours on two CPU cores (14 seconds a run, 50 if attacked); "
        "with --data cifar10 two hours on an H100, --jobs 7",
        {"fashion-mnist": partial(_quick, _FASHION), "cifar10": partial(_quick, _CIFAR)},
        default="fashion-mnist",
    ),
    "paper": Preset(
        "GPU months: as in the paper, on its own data",
        {data: partial(_paper, data) for data in ("cifar10", "cifar100", "tiny-imagenet")},
    ),
}
