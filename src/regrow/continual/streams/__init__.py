"""Streams of tasks, made of the arrays of one data set: split, permuted, rotated."""

from regrow.continual.streams.known import STREAMS, KnownStream, make_stream
from regrow.continual.streams.mini_imagenet import FolderArrays, load_mini_imagenet
from regrow.continual.streams.pixels import permuted, rotated
from regrow.continual.streams.split import class_order, split
from regrow.continual.streams.task import Arrays, Part, Stream, TaskData

__all__ = [
    "STREAMS",
    "Arrays",
    "FolderArrays",
    "KnownStream",
    "Part",
    "Stream",
    "TaskData",
    "class_order",
    "load_mini_imagenet",
    "make_stream",
    "permuted",
    "rotated",
    "split",
]
