"""JPEG compression and decompression in tensor code, without making a file."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from regrow.vision.corruptions import linear
from regrow.vision.corruptions.draws import Draws
from regrow.vision.corruptions.modes import ordinary_modes
from regrow.vision.corruptions.severities import Parameters

__all__ = ["jpeg_compression", "quantization"]

# Tables K.1 and K.2 of the standard (ITU-T T.81).
_LUMINANCE = """
16 11 10 16 24 40 51 61  12 12 14 19 26 58 60 55  14 13 16 24 40 57 69 56  14 17 22 29 51 87 80 62
18 22 37 56 68 109 103 77  24 35 55 64 81 104 113 92  49 64 78 87 103 121 120 101
72 92 95 98 112 100 103 99
"""
_CHROMINANCE = """
17 18 24 47 99 99 99 99  18 21 26 66 99 99 99 99  24 26 56 99 99 99 99 99  47 66 99 99 99 99 99 99
99 99 99 99 99 99 99 99  99 99 99 99 99 99 99 99  99 99 99 99 99 99 99 99  99 99 99 99 99 99 99 99
"""
_TIE = 1e-4  # how near to a half counts as a half
# Rows: brightness, blue and red differences of red, green and blue (JFIF).
_TO_YCC = (
    (0.299, 0.587, 0.114),
    (-0.168735892, -0.331264108, 0.5),
    (0.5, -0.418687589, -0.081312411),
)


def jpeg_compression(images: Tensor, parameters: Parameters, draws: Draws) -> Tensor:
    """Compress to JPEG and back, as Pillow does by default.

    Colours are halved in size (4:2:0) and enlarged again linearly. A grey image has no colours.

    Differs from the source: cosine transforms are exact, libjpeg's are in integers. Some pixels
    differ by a step of a byte or two, and where a coefficient lies half-way between two steps a
    whole block may.

    Args:
        images: float32 in [0, 1], shape (n, channels, height, width).
        parameters: (quality,), from 1 to 100.
        draws: nothing is random here.
    """
    height, width = images.shape[2:]
    luminance, chrominance = (quantization(int(parameters[0]), kind) for kind in (0, 1))
    pixels = (images * 255).round_()
    if images.shape[1] == 1:
        return (_round_trip(pixels - 128, luminance) + 128).clamp_(0, 255) / 255
    to_ycc = torch.tensor(_TO_YCC, device=images.device)
    ycc = torch.einsum("dc,nchw->ndhw", to_ycc, pixels)
    ycc[:, 1:] -= _TIE  # half a step of colour goes down, as in libjpeg
    ycc = ycc.round_()
    grey = _round_trip(ycc[:, :1] - 128, luminance) + 128
    colours = _round_trip(_halved(ycc[:, 1:]), chrominance).clamp_(-128, 127)
    colours = _doubled(colours[..., : (width + 1) // 2])[:, :, :height, :width]
    blue, red = colours[:, :1], colours[:, 1:]
    green = -0.344136286 * blue - 0.714136286 * red
    rgb = grey.clamp_(0, 255) + torch.cat([1.402 * red, green, 1.772 * blue], 1).round_()
    return rgb.clamp_(0, 255) / 255


@lru_cache(maxsize=32)
@ordinary_modes()
def quantization(quality: int, kind: int) -> Tensor:
    """Return the steps that coefficients are rounded to, as libjpeg scales the standard's.

    Args:
        quality: from 1 to 100.
        kind: 0 for brightness, 1 for colours.

    Returns:
        float32, shape (64,), row by row.

    Example:
        >>> quantization(25, 0)[:3].tolist()
        [32.0, 22.0, 20.0]
    """
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    steps = [int(step) for step in (_LUMINANCE, _CHROMINANCE)[kind].split()]
    return torch.tensor([min(max((step * scale + 50) // 100, 1), 255) for step in steps]).float()


@lru_cache(maxsize=1)
@ordinary_modes()
def _cosines() -> Tensor:
    """Return the cosine transform of blocks of 8×8, shape (64 coefficients, 64 pixels)."""
    k, x = torch.arange(8).unsqueeze(1), torch.arange(8)
    one = torch.cos(math.pi * k * (2 * x + 1) / 16) / 2
    one[0] /= math.sqrt(2)
    return torch.kron(one, one)


def _round_trip(planes: Tensor, steps: Tensor) -> Tensor:
    """Quantize the blocks of planes around 0; incomplete ones are filled with the last pixel."""
    n, channels, height, width = planes.shape
    filled = functional.pad(planes, (0, -width % 8, 0, -height % 8), mode="replicate")
    rows, columns = filled.shape[2] // 8, filled.shape[3] // 8
    blocks = filled.view(n, channels, rows, 8, columns, 8).transpose(3, 4).reshape(-1, 64)
    cosines, steps = _cosines().to(planes.device), steps.to(planes.device)
    coefficients = blocks @ (cosines.T / steps)
    coefficients = (coefficients.abs() + (0.5 + _TIE)).floor_().copysign_(coefficients)
    blocks = (coefficients @ (cosines * steps.unsqueeze(1))).round_()
    back = blocks.view(n, channels, rows, columns, 8, 8).transpose(3, 4).reshape(filled.shape)
    return back[:, :, :height, :width]


def _halved(planes: Tensor) -> Tensor:
    """Take means of 2×2 pixels; halves are rounded down and up by turns, as libjpeg does.

    Like there rows are filled up to whole blocks before this, and columns after it.
    """
    height, width = planes.shape[2:]
    even = functional.pad(planes, (0, -width % 16, 0, height % 2), mode="replicate")
    sums = functional.avg_pool2d(even, 2, divisor_override=1)
    bias = 1 + torch.arange(sums.shape[3], device=planes.device) % 2
    return ((sums + bias) / 4).floor_()


def _doubled(planes: Tensor) -> Tensor:
    """Enlarge by weights 3/4 and 1/4 of the two nearest pixels along either axis.

    Up to two columns are repeated, as libjpeg does.
    """
    if planes.shape[3] <= 2:
        return planes.repeat_interleave(2, 2).repeat_interleave(2, 3)
    rows, columns = (_doubling(side) for side in planes.shape[2:])
    return linear.apply(planes, rows, columns).round_()


@lru_cache(maxsize=64)
@ordinary_modes()
def _doubling(side: int) -> Tensor:
    taps = [linear.convolution(torch.tensor(t), side, "nearest") for t in _HALVES]
    return torch.stack(taps, 1).flatten(0, 1)


_HALVES = ((0.25, 0.75, 0.0), (0.0, 0.75, 0.25))
