"""Paths as departures: from going on as one does, from the straight line to where one may end."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from regrow.motion.encoder import last_valid
from regrow.motion.layers import picked

__all__ = ["Steady", "departed", "going_on", "likely", "steady"]

# Columns of an agent's state, from its end: seconds since the first step, and the velocity.
_SECONDS, _VELOCITY = -7, slice(-4, -2)


class Steady(NamedTuple):
    """How road users move now, in the frame of each target.

    Args:
        velocity: of each agent, in m/s, shape (n, agents, 2); 0 where it was never seen.
        own: that of the target, shape (n, 2).
        seconds: of a step, shape (n, 1); 0 where one step is seen only, which does not tell.
    """

    velocity: Tensor
    own: Tensor
    seconds: Tensor


def steady(agents: Tensor, valid: Tensor, centre: Tensor) -> Steady:
    """Return how agents moved when they were seen last.

    Args:
        agents: states of :class:`regrow.motion.features.Featurer`, shape (n, agents, past, 18 +
            past).
        valid: bool, shape (n, agents, past).
        centre: int64, shape (n,): the target's place among the agents; it is valid now.
    """
    now = picked(agents[:, :, -1], centre[:, None]).squeeze(1)
    seconds = now[:, _SECONDS, None] / max(agents.shape[2] - 1, 1)
    return Steady(last_valid(agents[..., _VELOCITY], valid), now[:, _VELOCITY], seconds)


def going_on(moves: Steady, tokens: int, steps: Tensor) -> tuple[Tensor, Tensor]:
    """Return moves and velocities of all who go on as they are: (n, tokens, steps, 2), (…, 1, 2).

    Args:
        moves: of agents.
        tokens: how many there are; those after the agents stay where they are.
        steps: 1, 2, …, shape (steps,).

    Example:
        >>> moves = Steady(torch.tensor([[[2.0, 0.0]]]), torch.zeros(1, 2), torch.tensor([[0.5]]))
        >>> going_on(moves, 2, torch.arange(1.0, 4.0))[0][0, :, :, 0].tolist()
        [[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]
    """
    velocity = functional.pad(moves.velocity, (0, 0, 0, tokens - moves.velocity.shape[1]))
    seconds = moves.seconds[..., None] * steps[:, None]
    return velocity[:, :, None] * seconds[:, None], velocity[:, :, None]


def likely(moves: Steady, intentions: Tensor, steps: int) -> Tensor:
    """Return scores that fall with an intention point's distance from where going on leads.

    -d / (3 m + |v|·T / 4), T seconds of the future: shape (n, queries).

    Args:
        moves: of the target.
        intentions: shape (n, queries, 2), in metres.
        steps: of the future.

    Example:
        >>> moves = Steady(torch.zeros(1, 1, 2), torch.tensor([[4.0, 0.0]]), torch.tensor([[0.5]]))
        >>> likely(moves, torch.tensor([[[4.0, 0.0], [9.0, 0.0]]]), steps=2)
        tensor([[-0.0000, -1.2500]])
    """
    end = moves.own * moves.seconds * steps
    far: Tensor = torch.linalg.vector_norm(intentions - end[:, None], dim=-1)
    scale: Tensor = 3 + torch.linalg.vector_norm(end, dim=-1, keepdim=True) / 4
    return -far / scale


def departed(found: Tensor, line: Tensor, seconds: Tensor) -> Tensor:
    """Return predicted paths that depart from lines.

    Args:
        found: of the network, shape (n, queries, steps, 7): places, spreads, velocities.
        line: shape (n, queries, steps, 2), in metres, from where the target is, the origin.
        seconds: of a step, shape (n, 1); 0: velocities depart from none.

    Example:
        >>> line = torch.tensor([[[[1.0, 0.0], [3.0, 0.0]]]])
        >>> departed(torch.zeros(1, 1, 2, 7), line, torch.tensor([[0.5]]))[0, 0, :, [0, 5]].tolist()
        [[1.0, 2.0], [3.0, 4.0]]
    """
    a_second = torch.where(seconds > 0, 1 / seconds.clamp(min=1e-6), 0)[..., None, None]
    moves = torch.cat([line[:, :, :1], line[:, :, 1:] - line[:, :, :-1]], 2)
    parts = found[..., :2] + line, found[..., 2:5], found[..., 5:] + moves * a_second
    return torch.cat(parts, -1)
