"""On a GPU: the topology of the CPU, no waiting for the device layer by layer, loss scaling."""

import dataclasses

import pytest
import torch
from torch import nn

import regrow
from regrow.engine.criteria import AverageGradient, Running
from regrow.engine.patterns import Block
from regrow.engine.scores import Magnitude

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")

SIZES = [(48, 32), (32, 48), (16, 32)]
GRID = 2.0**-8  # numbers on a grid of powers of two: arithmetic is exact on every device


def on_grid(*shape, seed):
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return (values / GRID).round() * GRID


def build(name, **options):
    kind = regrow.METHODS[name]
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    if "inputs" in fields:
        pytest.skip("needs a model that maps inputs to outputs")
    if isinstance(fields["pattern"].default, Block):
        options.setdefault("pattern", Block(8))  # the layers here are small
    offered = {
        "density": 0.25,
        "update_every": 2,
        "trained": {str(i): on_grid(*s, seed=50 + i) for i, s in enumerate(SIZES)},
        "loss": lambda model: sum(p.square().sum() for p in model.parameters()),
    } | options
    return kind(**{name: value for name, value in offered.items() if name in fields})


def bare(weights, device):
    """A module of bare weights (out, in) on a device; said once they are there."""
    model = nn.ParameterDict({str(i): nn.Parameter(weight) for i, weight in enumerate(weights)})
    model.to(device)
    for weight in model.parameters():
        weight.output_dim = 0  # no layer holds them that would tell
    return model


def run(method, device, steps=12):
    model = bare([on_grid(*s, seed=i) for i, s in enumerate(SIZES)], device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.25, momentum=0.5)
    sparse = regrow.sparsify(model, optimizer, method, total_steps=steps, include="*")
    for step in range(steps):
        for i, weight in enumerate(model.parameters()):
            weight.grad = on_grid(*weight.shape, seed=100 * step + i).to(device)
        optimizer.step()
    return sparse, [weight.detach().cpu() for weight in model.parameters()]


@pytest.mark.parametrize("name", [n for n in regrow.METHODS if n != "Dense"])
def test_one_seed_gives_one_topology_on_every_device(name):
    method = build(name)
    on_cpu, weights = run(method, "cpu")
    on_gpu, same = run(method, "cuda")
    assert on_cpu.history == on_gpu.history
    for layer, mask in on_cpu.masks.items():
        assert torch.equal(mask, on_gpu.masks[layer].cpu()), layer
        assert on_gpu.masks[layer].device.type == "cuda"
    for one, other in zip(weights, same, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


MOVING = [
    name
    for name, kind in regrow.METHODS.items()
    if issubclass(kind, regrow.Dynamic) and name != "ACDC"  # whose phases are far apart
]


@pytest.mark.parametrize("name", MOVING)
def test_the_host_waits_for_an_update_not_for_every_layer(name, host_waits):
    def waits(layers):
        model = bare([torch.randn(64, 64) for _ in range(layers)], "cuda")
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        method = build(name, stop_at=1.0, start_at=0)
        sparse = regrow.sparsify(model, optimizer, method, total_steps=100, include="*")
        for _ in range(4):
            for weight in model.parameters():
                weight.grad = torch.randn_like(weight)
            optimizer.step()
        assert len(sparse.history) >= 2
        sparse._clock._calls = 5  # so that a density that moves has somewhere to go
        return host_waits(sparse.update_)

    few, many = waits(3), waits(30)
    assert few <= 7
    assert many - few == 27 * (name == "CHT")  # whose paths are followed on the host


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("name", ["Static", "SET", "RigL", "MEST", "GraNet", "TopKAST", "averages"])
def test_an_ordinary_step_never_waits(name, fused, waiting_is):
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)).to("cuda")
    optimizer = torch.optim.AdamW(model.parameters(), fused=fused)
    if name == "averages":
        options = {"drop": Running(Magnitude()), "grow": AverageGradient()}
        method = regrow.Dynamic(density=0.1, **options)
    else:
        method = build(name, density=0.1, update_every=500, soft_memory=0.5)
    sparse = regrow.sparsify(model, optimizer, method, total_steps=1000)
    model(torch.randn(8, 64, device="cuda")).square().sum().backward()
    optimizer.step()
    with waiting_is("error"):
        for _ in range(3):
            optimizer.step()
    assert sparse.steps == 4


@pytest.mark.parametrize(
    "options",
    [{"fused": True}, {"capturable": True}, {"foreach": True}, {"fused": True, "amsgrad": True}],
    ids=str,
)
@pytest.mark.parametrize("name", ["SET", "RigL"])
def test_grown_weights_start_afresh_under_every_adam(name, options):
    model = nn.Linear(48, 32).to("cuda")
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, **options)
    sparse = regrow.sparsify(model, optimizer, build(name, update_every=3), total_steps=20)
    grown = 0
    for step in range(9):
        was, before = sparse.masks["weight"], model.bias.detach().clone()
        optimizer.zero_grad()
        model(torch.randn(16, 48, device="cuda")).square().mean().backward()
        optimizer.step()
        new = sparse.masks["weight"] & ~was
        grown += int(new.sum())
        assert int(sparse.masks["weight"].sum()) == 384
        assert not model.weight[~sparse.masks["weight"]].any()
        assert not model.weight[new].any()
        for slot in optimizer.state[model.weight].values():
            assert slot.shape != model.weight.shape or not slot[new].any()
        assert model.bias.equal(before) == (name == "RigL" and step % 3 == 2)
    assert grown > 30


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_the_scaler_skips_is_no_step(fused):
    model = nn.Linear(32, 32).to("cuda")
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=fused)
    method = regrow.RigL(density=0.3, update_every=3, stop_at=1.0)
    sparse = regrow.sparsify(model, optimizer, method, total_steps=20)
    scaler = torch.amp.GradScaler("cuda", init_scale=1024.0)
    for step in range(9):
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.float16):
            loss = model(torch.randn(16, 32, device="cuda")).square().mean()
        scaler.scale(loss).backward()
        if step in (2, 5):
            model.weight.grad[0, 0] = torch.inf
        scaler.step(optimizer)
        scaler.update()
    assert sparse.steps == 7
    assert [update.step for update in sparse.history] == [3, 6]
    assert not model.weight[~sparse.masks["weight"]].any()


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_the_scaler_skips_is_not_scored(fused):
    """Neither by running averages nor by the update that would have been due."""
    weights = []
    for skipped in (False, True):
        torch.manual_seed(0)
        model = nn.Linear(32, 32).to("cuda")
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=fused)
        scores = {"drop": Running(Magnitude()), "grow": AverageGradient()}
        method = regrow.Dynamic(density=0.3, update_every=3, stop_at=1.0, **scores)
        sparse = regrow.sparsify(model, optimizer, method, total_steps=20)
        # A scale that never moves and is a power of two changes no bit of a gradient.
        scaler = torch.amp.GradScaler(
            "cuda", init_scale=2.0**10, backoff_factor=1 - 2e-16, growth_interval=1000
        )
        for step in range(8):
            inputs = torch.randn(16, 32, generator=torch.Generator().manual_seed(step)).to("cuda")
            for bad in (True, False) if skipped and step in (1, 2, 5) else (False,):
                optimizer.zero_grad()
                with torch.autocast("cuda", torch.float16):
                    loss = model(inputs).square().mean()
                scaler.scale(loss).backward()
                if bad:
                    model.weight.grad[0, 0] = torch.inf
                scaler.step(optimizer)
                scaler.update()
        assert [update.step for update in sparse.history] == [3, 6]
        assert sparse.steps == 8
        weights.append((model.weight.detach().clone(), sparse.masks["weight"]))
    assert weights[0][1].equal(weights[1][1])
    torch.testing.assert_close(weights[0][0], weights[1][0])


# What torch.compile imports and advises on the way.
@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores:UserWarning")
@pytest.mark.parametrize("name", ["SET", "RigL"])
def test_a_compiled_optimizer_step_still_drives_the_topology(name):
    torch.compiler.reset()
    masks = []
    for compiled in (True, False):
        torch.manual_seed(0)
        model = nn.Linear(32, 32).to("cuda", torch.float64)
        optimizer = torch.optim.Adam(model.parameters(), lr=torch.tensor(0.01), capturable=True)
        method = build(name, update_every=3, stop_at=1.0)
        sparse = regrow.sparsify(model, optimizer, method, total_steps=20)
        step = torch.compile(optimizer.step) if compiled else optimizer.step
        for number in range(10):
            generator = torch.Generator().manual_seed(number)
            inputs = torch.randn(16, 32, generator=generator, dtype=torch.float64).to("cuda")
            optimizer.zero_grad()
            model(inputs).square().mean().backward()
            step()
            assert not model.weight[~sparse.masks["weight"]].any()
        assert [update.step for update in sparse.history] == [3, 6, 9]
        masks.append(sparse.masks["weight"])
    assert masks[0].equal(masks[1])


# What torch.compile imports and advises on the way.
@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores:UserWarning")
def test_a_capturable_optimizer_and_a_compiled_model_stay_sparse():
    model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 4)).to("cuda")
    optimizer = torch.optim.Adam(model.parameters(), capturable=True)
    method = regrow.SET(density=0.2, update_every=2)
    sparse = regrow.sparsify(model, optimizer, method, total_steps=10)
    compiled = torch.compile(model)
    for _ in range(9):
        optimizer.zero_grad()
        compiled(torch.randn(8, 32, device="cuda")).square().mean().backward()
        optimizer.step()
    assert len(sparse.history) == 4
    for name, mask in sparse.masks.items():
        assert not model.get_parameter(name)[~mask].any()


def test_a_model_moved_after_it_became_sparse_takes_its_masks_along():
    model = nn.Linear(16, 16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparse = regrow.sparsify(
        model, optimizer, regrow.SET(density=0.3, update_every=1), total_steps=9
    )
    model.to("cuda")
    model.weight.grad = torch.randn_like(model.weight)
    optimizer.step()
    assert sparse.masks["weight"].device.type == "cuda"
    assert not model.weight[~sparse.masks["weight"]].any()
