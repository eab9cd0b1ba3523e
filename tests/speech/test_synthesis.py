"""Read speech: voices that are held out, defects that are known, the same whoever makes it."""

import json
import time

import numpy as np
import pytest

from regrow.speech import open_corpus
from regrow.speech.audio import read_audio
from regrow.speech.synthesis import Defects, generate
from regrow.speech.synthesis.generate import add_noise
from regrow.speech.synthesis.phrases import read_phrases
from regrow.speech.synthesis.voices import Voice, espeak_voices, speak

pytest.importorskip("espeakng_loader")

PHRASES = ["the tea is hot", "all is well with us", "go home now please", "two and two are four"]


@pytest.fixture
def phrases(tmp_path):
    path = tmp_path / "phrases.txt"
    path.write_text("\n".join([*PHRASES, "No 5 here", "two words", "naïve men say so"]))
    return path


def test_phrases_are_plain_words_in_one_part_only(phrases):
    whole = read_phrases(phrases)
    assert sorted(whole) == sorted(PHRASES)
    parts = [read_phrases_or_none(phrases, part) for part in ("train", "test")]
    assert sorted(parts[0] + parts[1]) == sorted(PHRASES)
    with pytest.raises(ValueError, match="part='dev'"):
        read_phrases(phrases, "dev")


def read_phrases_or_none(path, part):
    return [p for p in read_phrases(path) if p in read_phrases(path, part)]


def test_quotes_of_wordnet(tmp_path):
    line = '00001 04 n 01 tea 0 000 | a drink; "she drank the tea"; "hot 3 times"; "he said so; ok"'
    for name in ("data.noun", "data.verb", "data.adj", "data.adv"):
        (tmp_path / name).write_text(f"  1 a licence\n{line}\n")
    assert sorted(read_phrases(tmp_path)) == ["he said so ok", "she drank the tea"]
    (tmp_path / "data.adv").unlink()
    with pytest.raises(FileNotFoundError, match=r"data\.adv.*wordnet-base"):
        read_phrases(tmp_path)


def test_voices_of_tests_speak_in_no_training():
    train, test = ({v.split("+")[1] for v in espeak_voices(part)} for part in ("train", "test"))
    assert len(train) > 70 and len(test) > 15 and not train & test


def test_voices_differ_and_repeat():
    low, high = (speak(Voice("espeak", v), "good day") for v in ("en-us+m3", "en-gb-scotland+f2"))
    again = speak(Voice("espeak", "en-us+m3"), "good day")
    assert np.abs(low).max() > 0.05 and len(low) > 4000
    assert np.array_equal(low, again) and not np.array_equal(low, high)
    breath = speak(Voice("espeak", "en-us+whisperf"), "good day")
    time.sleep(1.1)  # its noise began with the clock's second
    assert np.array_equal(breath, speak(Voice("espeak", "en-us+whisperf"), "good day"))
    slow = speak(Voice("espeak", "en-us+m3", speed=90), "good day")
    assert len(slow) > 1.3 * len(low)
    for wrong in ("en-us+nobody", "xx+f1"):
        with pytest.raises(ValueError, match=r"voice '.*eSpeak NG has no"):
            speak(Voice("espeak", wrong), "good day")


def lines(manifest):
    return [json.loads(line) for line in manifest.read_text().splitlines()]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    defects = Defects(noisy=0.3, wrong=0.3, copies=0.3)
    voices = ["en-us+f1", "en-us+m3"]
    return generate(folder, voices, PHRASES, hours=0.02, defects=defects, words=(3, 6), seed=1)


def test_what_is_wrong_is_known(made):
    rows = {row["id"]: row for row in lines(made)}
    groups = {group: [r for r in rows.values() if r["group"] == group] for group in
              ("clean", "noisy", "wrong", "copy")}  # fmt: skip
    assert all(len(of) >= 2 for of in groups.values())
    for row in groups["wrong"]:
        assert row["spoken"] != row["text"]
    for row in groups["copy"]:
        first = rows[row["copy_of"]]
        both = [(made.parent / r["audio_filepath"]).read_bytes() for r in (row, first)]
        assert both[0] == both[1] and row["text"] == first["text"]
    assert all(-5 <= row["snr"] <= 20 for row in groups["noisy"])


def test_it_is_a_corpus_with_the_hours_that_were_asked_for(made):
    corpus = open_corpus(made.parent)
    assert not corpus.left_out and len(corpus) == len(lines(made))
    seconds = [len(read_audio(u)) / 16_000 for u in corpus.utterances]
    assert 72 <= sum(seconds) < 72 + max(seconds)
    assert {u.speaker for u in corpus.utterances} == {"en-us+f1", "en-us+m3"}
    files = {path.stem for path in (made.parent / "audio").iterdir()}
    assert files == {u.id for u in corpus.utterances}


@pytest.mark.long
@pytest.mark.slow
def test_several_processes_make_the_same(made, tmp_path):
    defects = Defects(noisy=0.3, wrong=0.3, copies=0.3)
    voices = ["en-us+f1", "en-us+m3"]
    again = generate(
        tmp_path, voices, PHRASES, hours=0.02, defects=defects, words=(3, 6), seed=1, workers=2
    )
    assert again.read_bytes() == made.read_bytes()
    for row in lines(made):
        one, two = ((m.parent / row["audio_filepath"]).read_bytes() for m in (made, again))
        assert one == two


def test_noise_has_the_power_that_was_asked_for(noise):
    for snr in (-5.0, 10.0):
        added = add_noise(noise, snr, 0) - noise
        power = np.mean(noise**2) / np.mean(added**2)
        assert 10 * np.log10(power) == pytest.approx(snr, abs=0.01)


def test_what_cannot_be_made_is_refused(tmp_path, made):
    for wrong in ({"hours": 0.0}, {"engine": "echo"}, {"workers": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            generate(tmp_path, ["en-us+f1"], PHRASES, **({"hours": 0.01} | wrong))
    with pytest.raises(ValueError, match="0 voices"):
        generate(tmp_path, [], PHRASES, hours=0.01)
    with pytest.raises(ValueError, match="manifest"):
        generate(made.parent, ["en-us+f1"], PHRASES, hours=0.01)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"folder=.*Not a directory; name a folder"):
        generate(tmp_path / "file", ["en-us+f1"], PHRASES, hours=0.01)
    with pytest.raises(ValueError, match="shares"):
        Defects(noisy=0.7, wrong=0.7)
