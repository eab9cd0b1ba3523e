"""Parameters and operations against the published figures, recounted by hand where they err."""

import pytest
import torch

from regrow.engine.plan import make_plan
from regrow.measure.flops import count_flops
from regrow.measure.layers import cost_table, layer_costs
from regrow.segmentation import (
    E2ENet,
    PlainConvUNet,
    feature_fusion,
    lean_shape,
    released_densities,
)
from regrow.segmentation.fusion import LEAN

CUBE, FLAT = (128, 128, 128), (64, 160, 160)
ANISOTROPIC = [(1, 2, 2), 2, 2, 2, (1, 2, 2)]


def lattice(in_channels=1, num_classes=16, **options):
    with torch.device("meta"):
        return E2ENet(in_channels, num_classes, **options)


def totals(model, sides, **sparse):
    """(million parameters left, effective GFLOP) of one volume."""
    costs = layer_costs(model, (1, model.in_channels, *sides), **sparse)
    return sum(c.kept for c in costs) / 1e6, 2 * sum(c.effective for c in costs) / 1e9


def near(parameters, gflop):
    # The reference multiplies by the density; here kernels are whole, a part in 4,000 more or less.
    return pytest.approx(parameters, abs=0.006), pytest.approx(gflop, rel=4e-4, abs=0.06)


@pytest.mark.parametrize(
    ("density", "rule", "parameters", "gflop"),
    [
        (1.0, False, 23.899, 2024.7),
        (0.2, False, 9.445, 569.0),
        (0.2, True, 9.445, 569.0),
        (0.3, True, 11.229, 655.3),
        (0.1, True, 7.661, 482.7),
    ],
)
def test_a_cube_of_one_channel_and_sixteen_classes(density, rule, parameters, gflop):
    model = lattice()
    densities = released_densities(model, density) if rule else density
    assert totals(model, CUBE, **feature_fusion(densities)) == near(parameters, gflop)


@pytest.mark.parametrize("channels", [(32, 64, 128, 256, 320, 320), (16, 32, 64, 128)], ids=len)
def test_a_lean_lattice_has_a_third_of_nnunets_parameters_and_fewer_operations(channels):
    with torch.device("meta"):
        rival = PlainConvUNet(1, 16, channels)
    model = lattice(channels=channels, **lean_shape(len(channels)))
    (mine, mine_gflop), (theirs, gflop) = (
        totals(model, CUBE, **feature_fusion(LEAN)),
        totals(rival, CUBE),
    )
    assert mine < theirs / 3 and mine_gflop < gflop


def test_a_lean_lattice_of_two_levels_is_refused():
    with pytest.raises(ValueError, match="levels=2: a lean lattice has three at least"):
        lean_shape(2)


@pytest.mark.parametrize(
    ("inputs", "classes", "strides", "sides", "density", "rule", "parameters", "gflop"),
    [
        (4, 4, None, CUBE, 1.0, False, 23.893, 2027.0),
        (4, 4, None, CUBE, 0.3, True, 11.223, 657.6),
        (4, 4, None, CUBE, 0.3, False, 11.25, 753.2),
        (1, 14, None, CUBE, 0.1, True, 7.660, 482.2),
        (1, 16, ANISOTROPIC, FLAT, 1.0, False, 23.397, 2269.2),
        (1, 16, ANISOTROPIC, FLAT, 0.3, True, 11.08, 780.2),
        (1, 16, ANISOTROPIC, FLAT, 0.5, False, 14.61, 2 * 629.5),
        (1, 16, ANISOTROPIC, FLAT, 0.05, True, 6.74, 2 * 231.0),
        (1, 14, ANISOTROPIC, (48, 192, 192), 0.2, False, 9.34, 2 * 352.3),
    ],
)
def test_other_inputs(inputs, classes, strides, sides, density, rule, parameters, gflop):
    model = lattice(inputs, classes, strides=strides)
    densities = released_densities(model, density) if rule else density
    found = totals(model, sides, **feature_fusion(densities))
    assert found == near(parameters, gflop)


def test_what_becomes_sparse():
    model = lattice()
    plan = make_plan(model, **feature_fusion(0.2))
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    assert sum(sizes[layer.name] for layer in plan.layers) == 18_067_200
    assert len(plan.layers) == 15 + 5 + 15  # fusion, second blocks, transposed
    assert all(layer.units == layer.shape[0] * layer.shape[1] for layer in plan.layers)
    assert all(layer.final == round(0.2 * layer.units) for layer in plan.layers)


def test_the_released_rule_holds_six_convolutions_at_a_fifth():
    rule = released_densities(lattice(), 0.3)
    assert rule.pop("*") == 0.3
    nodes = [f"nodes.0_{stage}.blocks.0.conv.weight" for stage in range(1, 6)]
    assert rule == dict.fromkeys([*nodes, "nodes.0_5.blocks.1.conv.weight"], 0.2)


# Billions of multiply-adds of a volume of 64×160×160, dense; up-sampling by level of its output.
ENCODER = {0: (0.71, 33.97), 1: (16.99, 33.97), 2: (8.49, 16.99), 3: (3.54, 5.90)}
ENCODER |= {4: (0.74, 0.74), 5: (0.18, 0.18)}
FUSION = {0: (67.95, 33.97), 1: (84.93, 33.97), 2: (42.47, 16.99), 3: (15.34, 5.90)}
FUSION |= {4: (2.21, 0.74)}
UPS = {0: 7.55, 1: 7.55, 2: 3.15, 3: 0.66, 4: 0.08}
HEADS = (1.26, 0.63, 0.16, 0.03)


def test_every_node_takes_the_published_multiply_adds():
    costs = layer_costs(lattice(strides=ANISOTROPIC), (1, 1, *FLAT))
    found = {cost.name.removesuffix(".weight"): cost.macs / 1e9 for cost in costs}
    expected = {f"encoder.{i}.{k}.conv": ENCODER[i][k] for i in range(6) for k in range(2)}
    for stage in range(1, 6):
        for level in range(6 - stage):
            node = f"nodes.{level}_{stage}"
            expected[f"{node}.up"] = UPS[level]
            expected[f"{node}.blocks.0.conv"] = FUSION[level][0]
            if level + stage == 5:
                expected[f"{node}.blocks.1.conv"] = FUSION[level][1]
    expected |= {f"heads.{i}": gmac for i, gmac in enumerate(HEADS)}
    assert found.pop("others") == 0
    assert found == {name: pytest.approx(gmac, abs=0.006) for name, gmac in expected.items()}


@pytest.mark.parametrize("kind", [E2ENet, PlainConvUNet])
def test_on_meta_every_layer_counts_as_it_does_for_real(kind):
    model = kind(2, 3, (6, 12, 12), [(1, 2, 2), 2])
    x = torch.randn(1, 2, 4, 8, 8)
    real, meta = count_flops(model, x), count_flops(model.to("meta"), x.to("meta"))
    assert real == meta
    assert len(real.layers) == sum(p.ndim > 1 for p in model.parameters())


def test_counting_leaves_the_model_where_it_is():
    model = E2ENet(1, 2, (6, 12))
    layer_costs(model, (1, 1, 8, 8, 8), **feature_fusion(0.2))
    assert all(p.device.type == "cpu" and p.grad is None for p in model.parameters())


def test_the_table_sums_its_rows():
    costs = layer_costs(lattice(), (1, 1, *CUBE), **feature_fusion(0.2))
    lines = cost_table(costs).splitlines()
    assert len(lines) == len(costs) + 2
    assert lines[-1].split() == ["sum", "23,899,088", "9,445,351", "1012.357", "284.557"]
