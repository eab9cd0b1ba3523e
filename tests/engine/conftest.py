"""Models, loops and comparisons the engine's tests share: fixtures that return functions."""

from __future__ import annotations

import copy
import dataclasses
import math
import os
import subprocess
import sys

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional

import regrow
from regrow.engine.layer import MaskedLayer
from regrow.engine.patterns import Block, Element
from regrow.engine.planned import PlannedLayer
from regrow.engine.scores import Signals
from regrow.engine.selection import seeded_generator
from regrow.engine.update import Moves, UpdateView
from tests.ranks import on_ranks

torch.set_num_threads(1)  # the suite runs in several processes on few cores

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, foreach=False),
    "amsgrad": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
    "fused amsgrad": lambda p: torch.optim.AdamW(p, lr=0.01, amsgrad=True, fused=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "foreach": lambda p: torch.optim.AdamW(p, lr=0.01, foreach=True),
    "fused": lambda p: torch.optim.AdamW(p, lr=0.01, fused=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.01),
}


def make_mlp(seed=0, dtype=torch.float32):
    """Two linear layers, 12-16-8."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 8))
    return model.to(dtype)


class Weights(nn.Module):
    """Nothing but weights w0, w1, ...: tests write the gradients by hand."""

    def __init__(self, *weights):
        super().__init__()
        for number, weight in enumerate(weights):
            parameter = nn.Parameter(weight)
            parameter.output_dim = 0  # rows are outputs, for patterns that go by them
            self.register_parameter(f"w{number}", parameter)


def fill(shape, kind="normal", seed=0):
    """Draw a tensor; all kinds but the first are full of ties."""
    normal = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return {"normal": normal, "equal": torch.ones(shape), "signs": normal.sign()}.get(
        kind, torch.zeros(shape)
    )


def make_batch(step, dtype=torch.float32):
    """The batch of this step, the same in every run and process."""
    generator = torch.Generator().manual_seed(step)
    inputs = torch.randn(16, 12, generator=generator).to(dtype)
    return inputs, torch.randint(8, (16,), generator=generator)


def run_steps(model, optimizer, steps):
    """Train for these steps: a loop that knows nothing of sparsity."""
    for step in steps:
        inputs, labels = make_batch(step, next(model.parameters()).dtype)
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()


def batch_loss(model):
    """What starts that need data are given; a function of its own, so that it can be pickled."""
    inputs, labels = make_batch(1_000, next(model.parameters()).dtype)
    return functional.cross_entropy(model(inputs), labels)


NEEDED = {
    "loss": lambda: batch_loss,
    "inputs": lambda: torch.zeros(1, 12),
    "trained": lambda: make_mlp(seed=5).state_dict(),
}


def build_method(kind, **options):
    """Make a method: options it does not know are left out, what it needs is found by its name.

    The models of these tests are small, and so are the blocks of a method that has blocks.
    """
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    if isinstance(fields["pattern"].default, Block):
        options.setdefault("pattern", Block(2))
    missing = dataclasses.MISSING
    for name, field in fields.items():
        if name not in options and (field.default, field.default_factory) == (missing, missing):
            assert name in NEEDED, f"{kind.__name__} needs {name}: say in NEEDED what to give it"
            options[name] = NEEDED[name]()
    return kind(**{name: value for name, value in options.items() if name in fields})


def make_layer(shape, active, pattern=Element(), name="w", **options):
    """A masked layer of zeros; options: mask, weight, available, final, last."""
    weight = options.get("weight", torch.zeros(shape))
    mask, final = options.get("mask"), options.get("final", active)
    n = pattern.units(shape)
    planned = PlannedLayer(
        name, tuple(shape), n, active, final, active / n, final / n, options.get("last", False)
    )
    units = None if mask is None else pattern.reduce(mask.float()) > 0
    return MaskedLayer(
        planned, pattern, weight, seeded_generator(0, name), units, options.get("available")
    )


def propose_units(method, layers, signals, moves, fraction=0.0, progress=0.0, seed=1):
    """The active units of every layer after an update.

    Args:
        signals: keywords of Signals by layer, such as {"w": {"weight": ..., "gradient": ...}}.
    """

    def look(layer, role, kept):
        mask = layer.pattern.expand(kept, layer.planned.shape)
        return Signals(
            pattern=layer.pattern,
            mask=mask,
            fired=layer.fired,
            progress=progress,
            **signals[layer.name],
        )

    return method.propose(
        UpdateView(
            layers=layers,
            active={layer.name: layer.units() for layer in layers},
            moves=moves,
            fraction=fraction,
            signals=look,
            generator=lambda name, role: seeded_generator(seed, name, role),
        )
    )


def choose_units(score, role, k, mask=None, pattern=Element(), seed=1, **signals):
    """The flat numbers of the units that a score drops, or grows, of a layer."""
    shape = signals["weight"].shape
    mask = torch.full(shape, role == "drop") if mask is None else mask
    active = int((pattern.reduce(mask.float()) > 0).sum())
    layer = make_layer(shape, max(active, 1), pattern, mask=mask)
    layer.active = active
    if "fired" in signals:
        layer.fired = signals.pop("fired")
    method = regrow.Dynamic(density=0.5, pattern=pattern, **{role: score})
    moves = Moves(**{"shrink" if role == "drop" else "expand": k})
    progress = signals.pop("progress", 0.0)
    found = propose_units(
        method, [layer], {"w": signals}, {"w": moves}, progress=progress, seed=seed
    )
    return (found["w"] ^ layer.units()).flatten().nonzero().flatten().tolist()


def take_snapshot(model, optimizer, sparse=None):
    """Copy all that a run consists of."""
    return copy.deepcopy(
        {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "sparse": sparse and sparse.state_dict(),
        }
    )


def check_same(left, right):
    """Assert bit-identity of nested states."""
    if isinstance(left, torch.Tensor):
        torch.testing.assert_close(left, right, rtol=0, atol=0, equal_nan=True)
    elif isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            check_same(left[key], right[key])
    elif isinstance(left, list | tuple):
        for one, other in zip(left, right, strict=True):
            check_same(one, other)
    else:
        assert left == right


def run_script(code, *arguments, **environment):
    """Run Python code in a new process and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def join_and_save(folder, function):
    """Be a rank of gloo, and leave what a function returns there."""
    rank = int(os.environ["RANK"])
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    torch.manual_seed(100 + rank)  # the ranks' own generators must not matter
    torch.save(function(rank), folder / f"{function.__name__}-{rank}")
    dist.destroy_process_group()


def run_on_two_ranks(folder, function):
    """Call a test file's function on each of two ranks of gloo; return what they return."""
    for rank in on_ranks(join_and_save, folder, function):
        assert rank.returncode == 0, rank.stderr
    found = [folder / f"{function.__name__}-{rank}" for rank in range(2)]
    return [torch.load(path, weights_only=True) for path in found]


def resnet18_shapes():
    """CIFAR form; stages are counted from zero, as in the reference table."""
    shapes = {"conv1": (64, 3, 3, 3)}
    before = 64
    for stage, width in enumerate((64, 128, 256, 512)):
        for block in range(2):
            shapes[f"l{stage}.{block}.conv1"] = (width, before, 3, 3)
            shapes[f"l{stage}.{block}.conv2"] = (width, width, 3, 3)
            if before != width:
                shapes[f"l{stage}.sc"] = (width, before, 1, 1)
            before = width
    return shapes | {"fc": (100, 512)}


def resnet50_shapes():
    shapes = {"conv1": (64, 3, 7, 7)}
    before = 64
    for stage, (width, blocks) in enumerate(zip((64, 128, 256, 512), (3, 4, 6, 3), strict=True)):
        for block in range(blocks):
            shapes[f"l{stage}.{block}.conv1"] = (width, before, 1, 1)
            shapes[f"l{stage}.{block}.conv2"] = (width, width, 3, 3)
            shapes[f"l{stage}.{block}.conv3"] = (4 * width, width, 1, 1)
            if block == 0:
                shapes[f"l{stage}.sc"] = (4 * width, before, 1, 1)
            before = 4 * width
    return shapes | {"fc": (1000, 2048)}


def wrn_22_2_shapes():
    shapes = {"conv1": (16, 3, 3, 3)}
    before = 16
    for group, width in enumerate((32, 64, 128)):
        for block in range(3):
            shapes[f"g{group}.{block}.conv1"] = (width, before, 3, 3)
            shapes[f"g{group}.{block}.conv2"] = (width, width, 3, 3)
            if before != width:
                shapes[f"g{group}.sc"] = (width, before, 1, 1)
            before = width
    return shapes | {"fc": (10, 128)}


@pytest.fixture(scope="session")
def networks():
    return {
        "resnet18": resnet18_shapes(),
        "resnet50": resnet50_shapes(),
        "wrn-22-2": wrn_22_2_shapes(),
    }


@pytest.fixture(scope="session")
def mlp():
    return make_mlp


@pytest.fixture(scope="session")
def weights():
    """weights(shapes, kind): a module of bare weights."""
    return lambda shapes, kind="normal": Weights(
        *(fill(shape, kind, seed) for seed, shape in enumerate(shapes))
    )


@pytest.fixture(scope="session")
def filled():
    return fill


@pytest.fixture(scope="session")
def batch():
    return make_batch


@pytest.fixture(scope="session")
def train():
    return run_steps


@pytest.fixture(scope="session")
def build():
    return build_method


@pytest.fixture(scope="session")
def layer():
    return make_layer


@pytest.fixture(scope="session")
def proposal():
    return propose_units


@pytest.fixture(scope="session")
def choose():
    return choose_units


@pytest.fixture(scope="session")
def step_by_hand():
    """step_by_hand(model, optimizer, kind, seed): a step with gradients of this kind."""

    def step(model, optimizer, kind, seed):
        for number, weight in enumerate(model.parameters()):
            weight.grad = fill(weight.shape, kind, 10 * seed + number)
        optimizer.step()

    return step


@pytest.fixture(scope="session")
def call_step():
    """call_step(model, optimizer, step, closure): one of the three ways to call a step."""

    def call(model, optimizer, step, closure):
        inputs, labels = make_batch(step)

        def evaluate():
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(inputs), labels)
            loss.backward()
            return loss

        if closure == "keyword":
            optimizer.step(closure=evaluate)
        elif closure == "positional":
            optimizer.step(evaluate)
        else:
            evaluate()
            optimizer.step()

    return call


@pytest.fixture(scope="session")
def before_update():
    """before_update(make, **options): RigL one step short of its second update."""

    def build(make, **options):
        model = make_mlp()
        optimizer = make(model.parameters())
        method = regrow.RigL(density=0.4, drop_fraction=0.5, update_every=4, stop_at=1.0, **options)
        sparse = regrow.sparsify(model, optimizer, method, total_steps=40)
        run_steps(model, optimizer, range(7))
        return model, optimizer, sparse

    return build


@pytest.fixture(scope="session")
def snapshot():
    return take_snapshot


@pytest.fixture(scope="session")
def assert_same():
    return check_same


@pytest.fixture(scope="session")
def python():
    return run_script


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    """two_ranks(function): what it returns, given its rank, on each of two."""
    return lambda function: run_on_two_ranks(tmp_path_factory.mktemp("ranks"), function)


@pytest.fixture
def uncompiled():
    """What torchao compiles runs as it is written; test_optimizers.py has it compiled."""
    with torch.compiler.set_stance("force_eager"):
        yield


@pytest.fixture(scope="session")
def optimizers():
    return OPTIMIZERS


@pytest.fixture(params=OPTIMIZERS)
def any_optimizer(request):
    """Every kind of optimizer in turn, as a function of parameters."""
    return OPTIMIZERS[request.param]


@pytest.fixture(scope="session")
def p_value():
    """p_value(observed, expected, scale): chi-square test of equal frequencies."""

    def compute(observed, expected, scale=1.0):
        statistic = ((observed - expected) ** 2 / expected).sum() / scale
        half_freedom = torch.tensor((len(observed) - 1) / 2, dtype=torch.float64)
        return float(torch.special.gammaincc(half_freedom, statistic.double() / 2))

    return compute


@pytest.fixture(scope="session")
def nearest_count():
    """nearest_count(density, units): the rounding rule, spelled out a second time."""
    return lambda density, units: max(1, min(units, math.floor(density * units + 0.5)))
