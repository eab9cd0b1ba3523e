"""Pseudo-labels: reward models learn from what they are sure of, and from cropped segments."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from regrow.control.draws import RunDraws
from regrow.control.replay import Replay
from regrow.control.setting import Arm, Setting

__all__ = ["PseudoLabels", "crops", "guesses"]


class PseudoLabels:
    """What runs learn that also label pairs which nobody compared, of their replay buffers.

    The loss of a member is CE(comparisons, cropped) + λ·mean(sure · CE(its guesses, cropped)). A
    guess is made on the whole segment, by the member itself, and counts if its P is at least
    ``confident``.

    Args:
        seeds: of all runs.
        arms: of all runs; those with pseudo_labels above 0 guess, at least one.
        setting: sizes.
        replay: where pairs come from.

    Attributes:
        runs: those that guess.
        networks: their reward networks, among those of all runs.
        weights: λ of each, (those, 1).
        others: 0 for these and 1 for the other runs.

    Source: SURF (Park et al. 2022, arXiv 2203.10050); its public code was read.

    Differs from SURF's code: pairs are drawn anew at each feedback, of the latest transitions, and
    not collected; members draw them with replacement; a crop ends where the episode does.
    """

    def __init__(
        self, seeds: Sequence[int], arms: Sequence[Arm], setting: Setting, replay: Replay
    ) -> None:
        device, members = replay.rewards.device, setting.reward_members
        chosen = [run for run, arm in enumerate(arms) if arm.pseudo_labels]
        self.setting, self.replay = setting, replay
        self.runs = torch.tensor(chosen, device=device)
        self.networks = (self.runs[:, None] * members + torch.arange(members, device=device)).view(
            -1
        )
        self.weights = torch.tensor([[arms[run].pseudo_labels] for run in chosen], device=device)
        self.others = torch.ones(len(arms), device=device).index_fill_(0, self.runs, 0.0)
        self._draws = RunDraws([seeds[run] for run in chosen], "pseudo-labels", device)
        self._all = torch.full((len(arms), 1), 0.5, device=device)
        size = setting.queries * setting.pool
        self._starts = torch.zeros(len(chosen), size, 2, dtype=torch.int64, device=device)

    def renew_(self) -> None:
        """Draw the pairs that are to be guessed at."""
        setting, n = self.setting, self._starts[0].numel()
        drawn = self._all.repeat(1, n)
        drawn[self.runs] = self._draws.uniform(n)
        starts = self.replay.starts(drawn, setting.segment, setting.recent)[self.runs]
        self._starts.copy_(starts.view_as(self._starts))

    def pairs(self) -> tuple[Tensor, Tensor]:
        """Return pairs for every network, (networks, B, 2, length, D + A), and their episodes'."""
        setting, members = self.setting, self.setting.reward_members
        count = setting.guesses * setting.reward_batch
        drawn = self._draws.uniform(members * count) * self._starts.shape[1]
        rows = torch.arange(len(self.runs), device=drawn.device)[:, None]
        starts = self._starts[rows, drawn.long().clamp(max=self._starts.shape[1] - 1)]
        length, margin = setting.segment, setting.crop
        found = self.replay.segments(starts, length, "inputs", margin=margin, runs=self.runs)
        inside = self.replay.inside(starts, length, margin, self.runs)
        each = (len(self.runs) * members, count)
        return found.reshape(*each, *found.shape[2:]), inside.reshape(*each, *inside.shape[2:])

    def crop(self, inside: Tensor) -> Tensor:
        """Return the steps of one random crop of each segment, shaped like the argument."""
        segment, crop = self.setting.segment, self.setting.crop
        members, batch = self.setting.reward_members, inside.shape[1]
        drawn = self._draws.uniform(members, batch, 3).flatten(0, 1)
        return crops(inside, segment - crop, segment + crop, drawn)

    def state_dict(self) -> dict[str, Tensor]:
        """Return all that changes: pairs are drawn anew at each feedback."""
        return self._draws.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state."""
        self._draws.load_state_dict(state)


def crops(inside: Tensor, shortest: int, longest: int, uniform: Tensor) -> Tensor:
    """Return windows of as many steps in both segments of a pair, and at places of their own.

    Args:
        inside: the steps that a window may have, one stretch in each segment; bool, (..., 2, L).
        shortest: the least steps of a window, at most those of any stretch.
        longest: the most; fewer, where a stretch has fewer.
        uniform: numbers in (0, 1): for the length, and both places; (..., 3).

    Returns:
        Bool, shaped like ``inside``.

    Example:
        >>> inside = torch.tensor([[True, True, True], [False, True, True]])
        >>> crops(inside, 1, 3, torch.tensor([0.99, 0.0, 0.9])).tolist()
        [[True, True, False], [False, True, True]]
    """
    stretch, first = inside.sum(-1), inside.int().argmax(-1)
    length = shortest + (uniform[..., 0] * (longest - shortest + 1)).long()
    length = torch.minimum(length, stretch.amin(-1))[..., None]
    free = stretch - length
    start = first + torch.minimum((uniform[..., 1:] * (free + 1)).long(), free)
    steps = torch.arange(inside.shape[-1], device=inside.device)
    return (steps >= start[..., None]) & (steps < (start + length)[..., None])


def guesses(apart: Tensor, confident: float) -> tuple[Tensor, Tensor]:
    """Return labels by differences of rewards, and where P of them is at least ``confident``.

    Example:
        >>> labels, sure = guesses(torch.tensor([5.0, 1.0, -5.0]), 0.99)
        >>> labels.tolist(), sure.tolist()
        ([1.0, 1.0, 0.0], [True, False, True])
    """
    least = math.inf if confident >= 1 else max(0.0, math.log(confident / (1 - confident)))
    return (apart > 0).float(), apart.abs() >= least
