"""Augmentation: exact where interpolation is, image and label together, as often as it says."""

import math
from dataclasses import fields, replace

import pytest
import torch

from regrow.engine.selection import seeded_generator
from regrow.segmentation.augment import Augmentation, Change, _rotation

NEVER = Augmentation(
    rotation=0, scaling=0, elastic=0, noise=0, brightness=0,
    contrast=0, gamma=0, inverted=0, mirror=()
)  # fmt: skip
STILL = Change(None, None, (), 0.0, 1.0, 1.0, (None, None), 0)
PATCH = (9, 11, 7)


def ramps(sides):
    """Return three channels, each the distance from the centre along an axis."""
    axes = [torch.arange(side) - (side - 1) / 2 for side in sides]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def applied(change, image, label=None, patch=PATCH):
    label = torch.zeros(image.shape[1:], dtype=torch.int16) if label is None else label
    new, labels = NEVER.apply(image[None], label[None], [change], patch)
    return new[0], labels[0]


def with_room(change):
    room = NEVER.room([change], PATCH)
    return [side + 2 * more for side, more in zip(PATCH, room, strict=True)]


def test_nothing_happens_to_a_patch_for_which_nothing_was_drawn():
    change = NEVER.draw(seeded_generator(0), PATCH)
    assert replace(change, seed=0) == STILL
    image = torch.randn(2, 13, 13, 13)
    assert applied(change, image)[0].equal(image[:, 2:11, 1:12, 3:10])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_quarter_turn_is_a_quarter_turn(axis):
    patch = (7, 7, 7)
    angles = [math.pi / 2 if a == axis else 0.0 for a in range(3)]
    image = torch.randn(1, *patch)
    label = torch.randint(4, patch, dtype=torch.int16)
    turned, labels = applied(replace(STILL, matrix=_rotation(angles)), image, label, patch)
    plane = [a for a in range(3) if a != axis]
    ways = [torch.rot90(label, k, plane) for k in (1, 3)]
    way = [labels.equal(one) for one in ways].index(True)
    torch.testing.assert_close(
        turned, torch.rot90(image, (1, 3)[way], [a + 1 for a in plane]), atol=1e-5, rtol=0
    )


def test_what_is_linear_in_space_is_resampled_exactly_by_any_matrix_and_bend():
    draw = torch.Generator().manual_seed(0)
    matrix = _rotation([0.3, -0.4, 0.5]) * torch.tensor([1.3, 0.8, 1.0])
    bend = torch.randn(3, 2, 2, 2, generator=draw)  # between 8 knots it is trilinear
    change = replace(STILL, matrix=matrix, bend=bend)
    image = ramps(with_room(change))
    found, _ = applied(change, image)
    places = ramps(PATCH)
    expected = torch.einsum("ij,jdhw->idhw", matrix, places)
    expected += torch.nn.functional.interpolate(
        bend[None], PATCH, mode="trilinear", align_corners=True
    )[0]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_room_is_no_larger_than_a_turn_needs():
    assert NEVER.room([STILL], PATCH) == (0, 0, 0)
    quarter = replace(STILL, matrix=_rotation([math.pi / 2, 0, 0]))
    assert NEVER.room([quarter], (4, 4, 10)) == (0, 3, 0)


def test_labels_move_with_their_image_and_stay_labels():
    augmentation = Augmentation(rotation=1, scaling=1, elastic=1, noise=0, gamma=0, inverted=0)
    patch = (24, 24, 24)
    for number in range(8):
        change = augmentation.draw(seeded_generator(number), patch)
        change = replace(change, brightness=1.0, contrast=1.0)
        sides = [s + 2 * m for s, m in zip(patch, augmentation.room([change], patch), strict=True)]
        far = (ramps(sides) - torch.tensor([3.0, -2, 1]).view(3, 1, 1, 1)).norm(dim=0)
        image, label = applied(change, far[None], 5 * (far < 7).to(torch.int16), patch)
        assert set(label.unique().tolist()) == {0, 5}
        # The nearest voxel is at most √3/2 away.
        assert (label[image[0] < 6] == 5).all() and not label[image[0] > 8].any()


def test_mirroring_is_a_flip_of_both():
    image, label = torch.randn(2, *PATCH), torch.randint(3, PATCH, dtype=torch.int16)
    new, labels = applied(replace(STILL, flips=(0, 2)), image, label)
    assert new.equal(image.flip(1, 3)) and labels.equal(label.flip(0, 2))


def test_intensities_change_by_their_formulas():
    image = torch.randn(2, *PATCH, dtype=torch.float64).float()
    noisy = applied(replace(STILL, noise=0.1, seed=5), image)[0] - image
    assert float(noisy.std()) == pytest.approx(0.1, rel=0.1)
    assert applied(replace(STILL, brightness=0.8), image)[0].equal(0.8 * image)
    contrast = applied(replace(STILL, contrast=0.5), image)[0]
    mean = image.mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(contrast, mean + 0.5 * (image - mean))
    stronger = applied(replace(STILL, contrast=1.2), image)[0]
    assert stronger.amax() == image.amax() and stronger.amin() == image.amin()
    for gamma in ((0.7, None), (None, 1.4)):
        new = applied(replace(STILL, gamma=gamma), image)[0]
        axes = (1, 2, 3)
        torch.testing.assert_close(new.mean(axes), image.mean(axes), atol=1e-5, rtol=0)
        torch.testing.assert_close(new.std(axes), image.std(axes))
        assert new.flatten(1).argsort(1).equal(image.flatten(1).argsort(1))  # order stays


def test_a_constant_image_stays_finite():
    change = replace(STILL, contrast=1.2, gamma=(0.7, 1.4))
    assert applied(change, torch.full((1, *PATCH), 3.0))[0].isfinite().all()


def test_changes_are_as_frequent_as_they_are_said_to_be():
    draws = [Augmentation(elastic=0.2).draw(seeded_generator(i), PATCH) for i in range(1500)]
    shares = {
        "moved": (sum(d.matrix is not None for d in draws), 1 - 0.8**3),
        "bent": (sum(d.bend is not None for d in draws), 0.2),
        "noisy": (sum(d.noise > 0 for d in draws), 0.1),
        "brighter": (sum(d.brightness != 1 for d in draws), 0.15),
        "gamma": (sum(d.gamma[0] is not None for d in draws), 0.3),
        "inverted": (sum(d.gamma[1] is not None for d in draws), 0.1),
        "flipped": (sum(0 in d.flips for d in draws), 0.5),
    }
    for name, (count, chance) in shares.items():
        far = 5 * math.sqrt(chance * (1 - chance) * len(draws))
        assert abs(count - chance * len(draws)) < far, name


def test_a_flat_patch_turns_and_scales_in_its_plane():
    augmentation = Augmentation(rotation=1, scaling=1, elastic=1)
    for number in range(20):
        change = augmentation.draw(seeded_generator(number), (8, 64, 64))
        assert change.matrix[0].tolist() == [1, 0, 0]
        assert change.matrix[:, 0].tolist() == [1, 0, 0]
        assert not change.bend[0].any()


def test_patches_of_a_batch_do_not_depend_on_one_another():
    augmentation = Augmentation(rotation=0.5, elastic=0.5, noise=0.5)
    changes = [augmentation.draw(seeded_generator(i), PATCH) for i in range(4)]
    sides = [s + 2 * m for s, m in zip(PATCH, augmentation.room(changes, PATCH), strict=True)]
    images, labels = torch.randn(4, 1, *sides), torch.randint(3, (4, *sides), dtype=torch.int16)
    together = augmentation.apply(images, labels, changes, PATCH)
    for i in range(4):
        alone = augmentation.apply(images[i : i + 1], labels[i : i + 1], changes[i : i + 1], PATCH)
        torch.testing.assert_close(together[0][i], alone[0][0])
        assert together[1][i].equal(alone[1][0])


@pytest.mark.parametrize("name", [f.name for f in fields(Augmentation) if f.type == "float"])
def test_probabilities_lie_between_0_and_1(name):
    if name not in ("angle", "bending"):
        with pytest.raises(ValueError, match=f"{name}=1.5"):
            Augmentation(**{name: 1.5})
