"""What an update proposes: truth tables on eight weights, and exact counts in every combination."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import regrow
from regrow.engine.criteria import (
    AverageGradient,
    GradientStep,
    LegacySign,
    MagnitudePlusGradient,
    ReciprocalSensitivity,
    Running,
    Sensitivity,
    Taylor,
    WeightTimesGradient,
)
from regrow.engine.links import LinkPrediction, RelativeImportance, Soft
from regrow.engine.patterns import NM, Block, Channel, Element, FanIn, Kernel
from regrow.engine.scores import Gradient, Magnitude, Momentum, Random, SignedMagnitude
from regrow.engine.selection import seeded_generator
from regrow.engine.update import Moves
from tests.engine.growths import GROWS

fast = settings(max_examples=150, deadline=None)

DROPS = (
    Magnitude(),
    SignedMagnitude(),
    LegacySign(),
    MagnitudePlusGradient(0.1),
    WeightTimesGradient(),
    Taylor(),
    Sensitivity(),
    ReciprocalSensitivity(),
    GradientStep(),
    Random(),
    Gradient(),
    Momentum(),
    AverageGradient(),
    Running(Magnitude()),
    Running(WeightTimesGradient()),
    RelativeImportance(),
    Soft(Magnitude()),
)


class TestOneLayer:
    """Eight weights, four of them active."""

    weight = torch.tensor([[0.9, -0.1, 0.5, -0.7, 0.0, 0.0, 0.0, 0.0]])
    gradient = torch.tensor([[0.0, 0.4, 0.0, 9.0, 0.1, -0.9, 0.3, 0.0]])

    @pytest.fixture
    def proposed(self, layer, proposal):
        def propose(gradient=self.gradient, moves=(0, 1, 0), **options):
            method = regrow.Dynamic(density=0.5, **options)
            signals = {"w": {"weight": self.weight, "gradient": gradient}}
            layers = [layer((1, 8), 4, mask=self.weight != 0)]
            return proposal(method, layers, signals, {"w": Moves(*moves)})["w"][0].int().tolist()

        return propose

    @pytest.mark.parametrize(
        ("moves", "mask"),
        [
            ((0, 0, 0), [1, 1, 1, 1, 0, 0, 0, 0]),
            ((0, 1, 0), [1, 0, 1, 1, 0, 1, 0, 0]),
            # Of the two dropped the one with gradient 0.4 is grown again, before 0.3.
            ((0, 2, 0), [1, 1, 0, 1, 0, 1, 0, 0]),
            ((0, 4, 0), [0, 1, 0, 1, 0, 1, 1, 0]),
            ((2, 0, 0), [1, 0, 0, 1, 0, 0, 0, 0]),
            ((0, 0, 2), [1, 1, 1, 1, 0, 1, 1, 0]),
            # Three go and one comes back: the one with gradient 9.
            ((2, 1, 0), [1, 0, 0, 1, 0, 0, 0, 0]),
            ((0, 1, 1), [1, 1, 1, 1, 0, 1, 0, 0]),
        ],
    )
    def test_dropped_weights_compete_for_growth(self, proposed, moves, mask):
        assert proposed(moves=moves) == mask

    @pytest.mark.parametrize(
        ("moves", "mask"),
        [
            ((0, 1, 0), [1, 0, 1, 1, 0, 1, 0, 0]),
            ((0, 2, 0), [1, 0, 0, 1, 0, 1, 1, 0]),
            ((0, 4, 0), [0, 0, 0, 0, 1, 1, 1, 1]),
            ((1, 1, 0), [1, 0, 0, 1, 0, 1, 0, 0]),
        ],
    )
    def test_dropped_weights_stay_dropped_if_told_to(self, proposed, moves, mask):
        assert proposed(moves=moves, regrow_dropped=False) == mask

    def test_without_any_gradient_the_first_candidates_are_grown(self, proposed):
        none = torch.zeros(1, 8)
        assert proposed(none) == [1, 1, 1, 1, 0, 0, 0, 0]
        assert proposed(none, regrow_dropped=False) == [1, 0, 1, 1, 1, 0, 0, 0]

    def test_set_drops_of_each_sign(self, proposed):
        found = proposed(moves=(2, 0, 0), drop=SignedMagnitude(), grow=Random())
        assert found == [1, 0, 0, 1, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("exchange", "mask"),
    [
        # 0.1 goes from the first group; of the rest of it the last has the largest gradient.
        (1, [1, 0, 0, 1, 1, 1, 0, 0]),
        # 0.5 goes from the second; it has the largest gradient there, and comes back.
        (2, [1, 0, 0, 1, 1, 1, 0, 0]),
        (4, [0, 0, 1, 1, 1, 0, 0, 1]),
    ],
)
@pytest.mark.parametrize("pattern", [NM(2, 4), FanIn()])
def test_every_group_grows_as_many_as_it_lost(layer, proposal, pattern, exchange, mask):
    weight = torch.tensor([[0.9, -0.1, 0.0, 0.0], [0.5, -0.7, 0.0, 0.0]])
    gradient = torch.tensor([[0.1, 0.2, 0.3, -0.4], [0.9, 0.0, 0.1, 0.2]])
    method = regrow.Dynamic(density=0.5, pattern=pattern)
    layers = [layer((2, 4), 4, pattern, mask=weight != 0)]
    signals = {"w": {"weight": weight, "gradient": gradient}}
    found = proposal(method, layers, signals, {"w": Moves(exchange=exchange)})["w"]
    assert found.flatten().int().tolist() == mask


class TestLayersTogether:
    """Two layers of eight, four active in each: the first has the smaller weights."""

    # Growth goes from the end; momentum is three times as strong in a as in b.
    a = torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.0, 0.0, 0.0, 0.0]])
    gradient = torch.tensor([[0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 3.0, 4.0]])

    @pytest.fixture
    def proposed(self, layer, proposal):
        def propose(moves, fraction=0.0, **options):
            method = regrow.Dynamic(density=0.5, **options)
            layers, signals = [], {}
            for name, weight, pull in (("a", self.a, 3.0), ("b", 10 * self.a, -1.0)):
                layers.append(layer((1, 8), 4, name=name, mask=weight != 0))
                signals[name] = {"weight": weight, "gradient": self.gradient}
                signals[name]["momentum"] = torch.full((1, 8), pull)
            found = proposal(method, layers, signals, dict.fromkeys("ab", Moves(*moves)), fraction)
            return ["".join(map(str, units[0].int().tolist())) for units in found.values()]

        return propose

    @pytest.mark.parametrize(
        ("options", "moves", "masks"),
        [
            ({}, (0, 2, 0), ["00110011", "00110011"]),
            # The four lowest of all eight would be the whole of a: its best stays, 1.0 goes.
            ({"threshold": "global"}, (0, 2, 0), ["00010111", "01110001"]),
            ({"threshold": "global"}, (0, 1, 0), ["00110011", "11110000"]),
            ({"shrink": "global"}, (2, 0, 0), ["00010000", "01110000"]),
            ({"shrink": "global"}, (1, 0, 0), ["00110000", "11110000"]),
            ({}, (2, 0, 0), ["00110000", "00110000"]),
            # Each layer first shrinks by itself, then 0.3 and 0.4's rival 2.0 are compared.
            ({"threshold": "global"}, (1, 1, 0), ["00010011", "01110000"]),
        ],
    )
    def test_thresholds(self, proposed, options, moves, masks):
        assert proposed(moves, **options) == masks

    @pytest.mark.parametrize(
        ("exchange", "masks"),
        [
            # 2, 4, 6 and 8 go in all and are shared 3 : 1; of 1.5 and 0.5 the first is rounded up.
            (1, ["01110011", "01110000"]),
            (2, ["00110111", "00110001"]),
            # 6 · 3/4 = 4.5 and 1.5; of a, whose 0.4 stays, all but two are active then.
            (3, ["10011111", "00010001"]),
            # All go; of a's equal gradients of zero the first two are taken.
            (4, ["11001111", "00000011"]),
        ],
    )
    def test_what_all_dropped_is_shared_by_momentum(self, proposed, exchange, masks):
        assert proposed((0, exchange, 0), redistribute="momentum") == masks

    def test_what_all_dropped_is_shared_by_gradient(self, proposed):
        """Gradients are as strong in both layers' active weights (zero): room decides."""
        assert proposed((0, 2, 0), redistribute="gradient") == ["00110011", "00110011"]

    def test_a_threshold_over_all_layers_and_redistribution_compose(self, proposed):
        """1.0 and all of a but 0.4 go; a is the stronger and gets three of the four."""
        found = proposed((0, 2, 0), threshold="global", redistribute="momentum")
        assert found == ["00010111", "01110001"]


@st.composite
def situations(draw):
    """Layers with ties, perhaps with held weights, and moves that are possible in them."""
    pattern = draw(
        st.sampled_from([Element(), Kernel(), Channel(), Block(2), Block(3), FanIn(), NM(1, 4)])
    )
    grouped = isinstance(pattern, FanIn | NM)
    one, other = st.sampled_from([None, 0.2]), st.sampled_from(["layer", "global"])
    options = {
        "density": 0.25 if isinstance(pattern, NM) else 0.5,
        "pattern": pattern,
        "drop": draw(st.sampled_from(DROPS)),
        "grow": draw(st.sampled_from(GROWS)),
        "threshold": draw(other),
        "shrink": draw(other),
        "redistribute": draw(st.sampled_from([None, "momentum", "gradient"])),
        "initial_density": draw(one),
        "regrow_dropped": draw(st.booleans()),
    }
    try:
        method = regrow.Dynamic(**options)
    except ValueError:  # refused, with the reason
        assume(False)
    shapes = [(3, 4), (2, 8, 2, 3), (5, 4, 1)] if grouped else [(1, 1), (7, 5), (4, 3, 2, 2)]
    layers = {}
    for name in "abc"[: draw(st.integers(1, 3))]:
        shape = draw(st.sampled_from(shapes))
        free = torch.rand(pattern.grid(shape), generator=seeded_generator(draw(st.integers(0, 9))))
        free = free < (2 if grouped else draw(st.sampled_from([0.5, 0.9, 2])))
        free.view(-1)[0] = True
        n = int(free.sum())
        active = pattern.kept(draw(st.floats(0.01, 1)), shape) if grouped else None
        active = active or draw(st.integers(1, n))
        target = active if grouped else draw(st.integers(1, n))
        layers[name] = (shape, free, active, target if options["initial_density"] else active)
    return method, layers, draw(st.floats(0, 1))


kinds = st.sampled_from(["normal", "signs", "equal", "zero"])


@fast
@given(situations(), kinds, kinds)
def test_counts_are_exact_whatever_the_ties_and_the_combination(
    filled, layer, proposal, situation, weight_kind, gradient_kind
):
    method, planned, fraction = situation
    pattern = method.pattern
    assume(not (isinstance(pattern, Channel) and isinstance(method.grow, LinkPrediction)))
    layers, signals, moves = [], {}, {}
    for name, (shape, free, active, target) in planned.items():
        available = None if bool(free.all()) else pattern.expand(free, shape)
        masked = layer(shape, active, pattern, name=name, available=available)
        layers.append(masked)
        moves[name] = method.moves(active, target, masked.n_free, fraction)
        gradient = filled(shape, gradient_kind, seed=1)
        signals[name] = {"weight": filled(shape, weight_kind) * masked.mask} | dict.fromkeys(
            ("gradient", "momentum", "running"), gradient
        )
    assume(any(moves.values()))
    before = {masked.name: masked.units() for masked in layers}
    after = proposal(method, layers, signals, moves, fraction)
    change = sum(move.expand - move.shrink for move in moves.values())
    assert sum(int(u.sum()) for u in after.values()) == sum(m.active for m in layers) + change
    for masked in layers:
        units, was, move = after[masked.name], before[masked.name], moves[masked.name]
        dropped, grown = int((was & ~units).sum()), int((units & ~was).sum())
        assert masked.units().equal(was)
        assert units.any()
        assert masked.free is None or not (units & ~masked.free).any()
        if method.shrink == "layer" and method.redistribute is None:
            assert int(units.sum()) == masked.active + move.expand - move.shrink
            if method.threshold == "layer" and method.drop.exact:
                assert dropped <= move.shrink + move.exchange
                assert grown <= move.exchange + move.expand
                if not method.regrow_dropped:
                    assert (dropped, grown) == (
                        move.shrink + move.exchange,
                        move.exchange + move.expand,
                    )
        if (group := pattern.group(masked.planned.shape)) is not None:
            assert units.reshape(-1, group).sum(1).unique().numel() == 1


class TestWhatALayerCanGive:
    """A layer never grows more than it has room for, and never loses its last unit."""

    small, large = torch.full((1, 8), 0.1), torch.full((1, 8), 9.0)

    @pytest.fixture
    def proposed(self, layer, proposal):
        def propose(active, moves, fraction=0.0, **options):
            method = regrow.Dynamic(density=0.5, **options)
            layers, signals = [], {}
            for name, weight, n in zip("ab", (self.small, self.large), active, strict=True):
                mask = torch.arange(8).reshape(1, 8) < n
                layers.append(layer((1, 8), n, name=name, mask=mask))
                signals[name] = {"weight": weight * mask, "gradient": weight}
                signals[name]["momentum"] = torch.full((1, 8), float(name == "b"))
            moves = dict(zip("ab", (Moves(*move) for move in moves), strict=True))
            found = proposal(method, layers, signals, moves, fraction)
            return [int(units.sum()) for units in found.values()]

        return propose

    def test_when_a_threshold_over_all_layers_falls_on_an_almost_dense_one(self, proposed):
        """Six go, all from a, which has two free places only."""
        options = {"threshold": "global", "regrow_dropped": False}
        assert proposed((6, 4), [(0, 2, 0), (0, 4, 0)], **options) == [6, 4]

    def test_when_all_layers_shrink_together_and_then_exchange(self, proposed):
        """Two go for good; three of the four left would be exchanged, but only two were free."""
        options = {"shrink": "global", "regrow_dropped": False}
        found = proposed((6, 6), [(1, 2, 0), (1, 2, 0)], fraction=0.75, **options)
        assert sum(found) == 10

    @pytest.mark.parametrize("threshold", ["layer", "global"])
    def test_when_one_layer_grows_denser_while_the_other_shrinks(self, proposed, threshold):
        """The first has two free places, and one of them is for its higher density."""
        options = {"shrink": "global", "threshold": threshold, "regrow_dropped": False}
        found = proposed((6, 6), [(0, 2, 1), (1, 2, 0)], fraction=0.75, **options)
        assert sum(found) == 12

    def test_when_all_that_was_dropped_is_shared_out_elsewhere(self, proposed):
        """Nothing pulls units to a, and all of its own went."""
        found = proposed((4, 4), [(0, 4, 0), (0, 4, 0)], redistribute="momentum")
        assert sum(found) == 8
        assert min(found) >= 1


def test_random_drops_over_all_layers_spare_nobody(layer, proposal, p_value):
    method = regrow.Dynamic(density=0.5, drop=Random(), threshold="global", shrink="global")
    layers = [layer((1, 8), 8, name=name) for name in "ab"]
    signals = {name: {"weight": torch.ones(1, 8)} for name in "ab"}
    moves, draws = {"a": Moves(shrink=4), "b": Moves(shrink=4)}, 1500
    gone = torch.zeros(16)
    for seed in range(draws):
        found = proposal(method, layers, signals, moves, seed=seed)
        gone += torch.cat([~units.flatten() for units in found.values()])
    assert p_value(gone, draws / 2, (1 - 8 / 16) * 16 / 15) > 1e-3
