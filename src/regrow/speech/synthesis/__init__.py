"""Read speech made by speech synthesisers: known voices, texts and defects."""

from regrow.speech.synthesis.generate import Defects, generate

__all__ = ["Defects", "generate"]
