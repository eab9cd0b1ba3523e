"""Filters by numpy's centred spectrum and by waves whose frequency is known; shares; curves."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regrow.vision.analysis import (
    high_frequency_share,
    keep_frequencies,
    order_by_frequency,
    radius_accuracy,
)
from regrow.vision.corruptions import CORRUPTIONS

shapes = st.one_of(
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.tuples(st.integers(0, 2), st.sampled_from([1, 3]), st.integers(1, 9), st.integers(1, 9)),
    st.tuples(st.just(2), st.just(2), st.just(3), st.integers(1, 6), st.integers(1, 7)),
)
radii = st.one_of(st.floats(0, 1.5), st.sampled_from([0.0, 0.25, 0.5, 1.0, math.sqrt(2), math.inf]))


def image(shape, seed=0):
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def by_numpy(images, radius, pass_):
    """The published way: transform, shift to the centre, mask, shift back, transform back."""
    height, width = images.shape[-2:]
    rows = (np.arange(height) - height // 2) / (height / 2)
    columns = (np.arange(width) - width // 2) / (width / 2)
    inside = np.hypot(rows[:, None], columns) <= radius
    centred = np.fft.fftshift(np.fft.fft2(images.numpy()), axes=(-2, -1))
    centred = centred * (inside if pass_ == "low" else ~inside)
    back = np.fft.ifft2(np.fft.ifftshift(centred, axes=(-2, -1)))
    assert np.abs(back.imag).max(initial=0) < 1e-12
    return back.real


@given(shapes, radii, st.sampled_from(["low", "high"]))
def test_a_filter_is_the_mask_on_the_centred_spectrum(shape, radius, pass_):
    images = image(shape)
    if images.numel():
        found = keep_frequencies(images, radius, pass_).numpy()
        np.testing.assert_allclose(found, by_numpy(images, radius, pass_), atol=1e-12)


@given(shapes, radii)
def test_low_and_high_are_the_whole_and_share_nothing(shape, radius):
    images = image(shape)
    low, high = (keep_frequencies(images, radius, pass_) for pass_ in ("low", "high"))
    assert low.shape == high.shape == images.shape
    torch.testing.assert_close(low + high, images)
    torch.testing.assert_close(keep_frequencies(low, radius, "low"), low)
    assert torch.allclose(keep_frequencies(low, radius, "high"), torch.zeros_like(low), atol=1e-12)


@given(shapes, radii, radii)
def test_a_wider_filter_keeps_more(shape, a, b):
    images = image(shape)
    less, more = (keep_frequencies(images, r, "low").square().sum() for r in sorted((a, b)))
    assert less <= more + 1e-9


def test_the_ends_are_the_mean_and_the_image():
    images = image((2, 3, 6, 5))
    mean = images.mean((2, 3), keepdim=True).expand_as(images)
    torch.testing.assert_close(keep_frequencies(images, 0, "low"), mean)
    for whole in (math.sqrt(2), math.inf):
        torch.testing.assert_close(keep_frequencies(images, whole, "low"), images)


@pytest.mark.parametrize("height, width", [(12, 12), (9, 20), (15, 8)])
def test_a_wave_is_kept_from_its_own_radius_on(height, width):
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    for u, v in [(1, 0), (0, 3), (2, 1), (height // 2, width // 2)]:
        wave = torch.cos(2 * math.pi * (u * y.double() / height + v * x.double() / width))
        radius = math.hypot(2 * u / height, 2 * v / width)
        at, below = (keep_frequencies(wave, r, "low") for r in (radius, radius - 1e-6))
        torch.testing.assert_close(at, wave)
        assert below.abs().max() < 1e-12


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_dtype_stays_and_the_image_is_not_changed(dtype):
    images = image((2, 3, 8, 8)).to(dtype)
    before = images.clone()
    low = keep_frequencies(images, 0.5, "low")
    assert low.dtype == dtype and torch.equal(images, before)
    exact = keep_frequencies(images.double(), 0.5, "low")
    assert (low.double() - exact).abs().max() < 2 * torch.finfo(dtype).eps


@given(st.floats(0, 1.4), st.sampled_from([(5, 6), (8, 8), (7, 3)]), st.floats(1e-200, 1e100))
def test_a_share_is_that_of_the_power_kept(radius, size, unit):
    """By Parseval's theorem it can be taken of the filtered change itself."""
    images, change = image((4, 3, *size)), image((4, 3, *size), seed=1) - 0.5
    high = keep_frequencies(change, radius, "high").square().sum()
    share = high_frequency_share(images, images + change, radius=radius)
    assert share == pytest.approx(float(high / change.square().sum()), abs=1e-12)
    zeros = torch.zeros_like(change)
    assert high_frequency_share(zeros, unit * change, radius=radius) == pytest.approx(share)


def test_white_noise_has_the_share_of_the_area():
    flat = torch.zeros(64, 3, 32, 32)
    for radius in (0.25, 0.5, 1.0):
        share = high_frequency_share(flat, torch.randn(flat.shape), radius=radius)
        assert share == pytest.approx(1 - math.pi * radius**2 / 4, abs=0.01)


def test_many_images_are_one_sum(monkeypatch):
    images, other = image((6, 2, 8, 8)), image((6, 2, 8, 8), seed=1)
    whole = high_frequency_share(images, other)
    monkeypatch.setattr("regrow.vision.analysis.spectral._AT_ONCE", 5)
    assert high_frequency_share(images, other) == pytest.approx(whole)
    numbers = [(255 * some).to(torch.uint8) for some in (images, other)]
    assert high_frequency_share(*numbers) == pytest.approx(whole, abs=0.01)


def smooth(n=8, side=32):
    some = image((n, 3, 5, 5)).float()
    return torch.nn.functional.interpolate(some, (side, side), mode="bicubic").clamp(0, 1)


def test_noise_is_high_and_weather_low():
    """The order of families that all accounts of these corruptions give."""
    shares = order_by_frequency(CORRUPTIONS, smooth(), 3)
    assert set(shares) == set(CORRUPTIONS)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    noise = [shares[name] for name in CORRUPTIONS if name.endswith("noise")]
    assert min(noise) > 0.7
    assert max(shares[name] for name in ("fog", "brightness", "contrast")) < 0.1


def test_clips_are_ordered_as_their_frames_are():
    images = smooth()
    frames = order_by_frequency(["fog", "gaussian_noise"], images[:, None], 3, seed=2)
    assert frames == pytest.approx(order_by_frequency(["fog", "gaussian_noise"], images, 3, seed=2))


def test_what_changes_nothing_has_no_place_in_an_order():
    with pytest.raises(ValueError, match="saturate changes nothing"):
        order_by_frequency(["saturate"], torch.rand(2, 1, 8, 8), 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_a_curve_is_the_accuracy_on_filtered_images(batch_size, dtype):
    images = image((10, 3, 8, 8)).float()
    images = images if dtype == torch.float32 else (images * 255).to(dtype)
    weight = torch.randn(3 * 64, 4)
    labels = torch.arange(10) % 4
    seen = []

    def predict(batch):
        assert batch.dtype == torch.float32 and not torch.is_grad_enabled()
        seen.append(len(batch))
        return batch.flatten(1) @ weight

    floats = images if dtype == torch.float32 else images / 255
    for pass_ in ("low", "high"):
        found = radius_accuracy(predict, images, labels, [1.0, 0.3], pass_, batch_size=batch_size)
        assert list(found) == [1.0, 0.3]
        for radius, accuracy in found.items():
            scores = keep_frequencies(floats, radius, pass_).flatten(1) @ weight
            right = (scores.argmax(1) == labels).double().mean()
            assert accuracy == pytest.approx(float(right))
    assert max(seen) == min(batch_size, 10) and sum(seen) == 40


BAD = [
    (lambda x: keep_frequencies(x, -0.1, "low"), ValueError, "radius=-0.1: must be at least 0"),
    (lambda x: keep_frequencies(x, math.nan, "low"), ValueError, "radius=nan"),
    (lambda x: keep_frequencies(x, 1, "band"), ValueError, "pass_='band': .* low, high"),
    (lambda x: keep_frequencies(x[0, 0, 0], 1, "low"), ValueError, r"shape \(8,\)"),
    (lambda x: keep_frequencies(x[..., :0], 1, "low"), ValueError, "some pixels"),
    (lambda x: keep_frequencies(x.long(), 1, "low"), TypeError, "must be floats"),
    (lambda x: high_frequency_share(x, x), ValueError, "the same as images"),
    (lambda x: high_frequency_share(x[:0], x[:0]), ValueError, "no change"),
    (lambda x: high_frequency_share(x, x[:1]), ValueError, "must be the same"),
    (lambda x: high_frequency_share(x, x.double()), ValueError, "must be the same"),
    (lambda x: high_frequency_share(x, x * math.nan), ValueError, "must be finite"),
    (lambda x: high_frequency_share(x, x + 1, radius=-1), ValueError, "radius=-1"),
    (lambda x: order_by_frequency(["rain"], x, 1), ValueError, "name='rain'"),
    (lambda x: order_by_frequency(["fog"], x, 9), ValueError, "severity=9"),
]


@pytest.mark.parametrize("call, error, said", BAD)
def test_what_cannot_be_is_refused(call, error, said):
    with pytest.raises(error, match=said):
        call(torch.rand(2, 3, 8, 8))


@pytest.mark.parametrize(
    "change, error, said",
    [
        ({"radii": []}, ValueError, "0 radii"),
        ({"radii": [0.5, -1]}, ValueError, "radius=-1"),
        ({"labels": torch.zeros(3).long()}, ValueError, r"labels of shape \(3,\)"),
        ({"images": torch.rand(0, 3, 8, 8), "labels": torch.zeros(0)}, ValueError, "some"),
        ({"images": torch.zeros(2, 3, 8, 8).long()}, TypeError, "int64"),
        ({"batch_size": 0}, ValueError, "batch_size=0"),
        ({"pass_": "all"}, ValueError, "pass_='all'"),
        ({"predict": lambda x: x.mean((1, 2, 3))}, ValueError, r"predict returns shape \(2,\)"),
        ({"predict": lambda x: x[:1].flatten(1)}, ValueError, "for 2 images"),
    ],
)
def test_a_curve_of_nothing_is_refused(change, error, said):
    fine = {
        "predict": lambda x: x.flatten(1),
        "images": torch.rand(2, 3, 8, 8),
        "labels": torch.zeros(2).long(),
        "radii": [0.5],
        "pass_": "low",
    }
    with pytest.raises(error, match=said):
        radius_accuracy(**fine | change)
