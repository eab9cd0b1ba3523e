"""Audio: formats, rates, channels, parts; files that are damaged, short, or no audio."""

from pathlib import Path

import numpy as np
import pytest

from regrow.reading import UnreadableError
from regrow.speech.audio import read_audio, read_samples, resample, write_audio
from regrow.speech.utterances import Utterance
from tests.speech.recordings import tone, write


def test_formats_hold_the_same_sound(tmp_path, noise):
    for ending in (".wav", ".flac"):
        write_audio(tmp_path / f"a{ending}", noise)
        found, rate = read_samples(tmp_path / f"a{ending}")
        assert rate == 16_000
        np.testing.assert_allclose(found, noise, atol=2**-15)


def test_opus_is_close(tmp_path):
    write_audio(tmp_path / "a.opus", tone(1.0))
    found = read_audio(Utterance("a", tmp_path / "a.opus"))
    assert len(found) == 16_000
    assert np.corrcoef(found[1000:-1000], tone(1.0)[1000:-1000])[0, 1] > 0.99


def test_a_part_is_cut_where_its_times_say(tmp_path, noise):
    write_audio(tmp_path / "a.wav", noise)
    found = read_audio(Utterance("a", tmp_path / "a.wav", start=0.25, duration=0.5))
    np.testing.assert_allclose(found, noise[4000:12000], atol=2**-15)


def test_channels_are_averaged_or_chosen(tmp_path):
    two = np.stack([tone(), -0.5 * tone()], axis=1)
    write(tmp_path / "a.wav", two)
    mean, second = (read_samples(tmp_path / "a.wav", channel=c)[0] for c in (None, 1))
    np.testing.assert_allclose(mean, 0.25 * tone(), atol=1e-4)
    np.testing.assert_allclose(second, -0.5 * tone(), atol=1e-4)
    with pytest.raises(UnreadableError, match="has 2 channels, not 3"):
        read_samples(tmp_path / "a.wav", channel=2)


@pytest.mark.parametrize("rate", [8000, 22050, 44100])
def test_another_rate_keeps_pitch_and_length(recording, rate):
    found = read_audio(Utterance("a", recording(rate=rate)))
    assert len(found) == 16_000
    spectrum = np.abs(np.fft.rfft(found))
    assert spectrum.argmax() == 440
    inside = slice(800, -800)
    np.testing.assert_allclose(found[inside], tone()[inside], atol=5e-3)


def test_the_same_rate_changes_nothing(noise):
    assert resample(noise, 16_000, 16_000) is noise


@pytest.mark.parametrize("kind", [".flac", ".opus", ".wav", ".mp3"])
def test_a_truncated_file_is_named(recording, kind):
    how = {"format": "OGG", "subtype": "OPUS"} if kind == ".opus" else {}
    path = recording(f"a{kind}", seconds=3.0, **how)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    try:
        found, _ = read_samples(path)
    except UnreadableError as error:
        assert path.name in str(error)
    else:  # a wave file's length is counted from what is there, and so is that of MPEG's frames
        assert kind in (".wav", ".mp3", ".opus") and 0 < len(found) < 48_000


def test_a_truncated_flac_is_damaged(recording):
    path = recording("a.flac", seconds=3.0)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UnreadableError, match=r"a\.flac is damaged"):
        read_samples(path)


def test_what_is_no_audio_is_named(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(b"no audio at all")
    with pytest.raises(UnreadableError, match=r"a\.wav is damaged"):
        read_samples(path)
    with pytest.raises(FileNotFoundError, match=r"gone\.wav"):
        read_samples(tmp_path / "gone.wav")
    with pytest.raises(UnreadableError, match="folder"):
        read_samples(tmp_path)


def test_times_beyond_the_end_are_refused(recording):
    path = recording(seconds=1.0)
    with pytest.raises(UnreadableError, match=r"lasts 1\.00 s, and 3\.00 s are needed"):
        read_samples(path, start=2.0, duration=1.0)
    assert len(read_samples(path, duration=1.01)[0]) == 16_000  # tables round


def test_samples_that_are_no_numbers_are_damage(tmp_path):
    samples = tone()
    samples[5] = np.nan
    write(tmp_path / "a.wav", samples, subtype="FLOAT")
    with pytest.raises(UnreadableError, match="no numbers"):
        read_samples(tmp_path / "a.wav")


def test_an_empty_file_has_no_sound(tmp_path):
    write(tmp_path / "a.wav", tone()[:0])
    with pytest.raises(UnreadableError, match="no sound"):
        read_audio(Utterance("a", tmp_path / "a.wav"))


def test_the_sound_of_a_video(tmp_path):
    av = pytest.importorskip("av")
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        for start in range(0, 16_000, 1000):
            part = tone()[None, start : start + 1000]
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16_000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    found = read_audio(Utterance("a", path))
    assert abs(len(found) - 16_000) < 2200
    assert abs(np.abs(np.fft.rfft(found, 16_000)).argmax() - 440) <= 1
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(UnreadableError, match=r"a\.mp4"):
        read_audio(Utterance("a", path))


def test_a_path_that_is_no_recording_at_all():
    with pytest.raises(FileNotFoundError):
        read_audio(Utterance("a", Path("/nowhere/a.flac")))
