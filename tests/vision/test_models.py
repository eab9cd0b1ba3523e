"""Models: sizes, and fitting one into a budget."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regrow.vision.models import conv_net, mlp, widest_within


def size(model):
    return sum(p.numel() for p in model.parameters())


def test_outputs_have_one_number_a_class():
    assert mlp(64, 8, 10)(torch.randn(3, 1, 8, 8)).shape == (3, 10)
    assert conv_net(3, 4, 10)(torch.randn(3, 3, 32, 32)).shape == (3, 10)


@given(budget=st.integers(100, 60_000))
def test_the_widest_fits_and_one_wider_does_not(budget):
    width = widest_within(budget, lambda w: mlp(64, w, 10))
    assert size(mlp(64, width, 10)) <= budget < size(mlp(64, width + 1, 10))


def test_a_budget_no_model_fits_is_refused():
    with pytest.raises(ValueError, match="budget=10"):
        widest_within(10, lambda w: mlp(64, w, 10))
