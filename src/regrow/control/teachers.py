"""Teachers: who say which of two segments is better. Simulated ones judge by the true reward."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from regrow.control.setting import check_number

__all__ = ["TEACHERS", "Answers", "Query", "ScriptedTeacher", "Teacher"]


@dataclass(frozen=True)
class Query:
    """Segments to be compared, two each.

    Args:
        rewards: true ones, (runs, Q, 2, segment).
        observations: what the agent saw, (runs, Q, 2, segment, D).
        actions: what it did, (runs, Q, 2, segment, A).
        steps: agent steps at which segments start, counted from 0, (runs, Q, 2).
        recent_return: the mean return of each run's latest episodes, (runs,).
        episode: steps of an episode.
        chance: random numbers in (0, 1) for the teacher, (runs, Q, 2).
    """

    rewards: Tensor
    observations: Tensor
    actions: Tensor
    steps: Tensor
    recent_return: Tensor
    episode: int
    chance: Tensor


@dataclass(frozen=True)
class Answers:
    """What a teacher says.

    Args:
        labels: 1 where the second segment is better, 0 where the first is, 0.5 where they are
            equal; (runs, Q).
        answered: bool, (runs, Q); False: the teacher cannot tell.
    """

    labels: Tensor
    answered: Tensor


Teacher = Callable[[Query], Answers]


@dataclass(frozen=True, kw_only=True)
class ScriptedTeacher:
    """A teacher who sees the true reward, and may err; the defaults never do.

    Each segment is worth Σ_t γ^(T−1−t)·r_t. Ties go to the first. The thresholds of skip and equal
    are the mean return of recent episodes, times segment / episode, times ε. Of rewards that are
    costs, so that this mean is not above 0, no question is skipped; equal takes its size.

    Args:
        beta: P[1 ≻ 0] = σ(β·difference); None: the better one always.
        gamma: below 1, what came early counts less.
        mistake: ε, the chance that an answer is turned round.
        skip: ε, up to whose threshold neither is worth an answer, going by the better one.
        equal: ε, below whose threshold two segments are equal.

    Raises:
        ValueError: a number is out of its range.

    Source: B-Pref (Lee et al. 2021, arXiv 2111.03026).

    Differs from its code: ε is multiplied once, where the code does it twice after the first
    feedback; and where the mean is below 0, segments can be equal.
    """

    beta: float | None = None
    gamma: float = 1.0
    mistake: float = 0.0
    skip: float = 0.0
    equal: float = 0.0

    def __post_init__(self) -> None:
        if self.beta is not None:
            check_number(self, "beta", 0.0, 1e6, above=True)
        check_number(self, "gamma", 0.0, 1.0, above=True)
        for name in ("mistake", "skip", "equal"):
            check_number(self, name, 0.0, 1.0)

    def __call__(self, query: Query) -> Answers:
        """Compare segments.

        Example:
            >>> rewards = torch.tensor([[[[0.0, 1.0], [1.0, 1.0]]]])
            >>> nothing, none = torch.zeros(1, 1, 2, 2, 0), torch.zeros(1, 1, 2)
            >>> query = Query(rewards, nothing, nothing, none, torch.ones(1), 4, none)
            >>> ScriptedTeacher()(query).labels.tolist()
            [[1.0]]
        """
        length = query.rewards.shape[-1]
        usual = query.recent_return[:, None] * length / query.episode
        sums, least = query.rewards.sum(-1), usual * self.skip
        answered = (sums.amax(-1) > least) | (least <= 0)
        labels = self._preferred(query).float()
        if self.equal:
            near = (sums[..., 1] - sums[..., 0]).abs() < usual.abs() * self.equal
            labels = torch.where(near, 0.5, labels)
        return Answers(labels, answered)

    def _preferred(self, query: Query) -> Tensor:
        """Return whether the second one is said to be better."""
        length = query.rewards.shape[-1]
        ages = torch.arange(length - 1, -1, -1, device=query.rewards.device)
        worth = (query.rewards * self.gamma**ages).sum(-1)
        better = worth[..., 1] - worth[..., 0]
        if self.beta is None:
            second = better > 0
        else:
            second = query.chance[..., 0] < torch.sigmoid(self.beta * better)
        return second ^ (query.chance[..., 1] < self.mistake)


TEACHERS: dict[str, ScriptedTeacher] = {
    "oracle": ScriptedTeacher(),
    "noisy": ScriptedTeacher(beta=1.0),
    "myopic": ScriptedTeacher(gamma=0.9),
    "mistake": ScriptedTeacher(mistake=0.1),
    "skip": ScriptedTeacher(skip=0.1),
    "equal": ScriptedTeacher(equal=0.1),
}
"""The teachers of B-Pref, by name."""
