"""The models that are known by name, at any width."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from regrow.spelling import did_you_mean
from regrow.vision.models.convolutional import conv_net, lenet5, small_conv, small_conv3d, vgg
from regrow.vision.models.efficient import efficientnet_b0
from regrow.vision.models.inception3d import i3d
from regrow.vision.models.perceptron import perceptron, widest_within
from regrow.vision.models.residual import imagenet_resnet, resnet
from regrow.vision.models.residual3d import resnet3d50
from regrow.vision.models.transformer import deit

__all__ = ["MODELS", "Model", "build_model", "check_model", "narrowed"]

_STEPS = 256  # widths a narrower model may have, as parts of its own
_SMALL = 64  # pixels of the shorter side up to which clips are small

_WEIGHTED = (nn.Linear, nn.Conv2d, nn.Conv3d)  # whose weights become sparse

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Model:
    """A model that is known by name.

    Args:
        build: makes it, of the shape of one input, classes and width.
        width: of its first layer, or of its tokens; 0 if it comes in one width only.
        channels: that inputs may have; None is any number.
        clips: whether inputs are clips (channels, frames, height, width), not images.
        sides: the fewest pixels of a side, and frames of a clip, and the most.

    Example:
        >>> MODELS["i3d"].clips, MODELS["i3d"].width
        (True, 64)
    """

    build: Callable[[Shape, int, int], nn.Module]
    width: int
    channels: int | None = None
    clips: bool = False
    sides: tuple[int, float] = (1, math.inf)


def _image_resnet(depth: int, shape: Shape, classes: int, width: int) -> nn.Module:
    return resnet(shape[0], width, classes, depth)


def _small_image_resnet(depth: int, _: Shape, classes: int, width: int) -> nn.Module:
    return imagenet_resnet(depth, classes, width=width, small_images=True)


def _deit(size: Any, shape: Any, classes: int, width: int) -> nn.Module:
    return deit(size, shape, classes, width=width)


def _for_clips(
    build: Callable[..., nn.Module], shape: Shape, classes: int, width: int
) -> nn.Module:
    return build(shape[0], classes, width=width, small_clips=min(shape[2:]) <= _SMALL)


_PERCEPTRON = r"mlp((?:-[1-9]\d{0,6})+)"

MODELS: dict[str, Model] = {
    "conv-net": Model(lambda shape, classes, width: conv_net(shape[0], width, classes), 16),
    "small-conv": Model(
        lambda shape, classes, width: small_conv(shape[0], classes, width), 32, sides=(18, math.inf)
    ),
    "lenet5": Model(
        lambda shape, classes, width: lenet5(shape[0], classes, width=width), 20, sides=(28, 31)
    ),
    **{f"resnet{depth}": Model(partial(_image_resnet, depth), 16) for depth in (20, 32, 44, 56)},
    "resnet18": Model(partial(_small_image_resnet, 18), 64, channels=3),
    "resnet34": Model(partial(_small_image_resnet, 34), 64, channels=3),
    "resnet50": Model(
        lambda _, classes, width: imagenet_resnet(50, classes, width=width), 64, channels=3
    ),
    "vgg16": Model(
        lambda _, classes, width: vgg(16, classes, width=width), 64, 3, sides=(32, math.inf)
    ),
    "efficientnet-b0": Model(lambda _, classes, width: efficientnet_b0(classes), 0, channels=3),
    "deit-tiny": Model(partial(_deit, "tiny"), 192),
    "deit-small": Model(partial(_deit, "small"), 384),
    "deit-base": Model(partial(_deit, "base"), 768),
    "small-conv3d": Model(
        lambda shape, classes, width: small_conv3d(shape[0], classes, width),
        16,
        clips=True,
        sides=(4, math.inf),
    ),
    "resnet3d-50": Model(partial(_for_clips, resnet3d50), 64, clips=True),
    "i3d": Model(partial(_for_clips, i3d), 64, clips=True),
}
"""The models by name; besides these there are perceptrons, such as "mlp-300-100"."""


def check_model(name: str) -> None:
    """Refuse a model that cannot be built for any inputs.

    Raises:
        ValueError: there is none of this name.
    """
    if name not in MODELS and not re.fullmatch(_PERCEPTRON, name):
        known = ", ".join([*MODELS, "mlp-300-100 with any widths"])
        meant = did_you_mean(name, MODELS)
        raise ValueError(f"model={name!r}: must be one of {known}{meant}")


def build_model(
    name: str,
    shape: Sequence[int],
    classes: int,
    *,
    scale: float = 1.0,
    dropout: float = 0.0,
) -> nn.Module:
    """Build a model by name for inputs of one shape.

    Args:
        name: one of ``MODELS``, or "mlp-300-100" and its like: a perceptron with hidden layers
            of these widths.
        shape: of one input: (channels, height, width), (channels, frames, height, width) for a
            model of clips, or any, such as (features,), for a perceptron. Residual networks and I3D
            of clips start as for small clips where the shorter side has 64 pixels or fewer.
        classes: outputs.
        scale: of all widths; at least one channel or unit is left. Heads of a transformer keep
            their width, and there are fewer of them.
        dropout: of a perceptron's hidden units.

    Raises:
        ValueError: there is no such model, it does not take such inputs, comes in one width only,
            or has no dropout to set.

    Example:
        >>> model = build_model("mlp-300-100", (1, 28, 28), 10)
        >>> sum(p.numel() for p in model.parameters())
        266610
    """
    check_model(name)
    if widths := re.fullmatch(_PERCEPTRON, name):
        units = [max(1, round(int(w) * scale)) for w in widths.group(1)[1:].split("-")]
        return perceptron(math.prod(shape), units, classes, dropout=dropout)
    model = MODELS[name]
    if len(shape) != (4 if model.clips else 3):
        takes = "clips (channels, frames, height, width)" if model.clips else "images"
        raise ValueError(f"model={name!r} takes {takes}, and inputs have shape {tuple(shape)}")
    if model.channels not in (None, shape[0]):
        raise ValueError(
            f"model={name!r} takes images of {model.channels} channels, and these have {shape[0]}"
        )
    if dropout:
        raise ValueError(f"dropout={dropout}: model={name!r} has none to set: give 0")
    if scale != 1.0 and not model.width:
        raise ValueError(f"scale={scale}: model={name!r} comes in one width only: give 1")
    low, high = model.sides
    if not low <= min(shape[1:]) <= max(shape[1:]) <= high:
        sizes = f"{low} or more" if high == math.inf else f"{low} to {high}"
        frames = "frames, and " if model.clips else ""
        raise ValueError(
            f"model={name!r} takes {frames}sides of {sizes} pixels, and inputs have shape "
            f"{tuple(shape)}: take another model, or images of another size"
        )
    return model.build(tuple(shape), classes, max(1, round(model.width * scale)))


def narrowed(name: str, shape: Sequence[int], classes: int, share: float) -> float:
    """Return the scale at which a dense model has no more parameters than a sparse one.

    Args:
        name: of the model.
        shape: of one input.
        classes: outputs.
        share: the density of the sparse model's linear layers and convolutions; what is no weight
            of theirs (biases, norms, positions) it keeps.

    Raises:
        ValueError: not even the narrowest model is small enough.

    Example:
        >>> narrowed("mlp-300-100", (1, 28, 28), 10, 0.1)
        0.109375
    """
    with torch.device("meta"):
        full = build_model(name, shape, classes)
        weights = sum(m.weight.numel() for m in full.modules() if isinstance(m, _WEIGHTED))
        others = sum(p.numel() for p in full.parameters()) - weights
        steps = widest_within(
            round(share * weights) + others,
            lambda width: build_model(name, shape, classes, scale=width / _STEPS),
        )
    return steps / _STEPS
