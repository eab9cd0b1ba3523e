"""Does sparsity help to learn from preferences, when most of what is seen is noise?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from regrow.lab import charts
from regrow.lab.claims import Answer
from regrow.lab.design import Arm, Labelled, grid
from regrow.lab.effects import HIGHEST, Effect, Measure, gain, level
from regrow.lab.learnt import Known
from regrow.lab.rules import claim, each, gated
from regrow.lab.section import Section, Table, bracketed, estimate
from regrow.lab.study import Preset, Study
from regrow.lab.tasks import interquartile_interval, probability_of_improvement
from regrow.lab.view import View
from regrow.studies.control.measures import (
    ATTENTION,
    CORRELATION,
    RATIO,
    REAL,
    RETURN,
    TENTHS,
    Weighted,
    looked_at,
    tenth,
)  # fmt: skip
from regrow.studies.control.together import train_together
from regrow.studies.control.trial import LearnFromPreferences
from regrow.studies.names import in_words

__all__ = ["STUDY"]

NOISE, MOST = (0.7, 0.9, 0.95), 0.95
HIGH = (0.9, 0.95)
WHITE, SLOW = "white noise", "slow noise"
MARGIN = 25.0  # of a return of at most 1000: what matters


def _arm(method: str, **fields: Any) -> Arm:
    return lambda noise: {"method": method, "noise": noise, **fields}


NOISE_FREE: dict[str, Arm] = {
    "no noise": lambda: {"method": "pebble", "noise": 0.0},
    "no noise, true reward": lambda: {"method": "pebble", "noise": 0.0, "reward": "true"},
}
RIVALS = {
    "PEBBLE": _arm("pebble"),
    "SURF": _arm("surf"),
    "RUNE": _arm("rune"),
    "MRN": _arm("mrn"),
}
SPARSE = {
    "static": _arm("static"),
    "R2N": _arm("r2n"),
    "R2N, fast": _arm("r2n-fast"),
    "RigL": _arm("r2n-rigl"),
    "R2N, reward model only": _arm("r2n-reward"),
    "R2N, actor and critic only": _arm("r2n-agent"),
    "group lasso": _arm("group-lasso"),
    "autocorrelation filter": _arm("autocorrelation"),
    "moved features": _arm("moved"),
    "elimination": _arm("elimination"),
    "elimination, fixed keep": _arm("elimination-fixed"),
}
ORACLES = {
    "oracle": _arm("oracle"),
    "oracle, reward model only": _arm("oracle-reward"),
    "oracle, actor and critic only": _arm("oracle-agent"),
}
_TRUE = {
    "PEBBLE": "pebble",
    "static": "static",
    "R2N": "r2n",
    "moved features": "moved",
    "elimination": "elimination",
    "elimination, fixed keep": "elimination-fixed",
    "oracle": "oracle",
}
TRUE: dict[str, Arm] = {
    f"{name}, true reward": _arm(method, reward="true") for name, method in _TRUE.items()
}
# The distance to other states, which these steps are rewarded by, is that of noise: a control.
UNSUPERVISED = {"PEBBLE, unsupervised steps": _arm("pebble", unsupervised_steps=2_000)}
NOISY: Mapping[str, Arm] = {**RIVALS, **SPARSE, **ORACLES, **TRUE}
_FEW = {
    name: NOISY[name]
    for name in (
        "PEBBLE", "static", "R2N", "autocorrelation filter", "moved features", "elimination",
        "elimination, fixed keep", "oracle",
    )
}  # fmt: skip


def _trials(
    arms: Mapping[str, Arm], noise: Sequence[float], seeds: int, **setting: Any
) -> Iterator[Labelled]:
    """Cross arms with shares of noise; a few of them among noise that follows on itself, too."""
    base = LearnFromPreferences(seed=0, **setting)
    slow = replace(base, noise_kind="autoregressive")
    few = {name: arm for name, arm in arms.items() if name in _FEW}
    for here, own, kind in ((base, arms, WHITE), (slow, few, SLOW)):
        labels = {"task": in_words(base.task), "kind": kind}
        yield from grid(here, own, seeds=seeds, labels=labels, noise=tuple(noise))
        yield from grid(base, NOISE_FREE, seeds=seeds, labels=labels)


def _quick(**setting: Any) -> Iterator[Labelled]:
    yield from _trials(NOISY, NOISE, 10, **setting)
    base = LearnFromPreferences(seed=0, **setting)
    labels = {"task": in_words(base.task), "kind": WHITE}
    yield from grid(base, UNSUPERVISED, seeds=10, labels=labels, noise=(MOST,))


_SMALL = {
    "steps": 600, "seed_steps": 200, "batch": 32, "width": 32, "reward_width": 16, "segment": 10,
    "queries": 10, "feedbacks": 4, "feedback_every": 100, "reward_steps": 30, "update_every": 50,
    "score_every": 20, "eliminate_every": 50, "episodes": 1,
}  # fmt: skip
# The walker's budget is a guess: nothing was tuned on it.
_WALKER = {"steps": 100_000, "feedbacks": 20, "feedback_every": 4_000, "recent": 50_000}
# B-Pref's sizes and budgets, those of its walker where it has none; of R2N none are known.
_LONG = {
    "steps": 500_000, "hold": 1, "unsupervised_steps": 9_000, "batch": 1024, "width": 1024,
    "learning_rate": 5e-4, "temperature_rate": 1e-4, "target_rate": 0.005, "reward_width": 256,
    "reward_batch": 128, "reward_rate": 3e-4, "segment": 50, "queries": 50, "feedbacks": 10,
    "feedback_every": 20_000, "recent": 100_000, "query": "disagreement", "crop": 5,
    "episodes": 10,
}  # fmt: skip
_QUADRUPED = {
    "steps": 1_000_000, "learning_rate": 1e-4, "queries": 200, "feedback_every": 30_000,
}  # fmt: skip
# What actions move is looked for after 5,000 steps: a shorter run would be PEBBLE by another name.
_SOON = {name: arm for name, arm in _FEW.items() if name != "moved features"}
PRESETS = {
    "smoke": Preset(
        "a minute",
        {"point-mass": partial(_trials, _SOON, HIGH, 3, task="point-mass", **_SMALL)},
        judges=False,
    ),
    "quick": Preset(
        "15 minutes on an H200 for cartpole-swingup; the walker an hour, an estimate",
        {
            "cartpole-swingup": partial(_quick, task="cartpole-swingup"),
            "walker-walk": partial(_trials, _FEW, HIGH, 10, task="walker-walk", **_WALKER),
        },
        default="cartpole-swingup",
    ),
    "paper": Preset(
        "weeks on an H200, an estimate",
        {
            "cartpole-swingup": partial(
                _trials, NOISY, NOISE, 10, task="cartpole-swingup", **_LONG
            ),
            "walker-walk": partial(_trials, NOISY, NOISE, 10, task="walker-walk", **_LONG),
            "cheetah-run": partial(_trials, NOISY, NOISE, 10, task="cheetah-run", **_LONG),
            "quadruped-walk": partial(
                _trials, NOISY, NOISE, 10, task="quadruped-walk", **_LONG | _QUADRUPED
            ),
        },
    ),
}

_PAPER = "R2N (AAMAS 2025, arXiv 2406.06495), abstract"
_CONTROL = "a control of ours"
_OURS = "a variant of ours: whole features leave all networks"
_MOVED = "a variant of ours: what actions move stays"


def at_most(one: str, over: str, kind: str = WHITE) -> Effect:
    """Ask what one arm gains over another where noise is most, 90 and 95 %, mean of both."""
    return gain(one, over, RETURN, noise=HIGH, kind=kind)


def _short_of(one: str, whole: str, share: float) -> Effect:
    """Ask by how much an arm at most noise is above another without, less a share of that."""
    ours, theirs = level(one, RETURN, noise=MOST, kind=WHITE), level(whole, RETURN, kind=WHITE)
    words = f"{one} (noise {MOST}) less {1 - share:.0%} of {whole}"
    return Weighted(RETURN, [(1.0, ours), (share - 1, theirs)], words)


def _gap(kind: str, arm: str = "elimination") -> Effect:
    """Ask by how much an arm is above PEBBLE and three quarters of the gap to no noise."""
    ours, base = (level(one, RETURN, noise=MOST, kind=kind) for one in (arm, "PEBBLE"))
    free = level("no noise", RETURN, kind=kind)
    words = f"{arm} less PEBBLE less 75% of the gap from PEBBLE to no noise (noise {MOST})"
    return Weighted(RETURN, [(1.0, ours), (-0.25, base), (-0.75, free)], words)


RECIPE = claim(
    "PEBBLE learns where there is no noise: a return of 700 (else nothing here judges anything).",
    _CONTROL,
    level("no noise", RETURN, kind=WHITE),
    above=700,
)
CLAIMS = gated(
    RECIPE,
    claim("R2N beats other algorithms at 90 and 95 % noise.", _PAPER,
          each(RIVALS, partial(at_most, "R2N")), above=0,
          answer=Answer("among 90 and 95 % noise R2N is above the other algorithms",
                        "among 90 and 95 % noise R2N is not above the other algorithms")),
    claim("Sparsity alone helps: static over PEBBLE.", _CONTROL,
          at_most("static", "PEBBLE"), above=0,
          answer=Answer("static sparsity alone helps", "static sparsity alone does not help")),
    claim("Moving connections helps: R2N over static.", _PAPER, at_most("R2N", "static"), above=0,
          answer=Answer("moving connections help", "moving connections do not help")),
    claim("Both parts count: the reward model's sparsity, and that of actor and critic.", _CONTROL,
          each(("R2N, reward model only", "R2N, actor and critic only"), partial(at_most, "R2N")),
          above=0),
    claim("R2N loses nothing to the true features.", _CONTROL,
          at_most("R2N", "oracle"), above=-MARGIN),
    claim("Eliminating whole features beats R2N, among slow noise, too.", _OURS,
          each((WHITE, SLOW), partial(at_most, "elimination", "R2N")), above=0),
    claim("Reading what actions move beats R2N, among slow noise, too.", _MOVED,
          each((WHITE, SLOW), partial(at_most, "moved features", "R2N")), above=0),
    claim("Reading what actions move beats eliminating, among slow noise, too.", _MOVED,
          each((WHITE, SLOW), partial(at_most, "moved features", "elimination")), above=0),
    claim("Reading what actions move closes 75 % of the gap between PEBBLE and no noise, at 95 % "
          "noise, among slow noise, too.", _MOVED,
          each((WHITE, SLOW), partial(_gap, arm="moved features")), above=0,
          answer=Answer("reading what actions move closes 75 % of the gap to no noise",
                        "reading what actions move does not close 75 % of the gap to no noise")),
    claim("Reading what actions move at 95 % noise is within 5 % of no noise.", _MOVED,
          _short_of("moved features", "no noise", 0.05), above=0),
    claim("Under the true reward elimination at 95 % noise is within 5 % of no noise.", _OURS,
          _short_of("elimination, true reward", "no noise, true reward", 0.05), above=0),
    claim("From comparisons elimination closes 75 % of the gap between PEBBLE and no noise, at "
          "95 % noise, among slow noise, too.", _OURS, each((WHITE, SLOW), _gap), above=0),
    claim("A keep chosen by the data is no worse than a fixed one, of a fifth.", _OURS,
          each((WHITE, SLOW), partial(at_most, "elimination", "elimination, fixed keep")),
          above=-MARGIN),
    claim("R2N's connections move to real features.", _PAPER,
          level("R2N", RATIO, noise=HIGH, kind=WHITE), above=1),
)  # fmt: skip


def _parts(view: View) -> dict[str, View]:
    """Part records by task and kind of noise."""
    return {
        f"{task}, {kind}": part
        for task, here in view.by("task").items()
        for kind, part in here.by("kind").items()
    }


def returns(view: View) -> Iterator[Section]:
    """Draw late returns by the share of noise, a panel a task and kind of noise."""
    parts = _parts(view)
    free = {
        name: charts.rows_of(here, {arm: level(arm, RETURN) for arm in NOISE_FREE})
        for name, here in parts.items()
    }
    more = (arm for arm in (*RIVALS, *SPARSE) if arm not in _FEW)
    for names, title in (
        ((*_FEW, *more), "Late return, learned reward"),
        (tuple(TRUE), "Late return, true reward"),
    ):
        panels = {
            name: charts.curves_of(
                here, lambda arm, n: level(arm, RETURN, noise=n), names, here.axis("noise")
            )
            for name, here in parts.items()
        }
        yield from charts.curves(
            title,
            "The mean of a run's last ten training episodes; black: without noise.",
            panels,
            x="share of noise",
            y="return",
            levels=free,
            colours=charts.palette(names),
        )


_SHOWN = ("PEBBLE", "static", "R2N", "elimination", "moved features", "oracle")


def _over_time(measure: Callable[[int], Measure]) -> Callable[[Any, Any], Effect]:
    return lambda arm, number: level(arm, measure(int(number)), noise=HIGHEST)


def learning(view: View) -> Iterator[Section]:
    """Draw returns, attention and learned rewards over the training, where noise is most."""
    parts = {name: here for name, here in _parts(view).items() if here.axis("noise")}
    for title, text, measure, y, limits in (
        ("Learning among the most noise", "Mean returns of each tenth of the training.", tenth,
         "return", (0.0, None)),
        ("What critics attend to", "The share of real features in what moves critics' outputs.",
         partial(looked_at, ATTENTION), "share", (0.0, 1.02)),
        ("Learned rewards", "How they correlate with the true ones on the latest 2,500 steps.",
         partial(looked_at, CORRELATION), "correlation", (-1.02, 1.02)),
        ("Connections of a real feature", "Of critics' first layers, by feature.",
         partial(looked_at, "critic_real_connections"), "connections", (0.0, None)),
        ("Connections of a noise feature", "Of critics' first layers, by feature.",
         partial(looked_at, "critic_noise_connections"), "connections", (0.0, None)),
    ):  # fmt: skip
        panels = {
            name: charts.curves_of(here, _over_time(measure), _SHOWN, TENTHS)
            for name, here in parts.items()
        }
        colours = charts.palette(_SHOWN)
        yield from charts.curves(
            title, text, panels, x="tenth of the training", y=y, colours=colours, limits=limits
        )


def worth(view: View) -> Iterator[Section]:
    """Draw what each arm gains over PEBBLE at 90 and 95 % noise."""
    arms = [arm for arm in NOISY if arm != "PEBBLE" and arm not in TRUE]
    effects = {arm: gain(arm, "PEBBLE", RETURN, noise=HIGH) for arm in arms}
    text = "Over PEBBLE at 90 and 95 % noise, paired by seed, mean of both."
    panels = {name: charts.rows_of(here, effects) for name, here in _parts(view).items()}
    yield from charts.rows("What each arm is worth", text, panels, x="return", band=MARGIN)


def table(view: View) -> Iterator[Section]:
    """Write all returns: means, interquartile means, and how often PEBBLE is beaten."""
    head = ("arm", "noise", "late return", "interquartile mean", "P(above PEBBLE)", "real features")
    for name, here in _parts(view).items():
        places = ((a, n) for a in (*NOISY, *UNSUPERVISED) for n in here.where(arm=a).axis("noise"))
        rows = [_row(here, arm, None) for arm in NOISE_FREE]
        rows += [_row(here, arm, noise) for arm, noise in places]
        text = (
            "Means over seeds; in brackets 95 % intervals of a bootstrap of the runs. P: how often "
            "a run is above one of PEBBLE. Arms without noise are set against PEBBLE at most noise."
        )
        table = Table(head, [row for row in rows if row is not None])
        yield Section(f"All returns: {name}", text, table=table)


def _row(here: View, arm: str, noise: float | None) -> tuple[str, ...] | None:
    at = {} if noise is None else {"noise": noise}
    mine, base = here.where(arm=arm, **at), here.where(arm="PEBBLE")
    mean, real, shares = level(arm, RETURN, **at).maybe(here), mine.mean(REAL), base.axis("noise")
    if mean is None or real is None:
        return None
    values, chance = list(mine.values(RETURN).values()), ""
    if (place := noise or max(shares, default=None)) in shares:
        theirs = list(base.where(noise=place).values(RETURN).values())
        chance = bracketed(probability_of_improvement({"": values}, {"": theirs}), 2)
    middle, share = (
        interquartile_interval({"": values}),
        "none" if noise is None else f"{noise:.0%}",
    )
    return arm, share, estimate(mean), bracketed(middle, 0), chance, f"{real.mean:.1f}"


STUDY = Study(
    name="preference-noise",
    title="Does sparsity help to learn from preferences, when most of what is seen is noise?",
    source="Boosting Robustness in Preference-Based Reinforcement Learning with Dynamic Sparsity "
    "(AAMAS 2025, arXiv 2406.06495)",
    about="PEBBLE, SURF, RUNE and MRN, R2N in its parts, a group lasso, elimination of whole "
    "features, and reading what actions move, among 70 to 95 % noise features, from comparisons of "
    "a simulated teacher (500 in the quick preset). "
    "Controls: a static topology, a filter by autocorrelation, real features only, in each network "
    "and in all, the true reward, no noise, and noise that follows on itself.",
    presets=PRESETS,
    claims=CLAIMS,
    known=(
        Known(
            {"task": "cart-pole swing-up", "arm": "no noise"},
            803.0,
            "results/preference-noise",
            measure=RETURN,
        ),
    ),
    page=(partial(charts.verdicts_by_task, CLAIMS), returns, learning, worth, table),
    together=train_together,
)
