"""The streams that are known by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from regrow.continual.streams.pixels import permuted, rotated
from regrow.continual.streams.split import split
from regrow.continual.streams.task import Arrays, Stream

__all__ = ["STREAMS", "KnownStream", "make_stream"]


@dataclass(frozen=True)
class KnownStream:
    """A stream that is known by name.

    Args:
        data: the data set it is made of, as ``regrow.vision.data.load_data`` names it.
        tasks: how many tasks it has.
        make: makes it of the arrays and the number of tasks.
    """

    data: str
    tasks: int
    make: Callable[..., Stream]


STREAMS: dict[str, KnownStream] = {
    "split-digits": KnownStream("digits", 5, split),
    "split-fashion-mnist": KnownStream("fashion-mnist", 5, split),
    "permuted-fashion-mnist": KnownStream("fashion-mnist", 10, permuted),
    "rotated-fashion-mnist": KnownStream("fashion-mnist", 10, rotated),
    "split-cifar10": KnownStream("cifar10", 5, split),
    "split-cifar100-5": KnownStream("cifar100", 5, split),
    "split-cifar100-10": KnownStream("cifar100", 10, split),
    "split-cifar100-20": KnownStream("cifar100", 20, split),
    "split-mini-imagenet-5": KnownStream("mini-imagenet", 5, split),
    "split-mini-imagenet-10": KnownStream("mini-imagenet", 10, split),
    "split-mini-imagenet-20": KnownStream("mini-imagenet", 20, split),
}
"""The streams by name; a name of CIFAR-100 or miniImageNet ends with its number of tasks."""


def make_stream(name: str, data: Arrays, *, seed: int = 0) -> Stream:
    """Make a stream by name; split streams take the classes by their label.

    Args:
        name: one of ``STREAMS``.
        data: the arrays of the data set that the stream is made of, ``STREAMS[name].data``.
        seed: of permutations; no other stream has anything random.

    Raises:
        ValueError: there is no such stream, or the arrays do not suit it.

    Example:
        >>> STREAMS["permuted-fashion-mnist"].data, STREAMS["permuted-fashion-mnist"].tasks
        ('fashion-mnist', 10)
    """
    if name not in STREAMS:
        raise ValueError(f"stream={name!r}: must be one of {', '.join(STREAMS)}")
    known = STREAMS[name]
    drawn = {"seed": seed} if known.make is permuted else {}
    return known.make(data, known.tasks, name=name, **drawn)
