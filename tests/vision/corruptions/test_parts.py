"""The parts by oracles: random numbers, matrices, glass, JPEG and pixels by Pillow, ice."""

import io
import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.nn import functional

from regrow.vision.corruptions import corrupt, linear
from regrow.vision.corruptions.blur import (
    _copied_from,
    _disk_in_parts,
    defocus_blur,
    smeared,
)
from regrow.vision.corruptions.colour import saturate
from regrow.vision.corruptions.digital import pixelate
from regrow.vision.corruptions.draws import WORDS, Draws
from regrow.vision.corruptions.ice import SIDE, sheets
from regrow.vision.corruptions.jpeg import jpeg_compression, quantization
from regrow.vision.corruptions.noise import poisson_quantiles
from regrow.vision.corruptions.severities import TABLES, parameters
from regrow.vision.corruptions.weather import brightness, plasma


def draws(n=1, key="test"):
    return Draws((key,), torch.arange(n))


def test_words_are_uniform_and_independent_of_their_neighbours():
    words = draws(400).words(2500).double() / WORDS
    counts = torch.histc(words.float(), 64, 0, 1)
    chi = ((counts - counts.mean()) ** 2 / counts.mean()).sum()
    assert 63 - 6 * math.sqrt(126) < float(chi) < 63 + 6 * math.sqrt(126)
    z = (words - 0.5) * math.sqrt(12)
    limit = 5 / math.sqrt(words.numel())
    for shifted in (z.roll(1, 0), z.roll(1, 1), z.roll(2, 1), z.roll((1, 1), (0, 1))):
        assert abs(float((z * shifted).mean())) < limit
    per_bit = (draws(400, "bits").words(2500).unsqueeze(2) >> torch.arange(16)) & 1
    assert (per_bit.double().mean((0, 1)) - 0.5).abs().max() < limit


def test_calls_keys_and_images_draw_apart():
    a = draws(2)
    first, second = a.uniform(1000), a.uniform(1000)
    assert not torch.equal(first, second)
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, draws(2, "other").uniform(1000))
    assert torch.equal(first, draws(2).uniform(1000))


def test_indices_beyond_32_bits_and_negative_ones_are_drawn_for_too():
    drawn = Draws(("test",), torch.tensor([-1, 2**32 - 1, 2**40])).uniform(4)
    assert torch.equal(drawn[0], drawn[1])
    assert ((drawn > 0) & (drawn < 1)).all()


def test_normal_numbers_have_the_moments_of_the_normal_distribution():
    z = draws(50).normal(20_000).double()
    for power, moment, spread in ((1, 0, 1), (2, 1, 2**0.5), (3, 0, 15**0.5), (4, 3, 96**0.5)):
        assert abs(float((z**power).mean()) - moment) < 5 * spread / 1000 + 0.01 * (power == 4)


def test_integers_take_each_value_and_no_other():
    assert draws().integers(-2, 3, 500).unique().tolist() == [-2, -1, 0, 1, 2]


@pytest.mark.parametrize("photons", [3.0, 60.0, 500.0])
def test_counts_have_mean_and_variance_of_the_poisson_distribution(photons):
    table = poisson_quantiles(photons, torch.device("cpu")).view(256, -1).double() * photons
    rates = torch.arange(256) * photons / 255
    torch.testing.assert_close(table.mean(1), rates.double(), atol=2e-3, rtol=1e-3)
    torch.testing.assert_close(table.var(1), rates.double(), atol=5e-3, rtol=1e-2)


@pytest.mark.parametrize("size", [1, 2, 3, 9])
@pytest.mark.parametrize(
    "edges, mode", [("nearest", "edge"), ("symmetric", "symmetric"), ("mirror", "reflect")]
)
def test_a_convolution_is_that_of_the_padded_row(size, edges, mode):
    taps, row = torch.rand(11), torch.rand(size)
    padded = np.pad(row.numpy(), 5, mode=mode) if size > 1 else row.numpy().repeat(11)
    wanted = np.correlate(padded, taps.numpy(), "valid")
    found = linear.convolution(taps, size, edges) @ row
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_a_sum_of_separable_maps_is_that():
    images, rows, columns = torch.rand(2, 3, 5, 4), torch.rand(3, 6, 5), torch.rand(3, 7, 4)
    wanted = sum(r @ images @ c.T for r, c in zip(rows, columns, strict=True))
    torch.testing.assert_close(linear.apply(images, rows, columns), wanted)
    one = linear.apply(images, rows[0], columns[:1])
    torch.testing.assert_close(one, rows[0] @ images @ columns[0].T)


def test_glass_is_the_sequence_of_copies():
    """Pixel by pixel from the last to the first, as the published program goes."""
    height, width, reach = 9, 12, 2
    found = _copied_from(height, width, reach, draws(4)).view(4, height, width)
    shift = draws(4).integers(-reach, reach, 2, height, width)
    for image in range(4):
        shown = np.arange(height * width).reshape(height, width)
        for y in range(height - reach, reach, -1):
            for x in range(width - reach, reach, -1):
                down, right = shift[image, :, y, x].tolist()
                shown[y, x] = shown[y + down, x + right]
        assert np.array_equal(found[image].numpy(), shown)


def test_a_smear_along_the_row_is_a_one_sided_mean():
    row = torch.zeros(2, 1, 1, 15)
    row[..., 7] = 1
    smear = smeared(row, 2, 1.5, torch.tensor([0.0, 180.0]))[:, 0, 0]
    weights = torch.exp(-(torch.arange(5.0) ** 2) / 4.5)
    weights /= weights.sum()
    torch.testing.assert_close(smear[0, 3:8], weights.flip(0))
    torch.testing.assert_close(smear[1, 7:12], weights)
    torch.testing.assert_close(smear.sum(1), torch.ones(2))


def test_clouds_reach_both_ends_and_a_smaller_decay_is_rougher():
    rough, smooth = (plasma(60, decay, draws(20)) for decay in (1.5, 3.0))
    for clouds in (rough, smooth):
        assert clouds.shape == (20, 64, 64)
        assert torch.equal(clouds.amin((1, 2)), torch.zeros(20))
        assert torch.equal(clouds.amax((1, 2)), torch.ones(20))
    steps = [float((clouds - clouds.roll(1, 2)).abs().mean()) for clouds in (rough, smooth)]
    assert steps[0] > 2 * steps[1]


@pytest.mark.parametrize("change", [brightness, saturate])
def test_colours_change_as_hue_saturation_and_value_say(change):
    import colorsys

    pixels = torch.rand(1, 3, 6, 6)
    pixels[0, :, 0] = torch.tensor([[0.0, 0.4, 1.0] * 2] * 3)  # greys
    values = (0.3,) if change is brightness else (5.0, 0.1)
    found = change(pixels, values, draws())
    for y, x in np.ndindex(6, 6):
        h, s, v = colorsys.rgb_to_hsv(*pixels[0, :, y, x].tolist())
        if change is brightness:
            v = min(v + 0.3, 1)
        else:
            s = min(s * 5 + 0.1, 1)
        wanted = colorsys.hsv_to_rgb(h, s, v)
        assert found[0, :, y, x].tolist() == pytest.approx(wanted, abs=1e-5)


def by_pillow(images, change):
    from PIL import Image

    arrays = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    made = [np.asarray(change(Image.fromarray(array.squeeze()))) for array in arrays]
    stacked = torch.from_numpy(np.stack(made)).float()
    return stacked.unsqueeze(1) if stacked.ndim == 3 else stacked.permute(0, 3, 1, 2)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(32, 32), (16, 48), (17, 33), (7, 9), (2, 3), (40, 5)])
@pytest.mark.parametrize("quality", [7, 25, 40, 80])
def test_jpeg_is_what_pillow_writes_and_reads(drawn, quality, size, channels):
    from PIL import Image

    def change(picture):
        out = io.BytesIO()
        picture.save(out, "JPEG", quality=quality)
        return Image.open(out)

    images = (drawn(48, 96)[:, :channels, : size[0], : size[1]] * 255).round() / 255
    wanted = by_pillow(images, change)
    found = jpeg_compression(images, (quality,), draws()) * 255
    assert torch.equal(found.round(), found.round().clamp(0, 255))
    difference = (found - wanted).abs()
    damage = (wanted - images * 255).abs().mean()
    # A coefficient half-way between two steps may fall to either side, which moves its block.
    assert float(difference.mean()) < max(0.12 * float(damage), 0.5)
    assert float((difference > 2).float().mean()) < 0.08


def test_steps_of_jpeg_are_those_pillow_writes():
    from PIL import Image

    for quality in (7, 10, 15, 18, 25, 40, 50, 58, 65, 80):
        out = io.BytesIO()
        Image.new("RGB", (16, 16)).save(out, "JPEG", quality=quality)
        written = Image.open(out).quantization
        for kind in (0, 1):
            assert sorted(written[kind]) == sorted(quantization(quality, kind).tolist())


@pytest.mark.parametrize("share", [0.25, 0.3, 0.65, 0.9])
@pytest.mark.parametrize("size", [(32, 32), (13, 30)])
def test_pixels_are_those_of_pillows_box_filter(drawn, share, size):
    from PIL import Image

    def change(picture):
        small = int(size[1] * share), int(size[0] * share)
        return picture.resize(small, Image.Resampling.BOX).resize(size[::-1], Image.Resampling.BOX)

    images = (drawn(32, 4)[:, :, : size[0], : size[1]] * 255).round() / 255
    found = pixelate(images, (share,), draws()) * 255
    assert (found - by_pillow(images, change)).abs().max() < 1.01  # it rounds along either axis


def test_ice_goes_on_beyond_its_edges_and_is_the_same_each_time():
    texture, colours = sheets(torch.device("cpu"))
    assert texture.shape == (5, SIDE, SIDE) and colours.shape == (5, 3)
    assert texture.mean((1, 2)).abs().max() < 1e-4
    seam = (texture[:, 0] - texture[:, -1]).abs().mean()
    inside = (texture[:, 1:] - texture[:, :-1]).abs().mean()
    assert float(seam) < 1.5 * float(inside)


def test_water_adds_light_and_mud_hides(drawn):
    images = drawn(64, 8) * 0.5
    wet = corrupt(images, "spatter", 3) - images
    assert float(wet.min()) > -1e-6 and 0.002 < float(wet.mean()) < 0.1
    muddy = corrupt(images, "spatter", 5)
    mud = torch.tensor([63, 42, 20]).view(3, 1, 1) / 255
    hidden = functional.l1_loss(muddy, mud.expand_as(muddy), reduction="none").amax(1) < 0.06
    assert 0.01 < float(hidden.float().mean()) < 0.3


@pytest.mark.parametrize("size", [(1, 1), (2, 7), (40, 33), (70, 70)])
@pytest.mark.parametrize("radius", [0, 1, 5])
@pytest.mark.parametrize(
    "edges, mode", [("nearest", "nearest"), ("symmetric", "reflect"), ("mirror", "mirror")]
)
def test_products_of_spectra_are_correlations(size, radius, edges, mode):
    images, taps = torch.rand(2, 3, *size), torch.randn(2 * radius + 1, 2 * radius + 1)
    found = linear.spectral(images, taps, edges)
    expected = ndimage.correlate(
        images.double().numpy(), taps.double().numpy()[None, None], mode=mode
    )
    torch.testing.assert_close(found.double(), torch.from_numpy(expected), atol=2e-5, rtol=0)


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("severity", range(1, 6))
def test_a_large_image_is_defocused_as_by_matrices(table, severity):
    images = torch.rand(1, 3, 90, 120)
    strength = parameters(table, "defocus_blur", severity)
    parts = linear.apply(images, *_disk_in_parts(*strength, 90, 120))
    found = defocus_blur(images, strength, draws())
    torch.testing.assert_close(found, parts, atol=3e-6, rtol=0)


def test_an_empty_batch_of_large_images_is_defocused():
    assert corrupt(torch.rand(0, 3, 90, 90), "defocus_blur", 5).shape == (0, 3, 90, 90)
