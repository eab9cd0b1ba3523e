"""Augmentation of patches, batched on their device: turned, scaled, bent, mirrored, brightened."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from regrow.segmentation.segmenter import Sides

__all__ = ["Augmentation", "Change"]

_FLAT = 3  # a patch whose longest side is so many times its shortest is turned in the plane only
_KNOTS = 5  # along each axis, between which an elastic field is interpolated
_GAMMA = (0.7, 1.5)
_CONTRAST = (0.75, 1.25)
_SIDES = (2, 3, 4)  # depth, height and width of a batch


@dataclass(frozen=True)
class Change:
    """What happens to one patch; a factor of 1, a noise of 0 and None change nothing.

    Args:
        matrix: from places in the new patch to places in the old, relative to its centre, in
            voxels, shape (3, 3); None: as it is.
        bend: how far knots move, in voxels, shape (3, knots, knots, knots).
        flips: axes that are mirrored.
        noise: standard deviation.
        brightness: a factor.
        contrast: a factor of the distance from the mean.
        gamma: exponents for the image and for its negative.
        seed: of the noise.
    """

    matrix: Tensor | None
    bend: Tensor | None
    flips: tuple[int, ...]
    noise: float
    brightness: float
    contrast: float
    gamma: tuple[float | None, float | None]
    seed: int


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How patches are changed at random: the probabilities of each change, and how far it goes.

    Turning, scaling and bending are one resampling, of those patches only that move: linear for
    images, nearest for labels. What lies outside the volume is zero. Then come noise, brightness,
    contrast, gamma and mirroring.

    Args:
        rotation: probability of turning about every axis by up to ``angle`` degrees; a flat patch
            (longest side above three times the shortest) turns in its plane, by up to 180.
        angle: in degrees.
        scaling: probability of a factor drawn from ``scales``; below 1 enlarges.
        scales: the least and the largest factor.
        elastic: probability of bending.
        bending: how far, as a share of the distance between knots, of which there are 5 an axis.
        noise: probability of normal noise of a deviation up to 0.1.
        brightness: probability of a factor from 0.75 to 1.25.
        contrast: probability of the same about the mean.
        gamma: probability of an exponent from 0.7 to 1.5; mean and deviation stay.
        inverted: probability of the same for the negative.
        mirror: axes, each mirrored half of the time.

    Raises:
        ValueError: a probability is outside 0..1, or an axis is none.

    Source: nnU-Net's augmentation (Isensee et al. 2021, supplement; package batchgeneratorsv2).

    Differs from nnU-Net: no blur, no low resolution; labels are taken from the nearest voxel.

    Example:
        >>> from regrow.engine.selection import seeded_generator
        >>> augmentation = Augmentation(rotation=1.0)
        >>> changes = [augmentation.draw(seeded_generator(0), (8, 8, 8))]
        >>> room = augmentation.room(changes, (8, 8, 8))
        >>> sides = [8 + 2 * more for more in room]
        >>> image, label = torch.randn(1, 1, *sides), torch.zeros(1, *sides, dtype=torch.uint8)
        >>> augmentation.apply(image, label, changes, (8, 8, 8))[0].shape
        torch.Size([1, 1, 8, 8, 8])
    """

    rotation: float = 0.2
    angle: float = 30.0
    scaling: float = 0.2
    scales: tuple[float, float] = (0.7, 1.4)
    elastic: float = 0.0
    bending: float = 0.25
    noise: float = 0.1
    brightness: float = 0.15
    contrast: float = 0.15
    gamma: float = 0.3
    inverted: float = 0.1
    mirror: tuple[int, ...] = (0, 1, 2)

    def __post_init__(self) -> None:
        for name in _PROBABILITIES:
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise ValueError(f"{name}={value}: a probability lies in 0..1")
        if not 0 < self.scales[0] <= self.scales[1]:
            raise ValueError(f"scales={self.scales}: two numbers above 0 are needed, least first")
        if not set(self.mirror) <= {0, 1, 2} or len(set(self.mirror)) < len(self.mirror):
            raise ValueError(
                f"mirror={self.mirror}: axes are 0, 1, 2, each once: depth, height, width"
            )

    def draw(self, generator: torch.Generator, patch: Sides) -> Change:
        """Draw what happens to a patch."""

        def happens(probability: float) -> bool:
            return float(torch.rand((), generator=generator)) < probability

        def uniform(low: float, high: float) -> float:
            return low + (high - low) * float(torch.rand((), generator=generator))

        def if_so(probability: float, low: float, high: float) -> float | None:
            return uniform(low, high) if happens(probability) else None

        flat = min(range(3), key=lambda axis: patch[axis]) if _is_flat(patch) else None
        matrix = None
        if happens(self.rotation):
            angles = [uniform(-1, 1) * self._most(axis, flat) for axis in range(3)]
            matrix = _rotation(angles)
        if (factor := if_so(self.scaling, *self.scales)) is not None:
            scaled = torch.tensor([1.0 if axis == flat else factor for axis in range(3)])
            matrix = scaled.diag() if matrix is None else matrix * scaled
        bend = None
        if happens(self.elastic):
            bend = self._bend(generator, patch, uniform(0, self.bending))
            matrix = torch.eye(3) if matrix is None else matrix
        return Change(
            matrix=matrix,
            bend=bend,
            flips=tuple(axis for axis in self.mirror if happens(0.5)),
            noise=if_so(self.noise, 0.0, 0.1) or 0.0,
            brightness=if_so(self.brightness, *_CONTRAST) or 1.0,
            contrast=if_so(self.contrast, *_CONTRAST) or 1.0,
            gamma=(if_so(self.gamma, *_GAMMA), if_so(self.inverted, *_GAMMA)),
            seed=int(torch.randint(2**62, (), generator=generator)),
        )

    def room(self, changes: Sequence[Change], patch: Sides) -> Sides:
        """Return how much larger than the patch, on each side, what is cut must be."""
        half = torch.tensor([(side - 1) / 2 for side in patch])
        most = half.clone()
        for change in changes:
            if change.matrix is not None:
                reach = change.matrix.abs() @ half
                if change.bend is not None:
                    reach += change.bend.flatten(1).abs().amax(1)
                most = torch.maximum(most, reach)
        more = (most - half).ceil().int().tolist()
        return more[0], more[1], more[2]

    def apply(
        self, image: Tensor, label: Tensor, changes: Sequence[Change], patch: Sides
    ) -> tuple[Tensor, Tensor]:
        """Change patches.

        Args:
            image: shape (n, channels, depth, height, width): patches and the room around them.
            label: shape (n, depth, height, width).
            changes: one a patch.
            patch: the sides that come out.
        """
        image, label = _resampled(image, label, changes, patch)
        for i, change in enumerate(changes):
            if change.noise:
                source = torch.Generator(image.device).manual_seed(change.seed)
                image[i] += change.noise * torch.randn(
                    image[i].shape, generator=source, device=image.device
                )
        # All patches that change alike at once: a GPU has less to launch.
        _change(image, [c.brightness if c.brightness != 1 else None for c in changes], torch.mul)
        _change(image, [c.contrast if c.contrast != 1 else None for c in changes], _contrast)
        _change(image, [c.gamma[0] for c in changes], _gamma)
        _change(image, [c.gamma[1] for c in changes], lambda x, power: -_gamma(-x, power))
        for axis in range(3):
            flipped = [i for i, change in enumerate(changes) if axis in change.flips]
            if flipped:
                image[flipped] = image[flipped].flip(axis + 2)
                label[flipped] = label[flipped].flip(axis + 1)
        return image, label

    def _most(self, axis: int, flat: int | None) -> float:
        """Return how far a patch turns about an axis, in radians."""
        if flat is None:
            return math.radians(self.angle)
        return math.pi if axis == flat else 0.0

    @staticmethod
    def _bend(generator: torch.Generator, patch: Sides, share: float) -> Tensor:
        moves = torch.randn(3, _KNOTS, _KNOTS, _KNOTS, generator=generator).clamp(-2, 2)
        apart = torch.tensor([(side - 1) / (_KNOTS - 1) for side in patch])
        if _is_flat(patch):
            apart[apart.argmin()] = 0.0
        return moves * (share * apart)[:, None, None, None]


_PROBABILITIES = [
    field.name
    for field in dataclasses.fields(Augmentation)
    if field.name not in ("angle", "scales", "bending", "mirror")
]


def _is_flat(patch: Sides) -> bool:
    return max(patch) > _FLAT * min(patch)


def _rotation(angles: Sequence[float]) -> Tensor:
    """Return the product of rotations about depth, height and width."""
    matrix = torch.eye(3)
    for axis, angle in enumerate(angles):
        a, b = (other for other in range(3) if other != axis)
        turn = torch.eye(3)
        turn[a, a] = turn[b, b] = math.cos(angle)
        turn[a, b], turn[b, a] = -math.sin(angle), math.sin(angle)
        matrix = matrix @ turn
    return matrix


def _resampled(
    image: Tensor, label: Tensor, changes: Sequence[Change], patch: Sides
) -> tuple[Tensor, Tensor]:
    """Cut the room off patches that stay; sample those that move, all at once."""
    room = [(side - p) // 2 for side, p in zip(image.shape[2:], patch, strict=True)]
    d, h, w = (slice(more, more + side) for more, side in zip(room, patch, strict=True))
    still, still_label = image[..., d, h, w].clone(), label[..., d, h, w].clone()
    moved = [i for i, change in enumerate(changes) if change.matrix is not None]
    if not moved:
        return still, still_label
    grid = _grid([changes[i] for i in moved], patch, image.shape[2:], image.device)
    sample: Callable[..., Tensor] = functional.grid_sample
    still[moved] = sample(image[moved], grid, "bilinear", "zeros", align_corners=True)
    nearest = sample(label[moved, None].float(), grid, "nearest", "zeros", align_corners=True)
    still_label[moved] = nearest[:, 0].to(label.dtype)
    return still, still_label


def _grid(
    changes: Sequence[Change], patch: Sides, sides: torch.Size, device: torch.device
) -> Tensor:
    """Return where each voxel comes from, as ``grid_sample`` takes it."""
    axes = [torch.arange(side, device=device) - (side - 1) / 2 for side in patch]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    matrices = torch.stack([c.matrix for c in changes if c.matrix is not None]).to(device)
    grid = (places @ matrices.mT).view(len(changes), *patch, 3)
    for i, change in enumerate(changes):
        if change.bend is not None:
            field = functional.interpolate(
                change.bend[None].to(device), patch, mode="trilinear", align_corners=True
            )
            grid[i] += field[0].permute(1, 2, 3, 0)
    # Of the larger box, whose centre is the patch's; a side of 1 has nothing to divide by.
    half = torch.tensor([max(side - 1, 1) / 2 for side in sides], device=device)
    return (grid / half).flip(-1)


def _change(
    image: Tensor, numbers: Sequence[float | None], change: Callable[[Tensor, Tensor], Tensor]
) -> None:
    """Change the patches that have a number, each by its own."""
    known = {i: number for i, number in enumerate(numbers) if number is not None}
    if known:
        each = torch.tensor(list(known.values()), dtype=image.dtype).view(-1, 1, 1, 1, 1)
        image[list(known)] = change(image[list(known)], each.to(image.device))


def _contrast(image: Tensor, factor: Tensor) -> Tensor:
    """Move away from each channel's mean, within its range."""
    low, high = (f(image, _SIDES, keepdim=True) for f in (torch.amin, torch.amax))
    mean = image.mean(_SIDES, keepdim=True)
    return ((image - mean) * factor + mean).clamp(low, high)


def _gamma(image: Tensor, exponent: Tensor) -> Tensor:
    """Raise to a power within each channel's range, keeping its mean and deviation."""
    low, high = (f(image, _SIDES, keepdim=True) for f in (torch.amin, torch.amax))
    mean, deviation = image.mean(_SIDES, keepdim=True), image.std(_SIDES, keepdim=True)
    width = (high - low).clamp_min(1e-7)
    new = ((image - low) / width) ** exponent
    new = new - new.mean(_SIDES, keepdim=True)
    return new / new.std(_SIDES, keepdim=True).clamp_min(1e-7) * deviation + mean
