"""Names for people: what data and models are called in headings and captions."""

from __future__ import annotations

import re

__all__ = ["in_words"]

_NAMES = {
    r"mlp-(\d+(?:-\d+)*)": r"MLP \1",
    r"resnet(\d+)": r"ResNet-\1",
    r"vgg(\d+)": r"VGG-\1",
    r"lenet5": "LeNet-5",
    r"small-conv3d": "small 3D CNN",
    r"small-conv": "small CNN",
    r"conv-net": "CNN",
    r"moving-fashion": "moving Fashion-MNIST",
    r"fashion-mnist": "Fashion-MNIST",
    r"spoken-digits": "spoken digits",
    r"wordnet": "WordNet glosses",
    r"cifar(\d+)": r"CIFAR-\1",
    r"mini-imagenet": "mini-ImageNet",
    r"tiny-imagenet": "Tiny ImageNet",
    r"(split|permuted)-": r"\1 ",
    r"cartpole-swingup": "cart-pole swing-up",
    r"(walker|quadruped)-walk": r"\1, walking",
    r"cheetah-run": "cheetah, running",
    r"point-mass": "point mass",
}


def in_words(name: str) -> str:
    """Write the names of data and models that are in a text as people write them.

    Example:
        >>> in_words("mlp-300-100 on permuted-fashion-mnist"), in_words("resnet20 on split-cifar10")
        ('MLP 300-100 on permuted Fashion-MNIST', 'ResNet-20 on split CIFAR-10')
    """
    for known, words in _NAMES.items():
        name = re.sub(rf"\b{known}", words, name)
    return name
