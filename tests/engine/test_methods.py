"""Methods: when they update, how much they move, what they refuse."""

from __future__ import annotations

import dataclasses
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import regrow
from regrow.engine.allocation import Uniform
from regrow.engine.criteria import LegacySign, MagnitudePlusGradient
from regrow.engine.links import Soft
from regrow.engine.patterns import NM, FanIn
from regrow.engine.saliency import LargestWeights
from regrow.engine.schedules import Constant, Cosine, Linear
from regrow.engine.scores import Gradient, Magnitude, Momentum, Random, SignedMagnitude, Unfired
from regrow.engine.update import Moves

fast = settings(max_examples=200, deadline=None)

UNIFORM_SHAPES = {"a": (4, 4), "b": (2, 8)}


def update_steps(method, total_steps):
    """Walk through the run from update to update."""
    steps, step = [], 0
    while (step := method.next_update(step, total_steps)) is not None:
        steps.append(step)
    return steps


class TestWhen:
    @pytest.mark.parametrize(
        ("settings_", "total", "steps"),
        [
            ({"update_every": 100, "stop_at": 0.75}, 500, [100, 200, 300]),
            ({"update_every": 100, "stop_at": 300}, 500, [100, 200]),
            ({"update_every": 100, "stop_at": 301}, 500, [100, 200, 300]),
            ({"update_every": 100, "start_at": 150, "stop_at": 1.0}, 500, [200, 300, 400]),
            ({"update_every": 100, "start_at": 200, "stop_at": 1.0}, 500, [200, 300, 400]),
            ({"update_every": 1, "stop_at": 4}, 9, [1, 2, 3]),
            ({"update_every": 600, "stop_at": 1.0}, 500, []),
            ({"update_every": 1, "start_at": 3, "stop_at": 3}, 9, []),
            # A density that moves settles at stop_at, wherever that falls.
            ({"update_every": 100, "stop_at": 250, "initial_density": 1.0}, 500, [100, 200, 250]),
            ({"update_every": 100, "stop_at": 200, "initial_density": 0.5}, 500, [100, 200]),
            ({"update_every": 600, "stop_at": 250, "initial_density": 0.5}, 500, [250]),
        ],
    )
    def test_updates_fall_on_multiples_inside_the_window(self, settings_, total, steps):
        assert update_steps(regrow.Dynamic(density=0.1, **settings_), total) == steps

    @pytest.mark.parametrize("method", [regrow.Dense(), regrow.Static(density=0.1)])
    def test_methods_without_motion_never_update(self, method):
        assert update_steps(method, 1000) == []

    @fast
    @given(st.integers(1, 50), st.integers(0, 300), st.integers(0, 300), st.booleans())
    def test_next_update_equals_a_search_over_all_steps(self, every, start, stop, moving):
        if start > stop:
            start, stop = stop, start
        method = regrow.Dynamic(
            density=0.1,
            update_every=every,
            start_at=start,
            stop_at=stop,
            initial_density=0.5 if moving else None,
        )
        every_step = [
            step
            for step in range(1, 301)
            if (step % every == 0 and start <= step < stop) or (moving and step == stop)
        ]
        assert update_steps(method, 300) == every_step

    @fast
    @given(st.integers(1, 20), st.integers(0, 100), st.integers(0, 100))
    def test_next_update_is_the_same_from_any_step_in_the_interval(self, every, stop, step):
        method = regrow.Dynamic(density=0.1, update_every=every, stop_at=stop)
        following = [s for s in update_steps(method, 100) if s > step]
        assert method.next_update(step, 100) == (following[0] if following else None)

    @pytest.mark.parametrize(
        ("step", "progress"), [(0, 0.0), (100, 0.0), (200, 0.25), (300, 0.5), (500, 1.0), (9999, 1)]
    )
    def test_progress_runs_through_the_window(self, step, progress):
        method = regrow.Dynamic(density=0.1, start_at=100, stop_at=500)
        assert method.progress(step, 1000) == progress


class TestHowMuch:
    @pytest.mark.parametrize(
        ("options", "active", "target", "units", "progress", "moves"),
        [
            ({}, 10, 10, 100, 0.0, (0, 3, 0)),
            ({}, 10, 10, 100, 0.5, (0, 1, 0)),  # floor(0.15 · 10)
            ({}, 10, 10, 100, 1.0, (0, 0, 0)),
            ({}, 3, 3, 100, 0.0, (0, 0, 0)),  # floor(0.9)
            ({}, 100, 100, 100, 0.0, (0, 0, 0)),  # dense: nothing to exchange with
            ({}, 90, 90, 100, 0.0, (0, 27, 0)),  # dropped units compete for growth
            ({"regrow_dropped": False}, 90, 90, 100, 0.0, (0, 10, 0)),
            ({"drop_fraction": 1.0}, 10, 10, 100, 0.9, (0, 10, 0)),
            ({"drop_fraction": 1.0}, 10, 10, 100, 1.0, (0, 0, 0)),
            ({"drop_fraction": 0.0}, 50, 20, 100, 0.5, (30, 0, 0)),
            ({"drop_fraction": 0.5}, 50, 20, 100, 0.5, (30, 10, 0)),
            ({"drop_fraction": 0.5}, 20, 50, 100, 0.5, (0, 10, 30)),
            ({"drop_fraction": 0.5}, 50, 20, 100, 1.0, (30, 0, 0)),
            ({"drop_fraction": lambda progress: progress}, 10, 10, 100, 0.25, (0, 2, 0)),
        ],
    )
    def test_moves(self, options, active, target, units, progress, moves):
        method = regrow.Dynamic(density=0.1, **options)
        fraction = method.fraction_at(progress)
        assert method.moves(active, target, units, fraction) == Moves(*moves)

    @fast
    @given(st.integers(1, 50), st.data(), st.floats(0, 1), st.booleans())
    def test_moves_meet_the_target_and_never_ask_for_more_than_there_is(
        self, units, data, fraction, regrow_dropped
    ):
        active = data.draw(st.integers(1, units))
        target = data.draw(st.integers(1, units))
        method = regrow.Dynamic(density=0.1, regrow_dropped=regrow_dropped)
        moves = method.moves(active, target, units, fraction)
        drop, grow = moves.shrink + moves.exchange, moves.exchange + moves.expand
        assert active - drop + grow == target
        assert min(moves.shrink, moves.exchange, moves.expand) >= 0 == moves.shrink * moves.expand
        assert 0 <= drop <= active
        assert 0 <= grow <= units - active + (drop if regrow_dropped else 0)

    @fast
    @given(st.integers(1, 10_000), st.floats(0, 0.999))
    def test_rigl_exchanges_the_floor_of_its_cosine_share(self, active, progress):
        share = 0.3 / 2 * (1 + math.cos(math.pi * progress))
        method = regrow.RigL(density=0.1)
        moves = method.moves(active, active, 10 * active, method.fraction_at(progress))
        assert moves == Moves(exchange=math.floor(share * active))

    @pytest.mark.parametrize(
        ("progress", "exchange"),
        # Without a bound 0.2 of 120 go, then 0.1, then none.
        [(0.0, 24), (0.5, 24), (0.5625, 12), (0.7, 12), (0.75, 0), (1.0, 0)],
    )
    def test_mest_exchanges_less_and_less(self, progress, exchange):
        method = regrow.MEST(density=0.1)
        moves = method.moves(120, 120, 1200, method.fraction_at(progress))
        assert moves == Moves(exchange=exchange)

    @pytest.mark.parametrize(
        ("progress", "active", "moves"),
        [
            # 0.15, then 0.125 of 1200 between updates; every update goes down to 120 first.
            (0.0, 180, (0, 60, 0)),
            (0.5625, 180, (30, 30, 0)),
            (0.6, 150, (0, 30, 0)),
            (0.75, 150, (30, 0, 0)),
            (0.9, 120, (0, 0, 0)),
        ],
    )
    def test_mest_with_a_soft_bound_drops_to_its_density_at_every_update(
        self, progress, active, moves
    ):
        method = regrow.MEST(density=0.1, soft_memory=0.5)
        target = round(1200 * method.density_at(progress, method.initial_density, 0.1))
        found = method.moves(active, target, 1200, method.fraction_at(progress))
        assert found == Moves(*moves)
        assert active - found.shrink - found.exchange == 120

    @pytest.mark.parametrize("progress", [0.0, 0.1, 0.5, 0.9, 1.0])
    def test_gradual_pruning_follows_zhu_and_guptas_cubic_in_sparsity(self, progress):
        initial, final = 1 - 1.0, 1 - 0.1
        sparsity = final + (initial - final) * (1 - progress) ** 3
        density = regrow.GMP(density=0.1).density_at(progress, 1.0, 0.1)
        assert density == pytest.approx(1 - sparsity, abs=1e-12)

    def test_a_density_path_that_does_not_end_at_zero_still_settles(self):
        method = regrow.GMP(density=0.1, density_path=Constant(1.0))
        assert method.density_at(0.99, 1.0, 0.1) == 1.0
        assert method.density_at(1.0, 1.0, 0.1) == 0.1

    @pytest.mark.parametrize("schedule", [lambda _: 1.5, lambda _: -0.1, lambda _: math.nan])
    def test_a_share_outside_its_range_is_refused_when_it_appears(self, schedule):
        method = regrow.Dynamic(density=0.1, drop_fraction=schedule)
        with pytest.raises(ValueError, match=r"drop_fraction=.*at progress 0.5: must lie in 0..1"):
            method.fraction_at(0.5)

    def test_a_float_is_a_constant_share(self):
        number, schedule = (regrow.SET(density=0.1, drop_fraction=f) for f in (0.2, Constant(0.2)))
        for progress in (0.0, 0.3, 0.9):
            assert number.fraction_at(progress) == schedule.fraction_at(progress)


def test_a_density_may_be_a_number_of_numpy():
    for value in (np.float32(0.25), np.float64(0.25), np.float16(0.25)):
        method = regrow.GMP(density=value, initial_density=value)
        assert method == regrow.GMP(density=0.25, initial_density=0.25)
        assert type(method.density) is type(method.initial_density) is float
    assert type(regrow.Static(density=np.int64(1)).density) is float
    by_glob = regrow.Static(density={"*": np.float32(0.25)}).densities({"w": (2, 2)})
    assert type(by_glob["w"]) is float


class TestWhat:
    def test_the_named_settings(self):
        assert regrow.SET(density=0.1).drop == SignedMagnitude()
        assert regrow.SET(density=0.1).grow == Random()
        assert regrow.RigL(density=0.1).drop == Magnitude()
        assert regrow.RigL(density=0.1).grow == Gradient()
        assert regrow.RigL(density=0.1).drop_fraction == Cosine(0.3)
        assert regrow.RigL(density=0.1).replaces_step
        assert not regrow.SET(density=0.1).replaces_step
        assert regrow.SNFS(density=0.1).grow == Momentum()
        assert regrow.SNFS(density=0.1).redistribute == "momentum"
        assert regrow.MEST(density=0.1, gamma=0.5).drop == MagnitudePlusGradient(0.5)

    def test_variants_are_what_a_direct_call_makes(self):
        """dataclasses.replace makes variants: what one setting implies follows it."""
        legacy = regrow.SET(density=0.1, legacy=True)
        assert legacy.drop == LegacySign()
        plain = dataclasses.replace(legacy, legacy=False, drop=SignedMagnitude())
        assert plain == regrow.SET(density=0.1)
        assert dataclasses.replace(regrow.SET(density=0.1), legacy=True) == legacy
        soft = regrow.MEST(density=0.1, soft_memory=0.5, gamma=2.0)
        assert dataclasses.replace(soft, soft_memory=0.0, gamma=0.01) == regrow.MEST(density=0.1)
        assert dataclasses.replace(regrow.MEST(density=0.1), density=0.2) == regrow.MEST(
            density=0.2
        )

    @pytest.mark.parametrize(
        ("method", "reads"),
        [
            (regrow.SET(density=0.1), {}),
            (regrow.RigL(density=0.1), {"expand": "gradient", "exchange": "gradient"}),
            (regrow.GMP(density=0.1), {"expand": "gradient", "exchange": "gradient"}),
            (regrow.GMP(density=0.1, grow=Random()), {}),
            (
                regrow.Dynamic(density=0.1, drop=Gradient(), grow=Random()),
                {"shrink": "gradient", "exchange": "gradient"},
            ),
            (regrow.SNFS(density=0.1), {"expand": "momentum", "exchange": "momentum"}),
            (
                regrow.SET(density=0.1, redistribute="gradient"),
                {"expand": "gradient", "exchange": "gradient"},
            ),
            (regrow.MEST(density=0.1), {"shrink": "gradient", "exchange": "gradient"}),
        ],
        ids=str,
    )
    def test_signals_are_read_only_where_a_score_in_use_reads_them(self, method, reads):
        assert method.reads([Moves()]) == frozenset()
        for kind in ("shrink", "exchange", "expand"):
            read = method.reads([Moves(), Moves(**{kind: 2})])
            assert read == ({reads[kind]} if kind in reads else set())

    def test_start_and_end_densities(self):
        moving = regrow.Dynamic(density=0.1, initial_density=0.5, allocation=Uniform())
        assert moving.initial_densities(UNIFORM_SHAPES) == {"a": 0.5, "b": 0.5}
        assert moving.densities(UNIFORM_SHAPES) == {"a": 0.1, "b": 0.1}
        still = regrow.Static(density=0.1, allocation=Uniform())
        assert still.initial_densities(UNIFORM_SHAPES) == still.densities(UNIFORM_SHAPES)


class TestRefuses:
    @pytest.mark.parametrize("kind", [regrow.Static, regrow.SET, regrow.RigL, regrow.GMP])
    @pytest.mark.parametrize(
        ("density", "error"),
        [
            (0, ValueError),
            (1.5, ValueError),
            (-0.1, ValueError),
            (math.nan, ValueError),
            (True, TypeError),
            ("x", TypeError),
            (None, TypeError),
        ],
    )
    def test_a_density_outside_its_range(self, kind, density, error):
        with pytest.raises(error, match=rf"density={density!r}: .*\(0, 1\]"):
            kind(density=density)

    @pytest.mark.parametrize(
        ("argument", "value", "error", "allowed"),
        [
            ("allocation", 0.1, TypeError, "ERK"),
            ("pattern", "element", TypeError, "Element"),
            ("drop", "magnitude", TypeError, "Magnitude"),
            ("grow", Gradient, TypeError, "Gradient"),
            ("grow", Magnitude(), ValueError, "Random"),
            ("grow", SignedMagnitude(), ValueError, "Random"),
            ("drop", Unfired(), ValueError, "worth the same.*Random"),
            ("drop", Soft(Unfired()), ValueError, "worth the same.*Random"),
            ("update_every", 0, ValueError, "at least 1"),
            ("update_every", -5, ValueError, "at least 1"),
            ("update_every", 1.5, TypeError, "int is needed, such as 100"),
            ("update_every", True, TypeError, "int is needed, such as 100"),
            ("drop_fraction", 1.5, ValueError, r"0\.\.1"),
            ("drop_fraction", -0.1, ValueError, r"0\.\.1"),
            ("drop_fraction", "x", TypeError, ""),
            ("initial_density", 0.0, ValueError, r"\(0, 1\]"),
            ("initial_density", True, TypeError, r"\(0, 1\]"),
            ("density_path", 0.5, TypeError, ""),
            ("on_grow", "reset", ValueError, "zero, keep, mean"),
            ("threshold", "all", ValueError, "'layer', 'global'"),
            ("shrink", None, ValueError, "'layer', 'global'"),
            ("redistribute", "weight", ValueError, "None, 'momentum', 'gradient'"),
        ],
    )
    def test_other_arguments(self, argument, value, error, allowed):
        with pytest.raises(error, match=rf"{re.escape(f'{argument}={value!r}')}.*{allowed}"):
            regrow.Dynamic(density=0.1, **{argument: value})

    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            ({"redistribute": "momentum", "initial_density": 0.5}, "initial_density.*two rules"),
            ({"drop": LegacySign(), "initial_density": 0.5}, "LegacySign.*exact number"),
            ({"drop": LegacySign(), "redistribute": "gradient"}, "LegacySign.*exact number"),
            ({"drop": LegacySign(), "threshold": "global"}, "LegacySign.*exact number"),
            ({"drop": LegacySign(), "regrow_dropped": False}, "LegacySign.*exact number"),
            ({"pattern": FanIn(), "threshold": "global"}, r"FanIn\(\).*every group"),
            ({"pattern": FanIn(), "redistribute": "gradient"}, r"FanIn\(\).*every group"),
            ({"pattern": FanIn(), "initial_density": 0.5}, r"FanIn\(\).*every group"),
            ({"pattern": FanIn(), "regrow_dropped": False}, r"FanIn\(\).*every group"),
            ({"pattern": NM(2, 4)}, r"density=0\.1: with pattern=NM\(n=2, m=4\) it is 0\.5"),
        ],
    )
    def test_combinations_that_make_no_sense(self, options, reason):
        with pytest.raises(ValueError, match=reason):
            regrow.Dynamic(density=0.1, **options)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"soft_memory": -0.1}, r"soft_memory=-0\.1: must be at least 0"),
            ({"soft_memory": "x"}, "soft_memory='x'"),
            ({"density": {"*": 0.1}, "soft_memory": 0.5}, "soft_memory needs one density"),
            ({"gamma": -1.0}, r"gamma=-1\.0: must be at least 0"),
            ({"gamma": "x"}, r"gamma='x': int or float is needed, such as 0\.01"),
        ],
    )
    def test_what_mest_cannot_do(self, options, message):
        with pytest.raises((TypeError, ValueError), match=message):
            regrow.MEST(**{"density": 0.1} | options)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"drop": LegacySign()}, r"drop=LegacySign\(\) with legacy=False: .* legacy=True"),
            ({"drop": Magnitude(), "legacy": True}, r"legacy=True drops by LegacySign\(\), not by"),
            ({"legacy": "x"}, "legacy='x': bool is needed"),
        ],
    )
    def test_two_rules_for_what_set_drops(self, options, message):
        """Neither takes the other's place unseen."""
        with pytest.raises((TypeError, ValueError), match=message):
            regrow.SET(density=0.1, **options)

    @pytest.mark.parametrize(
        ("kind", "options", "who"),
        [
            (regrow.OMP, {}, "start with scope='global'"),
            (regrow.OMP, {"scope": "ratios"}, "start with scope='ratios'"),
            (regrow.RigL, {"start": LargestWeights()}, "start with scope='global'"),
            (regrow.ACDC, {}, "shrink='global'"),
            (regrow.GraNet, {}, "shrink='global'"),
            (regrow.SNFS, {}, "redistribute='momentum'"),
            (regrow.RigL, {"redistribute": "gradient"}, "redistribute='gradient'"),
        ],
    )
    def test_densities_by_glob_where_layers_share(self, kind, options, who):
        with pytest.raises(ValueError, match=rf"density=.*0\..*but {who} lets all layers decide"):
            kind(density={"0.*": 0.5, "*": 0.1}, **options)

    @pytest.mark.parametrize(
        ("kind", "options"),
        [
            (regrow.OMP, {"scope": "layer"}),
            (regrow.GMP, {}),
            (regrow.RigL, {"threshold": "global"}),  # each layer grows what it lost
        ],
    )
    def test_densities_by_glob_are_taken_where_each_layer_keeps_its_own(self, kind, options):
        method = kind(density={"0.*": 0.5, "*": 0.1}, **options)
        assert method.densities({"0.w": (4, 4), "1.w": (4, 4)}) == {"0.w": 0.5, "1.w": 0.1}

    def test_positional_arguments(self):
        with pytest.raises(TypeError, match="positional"):
            regrow.RigL(0.1)

    @pytest.mark.parametrize(
        ("window", "message"),
        [
            ({"stop_at": 1.5}, r"stop_at=1.5: must lie in 0\.\.1.0"),
            ({"stop_at": 1001}, r"stop_at=1001: must lie in 0\.\.1000"),
            ({"start_at": -1}, "start_at=-1"),
            ({"start_at": 0.8, "stop_at": 0.5}, "start_at=0.8 is step 800, after stop_at=0.5"),
        ],
    )
    def test_a_window_outside_the_run(self, window, message):
        with pytest.raises(ValueError, match=message):
            regrow.Dynamic(density=0.1, **window).next_update(0, 1000)


def test_linear_is_a_schedule_like_any_other():
    assert regrow.SET(density=0.1, drop_fraction=Linear(0.4)).fraction_at(0.5) == 0.2
