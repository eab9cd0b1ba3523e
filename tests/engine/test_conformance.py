"""One suite over every registered method: registering a method is enough to have it tested here.

What a method needs but does not default is found by its name (``NEEDED`` in conftest.py); settings
that deserve the whole suite as well are added to ``VARIANTS``.
"""

from __future__ import annotations

import copy
import math
import pickle
from dataclasses import astuple, fields

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

import regrow
from regrow.engine.criteria import (
    AverageGradient,
    GradientStep,
    MagnitudePlusGradient,
    ReciprocalSensitivity,
    Running,
    Taylor,
    WeightTimesGradient,
)
from regrow.engine.links import Soft
from regrow.engine.patterns import NM, Block, Channel, FanIn, InputChannel, Kernel
from regrow.engine.saliency import SynapticFlow
from regrow.engine.schedules import Cosine, Linear, Sigmoid, Steps
from regrow.engine.scores import Gradient, Magnitude, Momentum, Random, Unfired

TOTAL, STOPPED = 24, 7  # updates every two steps: stopped in the middle of an interval

VARIANTS = {
    "SET, legacy": (regrow.SET, {"legacy": True}),
    "MEST, soft memory": (regrow.MEST, {"soft_memory": 0.5}),
    "GMP, all layers together": (regrow.GMP, {"shrink": "global"}),
    "SRigL, ablating": (regrow.SRigL, {"gamma": 1.0, "drop_fraction": 0.5}),
    "CHTs, falling": (regrow.CHTs, {"initial_density": 0.6, "density_path": Sigmoid(1.0)}),
    "SNIP, by layer": (regrow.SNIP, {"scope": "layer"}),
    "SNIP, ratios": (regrow.SNIP, {"scope": "ratios"}),
    "RigL, 2:4": (regrow.RigL, {"density": 0.5, "pattern": NM(2, 4)}),
    "RigL, fan-in": (regrow.RigL, {"pattern": FanIn()}),
    "RigL, blocks": (regrow.RigL, {"pattern": Block(2), "regrow_dropped": False}),
    "SET, channels": (regrow.SET, {"pattern": Channel()}),
    "SET, input channels": (regrow.SET, {"pattern": InputChannel()}),
    "RigL, redistributed": (regrow.RigL, {"redistribute": "gradient"}),
    "whole kernels": (
        regrow.Dynamic,
        {
            "pattern": Kernel(),
            "grow": Random(),
            "drop_fraction": Cosine(0.5, 0.001),
            "stop_at": 1.0,
        },
    ),
    "RigL, all layers together": (regrow.RigL, {"threshold": "global", "on_grow": "mean"}),
    "from SynFlow": (
        regrow.Dynamic,
        {"start": SynapticFlow(inputs=torch.zeros(1, 12), rounds=3), "grow": Unfired()},
    ),
    "averages": (
        regrow.Dynamic,
        {"drop": Running(WeightTimesGradient()), "grow": AverageGradient(), "drop_fraction": 0.4},
    ),
    "averages that replace steps": (
        regrow.Dynamic,
        {"drop": Running(Magnitude()), "grow": Running(Gradient()), "replaces_step": True},
    ),
    "all at once": (
        regrow.Dynamic,
        {"drop": Taylor(), "grow": Momentum(), "threshold": "global", "redistribute": "gradient"},
    ),
    "rising": (
        regrow.Dynamic,
        {
            "drop": Soft(ReciprocalSensitivity()),
            "grow": Random(),
            "initial_density": 0.1,
            "density_path": Linear(1.0),
            "shrink": "global",
        },
    ),
    "there and back": (
        regrow.Dynamic,
        {
            "drop": MagnitudePlusGradient(0.1),
            "initial_density": 0.8,
            "density_path": Steps(((0.0, 1.0), (0.3, 0.0), (0.5, 1.0), (0.7, 0.4))),
            "threshold": "global",
            "shrink": "global",
            "regrow_dropped": False,
        },
    ),
    "gradient step": (regrow.Dynamic, {"drop": GradientStep(0.1), "grow": Unfired()}),
}
CASES = {name: (kind, {}) for name, kind in regrow.METHODS.items()} | VARIANTS
DYNAMIC = [name for name, (kind, _) in CASES.items() if issubclass(kind, regrow.Dynamic)]

# These draw nothing at random, so that their seed cannot matter.
DETERMINED = {"Dense", "TopKAST", "GMP", "GMP, all layers together", "ACDC", "OMP", "LTH"} | {
    "SNIP",
    "SNIP, by layer",
    "GraSP",
    "SynFlow",
}
# These cannot do without growing again what was just dropped; the reason is in the refusal.
MUST_REGROW = {"SET, legacy", "SRigL", "SRigL, ablating", "RigL, fan-in"} | {
    "DynamicNM",
    "RigL, 2:4",
}

everyone = pytest.mark.parametrize("case", CASES)


@pytest.fixture
def make(build):
    """make(case, **options): the method of a case, 30 % dense, updated every two steps."""

    def method(case, **options):
        kind, own = CASES[case]
        return build(kind, **{"density": 0.3, "update_every": 2} | own | options)

    return method


@pytest.fixture
def start(mlp, optimizers):
    """start(method, ...): model, optimizer and sparsifier, before the first step."""

    def begin(method, optimizer="adamw", model=None, dtype=torch.float32, **options):
        model = (mlp() if model is None else model).to(dtype)
        made = optimizers[optimizer](model.parameters())
        return model, made, regrow.sparsify(model, made, method, total_steps=TOTAL, **options)

    return begin


# ---------------------------------------------------------------------- what is demanded


def schedule(method):
    """{step: progress} of every update there is to be, spelled out a second time."""
    if not isinstance(method, regrow.Dynamic):
        return {}
    first, stop = (
        round(when * TOTAL) if isinstance(when, float) else when
        for when in (method.start_at, method.stop_at)
    )
    steps = {s for s in range(max(first, 1), stop) if s % method.update_every == 0}
    if method.initial_density is not None:
        steps.add(stop)
    return {step: (step - first) / (stop - first) for step in sorted(steps)}


def targets(sparse, progress, nearest_count):
    """The units of every layer after an update at this progress; None: before the first."""
    method, counts = sparse.method, {}
    for layer in sparse.plan.layers:
        counts[layer.name] = layer.final
        if getattr(method, "initial_density", None) is not None:
            share = (
                1.0 if progress is None else 0.0 if progress == 1 else method.density_path(progress)
            )
            density = layer.final_density + (layer.initial_density - layer.final_density) * share
            counts[layer.name] = nearest_count(density, layer.units)
    return counts


def decided_together(method):
    """Whether how many units a layer has is decided among all layers."""
    if getattr(method, "redistribute", None) is not None:
        return True
    return getattr(method, "shrink", "layer") == "global"


def active_units(sparse):
    """How many units are active, by layer; all of them whole."""
    pattern, counts = sparse.method.pattern, {}
    for layer in sparse.plan.layers:
        mask = sparse.masks[layer.name]
        kept = pattern.reduce(mask.float()) > 0
        assert mask.equal(pattern.expand(kept, layer.shape))
        counts[layer.name] = int(kept.sum())
        if (group := pattern.group(layer.shape)) and not isinstance(sparse.method, regrow.SRigL):
            assert mask.reshape(-1, group).sum(1).unique().numel() == 1
    return counts


def check_counts(sparse, wanted):
    found = active_units(sparse)
    assert min(found.values()) >= 1
    if isinstance(sparse.method, regrow.SRigL):  # ⌊budget/neurons left⌋ in each neuron left
        for name, mask in sparse.masks.items():
            fan_ins = mask.sum(1)
            left = fan_ins[fan_ins > 0]
            assert (left == wanted[name] // len(left)).all()
    elif decided_together(sparse.method):
        assert sum(found.values()) == sum(wanted.values())
    else:
        assert found == wanted


def check_zeros(model, sparse):
    for name, mask in sparse.masks.items():
        weight = model.get_parameter(name)
        assert mask.dtype == torch.bool
        assert mask.device == weight.device
        assert weight.isfinite().all()
        assert not weight[~mask].any()


def check_history(sparse, before, counts):
    """The last update tells what became of the masks."""
    pattern = sparse.method.pattern
    for name, change in sparse.history[-1].layers.items():
        was, now = (pattern.reduce(m[name].float()) > 0 for m in (before, sparse.masks))
        dropped, grown = int((was & ~now).sum()), int((now & ~was).sum())
        assert astuple(change) == (dropped, grown, counts[name])


# ---------------------------------------------------------------------- counts, zeros, dtypes


@everyone
def test_counts_are_exact_after_every_step(make, start, train, nearest_count, case):
    model, optimizer, sparse = start(make(case))
    due = schedule(sparse.method)
    wanted, ever = targets(sparse, None, nearest_count), sparse.masks
    check_counts(sparse, wanted)
    check_zeros(model, sparse)
    for step in range(1, TOTAL + 1):
        before, n_updates = sparse.masks, len(sparse.history)
        train(model, optimizer, [step])
        if step in due:
            wanted = targets(sparse, due[step], nearest_count)
        check_counts(sparse, wanted)
        check_zeros(model, sparse)
        if len(sparse.history) > n_updates:
            assert step in due
            assert sparse.history[-1].step == step
            check_history(sparse, before, active_units(sparse))
        else:
            assert all(mask.equal(before[name]) for name, mask in sparse.masks.items())
        ever = {name: ever[name] | mask for name, mask in sparse.masks.items()}
    assert all(fired.equal(ever[name]) for name, fired in sparse.fired.items())
    assert sparse.steps == TOTAL
    assert len(sparse.history) > 2 or case not in DYNAMIC


@pytest.mark.parametrize("case", [case for case in DYNAMIC if case != "TopKAST"])
def test_who_was_dropped_is_not_grown_at_once_unless_it_may_be(
    make, start, train, nearest_count, case
):
    """Then as many are gone as were to go; one that came back would be missing."""
    options = {"regrow_dropped": False, "chain_removal": False}
    if case in MUST_REGROW:
        with pytest.raises(ValueError, match="regrow_dropped"):
            make(case, **options)
        return
    model, optimizer, sparse = start(make(case, **options))
    method, due = sparse.method, schedule(sparse.method)
    for step in range(1, TOTAL + 1):
        before, n_updates = active_units(sparse), len(sparse.history)
        train(model, optimizer, [step])
        if len(sparse.history) == n_updates:
            continue
        wanted = targets(sparse, due[step], nearest_count)
        fraction = method.drop_fraction
        fraction = fraction(due[step]) if callable(fraction) else fraction
        expected = {}
        for layer in sparse.plan.layers:
            was, now = before[layer.name], wanted[layer.name]
            if decided_together(method) and method.shrink == "layer":
                now = was
            exchanged = math.floor((due[step] < 1) * fraction * min(was, now))
            exchanged = min(exchanged, layer.units - max(was, now))
            expected[layer.name] = (max(was - now, 0) + exchanged, max(now - was, 0) + exchanged)
        changes = sparse.history[-1].layers
        if method.shrink == "global":  # who shrinks by how much, all layers decide
            continue
        if method.threshold == "global" or method.redistribute:
            assert sum(c.dropped for c in changes.values()) == sum(d for d, _ in expected.values())
            continue
        for name, (dropped, grown) in expected.items():
            change = changes.get(name)
            assert (change.dropped, change.grown) == (dropped, grown) if change else not dropped


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@everyone
def test_weights_and_masks_keep_their_dtype_and_their_place(make, start, train, case, dtype):
    model, optimizer, sparse = start(make(case), dtype=dtype)
    parameters = list(model.parameters())
    places = [parameter.data_ptr() for parameter in parameters]
    train(model, optimizer, range(9))
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    assert places == [parameter.data_ptr() for parameter in parameters]
    assert all(parameter.dtype == dtype for parameter in parameters)
    # A multiply by masks of another dtype would be several times slower.
    assert all(layer.mask.dtype == dtype for layer in sparse._topology.layers)
    for state in optimizer.state.values():
        assert {state["exp_avg"].dtype, state["exp_avg_sq"].dtype} == {dtype}
    check_zeros(model, sparse)


@everyone
def test_no_layer_dies_however_sparse(make, start, train, case):
    density = {"density": 0.5} if case == "RigL, 2:4" else {"density": 0.001}
    model, optimizer, sparse = start(make(case, update_every=1, **density))
    for step in range(TOTAL):
        train(model, optimizer, [step])
        assert all(bool(mask.any()) for mask in sparse.masks.values())
    check_zeros(model, sparse)


# ---------------------------------------------------------------------- who takes part


class Heads(nn.Module):
    """A body and two heads, of which one is used."""

    def __init__(self):
        super().__init__()
        self.body, self.head, self.other = (nn.Linear(*s) for s in ((12, 16), (16, 8), (16, 8)))

    def forward(self, inputs):
        return self.head(self.body(inputs).relu())


def check_others(sparse, sitting_out, nearest_count):
    """The layers that take part are as dense together as if they were all."""
    found, wanted = active_units(sparse), targets(sparse, 1.0, nearest_count)
    others = found.keys() - {sitting_out}
    if not isinstance(sparse.method, regrow.SRigL):
        assert sum(found[name] for name in others) == sum(wanted[name] for name in others)
    assert all(found[name] >= 1 for name in others)


@pytest.mark.parametrize("case", DYNAMIC)
def test_a_layer_that_took_no_part_in_a_step_stays_as_it_is(
    make, start, train, nearest_count, case
):
    model, optimizer, sparse = start(make(case), "momentum", model=Heads())
    weight, mask = model.other.weight.detach().clone(), sparse.masks["other.weight"]
    first = sparse.masks
    train(model, optimizer, range(TOTAL))
    assert model.other.weight.equal(weight)
    assert sparse.masks["other.weight"].equal(mask)
    assert not any("other.weight" in update.layers for update in sparse.history)
    assert not sparse._topology.layers[-1].running
    assert len(sparse.history) > 2
    assert any(not sparse.masks[name].equal(was) for name, was in first.items())
    check_others(sparse, "other.weight", nearest_count)
    check_zeros(model, sparse)


@pytest.mark.parametrize("case", DYNAMIC)
def test_a_weight_frozen_in_mid_run_stays_as_it_is(make, start, train, case):
    """And moves again when it is set free."""
    model, optimizer, sparse = start(make(case), "momentum")
    train(model, optimizer, range(STOPPED))
    frozen = model[0].weight.requires_grad_(False)
    frozen.grad = None  # an optimizer would go on with it
    weight, mask, n_updates = frozen.detach().clone(), sparse.masks["0.weight"], len(sparse.history)
    running = copy.deepcopy(sparse._topology.layers[0].running)
    train(model, optimizer, range(STOPPED, TOTAL - 8))
    assert frozen.equal(weight)
    assert sparse.masks["0.weight"].equal(mask)
    alone = case == "SET, channels"  # the other layer's few channels never move
    assert (len(sparse.history) > n_updates) != alone
    assert all("0.weight" not in update.layers for update in sparse.history[n_updates:])
    assert all(value.equal(running[r]) for r, value in sparse._topology.layers[0].running.items())
    frozen.requires_grad_(True)
    train(model, optimizer, range(TOTAL - 8, TOTAL))
    assert not frozen.equal(weight)
    check_zeros(model, sparse)


# ---------------------------------------------------------------------- the same again


@everyone
def test_the_same_seed_gives_the_same_run_and_another_seed_another(
    make, start, train, snapshot, assert_same, case
):
    runs = []
    for seed in (3, 3, 4):
        torch.manual_seed(len(runs))  # the global generator must not matter
        run = start(make(case), seed=seed)
        train(*run[:2], range(9))
        runs.append((snapshot(*run), run[2].masks))
    (one, masks), (same, _), (_, others) = runs
    assert_same(one, same)
    assert all(m.equal(others[name]) for name, m in masks.items()) == (case in DETERMINED)


@everyone
def test_a_run_resumed_in_mid_interval_goes_on_bit_for_bit(
    make, start, mlp, train, snapshot, tmp_path, assert_same, case
):
    """Filled after `sparsify`, or begun with what was saved."""
    whole = start(make(case))
    train(*whole[:2], range(STOPPED))
    save_file(whole[0].state_dict(), tmp_path / "model.safetensors")
    rest = {"optimizer": whole[1].state_dict(), "sparse": whole[2].state_dict()}
    torch.save(rest, tmp_path / "rest")
    saved = torch.load(tmp_path / "rest", weights_only=True)
    assert_same(saved, rest)
    stopped = snapshot(*whole)
    weights = load_file(tmp_path / "model.safetensors")
    filled = start(make(case))
    filled[0].load_state_dict(weights)
    filled[2].load_state_dict(saved["sparse"])
    model = mlp(seed=99)
    model.load_state_dict(weights)
    begun = start(make(case), model=model, state=saved["sparse"])
    train(*whole[:2], range(STOPPED, TOTAL))
    for resumed in (filled, begun):
        resumed[1].load_state_dict(copy.deepcopy(saved["optimizer"]))
        assert_same(snapshot(*resumed), stopped)
        train(*resumed[:2], range(STOPPED, TOTAL))
        assert_same(snapshot(*resumed), snapshot(*whole))
        assert_same(resumed[2].fired, whole[2].fired)


@everyone
def test_halves_of_a_batch_accumulate_to_the_whole(make, start, batch, assert_same, case):
    runs = []
    for parts in (1, 2):
        model, optimizer, sparse = start(make(case), "momentum", dtype=torch.float64)
        for step in range(STOPPED):
            inputs, labels = batch(step, torch.float64)
            optimizer.zero_grad()
            for some, answers in zip(inputs.chunk(parts), labels.chunk(parts), strict=True):
                (functional.cross_entropy(model(some), answers) / parts).backward()
            optimizer.step()
        runs.append((sparse.masks, sparse.history, dict(model.state_dict())))
    (masks, history, weights), (others, other_history, other_weights) = runs
    assert_same(masks, others)
    assert history == other_history
    torch.testing.assert_close(weights, other_weights, rtol=1e-9, atol=1e-12)


def pickled(thing):
    return pickle.loads(pickle.dumps(thing))


@everyone
def test_a_copy_of_model_optimizer_and_sparsifier_goes_on_alone_and_alike(
    make, start, train, snapshot, assert_same, case
):
    original = start(make(case))
    train(*original[:2], range(STOPPED))
    twins, before = (copy.deepcopy(original), pickled(original)), snapshot(*original)
    for twin in twins:
        train(*twin[:2], range(STOPPED, TOTAL))
        assert_same(snapshot(*original), before)
    train(*original[:2], range(STOPPED, TOTAL))
    for twin in twins:
        assert_same(snapshot(*twin), snapshot(*original))


# ---------------------------------------------------------------------- limits


def settings_that_never_move(make, case):
    """An empty window; and a share of nothing, where the share is the user's to choose."""
    kind, _ = CASES[case]
    yield make(case, stop_at=0)
    if any(field.name == "drop_fraction" and field.init for field in fields(kind)):
        yield make(case, drop_fraction=0.0)


@pytest.mark.parametrize("case", DYNAMIC)
def test_without_an_update_a_method_is_static(make, start, train, assert_same, case):
    method = make(case)
    if method.initial_density is not None:
        pytest.skip("its density moves, whatever is exchanged")
    if method.reserves:
        pytest.skip("gradients reach more than the active weights between updates, too")
    shared = {name: getattr(method, name) for name in ("density", "allocation", "pattern", "start")}
    methods = [regrow.Static(**shared), *settings_that_never_move(make, case)]
    runs = []
    for still in methods:
        model, optimizer, sparse = start(still)
        train(model, optimizer, range(9))
        assert sparse.history == []
        runs.append((model.state_dict(), optimizer.state_dict(), sparse.masks))
    for run in runs[1:]:
        assert_same(run, runs[0])


@everyone
def test_density_one_is_dense_training_bit_for_bit(make, mlp, start, train, assert_same, case):
    options = {"density": 1.0, "backward_density": 1.0, "penalty": 0.0}
    if getattr(make(case), "initial_density", None) is not None:
        options["initial_density"] = 1.0
    if isinstance(make(case).pattern, NM):
        if case == "RigL, 2:4":
            with pytest.raises(ValueError, match=r"density=1\.0: with pattern=.* it is 0\.5 in ev"):
                make(case, **options)
        options["pattern"] = NM(4, 4)
    model, optimizer, sparse = start(make(case, **options))
    dense = mlp()
    plain = torch.optim.AdamW(dense.parameters(), lr=0.01, weight_decay=0.1)
    train(model, optimizer, range(TOTAL))
    train(dense, plain, range(TOTAL))
    assert sparse.density == 1.0
    assert_same(dict(model.state_dict()), dict(dense.state_dict()))
    assert_same(optimizer.state_dict()["state"], plain.state_dict()["state"])


@everyone
def test_what_is_left_after_remove_is_a_plain_model(make, start, mlp, train, assert_same, case):
    model, optimizer, sparse = start(make(case))
    train(model, optimizer, range(STOPPED))
    masks = sparse.masks
    sparse.remove()
    plain = mlp()
    assert list(model.state_dict()) == list(plain.state_dict())
    plain.load_state_dict(model.state_dict())
    alone = torch.optim.AdamW(plain.parameters())
    alone.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    train(model, optimizer, range(STOPPED, TOTAL))
    train(plain, alone, range(STOPPED, TOTAL))
    assert_same(dict(model.state_dict()), dict(plain.state_dict()))
    assert_same(sparse.masks, masks)
    if not all(mask.all() for mask in masks.values()):
        assert any(model.get_parameter(name)[~mask].any() for name, mask in masks.items())
    start(regrow.Static(density=0.5), model=model)  # free to become sparse again


# ---------------------------------------------------------------------- optimizers


def slots(optimizer, weight):
    """What an optimizer remembers weight by weight."""
    return [s for s in optimizer.state[weight].values() if s.shape == weight.shape]


@pytest.mark.parametrize("case", ["SET", "RigL", "MEST", "GraNet", "SRigL", "TopKAST"])
def test_every_optimizer_drives_every_kind_of_method(
    make, start, train, snapshot, optimizers, any_optimizer, nearest_count, assert_same, case
):
    name = next(name for name, made in optimizers.items() if made is any_optimizer)
    whole = model, optimizer, sparse = start(make(case), name)
    due, wanted = schedule(sparse.method), targets(sparse, None, nearest_count)
    for step in range(1, TOTAL + 1):
        masks, before = sparse.masks, copy.deepcopy(model.state_dict())
        train(model, optimizer, [step])
        if step in due:
            wanted = targets(sparse, due[step], nearest_count)
        check_counts(sparse, wanted)
        check_zeros(model, sparse)
        updated = bool(sparse.history) and sparse.history[-1].step == step
        if updated and case != "TopKAST":
            for weight_name, was in masks.items():
                weight, grown = model.get_parameter(weight_name), sparse.masks[weight_name] & ~was
                assert not weight[grown].any()
                assert not any(slot[grown].any() for slot in slots(optimizer, weight))
            replaced = all(
                model.get_parameter(bias).equal(before[bias]) for bias in ("0.bias", "2.bias")
            )
            assert replaced == sparse.method.replaces_step
        if step == STOPPED:
            stopped = snapshot(*whole)
    resumed = start(make(case), name)
    for part, key in zip(resumed, ("model", "optimizer", "sparse"), strict=True):
        part.load_state_dict(stopped[key])
    train(*resumed[:2], range(STOPPED + 1, TOTAL + 1))
    assert_same(snapshot(*resumed), snapshot(*whole))
