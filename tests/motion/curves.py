"""Scenes made up for tests: agents on curves, seen with gaps, lanes, points on the targets."""

import numpy as np
import torch

from regrow.motion.batches import collate
from regrow.motion.features import Featurer
from regrow.motion.scene import LINES, Points, Scene

NOW, STEPS = 10, 91


def scene(
    seed=0, *, agents=5, targets=2, kinds=None, lanes=4, points=0, steps=STEPS, missing=0.0, now=NOW
):
    """Return a scene; ``points`` LiDAR points on each target and frame, fewer in some."""
    rng = np.random.default_rng(seed)
    times = np.arange(steps) / 10
    speed, heading = rng.uniform(1, 12, agents), rng.uniform(-3, 3, agents)
    bend = rng.normal(0, 0.1, agents)
    course = heading[:, None] + bend[:, None] * times
    velocity = speed[:, None, None] * np.stack([np.cos(course), np.sin(course)], -1)
    states = np.zeros((agents, steps, 9))
    states[..., :2] = rng.uniform(-20, 20, (agents, 1, 2)) + np.cumsum(velocity, 1) / 10
    states[..., 2] = 1.0
    states[..., 3:6] = rng.uniform(0.5, 4, (agents, 1, 3))
    states[..., 6], states[..., 7:] = course, velocity
    valid = rng.random((agents, steps)) >= missing
    valid[:, now] = True
    states[~valid] = np.nan  # what is not valid may hold anything
    lengths = rng.integers(3, 60, lanes)
    line = [
        rng.uniform(-40, 40, 3) + np.outer(np.arange(n) * 0.5, [np.cos(a), np.sin(a), 0])
        for n, a in zip(lengths, rng.uniform(-3, 3, lanes), strict=True)
    ]
    numbers = list(LINES.values())
    return Scene(
        f"made-{seed}",
        times,
        now,
        np.arange(agents) + 100,
        np.asarray(kinds if kinds is not None else rng.integers(1, 4, agents)),
        states,
        valid,
        np.arange(targets),
        ego=agents - 1,
        line_points=np.concatenate([np.zeros((0, 3)), *line]),
        line_lengths=np.asarray(lengths, dtype=np.int64),
        line_kinds=np.asarray(numbers)[rng.integers(0, len(numbers), lanes)],
        points=cloud(rng, targets, now + 1, points, valid) if points else None,
    )


def cloud(rng, targets, frames, points, valid):
    """Return points on a body, none where its target is not valid."""
    counts = rng.integers(0, points + 1, (targets, frames)) * valid[:targets, :frames]
    values = rng.normal(0, 1, (int(counts.sum()), 6))
    return Points(values, counts, np.zeros((frames, 3)))


def batch(scenes, **how):
    """Return inputs and targets of scenes."""
    featurer = Featurer(**how)
    return collate([featurer(one) for one in scenes])


def inputs(n=3, agents=5, polylines=24, seed=0, past=11, lidar=None, valid=0.7):
    """Return random inputs of a network; ``lidar``: frames, points and channels."""
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape, scale=5.0):
        return torch.randn(shape, generator=draw) * scale

    def some(*shape):
        return torch.rand(shape, generator=draw) < valid

    found = {
        "agents": normal(n, agents, past, 18 + past),
        "agents_valid": some(n, agents, past),
        "map": normal(n, polylines, 20, 9),
        "map_valid": some(n, polylines, 20),
        "centre": torch.randint(agents, (n,), generator=draw),
        "kind": torch.randint(1, 4, (n,), generator=draw),
    }
    found["agents_valid"][torch.arange(n), found["centre"], -1] = True
    found["map"][..., 6] = torch.randint(-1, 21, (n, polylines, 1), generator=draw)
    if lidar is not None:
        frames, points, channels = lidar
        found["lidar"] = normal(n, frames, points, channels, scale=1.0)
        found["lidar_valid"] = some(n, frames, points)
    for name in ("agents", "map", "lidar"):
        if name in found:
            found[name] = found[name] * found[f"{name}_valid"][..., None]
    return found


SIZES = {1: (4.5, 2.0, 1.6), 2: (0.7, 0.7, 1.8), 3: (1.8, 0.7, 1.7), 0: (1.0, 1.0, 1.0)}
SPEEDS = {1: 14.0, 2: 1.8, 3: 6.0, 0: 3.0}


def curve(rng, kind, steps, now, room=60.0):
    """Return the states of an agent with constant turn rate and acceleration, float32 exact."""
    time = (np.arange(steps) - now) * 0.1
    slow = rng.random() < 0.2
    speed = SPEEDS[kind] * rng.random() * (0.05 if slow else 1.0)
    turn = rng.choice([0.0, 0.02, -0.02, 0.25, -0.25, 0.5, -0.5]) * (0.5 + rng.random())
    heading = (rng.random() * 2 - 1) * np.pi + turn * time
    pace = np.maximum(speed + (rng.random() - 0.4) * speed * 0.1 * time, 0.0)
    velocity = pace[:, None] * np.stack([np.cos(heading), np.sin(heading)], axis=1)
    place = np.cumsum(velocity * 0.1, axis=0)
    place += (rng.random(2) - 0.5) * room - place[now]
    states = np.zeros((steps, 9))
    states[:, :2], states[:, 7:] = place, velocity
    states[:, 3:6] = np.array(SIZES[kind]) * (0.9 + 0.2 * rng.random())
    states[:, 6] = (heading + np.pi) % (2 * np.pi) - np.pi
    return states.astype(np.float32).astype(float)


def lines_of(rng, kinds=("street", "road edge", "crosswalk", "driveway", "stop sign")):
    """Return points, lengths and kinds of some map lines."""
    lengths = [1 if kind == "stop sign" else 2 + int(rng.random() * 30) for kind in kinds]
    starts = [(rng.random(3) - 0.5) * [80, 80, 1] for _ in kinds]
    step = [0.5, 0.2, 0.0]
    points = [
        start + np.arange(n)[:, None] * step for start, n in zip(starts, lengths, strict=True)
    ]
    return np.concatenate(points), np.array(lengths), np.array([LINES[kind] for kind in kinds])


def scene_of(seed, kinds=(1, 1, 1, 2, 2, 3, 3, 1), targets=6, steps=91, now=10, gaps=0.15):
    """Return a scene of agents of these kinds, of which the first ones are targets."""
    rng = np.random.default_rng(seed)
    states = np.stack([curve(rng, kind, steps, now) for kind in kinds])
    valid = rng.random((len(kinds), steps)) > gaps
    valid[:targets, now] = True
    for agent in range(len(kinds)):  # some are lost for good
        if rng.random() < 0.3:
            valid[agent, now + 1 + int(rng.random() * (steps - now - 1)) :] = False
    points, lengths, line_kinds = lines_of(rng)
    return Scene(
        name=f"made-{seed}",
        times=np.arange(steps) * 0.1,
        now=now,
        ids=np.arange(len(kinds)) * 7 + 100,
        kinds=np.array(kinds),
        states=np.where(valid[..., None], states, 0.0),
        valid=valid,
        targets=np.arange(targets),
        ego=len(kinds) - 1,
        line_points=points,
        line_lengths=lengths,
        line_kinds=line_kinds,
    )


def predictions_of(scene, seed, modes=6, points=16, every=5):
    """Return trajectories around the truth, or the present velocity, and scores with ties."""
    rng = np.random.default_rng(seed)
    at = scene.now + every * np.arange(1, points + 1)
    own, seen = scene.states[scene.targets], scene.valid[scene.targets]
    ahead = np.arange(1, points + 1)[:, None] * every * 0.1
    straight = own[:, [scene.now], :2] + own[:, [scene.now], 7:] * ahead
    truth = np.where(seen[:, at, None], own[:, at, :2], straight)
    drift = (rng.random((len(own), modes, 1, 2)) - 0.5) * ahead * 1.2
    noise = (rng.random((len(own), modes, points, 2)) - 0.5) * 0.4
    scores = np.round(rng.random((len(own), modes)) * 8) / 8 + 0.125
    trajectories = (truth[:, None] + drift + noise).astype(np.float32)
    return trajectories, scores.astype(np.float32)
