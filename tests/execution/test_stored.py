"""Stored layers follow the topologies that masks would follow, and hold nothing else."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional

import regrow
from regrow.engine.allocation import Uniform
from regrow.engine.criteria import MagnitudePlusGradient, Running, WeightTimesGradient
from regrow.engine.moments import slots
from regrow.engine.patterns import Block, Kernel
from regrow.engine.schedules import Linear
from regrow.engine.scores import Magnitude, Momentum, Random, Unfired
from regrow.execution.csr.linear import CsrLinear

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=1e-3),
    "adam": lambda p: torch.optim.Adam(p, lr=2e-3),
    "amsgrad": lambda p: torch.optim.AdamW(p, lr=2e-3, amsgrad=True),
}


def mlp(device: str = "cpu") -> nn.Sequential:
    torch.manual_seed(1)
    with torch.device(device):
        return nn.Sequential(
            nn.Linear(20, 48), nn.ReLU(), nn.Linear(48, 40), nn.ReLU(), nn.Linear(40, 5)
        )


def conv_net() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )


def batch(step: int, shape: tuple[int, ...] = (20,)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    inputs = torch.randn(24, *shape, generator=generator)
    return inputs, torch.randint(0, 5, (24,), generator=generator)


def train(model, optimizer, steps, shape=(20,), parts=1):
    for step in steps:
        inputs, labels = batch(step, shape)
        optimizer.zero_grad()
        for x, y in zip(inputs.chunk(parts), labels.chunk(parts), strict=True):
            (functional.cross_entropy(model(x), y) / parts).backward()
        optimizer.step()


def dense_weights(model, names):
    found = {}
    for name in names:
        module = model.get_submodule(name.removesuffix(".weight"))
        stored = hasattr(module, "dense_weight")
        found[name] = (module.dense_weight() if stored else module.weight).detach()
    return found


def both(method, optimizer="adam", build=mlp, shape=(20,), steps=150, execution="csr", **options):
    """Train under masks and stored; return (model, optimizer, sparsifier) of each."""
    runs = []
    for how in ("masked", execution):
        model = build()
        made = OPTIMIZERS[optimizer](model.parameters())
        sparse = regrow.sparsify(
            model, made, method, total_steps=steps, execution=how, exclude=["*bias"], **options
        )
        train(model, made, range(steps), shape)
        runs.append((model, made, sparse))
    return runs


def assert_alike(runs, tolerance=2e-5):
    (masked, _, one), (stored, _, other) = runs
    assert len(one.history) == len(other.history) > 0
    assert one.history == other.history
    for name, mask in one.masks.items():
        assert mask.equal(other.masks[name])
        assert one.fired[name].equal(other.fired[name])
    assert one.density == other.density
    expected, found = (dense_weights(model, one.masks) for model in (masked, stored))
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-4, atol=tolerance)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("kind", [regrow.SET, regrow.RigL])
@pytest.mark.parametrize(("execution", "pattern"), [("csr", None), ("block", Block(4))])
def test_the_same_topologies_and_weights_as_under_masks(kind, optimizer, execution, pattern):
    """150 steps with an update every 10, from one seed."""
    options = {"pattern": pattern} if pattern else {}
    method = kind(density=0.25, update_every=10, **options)
    assert_alike(both(method, optimizer, execution=execution, seed=1))


@pytest.mark.parametrize("kind", [regrow.SET, regrow.RigL])
def test_convolutions_as_well(kind):
    method = kind(density=0.3, update_every=10)
    assert_alike(both(method, "sgd", conv_net, (3, 6, 6), steps=60), tolerance=2e-4)


@pytest.mark.parametrize(
    "method",
    [
        regrow.GMP(density=0.2, update_every=5),
        regrow.GraNet(density=0.2, initial_density=0.5, update_every=5),
        regrow.MEST(density=0.2, update_every=5),
        regrow.RigLITOP(density=0.2, update_every=10),
        regrow.RandomWalk(density=0.2, update_every=5),
        regrow.Dynamic(density=0.2, update_every=5, threshold="global", on_grow="mean"),
        regrow.Dynamic(density=0.2, update_every=5, redistribute="gradient", drop=Random()),
        regrow.Dynamic(density=0.2, update_every=5, drop=WeightTimesGradient()),
        regrow.Dynamic(density=0.2, update_every=5, drop=Running(Magnitude()), grow=Random()),
        regrow.Dynamic(density=0.2, update_every=5, regrow_dropped=False, replaces_step=True),
        regrow.Dynamic(
            density=0.4,
            initial_density=0.1,
            density_path=Linear(1.0),
            update_every=5,
            grow=Random(),
        ),
    ],
    ids=lambda method: method.name,
)
def test_every_kind_of_move(method):
    assert_alike(both(method, "amsgrad", steps=60))


def test_a_start_chooses_who_is_stored():
    inputs, labels = batch(0)
    start = regrow.engine.saliency.Snip(
        loss=lambda model: functional.cross_entropy(model(inputs), labels)
    )
    method = regrow.RigL(density=0.3, start=start, update_every=10)
    assert_alike(both(method, steps=40))


def test_accumulated_gradients_grow_what_one_batch_would():
    topologies = []
    for parts in (1, 3):
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        method = regrow.RigL(density=0.25, update_every=3, replaces_step=True)
        sparse = regrow.sparsify(model, optimizer, method, total_steps=20, execution="csr")
        train(model, optimizer, range(10), parts=parts)
        topologies.append(sparse.masks)
    assert all(mask.equal(topologies[1][name]) for name, mask in topologies[0].items())


def test_only_active_weights_have_values_gradients_and_state():
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters())
    sparse = regrow.sparsify(
        model, optimizer, regrow.RigL(density=0.1), total_steps=100, execution="csr"
    )
    train(model, optimizer, range(2))
    for layer, weight in zip(sparse.plan.layers, sparse.weights(), strict=True):
        assert weight.shape == weight.grad.shape == (layer.initial,)
        found = slots(optimizer, weight)
        assert {tuple(slot.shape) for slot in found.values()} == {(layer.initial,)}
        assert len(found) == 2
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in model.parameters()}


def test_a_run_goes_on_bit_for_bit_where_it_stopped():
    method = regrow.RigL(density=0.2, update_every=4)

    def begin(**options):
        model = mlp()
        optimizer = torch.optim.Adam(model.parameters())
        sparse = regrow.sparsify(
            model, optimizer, method, total_steps=40, execution="csr", **options
        )
        return model, optimizer, sparse

    whole = begin()
    train(*whole[:2], range(25))
    first = begin()
    train(*first[:2], range(13))
    file = io.BytesIO()
    torch.save([part.state_dict() for part in first], file)
    file.seek(0)
    model_state, optimizer_state, sparse_state = torch.load(file, weights_only=True)
    resumed = begin(state=sparse_state)
    resumed[0].load_state_dict(model_state)
    resumed[1].load_state_dict(optimizer_state)
    train(*resumed[:2], range(13, 25))
    for name, value in whole[0].state_dict().items():
        assert resumed[0].state_dict()[name].equal(value)
    assert resumed[2].history == whole[2].history
    assert all(resumed[2].masks[name].equal(mask) for name, mask in whole[2].masks.items())


def test_what_masks_saved_stored_layers_go_on_with():
    method = regrow.RigL(density=0.2, update_every=4)
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    masked = regrow.sparsify(model, optimizer, method, total_steps=40)
    train(model, optimizer, range(10))
    state = masked.state_dict()
    twin = copy.deepcopy(model)
    stored = regrow.sparsify(
        twin,
        torch.optim.SGD(twin.parameters(), lr=0.05),
        method,
        total_steps=40,
        execution="csr",
        state=state,
    )
    assert stored.steps == 10
    inputs, _ = batch(0)
    torch.testing.assert_close(twin(inputs), model(inputs))
    for name, mask in masked.masks.items():
        assert stored.masks[name].equal(mask)
    again = stored.state_dict()["layers"]
    for name, layer in state["layers"].items():
        assert again[name]["mask"].equal(layer["mask"])
        assert again[name]["fired"].equal(layer["fired"])


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda run: pickle.loads(pickle.dumps(run))])
def test_a_copy_of_everything_goes_on_alike(clone):
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters())
    sparse = regrow.sparsify(
        model, optimizer, regrow.RigL(density=0.2, update_every=4), total_steps=40, execution="csr"
    )
    train(model, optimizer, range(6))
    twin = clone((model, optimizer, sparse))
    for run in ((model, optimizer, sparse), twin):
        train(*run[:2], range(6, 20))
    assert len(sparse.history) == len(twin[2].history) == 5
    for name, value in model.state_dict().items():
        assert twin[0].state_dict()[name].equal(value)


class TestOnTheMetaDevice:
    def test_nothing_dense_is_made_and_everything_is_somewhere(self):
        model = mlp("meta")
        optimizer = torch.optim.Adam(model.parameters())
        method = regrow.RigL(density=0.2, update_every=4)
        sparse = regrow.sparsify(
            model, optimizer, method, total_steps=40, execution="csr", exclude="4.weight"
        )
        assert not any(p.is_meta for p in model.parameters())
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        assert held == {id(p) for p in model.parameters()}
        assert type(model[4]) is nn.Linear
        train(model, optimizer, range(10))
        assert len(sparse.history) == 2

    def test_values_are_drawn_as_the_dense_layer_draws_them(self, p_value_uniform):
        with torch.device("meta"):
            model = nn.Sequential(nn.Linear(400, 300), nn.Conv2d(8, 64, 3))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        regrow.sparsify(
            model, optimizer, regrow.Static(density=0.3), total_steps=9, execution="csr"
        )
        for module, fan_in in ((model[0], 400), (model[1], 72)):
            for values in (module.weight, module.bias):
                assert p_value_uniform(values.detach() * fan_in**0.5) > 1e-3

    def test_a_module_that_cannot_draw_itself_is_named(self):
        class Odd(nn.Module):
            def __init__(self):
                super().__init__()
                self.scale = nn.Parameter(torch.ones(3))

        with torch.device("meta"):
            model = nn.Sequential(nn.Linear(4, 4), Odd())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with pytest.raises(ValueError, match=r"1 \(Odd\) is on the meta device"):
            regrow.sparsify(
                model, optimizer, regrow.Static(density=0.5), total_steps=9, execution="csr"
            )


@pytest.fixture
def p_value_uniform():
    """p_value(values): of a chi-squared test that they are uniform on (-1, 1)."""

    def compute(values):
        assert values.abs().max() <= 1
        bins = 16
        counts = torch.histc(values, bins, -1, 1).double()
        statistic = ((counts - len(values) / bins) ** 2 / (len(values) / bins)).sum()
        return float(
            1 - torch.special.gammainc(torch.tensor((bins - 1) / 2).double(), statistic / 2)
        )

    return compute


def hooked():
    model = mlp()
    model[0].register_forward_hook(lambda *_: None)
    return model


def tied():
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    model[1].weight = model[0].weight
    return model


class TestRefuses:
    @pytest.mark.parametrize(
        ("method", "reason"),
        [
            (regrow.RigL(density=0.5, pattern=Kernel()), r"pattern=Kernel\(\).*Element\(\)"),
            (regrow.TopKAST(density=0.5), "keeps dropped weights"),
            (regrow.CHT(density=0.5), "whole masks"),
            (regrow.Dynamic(density=0.5, grow=Momentum()), r"grow=Momentum\(\)"),
            (regrow.Dynamic(density=0.5, grow=Unfired()), r"grow=Unfired\(\)"),
            (regrow.Dynamic(density=0.5, on_grow="keep"), "on_grow='keep'"),
        ],
    )
    def test_methods_that_need_what_is_not_stored(self, method, reason):
        self.check(mlp(), method, reason)

    @pytest.mark.parametrize(
        ("model", "reason"),
        [
            (nn.Linear(4, 4), "wrap it in nn.Sequential"),
            (nn.Sequential(nn.MultiheadAttention(4, 2)), "MultiheadAttention"),
            (nn.Sequential(nn.LSTM(4, 4)), "LSTM"),
            (nn.Sequential(nn.ConvTranspose2d(4, 4, 3)), "ConvTranspose2d"),
            (nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular")), "padding_mode"),
            (mlp().double(), "torch.float64"),
            (hooked(), "hooks"),
            (tied(), "tied"),
        ],
    )
    def test_layers_that_cannot_be_stored(self, model, reason):
        self.check(model, regrow.RigL(density=0.5), reason)

    def test_a_wrapped_model(self):
        model = nn.DataParallel(mlp())
        self.check(model, regrow.RigL(density=0.5), "DataParallel around the model")

    def test_held_weights(self):
        available = {"0.weight": torch.ones(48, 20, dtype=torch.bool)}
        self.check(mlp(), regrow.RigL(density=0.5), "cannot hold weights", available=available)

    def test_auto_without_inputs(self):
        self.check(mlp(), regrow.RigL(density=0.5), "example_inputs", execution="auto")

    def test_another_way(self):
        self.check(
            mlp(),
            regrow.RigL(density=0.5),
            "'masked', 'csr', 'block', '2:4', 'auto'",
            execution="fast",
        )

    def check(self, model, method, reason, execution="csr", **options):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        before = copy.deepcopy(model.state_dict())
        modules = [id(module) for module in model.modules()]
        with pytest.raises(ValueError, match=reason):
            regrow.sparsify(model, optimizer, method, total_steps=9, execution=execution, **options)
        assert modules == [id(module) for module in model.modules()]
        assert all(model.state_dict()[name].equal(value) for name, value in before.items())

    def test_growing_by_a_gradient_that_was_not_gathered(self):
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        method = regrow.RigL(density=0.3, update_every=10)
        sparse = regrow.sparsify(model, optimizer, method, total_steps=40, execution="csr")
        train(model, optimizer, range(2))
        before = copy.deepcopy(model.state_dict())
        functional.cross_entropy(model(batch(0)[0]), batch(0)[1]).backward()
        with pytest.raises(RuntimeError, match="before a scheduled update"):
            sparse.update_()
        assert all(model.state_dict()[name].equal(value) for name, value in before.items())
        train(model, optimizer, range(20))
        assert len(sparse.history) == 2

    def test_a_dense_gradient_that_is_no_number(self):
        """The first input is not read by any active weight, so that only a grown one would see."""
        model = nn.Sequential(nn.Linear(12, 3, bias=False))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        method = regrow.RigL(density=0.2, update_every=1, stop_at=9, allocation=Uniform())
        sparse = regrow.sparsify(model, optimizer, method, total_steps=9, execution="csr", seed=1)
        unread = int((~sparse.masks["0.weight"].any(0)).nonzero()[0])
        inputs = torch.ones(2, 12)
        inputs[0, unread] = torch.inf
        before = model[0].weight.detach().clone(), sparse.masks["0.weight"]
        model(inputs).sum().backward()
        with pytest.raises(FloatingPointError, match=r"layer 0\.weight: .*nothing was changed"):
            optimizer.step()
        assert model[0].weight.equal(before[0])
        assert sparse.masks["0.weight"].equal(before[1])


def test_blocks_dropped_by_weights_and_gradients():
    method = regrow.Dynamic(
        density=0.5, pattern=Block(4), drop=MagnitudePlusGradient(0.1), update_every=5
    )
    assert_alike(both(method, "sgd", execution="block", steps=60))


def test_stored_modules_stand_where_dense_ones_stood():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    bias = model[0].bias
    sparse = regrow.sparsify(
        model, optimizer, regrow.SET(density=0.3), total_steps=9, execution="csr"
    )
    assert isinstance(model[0], CsrLinear)
    assert model[0].bias is bias
    assert "csr" in sparse.summary()
    assert sorted(dict(model.named_parameters())) == sorted(dict(mlp().named_parameters()))


def test_the_index_is_counted_whole_and_shared_memory_once():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparse = regrow.sparsify(
        model,
        optimizer,
        regrow.Static(density=0.25),
        total_steps=10,
        execution="csr",
        exclude="4.weight",
    )
    layers = [(48, 20), (40, 48)]
    nonzeros = [module.weight.numel() for module in model if isinstance(module, CsrLinear)]
    history = sum(rows * columns // 8 for rows, columns in layers)
    by_row = sum(4 * (n + rows + 1) for n, (rows, _) in zip(nonzeros, layers, strict=True))
    assert sparse.topology_bytes() == history + by_row
    train(model, optimizer, range(1))
    second = 4 * (2 * nonzeros[1] + layers[1][1] + 1)  # a first layer has no input gradient
    assert sparse.topology_bytes() == history + by_row + second


def test_the_index_of_a_convolution_counts_its_offsets():
    model = conv_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparse = regrow.sparsify(
        model,
        optimizer,
        regrow.Static(density=0.25),
        total_steps=10,
        execution="csr",
        include="3.weight",
    )
    before = sparse.topology_bytes()
    train(model, optimizer, range(1), (3, 8, 8))
    n = model[3].weight.numel()
    assert sparse.topology_bytes() >= before + 3 * 4 * n  # forward, and backward with its order
