"""How strong each corruption is, as published, for images of three sizes."""

from __future__ import annotations

import math
from typing import Literal, get_args

__all__ = ["TABLES", "Parameters", "Table", "check_table", "parameters", "table_for"]

Parameters = tuple[float, ...]
Table = Literal["cifar", "tiny-imagenet", "imagenet"]

_SIDES = {"cifar": 32, "tiny-imagenet": 64, "imagenet": 224}


def _single(*values: float) -> tuple[Parameters, ...]:
    return tuple((value,) for value in values)


# What each number means is said where the corruption is defined.
TABLES: dict[str, dict[str, tuple[Parameters, ...]]] = {
    "cifar": {
        "gaussian_noise": _single(0.04, 0.06, 0.08, 0.09, 0.10),
        "shot_noise": _single(500, 250, 100, 75, 50),
        "impulse_noise": _single(0.01, 0.02, 0.03, 0.05, 0.07),
        "defocus_blur": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        "glass_blur": ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
        "motion_blur": ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
        "zoom_blur": ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
        "snow": (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
        "frost": (
            (1, 0.2, 0.2),
            (1, 0.3, 0.2),
            (0.9, 0.4, 0.2),
            (0.85, 0.4, 0.2),
            (0.75, 0.45, 0.2),
        ),
        "fog": ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
        "brightness": _single(0.05, 0.1, 0.15, 0.2, 0.3),
        "contrast": _single(0.75, 0.5, 0.4, 0.3, 0.15),
        "elastic_transform": (
            (0, 0, 0.08),
            (0.05, 0.2, 0.07),
            (0.08, 0.06, 0.06),
            (0.1, 0.04, 0.05),
            (0.1, 0.03, 0.03),
        ),
        "pixelate": _single(0.95, 0.9, 0.85, 0.75, 0.65),
        "jpeg_compression": _single(80, 65, 58, 50, 40),
        "speckle_noise": _single(0.06, 0.1, 0.12, 0.16, 0.2),
        "gaussian_blur": _single(0.4, 0.6, 0.7, 0.8, 1),
        "spatter": (
            (0.62, 0.1, 0.7, 0.7, 0.5, 0),
            (0.65, 0.1, 0.8, 0.7, 0.5, 0),
            (0.65, 0.3, 1, 0.69, 0.5, 0),
            (0.65, 0.1, 0.7, 0.69, 0.6, 1),
            (0.65, 0.1, 0.5, 0.68, 0.6, 1),
        ),
        "saturate": ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
    },
    "tiny-imagenet": {
        "gaussian_noise": _single(0.04, 0.08, 0.12, 0.15, 0.18),
        "shot_noise": _single(250, 100, 50, 30, 15),
        "impulse_noise": _single(0.01, 0.02, 0.05, 0.08, 0.14),
        "defocus_blur": ((0.5, 0.6), (1, 0.1), (1.5, 0.1), (2.5, 0.01), (3, 0.1)),
        "glass_blur": ((0.1, 1, 1), (0.5, 1, 1), (0.6, 1, 2), (0.7, 2, 1), (0.9, 2, 2)),
        "motion_blur": ((10, 1), (10, 1.5), (10, 2), (10, 2.5), (12, 3)),
        "zoom_blur": ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
        "snow": (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.8),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.8),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.7),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.65),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.6),
        ),
        "frost": (
            (1, 0.3, 0.3),
            (0.9, 0.4, 0.3),
            (0.8, 0.45, 0.3),
            (0.75, 0.5, 0.3),
            (0.7, 0.55, 0.3),
        ),
        "fog": ((0.4, 3), (0.7, 3), (1, 2.5), (1.5, 2), (2, 1.75)),
        "brightness": _single(0.1, 0.2, 0.3, 0.4, 0.5),
        "contrast": _single(0.4, 0.3, 0.2, 0.1, 0.05),
        "elastic_transform": (
            (0, 0, 0.08),
            (0.05, 0.3, 0.06),
            (0.1, 0.08, 0.06),
            (0.1, 0.03, 0.03),
            (0.16, 0.03, 0.02),
        ),
        "pixelate": _single(0.9, 0.8, 0.7, 0.6, 0.5),
        "jpeg_compression": _single(65, 58, 50, 40, 25),
        "speckle_noise": _single(0.15, 0.2, 0.25, 0.3, 0.35),
        "gaussian_blur": _single(0.5, 0.75, 1, 1.25, 1.5),
        "spatter": (
            (0.62, 0.1, 0.7, 0.7, 0.6, 0),
            (0.65, 0.1, 0.8, 0.7, 0.6, 0),
            (0.65, 0.3, 1, 0.69, 0.6, 0),
            (0.65, 0.1, 0.7, 0.68, 0.6, 1),
            (0.65, 0.1, 0.5, 0.67, 0.6, 1),
        ),
        "saturate": ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (30, 0.2)),
    },
    "imagenet": {
        "gaussian_noise": _single(0.08, 0.12, 0.18, 0.26, 0.38),
        "shot_noise": _single(60, 25, 12, 5, 3),
        "impulse_noise": _single(0.03, 0.06, 0.09, 0.17, 0.27),
        "defocus_blur": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
        "glass_blur": ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
        "motion_blur": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
        "zoom_blur": ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
        "snow": (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
        "frost": ((1, 0.4, 1), (0.8, 0.6, 1), (0.7, 0.7, 1), (0.65, 0.7, 1), (0.6, 0.75, 1)),
        "fog": ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
        "brightness": _single(0.1, 0.2, 0.3, 0.4, 0.5),
        "contrast": _single(0.4, 0.3, 0.2, 0.1, 0.05),
        # Published for a side of 244 pixels, and used for images of 224.
        "elastic_transform": tuple(
            (244 / 224 * reach, 244 / 224 * smoothness, 244 / 224 * skew)
            for reach, smoothness, skew in (
                (2, 0.7, 0.1),
                (2, 0.08, 0.2),
                (0.05, 0.01, 0.02),
                (0.07, 0.01, 0.02),
                (0.12, 0.01, 0.02),
            )
        ),
        "pixelate": _single(0.6, 0.5, 0.4, 0.3, 0.25),
        "jpeg_compression": _single(25, 18, 15, 10, 7),
        "speckle_noise": _single(0.15, 0.2, 0.35, 0.45, 0.6),
        "gaussian_blur": _single(1, 2, 3, 4, 6),
        "spatter": (
            (0.65, 0.3, 4, 0.69, 0.6, 0),
            (0.65, 0.3, 3, 0.68, 0.6, 0),
            (0.65, 0.3, 2, 0.68, 0.5, 0),
            (0.65, 0.3, 1, 0.65, 1.5, 1),
            (0.67, 0.4, 1, 0.65, 1.5, 1),
        ),
        "saturate": ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
    },
}
"""By table and corruption, the parameters of severities 1 to 5.

Source: the programs that made CIFAR-10-C, Tiny-ImageNet-C and ImageNet-C
(github.com/hendrycks/robustness: make_cifar_c, make_tinyimagenet_c, make_imagenet_c). ImageNet's is
compared in a test with the package imagecorruptions, but for ``elastic_transform``, of which other
parameters are there; the other two are those of the programs as they stand, and were not compared
with the published images, but for the light of ``spatter``'s water.
"""


def table_for(height: int, width: int) -> Table:
    """Choose the table whose images are nearest in size: the ratio of the shorter sides decides.

    Shorter sides up to 45 pixels are CIFAR's (32), up to 119 Tiny-ImageNet's (64), others
    ImageNet's (224). The tables are published for these three sizes only.

    Args:
        height: of the image, in pixels.
        width: of the image, in pixels.

    Example:
        >>> table_for(32, 32), table_for(64, 90), table_for(500, 375)
        ('cifar', 'tiny-imagenet', 'imagenet')
    """
    side = math.log(max(min(height, width), 1))
    tables: tuple[Table, ...] = get_args(Table)
    return min(tables, key=lambda name: abs(side - math.log(_SIDES[name])))


def check_table(table: str) -> None:
    """Raise an error if there is no such table.

    Args:
        table: its name.

    Raises:
        ValueError: the name is unknown.
    """
    if table not in TABLES:
        raise ValueError(f"table={table!r}: must be one of {', '.join(TABLES)}")


def parameters(table: str, name: str, severity: int) -> Parameters:
    """Look up the parameters of a corruption.

    Args:
        table: of :data:`TABLES`.
        name: of the corruption.
        severity: from 1 to 5.

    Example:
        >>> parameters("cifar", "gaussian_noise", 5)
        (0.1,)
    """
    return TABLES[table][name][severity - 1]
