"""Made-up scenes: one seed is one scene, and nothing but the cue tells of the intent."""

from dataclasses import replace

import numpy as np
import pytest

from regrow.motion.scene import KINDS
from regrow.motion.simulator import Sensor, World, simulate

QUICK = World(sensor=Sensor(beams=16, columns=400))  # few rays: what is tested is not seen by them
SEEDS = range(60)


@pytest.fixture(scope="module")
def scenes():
    return [simulate(seed, QUICK) for seed in SEEDS]


def _same(one, other):
    arrays = one.arrays(), other.arrays()
    return [name for name in arrays[0] if not np.array_equal(arrays[0][name], arrays[1][name])]


def test_one_seed_is_one_scene_in_any_order(scenes):
    for seed in (7, 3):
        scene, truths = simulate(seed, QUICK)
        assert _same(scene, scenes[seed][0]) == []
        assert truths == scenes[seed][1]
    assert _same(scenes[7][0], scenes[3][0])


def test_scenes_are_as_the_common_form_says(scenes):
    for scene, truths in scenes:
        assert scene.states.shape[1:] == (91, 9)
        assert scene.now == 10
        assert np.ptp(np.diff(scene.times)) < 1e-9
        assert scene.states.dtype == scene.points.values.dtype == np.float32
        assert len(truths) == len(scene.targets) > 0
        assert scene.ego == 0
        assert scene.ego not in scene.targets
        kinds = {"stand": 2, "walk": 2, "ride": 3, "drive": 1}
        assert [kinds[truth.story] for truth in truths] == scene.kinds[scene.targets].tolist()
        assert (np.abs(scene.states[..., 6]) <= np.pi).all()
        assert np.linalg.norm(np.diff(scene.states[..., :2], axis=1), axis=-1).max() < 1.2


def test_targets_are_at_the_wanted_distances_and_nobody_stands_in_another(scenes):
    for scene, _ in scenes:
        places = scene.states[:, scene.now, :2]
        ranges = np.linalg.norm(places[scene.targets] - places[0], axis=1)
        assert ranges.min() > QUICK.near - 0.2
        assert ranges.max() < QUICK.far + 0.2
        apart = np.linalg.norm(places[:, None] - places[None], axis=-1)
        assert apart[np.triu_indices(len(places), 1)].min() > 0.8


def test_distances_follow_near_and_far():
    far = replace(QUICK, near=30.0, far=60.0)
    for seed in range(20):
        scene, _ = simulate(seed, far)
        places = scene.states[:, scene.now, :2]
        ranges = np.linalg.norm(places[scene.targets] - places[0], axis=1)
        assert ranges.min() > 29.8
        assert ranges.max() < 60.2


def test_reliability_moves_cues_and_points_only(scenes):
    differ = 0
    for seed in range(20):
        scene, truths = simulate(seed, replace(QUICK, reliability=0.0))
        assert set(_same(scene, scenes[seed][0])) <= {"points_values", "points_counts"}
        for mine, other in zip(truths, scenes[seed][1], strict=True):
            assert replace(mine, cue=0) == replace(other, cue=0)
            differ += mine.cue != other.cue
    assert differ > 20


@pytest.mark.parametrize("reliability", [0.0, 0.5, 0.9, 1.0])
def test_a_cue_shows_the_intent_as_often_as_told(reliability):
    world = World(reliability=reliability, sensor=Sensor(beams=2, columns=8))
    seen = [t for seed in range(80) for t in simulate(seed, world)[1] if t.cue >= 0]
    for story, cues in (("stand", 4), ("walk", 2), ("ride", 3)):
        mine = [t for t in seen if t.story == story]
        free = [t.cue == t.intent for t in mine if t.ways > 1]
        wanted = max(reliability, 1 / cues)
        assert abs(np.mean(free) - wanted) <= 4 * np.sqrt(wanted * (1 - wanted) / len(free))
        # Where the map decides, the cue says nothing at any reliability.
        bound = [t.cue == t.intent for t in mine if t.ways == 1]
        spread = 4 * np.sqrt(1 / cues * (1 - 1 / cues) / max(len(bound), 1))
        assert not bound or abs(np.mean(bound) - 1 / cues) <= spread
        # All intents are as likely.
        counts = np.bincount([t.intent for t in mine if t.ways > 1], minlength=cues)
        assert np.abs(counts / len(free) - 1 / cues).max() < 4 * np.sqrt(0.25 / len(free))


def test_the_box_is_as_large_whatever_the_arm_does(scenes):
    """The size depends on the person and on noise, drawn apart from the cue."""
    chance = [simulate(seed, replace(QUICK, reliability=0.0))[0] for seed in range(20)]
    for other, (scene, _) in zip(chance, scenes, strict=False):
        assert np.array_equal(scene.states[..., 3:6], other.states[..., 3:6])
    riders = [
        (truth.cue, *scene.states[target, 0, 3:6])
        for scene, truths in scenes
        for target, truth in zip(scene.targets, truths, strict=True)
        if truth.story == "ride"
    ]
    cues, *sizes = np.array(riders).T
    for size in sizes:
        means = [size[cues == cue].mean() for cue in (0, 1, 2)]
        assert np.ptp(means) < 4 * size.std() / np.sqrt(len(size) / 3)


def test_the_next_step_says_nothing_of_the_intent(scenes):
    """Nobody turns or starts before 0.3 seconds from now: up to then all go on as before."""
    for scene, truths in scenes:
        for target, truth in zip(scene.targets, truths, strict=True):
            states = scene.states[target].astype(float)
            ahead = states[scene.now + 1 : scene.now + 4, :2]
            if truth.story == "stand":
                np.testing.assert_allclose(ahead, ahead[:1].repeat(3, 0), atol=1e-4)
            else:
                steps = np.diff(ahead, axis=0)
                np.testing.assert_allclose(steps[0], steps[1], atol=1e-4)


def test_intents_lead_to_different_places(scenes):
    ends = {}
    for scene, truths in scenes:
        for target, truth in zip(scene.targets, truths, strict=True):
            if truth.story == "ride":
                now, end = scene.states[target, scene.now], scene.states[target, -1]
                turned = (end[6] - now[6] + np.pi) % (2 * np.pi) - np.pi
                ends.setdefault(truth.intent, []).append(turned)
    for intent, turned in ends.items():
        # Who is slow has not turned all of the way in eight seconds.
        low, high = ((0.4, 1.8), (-0.3, 0.3), (-1.8, -0.4))[intent]
        assert low < min(turned)
        assert max(turned) < high
    assert len(ends) == 3


def test_others_are_in_the_way_and_not_predicted(scenes):
    assert any(len(scene.ids) > 1 + len(scene.targets) for scene, _ in scenes)
    for scene, _ in scenes:
        rest = set(range(1, len(scene.ids))) - set(scene.targets.tolist())
        assert all(KINDS[scene.kinds[i]] == "vehicle" for i in rest)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"reliability": 1.1}, "reliability=1.1"),
        ({"limited": float("nan")}, "limited=nan"),
        ({"pedestrians": -1}, "pedestrians=-1"),
        ({"cyclists": 9}, "cyclists=9"),
        ({"pedestrians": 0, "cyclists": 0, "vehicles": 0}, "all 0"),
        ({"near": 40.0}, "near=40.0, far=50.0"),
        ({"far": 100.0}, "far=100.0"),
    ],
)
def test_a_world_that_cannot_be_is_refused(options, said):
    with pytest.raises(ValueError, match=said):
        World(**options)


def test_a_bad_seed_is_refused():
    with pytest.raises(ValueError, match="seed=-1"):
        simulate(-1)
    with pytest.raises(TypeError, match="seed"):
        simulate(1.5)


def test_nobody_overlaps_with_others_that_leave():
    """Where those are that are not predicted does not depend on ways that they did not take."""
    world = replace(QUICK, others=4, limited=1.0)
    for seed in range(30):
        scene, _ = simulate(seed, world)
        states = scene.states[:, scene.now]
        apart = np.linalg.norm(states[:, None, :2] - states[None, :, :2], axis=-1)
        room = (states[:, None, 3] + states[None, :, 3]) / 2
        above = np.triu_indices(len(states), 1)
        assert (apart > room)[above].all()
