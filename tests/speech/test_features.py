"""Log-mel frames against another program; features kept, shared, gathered."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

from regrow.speech import Corpus, Utterance
from regrow.speech import features as room
from regrow.speech.features import (
    Features,
    frames_in,
    log_mel,
    make_features,
    mel_filters,
    standardise,
)


def test_frames_equal_those_of_another_program(noise):
    audio = pytest.importorskip("transformers.audio_utils")
    filters = audio.mel_filter_bank(
        num_frequency_bins=201, num_mel_filters=80, min_frequency=20.0, max_frequency=8000.0,
        sampling_rate=16_000, norm=None, mel_scale="htk",
    )  # fmt: skip
    np.testing.assert_allclose(mel_filters(), filters, atol=1e-6)
    wanted = audio.spectrogram(
        noise.astype(np.float64), audio.window_function(400, "hann"), frame_length=400,
        hop_length=160, power=2.0, center=False, mel_filters=filters, mel_floor=1e-10,
        log_mel="log",
    )  # fmt: skip
    np.testing.assert_allclose(log_mel(torch.from_numpy(noise)), wanted.T, atol=1e-3)


def test_a_frame_is_the_power_of_its_own_samples(noise):
    frames = log_mel(torch.from_numpy(noise))
    some = noise[160 * 7 : 160 * 7 + 400] * np.hanning(401)[:400]  # periodic
    power = np.abs(np.fft.rfft(some)) ** 2 @ mel_filters().numpy()
    np.testing.assert_allclose(frames[7], np.log(power), atol=1e-3)


@pytest.mark.parametrize("samples", [400, 401, 559, 560, 16_000])
def test_frames_lie_whole_in_the_samples(samples):
    assert len(log_mel(torch.zeros(samples))) == frames_in(samples)


def test_less_than_a_frame_is_refused():
    with pytest.raises(ValueError, match="lasts 25 ms, and one frame 25 ms"):
        log_mel(torch.zeros(399))


def test_silence_and_loudness_are_taken_out(noise):
    samples = torch.from_numpy(noise)
    quiet, loud = (standardise(log_mel(volume * samples)) for volume in (0.1, 0.5))
    torch.testing.assert_close(quiet, loud, atol=1e-3, rtol=0)
    assert standardise(log_mel(torch.zeros(4000))).abs().max() == 0
    torch.testing.assert_close(loud.mean(0), torch.zeros(80), atol=1e-4, rtol=0)


@pytest.fixture
def corpus(recording, tmp_path):
    good = [Utterance(f"u{i}", recording(f"{i}.wav", 0.3 + 0.1 * i), "yes") for i in range(4)]
    (tmp_path / "broken.flac").write_bytes(b"fLaC but no more")
    bad = [
        Utterance("gone", tmp_path / "gone.wav", "no"),
        Utterance("broken", tmp_path / "broken.flac", "no"),
        Utterance("short", recording("short.wav", 0.02), "no"),
    ]
    return Corpus((*good[:2], *bad, *good[2:]))


def test_bad_audio_is_one_line_a_file_and_the_rest_goes_on(corpus):
    rest, features = make_features(corpus)
    assert [u.id for u in rest.utterances] == ["u0", "u1", "u2", "u3"]
    told = {one.name: one.why for one in rest.left_out}
    assert set(told) == {"gone", "broken", "short"}
    assert "gone.wav" in told["gone"] and "broken.flac" in told["broken"]
    assert "one frame" in told["short"]
    assert not any("\n" in why for why in told.values())
    for i, utterance in enumerate(rest.utterances):
        wanted = room.normalised(room.read_audio(utterance)).half()
        torch.testing.assert_close(features[i], wanted, atol=2e-3, rtol=0)


def test_features_come_from_the_cache_until_a_file_changes(corpus, recording, monkeypatch):
    calls = []
    before = room.read_audio
    monkeypatch.setattr(room, "read_audio", lambda u: calls.append(u.id) or before(u))
    monkeypatch.setattr(room, "_SHARD", 3)
    rest, first = make_features(corpus)
    assert sorted(calls) == sorted(u.id for u in corpus.utterances)
    calls.clear()
    again, second = make_features(corpus)
    assert not calls and again == rest and second.frames.equal(first.frames)
    recording("3.wav", 0.9)
    _, third = make_features(corpus)
    assert calls == ["u3"]  # its shard only
    assert third.lengths[3] > first.lengths[3] and third[0].equal(first[0])


def test_nothing_readable_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="not one of 1 utterances"):
        make_features(Corpus((Utterance("gone", tmp_path / "gone.wav"),)))


def test_two_processes_share_one_cache(corpus, tmp_path):
    """Both get the same features, whoever was first; none of them sees half a file."""
    code = f"""
        from pathlib import Path
        from regrow.speech import Corpus, Utterance
        from regrow.speech.features import make_features
        place = Path({str(tmp_path)!r})
        corpus = Corpus(tuple(Utterance(f"u{{i}}", place / f"{{i}}.wav") for i in range(4)))
        print(float(make_features(corpus)[1].frames.double().abs().sum()))
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [run.communicate()[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert said[0] == said[1] and float(said[0]) > 0


def test_gathered_utterances_are_padded_with_zeros():
    lengths = torch.tensor([3, 5, 2])
    frames = torch.arange(1.0, 11.0)[:, None].repeat(1, 80).half()
    features = Features(frames, lengths)
    found, n = features.padded(torch.tensor([2, 0]))
    assert n.tolist() == [2, 3]
    assert found[..., 0].tolist() == [[9, 10, 0], [1, 2, 3]]
    assert features.seconds == pytest.approx(0.1)
