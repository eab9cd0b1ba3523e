"""A run that stops in mid-interval and goes on in another process is the run that never stopped."""

from __future__ import annotations

import copy
import logging
from pathlib import Path

import pytest
import torch

import regrow
from regrow.engine.allocation import Uniform
from regrow.engine.patterns import NM, Element, FanIn, Kernel

TOTAL, STOPPED = 24, 10  # updates every four steps: two steps into an interval
METHODS = ("SET", "RigL", "GMP")
OPTIMIZERS = ("momentum", "adamw")

# One process continues all runs: starting one takes seconds.
CONTINUE = """
import sys
from pathlib import Path
import torch
folder, tests = map(Path, sys.argv[1:])
sys.path.insert(0, str(tests))
import conftest, test_resume
for saved in sorted(folder.glob("*.saved")):
    method, optimizer_name = saved.stem.split("-")
    model, optimizer, sparse = test_resume.start(
        method, conftest.OPTIMIZERS[optimizer_name], conftest.make_mlp(seed=99)
    )
    test_resume.restore(torch.load(saved, weights_only=True), model, optimizer, sparse)
    conftest.run_steps(model, optimizer, range(test_resume.STOPPED, test_resume.TOTAL))
    torch.save(conftest.take_snapshot(model, optimizer, sparse), saved.with_suffix(".finished"))
"""


def start(method, make_optimizer, model, total_steps=TOTAL, **options):
    optimizer = make_optimizer(model.parameters())
    chosen = regrow.METHODS[method](density=0.3, update_every=4, **options)
    return model, optimizer, regrow.sparsify(model, optimizer, chosen, total_steps=total_steps)


def restore(saved, model, optimizer, sparse):
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    sparse.load_state_dict(saved["sparse"])


@pytest.fixture(scope="module")
def runs(tmp_path_factory, mlp, train, snapshot, optimizers, python):
    """(uninterrupted, continued in another process), by method and optimizer."""
    folder = tmp_path_factory.mktemp("resume")
    uninterrupted = {}
    for method in METHODS:
        for name in OPTIMIZERS:
            run = start(method, optimizers[name], mlp())
            train(*run[:2], range(STOPPED))
            torch.save(snapshot(*run), folder / f"{method}-{name}.saved")
            train(*run[:2], range(STOPPED, TOTAL))
            uninterrupted[method, name] = snapshot(*run)
    python(CONTINUE, folder, Path(__file__).parent)
    return {
        (method, name): (state, torch.load(folder / f"{method}-{name}.finished", weights_only=True))
        for (method, name), state in uninterrupted.items()
    }


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("method", METHODS)
def test_a_run_continued_in_a_new_process_is_bit_identical(runs, method, optimizer, assert_same):
    uninterrupted, continued = runs[method, optimizer]
    assert_same(continued, uninterrupted)
    updates = [update["step"] for update in uninterrupted["sparse"]["history"]]
    assert min(updates) < STOPPED < max(updates)


@pytest.mark.parametrize("stopped", [0, 3, 4, 5])
def test_a_run_may_stop_before_at_or_after_an_update(
    stopped, mlp, train, snapshot, optimizers, assert_same
):
    whole = start("RigL", optimizers["adamw"], mlp())
    train(*whole[:2], range(stopped))
    saved = snapshot(*whole)
    resumed = start("RigL", optimizers["adamw"], mlp(seed=99))
    restore(saved, *resumed)
    for run in (whole, resumed):
        train(*run[:2], range(stopped, TOTAL))
    assert_same(snapshot(*resumed), snapshot(*whole))


def test_the_order_of_loading_does_not_matter(mlp, train, snapshot, optimizers, assert_same):
    whole = start("SET", optimizers["adamw"], mlp())
    train(*whole[:2], range(STOPPED))
    saved = snapshot(*whole)
    model, optimizer, sparse = start("SET", optimizers["adamw"], mlp(seed=99))
    sparse.load_state_dict(saved["sparse"])
    optimizer.load_state_dict(saved["optimizer"])
    model.load_state_dict(saved["model"])
    for run in (whole, (model, optimizer, sparse)):
        train(*run[:2], range(STOPPED, TOTAL))
    assert_same(snapshot(model, optimizer, sparse), snapshot(*whole))


def test_the_seed_comes_with_the_state(mlp, train, snapshot, optimizers, assert_same):
    runs = []
    for seed in (0, 1):
        model = mlp()
        optimizer = optimizers["adamw"](model.parameters())
        method = regrow.SET(density=0.3, update_every=4)
        runs.append(
            (model, optimizer, regrow.sparsify(model, optimizer, method, total_steps=9, seed=seed))
        )
    restore(snapshot(*runs[0]), *runs[1])
    for run in runs:
        train(*run[:2], range(9))
    assert_same(snapshot(*runs[1]), snapshot(*runs[0]))


def test_a_forced_update_is_part_of_the_run(mlp, train, snapshot, optimizers, assert_same):
    whole = start("SET", optimizers["adamw"], mlp())
    train(*whole[:2], range(STOPPED))
    whole[2].update_()
    saved = snapshot(*whole)
    resumed = start("SET", optimizers["adamw"], mlp(seed=99))
    restore(saved, *resumed)
    for run in (whole, resumed):
        train(*run[:2], range(STOPPED, TOTAL))
    assert_same(snapshot(*resumed), snapshot(*whole))


def test_the_state_is_plain_and_small(mlp, train, optimizers, tmp_path, assert_same):
    model, optimizer, sparse = start("RigL", optimizers["adamw"], mlp())
    train(model, optimizer, range(STOPPED))
    state = sparse.state_dict()
    torch.save(state, tmp_path / "sparse")
    assert_same(torch.load(tmp_path / "sparse", weights_only=True), state)
    sizes = [layer["mask"].nbytes for layer in state["layers"].values()]
    assert sizes == [12 * 16 // 8, 16 * 8 // 8]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "SET"}, "method is 'SET', but 'RigL' is needed"),
        ({"version": 99}, "version is 99, but 1 is needed"),
        ({"layers": {}}, r"masks of \[\], but \['0.weight', '2.weight'\]"),
    ],
)
def test_a_state_of_another_run_is_refused_and_changes_nothing(
    change, message, mlp, train, snapshot, optimizers, assert_same
):
    run = start("RigL", optimizers["adamw"], mlp())
    train(*run[:2], range(STOPPED))
    before = snapshot(*run)
    state = run[2].state_dict() | {"steps": 0} | change
    with pytest.raises(ValueError, match=message):
        run[2].load_state_dict(state)
    assert_same(snapshot(*run), before)


@pytest.mark.parametrize(
    "missing", ["layers", "history", "steps", "seed", "total_steps", "version", "method"]
)
def test_a_state_with_a_part_missing_changes_nothing(
    missing, mlp, train, snapshot, optimizers, assert_same
):
    run = start("RigL", optimizers["adamw"], mlp())
    state = run[2].state_dict()
    train(*run[:2], range(STOPPED))
    before = snapshot(*run)
    del state[missing]
    with pytest.raises((KeyError, ValueError), match=missing):
        run[2].load_state_dict(state)
    assert_same(snapshot(*run), before)


@pytest.mark.parametrize("missing", ["mask", "counts", "fired", "running", "free", "held"])
def test_a_layer_with_a_part_missing_changes_nothing(
    missing, mlp, train, snapshot, optimizers, assert_same
):
    """Not even the layers before it."""
    run = start("RigL", optimizers["adamw"], mlp())
    state = run[2].state_dict()
    train(*run[:2], range(STOPPED))
    before = snapshot(*run)
    del state["layers"]["2.weight"][missing]
    with pytest.raises((KeyError, ValueError), match=missing):
        run[2].load_state_dict(state)
    assert_same(snapshot(*run), before)


DAMAGED = [
    (lambda state: state["history"].append({"bad": 1}), "history"),
    (lambda state: state["history"][0].pop("step"), "history"),
    (lambda state: state["history"][0]["layers"]["0.weight"].pop("grown"), "history"),
    (lambda state: state["history"][0]["layers"]["0.weight"].update(grown="x"), "grown"),
    (lambda state: state["history"][0].update(layers=None), "history"),
    (lambda state: state.update(history=None), "history"),
    (lambda state: state.update(steps="x"), "steps is 'x'"),
    (lambda state: state.update(steps=-1), "steps is -1"),
    (lambda state: state.update(seed=None), "seed is None"),
    (lambda state: state.update(layers=None), "masks of None"),
    (lambda state: state["layers"].update({"2.weight": None}), r"2\.weight is None"),
]
DAMAGED_LAYER = [
    ("running", None, r"running of 2\.weight is None"),
    ("running", {"drop": None}, "running average .drop. of 2.weight is None"),
    ("running", {"drop": torch.zeros(3)}, r"of shape \(3,\), but \(8, 16\)"),
    ("running", {"both": torch.zeros(8, 16)}, "running of 2.weight"),
    ("mask", None, "mask of 2.weight: None"),
    ("mask", torch.zeros(16, dtype=torch.uint8), "keeps nothing"),
    ("fired", torch.zeros(3), "fired of 2.weight: 3 entries"),
    ("counts", None, "counts of 2.weight is None"),
    ("counts", [1, 2, 3], r"counts of 2.weight is \[1, 2, 3\]"),
]


def check_refused(run, state, message, snapshot, assert_same):
    """Loading changes nothing, and what is passed to sparsify leaves no trace."""
    before, masks = snapshot(*run), run[2].masks
    with pytest.raises(ValueError, match=message):
        run[2].load_state_dict(state)
    assert_same(snapshot(*run), before)
    assert_same(run[2].masks, masks)
    model, optimizer, sparse = run
    method = sparse.method
    sparse.remove()
    before = snapshot(model, optimizer)
    with pytest.raises(ValueError, match=message):
        regrow.sparsify(model, optimizer, method, total_steps=TOTAL, state=state)
    assert not optimizer._optimizer_step_pre_hooks
    assert_same(snapshot(model, optimizer), before)
    regrow.sparsify(model, optimizer, method, total_steps=TOTAL)  # nothing stands in its way


class TestDamage:
    @pytest.fixture
    def run(self, mlp, train, optimizers):
        made = start("SET", optimizers["adamw"], mlp())
        train(*made[:2], range(STOPPED))
        return made

    @pytest.mark.parametrize(("damage", "message"), DAMAGED)
    def test_of_what_a_run_has_done_changes_nothing(
        self, run, damage, message, snapshot, assert_same
    ):
        state = copy.deepcopy(run[2].state_dict())
        damage(state)
        check_refused(run, state, message, snapshot, assert_same)

    @pytest.mark.parametrize(("key", "value", "message"), DAMAGED_LAYER)
    def test_of_the_last_layer_changes_nothing(
        self, run, key, value, message, snapshot, assert_same
    ):
        state = copy.deepcopy(run[2].state_dict())
        state["layers"]["2.weight"][key] = value
        check_refused(run, state, message, snapshot, assert_same)

    @pytest.mark.parametrize("part", ["reserve", "backward"])
    @pytest.mark.parametrize("value", [None, torch.zeros(3, 3)])
    def test_of_what_top_kast_keeps_aside_changes_nothing(
        self, mlp, train, optimizers, part, value, snapshot, assert_same
    ):
        run = start("TopKAST", optimizers["adamw"], mlp())
        train(*run[:2], range(STOPPED))
        state = copy.deepcopy(run[2].state_dict())
        state["layers"]["2.weight"][part] = value
        check_refused(run, state, rf"the {part} of 2\.weight is", snapshot, assert_same)

    @pytest.mark.parametrize("pattern", [NM(2, 4), FanIn()])
    def test_a_mask_whose_groups_are_not_as_the_pattern_wants_them(
        self, mlp, optimizers, pattern, snapshot, assert_same
    ):
        """Name and counts are the same: those of single weights at half the density."""
        options = {"density": 0.5, "allocation": Uniform(), "update_every": 4}
        runs = []
        for chosen in (Element(), pattern):
            model = mlp()
            optimizer = optimizers["adamw"](model.parameters())
            method = regrow.RigL(**options, pattern=chosen)
            runs.append(
                (model, optimizer, regrow.sparsify(model, optimizer, method, total_steps=TOTAL))
            )
        state = runs[0][2].state_dict()
        check_refused(runs[1], state, "mask of 0.weight has broken units", snapshot, assert_same)

    def test_an_ablated_neuron_is_no_damage(self, mlp, train, optimizers, assert_same):
        run = start("SRigL", optimizers["adamw"], mlp(), gamma=1.0, drop_fraction=0.5)
        train(*run[:2], range(TOTAL - 4))
        masks = run[2].masks
        assert not masks["0.weight"].any(1).all()
        resumed = start("SRigL", optimizers["adamw"], mlp(), gamma=1.0, drop_fraction=0.5)
        resumed[2].load_state_dict(run[2].state_dict())
        assert_same(resumed[2].masks, masks)

    def test_a_mask_of_held_weights_is_refused(self, mlp, optimizers, snapshot, assert_same):
        model = mlp()
        optimizer = optimizers["adamw"](model.parameters())
        available = {"0.weight": torch.arange(192).reshape(16, 12) % 3 != 0}
        run = (
            model,
            optimizer,
            regrow.sparsify(
                model, optimizer, regrow.SET(density=0.3), total_steps=TOTAL, available=available
            ),
        )
        state = copy.deepcopy(run[2].state_dict())
        state["layers"]["0.weight"]["mask"].fill_(255)
        before = snapshot(*run)
        with pytest.raises(ValueError, match="other weights available"):
            run[2].load_state_dict(state)
        assert_same(snapshot(*run), before)


def test_a_damaged_state_lets_no_layer_be_replaced(mlp, train, optimizers):
    """Stored layers take the place of dense ones only once everything is known to fit."""
    damages = [lambda s: s["history"][0].pop("step"), lambda s: s["layers"].pop("2.weight")]
    damages.append(lambda s: s["layers"]["2.weight"].update(running=None))
    for damage in damages:
        run = start("SET", optimizers["adamw"], mlp())
        train(*run[:2], range(STOPPED))
        state = copy.deepcopy(run[2].state_dict())
        damage(state)
        model = mlp()
        optimizer = optimizers["adamw"](model.parameters())
        with pytest.raises(ValueError, match="state: "):
            regrow.sparsify(
                model, optimizer, run[2].method, total_steps=TOTAL, execution="csr", state=state
            )
        assert [type(module).__name__ for module in model] == ["Linear", "ReLU", "Linear"]
        held = optimizer.param_groups[0]["params"]
        assert all(p is q for p, q in zip(held, model.parameters(), strict=True))


@pytest.mark.parametrize("total_steps", [10, 20, 25, 26])
@pytest.mark.parametrize("way", ["load", "state"])
@pytest.mark.parametrize("shrink", ["layer", "global"])
def test_a_density_settles_though_the_run_was_shortened_beyond_its_window(
    mlp, train, optimizers, total_steps, way, shrink
):
    """20 of 40 steps are done, and of 25 the window ends with the 20th."""
    options = {"density": 0.2, "update_every": 2, "allocation": Uniform(), "shrink": shrink}

    def begin(total, **more):
        model = mlp()
        optimizer = optimizers["adamw"](model.parameters())
        method = regrow.GMP(**options)
        sparse = regrow.sparsify(model, optimizer, method, total_steps=total, **more)
        return model, optimizer, sparse

    whole = begin(40)
    train(*whole[:2], range(20))
    assert whole[2].density > 0.25
    state = whole[2].state_dict()
    resumed = begin(total_steps, **({"state": state} if way == "state" else {}))
    if way == "load":
        resumed[2].load_state_dict(state)
    train(*resumed[:2], range(20, 24))
    assert resumed[2].density == whole[2].plan.layers[0].final_density == 0.2
    assert len(resumed[2].history) == len(state["history"]) + 1
    assert resumed[2]._clock.next is None


def test_masks_of_another_density_are_refused(mlp, optimizers):
    def begin(density):
        model = mlp()
        optimizer = optimizers["adamw"](model.parameters())
        return regrow.sparsify(model, optimizer, regrow.Static(density=density), total_steps=9)

    with pytest.raises(ValueError, match=r"weight goes from \d+ to \d+ units, here from"):
        begin(0.6).load_state_dict(begin(0.3).state_dict())


def test_another_length_of_the_run_is_said(mlp, train, optimizers, caplog):
    state = start("RigL", optimizers["adamw"], mlp())[2].state_dict()
    longer = start("RigL", optimizers["adamw"], mlp(), total_steps=2 * TOTAL)[2]
    with caplog.at_level(logging.WARNING, "regrow"):
        longer.load_state_dict(state)
    assert f"total_steps={2 * TOTAL}, saved with {TOTAL}" in caplog.text


def test_held_weights_come_back_with_the_state(mlp, train, snapshot, optimizers, assert_same):
    available = {"0.weight": torch.arange(192).reshape(16, 12) % 3 != 0}

    def begin(seed):
        model = mlp(seed)
        optimizer = optimizers["adamw"](model.parameters())
        method = regrow.SET(density=0.3, update_every=4)
        return (
            model,
            optimizer,
            regrow.sparsify(model, optimizer, method, total_steps=TOTAL, available=available),
        )

    whole = begin(seed=0)
    train(*whole[:2], range(STOPPED))
    saved = snapshot(*whole)
    resumed = begin(seed=99)
    restore(saved, *resumed)
    for run in (whole, resumed):
        train(*run[:2], range(STOPPED, TOTAL))
    assert_same(snapshot(*resumed), snapshot(*whole))
    first = mlp(0)[0].weight
    assert resumed[0][0].weight[~available["0.weight"]].equal(first[~available["0.weight"]])


def test_units_of_several_weights_come_back_whole(mlp, train, snapshot, optimizers, assert_same):
    whole = start("SET", optimizers["adamw"], mlp(), pattern=Kernel())
    train(*whole[:2], range(STOPPED))
    resumed = start("SET", optimizers["adamw"], mlp(seed=99), pattern=Kernel())
    restore(snapshot(*whole), *resumed)
    assert_same(snapshot(*resumed), snapshot(*whole))
