"""Linear layers and convolutions, seen as matrices of channels."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, nn

__all__ = ["computes", "holds_constants", "is_depthwise", "matrix", "why_whole"]

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def is_depthwise(module: nn.Module) -> bool:
    """Tell whether every output channel reads the input channel of its number alone."""
    if not isinstance(module, CONVOLUTIONS):
        return False
    return module.groups == module.in_channels == module.out_channels > 1


def why_whole(module: nn.Module, uses: dict[int, int]) -> str | None:
    """Return why the channels of a layer cannot be cut, or None if they can.

    Args:
        module: linear, or a convolution.
        uses: how often the model holds each parameter, by identity.
    """
    if getattr(module, "parametrizations", None) or hasattr(module, "weight_v"):
        return "its weight is parametrized"
    held = module._parameters.get("weight")
    if not isinstance(held, Tensor):
        return "its weight is computed by something else"
    if hasattr(held, "full_tensor"):
        return "its weight is sharded over ranks"
    if any(uses.get(id(p), 1) > 1 for p in module._parameters.values() if p is not None):
        return "its weight is tied to another"
    groups = getattr(module, "groups", 1)
    if groups > 1 and not is_depthwise(module):
        return f"it has {groups} groups, which must stay equally large"
    return None


def matrix(module: nn.Module, span: int) -> Tensor:
    """Return the weight as (out, in channels, entries of one): taps, or what a flatten gives."""
    weight = cast(Tensor, module.weight).detach()
    if isinstance(module, nn.Linear):
        return weight.reshape(len(weight), -1, span)
    return weight.flatten(2)


def holds_constants(module: nn.Module) -> bool:
    """Tell whether constant inputs give constant outputs: not where zeros are put around them."""
    if isinstance(module, nn.Linear):
        return True
    conv: Any = module
    padding = conv.padding
    none = padding == "valid" or (not isinstance(padding, str) and not any(padding))
    if padding == "same":
        none = all(k == 1 for k in conv.kernel_size)
    return bool(none or conv.padding_mode != "zeros")


def computes(module: nn.Module, constant: Tensor | None, span: int) -> Tensor:
    """Return the constants of a layer's outputs, given those of its inputs.

    Args:
        module: linear, or a convolution without groups.
        constant: (n,) of the inputs, NaN where they vary; None: all do.
        span: entries of one input channel.

    Returns:
        (out,), float64.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> _ = layer.weight.data.copy_(torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
        >>> _ = layer.bias.data.fill_(3.0)
        >>> computes(layer, None, 1).tolist()
        [3.0, nan]
    """
    weight = matrix(module, span)
    if constant is None:
        constant = torch.full((weight.shape[1],), math.nan, dtype=torch.float64)
    settled = constant == 0 if not holds_constants(module) else ~constant.isnan()
    moving = (~settled).nonzero().squeeze(1).to(weight.device)
    rows = ~weight[:, moving].flatten(1).any(1).cpu()
    out = torch.full((len(weight),), math.nan, dtype=torch.float64)
    values = weight[rows.to(weight.device)].double().sum(2).cpu()[:, settled] @ constant[settled]
    if (bias := module._parameters.get("bias")) is not None:
        values = values + bias.detach()[rows.to(bias.device)].double().cpu()
    out[rows] = values
    return out
