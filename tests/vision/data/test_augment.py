"""Augmented images are what they may be: a shift, the mirror, a part of the image."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from regrow.vision.data import names, standard
from regrow.vision.data.augment import (
    STANDARD,
    random_crop,
    random_flip,
    random_resized_crop,
    random_roll,
)
from regrow.vision.data.boxes import random_boxes

DTYPES = [torch.uint8, torch.float32, torch.bfloat16]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(n, height=5, width=6, dtype=torch.uint8):
    made = torch.randint(1, 255, (n, 3, height, width), generator=generator(7))
    return made.to(dtype)


def shifts(image, padding, mode):
    """All windows of a padded image, by numpy-like slicing: an oracle."""
    height, width = image.shape[1:]
    kind = {"zeros": "constant", "reflect": "reflect"}[mode]
    padded = functional.pad(image.float()[None], (padding,) * 4, mode=kind)[0]
    steps = range(2 * padding + 1)
    return [padded[:, y : y + height, x : x + width] for y in steps for x in steps]


@pytest.mark.parametrize("mode", ["zeros", "reflect"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_crop_is_one_of_the_shifts_and_all_of_them_come(mode, dtype):
    given = images(1, dtype=dtype).expand(2000, 3, 5, 6)
    cropped = random_crop(given, generator(), padding=2, mode=mode)
    assert cropped.dtype == dtype
    wanted = torch.stack(shifts(given[0], 2, mode))
    same = (cropped.float()[:, None] == wanted).flatten(2).all(2)
    assert same.any(1).all()
    often = same.sum(0)
    assert (often > 80 - 55).all()  # of 25 shifts, 80 times each: six deviations
    assert (often < 80 + 55).all()


@pytest.mark.parametrize("change", [random_crop, random_flip, random_roll])
@pytest.mark.parametrize("mode", ["zeros", "reflect"])
def test_all_frames_of_a_clip_are_changed_as_one_image_would_be(change, mode):
    clips = torch.randint(1, 255, (30, 3, 4, 7, 6), generator=generator(7))
    more = {"mode": mode} if change is random_crop else {}
    changed = change(clips, generator(), **more)
    assert changed.shape == clips.shape
    for frame in range(4):
        assert torch.equal(changed[:, :, frame], change(clips[:, :, frame], generator(), **more))


def test_a_roll_is_one_of_all_shifts_around_and_all_of_them_come():
    given = images(1).expand(3000, 3, 5, 6)
    rolled = random_roll(given, generator())
    every = [given[0].roll((y, x), (1, 2)) for y in range(5) for x in range(6)]
    same = (rolled[:, None] == torch.stack(every)).flatten(2).all(2)
    assert (same.sum(1) == 1).all()
    assert (same.sum(0) > 100 - 60).all()  # of 30 shifts, 100 times each: six deviations
    assert (same.sum(0) < 100 + 60).all()


def test_a_crop_without_padding_is_the_image():
    assert torch.equal(random_crop(images(3), generator(), padding=0), images(3))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_flip_is_the_image_or_its_mirror_and_both_come(dtype):
    given = images(400, dtype=dtype)
    flipped = random_flip(given, generator())
    kept = (flipped == given).flatten(1).all(1)
    mirrored = (flipped == given.flip(3)).flatten(1).all(1)
    assert (kept | mirrored).all()
    assert 140 < int(mirrored.sum()) < 260


@pytest.mark.parametrize(
    "change",
    [
        random_crop,
        random_flip,
        random_resized_crop,
        random_roll,
    ],
)
def test_the_generator_decides(change):
    a, b, c = (change(images(20), generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert a.shape == (20, 3, 5, 6)


@pytest.mark.parametrize("size", [None, 3, 11])
def test_a_resized_crop_is_the_box_interpolated(size):
    given = images(30, 9, 12).float()
    resized = random_resized_crop(given, generator(3), size)
    boxes = random_boxes(30, 9, 12, generator(3)).tolist()
    for image, got, (top, left, tall, wide) in zip(given, resized, boxes, strict=True):
        box = image[None, :, top : top + tall, left : left + wide]
        wanted = functional.interpolate(
            box, (size or 9, size or 12), mode="bilinear", align_corners=False
        )
        torch.testing.assert_close(got, wanted[0], atol=2e-3, rtol=0)


def test_a_resized_crop_of_bytes_is_that_of_floats_rounded():
    given = images(10, 8, 8)
    floats = random_resized_crop(given.float(), generator(), 5)
    assert torch.equal(random_resized_crop(given, generator(), 5), floats.round().to(torch.uint8))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 100))
def test_boxes_lie_inside(height, width, seed):
    top, left, tall, wide = random_boxes(50, height, width, generator(seed)).unbind(1)
    assert (top >= 0).all() and (left >= 0).all()
    assert (tall >= 1).all() and (wide >= 1).all()
    assert (top + tall <= height).all() and (left + wide <= width).all()


def test_boxes_have_areas_and_shapes_in_range_and_reach_the_edges():
    top, left, tall, wide = random_boxes(5000, 200, 200, generator(), (0.1, 0.5)).unbind(1)
    area, shape = tall * wide / 200**2, wide / tall
    assert 0.09 < float(area.min()) < 0.12 and 0.48 < float(area.max()) < 0.51
    assert 0.28 < float(area.mean()) < 0.32  # uniform
    assert 0.73 < float(shape.min()) < 0.78 and 1.29 < float(shape.max()) < 1.36
    assert abs(float(shape.log().mean())) < 0.01
    assert int(top.min()) == int(left.min()) == 0
    assert int((top + tall).max()) == int((left + wide).max()) == 200


@pytest.mark.parametrize(
    "height, width, box", [(10, 100, [0, 43, 10, 13]), (100, 9, [44, 0, 12, 9])]
)
def test_if_no_box_fits_the_middle_is_taken(height, width, box):
    found = random_boxes(20, height, width, generator(), scale=(0.9, 1.0))
    assert found.tolist() == [box] * 20


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda x: random_crop(x, generator(), padding=-1), "padding=-1"),
        (lambda x: random_crop(x, generator(), padding=5, mode="reflect"), "padding=5: .* below 5"),
        (lambda x: random_crop(x, generator(), mode="wrap"), "mode='wrap'"),
        (lambda x: random_crop(x[0], generator()), r"images of shape \(3, 5, 6\)"),
        (lambda x: random_resized_crop(x[None], generator()), r"images of shape \(1, 2, 3, 5, 6\)"),
        (lambda x: random_roll(x[0], generator()), r"images of shape \(3, 5, 6\)"),
        (lambda x: random_resized_crop(x, generator(), scale=(0.5, 0.1)), "scale="),
        (lambda x: random_resized_crop(x, generator(), ratio=(0.0, 1.0)), "ratio="),
        (lambda x: random_resized_crop(x, generator(), size=0), "size=0"),
        (lambda _: standard("mnits"), "data='mnits'.*digits"),
    ],
)
def test_what_cannot_be_is_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call(images(2))


def test_every_data_set_has_its_standard():
    assert set(STANDARD) == set(names())
    given = images(40)
    changed = standard("cifar100")(given, generator())
    assert torch.equal(changed, random_flip(random_crop(given, g := generator()), g))
    assert standard("higgs") is None
