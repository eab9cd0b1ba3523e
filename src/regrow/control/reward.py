"""Reward models of a population: ensembles that learn from comparisons of two segments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from regrow.control.draws import RunDraws
from regrow.control.graphs import Graphed
from regrow.control.inputs import InputLayers
from regrow.control.networks import Networks
from regrow.control.pseudo import PseudoLabels, guesses
from regrow.control.setting import Setting
from regrow.control.steady import steady

__all__ = ["RewardModels", "correlation", "cross_entropy"]


def correlation(one: Tensor, other: Tensor) -> Tensor:
    """Return Pearson's correlation of two rows of numbers, for each run: (runs,).

    Example:
        >>> correlation(torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[2.0, 4.0, 8.0]]))
        tensor([1.])
    """
    one, other = (x - x.mean(1, keepdim=True) for x in (one, other))
    scale = (one.square().sum(1) * other.square().sum(1)).sqrt().clamp(min=1e-12)
    return (one * other).sum(1) / scale


class RewardModels:
    """An ensemble r̂(s, a) in −1..1 for each run, and the comparisons that it learns from.

    P[1 ≻ 0] = σ(Σ_t r̂(segment 1) − Σ_t r̂(segment 0)); the loss is the cross-entropy with the
    label, which is 1 where segment 1 is preferred, 0.5 where neither is.

    Args:
        seeds: of the runs.
        inputs: numbers in an observation and an action.
        setting: sizes and rates.
        device: where they learn.
        capacity: most comparisons of a run.
        pseudo: what the runs learn that label pairs by themselves; None: no run does.

    Attributes:
        networks: the members.
        wide: the segments compared, with what came before and after them,
            (runs, capacity, 2, segment + 2·margin, D + A).
        clips: the segments alone, a view of these.
        inside: which steps of the wide ones are of the same episode as the segment; others are 0.
        starts: places in the replay buffer at which segments began, (runs, capacity, 2).
        labels: (runs, capacity).
        count: comparisons so far, int64, shape (runs, 1).
        accuracy: of the members in training, a running average, shape (runs, 1).
        gradient: a running average of the dense gradients of first layers.

    Source: Christiano et al. 2017; PEBBLE (Lee et al. 2021, arXiv 2106.05091).

    Differs from BPref: members draw batches with replacement, and stop by a running average of the
    accuracy, not by epochs. Segments are copies: they outlive the replay buffer.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        inputs: int,
        setting: Setting,
        device: torch.device,
        capacity: int,
        pseudo: PseudoLabels | None = None,
    ) -> None:
        self.setting, self.pseudo, runs = setting, pseudo, len(seeds)
        self.margin = 0 if pseudo is None else setting.crop
        length = setting.segment + 2 * self.margin
        sizes = [inputs, *[setting.reward_width] * 3, 1]
        rate, leaky = setting.reward_rate, functional.leaky_relu
        self.networks = Networks(
            seeds, setting.reward_members, sizes, "reward", rate, device, leaky
        )
        self.wide = torch.zeros(runs, capacity, 2, length, inputs, device=device)
        self.clips = self.wide[:, :, :, self.margin : length - self.margin]
        self.inside = torch.zeros(runs, capacity, 2, length, dtype=torch.bool, device=device)
        self.starts = torch.zeros(runs, capacity, 2, dtype=torch.int64, device=device)
        self.labels = torch.zeros(runs, capacity, device=device)
        self.count = torch.zeros(runs, 1, dtype=torch.int64, device=device)
        self.accuracy = torch.zeros(runs, 1, device=device)
        self.gradient = torch.zeros_like(self.networks.mask)
        self._draws = RunDraws(seeds, "comparisons learnt from", device)
        self._rows = torch.arange(runs, device=device)[:, None]
        self._step = Graphed(self.step_, device)

    def __call__(self, inputs: Tensor) -> Tensor:
        """Return every member's reward, (runs, members, B), of inputs (runs, B, D + A)."""
        return steady(torch.tanh, self.networks(inputs)[..., 0])

    @torch.no_grad()
    def reward(self, inputs: Tensor) -> Tensor:
        """Return the ensemble's mean reward, (runs, B)."""
        return self(inputs).mean(1)

    @torch.no_grad()
    def chances(self, clips: Tensor) -> Tensor:
        """Return every member's P[1 ≻ 0], (runs, members, Q), of clips (runs, Q, 2, segment, ·)."""
        sums = self(clips.flatten(1, 3)).unflatten(2, clips.shape[1:4]).sum(-1)
        return steady(torch.sigmoid, sums[..., 1] - sums[..., 0])

    def add_(
        self,
        wide: Tensor,
        labels: Tensor,
        answered: Tensor,
        inside: Tensor | None = None,
        starts: Tensor | None = None,
    ) -> None:
        """Keep the comparisons that were answered.

        Args:
            wide: segments with their margins, (runs, Q, 2, segment + 2·margin, D + A).
            labels: in 0..1, (runs, Q).
            answered: bool, (runs, Q).
            inside: which steps are of one episode, (runs, Q, 2, segment + 2·margin); None: all.
            starts: places at which segments began, (runs, Q, 2); None: they are not kept.

        Raises:
            ValueError: there is no more room, or a label is not in 0..1; nothing is then kept.
        """
        if not bool(((labels >= 0) & (labels <= 1) | ~answered).all()):
            raise ValueError("labels: 0 (the first), 1 (the second), 0.5 (equal) are allowed")
        places = self.count + answered.cumsum(1) - 1
        room = self.labels.shape[1]
        if bool((answered & (places >= room)).any()):
            raise ValueError(f"comparisons: a run has room for {room}, and more were answered")
        runs, columns = answered.nonzero(as_tuple=True)
        places = places[runs, columns]
        there = torch.ones_like(wide[..., 0], dtype=torch.bool) if inside is None else inside
        self.wide[runs, places] = (wide * there[..., None])[runs, columns]
        self.inside[runs, places] = there[runs, columns]
        if starts is not None:
            self.starts[runs, places] = starts[runs, columns]
        self.labels[runs, places] = labels[runs, columns]
        self.count += answered.sum(1, keepdim=True)

    def learn_(self, layers: InputLayers) -> None:
        """Learn from all comparisons, until each run's accuracy is enough or steps are used up.

        Args:
            layers: the first layers of these models, whose weights are exchanged on the way.
        """
        self.accuracy.fill_(0.5)
        for step in range(1, self.setting.reward_steps + 1):
            self._step()
            if step % self.setting.reward_update_every == 0:
                layers.exchange_(self.gradient)

    def step_(self) -> None:
        """Make one step of every member on comparisons of its own; nothing waits for the device."""
        members, batch = self.setting.reward_members, self.setting.reward_batch
        drawn = self._draws.uniform(members * batch)
        last = (self.count - 1).clamp(min=0)
        places = torch.minimum((drawn * self.count).long(), last)
        labels = self.labels[self._rows, places].unflatten(1, (members, batch))
        clips = self.clips[self._rows, places].unflatten(1, (members, batch))
        apart = self.apart(clips.flatten(0, 1)).unflatten(0, (-1, members))
        loss = cross_entropy(apart, labels).mean(2)
        if self.pseudo is not None:
            loss = loss * self.pseudo.others[:, None]
            loss = torch.cat([loss, self._guess(places, labels)])
        gradients = self.networks.gradients(loss.sum())
        self.gradient.lerp_(gradients[:, : self.gradient.shape[1]], 0.1)
        learns = (self.accuracy < self.setting.reward_enough) & (self.count > 0)
        on = learns.float().repeat_interleave(members, 0)
        self.networks.step_(gradients, on)
        self._note_accuracy_(apart.detach(), labels)

    def apart(self, clips: Tensor, shown: Tensor | None = None) -> Tensor:
        """Return Σ r̂(segment 1) − Σ r̂(segment 0), by every network on pairs of its own.

        Args:
            clips: (networks, B, 2, length, D + A); the networks are all, or those of runs that
                guess.
            shown: the steps that count, bool, (networks, B, 2, length); None: all.

        Returns:
            (networks, B).
        """
        weights = self.networks.weights
        if len(clips) < len(weights[0]):
            assert self.pseudo is not None
            weights = [part.index_select(0, self.pseudo.networks) for part in weights]
        rewards = steady(torch.tanh, self.networks.each(clips.flatten(1, 3), weights)[..., 0])
        rewards = rewards.view(clips.shape[:-1])
        sums = (rewards if shown is None else rewards * shown).sum(-1)
        return sums[..., 1] - sums[..., 0]

    def _guess(self, places: Tensor, labels: Tensor) -> Tensor:
        """Return the losses of the runs that guess, (those, members)."""
        pseudo = self.pseudo
        assert pseudo is not None
        members, batch = self.setting.reward_members, self.setting.reward_batch
        rows, chosen = pseudo.runs[:, None], places[pseudo.runs]
        compared, inside = (
            x[rows, chosen].unflatten(1, (members, batch)).flatten(0, 1)
            for x in (self.wide, self.inside)
        )
        known = self.apart(compared, pseudo.crop(inside))
        others, around = pseudo.pairs()
        middle = slice(self.margin, self.margin + self.setting.segment)
        with torch.no_grad():
            guessed, sure = guesses(self.apart(others[..., middle, :]), self.setting.confident)
        guessing = cross_entropy(self.apart(others, pseudo.crop(around)), guessed) * sure
        own = cross_entropy(known, labels[pseudo.runs].flatten(0, 1)).mean(1)
        return own.view(-1, members) + pseudo.weights * guessing.mean(1).view(-1, members)

    def _note_accuracy_(self, apart: Tensor, labels: Tensor) -> None:
        decided = labels != 0.5
        right = ((apart > 0) == (labels > 0.5)) & decided
        share = right.sum((1, 2)) / decided.sum((1, 2)).clamp(min=1)
        share = torch.where(decided.any(2).any(1), share, self.accuracy[:, 0])
        self.accuracy.lerp_(share[:, None], 0.1)

    def state_dict(self, *, segments: bool = True) -> dict[str, Any]:
        """Return all that changes; segments that were compared may be left out."""
        most = int(self.count.max())
        state: dict[str, Any] = {n: getattr(self, n).clone() for n in _STATE}
        names = _COMPARED if segments else [name for name in _COMPARED if name != "wide"]
        kept = {name: getattr(self, name)[:, :most].clone() for name in names}
        own = {"networks": self.networks.state_dict(), "draws": self._draws.state_dict()}
        return state | kept | own

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state, in place."""
        for name in _STATE:
            getattr(self, name).copy_(state[name])
        for name in [name for name in _COMPARED if name in state]:
            getattr(self, name)[:, : state[name].shape[1]].copy_(state[name])
        self.networks.load_state_dict(state["networks"])
        self._draws.load_state_dict(state["draws"])


_STATE = ("count", "accuracy", "gradient")
_COMPARED = ("wide", "inside", "starts", "labels")


def cross_entropy(apart: Tensor, labels: Tensor) -> Tensor:
    """Return −log P of labels in 0..1, where P[1 ≻ 0] = σ(apart).

    Example:
        >>> cross_entropy(torch.tensor([0.0, 99.0]), torch.tensor([0.5, 1.0])).tolist()
        [0.6931471824645996, 0.0]
    """
    return steady(functional.softplus, apart) - labels * apart
