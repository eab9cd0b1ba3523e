"""Scenes made up for tests: agents on curves, lanes around them, points on the targets.

And real ones, where they are at hand.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from regrow.motion.batches import collate
from regrow.motion.features import Featurer
from regrow.motion.scene import LINES, Points, Scene

NOW, STEPS = 10, 91


def argoverse(*parts):
    """Return the path of real files of Argoverse 2; a test is skipped where it cannot read them."""
    path = Path(os.environ.get("REGROW_DATA", "nowhere")).joinpath("av2", *parts)
    if not path.exists():
        pytest.skip(f"needs Argoverse 2's {'/'.join(parts)} in $REGROW_DATA/av2")
    pytest.importorskip("pyarrow", reason="needs the extra regrow[motion]")
    return path


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
