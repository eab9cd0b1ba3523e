"""Data sets in their published formats."""

from regrow.vision.data.catalogue import ImageSet, load_images, names, read_idx

__all__ = ["ImageSet", "load_images", "names", "read_idx"]
