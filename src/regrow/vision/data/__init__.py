"""Data sets in their published formats."""

from regrow.vision.data.catalogue import load_data, names
from regrow.vision.data.dataset import DataSet
from regrow.vision.data.idx import read_idx

__all__ = ["DataSet", "load_data", "names", "read_idx"]
