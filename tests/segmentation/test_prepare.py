"""Preparation: what nnU-Net does to a volume, and the way back to the input's own grid."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrow.reading import UnreadableError
from regrow.segmentation.cases import Volume
from regrow.segmentation.grids import grid_of
from regrow.segmentation.normalise import Normalisation, normalise
from regrow.segmentation.planning import Facts, Preparation, facts_of, plan_of
from regrow.segmentation.prepare import prepare, restore, restore_scores
from regrow.segmentation.resample import (
    coarse_axis,
    resample_image,
    resample_labels,
    resampled_shape,
)

pytest.importorskip("scipy", reason="needs the extra regrow[segmentation]")
pytest.importorskip("nibabel", reason="needs the extra regrow[segmentation]")

SIDES = st.tuples(*[st.integers(1, 9)] * 3)
SPACINGS = st.tuples(*[st.sampled_from([0.5, 0.9, 1.0, 2.0, 5.0, 10.0])] * 3)


def volume(image, labels=None, spacing=(1.0, 1.0, 1.0)):
    image = np.asarray(image, np.float32)
    image = image[None] if image.ndim == 3 else image
    return Volume("case_3", image, labels, grid_of(image.shape[1:], spacing))


def facts(shape=(40, 40, 40), spacing=(1.0, 1.0, 1.0), kept=1.0, foreground=((1.0,),)):
    return Facts("a", shape, spacing, kept, frozenset({0, 1}), np.array(foreground))


# Resampling ---------------------------------------------------------------------------------


def test_a_plane_stays_a_plane():
    """Linear functions are kept by splines of order 1 away from borders, centres in place."""
    z, y, x = np.mgrid[:8, :8, :8] + 0.5
    ramp = (z + 2 * y - x)[None]
    made = resample_image(ramp, (16, 4, 8), order=1)[0]
    z, y, x = np.mgrid[:16, :4, :8] + 0.5
    expected = z / 2 + 2 * (2 * y) - x
    np.testing.assert_allclose(made[2:-2, 1:-1, 1:-1], expected[2:-2, 1:-1, 1:-1], atol=1e-5)


def test_no_value_leaves_its_range():
    image = (np.random.default_rng(0).random((1, 9, 9, 9)) > 0.5).astype(np.float32)
    made = resample_image(image, (20, 13, 9), order=3)
    assert made.min() >= 0
    assert made.max() <= 1


def test_slices_far_apart_are_not_mixed():
    """At 1:10 each slice is resampled in its plane, and repeated."""
    image = np.random.default_rng(0).normal(size=(1, 4, 6, 6)).astype(np.float32)
    assert coarse_axis((10, 1, 1), (1, 1, 1)) == 0
    made = resample_image(image, (40, 6, 6), coarse=0)
    np.testing.assert_array_equal(made, np.repeat(image, 10, 1))
    turned = resample_image(image.transpose(0, 2, 1, 3), (6, 40, 6), coarse=1)
    np.testing.assert_array_equal(turned, made.transpose(0, 2, 1, 3))


@given(SIDES, SIDES, st.integers(0, 99))
def test_labels_stay_of_their_set(old, new, seed):
    labels = np.random.default_rng(seed).choice([0, 3, 300], size=old).astype(np.int16)
    made = resample_labels(labels, new)
    assert made.shape == new
    assert set(np.unique(made)) <= set(np.unique(labels))
    assert made.dtype == labels.dtype


def test_the_largest_share_wins_where_labels_meet():
    """Against brute force: shares of a trilinear mean; of equal ones, the nearest voxel's."""
    labels = np.random.default_rng(1).integers(0, 4, (5, 6, 7))
    new = (7, 5, 11)
    made = resample_labels(labels, new)
    for place in np.ndindex(new):
        shares, nearest = np.zeros(4), []
        centre = [(p + 0.5) * o / n - 0.5 for p, o, n in zip(place, labels.shape, new, strict=True)]
        for corner in np.ndindex(2, 2, 2):
            low = np.floor(centre).astype(int)
            weight = np.prod(np.where(corner, centre - low, 1 - (centre - low)))
            shares[labels[tuple(np.clip(low + corner, 0, np.array(labels.shape) - 1))]] += weight
        nearest = labels[tuple(int(np.floor(c + 0.5)) for c in centre)]
        best = np.flatnonzero(shares > shares.max() - 1e-6)
        assert made[place] == (nearest if nearest in best else best[0])


@given(SIDES, SPACINGS, SPACINGS)
def test_a_volume_never_loses_its_last_slice(shape, spacing, wanted):
    made = resampled_shape(shape, spacing, wanted)
    assert min(made) >= 1
    for new, old, was, now in zip(made, shape, spacing, wanted, strict=True):
        assert abs(new * now - old * was) <= max(now / 2 + 1e-9, now - old * was)


# Normalisation ------------------------------------------------------------------------------


def test_ct_is_clipped_and_scaled_by_its_data_set():
    values = np.arange(1001.0)
    plan = plan_of([facts(foreground=[values])], ["CT"])
    (channel,) = plan.channels
    assert (channel.low, channel.high) == pytest.approx((5, 995))
    assert (channel.mean, channel.deviation) == pytest.approx((500, np.std(values)))
    image = np.array([-1000.0, 5, 500, 3000], np.float32).reshape(1, 1, 2, 2)
    made = normalise(image, plan.channels).ravel() * np.std(values) + 500
    np.testing.assert_allclose(made, [5, 5, 500, 995], rtol=1e-5)


def test_magnetic_resonance_is_scored_inside_what_is_not_zero():
    image = np.zeros((1, 4, 4, 4), np.float32)
    mask = np.zeros((4, 4, 4), bool)
    mask[1:3] = True
    image[0, mask] = np.random.default_rng(0).normal(40, 5, 32)
    given = image.copy()
    made = normalise(image, [Normalisation("zscore")], mask)
    assert made[0, mask].mean() == pytest.approx(0, abs=1e-5)
    assert made[0, mask].std() == pytest.approx(1, abs=1e-5)
    assert not made[0, ~mask].any()
    np.testing.assert_array_equal(image, given)
    np.testing.assert_array_equal(
        normalise(np.full((1, 2, 2, 2), 7, np.float32), [Normalisation("zscore")]), 0
    )


def test_ct_without_foreground_is_an_error():
    with pytest.raises(ValueError, match="no training case has any foreground"):
        plan_of([facts(foreground=np.empty((1, 0)))], ["CT"])
    assert plan_of([facts(foreground=np.empty((1, 0)))], ["MRI"]).channels[0].scheme == "zscore"


# Plans --------------------------------------------------------------------------------------


def test_depth_is_the_axis_of_the_coarsest_voxels():
    plan = plan_of([facts(spacing=(1.0, 1.0, 2.5))], ["MRI"])
    assert plan == Preparation((2, 0, 1), (2.5, 1.0, 1.0), (Normalisation("zscore"),))
    assert plan_of([facts()], ["MRI"]).axes == (0, 1, 2)


def test_few_thick_slices_get_a_finer_spacing_than_the_median():
    of = [facts((10, 200, 200), (side, 1.0, 1.0)) for side in (5.0, 8, 10, 10, 10, 10, 10, 10, 10)]
    assert plan_of(of, ["MRI"]).spacing == pytest.approx((7.4, 1, 1))
    many = [facts((100, 200, 200), f.spacing) for f in of]
    assert plan_of(many, ["MRI"]).spacing == (10, 1, 1)


def test_scores_are_masked_where_cropping_takes_a_quarter():
    assert plan_of([facts(kept=0.7)], ["MRI"]).masked
    assert not plan_of([facts(kept=0.8)], ["MRI"]).masked


def test_other_schemes_are_their_formulas():
    image = np.array([51.0, 0.0, 255.0, 102.0]).reshape(1, 1, 1, 4).astype(np.float32)
    for scheme, expected in (
        ("rgb_to_0_1", [0.2, 0.0, 1.0, 0.4]),
        ("rescale_to_0_1", [0.2, 0.0, 1.0, 0.4]),
        ("nonorm", [51.0, 0.0, 255.0, 102.0]),
    ):
        for shift in (0, 20) if scheme == "rescale_to_0_1" else (0,):
            found = normalise(image + np.float32(shift), [Normalisation(scheme)])
            np.testing.assert_allclose(found.ravel(), expected, rtol=1e-6)


def test_a_case_tells_its_facts():
    image = np.zeros((4, 4, 4))
    image[1:3] = 5
    image[2] = 7  # not judged, and no foreground that CT is normalised by
    labels = np.zeros((4, 4, 4), int)
    labels[1, 0, 0], labels[2] = 1, 9
    known = facts_of(volume(image, labels), 10, ignore=9)
    assert (known.shape, known.kept, known.values) == ((2, 4, 4), 0.5, {0, 1, 9})
    assert known.foreground.tolist() == [[5.0] * 10]
    with pytest.raises(UnreadableError, match="case case_3 has only zero voxels"):
        facts_of(volume(np.zeros((2, 2, 2))))


# There and back -----------------------------------------------------------------------------


@given(st.permutations(range(3)), SPACINGS, SPACINGS, st.integers(0, 99))
def test_predictions_come_back_to_the_grid_and_set_of_labels(axes, spacing, wanted, seed):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(2, 9, 3))
    image = np.zeros(shape)
    image[1:, :, :-1] = rng.random((shape[0] - 1, shape[1], shape[2] - 1)) + 1
    labels = rng.choice([0, 2, 5], size=shape)
    case = volume(image, labels, spacing)
    plan = Preparation(tuple(axes), wanted, (Normalisation("zscore"),))
    prepared = prepare(case, plan)
    assert prepared.image.shape[1:] == prepared.labels.shape
    back = restore(prepared.labels, prepared, plan)
    assert back.shape == case.grid.shape
    assert set(np.unique(back)) <= {0, 2, 5}
    assert not back[0].any()  # what was cropped
    assert not back[:, :, -1].any()


@given(st.permutations(range(3)), st.integers(0, 99))
def test_without_resampling_the_way_back_is_exact(axes, seed):
    rng = np.random.default_rng(seed)
    image, labels = rng.random((3, 4, 5)) + 1, rng.integers(0, 4, (3, 4, 5))
    case = volume(image, labels, (1.0, 2.0, 2.5))
    wanted = tuple(case.grid.spacing[axis] for axis in axes)
    plan = Preparation(tuple(axes), wanted, (Normalisation("nonorm"),))
    prepared = prepare(case, plan)
    np.testing.assert_array_equal(prepared.image[0], image.transpose(axes).astype(np.float32))
    np.testing.assert_array_equal(restore(prepared.labels, prepared, plan), labels)
    scores = np.stack([prepared.labels == value for value in range(4)]).astype(np.float32)
    np.testing.assert_array_equal(restore_scores(scores, prepared, plan), labels)


def test_a_ball_survives_finer_voxels_and_the_way_back():
    """Scores resampled linearly lose less than a tenth of a voxel at the surface."""
    z, y, x = np.mgrid[:30, :30, :30] - 14.5
    ball = (z**2 + y**2 + x**2 < 100).astype(int)
    case = volume(ball + 1.0, ball, (1.0, 1.0, 1.0))
    plan = Preparation((0, 1, 2), (0.7, 0.8, 1.3), (Normalisation("nonorm"),))
    prepared = prepare(case, plan)
    scores = np.stack([1.0 - prepared.labels, prepared.labels])
    for back in (restore(prepared.labels, prepared, plan), restore_scores(scores, prepared, plan)):
        assert 2 * (back & ball).sum() / (back.sum() + ball.sum()) > 0.97


def test_scores_of_slices_far_apart_are_not_mixed_on_the_way_back():
    """As in nnU-Net: the nearest slice; between them 3 and -1 would be 0 three quarters on."""
    plan = Preparation((0, 1, 2), (10.0, 1.0, 1.0), (Normalisation("nonorm"),))
    made = prepare(volume(np.ones((10, 3, 3)), spacing=(2.0, 1.0, 1.0)), plan)
    assert made.image.shape == (1, 2, 3, 3)
    score = np.array([3.0, -1.0], np.float32).reshape(2, 1, 1) * np.ones((2, 3, 3), np.float32)
    classes = restore_scores([np.zeros_like(score), score], made, plan)
    assert classes[:, 0, 0].tolist() == [1] * 5 + [0] * 5


def test_scores_are_interpolated_linearly_on_the_way_back():
    """Splines swing below zero beside a step."""
    plan = Preparation((0, 1, 2), (1.0, 1.0, 2.0), (Normalisation("nonorm"),))
    made = prepare(volume(np.ones((2, 2, 12))), plan)
    ramp = np.array([-1.0, 0.2, 0.2, 10.0, 10.0, 10.0], np.float32)
    score = np.broadcast_to(ramp, (2, 2, 6)).copy()
    classes = restore_scores([np.zeros_like(score), score], made, plan)
    expected = np.interp((np.arange(12) + 0.5) / 2 - 0.5, np.arange(6), ramp) > 0
    assert classes[0, 0].tolist() == expected.astype(int).tolist()


@pytest.mark.parametrize("shape", [(1, 6, 7), (6, 1, 7), (1, 1, 5)])
def test_one_slice_stays_one_slice(shape):
    image = np.random.default_rng(0).random(shape) + 1
    labels = (image > 1.5).astype(int)
    case = volume(image, labels, (10.0, 1.0, 1.0))
    plan = Preparation((0, 1, 2), (10.0, 0.5, 1.0), (Normalisation("zscore"),))
    prepared = prepare(case, plan)
    assert prepared.image.shape == (1, shape[0], 2 * shape[1], shape[2])
    assert np.isfinite(prepared.image).all()
    np.testing.assert_array_equal(restore(prepared.labels, prepared, plan), labels)


def test_files_with_slices_ten_times_as_far_apart():
    image = np.random.default_rng(0).random((5, 40, 40)) + 1
    labels = (image > 1.9).astype(int)
    case = volume(image, labels, (10.0, 1.0, 1.0))
    plan = plan_of([facts_of(case)], ["MRI"])
    assert (plan.axes, plan.spacing) == ((0, 1, 2), (10.0, 1.0, 1.0))
    finer = Preparation((0, 1, 2), (2.5, 1.0, 1.0), (Normalisation("nonorm"),))
    prepared = prepare(case, finer)
    np.testing.assert_array_equal(prepared.image[0], np.repeat(image.astype(np.float32), 4, 0))
    np.testing.assert_array_equal(restore(prepared.labels, prepared, finer), labels)
