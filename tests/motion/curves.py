"""Scenes made up for tests: agents that drive and walk curves, seen with gaps."""

import numpy as np

from regrow.motion.scene import LINES, Scene

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
