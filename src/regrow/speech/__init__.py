"""Speech recognition: corpora, features, a Conformer, and pruning of utterances and of time."""

from regrow.speech.conformer import Conformer
from regrow.speech.corpora import open_corpus
from regrow.speech.granularity import TimePruning
from regrow.speech.recogniser import SIZES, Recogniser, Shape
from regrow.speech.utterances import Corpus, LeftOut, Utterance

__all__ = [
    "SIZES",
    "Conformer",
    "Corpus",
    "LeftOut",
    "Recogniser",
    "Shape",
    "TimePruning",
    "Utterance",
    "open_corpus",
]
