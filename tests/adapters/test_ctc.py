"""CTC models of transformers, as they are published, with random weights."""

from dataclasses import dataclass

import pytest
import torch

import regrow
from regrow.lab.run import Run
from regrow.speech.ctc import ctc_losses
from regrow.studies.speech.recognise import Recognise
from tests.speech.beeps import corpus

transformers = pytest.importorskip("transformers")
from regrow.adapters.ctc import CTCModel  # noqa: E402


def parakeet(units=7, blank=6):
    encoder = transformers.ParakeetEncoderConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        conv_kernel_size=5, subsampling_conv_channels=8, num_mel_bins=80, dropout=0.0,
        dropout_positions=0.0, layerdrop=0.0, activation_dropout=0.0, attention_dropout=0.0,
    )  # fmt: skip
    config = transformers.ParakeetCTCConfig(
        vocab_size=units, pad_token_id=blank, encoder_config=encoder.to_dict(),
        ctc_loss_reduction="none", ctc_zero_infinity=True,
    )  # fmt: skip
    return transformers.ParakeetForCTC(config)


def wav2vec(units=7, blank=0):
    config = transformers.Wav2Vec2ConformerConfig(
        vocab_size=units, pad_token_id=blank, hidden_size=32, num_hidden_layers=2,
        num_attention_heads=4, intermediate_size=64, conv_dim=(16, 16), conv_stride=(20, 16),
        conv_kernel=(20, 16), num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=4,
        feat_extract_norm="layer", do_stable_layer_norm=True, apply_spec_augment=False,
        ctc_loss_reduction="none", ctc_zero_infinity=True, hidden_dropout=0.0, layerdrop=0.0,
        attention_dropout=0.0, activation_dropout=0.0, feat_proj_dropout=0.0, final_dropout=0.0,
    )  # fmt: skip
    return transformers.Wav2Vec2ConformerForCTC(config)


CASES = {
    "parakeet": (parakeet, lambda n: torch.randn(n, 80), [96, 40, 24], 8, 6),
    "wav2vec": (wav2vec, torch.randn, [6400, 3200, 1600], 320, 0),
}


@pytest.mark.parametrize("name", CASES)
def test_losses_are_those_of_the_model_except_where_there_is_none(name):
    build, sound, lengths, stride, blank = CASES[name]
    own = build().eval()
    model = CTCModel(own).eval()
    inputs = torch.nn.utils.rnn.pad_sequence([sound(n) for n in lengths], batch_first=True)
    lengths = torch.tensor(lengths)
    # In our numbers: 0 is the blank. The last has five steps at most, and needs six.
    labels = torch.tensor([[1, 2, 2, 0, 0], [3, 0, 0, 0, 0], [1, 1, 1, 2, 2]])
    counts = torch.tensor([3, 1, 5])
    heard = model(inputs, lengths)
    assert heard.steps.tolist() == [-(-n // stride) for n in lengths.tolist()]
    losses, known = ctc_losses(heard.log_probs, heard.steps, labels, counts)
    assert known.tolist() == [True, True, False] and losses[2] == 0
    tokens = labels - 1 if blank == 6 else labels
    tokens = torch.where(labels > 0, tokens, -100)
    inside = (torch.arange(inputs.shape[1]) < lengths[:, None]).long()
    theirs = own(**{own.main_input_name: inputs}, attention_mask=inside, labels=tokens).loss
    torch.testing.assert_close(losses[:2], theirs[:2], rtol=1e-4, atol=1e-4)
    assert theirs[2] == 0  # as if it were the easiest


def test_padding_does_not_change_an_utterance():
    model = CTCModel(parakeet()).eval()
    frames = [torch.randn(n, 80) for n in (64, 24)]
    padded = torch.nn.utils.rnn.pad_sequence(frames, batch_first=True)
    both = model(padded, torch.tensor([64, 24]))
    alone = model(frames[1][None], torch.tensor([24]))
    torch.testing.assert_close(both.log_probs[1, :3], alone.log_probs[0], atol=1e-4, rtol=0)


def test_what_is_no_speech_model_is_refused():
    with pytest.raises(TypeError, match="model=Linear"):
        CTCModel(torch.nn.Linear(2, 2))


@dataclass(frozen=True, kw_only=True)
class Parakeet(Recognise):
    """Trains a model of transformers in the loop of all others."""

    stride = 8

    def build(self, source):
        return CTCModel(parakeet(source.speech.units.size, source.speech.units.size - 1))


def test_it_is_trained_by_the_same_trial(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    corpus(tmp_path / "learnt", 16, 0)
    trial = Parakeet(
        data=("learnt",), tests=("learnt",), units="words", method=regrow.SET(density=0.5),
        epochs=2, batch=8, seed=0, watched=0, time_keep=0.8, time_chunk=1,
    )  # fmt: skip
    (tmp_path / "run").mkdir()
    run = Run(tmp_path / "run", {"data_dir": str(tmp_path), "device": "cpu"})
    result = trial.run(run)
    assert result["density"] == pytest.approx(0.5, abs=0.02)
    assert result["loss"] > 0 and 0 <= result["wer"] <= 2
