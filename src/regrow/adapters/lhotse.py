"""Cuts of lhotse as corpora, and which of them an epoch has."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from regrow.machine import needed
from regrow.speech.utterances import Corpus, LeftOut, Utterance, gathered

with needed("lhotse", "lhotse"):
    from lhotse import CutSet, MonoCut

__all__ = ["chosen_cuts", "corpus_of"]


def corpus_of(cuts: Any) -> Corpus:
    """Return cuts of one supervision and one audio file as utterances, with the cuts' ids.

    Others are left out with a reason: save what is mixed, padded or changed by
    ``cuts.save_audios(folder)`` first.

    Args:
        cuts: a ``CutSet``.

    Raises:
        ValueError: there is no such cut.
    """

    def found() -> Iterator[Utterance | LeftOut]:
        for cut in cuts:
            sources = cut.recording.sources if isinstance(cut, MonoCut) and cut.recording else []
            plain = len(sources) == 1 and sources[0].type == "file" and not cut.recording.transforms
            if not plain or len(cut.supervisions) != 1:
                why = "is no single supervision of one plain file: cuts.trim_to_supervisions()"
                yield LeftOut(cut.id, f"{why}, cuts.save_audios(folder)")
                continue
            part, path = cut.supervisions[0], Path(sources[0].source)
            channel = cut.channel if cut.recording.num_channels > 1 else None
            names = part.text or "", part.speaker or "", part.gender or ""
            yield Utterance(cut.id, path, *names, cut.start, cut.duration, channel)

    return gathered(found(), "cuts")


def chosen_cuts(cuts: Any, ids: Collection[str]) -> Any:
    """Return a lazy ``CutSet`` of the cuts that are chosen, for any of lhotse's samplers.

    Args:
        cuts: a ``CutSet``.
        ids: of those chosen, such as the ids that :class:`regrow.samples.Samples` keeps.
    """
    return CutSet(cuts).filter(_Among(frozenset(ids)))


class _Among:
    """Whether a cut is one of some; can be sent to other processes."""

    def __init__(self, ids: frozenset[str]) -> None:
        self.ids = ids

    def __call__(self, cut: Any) -> bool:
        return cut.id in self.ids
