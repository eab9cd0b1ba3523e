"""What the network sees: frames, channels, validity; defects of MTR mended, and given back."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from regrow.motion.batches import collate
from regrow.motion.clouds import LidarFeatures
from regrow.motion.features import Featurer
from regrow.motion.frames import rotated, to_scene
from regrow.motion.polylines import cut, filled
from regrow.motion.scene import KINDS, LINES, Points
from tests.motion.made import NOW, scene

FEATURER = Featurer()


def moved(one, angle, shift):
    """Return the whole scene turned and shifted."""
    states = one.states.copy()
    states[..., :2] = rotated(states[..., :2], angle) + shift[:2]
    states[..., 2] += shift[2]
    states[..., 6] += angle
    states[..., 7:] = rotated(states[..., 7:], angle)
    lines = np.concatenate([rotated(one.line_points[:, :2], angle), one.line_points[:, 2:]], 1)
    points = one.points
    if points is not None:
        values = points.values.copy()
        values[:, :2] = rotated(values[:, :2], angle)
        sensor = np.concatenate([rotated(points.sensor[:, :2], angle), points.sensor[:, 2:]], 1)
        points = Points(values, points.counts, sensor + shift)
    return replace(one, states=states, line_points=lines + shift, points=points)


@given(st.integers(0, 50), st.floats(-3, 3), st.floats(-1000, 1000))
@settings(max_examples=20)
def test_features_do_not_hang_on_where_a_scene_lies(seed, angle, x):
    one = scene(seed, missing=0.2, points=9)
    for turn in ("box", "sight"):
        featurer = Featurer(lidar=LidarFeatures(turn=turn))
        first, second = featurer(one), featurer(moved(one, angle, np.array([x, -x / 2, 3.0])))
        for name in set(first) - {"origin"}:
            np.testing.assert_allclose(first[name], second[name], atol=2e-3, err_msg=name)


def test_channels_are_those_of_mtr():
    one = scene(3, agents=4, kinds=[1, 2, 3, 0], targets=2)
    found = FEATURER(one)
    agents = found["agents"]
    assert agents.shape == (2, 4, 11, 29)
    np.testing.assert_array_equal(agents[0, :, 0, 6:9], np.eye(4)[[1, 2, 3, 0]][:, 1:])
    assert agents[0, :, 5, 9].tolist() == [1, 0, 0, 0]  # the target of this row
    assert agents[1, :, 5, 9].tolist() == [0, 1, 0, 0]
    assert agents[1, :, 5, 10].tolist() == [0, 0, 0, 1]  # the ego
    np.testing.assert_array_equal(agents[1, 2, :, 11:22], np.eye(11))
    np.testing.assert_allclose(agents[1, 2, :, 22], np.arange(11) / 10, atol=1e-6)
    own = agents[[0, 1], [0, 1], NOW]
    np.testing.assert_allclose(own[:, :3], 0, atol=1e-5)
    np.testing.assert_allclose(own[:, 23:25], [[0, 1]] * 2, atol=1e-6)  # sine, cosine
    speed = np.linalg.norm(one.states[[0, 1], NOW, 7:], axis=-1)
    np.testing.assert_allclose(own[:, 25], speed, rtol=1e-5)  # it drives where it heads
    step = (one.states[0, NOW, 7:] - one.states[0, NOW - 1, 7:]) / 0.1
    np.testing.assert_allclose(np.linalg.norm(own[0, 27:]), np.linalg.norm(step), rtol=1e-3)


def test_pedestrians_are_told_unless_compat():
    one = scene(agents=3, kinds=[2, 2, 1])
    assert FEATURER(one)["agents"][0, :, 0, 7].tolist() == [1, 1, 0]
    compat = Featurer(mtr_compat=True)(one)["agents"]
    assert not compat[..., 7].any()
    assert compat[0, :, 0, 6].tolist() == [0, 0, 1]


def test_accelerations_across_what_is_not_valid_are_nothing_unless_compat():
    one = scene(agents=3)
    valid = one.valid.copy()
    valid[1, 4] = False
    one = replace(one, valid=valid)
    mended, compat = (Featurer(mtr_compat=c)(one)["agents"][0, 1, :, 27:29] for c in (False, True))
    assert not mended[[4, 5]].any()
    assert np.abs(compat[5]).max() > 5  # the whole velocity in one step
    same = [0, 1, 2, 3, 6, 7, 8, 9, 10]
    np.testing.assert_array_equal(mended[same], compat[same])
    np.testing.assert_array_equal(mended[0], mended[1])


def test_lines_are_cut_as_said_and_driveways_are_seen_unless_compat():
    one = scene(lanes=0)
    dense = np.stack([np.arange(45) * 0.5, np.zeros(45), np.zeros(45)], -1)
    square = np.array([[0, 0, 0], [0, 3, 0], [3, 3, 0], [3, 0, 0], [0, 0, 0.0]])
    one = replace(
        one,
        line_points=np.concatenate([dense, square]),
        line_lengths=np.array([45, 5]),
        line_kinds=np.array([LINES["street"], LINES["driveway"]]),
    )
    lines, valid = cut(one)
    assert valid.sum(1).tolist() == [20, 20, 5, 13]  # 4 sides of 3 m, a point a metre
    kinds = lines[..., 6][valid]
    assert set(kinds) == {LINES["street"], LINES["driveway"]}
    assert np.linalg.norm(np.diff(lines[3, :13, :2], axis=0), axis=1).max() <= 1 + 1e-9
    np.testing.assert_allclose(lines[1, 3, 7:9], lines[1, 2, :2])  # the point before
    np.testing.assert_allclose(lines[1, 0, 7:9], lines[1, 0, :2])
    np.testing.assert_allclose(lines[1, 0, 3:6], [1, 0, 0])  # from the last of the piece before
    np.testing.assert_allclose(lines[0, 0, 3:6], 0)
    assert not lines[~valid].any()
    compat, valid = cut(one, mtr_compat=True)
    assert set(compat[..., 6][valid]) == {LINES["street"]}
    broken = replace(one, line_kinds=np.array([2, LINES["crosswalk"]]))
    assert cut(broken, mtr_compat=True)[1].sum(1).tolist() == [20, 20, 5, 1, 1, 1, 1, 1]


@given(st.integers(0, 1000), st.integers(2, 30), st.floats(0.05, 8))
@settings(max_examples=50)
def test_filling_keeps_corners_and_leaves_no_gap(seed, count, scale):
    points = np.cumsum(np.random.default_rng(seed).normal(0, scale, (count, 3)), 0)
    both, lengths = filled(np.concatenate([points[:1], points]), np.array([1, 0, count]))
    assert lengths[:2].tolist() == [1, 0]
    assert lengths.sum() == len(both)
    found = both[1:]
    steps = np.linalg.norm(np.diff(found[:, :2], axis=0), axis=1)
    assert steps.max() <= 1 + 1e-6
    for corner in points:
        assert np.abs(found - corner).sum(1).min() < 1e-9


def test_nearest_polylines_are_kept():
    one = scene(lanes=30)
    whole, some = FEATURER(one), Featurer(polylines=10)(one)
    centres = whole["map"][..., :2].sum(2) / whole["map_valid"].sum(2)[..., None]
    far = np.linalg.norm(centres - np.array([30.0, 0.0]), axis=-1)
    assert (np.diff(far, axis=1) >= -1e-4).all()
    np.testing.assert_array_equal(whole["map"][:, :10], some["map"])


def test_labels_come_back_to_the_scene():
    one = scene(5, missing=0.3)
    found = FEATURER(one)
    back = to_scene(found["future"][..., :2], found["origin"])
    valid = found["future_valid"]
    np.testing.assert_array_equal(valid, one.valid[:2, NOW + 1 :])
    np.testing.assert_allclose(back[valid], one.states[:2, NOW + 1 :, :2][valid], atol=1e-4)
    place = found["centre"]
    np.testing.assert_array_equal(found["others"][[0, 1], place], found["future"])


def test_short_pasts_and_futures_are_not_valid_where_they_end():
    one = scene(now=4, steps=30)
    found = FEATURER(one)
    assert found["agents"].shape[2] == 11
    assert not found["agents_valid"][:, :, :6].any()
    assert found["agents_valid"][:, :, 6:].all()
    assert found["future_valid"].shape == (2, 80)
    assert found["future_valid"].sum() == 2 * 25
    assert not found["future"][:, 25:].any()
    long = Featurer(past=5, future=3)(one)
    np.testing.assert_allclose(long["agents"][..., :3], found["agents"][..., 6:, :3])


def test_agents_never_seen_up_to_now_are_left_out():
    one = scene(agents=5, targets=1)
    valid = one.valid.copy()
    valid[2, : NOW + 1] = False
    one = replace(one, valid=valid, targets=np.array([3]))
    found = FEATURER(one)
    assert found["agents"].shape[1] == 4
    assert found["centre"].tolist() == [2]
    assert found["agent"].tolist() == [3]
    assert found["agents"][0, 2, 0, 9] == 1


def test_bad_scenes_are_refused_by_name():
    one = scene(7)
    with pytest.raises(ValueError, match="made-7: has no targets"):
        FEATURER(replace(one, targets=np.zeros(0, dtype=np.int64)))
    valid = one.valid.copy()
    valid[1, NOW] = False
    with pytest.raises(ValueError, match=r"made-7: target 1 \(id 101\) is not valid at step 10"):
        FEATURER(replace(one, valid=valid))


def test_points_are_turned_as_asked_and_the_turn_is_told():
    one = scene(2, points=12, missing=0.1)
    origin = FEATURER(one)["origin"]
    for turn in ("box", "sight"):
        how = LidarFeatures(turn=turn, measured=("range", "intensity"))
        found = Featurer(lidar=how)(one)
        assert found["lidar"].shape[-1] == how.channels == 10
        for target in range(2):
            for frame in range(11):
                cloud = one.points.of(target, frame)
                valid = found["lidar_valid"][target, frame]
                assert valid.sum() == len(cloud)
                if not len(cloud):
                    continue
                rows = found["lidar"][target, frame][valid]
                state = one.states[target, frame]
                angle = state[6] if turn == "box" else np.arctan2(state[1], state[0])
                wanted = rotated(cloud[:, :2], -angle)
                np.testing.assert_allclose(rows[:, :2], wanted, atol=1e-5)
                np.testing.assert_allclose(rows[:, 2:5], cloud[:, 2:5], atol=1e-6)
                kind = np.eye(len(KINDS))[one.kinds[target]][1:]
                np.testing.assert_array_equal(rows[:, 5:8], np.tile(kind, (len(rows), 1)))
                against = angle - origin[target, 3]
                told = np.tile([np.sin(against), np.cos(against)], (len(rows), 1))
                np.testing.assert_allclose(rows[:, 8:], told, atol=1e-6)


def test_frames_match_their_points_for_any_number_of_frames():
    one = scene(2, points=5)
    for frames in (1, 2, 4, 11, 15):
        how = LidarFeatures(frames=frames, keep_angle=False, kind=False, measured=())
        found = Featurer(lidar=how)(one)
        steps = how.steps(NOW)
        assert found["lidar"].shape[:2] == (2, frames)
        assert steps[-1] == NOW
        counts = found["lidar_valid"].sum(-1)
        np.testing.assert_array_equal(counts[:, frames - len(steps) :], one.points.counts[:, steps])
        assert not counts[:, : frames - len(steps)].any()


@pytest.mark.parametrize("turn", ["box", "sight"])
@pytest.mark.parametrize("frames", [1, 2, 3, 4])
def test_few_frames_are_turned_each_by_its_own_step(frames, turn):
    """LiMTR pairs the points of spread frames with the last boxes; here each has its own."""
    one = scene(2, points=30)
    whole, few = (
        Featurer(lidar=LidarFeatures(frames=count, turn=turn, measured=()))(one)
        for count in (NOW + 1, frames)
    )
    for place, step in enumerate(LidarFeatures(frames=frames).steps(NOW)):
        for target in range(2):
            there, wanted = (
                found["lidar"][target, at][found["lidar_valid"][target, at]]
                for found, at in ((few, place), (whole, step))
            )
            np.testing.assert_array_equal(there, wanted)
    assert few["lidar_valid"].any()


def test_too_many_points_are_thinned_out_evenly_or_drawn():
    one = scene(2, points=200)
    how = Featurer(lidar=LidarFeatures(points=16))
    plain = how(one)
    drawn = [how(one, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert plain["lidar"].shape[2] == 16
    np.testing.assert_array_equal(plain["lidar"], how(one)["lidar"])
    np.testing.assert_array_equal(drawn[0]["lidar"], drawn[1]["lidar"])
    assert not np.array_equal(drawn[0]["lidar"], drawn[2]["lidar"])
    np.testing.assert_array_equal(drawn[2]["lidar_valid"], plain["lidar_valid"])


def test_scenes_without_points_lie_in_a_batch_with_others():
    how = Featurer(lidar=LidarFeatures())
    inputs, targets = collate([how(scene(0)), how(scene(1, points=7, agents=9, lanes=1))])
    assert inputs["lidar"].shape[:2] == (4, 11)
    assert not inputs["lidar_valid"][:2].any()
    assert inputs["lidar_valid"][2:].any()
    assert inputs["agents"].shape[1] == 9
    assert not inputs["agents_valid"][:2, 5:].any()
    assert targets["scene"].tolist() == [0, 0, 1, 1]
    assert targets["origin"].dtype == torch.float64


def test_map_without_lines_has_nothing_valid():
    found = FEATURER(scene(lanes=0))
    assert found["map"].shape == (2, 1, 20, 9)
    assert not found["map_valid"].any()
    assert np.isfinite(found["map"]).all()


def test_a_point_count_of_twenty_thousand_and_points_without_a_box_are_taken():
    one = scene(2, points=20_000, targets=1)
    valid = one.valid.copy()
    valid[0, 3] = False
    one = replace(one, valid=valid)  # the points of frame 3 stay
    found = Featurer(lidar=LidarFeatures(points=64))(one)
    assert one.points.counts.max() > 10_000
    assert found["lidar"].shape == (1, 11, 64, 9)
    assert found["lidar_valid"][0, 3].any()
    assert np.isfinite(found["lidar"]).all()
