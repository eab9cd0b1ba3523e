"""Stored layers in a user's hands: states of other positions, converted models, odd defaults."""

import copy
import io
import itertools

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode

import regrow
from regrow.engine.patterns import Block
from regrow.execution.csr import memory
from regrow.execution.csr.linear import CsrLinear
from regrow.execution.csr.norm import with_batch_last
from regrow.execution.export import dense_state_dict

KINDS = {
    "csr": ("csr", regrow.SET(density=0.3, update_every=3)),
    "csr, falling": ("csr", regrow.GMP(density=0.2, update_every=3)),
    "csr, average": ("csr", regrow.RigL(density=0.3, update_every=3)),
    "block": ("block", regrow.SET(density=0.3, pattern=Block(8), update_every=3)),
}
INPUTS = torch.linspace(-1, 1, 5 * 32).view(5, 32).sin()


def _sparse(kind="csr"):
    torch.manual_seed(0)
    execution, method = KINDS[kind]
    model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 16))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    sparse = regrow.sparsify(model, optimizer, method, total_steps=40, execution=execution)
    return model, optimizer, sparse


def _train(model, optimizer, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        model(INPUTS).square().mean().backward()
        optimizer.step()


def _saved(parts):
    return [copy.deepcopy(part.state_dict()) for part in parts]


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_takes_positions_along_with_values(kind):
    """Of an earlier state of the model alone outputs are what they were then."""
    model, optimizer, sparse = _sparse(kind)
    _train(model, optimizer, 4)
    early, masks = copy.deepcopy(model.state_dict()), sparse.masks
    outputs = model(INPUTS).detach()  # a graph that lives on would hold the old length
    _train(model, optimizer, 8)
    model.load_state_dict(early)
    assert torch.equal(model(INPUTS), outputs)
    assert all(torch.equal(mask, masks[name]) for name, mask in sparse.masks.items())
    assert sparse.density == pytest.approx(
        sum(int(m.sum()) for m in masks.values()) / sum(m.numel() for m in masks.values())
    )
    for name, bits in sparse.fired.items():
        assert bool((bits | ~masks[name]).all())
    _train(model, optimizer, 6)  # goes on, over an update
    dense = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 16))
    dense.load_state_dict(dense_state_dict(model))
    assert torch.allclose(dense(INPUTS), model(INPUTS), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ["".join(order) for order in itertools.permutations("mos")])
def test_a_run_goes_on_bit_for_bit_in_whatever_order_it_is_loaded(kind, order):
    parts = _sparse(kind)
    _train(*parts[:2], 7)
    saved = _saved(parts)
    _train(*parts[:2], 6)
    target = _saved(parts)
    _train(*parts[:2], 2)  # somewhere else
    for letter in order:
        i = "mos".index(letter)
        parts[i].load_state_dict(copy.deepcopy(saved[i]))
    _train(*parts[:2], 6)
    assert _equal(_saved(parts), target)


def _equal(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_equal, a, b))
    return a == b


def test_moments_stay_with_their_weights_where_only_the_model_was_loaded():
    model, optimizer, sparse = _sparse()
    _train(model, optimizer, 2)
    early = copy.deepcopy(model.state_dict())
    _train(model, optimizer, 5)
    weight, before = model[0].weight, model[0].positions.tolist()
    moments = dict(zip(before, optimizer.state[weight]["exp_avg"].tolist(), strict=True))
    model.load_state_dict(early)
    sparse._topology.settle_(optimizer)  # what every step does first
    after = model[0].positions.tolist()
    assert set(after) - set(before)
    assert optimizer.state[weight]["exp_avg"].tolist() == [moments.get(p, 0.0) for p in after]


def test_states_from_before_positions_travelled_are_loaded_with_a_warning(caplog):
    model, optimizer, _ = _sparse()
    _train(model, optimizer, 2)
    old = {k: v for k, v in model.state_dict().items() if "_extra_state" not in k}
    outputs = model(INPUTS)
    model.load_state_dict(old)
    assert torch.equal(model(INPUTS), outputs)
    assert "0.weight: the state does not say where its values are" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state["0._extra_state"].add_(1 << 20), "ascending"),
        (lambda state: state.update({"0.weight": torch.zeros(3)}), "positions"),
    ],
)
def test_a_state_that_does_not_fit_leaves_a_layer_as_it_was(change, message):
    model, _, _ = _sparse()
    state, outputs = copy.deepcopy(model.state_dict()), model(INPUTS)
    change(state)
    with pytest.raises(RuntimeError, match=message):
        model.load_state_dict(state)
    assert torch.equal(model(INPUTS), outputs)


def _images():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    method = regrow.RigL(density=0.3, update_every=2)
    regrow.sparsify(model, optimizer, method, total_steps=50, execution="csr")
    return model, optimizer, torch.ones(4, 3, 6, 6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.usefixtures("kernels")
def test_a_converted_model_is_refused_until_it_is_converted_back(dtype):
    for index in (0, 4):
        model, _, _ = _images()
        x = torch.ones(4, 3, 6, 6) if index == 0 else torch.ones(4, 128)
        model[index].to(dtype)
        with pytest.raises(ValueError, match=f"weight has shape .* {dtype} .*needs .*float32"):
            model[index](x)
        model[index].float()
        assert torch.isfinite(model[index](x)).all()


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize(
    "bias", [torch.zeros(2).double(), torch.zeros(3), torch.zeros(2, device="meta")]
)
def test_a_bias_is_checked_at_every_call(bias):
    layer = CsrLinear(3, 2, torch.tensor([1, 3]), torch.ones(2), torch.zeros(2))
    layer.bias = nn.Parameter(bias)
    with pytest.raises(ValueError, match="bias has shape"):
        layer(torch.ones(1, 3))


def test_values_and_bias_of_any_strides_are_read_as_they_are(kernels):
    every = torch.arange(8.0)
    layer = CsrLinear(3, 2, torch.tensor([1, 3]), every[::4], torch.zeros(2))
    layer.bias = nn.Parameter(torch.ones(1).expand(2))
    layer.weight = nn.Parameter(every[1::4])
    x = torch.tensor([[1.0, 10.0, 100.0]])
    assert layer(x).tolist() == [[11.0, 6.0]]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_a_converted_batch_norm_does_what_torchs_own_does(dtype, training):
    x = torch.empty_strided((4, 8, 3, 3), (1, 36, 12, 4)).normal_()
    ours, torchs = with_batch_last(nn.BatchNorm2d(8)), nn.BatchNorm2d(8)

    def outcome(norm):
        try:
            return norm.to(dtype).train(training)(x).tolist()
        except RuntimeError:
            return "refused"

    assert outcome(ours) == outcome(torchs)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("where", ["device", "default device", "default dtype"])
def test_torchs_defaults_change_nothing(where):
    reference, other = _images(), _images()
    for _ in range(5):
        _one_step(*reference)
    if where == "device":
        with torch.device("meta"):
            for _ in range(5):
                _one_step(*other)
    else:
        set_, default = (
            (torch.set_default_device, None)
            if where == "default device"
            else (torch.set_default_dtype, torch.float32)
        )
        set_("meta" if default is None else torch.float64)
        try:
            for _ in range(5):
                _one_step(*other)
        finally:
            set_(default)
    assert _equal(_saved(reference[:2]), _saved(other[:2]))


def _one_step(model, optimizer, x):
    optimizer.zero_grad()
    model(x).square().mean().backward()
    optimizer.step()


@pytest.mark.usefixtures("kernels")
def test_fake_tensors_are_refused_and_leave_no_trace():
    for layer, x in ((0, torch.ones(4, 3, 6, 6)), (4, torch.ones(4, 128))):
        model, _, _ = _images()
        twin, _, _ = _images()
        with FakeTensorMode() as mode:
            for inputs in (x, mode.from_tensor(x)):
                with pytest.raises((RuntimeError, AssertionError)):
                    model[layer](inputs).sum().backward()
        assert torch.equal(model[layer](x), twin[layer](x))


def test_memory_that_is_none_is_never_given_to_c():
    with FakeTensorMode(), pytest.raises(RuntimeError, match="dense_state_dict"):
        memory.empty(3)


def to_onnx(model, x):
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package, reason=f"torch needs {package} for this")
    return torch.onnx.export(model, (x,), dynamo=True, verbose=False)


@pytest.mark.usefixtures("kernels")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*legacy.*")
@pytest.mark.parametrize(
    "export",
    [
        lambda model, x: torch.export.export(model, (x,), strict=True),
        lambda model, x: torch.export.export(model, (x,), strict=False),
        torch.jit.trace,
        lambda model, x: torch.onnx.export(model, (x,), io.BytesIO(), dynamo=False),
        to_onnx,
    ],
    ids=["export", "export, not strict", "trace", "onnx", "onnx by dynamo"],
)
def test_an_export_names_the_dense_way_out(export):
    model, _, x = _images()
    with pytest.raises(Exception, match=r"dense_state_dict\(model\)"):
        export(model.eval(), x)


def test_the_dense_way_out_exports():
    model, _, x = _images()
    dense = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10)
    )
    dense.load_state_dict(dense_state_dict(model))
    exported = torch.export.export(dense.eval(), (x,)).module()
    assert torch.allclose(exported(x), model.eval()(x), atol=1e-5)
