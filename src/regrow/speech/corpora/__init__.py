"""Readers of speech corpora in their published formats."""

from regrow.speech.corpora.catalogue import open_corpus

__all__ = ["open_corpus"]
