"""Networks: the published sizes, their start, masks; and what a mask costs."""

import math

import pytest
import torch
from torch.nn import functional

from regrow.control.pixels.agent import PixelAgent
from regrow.control.pixels.masker import Masker, binarised, multiply_adds
from regrow.control.pixels.method import PIXEL_METHODS
from regrow.control.pixels.networks import Actor, Encoder, aligned, encoded_side, initialise_
from regrow.control.pixels.setting import PIXEL_SETTINGS, PixelSetting

CPU = torch.device("cpu")
KINDS = ("full", "half", "strided", "shared")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def started(net, seed=0):
    initialise_(net, seeded(seed))
    return net


def scrambled(net, seed=0):
    """Draw all weights: those that nets start with are 0 but in the middle of a kernel."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=seeded(seed)))
    return net


@pytest.mark.parametrize(("actions", "millions"), [(1, 6.383), (6, 6.404)])
def test_the_paper_s_agent_has_its_number_of_parameters_of_which_the_masker_is_0_2_percent(
    actions, millions
):
    agent = PixelAgent(PIXEL_METHODS["MaDi"], PixelSetting(), actions, 0, CPU)
    counts = agent.parameters()
    others = sum(counts.values()) - counts["masker"]
    assert counts["masker"] == 10_433
    assert round(others / 1e6, 3) == millions
    assert 0.15 < 100 * counts["masker"] / others < 0.25
    assert agent.encoder(torch.zeros(1, 9, 84, 84)).shape == (1, 32 * 21 * 21)


def test_convolutions_start_as_isometries_of_channels_and_biases_at_zero():
    encoder = started(Encoder(9, 4, 32))
    for layer in [encoder.first, *encoder.others]:
        weight = layer.weight.detach()
        middle = weight[:, :, 1, 1]
        assert weight.count_nonzero() == middle.count_nonzero()
        small = middle.T @ middle if middle.shape[0] >= middle.shape[1] else middle @ middle.T
        torch.testing.assert_close(small, 2 * torch.eye(len(small)), rtol=1e-4, atol=1e-5)
        assert not layer.bias.any()


def test_linear_layers_start_orthogonal_and_seeds_decide():
    one, two, other = (started(Actor(20, 2, 8, 16), seed) for seed in (0, 0, 1))
    weight = one.net[2].weight.detach()
    torch.testing.assert_close(weight @ weight.T, torch.eye(16), rtol=1e-4, atol=1e-5)
    assert torch.equal(weight, two.net[2].weight) and not torch.equal(weight, other.net[2].weight)


@pytest.mark.parametrize("size", [12, 13, 32, 84])
@pytest.mark.parametrize("layers", [1, 3, 5])
def test_the_side_of_features_is_that_of_the_convolutions(size, layers):
    side = encoded_side(size, layers)
    encoder = Encoder(3, layers, 2)
    if side < 1:
        with pytest.raises(RuntimeError):
            encoder(torch.zeros(1, 3, size, size))
        with pytest.raises(ValueError, match=f"size={size}"):
            PixelSetting(size=size, layers=layers)
    else:
        assert encoder(torch.zeros(1, 3, size, size)).shape == (1, 2 * side * side)


def test_the_actor_s_deviation_lies_between_its_bounds():
    actor = Actor(5, 3, 4, 8)
    with torch.no_grad():
        actor.net[-1].bias[3:] = torch.tensor([-100.0, 0.0, 100.0])
        actor.net[-1].weight.zero_()
    _, log_std = actor(torch.zeros(2, 5))
    torch.testing.assert_close(log_std[0], torch.tensor([-10.0, -4.0, 2.0]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [84, 33])
def test_masks_are_one_for_each_frame_in_range_and_start_near_a_half(kind, size):
    encoder, masker = started(Encoder(9, 2, 32)), started(Masker(kind))
    images = torch.rand(2, 9, size, size, generator=seeded(3))
    mask = masker(images, encoder.first).detach()
    assert mask.shape == (2, 3, size, size)
    assert ((mask > 0) & (mask < 1)).all()
    assert abs(float(mask.mean()) - 0.5) < 0.25
    zeros = masker(torch.zeros_like(images), encoder.first).detach()
    torch.testing.assert_close(zeros, torch.full_like(zeros, 0.5))


@pytest.mark.parametrize("kind", ["full", "half", "strided"])
def test_frames_share_weights_and_are_masked_each_alone(kind):
    masker = scrambled(Masker(kind))
    images = torch.rand(1, 9, 20, 20, generator=seeded(4))
    turned = images.view(1, 3, 3, 20, 20)[:, [2, 0, 1]].reshape(1, 9, 20, 20)
    torch.testing.assert_close(masker(turned), masker(images)[:, [2, 0, 1]])


def test_the_full_masker_is_three_plain_convolutions():
    masker = scrambled(Masker())
    images = torch.rand(2, 9, 10, 10, generator=seeded(5))
    for frame in range(3):
        x = images[:, 3 * frame : 3 * frame + 3]
        for layer in (masker.first, masker.second):
            x = functional.conv2d(x, layer.weight, layer.bias, padding=1).clamp(min=0)
        x = functional.conv2d(x, masker.last.weight, masker.last.bias, padding=1)
        torch.testing.assert_close(masker(images)[:, frame], torch.sigmoid(x)[:, 0])


@pytest.mark.parametrize(("into", "out", "stride"), [(3, 32, 1), (9, 32, 2), (32, 1, 1), (8, 8, 1)])
def test_convolutions_with_channels_of_zeros_are_the_same(into, out, stride):
    layer = scrambled(torch.nn.Conv2d(into, out, 3, stride=stride, padding=1))
    x = torch.rand(2, into, 9, 9, generator=seeded(8)).requires_grad_()
    one, two = layer(x), aligned(layer, x)
    torch.testing.assert_close(one, two)
    inputs = [x, layer.weight, layer.bias]
    for a, b in zip(
        *(torch.autograd.grad(y.square().sum(), inputs) for y in (one, two)), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_channels_last_changes_no_mask():
    images = torch.rand(2, 9, 24, 24, generator=seeded(6))
    for kind in KINDS:
        encoder, masker = scrambled(Encoder(9, 2, 32)), scrambled(Masker(kind))
        last = images.contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(masker(last, encoder.first), masker(images, encoder.first))


@pytest.mark.parametrize("kind", KINDS)
def test_multiplications_are_those_of_the_convolutions_that_run(kind):
    encoder, masker = Encoder(9, 2, 32), Masker(kind)
    count = 0

    def add(layer, inputs, output):
        nonlocal count
        b, c, h, w = output.shape
        count += b * c * h * w * math.prod(layer.weight.shape[1:])

    layers = [masker.second, masker.last, encoder.first if kind == "shared" else masker.first]
    hooks = [layer.register_forward_hook(add) for layer in layers]
    masker(torch.zeros(1, 9, 84, 84), encoder.first)
    for hook in hooks:
        hook.remove()
    assert count == multiply_adds(masker, 84)


def test_lean_maskers_ask_for_a_third_of_the_multiplications_at_most():
    full = multiply_adds(Masker(), 84)
    assert round(full / 1e6) == 219
    for kind in ("half", "strided", "shared"):
        assert multiply_adds(Masker(kind), 84) < full / 3


def test_hard_masks_are_zero_and_one_and_let_gradients_through():
    soft = torch.rand(2, 3, 6, 6, generator=seeded(7)).requires_grad_()
    fixed, mean, quantile = (
        binarised(soft, kind, level)
        for kind, level in (("fixed", 0.7), ("mean", 0.5), ("quantile", 0.25))
    )
    plain = soft.detach()
    assert torch.equal(fixed.detach(), (plain > 0.7).float())
    means = torch.stack([frame.mean() for frame in plain.flatten(0, 1)]).view(2, 3, 1, 1)
    assert torch.equal(mean.detach(), (plain > means).float())
    assert quantile.detach().sum((2, 3)).eq(9).all()
    (gradient,) = torch.autograd.grad((2 * fixed).sum(), soft)
    assert torch.equal(gradient, torch.full_like(soft, 2.0))


def test_settings_tell_the_paper_and_its_code_apart():
    paper, code = PIXEL_SETTINGS["paper"], PIXEL_SETTINGS["code"]
    assert (paper.batch, code.batch, code.augmentation) == (128, 64, "none")
    differ = {n for n in vars(paper) if getattr(paper, n) != getattr(code, n)}
    assert differ == {"batch", "augmentation"}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"batch": 0}, "batch=0"), ({"batch": 2.5}, r"batch=2\.5: a whole number"),
        ({"discount": 1.5}, r"discount=1\.5"), ({"augmentation": "x"}, "augmentation='x'"),
        ({"precision": "half"}, "precision='half'"), ({"replay": 0}, "replay=0"),
        ({"steps": 500}, "seed_steps=1000: must be below steps=500"),
        ({"learning_rate": 0.0}, r"learning_rate=0\.0"), ({"shift": -1}, "shift=-1"),
    ],
)  # fmt: skip
def test_wrong_settings_are_refused(wrong, said):
    with pytest.raises((ValueError, TypeError), match=said):
        PixelSetting(**wrong)
