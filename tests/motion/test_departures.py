"""Paths as departures: who says nothing goes on, or straight to where a query stands."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from regrow.motion import SIZES, LidarShape, MotionTransformer
from regrow.motion.batches import collate
from regrow.motion.departures import steady
from regrow.motion.features import Featurer
from regrow.motion.scene import Scene
from tests.motion.made import inputs

STEPS = 80


def silent(**changes):
    """A network whose heads say nothing but zeros."""
    torch.manual_seed(0)
    model = MotionTransformer(replace(SIZES["tiny"], decoder_layers=2, **changes)).eval()
    model.decoder.intentions.normal_(0, 20)
    for head in (*model.decoder.regression, model.decoder.dense.head):
        last = [m for m in head.modules() if isinstance(m, nn.Linear)][-1]
        nn.init.zeros_(last.weight), nn.init.zeros_(last.bias)
    return model


def moving(step, past, velocity=(3.0, -1.0), turn=0.7):
    """A scene of two who go straight on, the second of whom was not seen in the last two steps."""
    t = np.arange(past + STEPS)[None, :, None] * step
    states = np.zeros((2, past + STEPS, 9))
    states[..., :2] = np.array([[[5.0, 2.0]], [[9.0, 4.0]]]) + t * np.array(velocity)
    states[..., 6], states[..., 7:] = turn, velocity
    valid = np.ones((2, past + STEPS), bool)
    valid[1, past - 2 : past] = False
    times, ids = np.arange(past + STEPS) * step, np.array([1, 2])
    return Scene("on", times, past - 1, ids, np.array([2, 2]), states, valid, np.array([0]))


@pytest.mark.parametrize(("step", "past"), [(0.1, 11), (0.4, 8), (0.1, 3)])
def test_who_says_nothing_predicts_that_all_go_on(step, past):
    """What the future is, of a scene in which they do; at any step and any length of the past."""
    scene = moving(step, past)
    given, targets = collate([Featurer(past=past)(scene)])
    moves = steady(given["agents"], given["agents_valid"], given["centre"])
    assert moves.seconds.item() == pytest.approx(step)
    model = silent(past=past)
    with torch.no_grad():
        found = model(given)
    dense, future = found.dense[0, 0], targets["future"][0]
    torch.testing.assert_close(dense[:, :2], future[:, :2], atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(dense[:, 5:], future[:, 2:], atol=1e-4, rtol=1e-4)
    # The other one's place was last seen two steps ago.
    late = found.dense[0, 1, :, :2] + 2 * step * moves.velocity[0, 1]
    torch.testing.assert_close(late, targets["others"][0, 1, :, :2], atol=1e-3, rtol=1e-4)


def test_who_says_nothing_predicts_straight_lines_to_the_intention_points():
    scenes = [moving(0.1, 11), moving(0.2, 11, velocity=(0.0, 8.0))]
    given, _ = collate([Featurer()(scene) for scene in scenes])
    model = silent()
    with torch.no_grad():
        found = model(given)
        whole = silent(departs=False)(given)
    moves = steady(given["agents"], given["agents_valid"], given["centre"])
    ends = found.intentions
    for layer in found.trajectories:
        torch.testing.assert_close(layer[..., -1, :2], ends)
        torch.testing.assert_close(layer[..., STEPS // 2 - 1, :2], ends / 2)
        speed = ends / (STEPS * moves.seconds[:, None])
        same = speed[:, :, None].expand_as(layer[..., 5:])
        torch.testing.assert_close(layer[..., 5:], same, atol=1e-4, rtol=1e-4)
    assert not whole.trajectories.any()


def test_each_layer_departs_from_the_path_of_the_layer_before():
    """Its gradient stays its own: the layer before is not asked to please the next."""
    model, given = silent(), inputs(n=2)
    first = [m for m in model.decoder.regression[0].modules() if isinstance(m, nn.Linear)][-1]
    with torch.no_grad():
        first.bias[0] = 2.5  # x of the first step
    found = model(given)
    line = found.intentions / STEPS
    for layer in found.trajectories:
        torch.testing.assert_close(layer[..., 0, 0], line[..., 0] + 2.5)
    found.trajectories[1].sum().backward()
    assert first.bias.grad is None or not first.bias.grad.any()


def test_one_step_tells_no_seconds_and_nothing_is_infinite():
    given, _ = collate([Featurer(past=1)(moving(0.1, 3))])
    model = silent(past=1)
    with torch.no_grad():
        found = model(given)
    assert all(part.isfinite().all() for part in found)
    assert not found.trajectories[..., 5:].any()


def test_lidar_among_the_keys_does_not_move():
    lidar = LidarShape(hidden=16, keys=True)
    model = silent(lidar=lidar)
    with torch.no_grad():
        found = model(inputs(n=2, lidar=(3, 6, 9)))
    assert all(part.isfinite().all() for part in found)


def test_who_says_nothing_prefers_the_query_nearest_to_where_going_on_leads():
    """Whatever the speed, and the more surely the nearer."""
    scenes = [moving(0.1, 11, velocity=(v, 0.0), turn=0.0) for v in (0.0, 1.0, 3.0)]
    given, _ = collate([Featurer()(scene) for scene in scenes])
    model = silent()
    for head in model.decoder.classification:
        last = [m for m in head.modules() if isinstance(m, nn.Linear)][-1]
        nn.init.zeros_(last.weight), nn.init.zeros_(last.bias)
    points = torch.linspace(0, 30, 16)
    model.decoder.intentions.copy_(torch.stack([points, torch.zeros(16)], 1))
    with torch.no_grad():
        scores = model(given).scores
    assert points[scores[-1].argmax(1)].tolist() == [0.0, 8.0, 24.0]
    assert torch.equal(scores[0], scores[1])
    rest, walk = scores[-1][0], scores[-1][1]
    assert (rest.diff() < 0).all() and (walk[4:].diff() < 0).all() and (walk[:5].diff() > 0).all()
