"""The models that are known by name, at any width."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from functools import partial

from torch import nn

from regrow.vision.models.convolutional import conv_net, lenet5, small_conv, vgg
from regrow.vision.models.efficient import efficientnet_b0
from regrow.vision.models.perceptron import perceptron, widest_within
from regrow.vision.models.residual import imagenet_resnet, resnet

__all__ = ["MODELS", "build_model", "narrowed"]

_STEPS = 256  # widths a narrower model may have, as parts of its own

# By name: channels of the image, classes and channels of the first layer to a model; and how many
# channels that layer has.
MODELS: dict[str, tuple[Callable[[int, int, int], nn.Module], int]] = {
    "conv-net": (lambda channels, classes, width: conv_net(channels, width, classes), 16),
    "small-conv": (small_conv, 32),
    "lenet5": (lambda channels, classes, width: lenet5(channels, classes, width=width), 20),
    **{
        f"resnet{depth}": (
            partial(lambda depth, c, classes, width: resnet(c, width, classes, depth), depth),
            16,
        )
        for depth in (20, 32, 44, 56)
    },
    "resnet18": (
        lambda _, classes, width: imagenet_resnet(18, classes, width=width, small_images=True),
        64,
    ),
    "resnet50": (lambda _, classes, width: imagenet_resnet(50, classes, width=width), 64),
    "vgg16": (lambda _, classes, width: vgg(16, classes, width=width), 64),
    "efficientnet-b0": (lambda _, classes, width: efficientnet_b0(classes), 0),
}
_COLOUR_ONLY = ("resnet18", "resnet50", "vgg16", "efficientnet-b0")


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
        shape: of one input: (channels, height, width), or (features,) for a perceptron.
        classes: outputs.
        scale: of all widths; at least one channel or unit is left.
        dropout: of a perceptron's hidden units.

    Raises:
        ValueError: there is no such model, it does not take such inputs, comes in one width only,
            or has no dropout to set.

    Example:
        >>> model = build_model("mlp-300-100", (1, 28, 28), 10)
        >>> sum(p.numel() for p in model.parameters())
        266610
    """
    if widths := re.fullmatch(r"mlp((?:-[1-9]\d*)+)", name):
        units = [max(1, round(int(w) * scale)) for w in widths.group(1)[1:].split("-")]
        return perceptron(math.prod(shape), units, classes, dropout=dropout)
    if name not in MODELS:
        known = ", ".join([*MODELS, "mlp-300-100 with any widths"])
        raise ValueError(f"model={name!r}: must be one of {known}")
    if len(shape) != 3:
        raise ValueError(f"model={name!r} takes images, and inputs have shape {tuple(shape)}")
    if name in _COLOUR_ONLY and shape[0] != 3:
        raise ValueError(f"model={name!r} takes images of 3 channels, and these have {shape[0]}")
    if dropout:
        raise ValueError(f"dropout={dropout}: model={name!r} has none to set: give 0")
    build, width = MODELS[name]
    if scale != 1.0 and not width:
        raise ValueError(f"scale={scale}: model={name!r} comes in one width only: give 1")
    return build(shape[0], classes, max(1, round(width * scale)))


def narrowed(name: str, shape: Sequence[int], classes: int, share: float) -> float:
    """Return the scale at which a dense model has no more parameters than a sparse one.

    Args:
        name: of the model.
        shape: of one input.
        classes: outputs.
        share: the density of the sparse model's weights; what is no weight (biases, norms) it
            keeps.

    Raises:
        ValueError: not even the narrowest model is small enough.

    Example:
        >>> narrowed("mlp-300-100", (1, 28, 28), 10, 0.1)
        0.109375
    """
    full = build_model(name, shape, classes)
    weights = sum(p.numel() for p in full.parameters() if p.ndim > 1)
    others = sum(p.numel() for p in full.parameters()) - weights
    steps = widest_within(
        round(share * weights) + others,
        lambda width: build_model(name, shape, classes, scale=width / _STEPS),
    )
    return steps / _STEPS
