"""A run that stops in mid-interval and goes on in another process is the run that never stopped."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

import regrow
from regrow.engine.patterns import Kernel

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
