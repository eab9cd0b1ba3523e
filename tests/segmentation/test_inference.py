"""Sliding windows: MONAI's numbers, each voxel counted, mirrored scores mirrored back."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from regrow.segmentation import E2ENet
from regrow.segmentation.inference import (
    gaussian_weights,
    mirrored,
    predict_scores,
    window_starts,
)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return E2ENet(2, 3, (6, 12), deep_supervision=False).eval()


@given(st.integers(1, 200), st.integers(1, 64), st.floats(0, 0.95))
def test_windows_cover_an_axis_and_stay_inside(side, patch, overlap):
    starts = window_starts(max(side, patch), patch, overlap)
    covered = {i for start in starts for i in range(start, start + patch)}
    assert covered == set(range(max(side, patch)))
    assert starts == sorted(set(starts))


@pytest.mark.parametrize("sides", [(16, 16, 16), (20, 33, 17), (5, 40, 16), (3, 4, 5)])
@pytest.mark.parametrize("overlap", [0.5, 0.25])
def test_the_scores_are_those_of_monais_inferer(network, sides, overlap):
    inferers = pytest.importorskip("monai.inferers")
    image = torch.randn(2, *sides)
    infer = inferers.SlidingWindowInferer((8, 16, 12), 4, overlap, mode="gaussian")
    with torch.no_grad():
        theirs = infer(image[None], network)[0]
    ours = predict_scores(network, image, (8, 16, 12), overlap=overlap)
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)


def test_a_volume_of_the_patchs_size_is_given_once_and_as_it_is(network):
    image = torch.randn(2, 8, 16, 12)
    with torch.no_grad():
        expected = network(image[None])[0]
    torch.testing.assert_close(predict_scores(network, image, (8, 16, 12)), expected)


def test_of_several_outputs_the_first_counts_and_any_number_of_windows_at_once(network):
    image = torch.randn(2, 20, 20, 20)
    one = predict_scores(network, image, (8, 8, 8), batch=1)
    network.deep_supervision = True
    torch.testing.assert_close(
        predict_scores(network, image, (8, 8, 8), batch=7), one, atol=1e-5, rtol=1e-4
    )


def test_mirroring_makes_scores_follow_a_mirrored_image(network):
    image = torch.randn(2, 11, 14, 9)
    kind = {"patch": (8, 8, 8), "overlap": 0.5, "mirror": (0, 1, 2)}
    plain = predict_scores(network, image, **kind)
    # Windows are laid out from the start, so that only whole steps are mirrored exactly.
    whole = torch.randn(2, 12, 16, 8)
    for axis in (1, 2, 3):
        flipped = predict_scores(network, whole.flip(axis), **kind).flip(axis)
        torch.testing.assert_close(
            flipped, predict_scores(network, whole, **kind), atol=1e-5, rtol=1e-4
        )
    assert not plain.equal(predict_scores(network, image, (8, 8, 8)))


def test_each_mirroring_is_asked_for_once():
    asked = []

    class Asked(nn.Module):
        def forward(self, x):
            asked.append(x.clone())
            return x

    x = torch.arange(8.0).view(1, 1, 2, 2, 2)
    assert mirrored(Asked(), (0, 1, 2))(x).equal(x)
    assert len({tuple(one.flatten().tolist()) for one in asked}) == len(asked) == 8


def test_weights_are_highest_in_the_centre_and_never_zero():
    weights = gaussian_weights((9, 33, 5))
    assert weights[4, 16, 2] == weights.max() == 1
    assert weights.min() == pytest.approx(1e-3)
    assert weights.equal(weights.flip(0)) and weights.equal(weights.flip(1, 2))


@pytest.mark.parametrize(
    ("image", "overlap", "said"),
    [((5, 5, 5), 0.5, "image has shape"), ((1, 5, 5, 5), 1.0, "overlap=1.0")],
)
def test_what_cannot_be_slid_over_is_refused(image, overlap, said):
    with pytest.raises(ValueError, match=said):
        predict_scores(lambda x: x, torch.zeros(image), (4, 4, 4), overlap=overlap)


def test_what_is_told_grows_to_all(network):
    told = []
    predict_scores(network, torch.randn(2, 20, 20, 20), (8, 8, 8), batch=25, tell=told.append)
    assert told == sorted(told) and told[0] == 25 / 64 and told[-1] == 1
