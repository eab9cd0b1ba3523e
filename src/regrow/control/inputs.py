"""First layers of a population: which of their weights are there, and how these are exchanged."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from regrow.control.draws import RunDraws
from regrow.control.networks import Networks
from regrow.control.setting import Arm, Inputs
from regrow.engine.allocation import units_kept
from regrow.engine.members import draw_members, exchange_members

__all__ = ["InputLayers"]


class InputLayers:
    """The masks of one kind of network in all runs, each run treated as its arm says.

    Args:
        networks: whose first layers they are; masked at once.
        treated: of each run.
        arms: of the runs.
        real: which inputs are real features, bool, shape (runs, in); for "oracle".
        seeds: of the runs.
        purpose: names the networks, for what is drawn.

    Source: SET (Mocanu et al. 2018) and RigL (Evci et al. 2020) on input layers: ANF (Grooten et
    al. 2023, arXiv 2302.06548) for agents, R2N (arXiv 2406.06495) for reward models, too.

    Differs from ANF: exactly ⌊fraction · active⌋ weights are exchanged; moments of those that move
    are zero; targets are masked. RigL follows an average of gradients, not the last one.
    """

    def __init__(
        self,
        networks: Networks,
        treated: Sequence[Inputs],
        arms: Sequence[Arm],
        real: Tensor,
        seeds: Sequence[int],
        purpose: str,
    ) -> None:
        self.networks, self.treated = networks, list(treated)
        device = networks.rows.device
        members, units = networks.members, networks.mask.shape[1]
        self._draws = RunDraws(seeds, f"inputs of {purpose}", device)
        sparse = [one in ("static", "set", "rigl") for one in treated]
        density = [arm.density if s else 1.0 for arm, s in zip(arms, sparse, strict=True)]
        counts = torch.tensor([units_kept(d, units) for d in density], device=device)
        keys = self._draws.uniform(members, units).flatten(0, 1)
        mask = draw_members(keys, counts.repeat_interleave(members))
        oracle = torch.tensor([one == "oracle" for one in treated], device=device)
        networks.mask.copy_(mask)
        seen = (real | ~oracle[:, None])[:, None, :, None]
        networks.input_mask().mul_(seen)
        networks.apply_mask_()
        moves = [
            int(c * a.drop_fraction) if one in ("set", "rigl") else 0
            for c, a, one in zip(counts.tolist(), arms, treated, strict=True)
        ]
        self._counts = torch.tensor(moves, device=device).repeat_interleave(members)
        self._moving = self._counts.nonzero()[:, 0]
        by_gradient = torch.tensor([one == "rigl" for one in treated], device=device)
        self._by_gradient = by_gradient.repeat_interleave(members)[self._moving, None]
        self.moves = bool(len(self._moving))

    @torch.no_grad()
    def exchange_(self, gradients: Tensor) -> None:
        """Drop the smallest weights of runs with set or rigl, and grow as many; new ones are zero.

        Args:
            gradients: dense ones of the first layers, (runs · members, in · out).
        """
        if not self.moves:
            return
        nets, moving = self.networks, self._moving
        units = nets.mask.shape[1]
        before = nets.mask[moving] > 0
        random = self._draws.uniform(nets.members, units).flatten(0, 1)[moving]
        grow = torch.where(self._by_gradient, gradients[moving].abs(), random)
        sizes = nets.rows[moving, :units].abs()
        after = exchange_members(before, sizes, grow, self._counts[moving])
        nets.mask[moving] = after.to(nets.mask.dtype)
        grown = torch.zeros_like(nets.mask, dtype=torch.bool)
        grown[moving] = after & ~before
        nets.apply_mask_(grown)

    def connections(self, real: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean numbers of connections of a real feature and of another; shape (runs,).

        Args:
            real: bool, shape (runs, inputs that are features).
        """
        of_inputs = self.networks.input_mask()[:, :, : real.shape[1]].sum(3).mean(1)
        means = [(of_inputs * one).sum(1) / one.sum(1) for one in (real, ~real)]
        return means[0], means[1]

    def state_dict(self) -> dict[str, Tensor]:
        """Return what the masks themselves, kept by the networks, do not say."""
        return self._draws.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from a state."""
        self._draws.load_state_dict(state)
