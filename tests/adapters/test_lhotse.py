"""Cuts of lhotse, with the real package."""

import pickle

import pytest

from regrow.speech.audio import read_audio
from tests.speech.recordings import tone, write

lhotse = pytest.importorskip("lhotse")
from regrow.adapters.lhotse import chosen_cuts, corpus_of  # noqa: E402


@pytest.fixture
def cuts(tmp_path):
    made = []
    for i in range(6):
        path = tmp_path / f"{i}.wav"
        write(path, tone(2.0, hertz=300 + 100 * i))
        recording = lhotse.Recording.from_file(path, recording_id=f"r{i}")
        part = lhotse.SupervisionSegment(
            f"s{i}", f"r{i}", 0.0, 1.0, text=f"word {i}", speaker="ann", gender="F"
        )
        cut = lhotse.MonoCut(f"c{i}", 0.5, 1.0, 0, recording=recording, supervisions=[part])
        made.append(cut)
    return made


def test_a_cut_and_its_utterance_have_the_same_sound(cuts):
    corpus = corpus_of(lhotse.CutSet.from_cuts(cuts))
    assert [u.id for u in corpus.utterances] == [f"c{i}" for i in range(6)]
    for cut, one in zip(cuts, corpus.utterances, strict=True):
        assert (one.text, one.speaker, one.group) == (cut.supervisions[0].text, "ann", "F")
        assert abs(read_audio(one) - cut.load_audio()[0]).max() < 1e-4


def test_what_is_no_plain_cut_is_left_out_with_a_reason(cuts):
    odd = [
        cuts[0].append(cuts[1]),
        cuts[2].perturb_speed(1.1),
        cuts[3].drop_supervisions(),
        cuts[4],
    ]
    corpus = corpus_of(lhotse.CutSet.from_cuts(odd))
    assert [u.id for u in corpus.utterances] == ["c4"] and len(corpus.left_out) == 3
    assert all("save_audios" in one.why for one in corpus.left_out)


def test_chosen_cuts_go_through_lhotses_own_samplers(cuts):
    chosen = chosen_cuts(lhotse.CutSet.from_cuts(cuts), {"c1", "c4", "c5"})
    sampler = lhotse.dataset.DynamicBucketingSampler(chosen, max_duration=2.0, num_buckets=2)
    ids = [cut.id for batch in sampler for cut in batch]
    assert sorted(ids) == ["c1", "c4", "c5"]
    assert [c.id for c in pickle.loads(pickle.dumps(chosen))] == ["c1", "c4", "c5"]
