"""FLOPs against hand counts, torch's own counter, and RigL's accounting."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import regrow
from regrow.engine.criteria import AverageGradient
from regrow.measure.flops import LayerFlops, count_flops, training_flops
from regrow.vision.models import VisionTransformer


def conv_model():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2),
        nn.Flatten(),
        nn.Linear(16 * 3 * 3, 5),
    )


def test_a_linear_layer_takes_two_operations_a_weight_and_sample():
    flops = count_flops(nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 2)), torch.randn(3, 8))
    assert flops.layers["0.weight"] == LayerFlops(2 * 3 * 32, 0, 2 * 3 * 32)
    assert flops.layers["1.weight"] == LayerFlops(2 * 3 * 8, 2 * 3 * 8, 2 * 3 * 8)
    assert (flops.other_forward, flops.other_backward) == (0, 0)


def test_a_grouped_convolution_counts_its_own_weights_only():
    model = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, groups=8))
    flops = count_flops(model, torch.randn(2, 4, 5, 5))
    expected = 2 * (8 * 9) * 25 * 2
    assert flops.layers["1.weight"] == LayerFlops(expected, expected, expected)


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2)), (3, 8)),
        (conv_model(), (2, 3, 8, 8)),
        (nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), (2, 5, 16)),
    ],
)
def test_dense_totals_agree_with_torchs_counter(model, shape):
    flops, inputs = count_flops(model, torch.randn(shape)), torch.randn(shape)
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(SDPBackend.MATH):
        with FlopCounterMode(display=False) as forward:
            loss = model(inputs).sum()
        with FlopCounterMode(display=False) as backward:
            loss.backward()
    assert flops.forward() == forward.get_total_flops()
    assert flops.step() == forward.get_total_flops() + backward.get_total_flops()


def test_attention_products_do_not_shrink_with_the_weights():
    model = nn.MultiheadAttention(16, 4, batch_first=True)
    x = torch.randn(2, 6, 16)
    flops = count_flops(model, x, x, x)
    products = 2 * (2 * 2 * 4 * 6 * 6 * 4)  # q·k and attention·v, 2 samples, 4 heads of width 4
    assert flops.other_forward == products
    assert flops.forward(dict.fromkeys(flops.layers, 0.0)) == products
    assert flops.other_backward == 2 * products


def test_a_convolution_of_clips_takes_two_operations_a_weight_and_place():
    model = nn.Sequential(
        nn.Conv3d(2, 4, (3, 3, 3), padding=1), nn.Conv3d(4, 6, (1, 2, 2), stride=(1, 2, 2))
    )
    flops = count_flops(model, torch.randn(3, 2, 5, 6, 8))
    first = 2 * 3 * (5 * 6 * 8) * (4 * 2 * 27)
    second = 2 * 3 * (5 * 3 * 4) * (6 * 4 * 4)
    assert flops.layers["0.weight"] == LayerFlops(first, 0, first)
    assert flops.layers["1.weight"] == LayerFlops(second, second, second)
    assert (flops.other_forward, flops.other_backward, flops.uncounted) == (0, 0, ())


def test_attention_of_a_vision_transformer_is_counted_by_hand():
    model = VisionTransformer((1, 8, 8), 3, width=16, heads=2, depth=2, patch=4)
    flops = count_flops(model, torch.randn(2, 1, 8, 8))
    batch, tokens, inner = 2, 5, 128
    assert flops.other_forward == 2 * (2 * 2 * batch * tokens**2 * inner)  # q·k and weights·v
    assert flops.other_backward == 2 * flops.other_forward
    forward = {name: f.forward for name, f in flops.layers.items()}
    assert forward["patches.weight"] == 2 * batch * 4 * 16 * 16
    assert forward["blocks.1.attention.qkv.weight"] == 2 * batch * tokens * 16 * 3 * inner
    assert forward["blocks.1.attention.out.weight"] == 2 * batch * tokens * inner * 16
    assert forward["blocks.1.hidden.weight"] == 2 * batch * tokens * 16 * 64
    assert forward["head.weight"] == 2 * batch * 16 * 3
    assert flops.uncounted == ("positions",)


def test_counting_leaves_the_model_and_the_random_state_alone():
    model = conv_model()
    before = copy.deepcopy(model.state_dict())
    torch.manual_seed(3)
    count_flops(model, torch.randn(2, 3, 8, 8))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    drawn = torch.rand(1)
    torch.manual_seed(3)
    torch.randn(2, 3, 8, 8)
    assert torch.equal(drawn, torch.rand(1))


def test_weights_no_counted_operation_uses_are_named():
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 2))
    assert count_flops(model, torch.tensor([1, 2])).uncounted == ("0.weight",)


def test_frozen_weights_take_no_gradient():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    model[0].weight.requires_grad_(False)
    model[0].bias.requires_grad_(False)
    flops = count_flops(model, torch.randn(2, 4))
    assert flops.layers["0.weight"].weight_gradient == 0
    assert flops.layers["1.weight"].input_gradient == 0


def train(method, steps, total=None):
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    sparse = regrow.sparsify(model, optimizer, method, total_steps=total or steps)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(8, 16)).square().mean().backward()
        optimizer.step()
    return count_flops(model, torch.randn(8, 16)), sparse


def test_rigl_follows_the_papers_accounting():
    """(ΔT·3f_S + 2f_S + f_D)/(ΔT + 1), less the first layer's input gradient."""
    method = regrow.RigL(density=0.2, update_every=10, drop_fraction=0.3, stop_at=1.0)
    flops, sparse = train(method, 100)
    density = {layer.name: layer.final / layer.units for layer in sparse.plan.layers}
    updates = len(sparse.history)
    assert updates == 9
    sparse_step, dense_step = flops.step(density), flops.step(density, dense_gradients=True)
    first, second = flops.layers["0.weight"], flops.layers["2.weight"]
    f_s = density["0.weight"] * first.forward + density["2.weight"] * second.forward
    f_d = first.forward + second.forward
    saved = density["0.weight"] * first.forward
    assert sparse_step == pytest.approx(3 * f_s - saved)
    assert dense_step == pytest.approx(2 * f_s + f_d - saved)
    assert training_flops(flops, sparse) == pytest.approx(
        (100 - updates) * sparse_step + updates * dense_step
    )


def test_set_needs_no_dense_gradient():
    flops, sparse = train(regrow.SET(density=0.2, update_every=10), 40)
    density = {layer.name: layer.final / layer.units for layer in sparse.plan.layers}
    assert training_flops(flops, sparse) == pytest.approx(40 * flops.step(density))


def test_a_falling_density_is_followed_update_by_update():
    method = regrow.GMP(density=0.1, update_every=10, start_at=0, stop_at=30)
    flops, sparse = train(method, 40)
    units = {layer.name: layer.units for layer in sparse.plan.layers}
    expected, density = 0.0, dict.fromkeys(units, 1.0)
    by_step = {update.step: update for update in sparse.history}
    for step in range(1, 41):
        expected += flops.step(density)
        if step in by_step:
            density |= {n: c.active / units[n] for n, c in by_step[step].layers.items()}
    assert training_flops(flops, sparse) == pytest.approx(expected)
    assert list(by_step) == [10, 20, 30]


@pytest.mark.parametrize("every", [1, 10])
@pytest.mark.parametrize(
    "kind",
    [regrow.TopKAST, regrow.SNFS, lambda **o: regrow.Dynamic(grow=AverageGradient(), **o)],
    ids=["Top-KAST", "SNFS", "average"],
)
def test_gradients_that_every_step_needs_are_counted_at_update_steps_too(kind, every):
    """They were left out there: of Top-KAST, which updates at every step, in the whole run."""
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
    flops = count_flops(model, torch.randn(8, 16))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    sparse = regrow.sparsify(
        model, optimizer, kind(density=0.2, update_every=every), total_steps=40
    )
    expected = 0.0
    for _ in range(30):
        for layer in sparse._topology.layers:
            operations = flops.layers[layer.name]
            active = float(sparse.masks[layer.name].float().mean())
            followed = float(layer.backward.mean()) if sparse.method.reserves else 1.0
            expected += active * (operations.forward + operations.input_gradient)
            expected += followed * operations.weight_gradient
        optimizer.zero_grad()
        model(torch.randn(8, 16)).square().mean().backward()
        optimizer.step()
    assert len(sparse.history) > 1
    assert training_flops(flops, sparse) == pytest.approx(expected)


class Shared(nn.Module):
    """A transposed and a grouped convolution, a linear layer, and one weight used twice."""

    def __init__(self):
        super().__init__()
        self.down = nn.Conv3d(2, 4, (1, 3, 3), (1, 2, 2), (0, 1, 1))
        self.up = nn.ConvTranspose3d(4, 6, (1, 2, 2), (1, 2, 2), bias=False)
        self.grouped = nn.Conv3d(6, 6, 1, groups=3)
        self.linear = nn.Linear(6, 6)
        self.unused = nn.Linear(3, 3)

    def forward(self, x):
        x = self.grouped(self.up(self.down(x))).mean((2, 3, 4))
        return self.linear(self.linear(x)) @ x.T


def test_a_model_on_meta_counts_as_the_real_one_does_layer_by_layer():
    """All memory on meta has one address, zero: everything was booked on the last weight."""
    model = Shared()
    real = count_flops(model, torch.randn(3, 2, 4, 8, 8))
    meta = count_flops(Shared().to("meta"), torch.zeros(3, 2, 4, 8, 8, device="meta"))
    assert real == meta
    assert list(real.layers) == ["down.weight", "up.weight", "grouped.weight", "linear.weight"]
    assert real.uncounted == ("unused.weight",)


def test_a_transposed_convolution_takes_its_input_times_outputs_times_kernel():
    model = nn.ConvTranspose3d(4, 6, (1, 2, 2), (1, 2, 2), bias=False)
    flops = count_flops(model, torch.randn(3, 4, 5, 7, 8, requires_grad=True))
    count = 2 * (3 * 4 * 5 * 7 * 8) * 6 * 4
    assert flops.layers["weight"] == LayerFlops(count, count, count)
