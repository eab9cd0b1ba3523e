"""Patches: the sizes of nnU-Net, the same draws on any number of ranks, what is centred."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regrow.segmentation.augment import Augmentation
from regrow.segmentation.patch_sizes import patch_rule, strides_rule
from regrow.segmentation.patches import PatchBatches
from regrow.segmentation.samples import Sample, around, crop

SIDES = st.integers(1, 400)
SPACING = st.floats(0.3, 10.0)


def case(name="a", sides=(12, 14, 10), classes=3, seed=0):
    draw = torch.Generator().manual_seed(seed)
    label = torch.randint(classes, sides, generator=draw).to(torch.int16)
    return Sample(name, label[None].float(), label)


@pytest.mark.parametrize(
    ("shape", "spacing", "patch", "levels"),
    [  # what nnU-Net plans for these medians
        ((36, 50, 35), (1.0, 1.0, 1.0), (40, 56, 40), 4),  # hippocampus
        ((138, 170, 138), (1.0, 1.0, 1.0), (128, 128, 128), 6),  # brain tumours
    ],
)
def test_patches_are_those_of_nnunet(shape, spacing, patch, levels):
    found, strides = patch_rule(shape, spacing)
    assert found == patch
    assert len(strides) + 1 == levels


@given(st.tuples(SIDES, SIDES, SIDES), st.tuples(SPACING, SPACING, SPACING))
def test_a_patch_has_room_and_is_divided_by_its_strides(shape, spacing):
    patch, strides = patch_rule(shape, spacing)
    assert np.prod(patch) <= 128**3
    assert not any(side % by for side, by in zip(patch, np.prod(strides, 0), strict=True))
    # No more than one step of rounding above the volume.
    assert all(p < s + by for p, s, by in zip(patch, shape, np.prod(strides, 0), strict=True))


def test_a_wide_axis_is_halved_once_the_others_are_as_wide():
    assert strides_rule((16, 64, 64), (4.0, 1.0, 1.0))[:3] == ((1, 2, 2), (1, 2, 2), (2, 2, 2))


@given(st.tuples(*[st.integers(-6, 8)] * 3), st.tuples(*[st.integers(1, 9)] * 3))
def test_a_crop_is_a_slice_of_the_padded_volume(begin, size):
    volume = torch.arange(4 * 5 * 3.0).view(4, 5, 3) + 1
    padded = np.pad(volume.numpy(), 20)
    expected = padded[tuple(slice(b + 20, b + 20 + s) for b, s in zip(begin, size, strict=True))]
    assert crop(volume, begin, size).numpy() == pytest.approx(expected)


def test_patches_follow_from_seed_epoch_and_place_on_any_number_of_ranks():
    cases = [case(str(i), seed=i) for i in range(5)]
    kind = {"batch": 4, "batches": 3, "seed": 3, "augmentation": Augmentation(noise=1.0)}
    alone = PatchBatches(cases, (8, 8, 8), **kind)
    wanted = [batch for epoch in (0, 1, 2) for batch in alone.epoch(epoch)]
    again = list(alone.epoch(2))
    ranks = [PatchBatches(cases, (8, 8, 8), **kind, rank=r, ranks=2) for r in range(2)]
    for one, first, second in zip(again, *(r.epoch(2) for r in ranks), strict=True):
        assert one.ids.tolist() == [*first.ids.tolist(), *second.ids.tolist()]
        assert one.targets.equal(torch.cat([first.targets, second.targets]))
        torch.testing.assert_close(one.inputs, torch.cat([first.inputs, second.inputs]))
    for before, after in zip(wanted[6:], again, strict=True):
        assert before.inputs.equal(after.inputs)
    assert not wanted[0].inputs.equal(wanted[3].inputs)
    other = PatchBatches(cases, (8, 8, 8), **kind | {"seed": 4})
    assert not next(other.epoch(0)).inputs.equal(wanted[0].inputs)


def test_the_last_patches_of_a_batch_hold_a_class_and_the_first_lie_anywhere():
    label = torch.zeros(40, 40, 40, dtype=torch.int16)
    label[3, 30, 20] = 2  # one voxel
    rare = Sample("rare", label[None].float(), label)
    drawn = PatchBatches([rare], (8, 8, 8), batch=3, batches=40, seed=0)
    found = torch.stack([(batch.targets == 2).flatten(1).any(1) for batch in drawn.epoch(0)])
    assert found[:, 2].all()
    assert found[:, :2].float().mean() < 0.2  # (8/40)³ of them, if the edges are left out


def test_classes_of_a_case_are_drawn_alike_however_large_they_are():
    label = torch.zeros(30, 30, 30, dtype=torch.int16)
    label[:14], label[28, 28, 28] = 1, 2
    drawn = PatchBatches(
        [Sample("a", label[None].float(), label)], (3, 3, 3), batch=1, batches=200, seed=0,
        foreground=1.0,
    )  # fmt: skip
    small = sum(bool((batch.targets == 2).any()) for batch in drawn.epoch(0))
    assert 70 <= small <= 130


def test_image_and_label_are_cut_from_one_place_and_small_volumes_are_centred():
    small = case(sides=(5, 20, 4))
    drawn = PatchBatches([small], (9, 8, 8), batch=2, batches=6, seed=1)
    for batch in drawn.epoch(0):
        assert batch.inputs[:, 0].equal(batch.targets.float())
        assert batch.targets[:, 2:7, :, 2:6].any()
        assert not batch.targets[:, :2].any() and not batch.targets[:, 7:].any()
        assert not batch.targets[..., :2].any() and not batch.targets[..., 6:].any()


@given(seed=st.integers(0, 99), most=st.tuples(*[st.integers(1, 9)] * 3))
def test_a_box_around_labels_lies_inside_and_in_their_middle(seed, most):
    draw = np.random.default_rng(seed)
    sides = draw.integers(1, 9, 3)
    label = torch.from_numpy((draw.random(sides) < 0.05) * draw.integers(-1, 3, sides))
    begin, size = around(label, most)
    assert size == tuple(np.minimum(sides, most))
    assert all(b >= 0 and b + s <= side for b, s, side in zip(begin, size, sides, strict=True))
    places = (label > 0).nonzero()
    if len(places):
        # No box has the middle of all labels closer to its own, but for the volume's border.
        for axis in range(3):
            middle = (int(places[:, axis].min()) + int(places[:, axis].max())) / 2
            far = [
                abs(b + (size[axis] - 1) / 2 - middle) for b in range(sides[axis] - size[axis] + 1)
            ]
            own = far[begin[axis]]
            assert own <= min(far) + 1


def test_regions_overlap_and_what_nobody_judged_does_not_count():
    label = torch.tensor([0, 1, 2, -1], dtype=torch.int16).view(1, 1, 4)
    sample = Sample("a", label[None].float(), label)
    drawn = PatchBatches([sample], (1, 1, 4), batch=1, batches=1, seed=0, regions=[[1, 2], [2]])
    targets = next(drawn.epoch(0)).targets
    assert targets[0, :, 0, 0].tolist() == [[0, 1, 1, -1], [0, 0, 1, -1]]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"batch": 3, "ranks": 2}, "batch=3: 2 ranks need a multiple"),
        ({"batch": 0}, "whole numbers from 1 on"),
        ({"foreground": 1.5}, "foreground=1.5"),
    ],
)
def test_what_is_out_of_range_is_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        PatchBatches([case()], (4, 4, 4), seed=0, **arguments)


def test_a_case_that_cannot_be_learnt_from_is_named():
    unknown = Sample("patient 7", torch.zeros(1, 4, 4, 4))
    with pytest.raises(ValueError, match="patient 7: it has no label"):
        PatchBatches([unknown], (4, 4, 4), seed=0)
    other = Sample("patient 8", torch.zeros(1, 4, 4, 4), torch.zeros(4, 4, 5, dtype=torch.int16))
    with pytest.raises(ValueError, match=r"patient 8: its image has \(4, 4, 4\)"):
        PatchBatches([other], (4, 4, 4), seed=0)
