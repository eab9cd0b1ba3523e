"""What tells of the intent: the LiDAR, less with distance, not when shuffled; nothing else.

A random forest guesses from moments of the points, height by height, pooled over frames.
"""

from functools import cache
from itertools import pairwise

import numpy as np
import pytest

from regrow.motion.simulator import Sensor, World, simulate
from regrow.motion.simulator.bodies import cyclist, pedestrian

pytest.importorskip("sklearn")
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.model_selection import cross_val_predict

HEIGHTS = np.array([-0.85, -0.75, -0.45, -0.15, 0.15, 0.45, 0.62, 0.9])  # above the ground


def moments(points):
    """Return share, means and covariance of points in each slice of height."""
    found = []
    for low, high in pairwise(HEIGHTS):
        part = points[(points[:, 2] >= low) & (points[:, 2] < high), :2]
        if len(part) < 3:
            found.append([len(part) / max(len(points), 1), 0, 0, 0, 0, 0])
            continue
        spread = np.cov(part.T)
        found.append([len(part) / len(points), *part.mean(0), *spread[np.triu_indices(2)]])
    return np.ravel(found)


def turned(points, angle):
    """Return points as seen along an angle: x is along it."""
    cos, sin = np.cos(angle), np.sin(angle)
    return points @ np.array([(cos, -sin, 0), (sin, cos, 0), (0, 0, 1)])


def guessed(features, labels, seed=0, groups=5):
    """Return how many labels a random forest that has not seen them guesses."""
    forest = RandomForestClassifier(100, random_state=seed)
    return float((cross_val_predict(forest, features, labels, cv=groups) == labels).mean())


def sure(chance, count):
    """Return what a guess at chance stays below, but for once in tens of thousands."""
    return chance + 4 * np.sqrt(chance * (1 - chance) / count)


# ---------------------------------------------------------------------- one body, one distance


def body_sample(cue, metres, frames, seed):
    """Return moments of a body that shows a cue, and the cue; the box has a heading of its own."""
    draw = np.random.default_rng((seed, int(metres)))
    ways = {"body": 4, "head": 2, "arm": 3}[cue]
    label, away = int(draw.integers(ways)), draw.uniform(-np.pi, np.pi)
    place = np.tile([metres * np.cos(away), metres * np.sin(away), 0.0], (1, 1))
    scale, none = draw.normal(1, 0.05), np.zeros(1)
    if cue == "arm":
        course = away + draw.uniform(-0.6, 0.6, 1)
        body, heading = cyclist(place, course, draw.uniform(0, 6, 1), label, scale), course[0]
        size, frame = (1.8, 0.85, 1.75 * scale), heading
    else:
        yaw = away + label * np.pi / 2 + draw.normal(0, 0.17, 1) if cue == "body" else away + none
        head = yaw + (1.05 * (1, -1)[label] if cue == "head" else 0) + draw.normal(0, 0.14, 1)
        body, heading = pedestrian(place, yaw, head, none, scale), draw.uniform(-np.pi, np.pi)
        size, frame = (0.9, 0.85, 1.75 * scale), away
    box = np.array([[*place[0, :2], size[2] / 2, *size, heading]])
    origin = np.array([0, 0, 2.2])
    seen = [
        Sensor().look(0, [body], box, origin, draw.uniform(), 0, draw)[:, :3] for _ in range(frames)
    ]
    return moments(turned(np.concatenate(seen), frame)), label


@cache
def told(cue, metres, count, frames=3):
    """Return how often a cue is guessed at a distance."""
    features, labels = zip(
        *(body_sample(cue, metres, frames, seed) for seed in range(count)), strict=True
    )
    return guessed(np.array(features), np.array(labels))


def test_near_bodies_tell_and_far_arms_hardly_do():
    assert told("body", 8, 100) > 0.9
    assert told("arm", 15, 100) > 0.8
    assert told("arm", 60, 100) < told("arm", 15, 100) - 0.2


@pytest.mark.long
def test_what_a_body_tells_falls_with_distance():
    """Measured at 8, 15, 25, 40 m: body 1 to .98, head 1 to .84, arm .98 to .83."""
    table = {
        cue: [told(cue, metres, 400, 4) for metres in (8, 15, 25, 40)]
        for cue in ("body", "head", "arm")
    }
    print(table)
    assert min(table["body"]) > 0.85
    assert table["head"][1] > 0.8
    assert table["head"][3] > sure(0.5, 400)
    assert table["arm"][1] > 0.9
    for each in table.values():
        assert all(near > far - 0.05 for near, far in pairwise(each))
    assert table["head"][3] < table["head"][0] - 0.1
    assert table["arm"][3] < table["arm"][0] - 0.1


# ---------------------------------------------------------------------- whole scenes

NEAR = World(reliability=1.0, near=5.0, far=25.0, vehicles=0, others=0, limited=0.0)


def whole(count, world=NEAR):
    """Return, for each story, box tracks, moments of points, and intents, of all targets."""
    found = {"stand": [], "walk": [], "ride": []}
    for seed in range(count):
        scene, truths = simulate(seed, world)
        # The roads, up to quarter turns, which the intent of those who stand is told from.
        road = scene.line_points[1, :2] - scene.line_points[0, :2]
        middle = np.median(scene.line_points[:, :2], axis=0)
        roads = np.arctan2(road[1], road[0])
        for row, (target, truth) in enumerate(zip(scene.targets, truths, strict=True)):
            states = scene.states[target, : scene.now + 1].astype(float)
            way = scene.states[target, -1, :2] - states[-1, :2]
            frame, intent = (
                (roads, int(np.round((np.arctan2(way[1], way[0]) - roads) / (np.pi / 2)) % 4))
                if truth.story == "stand"
                else (np.median(np.unwrap(states[:, 6])), truth.intent)
            )
            flat = np.c_[states[:, :2] - states[-1, :2], np.zeros(len(states))]
            speeds = np.c_[states[:, 7:], np.zeros(len(states))]
            there = turned(np.array([[*(states[-1, :2] - middle), 0]]), frame)
            headings = states[:, 6] - frame
            track = np.concatenate(
                [
                    turned(flat, frame)[:, :2].ravel(),
                    turned(speeds, frame)[:, :2].ravel(),
                    np.cos(headings),
                    np.sin(headings),
                    states[-1, 3:6],
                    there.ravel(),
                ]
            )
            clouds = [scene.points.of(row, k)[:, :3] for k in range(scene.now + 1)]
            sight = states[-1, :2] - scene.points.sensor[-1, :2]
            seen = np.arctan2(sight[1], sight[0]) - frame
            lidar = moments(turned(np.concatenate(clouds[-4:]).astype(float), frame))
            lidar = np.r_[lidar, np.cos(seen), np.sin(seen)]
            future = turned(
                np.array([[*scene.states[target, scene.now + 1, :2], 0]]) - [[*states[-1, :2], 0]],
                frame,
            )[0, :2]
            found[truth.story].append((track, lidar, intent, future))
    return {
        story: [np.array(each) for each in zip(*rows, strict=True)] for story, rows in found.items()
    }


@pytest.fixture(scope="module")
def few():
    """As seen by a sensor of half the columns: what it finds is far above what is asked."""
    return whole(110, World(**{**vars(NEAR), "sensor": Sensor(columns=1325)}))


WAYS = {"stand": 4, "walk": 2, "ride": 3}


@pytest.mark.parametrize("story", WAYS)
def test_the_box_track_tells_nothing_and_the_points_do(few, story):
    track, lidar, intents, _ = few[story]
    chance = 1 / WAYS[story]
    assert len(intents) > 120
    assert guessed(track, intents) < sure(chance, len(intents))
    assert guessed(lidar, intents) > sure(chance, len(intents)) + 0.08


@pytest.mark.parametrize("story", WAYS)
def test_points_of_another_tell_nothing(few, story):
    _, lidar, intents, _ = few[story]
    others = np.roll(lidar, 1 + len(lidar) // 2, axis=0)
    assert guessed(others, intents) < sure(1 / WAYS[story], len(intents))


@pytest.mark.long
def test_points_of_a_cue_at_chance_tell_nothing():
    found = whole(60, World(**{**vars(NEAR), "reliability": 0.0}))
    for story, ways in WAYS.items():
        _, lidar, intents, _ = found[story]
        assert guessed(lidar, intents) < sure(1 / ways, len(intents))


def explained(inputs, residuals):
    """Return the share of a spread that a random forest explains which has not seen it."""
    forest = RandomForestRegressor(100, min_samples_leaf=3, random_state=0)
    left = residuals - cross_val_predict(forest, inputs, residuals, cv=5)
    return 1 - (left**2).sum() / ((residuals - residuals.mean(0)) ** 2).sum()


def beyond_track(track, future):
    """Return what a linear model of the track does not know of the next place."""
    design = np.c_[track, np.ones(len(track))]
    weights = np.linalg.lstsq(
        design.T @ design + 1e-3 * np.eye(design.shape[1]), design.T @ future, rcond=None
    )[0]
    return future - design @ weights


@pytest.mark.parametrize("story", WAYS)
def test_no_input_tells_of_the_next_place_more_than_the_track(few, story):
    track, lidar, _, future = few[story]
    rest = beyond_track(track, future)
    assert explained(lidar, rest) < 0.05
    # The same check finds a leak, such as a gaze that is the direction to the next place.
    way = np.arctan2(*rest.T[::-1])
    assert explained(np.c_[lidar, np.cos(way), np.sin(way)], rest) > 0.3


@pytest.mark.long
def test_the_box_track_tells_nothing_of_a_thousand():
    found = whole(400)
    for story, ways in WAYS.items():
        track, lidar, intents, _ = found[story]
        figures = guessed(track, intents), guessed(lidar, intents)
        print(story, len(intents), figures)
        assert figures[0] < sure(1 / ways, len(intents))
        assert figures[1] > 1 / ways + 0.25
