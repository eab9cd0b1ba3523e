"""Glosses of WordNet's nouns as a data set: what kind of thing is it that a dictionary explains?"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from pathlib import Path

import torch
from torch import Tensor

from regrow.data.places import Places
from regrow.machine import needed
from regrow.speech.synthesis.phrases import read_glosses
from regrow.vision.data import DataSet

__all__ = ["load_glosses"]

# WordNet's ten largest lexicographer files of nouns, by number.
_KINDS = {
    4: "act",
    5: "animal",
    6: "artifact",
    7: "attribute",
    10: "communication",
    15: "location",
    18: "person",
    20: "plant",
    26: "state",
    27: "substance",
}
_TEST, _TRAIN = 500, 2000  # glosses of each kind
_WORDS = 2048  # places that words are hashed to
_FILE = "data.noun"


def load_glosses(data_dir: str | Path | None = None) -> DataSet:
    """Load glosses of WordNet's nouns, of which the kind of thing is to be told: ten classes.

    A class is one of WordNet's ten largest lexicographer files of nouns: act, animal, artifact,
    attribute, communication, location, person, plant, state, substance. Of each 2,000 glosses are
    for training and 500 for testing, by a hash of the text alone, so that no text is in both parts.
    One that explains things of two kinds is left out.

    A text is a bag of words, hashed with signs to 2,048 places and of length 1 (Weinberger and
    others 2009, as scikit-learn's ``HashingVectorizer`` does it).

    Args:
        data_dir: the folder that holds a folder ``wordnet``; else the usual places, to which
            belongs where Debian's ``wordnet-base`` puts it.

    Raises:
        FileNotFoundError: ``data.noun`` is nowhere.
        ValueError: it is damaged, or holds too few glosses of a kind.
        ImportError: scikit-learn is missing.
    """
    path = Places("wordnet", data_dir).file((_FILE,), "install Debian's package wordnet-base")
    kinds = defaultdict(set)
    for kind, gloss in read_glosses(path):
        kinds[gloss].add(kind)
    texts: dict[str, list[str]] = {"train": [], "test": []}
    for kind, name in _KINDS.items():
        own = sorted((gloss for gloss, of in kinds.items() if of == {kind}), key=_hashed)
        if len(own) < _TEST + _TRAIN:
            raise ValueError(
                f"{path}: {len(own)} glosses of noun.{name}, and {_TEST + _TRAIN} are needed: take "
                "WordNet 3.0 or later"
            )
        texts["test"] += own[:_TEST]
        texts["train"] += own[_TEST : _TEST + _TRAIN]
    labels = torch.arange(len(_KINDS))
    return DataSet(
        name="wordnet",
        train_inputs=_bags(texts["train"]),
        train_labels=labels.repeat_interleave(_TRAIN),
        test_inputs=_bags(texts["test"]),
        test_labels=labels.repeat_interleave(_TEST),
        classes=len(_KINDS),
        source="glosses of WordNet's nouns, ten kinds of things; bags of words, hashed",
    )


def _hashed(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _bags(texts: list[str]) -> Tensor:
    with needed("scikit-learn", "vision"):
        from sklearn.feature_extraction.text import HashingVectorizer  # noqa: PLC0415
    return torch.from_numpy(HashingVectorizer(n_features=_WORDS).transform(texts).toarray()).float()
