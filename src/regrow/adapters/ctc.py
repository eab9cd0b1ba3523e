"""CTC models of transformers as recognisers: ``CTCModel(ParakeetForCTC(config))``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from regrow.speech.conformer import mask_of
from regrow.speech.recogniser import Heard

__all__ = ["CTCModel"]


class CTCModel(nn.Module):
    """A CTC model of transformers with the inputs and outputs of ``regrow.speech.Recogniser``.

    Its blank, which may be any token, becomes unit 0; tokens below it move up by one. Losses of
    utterances come from :func:`regrow.speech.ctc.ctc_losses`, which marks what cannot be aligned;
    the model's own loss calls it the easiest. A model that takes no notice of what is padded, such
    as Wav2Vec2 with group norms, lets it change an utterance's scores.

    Args:
        model: such as ``ParakeetForCTC``, which takes frames, or ``Wav2Vec2ConformerForCTC``, which
            takes samples.

    Raises:
        TypeError: it does not tell how many steps an utterance has.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        names = "_get_subsampling_output_length", "_get_feat_extract_output_lengths"
        self._lengths = next((name for name in names if hasattr(model, name)), "")
        if not self._lengths:
            raise TypeError(f"model={type(model).__name__}: no CTC model of speech of transformers")
        self.model = model
        blank, size = model.config.pad_token_id, model.config.vocab_size
        others = [token for token in range(size) if token != blank]
        self.register_buffer("tokens", torch.tensor([blank, *others]), persistent=False)

    def forward(self, inputs: Tensor, lengths: Tensor) -> Heard:
        """Recognise a batch.

        Args:
            inputs: shape (n, frames, mels) or (n, samples), as the model takes them.
            lengths: int64, shape (n,): frames or samples of each.
        """
        inside = mask_of(lengths, inputs.shape[1]).long()
        found = self.model(**{self.model.main_input_name: inputs}, attention_mask=inside)
        log_probs = found.logits.float().log_softmax(2)[..., self.tokens]
        return Heard(log_probs, getattr(self.model, self._lengths)(lengths).long(), None)
