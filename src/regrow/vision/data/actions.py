"""Clips of one picture that moves: the motion is the label, and no single frame tells it."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["ACTIONS", "draw_poses", "render"]

# What each action does at a steady pace: right, down, clockwise, larger.
_STEADY = {
    "moves left": (-1, 0, 0, 0),
    "moves right": (1, 0, 0, 0),
    "moves up": (0, -1, 0, 0),
    "moves down": (0, 1, 0, 0),
    "turns clockwise": (0, 0, 1, 0),
    "turns counter-clockwise": (0, 0, -1, 0),
    "grows": (0, 0, 0, 1),
    "shrinks": (0, 0, 0, -1),
    "circles": (0, 0, 0, 0),
    "shakes": (0, 0, 0, 0),
}
ACTIONS = tuple(_STEADY)
"""The actions, in the order of their labels."""

_PACE = (0.7, 1.5)  # cycles in a clip
_CIRCLE = (0.12, 0.25)  # radius, as a share of the side
_SHAKE, _SHAKES = (0.06, 0.12), (3.0, 5.0)  # reach, as a share of the side; how often in a clip
_EXTENT = (0.4, 0.75)  # side of the picture, as a share of the clip's
_CHUNK = 200  # clips rendered at once


def draw_poses(labels: Tensor, frames: int, generator: torch.Generator) -> Tensor:
    """Draw where a picture is, how it is turned and how large it is, frame by frame.

    Every pose is start + motion(t) mod 1, with a start that is uniform in [0, 1)⁴. So in any one
    frame the pose is uniform, whatever the action: only their order tells it. Pace, radius, reach,
    direction and phase are random, too.

    Args:
        labels: int64, shape (n,): places in :data:`ACTIONS`.
        frames: of a clip, at least 2.
        generator: what is random.

    Returns:
        Float32, shape (n, frames, 4), in [0, 1): centre to the right and downwards, as shares of
        the side; turns clockwise; size, from the smallest to the largest.

    Raises:
        ValueError: there are fewer than 2 frames.

    Example:
        >>> left = torch.zeros(1, dtype=torch.int64)
        >>> poses = draw_poses(left, 8, torch.Generator().manual_seed(0))
        >>> steps = (poses[0, 1:, 0] - poses[0, :-1, 0]) % 1  # a little less than a whole round
        >>> bool((steps > 0.8).all()), poses[0, :, 3].unique().numel()
        (True, 1)
    """
    if frames < 2:
        raise ValueError(f"frames={frames}: must be at least 2, for an action takes time")
    n = len(labels)
    times = torch.arange(frames) / frames
    start = torch.rand(n, 1, 4, generator=generator)
    pace, radius, reach, often, phase, axis, side = torch.rand(7, n, 1, generator=generator)
    progress = _within(_PACE, pace) * times
    motion = torch.tensor([*_STEADY.values()], dtype=torch.float32)[labels].unsqueeze(1)
    poses = start + motion * progress.unsqueeze(2)
    turns = math.tau * (progress * (side - 0.5).sign() + phase)
    circle = _within(_CIRCLE, radius).unsqueeze(2) * torch.stack([turns.cos(), turns.sin()], 2)
    swing = _within(_SHAKE, reach) * (math.tau * (_within(_SHAKES, often) * times + phase)).sin()
    shake = torch.stack([(math.tau * axis).cos() * swing, (math.tau * axis).sin() * swing], 2)
    for name, moved in (("circles", circle), ("shakes", shake)):
        poses[..., :2] += moved * (labels == ACTIONS.index(name)).view(n, 1, 1)
    return poses % 1


def render(pictures: Tensor, poses: Tensor, size: int) -> Tensor:
    """Render clips: what leaves a clip on one side comes in on the other.

    Pictures are sampled bilinearly; nothing is smoothed where they become smaller.

    Args:
        pictures: uint8, shape (n, height, width): light on black.
        poses: shape (n, frames, 4), as of :func:`draw_poses`.
        size: side of a frame, in pixels, at least 1.

    Returns:
        uint8, shape (n, 1, frames, size, size).

    Raises:
        ValueError: there are not as many pictures as poses, or size is below 1.

    Example:
        >>> white = torch.full((1, 8, 8), 255, dtype=torch.uint8)
        >>> middle = torch.tensor([[[0.5, 0.5, 0.0, 0.0]]])
        >>> render(white, middle, 10)[0, 0, 0].ne(0).sum().item()  # 0.4 of each side
        16
    """
    if len(pictures) != len(poses):
        raise ValueError(f"{len(pictures)} pictures for {len(poses)} poses: must be one each")
    if size < 1:
        raise ValueError(f"size={size}: must be at least 1")
    frames = poses.shape[1]
    clips = torch.empty(len(poses), 1, frames, size, size, dtype=torch.uint8)
    places = (torch.arange(size) + 0.5) / size
    for start in range(0, len(poses), _CHUNK):
        part = slice(start, start + _CHUNK)
        across, down, turns, zoom = poses[part].flatten(0, 1)[..., None, None].unbind(1)
        extent = _EXTENT[0] * (_EXTENT[1] / _EXTENT[0]) ** zoom
        cos, sin = (math.tau * turns).cos(), (math.tau * turns).sin()
        right = (places.view(1, 1, size) - across + 0.5) % 1 - 0.5
        below = (places.view(1, size, 1) - down + 0.5) % 1 - 0.5
        grid = torch.stack([cos * right + sin * below, cos * below - sin * right], 3)
        many = pictures[part].float().unsqueeze(1).repeat_interleave(frames, 0)
        sampled = functional.grid_sample(many, 2 * grid / extent.unsqueeze(3), align_corners=False)
        clips[part] = sampled.round().to(torch.uint8).unflatten(0, (-1, frames)).transpose(1, 2)
    return clips


def _within(limits: tuple[float, float], share: Tensor) -> Tensor:
    return limits[0] + (limits[1] - limits[0]) * share
