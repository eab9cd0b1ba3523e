"""A recogniser of speech: a Conformer, an output for CTC, and maybe an attention decoder."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from regrow.speech.conformer import Conformer, mask_of
from regrow.speech.specaugment import SpecAugment
from regrow.speech.units import BLANK

__all__ = ["SIZES", "Heard", "Recogniser", "Shape"]


class Heard(NamedTuple):
    """What a recogniser puts out for a batch.

    Args:
        log_probs: float32, shape (n, steps, units): of CTC.
        steps: int64, shape (n,): of each utterance.
        scores: of the decoder, shape (n, longest + 1, units), unit 0 being the end; None without
            a decoder or without labels to continue.
        middle: as log_probs, after half of the blocks; None where nobody learns from it.
    """

    log_probs: Tensor
    steps: Tensor
    scores: Tensor | None
    middle: Tensor | None = None


@dataclass(frozen=True)
class Shape:
    """A recogniser's shape.

    Args:
        width: of a step.
        layers: of the Conformer.
        heads: of attention.
        kernel: of convolutions over time.
        channels: of the convolutions that subsample.
        decoder: layers of the attention decoder; 0: there is none.
    """

    width: int
    layers: int
    heads: int
    kernel: int = 31
    channels: int = 128
    decoder: int = 0

    def told(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


SIZES = {
    "tiny": Shape(64, 2, 4, 7, 8),
    "1m": Shape(96, 5, 4, 15, 32),
    "5m": Shape(144, 10, 4, 31, 64),
    "13m": Shape(192, 14, 4, 31, 96),
    "41m": Shape(320, 16, 8, 31, 160),
    "130m": Shape(512, 20, 8, 31, 256),
    "243m": Shape(768, 12, 12, 31, 256, decoder=6),
}
"""Shapes by their parameters with about 30 units; "tiny" has 0.2 M. The largest is that of
auto_avsr's base model, with 5,049 units, log-mel frames in place of its learnt frontend."""


class Recogniser(nn.Module):
    """Turns frames of speech into scores of units.

    Args:
        units: how many, the blank included.
        shape: of the network.
        dropout: of all layers.
        augment: hide parts of utterances in training.
        middle: score the steps after half of the blocks, too, in training.

    Example:
        >>> model = Recogniser(5, Shape(16, 1, 2, 3, 4)).eval()
        >>> heard = model(torch.zeros(2, 8, 80), torch.tensor([8, 4]))
        >>> heard.log_probs.shape, heard.steps.tolist(), heard.scores
        (torch.Size([2, 2, 5]), [2, 1], None)
    """

    def __init__(
        self,
        units: int,
        shape: Shape,
        dropout: float = 0.1,
        augment: bool = True,
        middle: bool = False,
    ) -> None:
        super().__init__()
        self.middle = middle
        self.augment = SpecAugment() if augment else None
        self.encoder = Conformer(
            shape.width,
            shape.layers,
            shape.heads,
            kernel=shape.kernel,
            channels=shape.channels,
            dropout=dropout,
        )
        self.head = nn.Linear(shape.width, units)
        self.decoder = (
            AttentionDecoder(units, shape.width, shape.heads, shape.decoder, dropout)
            if shape.decoder
            else None
        )

    def forward(self, frames: Tensor, lengths: Tensor, labels: Tensor | None = None) -> Heard:
        """Recognise a batch.

        Args:
            frames: shape (n, frames, mels), normalised; what is beyond an end is 0.
            lengths: int64, shape (n,): frames of each.
            labels: int64, shape (n, longest), filled up with 0: what the decoder continues.
        """
        if self.augment is not None:
            frames = self.augment(frames, lengths)
        x, half, steps = self.encoder.halves(frames, lengths)
        log_probs = self._scored(x)
        scores = None
        if self.decoder is not None and labels is not None:
            scores = self.decoder(labels, x, mask_of(steps, x.shape[1]))
        middle = self._scored(half) if self.middle and self.training else None
        return Heard(log_probs, steps, scores, middle)

    def _scored(self, steps: Tensor) -> Tensor:
        scores: Tensor = self.head(steps).float().log_softmax(2)
        return scores


class AttentionDecoder(nn.Module):
    """A Transformer that writes unit after unit, attending to the encoder's steps.

    Args:
        units: how many; unit 0 begins and ends a text.
        width: of the encoder's steps.
        heads: of attention.
        layers: how many.
        dropout: of all layers.

    Source: Vaswani et al. 2017, with layer norms before each part.
    """

    def __init__(self, units: int, width: int, heads: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(units, width)
        layer = nn.TransformerDecoderLayer(
            width, heads, 4 * width, dropout, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerDecoder(layer, layers, nn.LayerNorm(width))
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(width, units)
        self.width = width

    def forward(self, labels: Tensor, steps: Tensor, inside: Tensor) -> Tensor:
        """Score what comes after each beginning of the labels.

        Args:
            labels: int64, shape (n, longest), filled up with 0.
            steps: shape (n, steps, width), of the encoder.
            inside: bool, shape (n, steps).

        Returns:
            Shape (n, longest + 1, units): at i of what comes after i labels.
        """
        begun = nn.functional.pad(labels, (1, 0), value=BLANK)
        n = begun.shape[1]
        x = self.embedding(begun) * math.sqrt(self.width) + _places(n, self.width, steps.device)
        later = torch.ones(n, n, dtype=torch.bool, device=steps.device).triu(1)
        x = self.layers(
            self.dropout(x).to(steps.dtype),
            steps,
            tgt_mask=later,
            memory_key_padding_mask=~inside,
        )
        return self.out(x)  # type: ignore[no-any-return]


def _places(length: int, width: int, device: torch.device) -> Tensor:
    place = torch.arange(length, device=device, dtype=torch.float32)[:, None]
    rates = torch.exp(
        torch.arange(0, width, 2, device=device, dtype=torch.float32) * (-math.log(1e4) / width)
    )
    return torch.stack([(place * rates).sin(), (place * rates).cos()], dim=-1).flatten(1)
