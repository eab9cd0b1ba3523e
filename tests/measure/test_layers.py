"""Costs by layer against hand counts."""

import pytest
from torch import nn

import regrow
from regrow.engine.patterns import Kernel
from regrow.measure.layers import LayerCost, cost_table, layer_costs


def model():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ConvTranspose2d(8, 4, 2, 2, bias=False),
        nn.Flatten(),
        nn.Linear(4 * 10 * 10, 5),
    )


def test_dense_costs():
    rows = layer_costs(model(), (2, 3, 5, 5))
    conv, up, linear = 2 * 25 * 216, (2 * 8 * 25) * 4 * 4, 2 * 2000
    assert rows == (
        LayerCost("0.weight", (8, 3, 3, 3), 216, 216, conv, conv),
        # By inputs: by outputs it would be four times as much.
        LayerCost("2.weight", (8, 4, 2, 2), 128, 128, up, up),
        LayerCost("4.weight", (5, 400), 2000, 2000, linear, linear),
        LayerCost("others", (29,), 29, 29, 0, 0.0),
    )


def test_sparse_costs_are_those_of_whole_units():
    method = regrow.Static(density={"0.*": 0.3, "2.*": 0.5}, pattern=Kernel())
    rows = layer_costs(model(), (1, 3, 5, 5), method=method, exclude="4.*")
    first, second, third, _ = rows
    assert (first.kept, first.effective) == (7 * 9, 25 * 63)  # 7 of 24 kernels
    assert (second.kept, second.effective) == (16 * 4, 8 * 25 * 4 * 4 / 2)
    assert (third.kept, third.effective) == (2000, 2000)


def test_a_density_that_moves_counts_at_its_end():
    (row, _) = layer_costs(nn.Linear(10, 10), (1, 10), method=regrow.GMP(density=0.1))
    assert row.kept == 10


def test_a_glob_that_matches_nothing_is_refused():
    with pytest.raises(ValueError, match=r"include='nodes\.\*' matches no parameter"):
        layer_costs(model(), (1, 3, 5, 5), method=regrow.Static(density=0.5), include="nodes.*")


def test_the_last_row_sums_the_others():
    costs = layer_costs(model(), (1000, 3, 5, 5), method=regrow.Static(density=0.5))
    last = cost_table(costs).splitlines()[-1].split()
    kept = sum(cost.kept for cost in costs)
    assert last[:3] == ["sum", f"{216 + 128 + 2000 + 29:,}", f"{kept:,}"]
    assert float(last[3]) == pytest.approx(sum(c.macs for c in costs) / 1e9, abs=5e-4)
