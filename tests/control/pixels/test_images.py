"""Augmentations against oracles written with loops, colorsys and padding."""

import colorsys

import numpy as np
import pytest
import torch
from torch.nn import functional

from regrow.control.pixels.augment import Augment, read_photos
from regrow.control.pixels.images import (
    offsets,
    overlay,
    random_convolution,
    resized_crops,
    splice,
    windows,
)

CPU = torch.device("cpu")


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("pad", [0, 1, 4])
def test_shifts_are_crops_of_what_is_padded_with_its_border(pad):
    images = rand(20, 9, 11, 11)
    starts = offsets(rand(20, 2, seed=1), 2 * pad) - pad
    padded = functional.pad(images, (pad,) * 4, mode="replicate")
    for image, whole, (row, column) in zip(
        windows(images, starts, 11), padded, (starts + pad).tolist(), strict=True
    ):
        assert torch.equal(image, whole[:, row : row + 11, column : column + 11])


def test_offsets_are_each_as_likely_and_none_is_beyond():
    drawn = torch.linspace(0, 1, 9001)[1:-1]
    found = offsets(drawn, 8).bincount()
    assert len(found) == 9 and found.min() > 990 and found.max() < 1010
    assert offsets(torch.tensor([1.0]), 8).item() == 8


def test_crops_are_slices():
    images = rand(2, 3, 10, 10)
    found = windows(images, torch.tensor([[0, 3], [2, 1]]), 7)
    assert torch.equal(found[0], images[0, :, 0:7, 3:10])
    assert torch.equal(found[1], images[1, :, 2:9, 1:8])


def test_overlays_are_means_with_one_picture_on_all_frames():
    images, pictures = rand(2, 9, 5, 5), rand(2, 3, 5, 5, seed=2)
    found = overlay(images, pictures, 0.3)
    for frame in range(3):
        wanted = 0.7 * images[:, 3 * frame : 3 * frame + 3] + 0.3 * pictures
        torch.testing.assert_close(found[:, 3 * frame : 3 * frame + 3], wanted)


def test_splices_keep_pixels_by_hue_saturation_and_value():
    images = rand(2, 9, 6, 6)
    images[0, :3, 0, 0] = torch.tensor([0.9, 0.9, 0.9])  # grey
    images[0, :3, 0, 1] = torch.tensor([0.9, 0.2, 0.2])  # hue 0
    images[0, :3, 0, 2] = torch.tensor([0.9, 0.2, 0.3])
    pictures = rand(2, 3, 6, 6, seed=3)
    found = splice(images, pictures).view(2, 3, 3, 6, 6)
    for n, frame, row, column in np.ndindex(2, 3, 6, 6):
        pixel = images.view(2, 3, 3, 6, 6)[n, frame, :, row, column]
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel.double().tolist())
        stays = hue > 0 and saturation > 0 and value > 0.6
        wanted = pixel if stays else pictures[n, :, row, column]
        assert torch.equal(found[n, frame, :, row, column], wanted), (n, frame, row, column)


def test_random_convolutions_are_those_of_each_image_alone():
    images, kernels = rand(3, 9, 7, 7), torch.randn(3, 3, 3, 3, 3)
    found = random_convolution(images, kernels)
    for n in range(3):
        frames = functional.pad(images[n].view(3, 3, 7, 7), (1,) * 4, mode="replicate")
        wanted = torch.sigmoid(functional.conv2d(frames, kernels[n])).reshape(9, 7, 7)
        torch.testing.assert_close(found[n], wanted)


def test_a_crop_of_everything_is_the_photo_and_half_are_flipped():
    photos = (rand(2, 3, 8, 8) * 255).to(torch.uint8)
    whole = [0.0, 1.0, 0.5, 0.5, 0.5]
    drawn = torch.tensor([[*whole, 0.9], [*whole, 0.1]])
    drawn[1, 0] = 0.99
    found = resized_crops(photos, drawn, 8)
    torch.testing.assert_close(found[0], photos[0] / 255, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found[1], photos[1].flip(2) / 255, atol=1e-6, rtol=1e-5)


def test_crops_lie_where_they_were_drawn_and_have_the_area_drawn():
    # A photo of its own coordinates: what a crop shows is where it was cut.
    places = torch.arange(64) * 4
    photo = torch.stack(
        [places.expand(64, 64), places[:, None].expand(64, 64), places.expand(64, 64)]
    )
    drawn = rand(200, 6, seed=5)
    drawn[:, 5] = 0.9
    found = resized_crops(photo[None].to(torch.uint8), drawn, 32) * 255 / 4
    for crop, (_, area, ratio, row, column, _) in zip(found, drawn.tolist(), strict=True):
        part, shape = 0.08 + 0.92 * area, (3 / 4) ** (1 - 2 * ratio)
        wide, tall = min(1, (part * shape) ** 0.5), min(1, (part / shape) ** 0.5)
        left, top = (1 - wide) * column * 64, (1 - tall) * row * 64
        middles = (torch.arange(32) + 0.5) / 32
        x = (left + middles * wide * 64 - 0.5).clamp(0, 63)
        y = (top + middles * tall * 64 - 0.5).clamp(0, 63)
        torch.testing.assert_close(crop[0], x.expand(32, 32), atol=2e-3, rtol=1e-4)
        torch.testing.assert_close(crop[1], y[:, None].expand(32, 32), atol=2e-3, rtol=1e-4)


def test_the_same_seed_augments_alike_and_states_go_on():
    photos = (rand(3, 3, 8, 8) * 255).to(torch.uint8)
    images = rand(4, 9, 8, 8)
    for kind in ("overlay", "conv", "splice"):
        one, two, other = (Augment(kind, photos, 0.5, seed, CPU) for seed in (0, 0, 1))
        first = one(images)
        assert torch.equal(first, two(images)) and not torch.equal(first, other(images))
        assert not torch.equal(first, one(images))
        assert ((first >= 0) & (first <= 1)).all()
    assert Augment("none", None, 0.5, 0, CPU)(images) is images


def test_auto_takes_photos_if_there_are_any_and_what_is_missing_is_told():
    photos = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    assert Augment("auto", photos, 0.5, 0, CPU).kind == "overlay"
    assert Augment("auto", None, 0.5, 0, CPU).kind == "conv"
    with pytest.raises(ValueError, match="augmentation='overlay' needs photos"):
        Augment("overlay", None, 0.5, 0, CPU)
    for wrong in (photos.float(), photos[:0], torch.zeros(1, 3, 4, 5, dtype=torch.uint8)):
        with pytest.raises(ValueError, match=r"photos: .* uint8 squares"):
            Augment("overlay", wrong, 0.5, 0, CPU)


def test_photos_are_read_as_squares_of_their_middles(tmp_path):
    from PIL import Image

    with pytest.raises(ValueError, match=r"photos=.*no \.jpg"):
        read_photos(tmp_path)
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = 200
    Image.fromarray(wide).save(tmp_path / "b.png")
    Image.fromarray(np.full((9, 9, 3), 7, np.uint8)).save(tmp_path / "a.png")
    found = read_photos(tmp_path, 8)
    assert found.shape == (2, 3, 8, 8) and found.dtype == torch.uint8
    assert (found[0] == 7).all() and (found[1] == 200).all()
    (tmp_path / "c.jpg").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"c\.jpg"):
        read_photos(tmp_path, 8)
