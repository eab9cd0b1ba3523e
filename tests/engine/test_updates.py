"""After every update of every method: exact counts, exact zeros, and the right statistics."""

from __future__ import annotations

import copy
import dataclasses
import math
from itertools import combinations

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import regrow
from regrow.engine.patterns import Block, Channel, Element, InputChannel, Kernel
from regrow.engine.scores import Gradient, Magnitude, Random, SignedMagnitude

START, STOP, TOTAL = 1, 6, 8  # one update at every step of this window


# Those that need data to start, or whose counts follow rules of their own (tested apart).
OWN_COUNTS = (
    regrow.ACDC,
    regrow.SRigL,
    regrow.DynamicNM,
    regrow.SNIP,
    regrow.GraSP,
    regrow.SynFlow,
    regrow.LTH,
    regrow.OMP,
)


@st.composite
def methods(draw):
    """Every registered method, and free combinations of all choices."""
    simple = [kind for kind in regrow.METHODS.values() if kind not in OWN_COUNTS]
    kind = draw(st.sampled_from([*simple, regrow.Dynamic, regrow.Dynamic]))
    options = {
        "density": draw(st.floats(0.01, 0.99)),
        "pattern": draw(
            st.sampled_from([Element(), Kernel(), Channel(), InputChannel(), Block(2), Block(3)])
        ),
        "update_every": 1,
        "start_at": START,
        "stop_at": STOP,
        "regrow_dropped": draw(st.booleans()),
        "on_grow": draw(st.sampled_from(["zero", "keep", "mean"])),
    }
    if kind is regrow.Dynamic:
        options |= {
            "drop": draw(st.sampled_from([Magnitude(), SignedMagnitude(), Gradient(), Random()])),
            "grow": draw(st.sampled_from([Gradient(), Random()])),
            "drop_fraction": draw(st.floats(0.0, 1.0)),
            "initial_density": draw(st.sampled_from([None, 0.2, 1.0])),
            "replaces_step": draw(st.booleans()),
        }
    taken = {field.name for field in dataclasses.fields(kind) if field.init}
    try:
        return kind(**{name: value for name, value in options.items() if name in taken})
    except ValueError:  # refused, with the reason
        assume(False)


layer_shapes = st.lists(
    st.sampled_from([(1, 1), (1, 9), (7, 5), (4, 3, 2, 2), (2, 3, 1), (5, 1, 3, 3)]),
    min_size=1,
    max_size=3,
)
kinds = st.sampled_from(["normal", "signs", "equal", "zero"])


def demanded(sparse, nearest_count):
    """The count of each layer after this step; the paths are pinned in test_methods.py."""
    progress = min(max((sparse.steps - START) / (STOP - START), 0.0), 1.0)
    moves = getattr(sparse.method, "initial_density", None) is not None
    remaining = sparse.method.density_path(progress) if moves and progress < 1 else 0.0
    return {
        layer.name: nearest_count(
            layer.final_density + (layer.initial_density - layer.final_density) * remaining,
            layer.units,
        )
        for layer in sparse.plan.layers
    }


@settings(max_examples=120, deadline=None)
@given(methods(), layer_shapes, kinds, kinds)
def test_after_every_step_counts_are_exact_and_dropped_weights_zero(
    weights, step_by_hand, nearest_count, method, shapes, weight_kind, gradient_kind
):
    model = weights(shapes, weight_kind)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    sparse = regrow.sparsify(model, optimizer, method, total_steps=TOTAL, include="*")
    pattern = method.pattern
    for step in range(TOTAL):
        before, n_updates = sparse.masks, len(sparse.history)
        step_by_hand(model, optimizer, gradient_kind, step)
        counts = demanded(sparse, nearest_count)
        if getattr(method, "redistribute", None) or getattr(method, "shrink", None) == "global":
            found = {
                name: int((pattern.reduce(m.float()) > 0).sum()) for name, m in sparse.masks.items()
            }
            assert sum(found.values()) == sum(counts.values())
            assert min(found.values()) >= 1
            counts = found
        changes = sparse.history[-1].layers if len(sparse.history) > n_updates else {}
        for layer, stored in zip(sparse.plan.layers, sparse._topology.layers, strict=True):
            weight, mask = model.get_parameter(layer.name), sparse.masks[layer.name]
            assert set(stored.mask.unique().tolist()) <= {0.0, 1.0}
            assert not weight[~mask].any()
            units = pattern.reduce(mask.float()) > 0
            assert mask.equal(pattern.expand(units, layer.shape))
            assert int(units.sum()) == counts[layer.name]
            was = pattern.reduce(before[layer.name].float()) > 0
            dropped, grown = int((was & ~units).sum()), int((units & ~was).sum())
            assert layer.name in changes or dropped == grown == 0
            if layer.name in changes:
                assert dataclasses.astuple(changes[layer.name]) == (
                    dropped,
                    grown,
                    counts[layer.name],
                )


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([0.1, 0.5, 1.0]), st.floats(0.01, 0.99), kinds, kinds)
def test_what_was_dropped_is_gone_unless_it_may_be_regrown(
    weights, step_by_hand, fraction, density, weight_kind, gradient_kind
):
    model = weights([(7, 5), (1, 1), (4, 3, 2, 2)], weight_kind)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    method = regrow.RigL(
        density=density, drop_fraction=fraction, update_every=1, regrow_dropped=False
    )
    sparse = regrow.sparsify(model, optimizer, method, total_steps=TOTAL, include="*")
    step_by_hand(model, optimizer, gradient_kind, 0)
    changes = sparse.history[0].layers if sparse.history else {}
    for layer in sparse.plan.layers:
        exchanged = min(math.floor(fraction * layer.final), layer.units - layer.final)
        change = changes.get(layer.name)
        assert (change.dropped, change.grown) == (exchanged,) * 2 if change else exchanged == 0


def test_counts_do_not_drift_over_a_thousand_updates_as_under_bernoulli_growth(weights):
    """Growing each inactive unit with probability k/n gave 0 to 9 times the count (table 2.4)."""
    model = weights([(50, 100)])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    method = regrow.SET(density=0.1, drop_fraction=0.5, update_every=1)
    sparse = regrow.sparsify(model, optimizer, method, total_steps=1002, include="*")
    model.w0.grad = torch.zeros_like(model.w0)
    for _ in range(1001):
        optimizer.step()
    assert len(sparse.history) == 1001
    assert {update.layers["w0"].active for update in sparse.history} == {500}
    assert sum(update.layers["w0"].grown for update in sparse.history) > 200_000
    assert int(sparse.masks["w0"].sum()) == 500


class TestMethods:
    def test_gradual_pruning_keeps_the_largest_and_regrows_none(self, mlp, train):
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        method = regrow.GMP(density=0.1, update_every=7, start_at=3, stop_at=20)
        sparse = regrow.sparsify(model, optimizer, method, total_steps=24)
        dense = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(24):
            before, n_updates = sparse.masks["0.weight"], len(sparse.history)
            twin = copy.deepcopy(model)
            dense.param_groups[0]["params"] = list(twin.parameters())
            train(twin, dense, [step])
            train(model, optimizer, [step])
            after = sparse.masks["0.weight"]
            assert not (after & ~before).any()
            if len(sparse.history) > n_updates:
                magnitude = twin[0].weight.abs()
                assert magnitude[after].min() >= magnitude[before & ~after].max()
        assert [update.step for update in sparse.history] == [7, 14, 20]
        assert int(sparse.masks["0.weight"].sum()) == round(0.1 * 192)

    @pytest.mark.parametrize("method", [regrow.Dense(), regrow.Static(density=1.0)])
    def test_density_one_is_dense_training_bit_for_bit(self, method, mlp, train, assert_same):
        runs = []
        for sparse_run in (True, False):
            model = mlp()
            optimizer = torch.optim.AdamW(model.parameters())
            if sparse_run:
                assert regrow.sparsify(model, optimizer, method, total_steps=9).density == 1.0
            train(model, optimizer, range(9))
            runs.append((model.state_dict(), optimizer.state_dict()))
        assert_same(*runs)

    @pytest.mark.parametrize("kind", [regrow.SET, regrow.RigL])
    @pytest.mark.parametrize("still", [{"drop_fraction": 0.0}, {"stop_at": 0}], ids=str)
    def test_a_method_that_moves_nothing_is_static(self, kind, still, mlp, train, assert_same):
        runs = []
        for method in (kind(density=0.3, update_every=2, **still), regrow.Static(density=0.3)):
            model = mlp()
            optimizer = torch.optim.AdamW(model.parameters())
            sparse = regrow.sparsify(model, optimizer, method, total_steps=9)
            train(model, optimizer, range(9))
            assert sparse.history == []
            runs.append((model.state_dict(), optimizer.state_dict(), sparse.masks))
        assert_same(*runs)

    def test_a_schedule_may_be_any_function(self, mlp, train, assert_same):
        runs = []
        for fraction in (0.4, lambda _: 0.4):
            model = mlp()
            optimizer = torch.optim.AdamW(model.parameters())
            method = regrow.SET(density=0.3, update_every=2, drop_fraction=fraction)
            sparse = regrow.sparsify(model, optimizer, method, total_steps=9)
            train(model, optimizer, range(9))
            runs.append((model.state_dict(), sparse.masks))
        assert_same(*runs)

    def test_a_density_path_may_rise_again(self, weights, step_by_hand):
        """As in alternating compressed and decompressed training (AC/DC)."""
        model = weights([(10, 10)])
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        path = {2: 0.5, 4: 0.0, 6: 1.0}
        method = regrow.GMP(
            density=0.2,
            update_every=2,
            start_at=0,
            stop_at=8,
            density_path=lambda progress: path[round(8 * progress)],
        )
        sparse = regrow.sparsify(model, optimizer, method, total_steps=10, include="*")
        counts = []
        for step in range(10):
            step_by_hand(model, optimizer, "normal", step)
            counts.append(int(sparse.masks["w0"].sum()))
        assert counts == [100, 60, 60, 20, 20, 100, 100, 20, 20, 20]


@pytest.mark.parametrize("regrow_dropped", [True, False])
def test_random_growth_explores_as_itops_closed_form_says(weights, regrow_dropped):
    """R = 1 - (1-d)·prod(1 - p), p the chance of one candidate to be grown (section 10, G)."""
    n, density, rho, updates = 200_000, 0.1, 0.5, 20
    model = weights([(400, 500)])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    method = regrow.SET(
        density=density, drop_fraction=rho, update_every=1, regrow_dropped=regrow_dropped
    )
    sparse = regrow.sparsify(model, optimizer, method, total_steps=100, include="*")
    model.w0.grad = torch.zeros_like(model.w0)
    explored = sparse.masks["w0"]
    for _ in range(updates):
        optimizer.step()
        explored |= sparse.masks["w0"]
    candidates = 1 - density + (rho * density if regrow_dropped else 0)
    expected = 1 - (1 - density) * (1 - rho * density / candidates) ** updates
    deviation = math.sqrt(expected * (1 - expected) / n)
    assert abs(float(explored.float().mean()) - expected) < 4 * deviation


def test_choices_at_an_update_differ_by_layer_and_seed(weights, step_by_hand):
    """Both layers start dense and alike, so nothing else tells them apart."""

    def masks(seed):
        model = weights([(20, 20), (20, 20)], "equal")
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        method = regrow.GMP(density=0.5, drop=Random(), update_every=1, start_at=0, stop_at=1)
        sparse = regrow.sparsify(model, optimizer, method, total_steps=9, include="*", seed=seed)
        step_by_hand(model, optimizer, "equal", 0)
        return list(sparse.masks.values())

    found = [*masks(0), *masks(1)]
    assert all(int(mask.sum()) == 200 for mask in found)
    assert not any(one.equal(other) for one, other in combinations(found, 2))


@pytest.mark.parametrize("method", ["SET", "RigL", "GMP", "Static"])
def test_the_same_seed_gives_the_same_run_and_another_seed_another(method, mlp, train):
    def masks(seed):
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        options = {} if method == "Static" else {"update_every": 3}
        chosen = regrow.METHODS[method](density=0.3, **options)
        sparse = regrow.sparsify(model, optimizer, chosen, total_steps=20, seed=seed)
        train(model, optimizer, range(20))
        return sparse.masks["0.weight"]

    assert masks(0).equal(masks(0))
    # Pruning draws nothing at random, so there the seed cannot matter.
    assert masks(0).equal(masks(1)) == (method == "GMP")
