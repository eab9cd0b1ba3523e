"""The LiDAR: all rays that count, points on surfaces and in boxes, as many as real ones."""

import numpy as np
import pytest

from regrow.motion.simulator.bodies import LEFT, car, cyclist, pedestrian
from regrow.motion.simulator.rays import ground_hits, hits
from regrow.motion.simulator.sensor import Sensor

EXACT = Sensor(noise=0.0, lost=0.0, most=100_000)
ORIGIN = np.array([2.0, -1.0, 2.2])


def _crowd():
    """Return a pedestrian behind a car, a cyclist, the car; and their boxes."""
    places = np.array([[14.0, 3.0, 0], [9.0, -6.0, 0], [9.0, 1.0, 0], [4.0, 2.5, 0]])[:, None]
    yaw, none = np.array([0.4]), np.zeros(1)
    sizes = np.array([(0.9, 0.85, 1.75), (1.8, 0.85, 1.75), (4.5, 1.9, 1.1), (0.9, 0.85, 1.75)])
    bodies = [
        pedestrian(places[0], yaw, yaw, none),
        cyclist(places[1], yaw, none, LEFT),
        car(places[2], yaw, sizes[2]),
        pedestrian(places[3], yaw, yaw, none),
    ]
    middles = places[:, 0] + sizes * (0, 0, 0.5)
    return bodies, np.concatenate([middles, sizes, np.full((4, 1), 0.4)], 1)


def _all_rays(sensor, facing):
    columns = facing + 2 * np.pi / sensor.columns * np.arange(sensor.columns)
    up, around = np.meshgrid(sensor.elevations, columns, indexing="ij")
    rays = [np.cos(up) * np.cos(around), np.cos(up) * np.sin(around), np.sin(up)]
    return np.stack(rays, -1).reshape(-1, 3)


def _sorted(points):
    return points[np.lexsort(points.T.round(6))]


@pytest.mark.parametrize("target", range(4))
@pytest.mark.parametrize("facing", [0.0, -2.5])
def test_no_ray_is_missed_and_nothing_is_seen_through(target, facing):
    bodies, boxes = _crowd()
    found = EXACT.look(target, bodies, boxes, ORIGIN, facing, 0, np.random.default_rng(0))
    rays = _all_rays(EXACT, facing)
    ranges = np.min([hits(rays, ORIGIN, body, 0) for body in bodies], axis=0)
    ranges = np.minimum(ranges, ground_hits(rays, ORIGIN[2]))
    met = np.isfinite(ranges)
    points = ORIGIN + rays[met] * ranges[met, None] - boxes[target, :3]
    cos, sin = np.cos(0.4), np.sin(0.4)
    own = np.abs(points @ np.array([(cos, -sin, 0), (sin, cos, 0), (0, 0, 1)]))
    inside = (own <= boxes[target, 3:6] / 2 + EXACT.margin).all(1)
    wanted = np.concatenate([points[inside], ranges[met][inside, None]], 1)
    assert len(wanted) > 50
    np.testing.assert_allclose(_sorted(found), _sorted(wanted), atol=1e-9)


def test_points_lie_on_surfaces_within_noise():
    bodies, boxes = _crowd()
    sensor = Sensor(noise=0.01, lost=0.0)
    found = sensor.look(1, bodies, boxes, ORIGIN, 0.0, 0, np.random.default_rng(0))
    points = found[:, :3] + boxes[1, :3]
    rays = points - ORIGIN
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    true = np.minimum(hits(rays, ORIGIN, bodies[1], 0), ground_hits(rays, ORIGIN[2]))
    # The range is that of the point; it differs from the surface's by the noise.
    np.testing.assert_allclose(np.linalg.norm(points - ORIGIN, axis=1), found[:, 3])
    errors = found[:, 3] - true
    assert np.abs(errors).max() < 0.06
    assert errors.std() == pytest.approx(0.01, rel=0.15)


def test_who_stands_behind_a_car_loses_the_legs_only():
    bodies, boxes = _crowd()
    free = EXACT.look(0, bodies[:1], boxes[:1], ORIGIN, 0.0, 0, np.random.default_rng(0))
    behind = EXACT.look(0, bodies, boxes, ORIGIN, 0.0, 0, np.random.default_rng(0))
    assert 0 < len(behind) < len(free)
    high = free[:, 2] > 0.3
    np.testing.assert_allclose(_sorted(behind[behind[:, 2] > 0.3]), _sorted(free[high]))
    assert behind[:, 2].min() > free[:, 2].min() + 0.2


@pytest.mark.parametrize(("metres", "real"), [(15, 154), (25, 56), (40, 21)])
def test_as_many_points_on_a_pedestrian_as_on_real_ones(metres, real):
    counts = []
    for seed in range(20):
        draw = np.random.default_rng(seed)
        place, yaw = np.array([[metres, 0.0, 0]]), draw.uniform(-3, 3, 1)
        box = np.array([[metres, 0, 0.875, 0.9, 0.85, 1.75, draw.uniform(-3, 3)]])
        body = pedestrian(place, yaw, yaw, np.zeros(1))
        found = Sensor().look(0, [body], box, np.array([0, 0, 2.2]), draw.uniform(), 0, draw)
        counts.append(len(found))
    assert real / 2 < np.mean(counts) < real * 2


def test_the_share_of_lost_rays_and_the_cap_on_points_hold():
    bodies, boxes = _crowd()

    def count(**options):
        sensor = Sensor(**options)
        draw = np.random.default_rng(1)
        return len(sensor.look(2, bodies, boxes, ORIGIN, 0.0, 0, draw))

    whole = count(lost=0.0, most=9999)
    assert whole > 1000
    assert count(lost=0.3, most=9999) / whole == pytest.approx(0.7, abs=0.05)
    assert count(lost=0.0, most=100) == 100


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"beams": 1}, "beams=1"),
        ({"lowest": 5.0}, "lowest=5.0"),
        ({"highest": 90.0}, "highest=90.0"),
        ({"columns": 0}, "columns=0"),
        ({"height": 0.0}, "height=0.0"),
        ({"noise": -1.0}, "noise=-1.0"),
        ({"lost": 1.0}, "lost=1.0"),
        ({"margin": float("nan")}, "margin=nan"),
        ({"most": 0}, "most=0"),
    ],
)
def test_a_sensor_that_cannot_be_is_refused(options, said):
    with pytest.raises(ValueError, match=said):
        Sensor(**options)
