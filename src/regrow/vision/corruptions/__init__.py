"""Corruptions of images and videos, and the published sets of corrupted images."""

from regrow.vision.corruptions.catalogue import (
    CORRUPTIONS,
    EXTRA,
    FAMILIES,
    corrupt,
    corrupt_video,
)
from regrow.vision.corruptions.published import CorruptedFolder, load_corrupted

__all__ = [
    "CORRUPTIONS",
    "EXTRA",
    "FAMILIES",
    "CorruptedFolder",
    "corrupt",
    "corrupt_video",
    "load_corrupted",
]
