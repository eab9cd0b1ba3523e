"""State entropy as a reward, without a teacher: how far a state is from its neighbours."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from regrow.control.replay import Replay

__all__ = ["StateEntropy", "neighbour_distance"]


class StateEntropy:
    """The distance to the k-th nearest state kept, over its running standard deviation.

    Args:
        runs: how many.
        neighbours: k.
        device: where they are.

    Source: PEBBLE (Lee et al. 2021, arXiv 2106.05091), section 4.1: all states kept, L2, k = 5.
    """

    def __init__(self, runs: int, neighbours: int, device: torch.device) -> None:
        self.neighbours = neighbours
        self.moments = torch.zeros(3, runs, 1, device=device)  # count, mean, squares about it

    def __call__(self, states: Tensor, among: Tensor, kept: Tensor) -> Tensor:
        """Return rewards (runs, B), and follow their deviation; nothing waits for the device.

        Args:
            states: (runs, B, D).
            among: (runs, N, D).
            kept: how many of these are there, the first ones; a tensor.
        """
        distance = neighbour_distance(states, among, kept, self.neighbours)
        self._follow_(distance)
        count, _, squares = self.moments
        deviation = (squares / count.clamp(min=1)).sqrt().clamp(min=1e-6)
        scaled: Tensor = distance / deviation
        return scaled

    def reward(self, states: Tensor, replay: Replay, most: int) -> Tensor:
        """Return rewards (runs, B) of states (runs, B, D) among those at a buffer's first places.

        Args:
            states: whose rewards are wanted.
            replay: whose observations begin with D numbers of the same kind.
            most: places looked at.
        """
        kept = replay.added.clamp(max=replay.capacity)
        with torch.no_grad():
            return self(states, replay.inputs[:, :most, : states.shape[2]], kept)

    def _follow_(self, values: Tensor) -> None:
        count, mean, squares = self.moments
        new, batch = values.mean(1, keepdim=True), values.shape[1]
        apart, total = new - mean, count + batch
        squares += (values - new).square().sum(1, keepdim=True)
        squares += apart.square() * count * batch / total
        mean += apart * batch / total
        count.copy_(total)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the moments."""
        return {"moments": self.moments.clone()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from moments."""
        self.moments.copy_(state["moments"])


def neighbour_distance(states: Tensor, among: Tensor, kept: Tensor, k: int) -> Tensor:
    """Return the L2 distance of each state to its k-th nearest, itself not counted; (runs, B).

    Args:
        states: of those kept, (runs, B, D).
        among: (runs, N, D).
        kept: how many of these are there, the first ones; a tensor.
        k: from 1 to one less than those kept.

    Example:
        >>> line = torch.tensor([[[0.0], [1.0], [3.0], [7.0]]])
        >>> neighbour_distance(line[:, :1], line, torch.tensor(3), 2).tolist()
        [[3.0]]
    """
    squared = states.square().sum(2)[..., None] + among.square().sum(2)[:, None]
    squared = torch.baddbmm(squared, states, among.transpose(1, 2), alpha=-2)
    there = torch.arange(among.shape[1], device=among.device) < kept
    squared = squared.masked_fill(~there, torch.inf)
    return squared.topk(k + 1, largest=False).values[..., -1].clamp(min=0).sqrt()
