"""Do masks that are learnt from reward alone hide what distracts an agent that sees?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from regrow.control.pixels.masker import Masker, multiply_adds
from regrow.lab import charts
from regrow.lab.claims import Answer
from regrow.lab.design import Arm, Labelled, grid
from regrow.lab.effects import Effect, Measure, gain, level
from regrow.lab.figures import svg
from regrow.lab.rules import claim, each, gated
from regrow.lab.section import Section, Table, bracketed, estimate
from regrow.lab.statistics import interquartile_mean
from regrow.lab.study import Preset, Study
from regrow.lab.tasks import interquartile_interval, probability_of_improvement
from regrow.lab.view import View
from regrow.studies.distraction_masks.trial import LearnFromPixels, terms

__all__ = ["STUDY"]

TASKS = (
    "cartpole-balance", "cartpole-swingup", "ball_in_cup-catch", "finger-spin", "walker-stand",
    "walker-walk",
)  # fmt: skip
CLEAN, EASY, HARD = "clean", "video_easy", "video_hard"
MODES = (CLEAN, EASY, HARD)
MARGIN = 50.0  # of a return of at most 1000: what matters
GOOD, COVERED = 700.0, 0.9  # of SAC, clean; of masks, AUC
PARAMETERS, A_THIRD = 0.25, 1 / 3  # per cent; of the multiplications of the published mask


def returned(mode: str) -> Measure:
    """Return the measure of the mean return of the last test of a mode."""

    def read(record: Any) -> float:
        return float(_of(record.result["tests"], mode)["return"])

    return Measure(f"return, {mode}", read, "of return")


def covered(mode: str) -> Measure:
    """Return the measure of how well masks tell foreground from background in a mode."""

    def read(record: Any) -> float:
        return float(_of(_of(record.result["tests"], mode), "auc"))

    return Measure(f"AUC of masks, {mode}", read, "of AUC")


def _of(values: Mapping[str, Any], name: str) -> Any:
    if name not in values:
        raise ValueError(f"it has no {name}")
    return values[name]


def _share(record: Any) -> float:
    counts = record.result["parameters"]
    mask = _of(counts, "masker")
    return float(100 * mask / (sum(counts.values()) - mask))


def _multiplications(record: Any) -> float:
    trial = record.config
    full = multiply_adds(Masker("full", filters=trial["filters"]), trial["size"])
    return float(record.result["mask_multiply_adds"]) / full


SHARE = Measure("parameters of the masker", _share, "per cent of the others")
MULTIPLICATIONS = Measure("multiplications of a mask", _multiplications, "of the published one's")


def _arm(method: str) -> Arm:
    return lambda: {"method": method}


MADI, OURS = "MaDi", "MaDi, strided"
RIVALS = ("SAC", "DrQ", "RAD", "SODA", "SVEA", "SGQN")
LEAN = {"MaDi, half": "MaDi-half", OURS: "MaDi-strided", "MaDi, shared": "MaDi-shared"}
RANDOM, TRUE = "random masks", "true foreground"
CONTROLS = {RANDOM: "mask-random", TRUE: "mask-segmentation"}
ARMS: dict[str, Arm] = {
    **{name: _arm(name) for name in (*RIVALS, MADI)},
    **{name: _arm(method) for name, method in (LEAN | CONTROLS).items()},
}
_FEW = ("SAC", "SVEA", MADI, OURS, RANDOM, TRUE)
FEW: dict[str, Arm] = {name: ARMS[name] for name in _FEW}


def _trials(
    arms: Mapping[str, Arm], tasks: Sequence[str], seeds: int, **setting: Any
) -> Iterator[Labelled]:
    for task in tasks:
        base = LearnFromPixels(seed=0, task=task, **setting)
        steps = f"{base.steps / 1000:g}k steps"
        yield from grid(base, arms, seeds=seeds, labels={"task": f"{task}, {steps}"})


_SMOKE = {
    "steps": 200, "seed_steps": 50, "size": 24, "layers": 4, "filters": 4, "projection": 16,
    "width": 32, "batch": 8, "shift": 2, "augmentation": "conv", "evaluate_every": 100,
    "episodes": 1, "test": ("moving",),
}  # fmt: skip
_RENDERED = _SMOKE | {
    "steps": 100, "size": 48, "evaluate_every": 50, "quality": "fast", "test": ("color_hard",),
}  # fmt: skip
# Nothing was tuned on these.
_QUICK = {
    "size": 64, "batch": 64, "augmentation": "overlay", "quality": "fast", "episodes": 5,
    "test": (EASY, HARD),
}  # fmt: skip
_STEPS = (10, 25, 50, 100, 200)  # thousand


def _quick(arms: Mapping[str, Arm], name: str) -> Any:
    return {
        f"{task}-{steps}k{name}": partial(
            _trials, arms, (task,), 3, steps=1000 * steps, evaluate_every=200 * steps, **_QUICK
        )
        for task in TASKS
        for steps in _STEPS
    }


PRESETS = {
    "smoke": Preset(
        "a minute; --data cartpole-swingup, which draws 48 pixels in software, as well",
        {
            "dot": partial(_trials, FEW, ("dot",), 3, **_SMOKE),
            "cartpole-swingup": partial(_trials, FEW, ("cartpole-swingup",), 1, **_RENDERED),
        },
        default="dot",
        judges=False,
    ),
    "quick": Preset(
        "on a GPU: a run of 25,000 steps some minutes, an estimate; 18 runs of a task, or with "
        "-all 36",
        _quick(FEW, "") | _quick(ARMS, "-all"),
        default="cartpole-swingup-25k",
    ),
    "paper": Preset(
        "weeks of a GPU, an estimate",
        {"six-tasks": partial(_trials, ARMS, TASKS, 5, augmentation="overlay", test=(EASY, HARD))},
    ),
}

_PAPER = "MaDi (AAMAS 2024, arXiv 2312.15339)"
_CONTROL = "a control of ours"
_OURS = "a variant of ours: a masker that costs a third"


def hard(one: str, over: str) -> Effect:
    """Ask what one arm gains over another on hard videos."""
    return gain(one, over, returned(HARD))


RECIPE = claim(
    "SAC learns clean tasks: a return of 700 of 1000 (else nothing here judges anything).",
    _CONTROL,
    level("SAC", returned(CLEAN)),
    above=GOOD,
)
CLAIMS = gated(
    RECIPE,
    claim("On hard videos MaDi is at least as good as SAC and SVEA.", _PAPER,
          each(("SAC", "SVEA"), partial(hard, MADI)), above=-MARGIN),
    claim("On hard videos MaDi is at least as good as DrQ, RAD, SODA and SGQN.", _PAPER,
          each(("DrQ", "RAD", "SODA", "SGQN"), partial(hard, MADI)), above=-MARGIN),
    claim("On easy videos MaDi is at least as good as SVEA.", _PAPER,
          gain(MADI, "SVEA", returned(EASY)), above=-MARGIN),
    claim("Masks cover distractions: an AUC of 0.9 against the true foreground.", _PAPER,
          each((CLEAN, HARD), lambda mode: level(MADI, covered(mode))), above=COVERED),
    claim("The masker has 0.2 % of the parameters.", _PAPER, level(MADI, SHARE), below=PARAMETERS),
    claim("Masks are needed: MaDi beats masks of ones, which is SVEA.", _CONTROL,
          hard(MADI, "SVEA"), above=0,
          answer=Answer("masks learnt from reward alone help on hard videos",
                        "masks learnt from reward alone do not help on hard videos")),
    claim("What is masked matters: MaDi beats random masks.", _CONTROL,
          hard(MADI, RANDOM), above=0),
    claim("MaDi is as good as the true foreground.", _CONTROL, hard(MADI, TRUE), above=-MARGIN),
    claim("A mask of a third of the multiplications is as good.", _OURS,
          {"return": hard(OURS, MADI)}, above=-MARGIN),
    claim("It takes a third of the multiplications.", _OURS,
          level(OURS, MULTIPLICATIONS), below=A_THIRD),
)  # fmt: skip


def _modes(view: View) -> tuple[str, ...]:
    """Name the modes that records have been tested in, clean first."""
    found = dict.fromkeys(mode for record in view.records for mode in record.result["tests"])
    return tuple(found)


def dots(view: View) -> Iterator[Section]:
    """Draw the return of every seed, a panel a mode, and the interquartile mean."""
    from matplotlib.figure import Figure  # noqa: PLC0415 (an extra, and slow to import)

    for task, here in view.by("task").items():
        modes, arms = _modes(here), [arm for arm in ARMS if here.where(arm=arm).records]
        if not arms:
            continue
        figure = Figure(figsize=(7.2, 1.2 + 0.28 * len(arms)))
        panels = figure.subplots(1, len(modes), sharey=True, squeeze=False)[0]
        for axes, mode in zip(panels, modes, strict=True):
            for row, arm in enumerate(arms):
                values = _values(here, arm, returned(mode))
                axes.plot(values, [row] * len(values), "C0o", alpha=0.6, markersize=5)
                if values:
                    axes.plot(interquartile_mean(values), row, "k|", markersize=14)
            axes.set(title=mode, xlabel="return", ylim=(len(arms) - 0.5, -0.5))
        panels[0].set_yticks(range(len(arms)), arms)
        ways = {terms(record.config): None for record in here.records}
        text = (
            f"A dot a seed, the last test; the line is the interquartile mean. {'; '.join(ways)}."
        )
        yield Section(f"Every seed: {task}", text, svg(figure, f"Returns of seeds, {task}"))


def _values(here: View, arm: str, measure: Measure) -> list[float]:
    try:
        return list(here.where(arm=arm).values(measure).values())
    except ValueError:  # not tested so
        return []


def worth(view: View) -> Iterator[Section]:
    """Draw what each arm gains over SVEA, by mode."""
    arms = [arm for arm in ARMS if arm != "SVEA"]
    for task, here in view.by("task").items():
        panels = {
            mode: charts.rows_of(here, {a: gain(a, "SVEA", returned(mode)) for a in arms})
            for mode in _modes(here)
        }
        text = "Over SVEA, which is MaDi with masks of ones, paired by seed."
        yield from charts.rows(
            f"What each arm is worth: {task}", text, panels, x="return", band=MARGIN
        )


def pooled(view: View) -> Iterator[Section]:
    """Write what reports of this field ask for: all tasks together, by bootstrap."""
    tasks = {str(task): here for task, here in view.by("task").items()}
    modes = _modes(view)
    head = ("arm", *(f"{mode}: {what}" for what in ("IQM", "P(above SVEA)") for mode in modes))
    rows = []
    for arm in ARMS:
        cells = [_pooled(tasks, arm, returned(mode)) for mode in modes]
        if any(map(any, cells)):
            columns = zip(*cells, strict=True)
            rows.append((arm, *(cell or "–" for column in columns for cell in column)))
    if rows:
        yield Section(
            f"Over all tasks: {', '.join(tasks)}",
            "Interquartile mean of the returns of all runs, and how likely a run is above one of "
            "SVEA's on the same task (0.5 is no difference); in brackets 95 % intervals of a "
            "bootstrap that draws runs anew inside each task. An arm that is not there on each "
            "task, or not as often, has none.",
            table=Table(head, rows),
        )


def _pooled(tasks: Mapping[str, View], arm: str, measure: Measure) -> tuple[str, str]:
    """Write interquartile mean and probability; empty where runs are missing."""
    ours, theirs = (
        {task: _values(here, name, measure) for task, here in tasks.items()}
        for name in (arm, "SVEA")
    )
    if not all(ours.values()) or len(set(map(len, ours.values()))) > 1:
        return "", ""
    middle = bracketed(interquartile_interval(ours), 0)
    if arm == "SVEA" or not all(theirs.values()):
        return middle, ""
    return middle, bracketed(probability_of_improvement(ours, theirs), 2)


def table(view: View) -> Iterator[Section]:
    """Write all returns, masks, and what masks cost."""
    for task, here in view.by("task").items():
        modes = _modes(here)
        found = [f"{mode}: {what}" for what in ("mean", "IQM", "AUC") for mode in modes]
        head = ("arm", *found, "multiplications of a mask, millions")
        rows = [_row(here, arm, modes) for arm in ARMS if here.where(arm=arm).records]
        text = "Returns of the last test, over seeds; masks against the true foreground."
        if rows:
            yield Section(f"All returns: {task}", text, table=Table(head, rows))


def _row(here: View, arm: str, modes: Sequence[str]) -> tuple[str, ...]:
    means = [estimate(level(arm, returned(mode)).maybe(here)) for mode in modes]
    values = [_values(here, arm, returned(mode)) for mode in modes]
    middles = [f"{interquartile_mean(v):.0f}" if v else "–" for v in values]
    areas = [estimate(level(arm, covered(mode)).maybe(here)) for mode in modes]
    record = here.where(arm=arm).records[0]
    count = record.result["mask_multiply_adds"]
    return arm, *means, *middles, *areas, f"{count / 1e6:.1f}" if count else "–"


STUDY = Study(
    name="distraction-masks",
    title="Do masks that are learnt from reward alone hide what distracts an agent that sees?",
    source="MaDi: Learning to Mask Distractions for Generalization in Visual Deep Reinforcement "
    "Learning (AAMAS 2024, arXiv 2312.15339)",
    about="SAC, DrQ, RAD, SODA, SVEA, SGQN and MaDi on one encoder and in one loop, and maskers of "
    "ours that cost a third. Trained on clean images, tested on videos never seen. Controls: masks "
    "of ones, which is SVEA bit for bit, random masks, and the true foreground, an upper bound.",
    presets=PRESETS,
    claims=CLAIMS,
    page=(partial(charts.verdicts_by_task, CLAIMS), dots, pooled, worth, table),
)
