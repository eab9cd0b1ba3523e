"""What PyTorch users do around a training loop goes on working."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import regrow
from regrow.engine.allocation import Uniform
from regrow.engine.scores import Gradient
from tests.engine.conftest import make_batch, make_mlp, take_snapshot

HALF = {"density": 0.5, "allocation": Uniform()}


@pytest.fixture
def run(mlp, train):
    """run(method, ...): a model after seven steps with an update at the fourth."""

    def begin(method="SET", make=torch.optim.AdamW, model=None, steps=7, **options):
        model = mlp() if model is None else model
        optimizer = make(model.parameters())
        chosen = regrow.METHODS[method](**{"density": 0.3, "update_every": 4} | options)
        sparse = regrow.sparsify(model, optimizer, chosen, total_steps=40)
        train(model, optimizer, range(steps))
        return model, optimizer, sparse

    return begin


class TestStateDict:
    def test_keys_and_values_are_the_dense_models_own(self, run, mlp):
        model, _, sparse = run()
        plain = mlp(seed=9)
        assert list(model.state_dict()) == list(plain.state_dict())
        plain.load_state_dict(model.state_dict(), strict=True)
        for name, mask in sparse.masks.items():
            assert not plain.state_dict()[name][~mask].any()

    def test_passes_through_safetensors(self, run, tmp_path, assert_same):
        model, _, _ = run()
        save_file(model.state_dict(), tmp_path / "model.safetensors")
        assert_same(load_file(tmp_path / "model.safetensors"), dict(model.state_dict()))

    def test_the_model_holds_nothing_new(self, run, mlp):
        model, _, _ = run()
        assert [type(m) for m in model.modules()] == [type(m) for m in mlp().modules()]
        assert not list(model.buffers())
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
        assert not any(parameter._backward_hooks for parameter in model.parameters())


def pickled(thing):
    return pickle.loads(pickle.dumps(thing))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, pickled], ids=["deepcopy", "pickle"])
class TestCopies:
    def test_of_the_model_are_dense_models_with_the_same_weights(
        self, run, train, duplicate, assert_same
    ):
        model, _, sparse = run()
        twin = duplicate(model)
        assert_same(dict(twin.state_dict()), dict(model.state_dict()))
        train(twin, torch.optim.SGD(twin.parameters(), lr=0.1), range(7, 9))
        assert twin[2].weight[~sparse.masks["2.weight"]].any()
        assert not model[2].weight[~sparse.masks["2.weight"]].any()

    @pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)], ids=str)
    @pytest.mark.parametrize("method", ["SET", "RigL", "GMP"])
    def test_of_model_optimizer_and_sparsifier_drive_each_other(
        self, run, train, snapshot, duplicate, method, order, assert_same
    ):
        original = run(method)
        copied = duplicate(tuple(original[place] for place in order))
        twin = tuple(copied[order.index(place)] for place in range(3))
        before = snapshot(*original)
        train(*twin[:2], range(7, 20))
        assert_same(snapshot(*original), before)  # the copy moved alone
        train(*original[:2], range(7, 20))
        assert_same(snapshot(*twin), snapshot(*original))
        assert len(twin[2].history) > 1
        assert twin[2].weights()[0] is twin[0][0].weight

    def test_of_a_removed_sparsifier_stay_removed(self, run, train, duplicate):
        original = run()
        original[2].remove()
        model, optimizer, sparse = duplicate(original)
        train(model, optimizer, range(7, 20))
        assert len(sparse.history) == 1
        assert model[2].weight[~sparse.masks["2.weight"]].any()


class TestCompile:
    def test_a_compiled_model_is_not_recompiled_by_an_update(self, mlp, train, assert_same):
        torch.compiler.reset()
        runs = []
        for compiled in (True, False):
            model = mlp()
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            sparse = regrow.sparsify(
                model, optimizer, regrow.RigL(**HALF, update_every=3), total_steps=20
            )
            forward = model
            if compiled:
                forward = torch.compile(model, backend="aot_eager", fullgraph=True)
            train(forward, optimizer, range(2))
            with torch._dynamo.config.patch(error_on_recompile=True):
                train(forward, optimizer, range(2, 9))
            assert [update.step for update in sparse.history] == [3, 6, 9]
            runs.append((sparse.masks, dict(model.state_dict())))
        (masks, state), (eager_masks, eager_state) = runs
        assert_same(masks, eager_masks)
        torch.testing.assert_close(state, eager_state)

    # What torch.compile imports on the way.
    @pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
    @pytest.mark.parametrize("method", ["SET", "RigL"])
    def test_a_compiled_optimizer_step_still_drives_the_topology(
        self, mlp, batch, method, assert_same
    ):
        torch.compiler.reset()
        runs = []
        for compiled in (True, False):
            model = mlp()
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            chosen = regrow.METHODS[method](**HALF, update_every=2)
            sparse = regrow.sparsify(model, optimizer, chosen, total_steps=20)
            step = torch.compile(optimizer.step, backend="eager") if compiled else optimizer.step
            for number in range(5):
                inputs, labels = batch(number)
                optimizer.zero_grad()
                functional.cross_entropy(model(inputs), labels).backward()
                step()
                assert not model[0].weight[~sparse.masks["0.weight"]].any()
            assert [update.step for update in sparse.history] == [2, 4]
            assert sparse.steps == 5
            runs.append((sparse.masks, dict(model.state_dict())))
        assert_same(runs[0][0], runs[1][0])
        torch.testing.assert_close(runs[0][1], runs[1][1])

    def test_a_sparse_model_can_be_exported(self, run, batch):
        model, _, _ = run()
        inputs, _ = batch(0)
        exported = torch.export.export(model, (inputs,))
        assert exported.module()(inputs).equal(model(inputs))
        assert set(exported.state_dict) == set(model.state_dict())


class TestMixedPrecision:
    @pytest.mark.parametrize("fused", [True, False])
    @pytest.mark.parametrize("method", ["SET", "RigL"])
    @pytest.mark.parametrize("unscale", [True, False])
    @pytest.mark.parametrize("bad_step", [0, 1, 2])
    def test_a_step_skipped_for_infinite_gradients_is_no_step(
        self, mlp, batch, method, fused, unscale, bad_step
    ):
        model = mlp()
        optimizer = torch.optim.AdamW(model.parameters(), fused=fused)
        chosen = regrow.METHODS[method](**HALF, update_every=2)
        sparse = regrow.sparsify(model, optimizer, chosen, total_steps=20)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        for number in range(3):
            masks, n_updates = sparse.masks, len(sparse.history)
            inputs, labels = batch(number)
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(inputs), labels)
            scaler.scale(loss * (torch.inf if number == bad_step else 1.0)).backward()
            if unscale:
                scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
            if number == bad_step:
                assert len(sparse.history) == n_updates
                assert all(sparse.masks[name].equal(mask) for name, mask in masks.items())
        assert sparse.steps == 2
        assert [update.step for update in sparse.history] == [2]
        assert all(parameter.isfinite().all() for parameter in model.parameters())

    @pytest.mark.parametrize("replaces_step", [True, False])
    @pytest.mark.parametrize("fused", [True, False])
    def test_scores_see_gradients_without_the_loss_scale(self, mlp, batch, fused, replaces_step):
        seen = []

        class Watching(Gradient):
            def __call__(self, signals):
                seen.append(signals.gradient.clone())
                return super().__call__(signals)

        model = mlp()
        optimizer = torch.optim.AdamW(model.parameters(), fused=fused)
        method = regrow.Dynamic(
            **HALF, grow=Watching(), update_every=1, replaces_step=replaces_step
        )
        regrow.sparsify(model, optimizer, method, total_steps=20)
        inputs, labels = batch(0)
        loss = functional.cross_entropy(model(inputs), labels)
        gradients = torch.autograd.grad(loss, [model[0].weight, model[2].weight], retain_graph=True)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        torch.testing.assert_close(seen, list(gradients))

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
    @pytest.mark.parametrize("method", ["SET", "RigL", "GMP"])
    def test_a_model_may_change_its_dtype_in_mid_run(self, run, train, method, dtype):
        model, optimizer, sparse = run(method, make=lambda p: torch.optim.SGD(p, lr=0.1))
        counts = [int(mask.sum()) for mask in sparse.masks.values()]
        model.to(dtype)
        train(model, optimizer, range(7, 21))
        assert sparse.steps == 21
        assert len(sparse.history) > 2
        for name, mask in sparse.masks.items():
            weight = model.get_parameter(name)
            assert weight.dtype == dtype
            assert not weight[~mask].any()
        if method != "GMP":
            assert [int(mask.sum()) for mask in sparse.masks.values()] == counts


def test_gradient_accumulation_is_a_large_batch(mlp, batch, assert_same):
    runs = []
    for parts in (1, 4):
        model = mlp(dtype=torch.float64)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        sparse = regrow.sparsify(
            model, optimizer, regrow.RigL(**HALF, update_every=3), total_steps=40
        )
        for step in range(14):
            inputs, labels = batch(step, torch.float64)
            optimizer.zero_grad()
            for some, answers in zip(inputs.chunk(parts), labels.chunk(parts), strict=True):
                (functional.cross_entropy(model(some), answers) / parts).backward()
            optimizer.step()
        assert len(sparse.history) == 4
        runs.append((sparse.masks, dict(model.state_dict())))
    assert_same(runs[0][0], runs[1][0])
    torch.testing.assert_close(runs[0][1], runs[1][1], rtol=1e-10, atol=1e-12)


def plain_sgd(parameters):
    """Never has any state."""
    return torch.optim.SGD(parameters, lr=0.1)


class Renamed(torch.optim.SGD):
    """Its step is two for the hooks: its own and its parent's."""

    def __init__(self, parameters):
        super().__init__(parameters, lr=0.1, momentum=0.9)

    def step(self, closure=None):
        return super().step(closure)


# What torch says of state dicts outside a process group.
@pytest.mark.filterwarnings("ignore")
class TestDistributedCheckpoint:
    """Its helpers step an optimizer that has no state, at rate 0 and without gradients."""

    @staticmethod
    def save(model, optimizer, sparse):
        return copy.deepcopy((*get_state_dict(model, optimizer), sparse.state_dict()))

    @pytest.mark.parametrize("make", [torch.optim.AdamW, plain_sgd, Renamed])
    @pytest.mark.parametrize("method", ["RigL", "SET", "TopKAST"])
    def test_saving_before_the_first_step_is_no_step_and_no_update(self, run, make, method):
        model, optimizer, sparse = run(method, make=make, steps=0, update_every=1)
        masks = sparse.masks
        for _ in range(2):
            get_state_dict(model, optimizer)
        assert sparse.steps == 0
        assert sparse.history == []
        assert all(mask.equal(masks[name]) for name, mask in sparse.masks.items())
        slots = [s for state in optimizer.state.values() for s in state.values() if s.ndim]
        assert not any(slot.any() for slot in slots)

    @pytest.mark.parametrize("sparse_first", [True, False])
    @pytest.mark.parametrize("make", [torch.optim.AdamW, plain_sgd, Renamed])
    def test_a_run_goes_on_bit_for_bit_whatever_is_loaded_first(
        self, run, train, snapshot, assert_same, make, sparse_first
    ):
        whole = run("RigL", make=make)
        model_state, optimizer_state, sparse_state = self.save(*whole)
        resumed = model, optimizer, sparse = run("RigL", make=make, steps=0)
        if sparse_first:
            sparse.load_state_dict(sparse_state)
        set_state_dict(
            model, optimizer, model_state_dict=model_state, optim_state_dict=optimizer_state
        )
        if not sparse_first:
            sparse.load_state_dict(sparse_state)
        assert sparse.steps == 7
        for started in (whole, resumed):
            train(*started[:2], range(7, 20))
        assert_same(snapshot(*resumed), snapshot(*whole))

    def test_a_users_own_step_at_rate_zero_counts(self, run, train):
        model, optimizer, sparse = run("RigL", make=lambda p: torch.optim.SGD(p, lr=0.0), steps=0)
        train(model, optimizer, range(4))
        optimizer.zero_grad(set_to_none=False)
        optimizer.step()
        assert sparse.steps == 5
        assert len(sparse.history) == 1


class TestAverages:
    @pytest.mark.parametrize("wrapped", [True, False])
    def test_an_average_of_weights_recovers_the_density(self, run, train, wrapped):
        model, optimizer, sparse = run()
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
        for step in range(7, 20):
            train(model, optimizer, [step])
            average.update_parameters(model)
        weight = average.module[0].weight
        mask = sparse.masks["0.weight"]
        assert weight[~mask].any()  # the topology moved under the average
        kept = weight[mask].clone()
        sparse.apply_to_(average if wrapped else average.module)
        assert not weight[~mask].any()
        assert weight[mask].equal(kept)


class TestLoop:
    def test_a_scheduler_made_afterwards_finds_the_optimizers_own_step(self, run, train):
        model, optimizer, sparse = run(steps=0)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=40)
        for step in range(9):
            train(model, optimizer, [step])
            scheduler.step()
        assert sparse.steps == 9
        assert len(sparse.history) == 2
        assert optimizer.param_groups[0]["lr"] < 1e-3

    def test_tied_weights_count_once_and_stay_tied(self):
        model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))
        model[2].weight = model[0].weight
        optimizer = torch.optim.AdamW(model.parameters())
        sparse = regrow.sparsify(
            model, optimizer, regrow.RigL(density=0.5, update_every=2), total_steps=20
        )
        for step in range(9):
            optimizer.zero_grad()
            inputs = torch.randn(4, 6, generator=torch.Generator().manual_seed(step))
            model(inputs).square().sum().backward()
            optimizer.step()
        assert list(sparse.masks) == ["0.weight"]
        assert model[2].weight is model[0].weight
        assert int(torch.count_nonzero(sparse.masks["0.weight"])) == 18
        assert len(sparse.history) == 4
        assert not model[2].weight[~sparse.masks["0.weight"]].any()

    def test_a_step_that_evaluates_its_closure_several_times(self, mlp, batch):
        model = mlp()
        optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)
        sparse = regrow.sparsify(
            model, optimizer, regrow.RigL(**HALF, update_every=2), total_steps=20
        )
        for step in range(4):
            before = copy.deepcopy(model.state_dict())
            inputs, labels = batch(step)

            def closure(inputs=inputs, labels=labels):
                optimizer.zero_grad()
                loss = functional.cross_entropy(model(inputs), labels)
                loss.backward()
                return loss

            optimizer.step(closure)
            replaced = sparse.steps % 2 == 0
            assert model[0].bias.equal(before["0.bias"]) == replaced
        assert [update.step for update in sparse.history] == [2, 4]

    @pytest.mark.parametrize("method", ["SET", "RigL", "GMP"])
    def test_works_with_every_optimizer(self, run, any_optimizer, method):
        model, _, sparse = run(method, make=any_optimizer, steps=13)
        assert len(sparse.history) >= 2
        for name, mask in sparse.masks.items():
            assert not model.get_parameter(name)[~mask].any()
            assert model.get_parameter(name).isfinite().all()


def train_on_rank(rank):
    """What a rank holds after training under DDP; each has its own data."""
    found = {}
    for name in ("SET", "RigL"):
        model = nn.parallel.DistributedDataParallel(make_mlp())
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        method = regrow.METHODS[name](density=0.3, update_every=3)
        sparse = regrow.sparsify(model, optimizer, method, total_steps=40)
        for step in range(30):
            inputs, labels = make_batch(2 * step + rank)
            optimizer.zero_grad()
            functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
        found[name] = take_snapshot(model, optimizer, sparse)
    return found


@pytest.mark.slow
def test_two_ranks_hold_the_same_weights_masks_and_optimizer_state(two_ranks, assert_same):
    one, other = two_ranks(train_on_rank)
    assert_same(one, other)
    assert all(len(found["sparse"]["history"]) > 5 for found in one.values())
