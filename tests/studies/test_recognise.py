"""A recogniser in a run: it learns, goes on bit for bit, transcribes, and is shown."""

import json
import math
import re
from dataclasses import replace

import pytest
import torch

import regrow
from regrow.cli.speech import (
    _check_used,
    _criterion,
    speech_evaluate,
    speech_train,
    speech_transcribe,
)
from regrow.lab.files import read_json, read_lines
from regrow.lab.run import METRICS, Run
from regrow.samples import Hard, RootLoss
from regrow.speech import features
from regrow.speech.heard import TESTED, TRAINED
from regrow.speech.recogniser import SIZES, Recogniser
from regrow.speech.synthesis.made import Made
from regrow.speech.units import Characters
from regrow.studies.speech.page import write_page
from regrow.studies.speech.recognise import Recognise, make_all
from regrow.studies.speech.transcribe import Decoding, hear_corpus, load_recogniser
from tests.ranks import command, on_ranks
from tests.speech.beeps import corpus

SETTING = {
    "data": ("learnt",),
    "tests": ("heard",),
    "size": "tiny",
    "units": "words",
    "method": regrow.Dense(),
    "epochs": 3,
    "batch": 8,
    "watched": 4,
    "dropout": 0.0,
    "augment": False,
    "learning_rate": 3e-3,
    "seed": 0,
}


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    bad = [{"id": "gone", "audio_filepath": "gone.wav", "text": "one"}]
    corpus(folder / "learnt", 48, 0, bad)
    corpus(folder / "heard", 8, 1)
    return folder


def run_of(folder, data, **kind):
    folder.mkdir(exist_ok=True)
    options = {"data_dir": str(data), "device": "cpu", "keep_weights": True}
    return Run(folder, options, save_every=0, **kind)


def finish(trial, folder, data):
    result = trial.run(run_of(folder, data))
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "config.json").write_text(json.dumps(trial.content))
    return folder


@pytest.fixture(scope="module")
def learnt(data, tmp_path_factory):
    """Train until the language of beeps is learnt."""
    trial = Recognise(**SETTING | {"epochs": 25, "warmup": 2.0})
    return finish(trial, tmp_path_factory.mktemp("run"), data)


@pytest.mark.slow
def test_a_small_recogniser_learns(learnt):
    lines = read_lines(learnt / METRICS)
    assert lines[-1]["loss"] < 0.1 * lines[0]["loss"]
    result = read_json(learnt / "result.json")
    assert result["wer"] < 0.1  # of sentences that were not learnt from
    assert result["low"] <= result["wer"] <= result["high"]
    assert set(result["by_group"]) == {"heard: even", "heard: odd"}
    assert "gone.wav" in result["left_out"][0]


@pytest.mark.slow
def test_losses_are_known_by_utterance(learnt):
    rows = read_lines(learnt / TRAINED)
    assert len(rows) == 44 and {row["seen"] for row in rows} == {25}  # 4 are set apart
    assert all(0 <= row["loss"] < 1 for row in rows)


@pytest.mark.slow
def test_words_are_transcribed_from_files(learnt, data, capsys):
    said = [row["said"] for row in read_lines(learnt / TESTED)][:4]
    heard = []
    for i in range(4):
        speech_transcribe(learnt, (data / f"heard/{i}.wav",), device="cpu")
        heard.append(capsys.readouterr().out.strip())
    assert sum(a == b for a, b in zip(said, heard, strict=True)) >= 3
    speech_transcribe(learnt, (data / "heard/0.wav",), beam=8, language=0.1, device="cpu")
    assert capsys.readouterr().out.strip() == heard[0]
    with pytest.raises(ValueError, match="1 files could not be read"):
        speech_transcribe(learnt, (data / "heard/0.wav", data / "gone.wav"), device="cpu")
    said = capsys.readouterr()
    assert said.out.strip() == f"{data / 'heard/0.wav'}: {heard[0]}"
    assert said.err.strip() == f"{data / 'gone.wav'}: no such file"


@pytest.mark.slow
def test_evaluating_finds_the_runs_own_figures(learnt, data, tmp_path, capsys):
    rows = hear_corpus(load_recogniser(learnt, device="cpu"), data / "heard")
    assert [(r["id"], r["heard"]) for r in rows] == [
        (r["id"], r["heard"]) for r in read_lines(learnt / TESTED)
    ]
    speech_evaluate(learnt, data / "heard", out=tmp_path / "page.html", device="cpu")
    said = capsys.readouterr().out
    assert f"{100 * read_json(learnt / 'result.json')['wer']:.2f} %" in said
    assert (tmp_path / "page.html").read_text().count("<html") == 1


@pytest.mark.slow
def test_the_page_shows_losses_errors_and_players(learnt):
    pytest.importorskip("matplotlib")
    text = write_page(learnt).read_text()
    for part in (
        "Learning",
        "Loss by length and speaker",
        "Errors by corpus and group",
        "heard: odd",
        "Utterances of the highest loss",
        "Left out",
        "gone.wav",
    ):
        assert part in text
    players = re.findall(
        r"<audio controls preload='none' src='data:audio/ogg;base64,([^']+)'", text
    )
    assert len(players) >= 12 and all(len(sound) > 500 for sound in players)
    assert "<script" not in text and not re.findall(r"""(?:src|href)=["']https?:""", text)


def test_a_run_that_was_cut_off_goes_on_bit_for_bit(data, tmp_path):
    """With dropout, augmentation, speeds and time pruning: all that is drawn comes back."""

    class Cut(Exception):
        pass

    def stop(values):
        if values["epoch"] == 2:
            raise Cut

    change = {"dropout": 0.1, "augment": True, "time_keep": 0.7, "time_chunk": 3}
    change["speeds"] = (0.9, 1.0, 1.1)
    trial = Recognise(**SETTING | change)
    with pytest.raises(Cut):
        trial.run(run_of(tmp_path / "cut", data, show=stop))
    torch.rand(7)
    again = trial.run(run_of(tmp_path / "cut", data))
    whole = trial.run(run_of(tmp_path / "whole", data))
    for name in ("loss", "wer", "cer", "validation_wer"):
        assert again[name] == whole[name]
    weights = [torch.load(tmp_path / f / "weights.pt") for f in ("cut", "whole")]
    for name, weight in weights[0]["model"].items():
        assert weight.equal(weights[1]["model"][name])
    rows = [read_lines(tmp_path / f / TRAINED) for f in ("cut", "whole")]
    assert rows[0] == rows[1] and {row["seen"] for row in rows[0]} == {3}
    line = read_lines(tmp_path / "whole" / METRICS)[0]
    assert line["hours_kept"] == pytest.approx(0.7 * line["hours_in_all"], rel=0.1)


def test_a_decoder_is_trained_along(data, tmp_path, monkeypatch):
    from regrow.speech import SIZES, Shape

    monkeypatch.setitem(SIZES, "tiny", Shape(32, 1, 2, 3, 4, decoder=1))
    trial = Recognise(**SETTING | {"epochs": 4, "attention": 0.5})
    run = run_of(tmp_path, data)
    result = trial.run(run)
    losses = [line["loss"] for line in read_lines(tmp_path / METRICS)]
    assert losses[-1] < losses[0] and result["loss"] != result["train_ctc"] > 0


def test_a_sparse_recogniser_keeps_its_density(data, tmp_path):
    method = regrow.RigL(density=0.3, update_every=4)
    result = Recognise(**SETTING | {"method": method}).run(run_of(tmp_path, data))
    assert result["density"] == pytest.approx(0.3, abs=0.02) and result["updates"] >= 2


def test_corpora_of_all_trials_are_made_and_read_before_the_first(monkeypatch, tmp_path):
    """Each once, at all its speeds; then no trial makes or reads any."""
    pytest.importorskip("espeakng_loader")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    digits = {name: Made(what="digits", part=name, hours=0.005) for name in ("train", "test")}
    made = {"data": ("train",), "tests": ("test",), "made": tuple(digits.items())}
    trial = Recognise(**SETTING | made)
    trials = [trial, replace(trial, seed=1), replace(trial, speeds=(1.0, 1.1))]
    options, said = {"device": "cpu"}, []
    make_all(trials, options, said.append)
    assert [words.split(":")[0][7:] for words in said] == ["train", "test", "train"]
    monkeypatch.setattr(Made, "_make", None)  # nothing can be made or read any more
    monkeypatch.setattr(features, "_frames_of", pytest.fail)
    for one in trials:
        speech = one.speech(Run(tmp_path, options, writes=False))
        assert len(speech.learnt.utterances) > 2 and list(speech.tests) == ["test"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size", "2g"),
        ("units", "letters"),
        ("unit_count", 1),
        ("dropout", 1.0),
        ("attention", 2.0),
        ("middle", 1.0),
        ("time_keep", 0.0),
        ("chunk", {"time_chunk": 0}),
        ("by", {"time_by": "soft"}),
        ("watched", -1),
        ("full_first", -1),
        ("full_last", -1),
        ("data", ()),
        ("longest", 0.0),
        ("speeds", (0.9, 1.1)),
        ("speeds", (1.0, 3.0)),
        ("made", (("songs", Made(what="digits", part="train")),)),
    ],
)
def test_what_is_out_of_range_is_refused_by_name(field, value):
    change = value if isinstance(value, dict) else {field: value}
    with pytest.raises(ValueError, match=field):
        Recognise(**SETTING | change)


@pytest.mark.parametrize(
    "wrong", [{"beam": -1}, {"language": 0.3}, {"language": math.nan, "beam": 4}]
)
def test_decoding_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Decoding(**wrong)


UNITS = Characters("ab ")
DAMAGED = {
    "weights cut short": (lambda run: cut(run / "weights.pt"), r"weights\.pt is damaged"),
    "no weights": (lambda run: (run / "weights.pt").write_bytes(b""), r"weights\.pt is damaged"),
    "weights of another network": (
        lambda run: torch.save({"model": {}}, run / "weights.pt"),
        r"(?s)weights\.pt is damaged \(.*Missing key",
    ),
    "a result cut short": (lambda run: cut(run / "result.json"), r"result\.json is damaged"),
    "units without letters": (
        lambda run: tell(run, {"kind": "characters"}),
        r"result\.json is damaged \(.*letters",
    ),
    "pieces that are none": (
        lambda run: tell(run, {"kind": "pieces", "model": "abc"}),
        r"result\.json is damaged",
    ),
    "another command's result": (
        lambda run: (run / "result.json").write_text('{"accuracy": 1.0}'),
        "give a run of regrow speech train",
    ),
}


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def tell(run, written):
    (run / "result.json").write_text(json.dumps({"size": "tiny", "written": written}))


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_run_is_named(tmp_path, what):
    """Weights cut short ended in a traceback, or in words that name no file."""
    change, said = DAMAGED[what]
    tell(tmp_path, UNITS.told())
    model = Recogniser(UNITS.size, SIZES["tiny"])
    torch.save({"model": model.state_dict()}, tmp_path / "weights.pt")
    assert load_recogniser(tmp_path, device="cpu").units == UNITS
    with pytest.raises(FileNotFoundError, match=r"no trained\.jsonl with transcripts"):
        load_recogniser(tmp_path, Decoding(beam=4, language=0.3), device="cpu")
    change(tmp_path)
    with pytest.raises(ValueError, match=said):
        load_recogniser(tmp_path, device="cpu")


def test_no_run_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no result\.json in it"):
        load_recogniser(tmp_path)


def test_the_command_trains_and_finds_what_was_finished(data, tmp_path, capsys):
    how = {"size": "tiny", "units": "words", "epochs": 1, "batch": 16, "watched": 4, "warmup": 0.0}
    for said in ("hours kept", "was finished before"):
        speech_train((data / "learnt",), test=(data / "heard",), out=tmp_path, device="cpu", **how)
        out = capsys.readouterr().out
        assert said in out and "test wer" in out and "page.html" in out
    assert "real time factor" in out or "was finished" in out


@pytest.mark.parametrize(
    "choose",
    [pytest.param([], marks=pytest.mark.long), ["--choose", "Hard", "--keep", "0.5"]],
)
def test_two_ranks_learn_what_one_learns_and_share_the_test(choose, data, tmp_path):
    train = ["speech", "train", str(data / "learnt"), "--test", str(data / "heard")]
    train += ["--device", "cpu", "--size", "tiny", "--units", "words", "--epochs", "2", "--dropout"]
    train += ["0", "--no-augment", "--batch", "8", "--watched", "4", "--threads", "1"]
    train += [*choose, "--out"]
    found = []
    for ranks, name in ((1, "one"), (2, "two")):
        for done in on_ranks(command, *train, tmp_path / name, ranks=ranks, limit=280):
            assert done.returncode == 0, done.stderr
        (record,) = (tmp_path / name / "trials").iterdir()
        rows = read_lines(record / TRAINED)
        found.append((read_json(record / "result.json"), rows, read_lines(record / TESTED)))
    (one, one_rows, one_tested), (two, two_rows, two_tested) = found
    # Both ranks have equally many utterances of a batch, so the mean of means is its mean.
    assert two["loss"] == pytest.approx(one["loss"], rel=0.02)
    assert [row["id"] for row in one_tested] == [row["id"] for row in two_tested]
    seen = [{row["id"]: row["seen"] for row in rows} for rows in (one_rows, two_rows)]
    # Both ranks had the same choice: every utterance of it once.
    for times in seen:
        assert set(times.values()) == ({1, 2} if choose else {2})
        assert sum(times.values()) == (44 + 22 if choose else 88)
    # Sums in another order decide between losses that are nearly alike.
    assert sum(seen[0][name] != seen[1][name] for name in seen[0]) <= 8


def test_criteria_are_chosen_by_their_names_ours_without_its_guard():
    assert _criterion("") is None and _criterion("Hard") == Hard()
    assert _criterion("RootLoss") == RootLoss(guard=False)
    with pytest.raises(ValueError, match="choose='Harder': must be one of Coverage, Cyclic"):
        _criterion("Harder")
    with pytest.raises(ValueError, match=r"choose=RHOLoss: .*: use it from Python"):
        _criterion("RHOLoss")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"keep": 0.5}, "keep=0.5: changes nothing without choose"),
        ({"score": "sum"}, "score='sum'"),
        ({"every": None}, "every=None"),
        ({"time_chunk": 1}, "time_chunk=1: changes nothing without time_keep"),
    ],
)
def test_options_that_would_change_nothing_are_refused(given, words):
    with pytest.raises(ValueError, match=words):
        _check_used("", given)
    _check_used("Hard", {"time_keep": 0.5, **given})


@pytest.mark.slow
def test_a_run_begins_with_anothers_weights(learnt, data, tmp_path, monkeypatch):
    """One step that moves nothing errs as the other did; of a new start everything is wrong."""
    monkeypatch.setenv("REGROW_DATA", str(data))
    given = {"epochs": 1, "batch": 8, "size": "tiny", "units": "words", "watched": 0, "warmup": 0.0}
    still = given | {"learning_rate": 1e-12, "weight_decay": 0.0, "augment": False}
    found = {}
    for name, begin in (("new", None), ("on", learnt)):
        out = tmp_path / name
        speech_train(
            (data / "learnt",), test=(data / "heard",), begin=begin, out=out, device="cpu", **still
        )
        (run,) = (out / "trials").iterdir()
        found[name] = run
    texts = {n: [row["heard"] for row in read_lines(run / TESTED)] for n, run in found.items()}
    assert texts["on"] == [row["heard"] for row in read_lines(learnt / TESTED)]
    assert read_json(found["new"] / "result.json")["wer"] > 0.9
    assert found["on"].name != found["new"].name  # they are different trials
    assert load_recogniser(found["on"]).units == load_recogniser(learnt).units


@pytest.mark.slow
def test_what_cannot_begin_a_run_is_refused(learnt, data, tmp_path):
    def train(out, **given):
        setting = {"size": "tiny", "units": "words", "epochs": 1, "warmup": 0.0, "begin": learnt}
        speech_train((data / "learnt",), out=tmp_path / out, device="cpu", **setting | given)

    with pytest.raises(ValueError, match=r"size='1m': begin=.* has 'tiny'"):
        train("a", size="1m")
    with pytest.raises(ValueError, match=r"units='characters': begin=.* has 'words'"):
        train("b", units="characters")
    with pytest.raises(FileNotFoundError, match="finished run of regrow speech train"):
        train("c", begin=tmp_path)
    trial = Recognise(**SETTING | {"begin": "0" * 16})
    with pytest.raises(ValueError, match="the run's option begin must say"):
        trial.run(run_of(tmp_path / "d", data))
    run = run_of(tmp_path / "e", data)
    run.options["begin"] = str(learnt)
    with pytest.raises(ValueError, match=r"begin='0{16}': the weights in .* are"):
        trial.run(run)
