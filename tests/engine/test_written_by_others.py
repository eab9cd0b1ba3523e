"""Weights that others write outside the masks are noticed and mended: what is saved is reported."""

from __future__ import annotations

import copy
import gc
import logging
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrize, prune

import regrow
from regrow.engine.others import _WATCHERS
from regrow.engine.sparsify import driver

METHOD = regrow.SET(density=0.2, update_every=4)
TOTAL = 40


@pytest.fixture
def run(mlp, train):
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    sparse = regrow.sparsify(model, optimizer, METHOD, total_steps=TOTAL)
    train(model, optimizer, range(6))
    return model, optimizer, sparse


def outside(model, sparse):
    """Count the weights outside the masks that are not zero."""
    return sum(
        int(model.get_parameter(name)[~mask].count_nonzero()) for name, mask in sparse.masks.items()
    )


def load_dense(model):
    torch.manual_seed(3)
    model.load_state_dict({k: torch.randn_like(v) for k, v in model.state_dict().items()})


def reset(model):
    model[2].reset_parameters()


def merge(model):
    """As LoRA is merged into its base."""
    model[0].weight.data += torch.randn(16, 2) @ torch.randn(2, 12)


def exchange(model):
    """As an average is shown for evaluation: the tensor inside is another."""
    model[0].weight.data = torch.randn(16, 12)


WRITERS = [load_dense, reset, merge, exchange]
READERS = {
    "step": lambda model, optimizer, sparse: optimizer.step(),
    "metrics": lambda model, optimizer, sparse: sparse.metrics(),
    "summary": lambda model, optimizer, sparse: sparse.summary(),
    "state_dict": lambda model, optimizer, sparse: sparse.state_dict(),
    "update": lambda model, optimizer, sparse: sparse.update_(),
}


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("reader", READERS)
def test_weights_outside_the_masks_are_set_to_zero_and_named(run, write, reader, caplog):
    model, _, sparse = run
    saved = model.state_dict()
    write(model)
    assert outside(model, sparse)
    with caplog.at_level(logging.WARNING, "regrow"):
        READERS[reader](*run)
    assert outside(model, sparse) == 0
    if write is not exchange:  # what was taken from the model before is mended with it
        assert all(saved[name].equal(value) for name, value in model.state_dict().items())
    # A step masks what was written in place through .data unseen; all else is said.
    if not (reader == "step" and write is merge):
        name = "2.weight" if write is reset else "0.weight"
        assert f"{name}: " in caplog.text
        assert "weights outside its mask" in caplog.text
        assert "sparse.load_state_dict()" in caplog.text
    READERS[reader](*run)
    write(model)
    READERS[reader](*run)
    assert len(caplog.records) <= 1, "it is said once"


def test_a_normal_run_says_nothing(run, train, caplog):
    model, optimizer, _ = run
    with caplog.at_level(logging.WARNING, "regrow"):
        for reader in READERS.values():
            train(model, optimizer, range(6, 16))
            reader(*run)
            with torch.no_grad():
                model[0].weight.clamp_(-1, 1)  # writes, but nothing outside the mask
    assert not caplog.records


def test_a_run_that_lets_go_is_left_alone(run):
    model, _, sparse = run
    sparse.remove()
    reset(model)
    before = outside(model, sparse)
    sparse.metrics(), sparse.state_dict()
    assert before == outside(model, sparse) > 0


def test_an_optimizer_built_anew_in_the_loop_leaves_no_dense_weights(run, train, caplog):
    model, _, sparse = run
    with caplog.at_level(logging.WARNING, "regrow"):
        for _ in range(3):
            again = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
            train(model, again, range(2))
            assert outside(model, sparse) == 0
    assert len(caplog.records) == 1
    assert "SGD steps 0.weight" in caplog.text
    assert "AdamW" in caplog.text
    assert "state=sparse.state_dict()" in caplog.text
    # And what it says works.
    sparse.remove()
    resumed = regrow.sparsify(model, again, METHOD, total_steps=TOTAL, state=sparse.state_dict())
    train(model, again, range(6, 10))
    assert len(resumed.history) == len(sparse.history) + 1


def test_an_optimizer_of_other_weights_is_none_of_its_business(run, caplog):
    other = nn.Linear(3, 3)
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1)
    other(torch.ones(3)).sum().backward()
    with caplog.at_level(logging.WARNING, "regrow"):
        optimizer.step()
    assert not caplog.records


def test_a_forgotten_sparsifier_is_not_kept_alive(mlp):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    gc.collect()
    before = len(_WATCHERS)
    sparse = regrow.sparsify(model, optimizer, METHOD, total_steps=TOTAL)
    assert len(_WATCHERS) == before + 1
    del sparse, optimizer, model
    gc.collect()
    assert len(_WATCHERS) == before


class SAM(torch.optim.Optimizer):
    """As in the repositories that most copy: two phases around a base optimizer."""

    def __init__(self, params, base_optimizer, rho=0.05, **options):
        super().__init__(params, dict(rho=rho, **options))
        self.base_optimizer = base_optimizer(self.param_groups, **options)
        self.param_groups = self.base_optimizer.param_groups

    @torch.no_grad()
    def first_step(self):
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["old_p"] = p.data.clone()
                p.add_(p.grad, alpha=group["rho"])

    @torch.no_grad()
    def second_step(self):
        for group in self.param_groups:
            for p in group["params"]:
                p.data = self.state[p]["old_p"]
        self.base_optimizer.step()

    @torch.no_grad()
    def step(self, closure=None):
        closure = torch.enable_grad()(closure)
        self.first_step()
        closure()
        self.second_step()


@pytest.mark.parametrize("way", ["two phases", "closure"])
@pytest.mark.parametrize("method", ["SET", "RigL"])
def test_sam_is_looked_into(way, method, mlp, batch, caplog):
    model = mlp()
    optimizer = SAM(model.parameters(), torch.optim.SGD, lr=0.1, momentum=0.9)
    assert driver(optimizer) is optimizer.base_optimizer
    chosen = regrow.METHODS[method](density=0.2, update_every=4)
    sparse = regrow.sparsify(model, optimizer, chosen, total_steps=TOTAL)
    with caplog.at_level(logging.WARNING, "regrow"):
        for step in range(16):
            inputs, labels = batch(step)

            def evaluate(inputs=inputs, labels=labels):
                optimizer.zero_grad()
                functional.cross_entropy(model(inputs), labels).backward()

            evaluate()
            if way == "closure":
                optimizer.step(evaluate)
            else:
                optimizer.first_step()
                evaluate()
                optimizer.second_step()
            assert outside(model, sparse) == 0
    assert sparse.steps == 16
    assert len(sparse.history) == 4
    assert not caplog.records


@pytest.mark.parametrize("name", ["AdamWScheduleFree", "SGDScheduleFree", "RAdamScheduleFree"])
def test_schedule_free_averages_are_as_sparse_as_the_weights(name, mlp, train, caplog):
    """z was dense: eval() made weights of it."""
    schedulefree = pytest.importorskip("schedulefree", reason="needs the package schedulefree")
    model = mlp()
    optimizer = getattr(schedulefree, name)(model.parameters(), lr=0.05)
    sparse = regrow.sparsify(model, optimizer, METHOD, total_steps=TOTAL)
    with caplog.at_level(logging.WARNING, "regrow"):
        for start in range(0, 12, 3):
            optimizer.train()
            assert outside(model, sparse) == 0
            train(model, optimizer, range(start, start + 3))
            optimizer.eval()
            assert outside(model, sparse) == 0
            sparse.metrics()
    assert sparse.history
    assert not caplog.records


def test_z_is_masked_without_the_package_too(mlp, train):
    class Free(torch.optim.SGD):
        def train(self):
            pass

        def eval(self):
            with torch.no_grad():
                for weight, state in self.state.items():
                    weight.lerp_(state["z"], 0.5)

    model = mlp()
    optimizer = Free(model.parameters(), lr=0.1)
    for weight in model.parameters():
        optimizer.state[weight]["z"] = torch.ones_like(weight)
    sparse = regrow.sparsify(model, optimizer, METHOD, total_steps=TOTAL)
    train(model, optimizer, range(6))
    optimizer.eval()
    assert outside(model, sparse) == 0


class Fused(torch.optim.Optimizer):
    """As LOMO: a hook moves each weight as soon as its gradient is there; there is no step()."""

    def __init__(self, params):
        super().__init__(params, {"lr": 0.1})
        for p in self.param_groups[0]["params"]:
            p.register_post_accumulate_grad_hook(lambda p: p.data.sub_(p.grad, alpha=0.1))


class Layerwise(torch.optim.SGD):
    """As transformers' layer-wise optimizers: one for each weight, whose steps hooks make."""

    def __init__(self, params):
        params = list(params)
        self.optimizer_dict = {p: torch.optim.SGD([p], lr=0.1) for p in params}
        super().__init__(params, lr=0.1)


@pytest.mark.parametrize("kind", [Fused, Layerwise])
def test_optimizers_that_step_inside_backward_are_refused(kind, mlp):
    """Weights were dense behind density 0.2, and no update was ever made."""
    model = mlp()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=rf"{kind.__name__} .*inside backward\(\).*such as AdamW"):
        regrow.sparsify(model, kind(model.parameters()), METHOD, total_steps=TOTAL)
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())


CHANGES = {
    "prune": r"pruned by torch.nn.utils.prune.*prune\.remove\(layer, 'weight'\)",
    "parametrize": r"parametrized by Identity.*remove_parametrizations",
    "weight_norm": r"weight norm: call torch.nn.utils.remove_weight_norm",
    "remove": r"no layer '2' any more.*put it back",
    "other_kind": r"Identity without a parameter 'weight'.*put it back",
    "other_size": r"its shape is \(5, 16\) now",
    "same_size": r"SGD does not hold its new weight",
}


class TestAModelChangedAfterwards:
    """Raw AttributeErrors, or nothing at all."""

    @staticmethod
    def prune(model):
        prune.random_unstructured(model[2], "weight", 0.5)

    @staticmethod
    def parametrize(model):
        parametrize.register_parametrization(model[2], "weight", nn.Identity())

    @staticmethod
    def weight_norm(model):
        nn.utils.weight_norm(model[2], "weight")

    @staticmethod
    def remove(model):
        del model[2]

    @staticmethod
    def other_kind(model):
        model[2] = nn.Identity()

    @staticmethod
    def other_size(model):
        model[2] = nn.Linear(16, 5)

    @staticmethod
    def same_size(model):
        model[2] = nn.Linear(16, 8)

    @pytest.mark.parametrize("change", CHANGES)
    @pytest.mark.parametrize("reader", READERS)
    def test_is_named_with_what_to_do(self, change, reader, mlp, train):
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        sparse = regrow.sparsify(model, optimizer, METHOD, total_steps=TOTAL)
        train(model, optimizer, range(2))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # weight_norm is deprecated
            getattr(self, change)(model)
        with pytest.raises(RuntimeError, match=rf"2\.weight.*{CHANGES[change]}"):
            READERS[reader](model, optimizer, sparse)
        sparse.remove()  # what the message says is possible

    def test_a_new_head_that_the_optimizer_holds_is_masked_and_named(self, run, caplog):
        model, optimizer, sparse = run
        model[2] = nn.Linear(16, 8)
        optimizer.add_param_group({"params": list(model[2].parameters())})
        with caplog.at_level(logging.WARNING, "regrow"):
            sparse.metrics()
        assert "2.weight: " in caplog.text
        assert "a replaced layer" in caplog.text
        assert outside(model, sparse) == 0


class TestAModelChangedBefore:
    def test_pruned_is_refused_by_name(self, mlp):
        model = mlp()
        prune.l1_unstructured(model[0], "weight", 0.3)
        before = copy.deepcopy(model.state_dict())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with pytest.raises(ValueError, match=r"0\.weight_orig.*prune\.remove\(layer, 'weight'\)"):
            regrow.sparsify(model, optimizer, METHOD, total_steps=TOTAL)
        assert all(value.equal(before[name]) for name, value in model.state_dict().items())
        prune.remove(model[0], "weight")
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        assert regrow.sparsify(model, optimizer, METHOD, total_steps=TOTAL).density < 0.21

    def test_pruned_but_excluded_is_nobodys_business(self, mlp):
        model = mlp()
        prune.l1_unstructured(model[0], "weight", 0.3)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        regrow.sparsify(model, optimizer, METHOD, total_steps=TOTAL, exclude="0.*")

    def test_parametrized_by_what_keeps_no_zeros_is_refused(self, mlp):
        model = mlp()
        nn.utils.parametrizations.orthogonal(model[0])
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        sparse = regrow.sparsify(model, optimizer, METHOD, total_steps=TOTAL)
        assert "parametrized by _Orthogonal" in str(sparse.plan)
        sparse.remove()
        with pytest.raises(ValueError, match=r"original.*_Orthogonal.*remove_parametrizations"):
            regrow.sparsify(model, optimizer, METHOD, total_steps=TOTAL, include="*original")
