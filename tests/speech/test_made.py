"""Corpora that are made when asked for: the same whoever asks, strings of real recordings."""

import gzip
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from regrow.speech import open_corpus
from regrow.speech.audio import read_audio
from regrow.speech.synthesis.made import DIGITS, Made
from tests.speech.recordings import tone, write


@pytest.fixture
def digits(tmp_path):
    """Recordings of two speakers: a tone a digit, at 8 kHz."""
    for speaker in ("tom", "ann"):
        for digit in range(3):
            for index in (0, 1, 5, 6, 7):
                place = tmp_path / "free-spoken-digit-dataset" / "recordings"
                place.mkdir(parents=True, exist_ok=True)
                sound = tone(0.2 + 0.05 * digit, 8000, 300 + 200 * digit)
                write(place / f"{digit}_{speaker}_{index}.wav", sound, 8000)
    return tmp_path


def test_strings_are_recordings_of_one_speaker_one_after_the_other(digits):
    folder = Made(what="strings", part="train", words=(2, 4)).folder(digits)
    corpus = open_corpus(folder)
    words = [u.text.split() for u in corpus.utterances]
    assert sum(map(len, words)) in range(16, 19)  # 18 recordings; one that is left over has no pair
    assert all(2 <= len(said) <= 4 and set(said) <= set(DIGITS[:3]) for said in words)
    for utterance in corpus.utterances:
        said = utterance.text.split()
        assert utterance.speaker in ("tom", "ann") and utterance.group == f"{len(said)} words"
        sounds = sum(0.2 + 0.05 * DIGITS.index(word) for word in said)
        seconds = len(read_audio(utterance)) / 16_000
        assert sounds + 0.05 * (len(said) + 1) <= seconds + 0.01
        assert seconds <= sounds + 0.25 * (len(said) + 1) + 0.01


def test_rounds_use_each_recording_in_other_strings(digits):
    one, two = (
        open_corpus(Made(what="strings", part="train", words=(2, 2), rounds=n).folder(digits))
        for n in (1, 2)
    )
    assert len(two) == 2 * len(one)
    halves = [[u.text for u in two.utterances[:9]], [u.text for u in two.utterances[len(one) :]]]
    assert halves[0][: len(one)] == [u.text for u in one.utterances] and halves[0] != halves[1]


def test_test_and_training_share_no_recording(digits):
    test = open_corpus(Made(what="strings", part="test", words=(1, 1)).folder(digits))
    assert len(test) == 2 * 3 * 2  # index 0 and 1
    assert {u.group for u in test.utterances} == {"1 word"}


def test_strings_have_the_defects_that_were_asked_for(digits):
    made = Made(
        what="strings", part="train", words=(2, 2), rounds=9, wrong=0.3, copies=0.2, noisy=0.2
    )
    folder = made.folder(digits)
    lines = (folder / "manifest.jsonl").read_text().splitlines()
    rows = {row["id"]: row for row in map(json.loads, lines)}
    plain = open_corpus(Made(what="strings", part="train", words=(2, 2), rounds=9).folder(digits))
    truth = {u.id: u for u in plain.utterances}
    sounds = {u.id: read_audio(u) for u in open_corpus(folder).utterances}
    groups = {row["group"] for row in rows.values()}
    assert groups == {"2 words", "noisy", "wrong", "copy"} and len(rows) == len(truth) == 72
    for name, row in rows.items():
        if row["group"] == "copy":
            first = rows[row["copy_of"]]
            assert "copy_of" not in first and first["id"] < name
            assert (sounds[name] == sounds[first["id"]]).all() and row["text"] == first["text"]
            continue
        same = (
            len(sounds[name]) == len(clean := read_audio(truth[name]))
            and (sounds[name] == clean).all()
        )
        assert same == (row["group"] != "noisy")
        assert (row["text"] == truth[name].text) == (row["group"] != "wrong")
        assert row.get("spoken", row["text"]) == truth[name].text
    assert (folder / "manifest.jsonl").read_bytes() == _again(made, folder, digits)


def _again(made, folder, digits):
    (folder / "manifest.jsonl").unlink()
    return (made.folder(digits) / "manifest.jsonl").read_bytes()


def test_it_is_made_once_whoever_asks_and_anew_after_a_kill(digits, monkeypatch):
    made = Made(what="strings", part="train")
    calls = []
    monkeypatch.setattr(Made, "_make", _counted(Made._make, calls))
    with ThreadPoolExecutor(4) as threads:
        folders = set(threads.map(lambda _: made.folder(digits), range(4)))
    assert len(folders) == len(calls) == 1
    (folder,) = folders
    before = (folder / "manifest.jsonl").read_bytes()
    (folder / "manifest.jsonl").unlink()  # killed before the end
    (folder / "audio" / "stray.flac").write_bytes(b"half")
    assert (made.folder(digits) / "manifest.jsonl").read_bytes() == before
    assert not (folder / "audio" / "stray.flac").exists()
    assert Made(what="strings", part="train", seed=1).folder(digits) != folder


def _counted(make, calls):
    def counted(*args):
        calls.append(1)
        return make(*args)

    return counted


def test_phrases_of_common_words_come_from_the_folder_of_data(tmp_path):
    place = tmp_path / "wordnet"
    place.mkdir()
    lines = ["the tea is hot", "the tea is cold now", *["hot tea is good"] * 2, "a rare gnu came"]
    lines += [f"the tea is hot {word} the tea" for word in ("and", "but", "for")]
    with gzip.open(place / "phrases.txt.gz", "wt") as file:
        file.write("\n".join(lines))
    whole = Made(what="sentences", part="train").phrases(tmp_path)
    some = Made(what="sentences", part="train", common=4).phrases(tmp_path)
    assert "the tea is hot" in whole + Made(what="sentences", part="test").phrases(tmp_path)
    assert set(some) <= set(whole)
    assert {word for phrase in some for word in phrase.split()} <= {"the", "tea", "is", "hot"}


def test_spoken_digits_have_as_many_words_as_asked(tmp_path):
    pytest.importorskip("espeakng_loader")
    folder = Made(what="digits", part="test", hours=0.01, words=(2, 5), wrong=0.3).folder()
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    counts = {len(row["text"].split()) for row in rows}
    assert counts <= {2, 3, 4, 5} and len(counts) > 2
    assert {row["group"] for row in rows} == {"clean", "wrong"}
    assert np.abs(read_audio(open_corpus(folder).utterances[0])).max() > 0.05


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("what", {"what": "songs"}),
        ("flite", {"engine": "flite"}),
        ("rounds", {"rounds": 0}),
        ("Defects", {"wrong": 1.5}),
        ("common", {"common": 100}),
        ("rounds=2", {"rounds": 2}),
        ("hours", {"what": "strings", "hours": 2.0}),
        ("engine", {"what": "strings", "part": "test", "engine": "flite"}),
    ],
)
def test_what_cannot_be_made_is_refused(name, change):
    with pytest.raises(ValueError, match=name):
        Made(**{"what": "digits", "part": "train"} | change)


def test_missing_recordings_are_told_with_where_to_get_them(tmp_path, monkeypatch):
    monkeypatch.delenv("REGROW_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="Jakobovski"):
        Made(what="strings", part="train").folder(tmp_path)
