"""Metrics against definitions written out, and against MONAI's where it has one."""

import itertools
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regrow.segmentation.metrics import Lesions, dice, lesions, mean_of, scores_of
from regrow.segmentation.surfaces import hausdorff, surface_dice, surface_distances

pytest.importorskip("scipy", reason="needs the extra regrow[segmentation]")

SPACINGS = st.sampled_from([(1.0, 1.0, 1.0), (10.0, 1.0, 0.7), (2.5, 0.5, 1.0)])


def masks(seed, shape=(4, 6, 7)):
    """Return two masks, of any density, none and all included."""
    rng = np.random.default_rng(seed)
    return tuple(rng.random(shape) < rng.choice([0, 0.05, 0.3, 0.9, 1]) for _ in range(2))


def surface_by_hand(mask):
    """Return places that have a neighbour across a face outside of the mask, or of the volume."""
    found = []
    for place in np.argwhere(mask):
        for axis, step in itertools.product(range(3), (-1, 1)):
            beside = place.copy()
            beside[axis] += step
            outside = not 0 <= beside[axis] < mask.shape[axis]
            if outside or not mask[tuple(beside)]:
                found.append(place)
                break
    return np.array(found).reshape(-1, 3)


def distances_by_hand(one, other, spacing):
    if not len(one) or not len(other):
        return np.full(len(one), np.inf)
    apart = (one[:, None] - other[None]) * np.array(spacing)
    return np.sqrt((apart**2).sum(-1)).min(1)


@given(st.integers(0, 10_000), SPACINGS)
def test_surface_distances_against_brute_force(seed, spacing):
    said, true = masks(seed)
    surfaces = surface_by_hand(said), surface_by_hand(true)
    expected = (
        distances_by_hand(*surfaces, spacing),
        distances_by_hand(*surfaces[::-1], spacing),
    )
    for made, wanted in zip(surface_distances(said, true, spacing), expected, strict=True):
        np.testing.assert_allclose(np.sort(made), np.sort(wanted))


@given(st.integers(0, 10_000))
def test_lesions_against_a_flood(seed):
    said, true = masks(seed)
    parts, others = flooded(true), flooded(said)
    found = sum(any(said[p] for p in part) for part in parts)
    false = sum(not any(true[p] for p in part) for part in others)
    assert lesions(said, true) == Lesions(found, len(parts) - found, false)


def flooded(mask):
    """Return the components of a mask: sets of places that touch, at corners too."""
    left, parts = {tuple(place) for place in np.argwhere(mask).tolist()}, []
    while left:
        part, edge = set(), [left.pop()]
        while edge:
            place = edge.pop()
            part.add(place)
            near = {
                tuple(np.add(place, step).tolist())
                for step in itertools.product((-1, 0, 1), repeat=3)
            }
            edge += near & left
            left -= near
        parts.append(part)
    return parts


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (5.0, 1.0, 0.7)])
def test_surfaces_agree_with_monai(seed, spacing):
    metrics = pytest.importorskip("monai.metrics", reason="needs the extra regrow[segmentation]")
    rng = np.random.default_rng(seed)
    said, true = (rng.random((8, 9, 10)) < 0.3 for _ in range(2))
    distances = surface_distances(said, true, spacing)
    pair = [torch.tensor(mask)[None, None].float() for mask in (said, true)]
    options = {"include_background": True, "spacing": spacing}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = metrics.compute_surface_dice(*pair, [1.0], **options)
        far = metrics.compute_hausdorff_distance(*pair, percentile=95, **options)
    assert surface_dice(distances, 1.0) == pytest.approx(float(theirs), rel=1e-5)
    assert hausdorff(distances) == pytest.approx(float(far), rel=1e-5)


@given(st.integers(0, 10_000), SPACINGS, st.sampled_from([0.5, 1.0, 3.0]))
def test_figures_are_symmetric_and_perfect_for_equals(seed, spacing, tolerance):
    said, true = masks(seed)
    there, back = surface_distances(said, true, spacing), surface_distances(true, said, spacing)
    assert same(dice(said, true), dice(true, said))
    assert same(surface_dice(there, tolerance), surface_dice(back, tolerance))
    assert same(hausdorff(there), hausdorff(back))
    if true.any():
        equal = surface_distances(true, true, spacing)
        assert (dice(true, true), surface_dice(equal, tolerance), hausdorff(equal)) == (1, 1, 0)


def same(one, other):
    return one == other or (np.isnan(one) and np.isnan(other))


def test_what_is_in_neither_is_left_out_and_what_is_in_one_is_worst():
    none, some = np.zeros((3, 4, 5), bool), np.zeros((3, 4, 5), bool)
    some[1, 1:3, 1:3] = True
    for said, true, expected in (
        (none, none, (np.nan, np.nan, np.nan, Lesions(0, 0, 0))),
        (some, none, (0, 0, np.inf, Lesions(0, 0, 1))),
        (none, some, (0, 0, np.inf, Lesions(0, 1, 0))),
    ):
        scores = scores_of(said, true, {"a": [1]}, (1, 1, 1))["a"]
        made = (scores.dice, scores.surface_dice, scores.hausdorff95)
        np.testing.assert_array_equal(made, expected[:3])
        assert scores.lesions == expected[3]
    assert np.isnan(Lesions(0, 0, 0).f1)
    assert mean_of([np.nan, 0.25, 0.75]) == 0.5
    assert np.isnan(mean_of([np.nan]))


def test_distances_are_millimetres():
    """A box moved by two slices of 3 mm, by hand."""
    true = np.zeros((12, 8, 8), bool)
    true[2:6, 2:6, 2:6] = True
    said = np.roll(true, 2, 0)
    distances = surface_distances(said, true, (3.0, 1.0, 1.0))
    assert max(distances[0].max(), distances[1].max()) == 6.0
    assert hausdorff(distances, 100) == 6.0
    assert surface_dice(distances, 6.0) == 1.0
    assert surface_dice(distances, 5.9) < 1.0


def test_a_distance_that_equals_the_tolerance_lies_within_it():
    """Three voxels of 0.1 mm are 0.30000000000000004 mm."""
    true = np.zeros((12, 6, 6), bool)
    true[1:3, 1:5, 1:5] = True
    distances = surface_distances(np.roll(true, 3, 0), true, (0.1, 1.0, 1.0))
    assert distances[0].max() > 0.3
    assert surface_dice(distances, 0.3) == 1.0
    assert surface_dice(distances, 0.2999) < 1.0


def test_the_surface_of_an_image_is_its_outline():
    image = np.zeros((1, 7, 7), bool)
    image[0, 1:6, 1:6] = True
    inner = np.zeros_like(image)
    inner[0, 3, 3] = True
    distances = surface_distances(image, inner, (10.0, 1.0, 1.0))
    assert len(distances[0]) == 16  # not all 25
    for shape in ((1, 1, 1), (1, 1, 4)):
        one = np.ones(shape, bool)
        assert surface_dice(surface_distances(one, one, (1, 1, 1)), 0.1) == 1


def test_regions_and_ignored_voxels():
    truth = np.array([[[0, 1, 2, 4, 9]]])
    said = np.array([[[0, 1, 1, 4, 4]]])
    classes = {"whole": (1, 2, 4), "core": (1, 4)}
    scores = scores_of(said, truth, classes, (1, 1, 1), ignore=9)
    assert (scores["whole"].dice, scores["core"].dice) == (1, 0.8)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"of shape \(1, 2, 3\), the truth of \(1, 2, 4\)"):
        scores_of(np.zeros((1, 2, 3)), np.zeros((1, 2, 4)), {"a": [1]}, (1, 1, 1))
