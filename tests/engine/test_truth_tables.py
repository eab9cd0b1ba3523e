"""Numbers worked out by hand where the other tests have properties and oracles only.

Drop and grow scores one by one: test_scores.py and test_criteria.py. Thresholds and shares of
momentum: test_update.py. Chains, and links against literal counting: test_links.py.
"""

from __future__ import annotations

import pytest
import torch

import regrow
from regrow.engine.links import LinkPrediction
from regrow.engine.scores import Signals
from regrow.engine.update import Moves


class TestLinksByHand:
    """Outputs u0, u1, u2 read a b, b c d and c: of six missing links one has no path at all.

    The path of u0-c is u0-b-u1-c. Its inner node u1 shares one input (b) with u0 and has two
    others (c, d); b shares one output (u1) with c and has one other (u0). So CH2 gives √(2·2/(2·1))
    and CH3 1/√(2·1); by nodes u1 gives 2/2 and b gives 2/1, for CH3 1/2 and 1/1. u1-a has
    u1-b-u0-a, where u0 and b have one other each. u2-a has none: nobody reads both c and a.
    """

    MASK = torch.tensor([[1, 1, 0, 0], [0, 1, 1, 1], [0, 0, 1, 0]], dtype=torch.bool)
    MISSING = ((0, 2), (0, 3), (1, 0), (2, 0), (2, 1), (2, 3))
    HALF = 0.5**0.5

    @pytest.mark.parametrize(
        ("rule", "by", "scores"),
        [
            ("CH2", "path", [2 * HALF, 2 * HALF, 2, 0, 2 * HALF, 2 * HALF]),
            ("CH3", "path", [HALF, HALF, 1, 0, HALF, HALF]),
            ("CH2", "node", [3, 3, 4, 0, 3, 3]),
            ("CH3", "node", [1.5, 1.5, 2, 0, 1.5, 1.5]),
        ],
    )
    def test_score(self, rule, by, scores):
        worth = LinkPrediction(rule, by=by).worth(Signals(torch.zeros(3, 4), mask=self.MASK))
        assert [float(worth[link]) for link in self.MISSING] == pytest.approx(scores)

    @pytest.mark.parametrize("by", ["path", "node"])
    @pytest.mark.parametrize("rule", ["CH2", "CH3"])
    def test_what_is_grown(self, choose, rule, by):
        """u1-a first, then in their order u0-c, u0-d, u2-b and u2-d, which are worth the same."""
        order = [4, 2, 3, 9, 11, 8]
        for k in range(7):
            score, weight = LinkPrediction(rule, by=by), torch.zeros(3, 4)
            assert choose(score, "grow", k, mask=self.MASK, weight=weight) == sorted(order[:k])


@pytest.mark.parametrize(
    ("pulls", "masks"),
    [
        # Four go; of them a grows 4·3/4, then 4·1/4, then what 4·2/3 = 2.67 is rounded to.
        ((3.0, 1.0), ["00110111", "00110001"]),
        ((1.0, 3.0), ["00110001", "00110111"]),
        ((-2.0, 1.0), ["00110111", "00110001"]),
        ((1.0, 1.0), ["00110011", "00110011"]),
        # Nothing pulls to b; a has four free places and takes all four.
        ((1.0, 0.0), ["00111111", "00110000"]),
    ],
)
def test_what_all_dropped_is_shared_by_the_gradients_of_active_weights(
    layer, proposal, pulls, masks
):
    """Gradients of inactive weights, 1 to 4 in both layers, tell where to grow, not how many."""
    method = regrow.Dynamic(density=0.5, redistribute="gradient", regrow_dropped=False)
    weight = torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.0, 0.0, 0.0, 0.0]])
    inactive = torch.tensor([[0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 3.0, 4.0]])
    layers = [layer((1, 8), 4, name=name, mask=weight != 0) for name in "ab"]
    signals = {
        name: {"weight": weight, "gradient": torch.where(weight != 0, pull, inactive)}
        for name, pull in zip("ab", pulls, strict=True)
    }
    found = proposal(method, layers, signals, dict.fromkeys("ab", Moves(exchange=2)))
    assert ["".join(map(str, units[0].int().tolist())) for units in found.values()] == masks
