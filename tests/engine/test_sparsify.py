"""sparsify checks everything before it changes anything."""

from __future__ import annotations

import copy
import logging

import numpy as np
import pytest
import torch
from torch import nn

import regrow
from regrow.engine.allocation import ERK, Uniform
from regrow.engine.patterns import NM
from regrow.engine.scores import Magnitude, Random, Unfired

RIGL = regrow.RigL(density=0.5)


def density(value):
    return lambda: {"method": regrow.RigL(density=value)}


BAD = [
    ("density=0:", density(0), r"\(0, 1\]"),
    ("density=1.5:", density(1.5), r"\(0, 1\]"),
    ("density=-0.1:", density(-0.1), r"\(0, 1\]"),
    ("density=True:", density(True), r"\(0, 1\]"),
    ("density='x':", density("x"), r"\(0, 1\]"),
    ("density['*']=2:", density({"*": 2}), r"\(0, 1\]"),
    ("density:", density({"head*": 0.5, "*": 0.1}), r"'head\*' matches none of .*0\.weight"),
    ("density:", density({"0*": 0.5}), r"matches '2\.weight': add '\*'"),
    (
        "dense=('head',)",
        lambda: {"method": regrow.RigL(density=0.5, allocation=ERK(dense=("head",)))},
        "matches none of .*0.weight",
    ),
    (
        "density=0.5:",
        lambda: {"method": regrow.RigL(density=0.5, allocation=Uniform(dense=("0.*",)))},
        "raise the density above 0.6",
    ),
    ("method='rigl'", {"method": "rigl"}, r"regrow\.RigL\("),
    ("method=<class", {"method": regrow.RigL}, r"regrow\.RigL\("),
    ("grow=Magnitude()", lambda: {"method": regrow.RigL(density=0.5, grow=Magnitude())}, "Random"),
    ("update_every=0", lambda: {"method": regrow.RigL(density=0.5, update_every=0)}, "at least 1"),
    ("stop_at=1.5", {"method": regrow.RigL(density=0.5, stop_at=1.5)}, r"0\.\.1\.0"),
    ("stop_at=200", {"method": regrow.RigL(density=0.5, stop_at=200)}, r"0\.\.100"),
    ("stop_at='x'", {"method": regrow.RigL(density=0.5, stop_at="x")}, "int.*float"),
    ("start_at=0.9", {"method": regrow.RigL(density=0.5, start_at=0.9)}, "start before stopping"),
    ("include='head*'", {"include": "head*"}, "the model's are: .*2.bias"),
    ("exclude='head*'", {"exclude": ["0*", "head*"]}, "the model's are: .*2.bias"),
    ("include=3", {"include": 3}, "glob"),
    ("total_steps=0", {"total_steps": 0}, "at least 1"),
    ("total_steps=-5", {"total_steps": -5}, "at least 1"),
    ("total_steps=10.0", {"total_steps": 10.0}, "optimizer steps"),
    ("total_steps=True", {"total_steps": True}, "optimizer steps"),
    ("execution='csr2'", {"execution": "csr2"}, "masked"),
    ("execution=None", {"execution": None}, "masked"),
    ("seed=1.5", {"seed": 1.5}, r"\bint"),
    ("seed='x'", {"seed": "x"}, r"\bint"),
    (
        "available['0.weight']",
        {"available": {"0.weight": torch.ones(16, 12)}},
        r"bool tensor of shape \(16, 12\)",
    ),
    (
        "available['2.weight']",
        {"available": {"2.weight": torch.ones(16, 8, dtype=torch.bool)}},
        r"bool tensor of shape \(8, 16\)",
    ),
    ("available['0.weight']", {"available": {"0.weight": [True]}}, r"bool tensor"),
    (
        "frozen['0.weight']",
        {"frozen": {"0.weight": torch.ones(3, dtype=torch.bool)}},
        r"bool tensor of shape \(16, 12\)",
    ),
    ("frozen: '0.bias'", {"frozen": {"0.bias": torch.ones(16) > 0}}, "is no sparse weight"),
    (
        "frozen: 0.weight",
        {
            "method": regrow.TopKAST(density=0.5),
            "frozen": {"0.weight": torch.ones(16, 12, dtype=torch.bool)},
        },
        "use a method that masks them",
    ),
    (
        "stored and 2:4 layers cannot hold weights",
        {"execution": "csr", "frozen": {"0.weight": torch.ones(16, 12, dtype=torch.bool)}},
        "execution='masked'",
    ),
    (
        "available: '0.bias'",
        {"available": {"0.bias": torch.ones(16, dtype=torch.bool)}},
        r"those are \['0\.weight', '2\.weight'\]",
    ),
    (
        "0.weight: ",
        {"available": {"0.weight": torch.zeros(16, 12, dtype=torch.bool)}},
        "units are to be active, but only 0 of 192 are available",
    ),
]


@pytest.fixture
def trained(mlp, train):
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters())
    train(model, optimizer, range(2))
    return model, optimizer


def hooks(optimizer):
    return len(optimizer._optimizer_step_pre_hooks) + len(optimizer._optimizer_step_post_hooks)


@pytest.mark.parametrize(("named", "bad", "allowed"), BAD, ids=[case[0] for case in BAD])
def test_a_bad_argument_is_named_with_what_is_allowed_and_nothing_changes(
    named, bad, allowed, trained, snapshot, assert_same
):
    before = snapshot(*trained)
    with pytest.raises((TypeError, ValueError), match=allowed) as refused:
        options = {"method": RIGL, "total_steps": 100} | (bad() if callable(bad) else bad)
        regrow.sparsify(*trained, **options)
    assert named in str(refused.value)
    assert_same(snapshot(*trained), before)
    assert not hooks(trained[1])


class TestOptimizer:
    def test_a_wrapper_without_hooks_is_looked_into(self, mlp, train):
        """Accelerate's passes for an optimizer, but was never initialised as one."""

        class Wrapper(torch.optim.Optimizer):
            def __init__(self, optimizer):
                self.optimizer = optimizer

            param_groups = property(lambda self: self.optimizer.param_groups)

            def zero_grad(self, set_to_none=True):
                self.optimizer.zero_grad(set_to_none)

            def step(self, closure=None):
                self.optimizer.step()

        model = mlp()
        inner = torch.optim.SGD(model.parameters(), lr=0.1)
        twice = Wrapper(Wrapper(inner))
        sparse = regrow.sparsify(
            model, twice, regrow.SET(density=0.5, update_every=2), total_steps=9
        )
        assert hooks(inner) == 2
        train(model, twice, range(4))
        assert [update.step for update in sparse.history] == [2, 4]
        scheduler = torch.optim.lr_scheduler.ConstantLR(inner)  # has an optimizer, but is none
        with pytest.raises(TypeError, match=r"optimizer=.*a torch\.optim\.Optimizer is needed"):
            regrow.sparsify(mlp(), scheduler, RIGL, total_steps=9)

    @pytest.mark.parametrize(
        "parameters",
        [
            lambda model: nn.Linear(2, 2).parameters(),
            lambda model: model[0].parameters(),
            lambda model: copy.deepcopy(model).parameters(),
        ],
        ids=["another model", "a part", "a copy"],
    )
    def test_must_hold_every_sparse_weight(self, mlp, parameters):
        model = mlp()
        optimizer = torch.optim.SGD(parameters(model), lr=0.1)
        before = copy.deepcopy(model.state_dict())
        with pytest.raises(ValueError, match=r"optimizer does not hold .*2\.weight.*exclude"):
            regrow.sparsify(model, optimizer, RIGL, total_steps=100)
        assert all(value.equal(before[name]) for name, value in model.state_dict().items())
        assert not hooks(optimizer)

    def test_must_be_one(self, mlp):
        with pytest.raises(TypeError, match=r"optimizer=.*torch\.optim\.Optimizer"):
            regrow.sparsify(mlp(), "adam", RIGL, total_steps=100)

    def test_may_hold_the_excluded_weights_of_another(self, mlp):
        model = mlp()
        optimizer = torch.optim.SGD(model[0].parameters(), lr=0.1)
        sparse = regrow.sparsify(model, optimizer, RIGL, total_steps=1000, exclude="2.*")
        assert list(sparse.masks) == ["0.weight"]


class TestSparseAlready:
    def test_a_model_is_refused_until_its_sparsifier_is_removed(
        self, trained, snapshot, assert_same
    ):
        model, optimizer = trained
        sparse = regrow.sparsify(model, optimizer, RIGL, total_steps=1000)
        before, n_hooks = snapshot(model, optimizer, sparse), hooks(optimizer)
        with pytest.raises(ValueError, match=r"sparse already \(0\.weight.*call remove\(\)"):
            regrow.sparsify(model, optimizer, RIGL, total_steps=1000)
        assert_same(snapshot(model, optimizer, sparse), before)
        assert hooks(optimizer) == n_hooks
        sparse.remove()
        assert not hooks(optimizer)
        regrow.sparsify(model, optimizer, RIGL, total_steps=1000)

    def test_a_model_is_free_again_once_its_optimizer_and_sparsifier_are_gone(self, mlp):
        model = mlp()
        for _ in range(2):
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            sparse = regrow.sparsify(model, optimizer, RIGL, total_steps=1000)
            del optimizer, sparse

    def test_other_parts_of_a_model_may_become_sparse_by_another_method(self, mlp):
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        one, other = (
            regrow.sparsify(model, optimizer, RIGL, total_steps=1000, include=glob)
            for glob in ("0.weight", "2.weight")
        )
        assert one.masks.keys().isdisjoint(other.masks)

    def test_a_sparse_model_that_lost_a_layer_does_not_stand_in_another_models_way(
        self, mlp, request
    ):
        model, another = mlp(), mlp()
        sparse = regrow.sparsify(
            model, torch.optim.SGD(model.parameters(), lr=0.1), RIGL, total_steps=1000
        )
        request.addfinalizer(sparse.remove)
        model[2] = nn.Identity()
        optimizer = torch.optim.SGD(another.parameters(), lr=0.1)
        assert regrow.sparsify(another, optimizer, RIGL, total_steps=1000) is not sparse


class TestSeed:
    @staticmethod
    def masks(model, method=RIGL, **options):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        return regrow.sparsify(model, optimizer, method, total_steps=1000, **options).masks

    def test_fixes_the_masks_whatever_the_weights_and_the_global_generator(self, mlp, assert_same):
        assert_same(self.masks(mlp(seed=0)), self.masks(mlp(seed=1)))

    def test_another_gives_other_masks(self, mlp):
        one, other = self.masks(mlp(), seed=0), self.masks(mlp(), seed=1)
        assert not any(one[name].equal(other[name]) for name in one)

    def test_leaves_the_global_generator_alone(self, mlp):
        model = mlp()
        before = torch.get_rng_state()
        self.masks(model)
        assert torch.get_rng_state().equal(before)

    def test_gives_equal_layers_different_masks(self):
        masks = self.masks(nn.Sequential(nn.Linear(9, 9), nn.Linear(9, 9)))
        assert not masks["0.weight"].equal(masks["1.weight"])

    def test_gives_a_layer_the_same_mask_whichever_others_are_excluded(self, mlp):
        method = regrow.Static(density=0.3, allocation=Uniform())
        alone = self.masks(mlp(), method, exclude="0.*")
        assert alone["2.weight"].equal(self.masks(mlp(), method)["2.weight"])

    def test_may_be_a_numpy_integer(self, mlp, assert_same):
        assert_same(self.masks(mlp(), seed=np.int64(3)), self.masks(mlp(), seed=3))


@pytest.mark.parametrize(
    "wrap", [nn.DataParallel, lambda module: torch.compile(module, backend="eager")]
)
def test_a_wrapped_model_is_looked_into(mlp, wrap):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparse = regrow.sparsify(wrap(model), optimizer, RIGL, total_steps=1000)
    assert list(sparse.masks) == ["0.weight", "2.weight"]
    assert (model[0].weight != 0).equal(sparse.masks["0.weight"])


def test_only_weights_outside_the_first_topology_change(mlp):
    model = mlp()
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparse = regrow.sparsify(model, optimizer, RIGL, total_steps=1000)
    for name, value in model.state_dict().items():
        expected = before[name] * sparse.masks.get(name, 1)
        assert value.equal(expected)


class TestRescale:
    @staticmethod
    def start(model, density, **options):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        method = regrow.Static(density=density)
        return regrow.sparsify(model, optimizer, method, total_steps=9, **options)

    def test_multiplies_kept_weights_by_one_over_the_root_of_the_layers_density(self, mlp):
        plain, scaled = mlp(), mlp()
        self.start(plain, 0.3)
        sparse = self.start(scaled, 0.3, rescale=True)
        for layer in sparse.plan.layers:
            factor = (layer.units / layer.final) ** 0.5
            found, expected = (model.get_parameter(layer.name) for model in (scaled, plain))
            torch.testing.assert_close(found, factor * expected)
        assert scaled[0].bias.equal(plain[0].bias)

    def test_keeps_the_variance_of_a_layers_outputs(self, filled):
        layer = nn.Linear(2000, 500, bias=False)
        layer.weight.data = filled((500, 2000))
        inputs = filled((50, 2000), seed=1)
        dense = layer(inputs).detach().var()
        self.start(layer, 0.1, rescale=True)
        assert float(layer(inputs).detach().var() / dense) == pytest.approx(1.0, abs=0.05)

    def test_leaves_dense_layers_and_held_weights_alone(self, mlp, assert_same):
        dense = mlp()
        self.start(dense, 1.0, rescale=True)
        assert_same(dict(dense.state_dict()), dict(mlp().state_dict()))
        model = mlp()
        available = {"0.weight": torch.arange(192).reshape(16, 12) >= 60}
        self.start(model, 0.3, rescale=True, available=available)
        assert model[0].weight[:5].equal(mlp()[0].weight[:5])


def test_a_schedule_without_an_update_is_said(mlp, caplog):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with caplog.at_level(logging.WARNING, "regrow"):
        regrow.sparsify(model, optimizer, regrow.RigL(density=0.5), total_steps=50)
    assert "RigL will make no update" in caplog.text
    assert "total_steps=50 with update_every=100" in caplog.text


def test_the_length_of_the_run_may_be_a_number_of_numpy(mlp):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparse = regrow.sparsify(model, optimizer, RIGL, total_steps=np.int64(1000))
    assert type(sparse.state_dict()["total_steps"]) is int


def test_nothing_may_be_excluded(mlp):
    for exclude in ([], (), None):
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        sparse = regrow.sparsify(model, optimizer, RIGL, total_steps=1000, exclude=exclude)
        assert list(sparse.masks) == ["0.weight", "2.weight"]


def test_masks_on_the_meta_device_are_refused():
    with torch.device("meta"):
        model = nn.Linear(8, 8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"weight is on the meta device.*to_empty\(\).*'csr'"):
        regrow.sparsify(model, optimizer, RIGL, total_steps=1000)
    assert not hooks(optimizer)


@pytest.mark.parametrize(
    "method",
    [
        regrow.SET(density=0.3, update_every=2),
        regrow.RigL(density=0.5, update_every=2, pattern=NM(2, 4)),
        regrow.CHTs(density=0.3, update_every=2),
        regrow.Dynamic(density=0.3, update_every=2, drop=Random(), grow=Unfired()),
        regrow.OMP(density=0.3, scope="ratios"),
    ],
    ids=lambda method: method.name,
)
def test_torchs_default_device_does_not_matter(mlp, batch, method, assert_same):
    """What is drawn is drawn on the CPU, wherever new tensors go."""
    found, batches = [], [batch(step) for step in range(5)]
    for device in (None, "meta"):
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        torch.set_default_device(device)
        try:
            sparse = regrow.sparsify(model, optimizer, method, total_steps=10)
            for inputs, labels in batches:
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(inputs), labels).backward()
                optimizer.step()
            sparse.load_state_dict(sparse.state_dict())
        finally:
            torch.set_default_device(None)
        found.append(sparse.masks)
    assert_same(*found)


def test_nothing_is_printed(mlp, capsys):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    regrow.sparsify(model, optimizer, RIGL, total_steps=1000)
    assert capsys.readouterr() == ("", "")


def test_weights_of_8_bits_are_refused_by_name():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = nn.Parameter(model[1].weight.detach().to(torch.float8_e4m3fn))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    method = regrow.SET(density=0.5)
    with pytest.raises(ValueError, match=r"1\.weight \(torch\.float8_e4m3fn\).* or exclude them"):
        regrow.sparsify(model, optimizer, method, total_steps=500)
    regrow.sparsify(model, optimizer, method, total_steps=500, exclude="1.weight")


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_a_model_converted_to_8_bits_afterwards_is_told_what_to_do(dtype):
    """The mask was cast along, and everything after failed in the middle of torch."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparse = regrow.sparsify(model, optimizer, regrow.SET(density=0.5), total_steps=500)
    masks = sparse.masks
    model[1].weight = nn.Parameter(model[1].weight.detach().to(dtype), requires_grad=False)
    for call in (sparse.metrics, sparse.state_dict, optimizer.step):
        with pytest.raises(RuntimeError, match=r"1\.weight was converted to .*float8.* a copy"):
            call()
    assert all(mask.equal(masks[name]) for name, mask in sparse.masks.items())


@pytest.mark.parametrize(
    ("method", "refused"), [(regrow.SET(density=0.5), True), (regrow.Static(density=0.5), False)]
)
def test_a_captured_step_is_refused_while_the_topology_moves(monkeypatch, method, refused):
    model = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    regrow.sparsify(model, optimizer, method, total_steps=500)
    model(torch.ones(2, 4)).sum().backward()
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    before = model.weight.detach().clone()
    if refused:
        with pytest.raises(RuntimeError, match=r"SET .* step 100.*CUDA graph.*outside the graph"):
            optimizer.step()
        assert torch.equal(model.weight, before)
    else:
        optimizer.step()
