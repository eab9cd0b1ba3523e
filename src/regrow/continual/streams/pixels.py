"""Streams of tasks with the same classes and changed images: pixels permuted, images rotated."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from regrow.continual.streams.task import Arrays, Part, Stream, TaskData, check_arrays
from regrow.engine.selection import seeded_generator

__all__ = ["permuted", "rotated"]

_AT_ONCE = 4096  # images rotated together


def permuted(data: Arrays, tasks: int, *, seed: int = 0, name: str = "permuted") -> Stream:
    """Move the pixels of all images, in each task by a permutation of its own.

    The first task has the images as they are. All channels of a pixel move together.

    Args:
        data: the arrays of a data set: images (n, channels, height, width) or features (n, d).
        tasks: how many, at least 1.
        seed: of the permutations.
        name: of the stream.

    Raises:
        ValueError: there is no task, or the arrays are no data set.

    Source: Goodfellow et al. 2013 (arXiv 1312.6211), section 4; Kirkpatrick et al. 2017 (arXiv
    1612.00796).

    Example:
        >>> from types import SimpleNamespace
        >>> x, y = torch.arange(8.0).view(2, 4), torch.tensor([0, 1])
        >>> data = SimpleNamespace(
        ...     train_inputs=x, train_labels=y, test_inputs=x, test_labels=y, classes=2
        ... )
        >>> first, second = permuted(data, 2)
        >>> first.train.inputs[0].tolist(), sorted(second.train.inputs[0].tolist())
        ([0.0, 1.0, 2.0, 3.0], [0.0, 1.0, 2.0, 3.0])
    """

    def change(index: int) -> Callable[[Tensor], Tensor]:
        if index == 0:
            return lambda inputs: inputs
        shape = data.train_inputs.shape
        pixels = math.prod(shape[2:]) if len(shape) > 2 else shape[1]
        order = torch.randperm(pixels, generator=seeded_generator(seed, "permutation", index))

        def moved(inputs: Tensor) -> Tensor:
            flat = inputs.flatten(2) if inputs.ndim > 2 else inputs
            return flat[..., order.to(inputs.device)].view(inputs.shape)

        return moved

    return _changed(data, tasks, change, name, [f"permutation {i}" for i in range(tasks)])


def rotated(data: Arrays, angles: Sequence[float] | int, *, name: str = "rotated") -> Stream:
    """Rotate all images, in each task by an angle of its own.

    Pixels are interpolated bilinearly; what comes from outside an image is 0, so that raw pixels
    are to be given, and standardized afterwards (:meth:`Stream.prepared`).

    Args:
        data: the arrays of a data set of images (n, channels, height, width).
        angles: in degrees, counter-clockwise; a number of tasks stands for so many angles, equally
            spaced from 0 to below 180.
        name: of the stream.

    Raises:
        ValueError: there is no task, the inputs are no images, or the arrays are no data set.

    Source: Lopez-Paz & Ranzato 2017 (arXiv 1706.08840), section 5.1.

    Example:
        >>> from types import SimpleNamespace
        >>> x, y = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), torch.tensor([0])
        >>> data = SimpleNamespace(
        ...     train_inputs=x, train_labels=y, test_inputs=x, test_labels=y, classes=1
        ... )
        >>> rotated(data, (0, 90))[1].train.inputs[0, 0].round().tolist()
        [[2.0, 4.0], [1.0, 3.0]]
    """
    if data.train_inputs.ndim != 4:
        raise ValueError(f"inputs of shape {tuple(data.train_inputs.shape)} cannot be rotated")
    if isinstance(angles, int):
        angles = [180 * i / angles for i in range(angles)]
    degrees = list(angles)

    def change(index: int) -> Callable[[Tensor], Tensor]:
        return lambda inputs: _rotate(inputs, degrees[index])

    return _changed(data, len(degrees), change, name, [f"{angle:g}°" for angle in degrees])


def _rotate(images: Tensor, degrees: float) -> Tensor:
    if degrees % 360 == 0:
        return images
    radians = math.radians(degrees)
    height, width = images.shape[-2:]
    cos, sin = math.cos(radians), math.sin(radians)
    # Where a pixel comes from, in coordinates from -1 to 1 on each axis.
    matrix = torch.tensor([[cos, -sin * height / width, 0.0], [sin * width / height, cos, 0.0]])
    parts = []
    for part in images.split(_AT_ONCE):
        grid = functional.affine_grid(
            matrix.to(part.device).expand(len(part), 2, 3), list(part.shape), align_corners=False
        )
        turned = functional.grid_sample(part.float(), grid, align_corners=False)
        parts.append(turned if part.is_floating_point() else turned.round().to(part.dtype))
    return torch.cat(parts)


def _changed(
    data: Arrays,
    tasks: int,
    change: Callable[[int], Callable[[Tensor], Tensor]],
    name: str,
    words: Sequence[str],
) -> Stream:
    check_arrays(data)
    labels = tuple(range(data.classes))

    def make(index: int) -> TaskData:
        task = TaskData(
            f"{name} {index}: {words[index]}",
            labels,
            Part(data.train_inputs, data.train_labels),
            Part(data.test_inputs, data.test_labels),
        )
        return task.prepared(change(index))

    return Stream(name, make, tasks)
