"""From corpora to labels: what cannot be used is named, and never learnt from or scored."""

import logging

import pytest
import torch

from regrow.speech.conformer import steps_of
from regrow.speech.data import fingerprint, open_part, open_speech
from tests.speech.beeps import corpus
from tests.speech.recordings import tone, write


@pytest.fixture
def made(tmp_path):
    folder = tmp_path / "learnt"
    folder.mkdir()
    write(folder / "quick.wav", tone(0.1))
    write(folder / "long.wav", tone(3.0))
    (folder / "cut.flac").write_bytes(b"fLaC")
    more = [
        {"id": "quick", "audio_filepath": "quick.wav", "text": "one two three one one"},
        {"id": "long", "audio_filepath": "long.wav", "text": "one"},
        {"id": "empty", "audio_filepath": "long.wav", "text": " ?! "},
        {"id": "cut", "audio_filepath": "cut.flac", "text": "one"},
        {"id": "gone", "audio_filepath": "gone.wav", "text": "one"},
    ]
    return corpus(folder, 12, 0, more)


def test_what_cannot_be_used_is_one_line_each(made, caplog):
    with caplog.at_level(logging.WARNING):
        speech = open_speech([made], {"heard": made}, longest=2.0)
    told = {one.name: one.why for one in speech.left_out}
    assert set(told) == {"quick", "long", "empty", "cut", "gone"}
    assert "labels need" in told["quick"] and "too short for its transcript" in told["quick"]
    assert "longest=2.0" in told["long"] and "transcript is empty" in told["empty"]
    said = [record.getMessage() for record in caplog.records]
    assert all(sum(f"left out: {name}:" in line for line in said) >= 1 for name in told)
    learnt, tested = speech.learnt, speech.tests["heard"]
    assert len(learnt) == 12
    # Tests are never shortened by what training cannot use.
    assert {u.id for u in tested.utterances} >= {"quick", "long"} and len(tested) == 14


def test_names_that_no_file_can_have_are_lines_like_others(tmp_path):
    """Such a name ended the run."""
    names = "~nobody-of-this-name/a.wav", "a\0.wav", "a" * 300 + ".wav", ".", "/dev/zero"
    more = [{"id": str(n), "audio_filepath": name, "text": "one"} for n, name in enumerate(names)]
    (tmp_path / "learnt").mkdir()
    table = corpus(tmp_path / "learnt", 3, 0, more)
    assert len(fingerprint([table])) == 16
    speech = open_speech([table], {})
    assert [one.name for one in speech.left_out] == ["0", "1", "2", "3", "4"]
    assert len(speech.learnt) == 3


def test_every_utterance_that_is_learnt_can_be_aligned(made):
    for kind in ("characters", "words"):
        speech = open_speech([made], {}, units=kind)
        learnt = speech.learnt
        needed = learnt.label_lengths + (
            (learnt.labels[:, 1:] == learnt.labels[:, :-1]) & (learnt.labels[:, 1:] > 0)
        ).sum(1)
        assert bool((steps_of(learnt.features.lengths) >= needed).all())
        for row, n, text in zip(learnt.labels, learnt.label_lengths, learnt.texts, strict=True):
            assert speech.units.decode(row[:n].tolist()) == text


def test_what_is_watched_is_set_apart_by_the_seed(made):
    one, two, other = (open_speech([made], {}, watched=2, seed=s) for s in (0, 0, 3))
    ids = {u.id for u in one.watched.utterances}
    assert len(ids) == 1 and not ids & {u.id for u in one.learnt.utterances}  # a tenth at most
    assert ids == {u.id for u in two.watched.utterances}
    assert ids != {u.id for u in other.watched.utterances}
    whole, _ = open_part(made)
    for part in (one.watched, one.learnt):
        for place, utterance in enumerate(part.utterances):
            before = [u.id for u in whole.utterances].index(utterance.id)
            assert part.features[place].equal(whole.features[before])


def test_two_corpora_may_have_the_same_ids(made, tmp_path):
    other = corpus(tmp_path / "other", 3, 1)
    speech = open_speech([made, other], {})
    names = [u.id for u in speech.learnt.utterances]
    assert len(set(names)) == len(names) == 15 + 1  # and the long one
    assert sum(name.startswith("other/") for name in names) == 3
    texts = dict(zip(names, speech.learnt.texts, strict=True))
    part, _ = open_part(other)
    assert texts["other/s2"] == part.texts[2]
    assert speech.learnt.features[names.index("other/s2")].equal(part.features[2])


def test_a_fingerprint_changes_with_what_is_said_or_recorded(made):
    before = fingerprint([made])
    assert fingerprint([made]) == before
    write(made / "long.wav", tone(2.0))
    changed = fingerprint([made])
    table = made / "manifest.jsonl"
    table.write_text(table.read_text().replace("one two three one one", "two"))
    assert len({before, changed, fingerprint([made])}) == 3


def test_a_mask_chooses_the_same_of_everything(made):
    part, _ = open_part(made)
    mask = torch.arange(len(part)) % 3 == 1
    some = part.only(mask)
    assert len(some) == int(mask.sum()) == len(some.texts) == len(some.features)
    for place, i in enumerate(mask.nonzero().squeeze(1).tolist()):
        assert some.utterances[place] == part.utterances[i]
        assert some.features[place].equal(part.features[i])
