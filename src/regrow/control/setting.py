"""What a run is: how the inputs of its networks are treated; and what all runs share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from regrow.engine.checks import check_choice

__all__ = ["METHODS", "Arm", "Inputs", "QueryKind", "Score", "Setting",
           "check_fields", "check_number"]  # fmt: skip

_SHADOWS, _FEWEST_SHADOWS = 20, 5  # of which a quantile says anything

Inputs = Literal["dense", "static", "set", "rigl", "lasso", "features", "oracle"]
Score = Literal["agreement", "rms", "autocorrelation", "moved"]
QueryKind = Literal["uniform", "disagreement", "entropy", "k-center", "k-center-disagreement",
                    "k-center-entropy"]  # fmt: skip


def check_number(where: object, name: str, low: float, high: float, *, above: bool = False) -> None:
    """Raise ValueError unless an attribute lies in a range, its ends included.

    Args:
        where: has the attribute.
        name: of it.
        low: the least.
        high: the most.
        above: whether the least itself is too little.

    Raises:
        TypeError: it is no number.
    """
    value = getattr(where, name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}={value!r}: a number is needed")
    if not low <= value <= high or (above and value == low):
        least = "above" if above else "at least"
        raise ValueError(f"{name}={value}: must be {least} {low} and at most {high}")


def check_fields(where: object, kind: type, *, zero: Sequence[str] = ()) -> None:
    """Check the fields of a dataclass: whole numbers from 1 on, other numbers above 0.

    Args:
        where: the instance.
        kind: the dataclass; fields of its subclasses are left out.
        zero: names of whole numbers that may be 0.

    Raises:
        TypeError: one is no number, or no whole one.
        ValueError: one is out of range.
    """
    for field in fields(kind):
        value = getattr(where, field.name)
        if field.type == "int" or (field.type == "int | None" and value is not None):
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{field.name}={value!r}: a whole number is needed")
            check_number(where, field.name, 0 if field.name in zero else 1, 10**9)
        elif field.type == "float":
            check_number(where, field.name, 0.0, 1e9, above=True)


@dataclass(frozen=True, kw_only=True)
class Arm:
    """How the inputs of one run's networks are treated, and what the run learns from.

    Args:
        reward_model: of the reward model's inputs: all are read ("dense"); a random share of the
            weights is there, for ever ("static"), or exchanged as SET ("set") or RigL ("rigl") do;
            the weights of a feature are shrunk together ("lasso"); whole features leave all
            networks ("features"); or only real features are read ("oracle", a control).
        actor: of the actor's inputs.
        critic: of the critics' inputs.
        density: the share of the first layer's weights kept by static, set and rigl.
        drop_fraction: the share of these exchanged at an update.
        true_reward: whether the agent learns from the environment's reward; a control.
        curiosity: β₀ of RUNE: the reward gets β₀·(1 − ρ)^t times the reward models' deviation.
        pseudo_labels: the weight of SURF's loss on pairs that nobody compared; 0: it is not used.
        bilevel: whether reward models also learn by what they do to critics, as MRN's do.
        penalty: λ of lasso, on the Euclidean norm of a feature's weights.
        keep: the share of features left at the end, by features; None: those that are worth more
            than most shadows, which are features known to mean nothing.
        null: of shadows, the share that a feature must be worth more than, if keep is None.
        score: what a feature is worth: the agreement of the members' attributions, or their rms;
            or its autocorrelation in the seed steps, by which features are chosen once ("keep" is
            then a number): a control; or "moved": those stay that actions move (keep=None).
        window: from which share of the run to which features leave.
        probation: the share of the features kept that are dropped ones, drawn at random, on trial.
        reset: whether actor and critics start anew once features have left.

    Raises:
        ValueError: a choice is unknown or a number out of its range.

    Example:
        >>> METHODS["r2n"].critic
        'set'
    """

    reward_model: Inputs = "dense"
    actor: Inputs = "dense"
    critic: Inputs = "dense"
    density: float = 0.2
    drop_fraction: float = 0.05
    true_reward: bool = False
    curiosity: float = 0.0
    pseudo_labels: float = 0.0
    bilevel: bool = False
    penalty: float = 0.1
    keep: float | None = 0.2
    null: float = 0.9
    score: Score = "rms"
    window: tuple[float, float] = (0.1, 0.6)
    probation: float = 0.1
    reset: bool = False

    def __post_init__(self) -> None:
        for name in ("reward_model", "actor", "critic"):
            check_choice(getattr(self, name), get_args(Inputs), name)
        check_choice(self.score, get_args(Score), "score")
        for name in ("density", "keep"):
            if getattr(self, name) is not None:
                check_number(self, name, 0.0, 1.0, above=True)
        for name in ("drop_fraction", "probation", "null"):
            check_number(self, name, 0.0, 1.0)
        for name in ("curiosity", "pseudo_labels", "penalty"):
            check_number(self, name, 0.0, 1e6)
        if self.keep is None and self.score == "autocorrelation":
            raise ValueError("keep=None: score='autocorrelation' needs a share, above 0")
        if self.keep is not None and self.score == "moved":
            raise ValueError(f"keep={self.keep}: score='moved' finds how many: give keep=None")
        if not 0 <= self.window[0] <= self.window[1] <= 1:
            raise ValueError(f"window={self.window}: two shares of the run, the first not later")
        if "features" in (self.actor, self.critic) and self.actor != self.critic:
            raise ValueError(
                f"actor={self.actor!r}, critic={self.critic!r}: features leave both or neither"
            )

    @property
    def eliminates(self) -> bool:
        """Whether whole features leave networks."""
        return "features" in (self.reward_model, self.critic)

    @property
    def needs_shadows(self) -> bool:
        """Whether what is kept is chosen by a comparison with shadows."""
        return self.eliminates and self.keep is None and self.score != "moved"


def _all(treated: Inputs, **more: Any) -> Arm:
    return Arm(reward_model=treated, actor=treated, critic=treated, **more)


METHODS: dict[str, Arm] = {
    "pebble": Arm(),
    "surf": Arm(pseudo_labels=1.0),
    "rune": Arm(curiosity=0.05),
    "mrn": Arm(bilevel=True),
    "static": _all("static"),
    "r2n": _all("set"),
    "r2n-rigl": _all("rigl"),
    "group-lasso": _all("lasso"),
    "moved": _all("features", keep=None, score="moved"),
    "elimination": _all("features", keep=None),
    "elimination-fixed": _all("features"),
    "autocorrelation": _all("features", score="autocorrelation"),
    "oracle": _all("oracle"),
    "r2n-fast": _all("set", drop_fraction=0.3),
    "r2n-reward": Arm(reward_model="set"),
    "r2n-agent": Arm(actor="set", critic="set"),
    "oracle-reward": Arm(reward_model="oracle"),
    "oracle-agent": Arm(actor="oracle", critic="oracle"),
}
"""PEBBLE and what was built on it (SURF, RUNE, MRN), a sparse control, R2N with either growth, a
lasso, ours (what actions move; or what the networks say, as much as the data say or a fixed share),
a filter, an upper bound, and parts of R2N and of the bound, by name."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all runs of a population share.

    Defaults are for a quick comparison on cartpole-swingup, 25,000 steps; those of the publications
    are in the table of docs/control.md.

    Args:
        steps: of the agent in the environment, of which each is followed by an update.
        seed_steps: of random actions, before any update.
        hold: for how many steps a random action is held; drawn anew at each, they explore little.
        unsupervised_steps: after these, in which states far from others are the reward.
        neighbours: k of the distance to the k-th nearest state, which is that reward.
        batch: transitions in an update.
        width: hidden units of actor and critics, in each of two layers.
        learning_rate: of actor and critics.
        temperature: α at first.
        temperature_rate: the learning rate of log α.
        discount: γ.
        target_rate: how far targets move to the critics at an update.
        replay: transitions kept of each run; None: all.
        reward_members: members of the reward ensemble.
        reward_width: hidden units, in each of three layers.
        reward_rate: learning rate of reward models.
        reward_batch: comparisons in a step of each member.
        reward_steps: most steps that reward models learn after a feedback.
        reward_enough: a run's models stop once their accuracy in training is above.
        segment: steps of a clip that a teacher compares.
        queries: comparisons in a feedback.
        feedbacks: how many.
        feedback_every: steps between them; the first comes after the unsupervised steps.
        query: how comparisons are chosen after the first feedback.
        candidates: of how many times as many they are chosen.
        recent: the latest steps that clips come from.
        update_every: updates between two exchanges of weights of actor and critics.
        reward_update_every: steps of reward models between two exchanges of theirs.
        score_every: updates between two looks at what features are worth.
        eliminate_every: updates between two eliminations of features.
        shadows: features known to mean nothing, for runs whose keep is chosen by the data; other
            runs do not read them. None: 20 if an arm needs them, else none.
        curiosity_decay: ρ of RUNE, by step of the agent.
        crop: SURF's clips start and end up to so many steps earlier or later.
        confident: SURF learns from its own guess if P of it is at least this.
        guesses: of SURF, of how many times as many pairs that nobody compared a step learns.
        pool: of how many times as many as were compared these are, drawn anew at each feedback.
        bilevel_every: steps between two bi-level updates of MRN, up to the last feedback.
        reset_critic: whether critics start anew after the first feedback, as PEBBLE's do; None:
            if there were unsupervised steps.

    Raises:
        ValueError: a number is out of its range.
    """

    steps: int = 25_000
    seed_steps: int = 1_000
    hold: int = 8
    unsupervised_steps: int = 0
    neighbours: int = 5
    batch: int = 128
    width: int = 128
    learning_rate: float = 1e-3
    temperature: float = 0.1
    temperature_rate: float = 3e-4
    discount: float = 0.99
    target_rate: float = 0.01
    replay: int | None = None
    reward_members: int = 3
    reward_width: int = 64
    reward_rate: float = 1e-3
    reward_batch: int = 32
    reward_steps: int = 300
    reward_enough: float = 0.97
    segment: int = 25
    queries: int = 50
    feedbacks: int = 10
    feedback_every: int = 2_000
    query: QueryKind = "uniform"
    candidates: int = 10
    recent: int = 25_000
    update_every: int = 100
    reward_update_every: int = 10
    score_every: int = 100
    eliminate_every: int = 250
    shadows: int | None = None
    curiosity_decay: float = 1e-5
    crop: int = 3
    confident: float = 0.99
    guesses: int = 4
    pool: int = 10
    bilevel_every: int = 1_000
    reset_critic: bool | None = None

    def __post_init__(self) -> None:
        check_fields(self, Setting, zero=("unsupervised_steps", "feedbacks", "crop", "shadows"))
        for name in ("discount", "target_rate", "curiosity_decay", "confident"):
            check_number(self, name, 0.0, 1.0)
        if self.crop >= self.segment:
            raise ValueError(f"crop={self.crop}: must be below segment={self.segment}")
        check_choice(self.query, get_args(QueryKind), "query")
        if self.reward_members < 2 and self.query not in ("uniform", "k-center"):
            raise ValueError(
                f"reward_members={self.reward_members}: query={self.query!r} needs at least 2"
            )
        if self.replay is not None and self.replay < self.segment:
            raise ValueError(
                f"replay={self.replay}: must hold a segment of {self.segment} steps at least"
            )

    def shadows_for(self, arms: Sequence[Arm]) -> int:
        """Return how many shadows runs see.

        Raises:
            ValueError: an arm needs more of them.
        """
        needed = any(arm.needs_shadows for arm in arms)
        shadows = (_SHADOWS if needed else 0) if self.shadows is None else self.shadows
        if needed and shadows < _FEWEST_SHADOWS:
            raise ValueError(
                f"shadows={shadows}: an arm with keep=None needs at least {_FEWEST_SHADOWS}"
            )
        return shadows

    @property
    def first_feedback(self) -> int:
        """The step after which the teacher is asked for the first time."""
        return self.seed_steps + self.unsupervised_steps

    def feedback_due(self, step: int) -> bool:
        """Whether the teacher is asked after a step.

        Example:
            >>> [step for step in range(9000) if Setting(feedbacks=3).feedback_due(step)]
            [1000, 3000, 5000]
        """
        number, rest = divmod(step - self.first_feedback, self.feedback_every)
        return rest == 0 and 0 <= number < self.feedbacks
