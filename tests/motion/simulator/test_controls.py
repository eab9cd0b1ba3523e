"""Controls change the points and nothing else."""

from dataclasses import replace

import numpy as np
import pytest

from regrow.motion.simulator import World, simulate
from regrow.motion.simulator.controls import thinned, with_points_of, without_points


@pytest.fixture(scope="module")
def pair():
    return simulate(5)[0], simulate(6)[0]


def _same_but_points(one, other):
    arrays, others = one.arrays(), other.arrays()
    return all(
        np.array_equal(arrays[name], others[name])
        for name in arrays
        if not name.startswith("points_") or name == "points_sensor"
    )


def test_all_controls_leave_tracks_and_map(pair):
    scene, other = pair
    for changed in (without_points(scene), thinned(scene, most=5), with_points_of(scene, other)):
        assert _same_but_points(scene, changed)


def test_without_points_there_are_none(pair):
    assert without_points(pair[0]).points.counts.sum() == 0


@pytest.mark.parametrize(("most", "frames"), [(7, None), (None, 2), (7, 2), (0, None), (None, 0)])
def test_a_thinned_scene_has_a_part_of_the_points(pair, most, frames):
    whole, points = pair[0].points, thinned(pair[0], most=most, frames=frames).points
    wanted = whole.counts.copy()
    if most is not None:
        wanted = np.minimum(wanted, most)
    if frames is not None:
        wanted[:, : 11 - frames] = 0
    assert np.array_equal(points.counts, wanted)
    for row, frame in np.argwhere(wanted):
        there = {tuple(point) for point in whole.of(row, frame)}
        mine = {tuple(point) for point in points.of(row, frame)}
        assert mine <= there
        assert len(mine) == wanted[row, frame]


def test_nothing_to_thin_leaves_all(pair):
    assert np.array_equal(
        thinned(pair[0], most=9999, frames=11).points.values, pair[0].points.values
    )


def test_which_points_are_kept_is_random_and_seeded(pair):
    kept = [thinned(pair[0], most=5, seed=seed).points.values for seed in (0, 0, 1)]
    assert np.array_equal(kept[0], kept[1])
    assert not np.array_equal(kept[0], kept[2])


def test_swapped_points_are_those_of_one_of_the_same_kind(pair):
    scene, other = pair
    swapped = with_points_of(scene, other)
    kinds, others = scene.kinds[scene.targets], other.kinds[other.targets]
    for row, kind in enumerate(kinds):
        matches = [
            donor
            for donor in np.flatnonzero(others == kind)
            if all(
                np.array_equal(swapped.points.of(row, k), other.points.of(donor, k))
                for k in range(11)
            )
        ]
        assert len(matches) == 1


def test_a_kind_that_the_other_lacks_is_left_without_points(pair):
    scene = pair[0]
    other = simulate(1, World(cyclists=0, pedestrians=1))[0]
    swapped = with_points_of(scene, other)
    for kind, counts in zip(scene.kinds[scene.targets], swapped.points.counts, strict=True):
        assert (counts.sum() > 0) == (kind != 3)


def test_scenes_that_do_not_fit_are_refused(pair):
    bare = replace(pair[0], points=None)
    for change in (without_points, thinned, lambda s: with_points_of(s, pair[1])):
        with pytest.raises(ValueError, match=r"simulated-5: has no LiDAR"):
            change(bare)
    with pytest.raises(ValueError, match="most=-1"):
        thinned(pair[0], most=-1)
