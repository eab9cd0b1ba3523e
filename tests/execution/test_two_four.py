"""2:4 layers without their kernels: a reference packs and multiplies in their place."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.sparse._semi_structured_conversions import (
    sparse_semi_structured_from_dense_cutlass,
    sparse_semi_structured_to_dense_cutlass,
)

import regrow
from regrow.engine.patterns import NM, Block
from regrow.execution import choose
from regrow.execution.export import inference_module
from regrow.execution.two_four import PackedLinear, TwoFourLinear, library
from regrow.measure.timing import Timing

HALF = torch.bfloat16


@pytest.fixture
def tensor_cores(monkeypatch):
    """Sparse tensor cores on the CPU: torch's own packed layout, read back and multiplied."""
    calls = []

    def pack(weight):
        assert weight.is_contiguous()
        assert ((weight != 0).view(len(weight), -1, 4).sum(-1) <= 2).all()
        return sparse_semi_structured_from_dense_cutlass(weight)

    def multiply(x, packed, bias):
        assert len(x) % 8 == 0 and x.is_contiguous()
        calls.append(tuple(x.shape))
        return functional.linear(x, sparse_semi_structured_to_dense_cutlass(*packed), bias)

    monkeypatch.setattr(library, "library", lambda device: "CUTLASS")
    monkeypatch.setattr(library, "pack", pack)
    monkeypatch.setattr(library, "_by_cutlass", multiply)
    return calls


def perceptron(dtype=HALF):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.Linear(64, 10)).to(
        dtype
    )


def sparse_run(execution="2:4", method=None, dtype=HALF):
    model = perceptron(dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    method = method or regrow.DynamicNM(update_every=3)
    options = {"total_steps": 30, "exclude": ["3.*"], "execution": execution}
    return model, optimizer, regrow.sparsify(model, optimizer, method, **options)


def step(model, optimizer, number, batch=12, dtype=HALF):
    x = torch.randn(batch, 64, generator=torch.Generator().manual_seed(number)).to(dtype)
    optimizer.zero_grad()
    loss = model(x).float().square().mean()
    loss.backward()
    optimizer.step()
    return loss


def layer_of(out=96, into=64, dtype=HALF, bias=True):
    torch.manual_seed(1)
    dense = nn.Linear(into, out, bias=bias).to(dtype)
    units = NM(2, 4).draw(
        out * into // 2, torch.ones(out, into, dtype=torch.bool), out * into, torch.Generator()
    )
    mask = units.to(dtype)
    with torch.no_grad():
        dense.weight.mul_(mask)
    return TwoFourLinear.made_of_(dense, mask)


# ---------------------------------------------------------------------- products


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(8, 64), (3, 64), (2, 5, 64), (64,), (0, 64)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_output_and_gradients_are_those_of_the_dense_layer(tensor_cores, dtype, shape, bias):
    layer = layer_of(dtype=dtype, bias=bias)
    x = torch.randn(shape).to(dtype).requires_grad_()
    y = layer(x)
    grad = torch.randn_like(y)
    y.backward(grad)
    assert bool(tensor_cores) == bool(x.numel())
    exact = [t.detach().double() for t in (x, layer.weight, *([layer.bias] if bias else []))]
    for leaf in exact:
        leaf.requires_grad_()
    expected = functional.linear(*exact)
    expected.backward(grad.double())
    found = [x.grad, layer.weight.grad, *([layer.bias.grad] if bias else [])]
    torch.testing.assert_close(y.double(), expected, rtol=2e-2, atol=5e-2)
    for one, leaf in zip(found, exact, strict=True):
        torch.testing.assert_close(one.double(), leaf.grad, rtol=2e-2, atol=2e-1)
    if x.numel():
        assert layer.weight.grad[layer.mask == 0].any()  # growth reads it


def test_what_lies_outside_the_mask_takes_no_part(tensor_cores):
    layer, x = layer_of(), torch.randn(8, 64).to(HALF)
    expected = layer(x)
    with torch.no_grad():
        layer.weight[layer.mask == 0] = 3.0
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=0)


def test_autocast_multiplies_halves_of_float32_weights(tensor_cores):
    layer = layer_of(dtype=torch.float32)
    x = torch.randn(8, 64)
    layer(x)
    assert not tensor_cores
    with torch.autocast("cpu", HALF):
        y = layer(x)
    assert tensor_cores and y.dtype == HALF
    y.float().square().sum().backward()
    assert layer.weight.grad.dtype == torch.float32
    torch.testing.assert_close(y.float(), layer(x), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize(
    ("shape", "dtype", "found", "why"),
    [
        ((64, 64), HALF, None, "it is on cpu"),
        ((64, 64), torch.float32, "cuSPARSELt", "computed in torch.float32"),
        ((64, 64), torch.float64, "CUTLASS", "computed in torch.float64"),
        ((48, 80), torch.float16, "cuSPARSELt", None),
        ((48, 64), torch.float16, "CUTLASS", "outputs by multiples of 32, inputs of 64"),
        ((64, 96), HALF, "CUTLASS", "outputs by multiples of 32, inputs of 64"),
        ((64, 128), HALF, "CUTLASS", None),
        ((10, 64), HALF, "cuSPARSELt", "outputs by multiples of 16, inputs of 16"),
        ((0, 64), HALF, "cuSPARSELt", "multiples"),
    ],
)
def test_what_sparse_tensor_cores_take(shape, dtype, found, why):
    reason = library.why_dense(torch.zeros(shape), dtype, found)
    assert reason is None if why is None else why in reason


def test_sizes_that_do_not_fit_are_multiplied_dense(tensor_cores):
    layer = layer_of(out=40)
    x = torch.randn(8, 64).to(HALF)
    torch.testing.assert_close(layer(x), functional.linear(x, layer.weight, layer.bias))
    assert not tensor_cores
    assert "multiples of 32" in layer.computed_by()


# ---------------------------------------------------------------------- training


@pytest.mark.parametrize(
    "method",
    [
        regrow.DynamicNM(update_every=3),
        regrow.SET(density=0.5, pattern=NM(2, 4), update_every=3),
        regrow.Static(density=0.5, pattern=NM(2, 4)),
    ],
    ids=lambda method: method.name,
)
def test_the_topology_is_that_of_masks(tensor_cores, method):
    (one, first, masked), (other, second, found) = (
        sparse_run(execution, method) for execution in ("masked", "2:4")
    )
    assert isinstance(other[0], TwoFourLinear) and type(other[3]) is nn.Linear
    assert all(mask.equal(masked.masks[name]) for name, mask in found.masks.items())
    for number in range(7):
        losses = step(one, first, number), step(other, second, number)
        torch.testing.assert_close(*losses, rtol=3e-2, atol=3e-2)
    assert tensor_cores
    assert [update.step for update in found.history] == [update.step for update in masked.history]
    for name, mask in found.masks.items():
        assert NM(2, 4).allows(NM(2, 4).reduce(mask))
        assert (mask == masked.masks[name]).float().mean() > 0.9
        assert not other.get_parameter(name)[~mask].any()
    assert one.state_dict().keys() == other.state_dict().keys()


def test_without_tensor_cores_the_run_is_bit_for_bit_that_of_masks():
    runs = [sparse_run(execution) for execution in ("masked", "2:4")]
    for number in range(7):
        losses = [step(model, optimizer, number) for model, optimizer, _ in runs]
        assert losses[0].equal(losses[1])
    (one, _, first), (other, _, second) = runs
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert len(second.history) == 2 and first.history == second.history
    assert "dense products (2:4: it is on cpu" in second.summary()


def test_one_graph_before_in_and_after_updates(tensor_cores):
    torch.compiler.reset()
    (model, optimizer, sparse), (other, second, eager) = sparse_run(), sparse_run()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    step(compiled, optimizer, 0)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for number in range(1, 7):
            step(compiled, optimizer, number)
    for number in range(7):
        step(other, second, number)
    assert len(sparse.history) == 2
    assert all(mask.equal(eager.masks[name]) for name, mask in sparse.masks.items())


def test_a_layer_is_dense_once_its_topology_has_left(tensor_cores):
    model, _, sparse = sparse_run()
    x = torch.randn(8, 64).to(HALF)
    sparse.rebind_(torch.optim.SGD(model.parameters(), lr=0.1))
    assert model[0].mask is not None
    sparse.remove()
    with torch.no_grad():
        model[0].weight.fill_(1.0)
    tensor_cores.clear()
    torch.testing.assert_close(model[0](x), functional.linear(x, *model[0].parameters()))
    assert not tensor_cores


def test_copies_compute_their_own_weights_and_a_copied_run_goes_on(tensor_cores):
    """An average of weights fills up outside the masks: nothing of it may be left out."""
    run = sparse_run()
    x = torch.randn(8, 64).to(HALF)
    for average in (copy.deepcopy(run[0]), pickle.loads(pickle.dumps(run[0]))):
        with torch.no_grad():
            average[0].weight.fill_(1.0)
        torch.testing.assert_close(average[0](x), functional.linear(x, *average[0].parameters()))
    model, optimizer, sparse = copy.deepcopy(run)
    assert model[0].mask is sparse._topology.layers[0].mask is not run[0][0].mask
    for number in range(4):
        assert step(model, optimizer, number).equal(step(*run[:2], number))
    assert len(sparse.history) == 1
    assert torch.equal(model[0].mask, sparse.masks["0.weight"].to(HALF))


def test_the_mask_follows_a_converted_model(tensor_cores):
    model, optimizer, sparse = sparse_run(dtype=torch.float32)
    step(model, optimizer, 0, dtype=torch.float32)
    assert not tensor_cores
    model.to(HALF)
    step(model, optimizer, 1)  # the first step after it tells the topology
    tensor_cores.clear()
    step(model, optimizer, 2)
    assert tensor_cores
    assert model[0].mask.dtype == HALF
    assert torch.equal(model[0].mask.bool(), sparse.masks["0.weight"])


def test_a_saved_run_goes_on_under_masks_and_back(tensor_cores):
    model, optimizer, sparse = sparse_run()
    for number in range(4):
        step(model, optimizer, number)
    state, weights = copy.deepcopy(sparse.state_dict()), copy.deepcopy(model.state_dict())
    assert state["execution"] == {"0.weight": "2:4", "2.weight": "2:4"}
    for execution in ("masked", "2:4"):
        twin = perceptron()
        twin.load_state_dict(weights)
        optimizer = torch.optim.SGD(twin.parameters(), lr=0.05)
        options = {"total_steps": 30, "exclude": ["3.*"], "execution": execution, "state": state}
        resumed = regrow.sparsify(twin, optimizer, sparse.method, **options)
        assert all(mask.equal(sparse.masks[name]) for name, mask in resumed.masks.items())
        assert resumed.steps == 4


# ---------------------------------------------------------------------- refused, chosen


def test_what_cannot_be_2_4_is_refused_and_nothing_changes():
    model = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Linear(8, 8))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = copy.deepcopy(model.state_dict())
    ask = {"total_steps": 10, "execution": "2:4"}
    with pytest.raises(ValueError, match=r"0\.weight: it is the weight of a Conv2d; 2:4 is for"):
        regrow.sparsify(model, optimizer, regrow.DynamicNM(), **ask)
    for pattern in (NM(1, 4), Block(4)):
        with pytest.raises(ValueError, match=r"2:4 computes units of NM\(2, 4\)"):
            method = regrow.Static(
                density=pattern.density if pattern == NM(1, 4) else 0.5, pattern=pattern
            )
            regrow.sparsify(model, optimizer, method, include=["1.weight"], **ask)
    free = {"1.weight": torch.ones(8, 8, dtype=torch.bool)}
    with pytest.raises(ValueError, match="2:4 layers cannot hold weights"):
        chosen = regrow.DynamicNM()
        regrow.sparsify(model, optimizer, chosen, include=["1.weight"], frozen=free, **ask)
    assert type(model[1]) is nn.Linear
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("faster", [True, False])
def test_auto_takes_what_was_timed_faster(tensor_cores, monkeypatch, faster):
    times = {"masked": Timing((1.0,) * 5), "2:4": Timing((0.5 if faster else 1.5,) * 5)}
    monkeypatch.setattr(choose, "library", library.library)
    monkeypatch.setattr(choose, "time_layer", lambda *_, **__: times)
    model = perceptron()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    options = {"total_steps": 9, "execution": "auto", "example_inputs": torch.zeros(8, 64).to(HALF)}
    sparse = regrow.sparsify(model, optimizer, regrow.DynamicNM(), **options)
    chosen = [layer.execution for layer in sparse.plan.layers]
    assert chosen == (["2:4", "2:4", "masked"] if faster else ["masked"] * 3)
    assert "multiples of 32" in sparse.plan.layers[2].why


def test_auto_really_times_both(tensor_cores, monkeypatch):
    monkeypatch.setattr(choose, "library", library.library)
    model, method = perceptron(), regrow.DynamicNM()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    plan = regrow.sparsify(model, optimizer, method, total_steps=9).plan
    calls = [choose.Call((8, 64), True)]
    times = choose.time_layer(model, optimizer, method, plan.layers[0], "2:4", calls, seconds=0.0)
    assert set(times) == {"masked", "2:4"} and tensor_cores


def test_on_a_cpu_auto_stays_with_masks():
    model = perceptron()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    options = {"total_steps": 9, "execution": "auto", "example_inputs": torch.zeros(8, 64).to(HALF)}
    plan = regrow.sparsify(model, optimizer, regrow.DynamicNM(), **options).plan
    assert {layer.execution for layer in plan.layers} == {"masked"}
    assert all("it is on cpu" in layer.why for layer in plan.layers)


# ---------------------------------------------------------------------- inference


def test_a_packed_layer_holds_no_dense_weight_and_computes_the_same(tensor_cores):
    layer = layer_of()
    packed = PackedLinear(layer)
    x = torch.randn(2, 3, 64).to(HALF)
    torch.testing.assert_close(packed(x), layer(x))
    with torch.autocast("cpu", HALF):
        torch.testing.assert_close(packed(x.float()), layer(x))
    held = sum(value.nbytes for name, value in packed.named_buffers() if name != "bias")
    assert held == layer.weight.nbytes * 9 // 16
    with pytest.raises(TypeError, match=r"input is torch\.float32, weight torch\.bfloat16"):
        packed(x.float())


def test_a_weight_that_is_not_2_4_is_not_packed(tensor_cores):
    layer = layer_of()
    with torch.no_grad():
        layer.weight[3, :3] = 1.0
    with pytest.raises(ValueError, match="of four inputs more than two"):
        PackedLinear(layer)


def test_inference_on_a_cpu_stores_nonzeros():
    model = nn.Sequential(layer_of(dtype=torch.float32))
    fast = inference_module(model, below=0.6)
    assert type(fast[0]).__name__ == "CsrLinear"
    x = torch.randn(5, 64)
    torch.testing.assert_close(fast(x), model(x))


@pytest.mark.parametrize("rule", [regrow.Wanda, regrow.SparseGPT])
def test_a_trained_model_that_was_pruned_to_2_4_trains_on_and_is_packed(tensor_cores, rule):
    """From regrow.prune to the layers of sparse tensor cores: nothing is lost on the way."""
    model, x = perceptron(), torch.randn(32, 64).to(HALF)
    done = {"density": 0.5, "pattern": NM(2, 4)}
    pruned = regrow.prune(model, rule(**done), [x], exclude="3.*")
    before = model(x)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    method = regrow.DynamicNM(start=pruned.start, update_every=3)
    options = {"total_steps": 30, "include": pruned.names, "execution": "2:4"}
    sparse = regrow.sparsify(model, optimizer, method, **options)
    torch.testing.assert_close(model(x), before)
    assert tensor_cores and all(isinstance(model[i], TwoFourLinear) for i in (0, 2))
    for number in range(7):
        step(model, optimizer, number)
    assert {name: int(mask.sum()) for name, mask in sparse.masks.items()} == dict(pruned.kept)
    for i in (0, 2):
        assert ((model[i].weight != 0).view(-1, 4).sum(1) <= 2).all()
        inputs = torch.randn(5, model[i].in_features).to(HALF)
        torch.testing.assert_close(PackedLinear(model[i])(inputs), model[i](inputs))
