"""Corruptions of images and videos, and the published sets of corrupted images."""

from regrow.vision.corruptions.catalogue import (
    CORRUPTIONS,
    EXTRA,
    FAMILIES,
    corrupt,
    corrupt_video,
)

__all__ = ["CORRUPTIONS", "EXTRA", "FAMILIES", "corrupt", "corrupt_video"]
