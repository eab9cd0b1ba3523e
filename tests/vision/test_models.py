"""Models: sizes, and fitting one into a budget."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regrow.vision.models import (
    MODELS,
    InvertedBottleneck,
    build_model,
    conv_net,
    efficientnet_b0,
    imagenet_resnet,
    lenet5,
    mlp,
    resnet,
    small_conv,
    vgg,
    widest_within,
)


def size(model):
    return sum(p.numel() for p in model.parameters())


def test_outputs_have_one_number_a_class():
    assert mlp(64, 8, 10)(torch.randn(3, 1, 8, 8)).shape == (3, 10)
    assert conv_net(3, 4, 10)(torch.randn(3, 3, 32, 32)).shape == (3, 10)


@pytest.mark.parametrize(
    ("depth", "parameters"), [(18, 11_689_512), (34, 21_797_672), (50, 25_557_032)]
)
def test_residual_networks_have_the_published_sizes(depth, parameters):
    with torch.device("meta"):
        assert size(imagenet_resnet(depth)) == parameters


@pytest.mark.parametrize(
    ("build", "parameters"),
    [(efficientnet_b0, 5_288_548), (lenet5, 431_080), (lambda: resnet(3, 16, 10, 56), 855_770)],
)
def test_other_networks_have_the_published_sizes(build, parameters):
    """ResNet-56 is published with 0.85M."""
    with torch.device("meta"):
        assert size(build()) == parameters


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (small_conv(3, 7, width=4), (3, 32, 32)),
        (lenet5(1, 7), (1, 28, 28)),
        (vgg(11, 7, width=4), (3, 32, 32)),
        (efficientnet_b0(7), (3, 64, 64)),
        (imagenet_resnet(50, 7, width=4), (3, 64, 64)),
    ],
    ids=["small_conv", "lenet5", "vgg", "efficientnet_b0", "resnet50"],
)
def test_every_parameter_is_reached(model, shape):
    model(torch.randn(2, *shape)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    assert model(torch.randn(2, *shape)).shape == (2, 7)


def test_stochastic_depth_leaves_blocks_out_in_training_and_keeps_the_mean():
    block = InvertedBottleneck(4, 4, 2, 3, 1, drop=0.5)
    x = torch.randn(1, 4, 5, 5).expand(4000, -1, -1, -1)
    moved = (block(x) - x).flatten(1)
    left_out = (moved == 0).all(1)
    assert 0.45 < float(left_out.float().mean()) < 0.55
    expected = moved[~left_out].mean(0) / 2
    torch.testing.assert_close(moved.mean(0), expected, rtol=0.1, atol=0.05)
    assert not (block.eval()(x[:10]) == x[:10]).all()


def test_small_images_are_not_shrunk_before_the_first_stage():
    model = imagenet_resnet(18, 10, width=8, small_images=True)
    assert model[:3](torch.zeros(1, 3, 32, 32)).shape == (1, 8, 32, 32)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_depths_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match="depth=19"):
        imagenet_resnet(19)
    with pytest.raises(ValueError, match="depth=19"):
        resnet(3, 16, 10, 19)


@given(budget=st.integers(100, 60_000))
def test_the_widest_fits_and_one_wider_does_not(budget):
    width = widest_within(budget, lambda w: mlp(64, w, 10))
    assert size(mlp(64, width, 10)) <= budget < size(mlp(64, width + 1, 10))


def test_a_budget_no_model_fits_is_refused():
    with pytest.raises(ValueError, match="budget=10"):
        widest_within(10, lambda w: mlp(64, w, 10))


def fits(name, side):
    """Whether a model runs on inputs of this side when nobody checks them first."""
    model = MODELS[name]
    shape = (3, 4, side, side) if model.clips else (3, side, side)
    try:
        with torch.device("meta"), torch.no_grad():
            made = model.build(shape, 4, model.width).eval()
            return made(torch.empty(2, *shape)).shape == (2, 4)
    except RuntimeError:
        return False


@pytest.mark.parametrize(
    ("name", "side"),
    [
        (name, side)
        for name, model in MODELS.items()
        for side in model.sides
        if side not in (1, math.inf)
    ],
)
def test_inputs_of_another_size_are_refused_where_a_model_would_break(name, side):
    inner, outer = (side, side - 1) if side == MODELS[name].sides[0] else (side, side + 1)
    assert fits(name, inner) and not fits(name, outer)
    frames = (4,) if MODELS[name].clips else ()
    build_model(name, (3, *frames, inner, inner), 4)
    for shape in ((3, *frames, outer, outer), (3, *frames, inner, outer)):
        with pytest.raises(ValueError, match=rf"model='{name}' takes .*take another model"):
            build_model(name, shape, 4)
