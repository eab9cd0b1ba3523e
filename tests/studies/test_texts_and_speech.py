"""Glosses and spoken digits as data sets: what is in which part, and what is refused."""

from __future__ import annotations

import random

import pytest
import torch

import regrow
from regrow.lab.run import Run
from regrow.reading import UnreadableError
from regrow.samples import RootLoss
from regrow.studies.sample_pruning.trial import PruneSamples
from regrow.studies.supervised import glosses, spoken_digits
from regrow.studies.supervised.glosses import load_glosses
from regrow.studies.supervised.source import open_source
from regrow.studies.supervised.spoken_digits import load_spoken_digits
from tests.speech.recordings import tone, write

KINDS = tuple(glosses._KINDS)
SPEAKERS = ("ann", "bob", "cid", "dan", "eve", "flo")


@pytest.fixture(autouse=True)
def nowhere_else(tmp_path, monkeypatch):
    monkeypatch.setenv("REGROW_DATA", str(tmp_path / "none"))
    monkeypatch.setattr("regrow.data.places._SYSTEM", ())
    monkeypatch.setattr(glosses, "_TRAIN", 6)
    monkeypatch.setattr(glosses, "_TEST", 3)


def synset(kind, gloss):
    return f"00001740 {kind:02} n 01 thing 0 003 ~ 00001930 n 0000 | {gloss}  "


LINES = [synset(kind, f"word{kind} text{i}") for kind in KINDS for i in range(9)]


def wordnet(folder, lines):
    (folder / "wordnet").mkdir(exist_ok=True)
    path = folder / "wordnet" / "data.noun"
    path.write_text("\n".join(["  1 This software and database ", *lines, ""]))
    return folder


def rows(inputs):
    return {tuple(row) for row in inputs.tolist()}


# ---------------------------------------------------------------------- glosses


def test_glosses_are_shared_out_by_class_and_no_text_is_in_both_parts(tmp_path):
    data = load_glosses(wordnet(tmp_path, LINES))
    assert data.train_labels.bincount().tolist() == [6] * 10
    assert data.test_labels.bincount().tolist() == [3] * 10
    assert len(rows(data.train_inputs)) == 60 and len(rows(data.test_inputs)) == 30
    assert not rows(data.train_inputs) & rows(data.test_inputs)
    assert torch.allclose(data.train_inputs.norm(dim=1), torch.ones(60))


def test_which_part_a_text_is_in_hangs_on_nothing_but_the_texts(tmp_path):
    first = load_glosses(wordnet(tmp_path, LINES))
    shuffled = random.Random(0).sample([*LINES, *LINES[:20]], len(LINES) + 20)  # and some twice
    again = load_glosses(wordnet(tmp_path, shuffled))
    assert again.train_inputs.equal(first.train_inputs)
    assert again.test_inputs.equal(first.test_inputs)


def test_a_text_of_two_kinds_is_in_no_part(tmp_path):
    both = [synset(kind, "aaa bbb ccc") for kind in KINDS[:2]]
    others = load_glosses(wordnet(tmp_path, LINES))
    data = load_glosses(wordnet(tmp_path, [*both, *LINES]))
    assert data.train_inputs.equal(others.train_inputs)
    assert data.test_inputs.equal(others.test_inputs)


def test_files_that_are_not_there_are_named_with_their_package(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"wordnet: data\.noun not found.*wordnet-base"):
        load_glosses()
    trial = {"method": regrow.Dense(), "criterion": RootLoss(), "keep": 0.5, "augment": False}
    with pytest.raises(FileNotFoundError, match="wordnet-base"):
        PruneSamples(data="wordnet", model="mlp-4", epochs=1, seed=0, **trial).run(
            Run(tmp_path, {"data_dir": None, "device": "cpu"})
        )


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (LINES[:-1], r"8 glosses of noun\.substance, and 9 are needed"),
        ([*LINES[:4], "00001740 03 n 01 thing 0 000"], "line 6 is no synset with a gloss"),
        (["00001740 n 01 thing | a thing"], "line 2 is no synset"),
    ],
)
def test_a_file_that_is_short_or_damaged_is_refused(tmp_path, lines, words):
    wordnet(tmp_path, lines)
    with pytest.raises(ValueError, match=words):
        load_glosses(tmp_path)


# ---------------------------------------------------------------------- spoken digits


@pytest.fixture
def recordings(tmp_path):
    """Two recordings of each digit by each speaker, of other lengths, at 8 kHz."""
    place = tmp_path / "free-spoken-digit-dataset" / "recordings"
    place.mkdir(parents=True)
    for number, speaker in enumerate(SPEAKERS):
        for digit in range(10):
            for index in range(2):
                sound = tone(0.1 + 0.03 * index, 8000, 200 + 150 * digit + 20 * number)
                noise = torch.randn(
                    len(sound), generator=torch.Generator().manual_seed(9 * number + index)
                )
                write(place / f"{digit}_{speaker}_{index}.wav", sound + 0.01 * noise.numpy(), 8000)
    return tmp_path


def test_speakers_take_turns_and_are_never_in_both_parts(recordings):
    tested = []
    for seed in range(6):
        data = load_spoken_digits(recordings, seed)
        assert data.train_labels.bincount().tolist() == [8] * 10
        assert data.test_labels.bincount().tolist() == [4] * 10
        assert not rows(data.train_inputs) & rows(data.test_inputs)
        tested.append(rows(data.test_inputs))
    everyone = set().union(*tested)
    assert len(everyone) == 120
    assert all(sum(one in part for part in tested) == 2 for one in everyone)
    for one, other in zip(tested, [*tested[1:], tested[0]], strict=True):
        assert len(one & other) == 20  # one speaker
    assert rows(load_spoken_digits(recordings, 6).test_inputs) == tested[0]


def test_one_speaker_is_whole_in_one_part(recordings):
    """Who is tested on first is the first two of the alphabet: without their files nothing is."""
    data = load_spoken_digits(recordings, 0)
    place = recordings / "free-spoken-digit-dataset" / "recordings"
    for path in place.glob("*_flo_*"):
        path.rename(path.with_name(path.name.replace("flo", "zoe")))  # stays last
    for path in place.glob("*_ann_*"):
        path.rename(path.with_name(path.name.replace("ann", "zzz")))  # is last now
    spoken_digits._recordings.cache_clear()
    again = load_spoken_digits(recordings, 5)  # zzz and, around the circle, bob
    assert rows(again.test_inputs) == rows(data.test_inputs)


def test_a_seed_opens_its_own_speakers_though_data_are_kept(recordings):
    def tested(seed):
        source = open_source(
            "spoken-digits",
            data_dir=str(recordings),
            device=torch.device("cpu"),
            batch=8,
            seed=seed,
            augment=True,
        )
        return torch.cat([inputs for inputs, _ in source.test()])

    first = tested(0)
    assert not tested(1).equal(first)
    assert tested(0).equal(first)


def test_too_few_speakers_or_none_are_refused(recordings, tmp_path_factory):
    with pytest.raises(FileNotFoundError, match="Jakobovski"):
        load_spoken_digits(tmp_path_factory.mktemp("empty"))
    place = recordings / "free-spoken-digit-dataset" / "recordings"
    for path in place.iterdir():
        if path.stem.split("_")[1] not in SPEAKERS[:2]:
            path.unlink()
    spoken_digits._recordings.cache_clear()
    with pytest.raises(ValueError, match="2 speakers, and 2 are left out"):
        load_spoken_digits(recordings)


def test_a_damaged_recording_is_named(recordings):
    path = recordings / "free-spoken-digit-dataset" / "recordings" / "3_bob_1.wav"
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(UnreadableError, match="3_bob_1"):
        load_spoken_digits(recordings)


@pytest.mark.parametrize("condition", ["clean", "copies", "imbalanced", "wrong"])
def test_samples_of_speech_are_chosen_under_every_condition(recordings, condition):
    trial = PruneSamples(
        data="spoken-digits",
        model="mlp-8",
        seed=3,
        epochs=2,
        batch=8,
        validation=0.1,
        method=regrow.Dense(),
        criterion=RootLoss(),
        keep=0.5,
        condition=condition,
    )
    found = trial.run(Run(recordings, {"data_dir": str(recordings), "device": "cpu"}))
    few = condition == "imbalanced"
    assert 20 <= found["train_samples"] < 40 if few else found["train_samples"] == 72
    assert ("visits" in found) == (condition in ("copies", "wrong"))
