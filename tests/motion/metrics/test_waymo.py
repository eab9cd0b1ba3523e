"""Waymo's metrics against what its own operator said, against definitions written out, and laws."""

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrow.motion.metrics import BEFORE_MARCH_2024, MotionMetrics, Rules, measure, values_of
from regrow.motion.metrics.waymo import NAMES
from regrow.motion.scene import Points
from tests.motion.curves import predictions_of, scene_of
from tests.motion.metrics.ranked import measure_together, scenes
from tests.ranks import on_ranks

# Values of Waymo's py_metrics_ops.motion_metrics (waymo-open-dataset-tf-2-12-0 1.6.7) on `made`.
GOLDEN = json.loads((Path(__file__).parent / "waymo_operator.json").read_text())
FEW = {"kinds": (1, 2, 3, 1), "targets": 3}


def unseen(scene, kind):
    """Return a scene in which the future of agents of a kind is not known."""
    valid = scene.valid.copy()
    valid[scene.kinds == kind, scene.now + 1 :] = False
    return replace(scene, valid=valid, states=np.where(valid[..., None], scene.states, 0.0))


SETS = {
    "usual": lambda: [scene_of(seed) for seed in range(30)],
    "eight modes": lambda: [scene_of(seed) for seed in range(40, 50)],
    "no cyclist": lambda: [scene_of(seed, kinds=(1, 2, 1), targets=2) for seed in range(60, 70)],
    "pedestrians unseen": lambda: [unseen(scene_of(seed, **FEW), 2) for seed in range(80, 90)],
    "seen whole": lambda: [scene_of(seed, gaps=0.0) for seed in range(100, 110)],
}


def made(name):
    """Return scenes with trajectories and scores."""
    modes = 8 if name == "eight modes" else 6
    return [
        (scene, *predictions_of(scene, 1000 + i, modes)) for i, scene in enumerate(SETS[name]())
    ]


def values_on(scenes, rules=None):
    metrics = MotionMetrics(rules)
    for one in scenes:
        metrics.add(*one)
    return metrics.values()


@pytest.mark.parametrize("name", SETS)
def test_values_are_those_of_waymos_operator(name):
    values = values_on(made(name))
    for metric, said in GOLDEN[name].items():
        golden = np.reshape(said, (3, 3))
        found = getattr(values, metric)[1:]
        absent = values.agents[1:] == 0
        # The operator says -1 of a class that is absent, and 0 where nothing could be measured.
        waymos = np.where(absent[:, None], -1.0, np.where(np.isnan(found), 0.0, found))
        assert np.abs(waymos - golden).max() < 5e-6, metric


def test_golden_scenes_have_futures_of_every_shape_and_of_none():
    shapes = [measure(*one).shapes for name in SETS for one in made(name)]
    assert set(np.concatenate(shapes).tolist()) == set(range(-1, 7))


def test_the_old_constants_change_the_shapes_and_nothing_else():
    new, old = values_on(made("usual")), values_on(made("usual"), BEFORE_MARCH_2024)
    assert not np.array_equal(new.map, old.map)
    for name in NAMES[:4]:
        np.testing.assert_array_equal(getattr(new, name), getattr(old, name))


def area_by_hand(samples, wanted):
    """Integrate the precision-recall curve over a fine grid of recalls."""
    points, right = [], 0
    for rank, (_, hit) in enumerate(sorted(samples, key=lambda s: (-s[0], s[1])), start=1):
        right += hit
        points.append((right / wanted, right / rank))
    recalls = (np.arange(2520) + 0.5) / 2520
    best = [max((p for r, p in points if r >= recall), default=0.0) for recall in recalls]
    return float(np.mean(best))


def soft_map_by_hand(rows, step, soft=True):
    """Take soft mAP from its definition: loops over agents and modes."""
    pools, wanted = {}, {}
    for agent in range(len(rows)):
        if rows.shapes[agent] < 0 or math.isnan(rows.miss[agent, step]):
            continue
        pool = pools.setdefault(rows.shapes[agent], [])
        wanted[rows.shapes[agent]] = wanted.get(rows.shapes[agent], 0) + 1
        found = False
        for mode in sorted(range(rows.scores.shape[1]), key=lambda m: -rows.scores[agent, m]):
            hit = rows.matched[agent, step, mode] == 1
            if not (hit and found and soft):
                pool.append((rows.scores[agent, mode], hit and not found))
            found |= hit
    return float(np.mean([area_by_hand(pools[shape], wanted[shape]) for shape in pools]))


@pytest.mark.parametrize("soft", [True, False])
@pytest.mark.parametrize("name", ["usual", "seen whole"])
def test_both_map_are_what_loops_over_their_definition_say(name, soft):
    metrics = MotionMetrics()
    for one in made(name):
        metrics.add(*one)
    rows, values = metrics.rows(), metrics.values()
    for kind in (1, 2, 3):
        own = rows.where(rows.kinds == kind)
        by_hand = [soft_map_by_hand(own, step, soft) for step in range(3)]
        found = (values.soft_map if soft else values.map)[kind]
        np.testing.assert_allclose(found, by_hand, atol=2e-3)
    assert (values.soft_map[1:] >= values.map[1:] - 1e-12).all()


SCENES = made("usual")[:12]


@settings(max_examples=20)
@given(order=st.permutations(range(12)), cuts=st.lists(st.integers(0, 12), max_size=3))
def test_values_are_the_same_bits_however_scenes_are_ordered_and_split(order, cuts):
    bounds = [0, *sorted(cuts), 12]
    ranks = []
    for start, end in itertools.pairwise(bounds):
        rank = MotionMetrics()
        for place in order[start:end]:
            rank.add(*SCENES[place])
        ranks.append(rank)
    whole = MotionMetrics()
    for rank in ranks:
        whole.merge(rank.state_dict())
    expected = values_on(SCENES)
    for name in (*NAMES, "agents", "measured"):
        np.testing.assert_array_equal(getattr(whole.values(), name), getattr(expected, name))


def test_a_scene_that_two_ranks_have_counts_once():
    one, two = MotionMetrics(), MotionMetrics()
    for place in (0, 1):
        one.add(*SCENES[place])
    for place in (1, 2):
        two.add(*SCENES[place])
    one.merge(two)
    np.testing.assert_array_equal(one.values().min_ade, values_on(SCENES[:3]).min_ade)


def test_a_state_that_is_loaded_replaces_what_was_there():
    metrics, other = MotionMetrics(), MotionMetrics()
    metrics.add(*SCENES[0])
    other.add(*SCENES[1])
    metrics.load_state_dict(other.state_dict())
    np.testing.assert_array_equal(metrics.values().map, values_on(SCENES[1:2]).map)
    with pytest.raises(ValueError, match="rules: merges"):
        MotionMetrics(BEFORE_MARCH_2024).load_state_dict(other.state_dict())


def test_an_absent_kind_and_one_that_cannot_be_measured_are_told_apart():
    absent, unseen_ = values_on(made("no cyclist")), values_on(made("pedestrians unseen"))
    assert np.isnan(absent.map[3]).all()
    assert absent.agents[3] == 0
    assert np.isnan(unseen_.map[2]).all()
    assert np.isnan(unseen_.min_ade[2]).all()
    assert unseen_.agents[2] == 10
    assert (unseen_.measured[2] == 0).all()
    assert "cyclist" not in absent.table()
    assert absent.headline()["min_ade"] == pytest.approx(np.mean(absent.min_ade[1:3]))


def test_rows_tell_speed_range_and_points_to_choose_by():
    scene, trajectories, scores = SCENES[0]
    counts = np.zeros((len(scene.targets), scene.now + 1), int)
    counts[1, [2, 5]] = 3, 4
    points = Points(np.zeros((7, 6)), counts, np.zeros((scene.now + 1, 3)))
    seen = scene.valid.copy()
    seen[scene.ego, scene.now], seen[scene.targets[2], scene.now] = True, False
    rows = measure(replace(scene, points=points, valid=seen), trajectories, scores)
    assert rows.points.tolist() == [0, 7, 0, 0, 0, 0]
    now = scene.states[:, scene.now]
    assert rows.speeds[0] == pytest.approx(np.hypot(now[0, 7], now[0, 8]))
    away = now[1, :2] - scene.states[scene.ego, scene.now, :2]
    assert rows.ranges[1] == pytest.approx(np.hypot(*away))
    assert np.isnan([rows.speeds[2], rows.ranges[2]]).all()
    without = measure(replace(scene, ego=None), trajectories, scores)
    assert np.isnan(without.ranges).all()
    assert (without.points == -1).all()
    far = values_of(rows.where(rows.ranges > np.nanmedian(rows.ranges)))
    assert far.agents.sum() == (rows.ranges > np.nanmedian(rows.ranges)).sum()


def test_only_the_first_six_modes_count():
    scene, trajectories, scores = made("eight modes")[0]
    few = measure(scene, trajectories[:, :6], scores[:, :6])
    for name in ("min_ade", "min_fde", "miss", "matched", "scores"):
        np.testing.assert_array_equal(
            getattr(measure(scene, trajectories, scores), name), getattr(few, name)
        )


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_the_truth_as_one_prediction_is_perfect(scale):
    """Scores need not be probabilities, nor modes be six."""
    values = values_on(
        [
            (scene, trajectories, scores)
            for scene in (scene_of(seed, gaps=0.0) for seed in range(5))
            for at in [scene.now + 5 * np.arange(1, 17)]
            for trajectories in [scene.states[scene.targets][:, None, at, :2]]
            for scores in [np.full((len(scene.targets), 1), scale)]
        ]
    )
    known = values.measured > 0
    assert known[1:].all()
    assert values.min_ade[known].max() < 1e-12
    assert values.miss_rate[known].max() == 0
    assert values.map[known].min() == values.soft_map[known].min() == 1


@pytest.mark.parametrize(
    ("speed", "inside"), [(0.0, 0.5), (1.4, 0.5), (6.2, 0.75), (11.0, 1.0), (30.0, 1.0)]
)
def test_thresholds_grow_with_speed(speed, inside):
    scene = scene_of(3, kinds=(1,), targets=1, gaps=0.0)
    states = scene.states.copy()
    states[0] = 0.0
    states[0, :, 7] = speed
    scene = replace(scene, states=states, valid=np.ones_like(scene.valid))
    for axis, threshold in ((0, np.array([2.0, 3.6, 6.0])), (1, np.array([1.0, 1.8, 3.0]))):
        for times, missed in ((0.999, 0.0), (1.001, 1.0)):
            trajectories = np.zeros((1, 1, 16, 2))
            trajectories[0, 0, [5, 9, 15], axis] = threshold * inside * times
            np.testing.assert_array_equal(
                measure(scene, trajectories, np.ones((1, 1))).miss, [[missed] * 3]
            )


def test_what_does_not_fit_is_refused_and_leaves_nothing():
    metrics, (scene, trajectories, scores) = MotionMetrics(), SCENES[0]
    bad = trajectories.copy()
    bad[1, 2, 3, 0] = np.nan
    with pytest.raises(ValueError, match=r"trajectories\[1, 2, 3, 0\] is nan"):
        metrics.add(scene, bad, scores)
    with pytest.raises(ValueError, match="trajectories has shape"):
        metrics.add(scene, trajectories[:, :, :15], scores)
    with pytest.raises(ValueError, match="scores has shape"):
        metrics.add(scene, trajectories, scores[:, :5])
    with pytest.raises(ValueError, match="80 steps after now; 80 predicted points"):
        metrics.add(scene, np.repeat(trajectories, 5, axis=2), scores)
    assert metrics.values().agents.sum() == 0
    metrics.add(scene, trajectories, scores)
    with pytest.raises(ValueError, match="added already"):
        metrics.add(scene, trajectories, scores)
    assert metrics.values().agents.sum() == len(scene.targets)


def test_a_scene_without_targets_adds_nothing():
    scene = replace(scene_of(1), targets=np.zeros(0, np.int64))
    metrics = MotionMetrics()
    metrics.add(scene, np.zeros((0, 6, 16, 2)), np.zeros((0, 6)))
    assert metrics.values().agents.sum() == 0
    assert np.isnan(metrics.values().headline()["map"])


def test_rules_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="rising"):
        Rules(steps=(9, 5, 15))
    with pytest.raises(ValueError, match="slow"):
        Rules(slow=12.0)


@pytest.mark.slow
def test_two_ranks_say_what_one_does(tmp_path):
    ended = on_ranks(measure_together, str(tmp_path))
    assert [one.returncode for one in ended] == [0, 0], ended
    expected = values_on(scenes()).headline()
    for rank in range(2):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == expected
