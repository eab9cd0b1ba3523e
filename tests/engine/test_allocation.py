"""Allocation against an independent solver (bisection) and the reference page's ResNet table."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrow.engine.allocation import ER, ERK, Uniform, explicit, units_kept

fast = settings(max_examples=150, deadline=None)

RULES = {
    "uniform": (Uniform(), lambda shape: 1.0),
    "er": (ER(), lambda shape: 1 / shape[0] + 1 / shape[1]),
    "erk": (ERK(), lambda shape: sum(shape) / math.prod(shape)),
}
DENSITIES = (0.9, 0.5, 0.2, 0.1, 0.05, 0.01)

layer_shapes = st.lists(st.integers(1, 40), min_size=2, max_size=4).map(tuple)
models = st.lists(layer_shapes, min_size=1, max_size=8).map(
    lambda shapes: {f"layer{number}": shape for number, shape in enumerate(shapes)}
)
densities = st.floats(0.01, 1.0)
rules = st.sampled_from(list(RULES))


def bisection(raw, sizes, density):
    """Find eps with sum(min(1, eps·raw)·size) = density·sum(size): the sum grows with eps."""
    low, high = 0.0, 1.0 / min(raw)
    for _ in range(200):
        eps = (low + high) / 2
        kept = sum(min(1.0, eps * r) * n for r, n in zip(raw, sizes, strict=True))
        low, high = (eps, high) if kept < density * sum(sizes) else (low, eps)
    return [min(1.0, high * r) for r in raw]


def check_against_bisection(rule, shapes, density):
    allocation, raw = RULES[rule]
    found = allocation(shapes, density)
    expected = bisection(
        [raw(shape) for shape in shapes.values()], [math.prod(s) for s in shapes.values()], density
    )
    assert list(found) == list(shapes)
    assert list(found.values()) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("network", ["resnet18", "resnet50", "wrn-22-2"])
@pytest.mark.parametrize("rule", RULES)
def test_equals_bisection_on_real_networks(rule, network, density, networks):
    check_against_bisection(rule, networks[network], density)


@fast
@given(rules, models, densities)
def test_equals_bisection_on_any_model(rule, shapes, density):
    check_against_bisection(rule, shapes, density)


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("network", ["resnet18", "resnet50", "wrn-22-2"])
def test_the_counts_meet_the_budget_to_half_a_unit_a_layer(network, density, networks):
    shapes = networks[network]
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    kept = sum(units_kept(d, sizes[name]) for name, d in ERK()(shapes, density).items())
    assert abs(kept - density * sum(sizes.values())) <= len(shapes) / 2


@fast
@given(rules, models, densities)
def test_the_counts_of_any_model_meet_the_budget_to_one_unit_a_layer(rule, shapes, density):
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    shares = RULES[rule][0](shapes, density)
    kept = sum(units_kept(share, sizes[name]) for name, share in shares.items())
    assert abs(kept - density * sum(sizes.values())) <= len(shapes)


@fast
@given(rules, models, densities)
def test_the_higher_the_raw_density_the_denser_and_equals_move_together(rule, shapes, density):
    allocation, raw = RULES[rule]
    ranked = sorted((allocation.raw(shapes[n]), d) for n, d in allocation(shapes, density).items())
    for (one, less), (other, more) in pairwise(ranked):
        assert 0 < less <= more <= 1
        assert one != other or less == more
    assert [raw(s) for s in shapes.values()] == pytest.approx(
        [allocation.raw(s) for s in shapes.values()]
    )


class TestResNet18:
    """The reference page's measurement of RigL's released loop, section 6."""

    @pytest.mark.parametrize(
        ("density", "n_dense", "deepest"),
        [(0.9, 18, 0.84), (0.5, 14, 0.36), (0.2, 9, 0.12), (0.1, 4, 0.055), (0.05, 2, 0.026)],
    )
    def test_as_many_layers_are_dense_and_the_deepest_is_as_sparse(
        self, density, n_dense, deepest, networks
    ):
        shares = ERK()(networks["resnet18"], density)
        assert sum(share == 1 for share in shares.values()) == n_dense
        digits = 3 if deepest < 0.1 else 2
        assert round(shares["l3.1.conv2"], digits) == deepest

    @pytest.mark.parametrize(
        ("density", "dense"),
        [(0.1, {"conv1", "fc", "l1.sc", "l2.sc"}), (0.05, {"conv1", "l1.sc"})],
    )
    def test_the_same_layers_are_dense(self, density, dense, networks):
        shares = ERK()(networks["resnet18"], density)
        assert {name for name, share in shares.items() if share == 1} == dense


class TestEdges:
    @pytest.mark.parametrize("rule", RULES)
    def test_density_one_is_dense_everywhere(self, rule, networks):
        shares = RULES[rule][0](networks["resnet50"], 1.0)
        assert all(units_kept(share, 10**9) == 10**9 for share in shares.values())

    @pytest.mark.parametrize("rule", RULES)
    @pytest.mark.parametrize("density", [0.003, 0.1, 0.5, 1.0])
    def test_one_layer_takes_the_whole_density(self, rule, density):
        assert RULES[rule][0]({"only": (40, 30)}, density)["only"] == pytest.approx(density)

    def test_depthwise_convolutions_go_dense_first(self):
        shapes = {"point": (64, 64, 1, 1), "depth": (64, 1, 3, 3), "full": (64, 64, 3, 3)}
        shares = ERK()(shapes, 0.1)
        assert shares["depth"] == 1 > shares["point"] > shares["full"]

    def test_er_does_not_see_kernels(self):
        shares = ER()({"narrow": (32, 32, 1, 1), "wide": (32, 32, 7, 7)}, 0.1)
        assert shares["narrow"] == shares["wide"] == pytest.approx(0.1)

    @pytest.mark.parametrize("rule", [Uniform, ER, ERK])
    def test_layers_held_dense_are_paid_by_the_others(self, rule, networks):
        shapes = networks["resnet18"]
        shares = rule(dense=("conv1", "*.sc"))(shapes, 0.1)
        assert all(shares[name] == 1 for name in ("conv1", "l1.sc", "l2.sc", "l3.sc"))
        assert shares["l3.1.conv2"] < rule()(shapes, 0.1)["l3.1.conv2"]
        kept = sum(share * math.prod(shapes[name]) for name, share in shares.items())
        assert kept == pytest.approx(0.1 * sum(map(math.prod, shapes.values())))

    @pytest.mark.parametrize(
        ("dense", "density"), [(("big",), 0.5), (("big", "small"), 0.99), (("big",), 0.9)]
    )
    def test_a_budget_that_the_dense_layers_exceed_or_exhaust_is_refused(self, dense, density):
        shapes = {"big": (90, 10), "small": (10, 10)}
        with pytest.raises(ValueError, match=rf"density={density}: .*raise the density above"):
            ERK(dense=dense)(shapes, density)

    def test_every_layer_may_be_held_dense_at_density_one(self):
        assert Uniform(dense=("*",))({"a": (3, 3), "b": (4, 4)}, 1.0) == {"a": 1.0, "b": 1.0}

    def test_a_dense_glob_that_matches_nothing_is_refused(self):
        with pytest.raises(ValueError, match=r"dense=.*'head\*' matches none of \['body'\]"):
            ERK(dense=("head*",))({"body": (3, 3)}, 0.5)

    def test_a_bare_string_of_dense_is_refused(self):
        with pytest.raises(TypeError, match="dense='fc': a tuple"):
            ERK(dense="fc")

    @pytest.mark.parametrize(
        ("density", "error"),
        [
            (0, ValueError),
            (-0.1, ValueError),
            (1.5, ValueError),
            (math.nan, ValueError),
            (True, TypeError),
            ("x", TypeError),
            (None, TypeError),
        ],
    )
    def test_a_density_that_is_none_is_refused(self, density, error):
        with pytest.raises(error, match=rf"density={density!r}"):
            Uniform()({"a": (3, 3)}, density)


class TestExplicit:
    def test_the_first_glob_that_matches_decides(self):
        names = ["fc1.weight", "fc2.weight", "head.weight"]
        found = explicit(names, {"fc1.*": 0.5, "fc*": 0.25, "*": 1})
        assert list(found.values()) == [0.5, 0.25, 1]

    @pytest.mark.parametrize(
        ("given_rules", "message"),
        [
            ({"a": 0.5}, r"no glob of \['a'\] matches 'b'"),
            ({"*": 0.5, "c": 0.5}, "glob 'c' matches none"),
            ({"*": 0.0}, r"density\['\*'\]=0.0: must lie in \(0, 1\]"),
            ({"*": 1.1}, r"density\['\*'\]=1.1"),
            ({}, "no glob"),
        ],
    )
    def test_rules_that_do_not_cover_the_layers_are_refused(self, given_rules, message):
        with pytest.raises(ValueError, match=message):
            explicit(["a", "b"], given_rules)


class TestUnitsKept:
    @pytest.mark.parametrize(
        ("density", "units", "count"),
        [(0.1, 25, 3), (0.1, 24, 2), (0.5, 1, 1), (0.01, 1, 1), (0.001, 10, 1), (1, 7, 7)],
    )
    def test_rounds_to_nearest_halves_up_and_never_to_nothing(self, density, units, count):
        assert units_kept(density, units) == count

    @fast
    @given(densities, st.integers(1, 10**9))
    def test_is_within_half_a_unit_unless_the_layer_would_die(self, density, units):
        count = units_kept(density, units)
        assert 1 <= count <= units
        assert count == 1 or abs(count - density * units) <= 0.5
