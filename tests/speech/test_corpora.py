"""Corpora in their published layouts, and what is wrong in them."""

import gzip
import json
from pathlib import Path

import pytest

from regrow.speech import open_corpus
from regrow.speech.corpora.tables import read_common_voice, read_kaldi
from regrow.speech.corpora.trees import digit_strings, read_lrs3, read_spoken_digits
from regrow.speech.utterances import Utterance, gathered, normalise_text


def texts(corpus):
    return {u.id: u.text for u in corpus.utterances}


def problems(corpus):
    return {one.name: one.why for one in corpus.left_out}


def lines(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(row + "\n" for row in rows), encoding="utf-8")
    return path


def test_librispeech(tmp_path, recording):
    recording("dev-clean/84/121/84-121-0000.flac")
    recording("dev-other/9/8/9-8-0001.flac")
    lines(tmp_path / "dev-clean/84/121/84-121.trans.txt", "84-121-0000 GO ON", "84-121-0001 NO")
    lines(tmp_path / "dev-other/9/8/9-8.trans.txt", "9-8-0001 IT'S ALL")
    corpus = open_corpus(tmp_path)
    assert texts(corpus) == {"84-121-0000": "GO ON", "9-8-0001": "IT'S ALL"}
    first = corpus.utterances[0]
    assert (first.speaker, first.group) == ("84", "dev-clean")
    assert "not there" in problems(corpus)["84-121-0001"]
    assert len(open_corpus(tmp_path / "dev-clean")) == 1


PRETRAIN = (
    "Text:  WHEN WE {LG} SAY NO",
    "Conf:  3",
    "",
    "WORD START END ASDSCORE",
    "WHEN 0.00 0.40 5.1",
    "WE 0.50 0.70 6.0",
    "SAY 9.00 9.50 4.2",
    "NO 17.00 17.25 4.4",
)


def test_lrs3_as_published(tmp_path):
    for place in ("pretrain/xyz/00001", "trainval/xyz/50001", "test/abc/00002"):
        path = tmp_path / f"{place}.mp4"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"")
    lines(tmp_path / "pretrain/xyz/00001.txt", *PRETRAIN)
    lines(tmp_path / "trainval/xyz/50001.txt", "Text:  SO {LG}AY YES", "Conf: 2")
    lines(tmp_path / "test/abc/00002.txt", "Words: NO")
    corpus = read_lrs3(tmp_path)
    assert texts(corpus) == {
        "pretrain/xyz/00001_00": "WHEN WE SAY",
        "pretrain/xyz/00001_01": "NO",
        "trainval/xyz/50001": "SO LGAY YES",
    }
    cut = corpus.utterances[1]
    assert (cut.start, cut.duration) == (17.0, 0.25)
    assert all(u.duration <= 16 for u in corpus.utterances if u.duration)
    assert "Text:" in problems(corpus)["test/abc/00002"]
    lines(tmp_path / "pretrain/xyz/00001.txt", *PRETRAIN[:-1], "NO 17.25 17.00 4.4")
    assert "ends at 17 s" in problems(read_lrs3(tmp_path))["pretrain/xyz/00001_01"]
    lines(tmp_path / "pretrain/xyz/00001.txt", *PRETRAIN)
    assert [u.id for u in read_lrs3(tmp_path, longest=1.0).utterances][:3] == [
        f"pretrain/xyz/00001_{i:02}" for i in range(3)
    ]


def test_auto_avsr(tmp_path):
    table = lines(
        tmp_path / "labels/lrs3_train_transcript_lengths_seg16s.csv",
        "lrs3,lrs3_video_seg16s/trainval/xyz/50001.mp4,75,12 7 8",
        "lrs3, lrs3_video_seg16s/trainval/xyz/50002.mp4, 50, 3",
        "lrs3,lrs3_video_seg16s/trainval/xyz/50003.mp4,many,3",
        "lrs3,lrs3_video_seg16s/trainval/xyz/50004.mp4,12,3",
        "lrs3,one field less",
    )
    text = tmp_path / "lrs3/lrs3_text_seg16s/trainval/xyz"
    lines(text / "50001.txt", "SO YES")
    lines(text / "50002.txt", "NO")
    lines(text / "50003.txt", "NO")
    corpus = open_corpus(table)
    assert list(texts(corpus).values()) == ["SO YES", "NO"]
    assert [u.duration for u in corpus.utterances] == [3.0, 2.0]
    wanted = tmp_path / "lrs3/lrs3_video_seg16s/trainval/xyz/50001.wav"
    assert corpus.utterances[0].audio == wanted
    assert len(corpus.left_out) == 3


def test_common_voice_has_quotes_that_do_not_close(tmp_path):
    table = lines(
        tmp_path / "en/train.tsv",
        "client_id\tpath\tsentence\tup_votes\taccents",
        'ab\tone.mp3\t"Go," he said\t2\tScottish',
        'cd\ttwo.mp3\tIt is 5" long\t2\t',
        "ef\tthree.mp3\tshort row",
        *(f"gh\t{nothing}\tyes\t2\t" for nothing in ("", ".", "/")),
    )
    corpus = open_corpus(table)
    assert texts(corpus) == {"one": '"Go," he said', "two": 'It is 5" long'}
    assert corpus.utterances[0].audio == tmp_path / "en/clips/one.mp3"
    assert corpus.utterances[0].group == "Scottish"
    assert "3 fields" in problems(corpus)["train.tsv, line 4"]
    assert all("names no file" in problems(corpus)[f"train.tsv, line {n}"] for n in (5, 6, 7))
    with pytest.raises(ValueError, match="column 'sentence' is missing"):
        read_common_voice(lines(tmp_path / "bad.tsv", "client_id\tpath", "a\tb"))


def test_speechbrain_needs_its_quotes_closed(tmp_path):
    table = lines(
        tmp_path / "train.csv",
        "ID,duration,wav,spk_id,wrd",
        'a1,1.5,$data_root/x/a1.wav,s1,"YES, SIR"',
        "a2, , $data_root/x/a2.wav, s1, NO",
        "a3,long,$data_root/x/a3.wav,s1,NO",
    )
    corpus = open_corpus(table)
    assert texts(corpus) == {"a1": "YES, SIR", "a2": "NO"}
    assert corpus.utterances[0].audio == tmp_path / "x/a1.wav"
    assert corpus.utterances[1].duration is None
    assert "'long' is no number" in problems(corpus)["train.csv, line 4"]
    bad = lines(
        tmp_path / "bad.csv", "ID,duration,wav,spk_id,wrd", 'a1,1,a.wav,s,"NO', "a2,1,b,s,NO"
    )
    with pytest.raises(ValueError, match=r"bad\.csv, in the row that begins at line 2.*quotes"):
        open_corpus(bad)


def test_the_root_of_a_table_that_is_named_from_here_stands_once(tmp_path, monkeypatch):
    """It stood twice, so that no audio was found."""
    lines(tmp_path / "own/train.csv", "ID,wav,wrd", "a,$data_root/a.wav,YES", "b,b.wav,NO")
    monkeypatch.chdir(tmp_path)
    corpus = open_corpus(Path("own/train.csv"))
    assert [u.audio for u in corpus.utterances] == [tmp_path / f"own/{n}.wav" for n in "ab"]


def test_nemo(tmp_path):
    table = lines(
        tmp_path / "manifest.jsonl",
        json.dumps({"audio_filepath": "a.wav", "duration": 1.5, "text": "yes"}),
        json.dumps({"audio_filepath": "/x/b.wav", "offset": 2.5, "duration": 1, "text": "no"}),
        "{not json",
        json.dumps({"text": "no audio"}),
        json.dumps({"audio_filepath": "c.wav", "duration": -1, "text": "no"}),
        "[1]",
    )
    for path in (table, tmp_path):
        corpus = open_corpus(path)
        assert texts(corpus) == {"000001-a": "yes", "000002-b": "no"}
        assert [u.start for u in corpus.utterances] == [0.0, 2.5]
        assert corpus.utterances[0].audio == tmp_path / "a.wav"
        assert len(corpus.left_out) == 4


def test_a_damaged_first_line_does_not_make_it_another_format(tmp_path):
    table = lines(
        tmp_path / "m.jsonl", '{"audio_file', json.dumps({"audio_filepath": "a.wav", "text": "yes"})
    )
    corpus = open_corpus(table)
    assert (
        texts(corpus) == {"000002-a": "yes"} and "is no JSON" in problems(corpus)["m.jsonl, line 1"]
    )


def test_a_split_is_of_the_spoken_digits_only(tmp_path):
    lines(tmp_path / "kaldi/wav.scp", "a a.wav")
    with pytest.raises(ValueError, match="kaldi:train: train is a split of the Free Spoken Digit"):
        open_corpus(tmp_path / "kaldi:train")
    with pytest.raises(FileNotFoundError, match="gone:train: there is no such file or folder"):
        open_corpus(tmp_path / "gone:train")


def test_kaldi_tables(tmp_path, recording):
    folder = tmp_path / "data/train"
    recording("WAVE/one.wav", seconds=3.0)
    lines(folder / "wav.scp", "rec1 WAVE/one.wav", "rec2 sph2pipe -f wav x.sph |")
    lines(folder / "text", "utt1 YES SIR", "utt2 NO", "utt3 NO", "utt4")
    lines(folder / "utt2spk", "utt1 ann", "utt2 bob")
    lines(folder / "spk2gender", "ann f")
    lines(
        folder / "segments", "utt1 rec1 0.5 1.5", "utt2 rec2 0 1", "utt5 rec1 0 1", "utt4 rec9 0 1"
    )
    corpus = open_corpus(folder)
    (one,) = corpus.utterances
    wanted = ("utt1", "YES SIR", "ann", "f", 0.5, 1.0)
    assert (one.id, one.text, one.speaker, one.group, one.start, one.duration) == wanted
    assert one.audio == tmp_path / "WAVE/one.wav"
    found = problems(corpus)
    assert "command" in found["utt2"] and "text" in found["utt5"] and "rec9" in found["utt4"]
    assert "is not in" in found["utt3"] and "segments" in found["utt3"]


def test_a_kaldi_segment_that_is_none_is_left_out_like_any_other_line(tmp_path):
    lines(tmp_path / "wav.scp", "rec1 a.wav")
    lines(tmp_path / "text", "utt1 YES", "utt2 NO")
    lines(tmp_path / "segments", "utt1 rec1 soon later", "utt2 rec1 1 2")
    corpus = read_kaldi(tmp_path)
    assert texts(corpus) == {"utt2": "NO"}
    assert list(problems(corpus)) == ["utt1"] and "segments, line 1" in problems(corpus)["utt1"]


@pytest.mark.parametrize("table", ["wav.scp", "text", "utt2spk"])
def test_of_two_lines_of_one_key_the_first_counts_and_one_is_told(tmp_path, table):
    first = {"wav.scp": "a a.wav", "text": "a YES", "utt2spk": "a ann"}
    other = {"wav.scp": "a b.wav", "text": "a NO", "utt2spk": "a bob"}
    for name, line in first.items():
        lines(tmp_path / name, line, *([other[name]] if name == table else []))
    corpus = read_kaldi(tmp_path)
    (one,) = corpus.utterances
    assert (one.audio.name, one.text, one.speaker) == ("a.wav", "YES", "ann")
    assert "twice" in problems(corpus)["a"] and table in problems(corpus)["a"]


def test_a_transcript_without_a_recording_is_told(tmp_path):
    lines(tmp_path / "wav.scp", "a a.wav")
    lines(tmp_path / "text", "a YES", "b NO")
    assert "wav.scp: add a line" in problems(read_kaldi(tmp_path))["b"]


def test_one_missing_recording_does_not_lose_the_others(tmp_path, recording):
    recording("WAVE/two.wav")
    folder = tmp_path / "data/train"
    lines(folder / "wav.scp", "a WAVE/gone.wav", "b WAVE/two.wav")
    lines(folder / "text", "a YES", "b NO")
    assert [u.audio for u in read_kaldi(folder).utterances][1] == tmp_path / "WAVE/two.wav"


def recording_line(name, path):
    return {
        "id": name,
        "sources": [{"type": "file", "channels": [0], "source": str(path)}],
        "sampling_rate": 16000,
        "num_samples": 48000,
        "duration": 3.0,
        "channel_ids": [0],
    }


def test_lhotse_manifests_read_without_lhotse(tmp_path):
    sound = recording_line("rec", tmp_path / "a.wav")
    part = {"id": "s1", "recording_id": "rec", "start": 0.5, "duration": 1.0, "channel": 0}
    part |= {"text": "yes", "speaker": "ann", "gender": "F"}
    cut = {"id": "c1", "start": 1.0, "duration": 2.0, "channel": 0, "type": "MonoCut"}
    cut |= {"supervisions": [part], "recording": sound}
    odd = [{**cut, "id": "c2", "supervisions": []}, {"id": "c3", "type": "MixedCut", "tracks": []}]
    with gzip.open(tmp_path / "cuts.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(one) + "\n" for one in (cut, *odd))
    lines(
        tmp_path / "supervisions.jsonl", json.dumps(part), json.dumps({**part, "recording_id": 3})
    )
    lines(tmp_path / "recordings.jsonl", json.dumps(sound))
    whole, parts = (open_corpus(tmp_path / n) for n in ("cuts.jsonl.gz", "supervisions.jsonl"))
    assert [(u.id, u.text, u.start, u.speaker) for u in whole.utterances] == [
        ("s1", "yes", 1.5, "ann")
    ]
    assert [(u.start, u.duration) for u in parts.utterances] == [(0.5, 1.0)]
    assert len(whole.left_out) == 2 and len(parts.left_out) == 1


def test_lhotse_reads_the_same_out_of_what_lhotse_writes(tmp_path, recording):
    pytest.importorskip("lhotse")
    from lhotse import CutSet, MonoCut, Recording, SupervisionSegment

    sound = Recording.from_file(recording("a.wav", seconds=3.0), recording_id="rec")
    part = SupervisionSegment("s1", "rec", start=0.25, duration=1.0, text="yes", speaker="ann")
    cut = MonoCut("c1", start=1.0, duration=1.5, channel=0, recording=sound, supervisions=[part])
    path = tmp_path / "cuts.jsonl.gz"
    CutSet.from_cuts([cut]).to_file(path)
    (one,) = open_corpus(path).utterances
    assert (one.start, one.duration, one.text, one.speaker) == (1.25, 1.0, "yes", "ann")
    assert one.audio == tmp_path / "a.wav"


def test_asterisk_prompts(tmp_path, recording):
    for name in ("auth-thankyou", "beep", "digits/1"):
        recording(f"en_US/{name}.wav", rate=8000)
    lines(
        tmp_path / "en_US/core-sounds-en.txt",
        "; comment: here",
        "auth-thankyou: Thank you.",
        "beep: [a tone]",
        "digits/1: One.",
        "gone: Gone.",
        "silence/1: nothing",
    )
    assert texts(open_corpus(tmp_path / "en_US")) == {
        "auth-thankyou": "Thank you.",
        "digits/1": "One.",
    }


def test_spoken_digits_and_strings_of_them(tmp_path, recording):
    for digit in range(3):
        for speaker in ("tom", "van_ann"):
            for index in (0, 5, 6):
                recording(f"recordings/{digit}_{speaker}_{index}.wav", seconds=0.2, rate=8000)
    whole = open_corpus(tmp_path)
    train, test = (open_corpus(Path(f"{tmp_path}:{part}")) for part in ("train", "test"))
    assert len(whole) == 18 and len(train) == 12 and len(test) == 6
    assert texts(test)["2_van_ann_0"] == "two"
    strings = digit_strings(train, (2, 3), seed=1)
    used = [u.id for string in strings for u in string]
    assert len(used) == len(set(used)) and set(used) <= {u.id for u in train.utterances}
    assert all(len({u.speaker for u in string}) == 1 for string in strings)
    assert strings == digit_strings(train, (2, 3), seed=1)
    with pytest.raises(ValueError, match="split='dev'"):
        read_spoken_digits(tmp_path, "dev")


def test_an_unknown_format_is_named_with_those_that_are_known(tmp_path):
    with pytest.raises(ValueError, match=r"no corpus of a known format; known are Kaldi"):
        open_corpus(tmp_path)
    with pytest.raises(ValueError, match="known format"):
        open_corpus(lines(tmp_path / "notes.md", "hello"))
    with pytest.raises(FileNotFoundError, match="no such file"):
        open_corpus(tmp_path / "gone")


def test_an_id_that_is_there_twice_stays_once():
    one = Utterance("a", Path("a.wav"), "yes")
    corpus = gathered([one, one], "here")
    assert len(corpus) == 1 and "twice" in str(corpus.left_out[0])
    with pytest.raises(ValueError, match="no utterance that can be used"):
        gathered([], "here")


@pytest.mark.parametrize(
    "wrong", [{"id": ""}, {"start": -1.0}, {"start": float("nan")}, {"duration": 0.0}]
)
def test_an_utterance_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError, match=r"must|empty"):
        Utterance(**({"id": "a", "audio": Path("a.wav")} | wrong))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("DON'T STOP", "don't stop"),
        ("rock ’n’ roll", "rock 'n' roll"),
        ("Thank you.", "thank you"),
        ("well-known; e.g. this", "well known e g this"),
        ("ﬁne", "fine"),
        ("Straße, Ünal", "straße ünal"),
        ("' '' -", ""),
        ("", ""),
    ],
)
def test_transcripts_become_plain_words(text, words):
    assert normalise_text(text) == words
    assert normalise_text(words) == words


def test_real_sentences(real_data):
    folder = Path(real_data) / "speechocean762"
    if not folder.is_dir():
        pytest.skip("speechocean762 is not in $REGROW_DATA")
    train, test = (open_corpus(folder / part) for part in ("train", "test"))
    assert (len(train), len(test)) == (2500, 1260)
    speakers = [{u.speaker for u in part.utterances} for part in (train, test)]
    assert list(map(len, speakers)) == [125, 63] and not speakers[0] & speakers[1]
