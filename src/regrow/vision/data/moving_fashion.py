"""Moving Fashion: an action set that is rendered from Fashion-MNIST.

A clip shows a garment that does one of ten things: it moves left, right, up or down, turns
clockwise or counter-clockwise, grows, shrinks, circles, or shakes. That is the label. Which garment
it is, where it begins and how fast it is are random; no single frame tells the action (see
:func:`regrow.vision.data.actions.draw_poses`). What leaves a frame on one side comes in on the
other, and what has grown to its largest begins again at its smallest. 8,000 clips of garments that
Fashion-MNIST trains on are for training, 2,000 of those it tests on for testing: 16 frames of 32×32
grey pixels, as many clips of each action.

The set is our own, made to be small, exact and offline; no published figure belongs to it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from regrow.data.fashion_mnist import fashion_mnist_files, read_fashion_mnist
from regrow.data.kept import Arrays, kept
from regrow.data.places import Places
from regrow.data.trees import stamp
from regrow.engine.selection import seeded_generator
from regrow.vision.data.actions import ACTIONS, draw_poses, render
from regrow.vision.data.dataset import DataSet

__all__ = ["load_moving_fashion", "make_clips"]

_TRAIN, _TEST = 8000, 2000
_FRAMES, _SIZE = 16, 32
_RULE = 1  # raised when other clips are made of the same garments


def load_moving_fashion(places: Places) -> DataSet:
    """Load Moving Fashion; clips are rendered once from Fashion-MNIST, and kept.

    Args:
        places: where to look; Fashion-MNIST is looked for in its own folder beside it.
    """
    fashion = Places("fashion-mnist", places.data_dir, places.download)
    files = (*fashion_mnist_files(fashion, "train"), *fashion_mnist_files(fashion, "t10k"))
    clips = kept(f"moving-fashion-{_RULE}", [stamp(path) for path in files], lambda: _make(fashion))
    parts = {name: torch.from_numpy(array) for name, array in clips.items()}
    return DataSet(
        name="moving-fashion",
        train_inputs=parts["train"],
        train_labels=parts["train_labels"],
        test_inputs=parts["test"],
        test_labels=parts["test_labels"],
        classes=len(ACTIONS),
        source="Moving Fashion: garments of Fashion-MNIST (Xiao et al. 2017) that do one of ten "
        "things, rendered as clips of 16 frames of 32×32 grey pixels",
    )


def make_clips(
    garments: Tensor, count: int, *, seed: int, frames: int = _FRAMES, size: int = _SIZE
) -> tuple[Tensor, Tensor]:
    """Make clips of random garments; every action comes equally often, or once more.

    Args:
        garments: uint8, shape (n, height, width).
        count: how many clips.
        seed: another one, other clips.
        frames: of a clip, at least 2.
        size: side of a frame, in pixels.

    Returns:
        Clips, uint8, shape (count, 1, frames, size, size), and labels, int64: places in
        :data:`~regrow.vision.data.actions.ACTIONS`. The same on every machine, but for rounding.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> garments = torch.zeros(3, 28, 28, dtype=torch.uint8)
        >>> clips, labels = make_clips(garments, 20, seed=0)
        >>> tuple(clips.shape), labels.bincount().tolist()
        ((20, 1, 16, 32, 32), [2, 2, 2, 2, 2, 2, 2, 2, 2, 2])
    """
    if count < 1:
        raise ValueError(f"count={count}: must be at least 1")
    generator = seeded_generator(seed, "clips")
    labels = (torch.arange(count) % len(ACTIONS))[torch.randperm(count, generator=generator)]
    chosen = torch.randint(len(garments), (count,), generator=generator)
    return render(garments[chosen], draw_poses(labels, frames, generator), size), labels


def _make(fashion: Places) -> Arrays:
    train = make_clips(read_fashion_mnist(fashion, "train")[0], _TRAIN, seed=0)
    test = make_clips(read_fashion_mnist(fashion, "t10k")[0], _TEST, seed=1)
    names = ("train", "train_labels", "test", "test_labels")
    return {name: np.asarray(part) for name, part in zip(names, (*train, *test), strict=True)}
