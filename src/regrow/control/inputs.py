"""First layers of a population: which of their weights are there, and how these are exchanged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from regrow.control.draws import RunDraws
from regrow.control.networks import Networks
from regrow.control.setting import Arm, Inputs
from regrow.engine.allocation import units_kept
from regrow.engine.members import draw_members, exchange_members

__all__ = ["InputLayers", "input_layers"]


class InputLayers:
    """The masks of one kind of network in all runs, each run treated as its arm says.

    Args:
        networks: whose first layers they are; masked at once.
        treated: of each run.
        arms: of the runs.
        real: which inputs are real features or actions, bool, shape (runs, in); for "oracle".
        shown: which inputs a run may read at all, bool, shape (runs, in).
        features: how many inputs are features, the first ones; for "lasso".
        seeds: of the runs.
        purpose: names the networks, for what is drawn.

    Source: SET (Mocanu et al. 2018) and RigL (Evci et al. 2020) on input layers: ANF (Grooten et
    al. 2023, arXiv 2302.06548) for agents, R2N (arXiv 2406.06495) for reward models, too.

    Differs from ANF: exactly ⌊fraction · active⌋ weights are exchanged; moments of those that move
    are zero; targets are masked; weights do not decay. RigL follows an average of gradients, not
    the last one.
    """

    def __init__(
        self,
        networks: Networks,
        treated: Sequence[Inputs],
        arms: Sequence[Arm],
        real: Tensor,
        shown: Tensor,
        features: int,
        seeds: Sequence[int],
        purpose: str,
    ) -> None:
        self.networks, self.treated = networks, list(treated)
        device = networks.rows.device
        members, units = networks.members, networks.mask.shape[1]
        self._draws = RunDraws(seeds, f"inputs of {purpose}", device)
        every = shown.sum(1) * networks.sizes[1]
        density = [
            arm.density if one in ("static", "set", "rigl") else 1.0
            for arm, one in zip(arms, treated, strict=True)
        ]
        counts = torch.tensor(
            [units_kept(d, n) for d, n in zip(density, every.tolist(), strict=True)], device=device
        )
        allowed = shown[:, None, :, None].expand(-1, members, -1, networks.sizes[1])
        self._allowed = allowed.reshape(-1, units)
        keys = self._draws.uniform(members, units).flatten(0, 1)
        mask = draw_members(
            torch.where(self._allowed, keys, -1.0), counts.repeat_interleave(members)
        )
        oracle = torch.tensor([one == "oracle" for one in treated], device=device)
        networks.mask.copy_(mask)
        networks.input_mask().mul_((real | ~oracle[:, None])[:, None, :, None])
        networks.apply_mask_()
        networks.penalise_(
            [a.penalty if one == "lasso" else 0.0 for a, one in zip(arms, treated, strict=True)],
            features,
        )
        moves = [
            int(c * a.drop_fraction) if one in ("set", "rigl") else 0
            for c, a, one in zip(counts.tolist(), arms, treated, strict=True)
        ]
        self._counts = torch.tensor(moves, device=device).repeat_interleave(members)
        self._moving = self._counts.nonzero()[:, 0]
        self._allowed = self._allowed[self._moving]
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
        grow = torch.where(self._allowed, grow, -1.0)
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
        of_inputs = self.networks.reads()[:, :, : real.shape[1]].float().sum(3).mean(1)
        means = [(of_inputs * one).sum(1) / one.sum(1) for one in (real, ~real)]
        return means[0], means[1]

    def state_dict(self) -> dict[str, Tensor]:
        """Return what the masks themselves, kept by the networks, do not say."""
        return self._draws.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from a state."""
        self._draws.load_state_dict(state)


def input_layers(
    nets: Mapping[str, Networks], arms: Sequence[Arm], real: Tensor, shown: Tensor,
    seeds: Sequence[int],
) -> dict[str, InputLayers]:  # fmt: skip
    """Mask the first layers of all networks as arms say; return them by the networks' names.

    Args:
        nets: by the names that they have in arms; what they read beyond features are actions.
        arms: of the runs.
        real: which features are real, bool, shape (runs, features).
        shown: which features, and shadows behind them, a run reads, bool, shape (runs, shown).
        seeds: of the runs.
    """
    runs, features, width = len(arms), real.shape[1], shown.shape[1]

    def wide(columns: Tensor, inputs: int) -> Tensor:
        return torch.cat([columns, columns.new_ones(runs, inputs - width)], 1)

    means = torch.cat([real, real.new_zeros(runs, width - features)], 1)
    return {
        name: InputLayers(
            net, [getattr(arm, name) for arm in arms], arms, wide(means, net.sizes[0]),
            wide(shown, net.sizes[0]), features, seeds, name,
        )
        for name, net in nets.items()
    }  # fmt: skip
