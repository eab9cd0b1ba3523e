"""Data sets in their published formats, their splits and their mini-batches."""

from regrow.data.idx import read_idx
from regrow.data.labels import split_off
from regrow.data.order import Order
from regrow.vision.data.actions import ACTIONS
from regrow.vision.data.augment import standard
from regrow.vision.data.batches import Batches
from regrow.vision.data.catalogue import load_data, names
from regrow.vision.data.dataset import DataSet
from regrow.vision.data.folder_batches import FolderBatches, Samples
from regrow.vision.data.image_folder import ImageFolder
from regrow.vision.data.own import Own, digest_of, load_own, open_own_files
from regrow.vision.data.own_images import OwnImages
from regrow.vision.data.ucf101 import UCF101

__all__ = [
    "ACTIONS",
    "UCF101",
    "Batches",
    "DataSet",
    "FolderBatches",
    "ImageFolder",
    "Order",
    "Own",
    "OwnImages",
    "Samples",
    "digest_of",
    "load_data",
    "load_own",
    "names",
    "open_own_files",
    "read_idx",
    "split_off",
    "standard",
]
