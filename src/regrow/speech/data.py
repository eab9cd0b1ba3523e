"""From corpora to what a recogniser is trained and tested on."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from regrow.engine.selection import random_k, seeded_generator
from regrow.reading import is_there
from regrow.speech.conformer import STRIDE, steps_of
from regrow.speech.corpora import open_corpus
from regrow.speech.ctc import feasible, needed_steps, pad_labels
from regrow.speech.features import HOP, Features, make_features
from regrow.speech.units import Units, make_units
from regrow.speech.utterances import Corpus, LeftOut, Utterance, normalise_text

__all__ = ["Learnt", "Part", "Speech", "fingerprint", "labelled", "open_part", "open_speech"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Part:
    """Utterances with their features and normalised transcripts.

    Args:
        utterances: which.
        features: of each.
        texts: of each, normalised.
        others: features of the same at other speeds.
    """

    utterances: tuple[Utterance, ...]
    features: Features
    texts: tuple[str, ...]
    others: tuple[Features, ...] = ()

    def __len__(self) -> int:
        return len(self.utterances)

    def only(self, mask: Tensor) -> Part:
        """Return some of the utterances.

        Args:
            mask: bool, shape (utterances,), True = kept.
        """
        kept = mask.tolist()
        both = zip(self.utterances, self.texts, kept, strict=True)
        pairs = [(utterance, text) for utterance, text, keep in both if keep]
        others = tuple(other.only(mask) for other in self.others)
        utterances, texts = tuple(u for u, _ in pairs), tuple(t for _, t in pairs)
        return Part(utterances, self.features.only(mask), texts, others)


@dataclass(frozen=True, eq=False)
class Learnt(Part):
    """Utterances to learn from: every one of them can be aligned with its labels.

    Args:
        labels: int64, shape (utterances, longest), filled up with 0.
        label_lengths: int64, shape (utterances,).
    """

    labels: Tensor = field(kw_only=True)
    label_lengths: Tensor = field(kw_only=True)


@dataclass(frozen=True, eq=False)
class Speech:
    """Speech to train and test on.

    Args:
        learnt: what is learnt from.
        watched: set apart from the corpora that are learnt from, to be watched; None: nothing.
        tests: corpora to test on, by name.
        units: that are written.
        left_out: all that cannot be used, with a reason each.
    """

    learnt: Learnt
    watched: Part | None
    tests: Mapping[str, Part]
    units: Units
    left_out: tuple[LeftOut, ...]


def open_speech(
    corpora: Sequence[Path],
    tests: Mapping[str, Path],
    *,
    units: str | Units = "characters",
    unit_count: int = 500,
    watched: int = 0,
    speeds: Sequence[float] = (),
    longest: float = 35.0,
    stride: int = STRIDE,
    seed: int = 0,
    device: torch.device | str = "cpu",
    workers: int = 2,
) -> Speech:
    """Read corpora, compute their features or take them from the cache, and label them.

    What cannot be used is left out, with a warning that names it: audio that is damaged or missing,
    empty transcripts, and of what is learnt from also utterances too long, or too short to be
    aligned with their labels. Nothing of the tests is left out for its length.

    Args:
        corpora: to learn from.
        tests: to test on, by name.
        units: "characters", "words" or "pieces", made from the transcripts that are learnt; or
            units that are there.
        unit_count: of words or pieces at most.
        watched: utterances set apart from those to learn from; a tenth of them at most.
        speeds: other than 1, at which they are learnt from, too.
        longest: utterance that is learnt from, in seconds.
        stride: frames of a step of the recogniser.
        seed: of which are set apart.
        device: where features are computed.
        workers: threads that read audio.

    Raises:
        FileNotFoundError: there is no such corpus.
        ValueError: nothing can be used.
    """
    parts, left = [], []
    for path in corpora:
        part, out = open_part(path, speeds=speeds, device=device, workers=workers)
        parts.append(_named(part, path) if len(corpora) > 1 else part)
        left += out
    whole = _joined(parts)
    apart = min(watched, len(whole) // 10)
    everyone = torch.ones(len(whole), dtype=torch.bool)
    set_apart = random_k(apart, everyone, seeded_generator(seed, "watched"))
    if isinstance(units, str):
        units = make_units(units, whole.texts, unit_count)
    learnt, out = labelled(whole.only(~set_apart), units, longest, stride)
    opened = {}
    for name, path in tests.items():
        opened[name], more = open_part(path, device=device, workers=workers)
        left += more
    for one in out:
        logger.warning("left out: %s", one)
    return Speech(learnt, whole.only(set_apart) if apart else None, opened, units, (*left, *out))


def open_part(
    path: Path,
    *,
    speeds: Sequence[float] = (),
    device: torch.device | str = "cpu",
    workers: int = 2,
) -> tuple[Part, list[LeftOut]]:
    """Read a corpus with its features; what cannot be used is left out, and warned of.

    Args:
        path: of the corpus.
        speeds: other than 1, for which features are computed, too.
        device: where features are computed.
        workers: threads that read audio.

    Returns:
        What can be used, and what not.
    """
    return usable(open_corpus(path), speeds=speeds, device=device, workers=workers, where=path)


def usable(
    corpus: Corpus,
    *,
    speeds: Sequence[float] = (),
    device: torch.device | str = "cpu",
    workers: int = 2,
    where: object = "corpus",
) -> tuple[Part, list[LeftOut]]:
    """Compute the features of a corpus; see :func:`open_part`. ``where`` names it in an error.

    Raises:
        ValueError: nothing can be used.
    """
    texts = {u.id: normalise_text(u.text) for u in corpus.utterances}
    empty = [
        LeftOut(name, "its transcript is empty: write one, or take it out of the table")
        for name, text in texts.items()
        if not text
    ]
    spoken = corpus.without(empty)
    if not spoken.utterances:
        raise ValueError(f"{where}: not one of {len(corpus)} utterances has a transcript: add them")
    rest, features = make_features(spoken, device=device, workers=workers)
    for one in rest.left_out:
        logger.warning("left out: %s", one)
    said = tuple(texts[u.id] for u in rest.utterances)
    left = list(rest.left_out)
    others = []
    for speed in speeds:
        again, other = make_features(
            Corpus(rest.utterances), speed=speed, device=device, workers=workers
        )
        if again.left_out:  # it could be read before
            raise ValueError(f"a file was changed while it was read: {again.left_out[0]}")
        others.append(other)
    return Part(rest.utterances, features, said, tuple(others)), left


def labelled(
    part: Part, units: Units, longest: float = 35.0, stride: int = STRIDE
) -> tuple[Learnt, list[LeftOut]]:
    """Label utterances; those that are too long, or cannot be aligned, are left out.

    Args:
        part: the utterances.
        units: that their transcripts are written in.
        longest: in seconds.
        stride: frames of a step of the recogniser.

    Returns:
        What can be learnt from, and what not.

    Raises:
        ValueError: nothing can be learnt from.
    """
    labels, lengths = pad_labels([units.encode(text) for text in part.texts])
    steps = steps_of(part.features.lengths, stride)
    short = part.features.lengths * HOP <= longest
    fits = feasible(steps, labels, lengths)
    left = []
    for i in (~(short & fits)).nonzero().squeeze(1).tolist():
        if not short[i]:
            why = (
                f"lasts {float(part.features.lengths[i]) * HOP:.1f} s, more than longest={longest}"
            )
        else:
            needed = int(needed_steps(labels[i : i + 1], lengths[i : i + 1]))
            why = (
                f"{int(lengths[i])} labels need {needed} steps, and it has {int(steps[i])}: "
                "too short for its transcript, or choose larger units"
            )
        left.append(LeftOut(part.utterances[i].id, why))
    kept = short & fits
    if not kept.any():
        raise ValueError(f"not one of {len(part)} utterances can be learnt from; {left[0]}")
    rest = part.only(kept)
    lengths = lengths[kept]
    labels = labels[kept][:, : int(lengths.max())]
    whole = rest.utterances, rest.features, rest.texts, rest.others
    return Learnt(*whole, labels=labels, label_lengths=lengths), left


def _named(part: Part, path: Path) -> Part:
    """Name utterances by their corpus, too: two corpora may have the same ids."""
    named = (replace(u, id=f"{path.name}/{u.id}") for u in part.utterances)
    return replace(part, utterances=tuple(named))


def _joined(parts: Sequence[Part]) -> Part:
    if len(parts) == 1:
        return parts[0]
    return Part(
        tuple(u for part in parts for u in part.utterances),
        Features.joined([part.features for part in parts]),
        tuple(t for part in parts for t in part.texts),
        tuple(map(Features.joined, zip(*(part.others for part in parts), strict=True))),
    )


def fingerprint(paths: Sequence[Path]) -> str:
    """Return 16 hexadecimal digits that change with utterances of corpora or sizes of their files.

    Raises:
        FileNotFoundError: there is no such corpus.
        ValueError: there is no utterance.
    """
    digest = hashlib.sha256()
    for path in paths:
        for u in open_corpus(path).utterances:
            size = u.audio.stat().st_size if is_there(u.audio) else -1
            digest.update(repr((u.id, u.text, u.start, u.duration, size)).encode())
    return digest.hexdigest()[:16]
