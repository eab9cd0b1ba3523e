"""Models: sizes, and fitting one into a budget."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regrow.vision.models import conv_net, imagenet_resnet, mlp, resnet, widest_within


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
