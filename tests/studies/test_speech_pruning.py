"""The study of speech pruning: what it runs, how its rules decide, that it ends with a page."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from regrow.lab.records import Record, Records
from regrow.lab.study_run import run_study
from regrow.lab.view import View
from regrow.samples import Samples
from regrow.studies.speech.pruning import CLAIMS, STUDY
from regrow.studies.speech.pruning_design import ARMS, KEEPS, PRESETS, TIMED, planned

NAMES = (
    "learnt", "70 %", "short", "curriculum", "ours short", "ours random", "random", "static",
    "chunks", "both", "both shorter", "sum", "label", "collapse", "fast",
)  # fmt: skip
TRIALS = STUDY.trials("quick", "sentences")
TIMES = STUDY.trials("quick", "time")


@pytest.mark.parametrize(
    ("preset", "data"), [(p, d) for p, preset in PRESETS.items() for d in preset.designs]
)
def test_every_cell_is_there_once(preset, data):
    trials = STUDY.trials(preset, data)
    cells = {(*sorted(map(str, one.labels.items())), one.trial.seed) for one in trials}
    assert len({one.trial.identity for one in trials}) == len(trials) == len(cells)
    if preset != "smoke" and data != "time":
        assert {one.labels["arm"] for one in trials} == ARMS.keys()
        assert {one.labels.get("keep") for one in trials} == {None, 0.3, *KEEPS}


def test_arms_differ_in_what_is_kept_alone():
    """One recipe: the rest is the same, also the share of the run in which the rate rises."""
    own = {
        "seed", "criterion", "keep", "every", "full_first", "full_last", "epochs", "warmup",
        "score", "time_keep", "time_chunk",
    }  # fmt: skip
    shared = [{k: v for k, v in vars(one.trial).items() if k not in own} for one in TRIALS]
    assert all(one == shared[0] for one in shared)
    assert {round(one.trial.warmup / one.trial.epochs, 6) for one in TRIALS} == {0.1}


def epochs_seen(trial):
    """How often the whole data goes through the network, by what decides it: the samples."""
    if trial.criterion is None:
        return trial.time_keep * trial.epochs
    shares = Samples(
        1000, trial.criterion, trial.keep, epochs=trial.epochs, warmup=trial.full_first,
        anneal=trial.full_last, every=trial.every, lengths=[1.0] * 1000,
    ).shares  # fmt: skip
    return trial.time_keep * sum(map(shares, range(trial.epochs)))


def test_controls_cost_what_pruned_runs_do():
    for labels, trial in TRIALS:
        seen, keep = epochs_seen(trial), labels.get("keep", 1.0)
        match labels["arm"]:
            case "full":
                wanted = 20.0
            case "points" | "chunks":
                wanted = keep * 20
            case "both" | "full shorter":
                wanted = keep * planned(keep, 20, 2)
            case _:
                wanted = planned(keep, 20, 2)
        assert seen == pytest.approx(wanted, abs=0.5), labels


def seen(trials, wer=lambda at: 0.0, short=lambda at: 0.0, seconds=lambda at: 100.0):
    """Make up records of trials."""
    records = []
    for labels, trial in trials:
        noise = random.Random(trial.identity).uniform(-5e-4, 5e-4) + 2e-3 * trial.seed
        usual = 0.2 + wer(labels) + noise
        rates = {"usual": usual, "short": usual + short(labels)}
        result = {
            "by_corpus": {corpus: {"wer": rate, "cer": rate / 2} for corpus, rate in rates.items()},
            "train_seconds": seconds(labels) * (1 + noise),
            "hours_learnt": 1.0,
            "seen_by_group": {"clean": 1.1, "wrong": 0.2, "copy": 0.9},
        }
        content = json.loads(json.dumps(trial.content))
        records.append(Record(trial.identity, content, result, {}, Path(), labels=[labels]))
    return View.of(records)


def judged(name, *made_up, **more):
    return CLAIMS[NAMES.index(name)].judge(seen((*TRIALS, *TIMES), *made_up, **more)).outcome


@pytest.mark.parametrize(("data", "figures", "tables"), [("time", 0, 1), ("defects", 2, 2)])
def test_the_page_shows_what_there_is(data, figures, tables):
    pytest.importorskip("matplotlib")
    sections = STUDY.sections(seen(STUDY.trials("quick", data)))
    assert not [one.text for one in sections if one.title.startswith("Not shown")]
    assert sum(one.figure is not None for one in sections) == figures
    assert sum(one.table is not None for one in sections) == tables


def only(*arms, value, keep=None):
    def error(at):
        return value * (at["arm"] in arms and (keep is None or at.get("keep") == keep))

    return error


YES, NO = "supported", "not supported"


@pytest.mark.parametrize(
    ("name", "wer", "outcome"),
    [
        ("learnt", lambda at: 0.0, YES),
        ("learnt", lambda at: 0.5, NO),
        ("70 %", lambda at: 0.0, YES),
        ("70 %", only("easy to hard", value=0.02), NO),
        ("70 %", only("easy to hard", value=0.02, keep=0.5), YES),
        ("70 %", lambda at: 0.5, "not judged"),  # nothing was learnt: nothing is judged
        ("short", only("full short", value=0.02), YES),
        ("short", lambda at: 0.0, NO),
        ("curriculum", only("full short", value=0.02), YES),
        ("curriculum", only("easy to hard", value=0.02), NO),
        ("ours short", only("ours", value=-0.02), YES),
        ("ours short", only("ours", value=0.02), NO),
        ("ours random", only("ours", value=-0.02), YES),
        ("ours random", only("stratified random", value=-0.02), NO),
        ("random", lambda at: 0.0, YES),
        ("random", only("SeTa", value=0.03), NO),
        ("static", only("static random", value=0.02), YES),
        ("static", only("dynamic random", value=0.02), NO),
        ("chunks", only("points", value=0.02), YES),
        ("chunks", only("points", value=-0.02), NO),
        ("both", lambda at: 0.0, YES),
        ("both", only("both", value=0.02), NO),
        ("both shorter", only("full shorter", value=0.02), YES),
        ("both shorter", only("both", value=0.02), NO),
        ("collapse", only("easy to hard", value=0.05, keep=0.3), YES),
        ("collapse", only("easy to hard", "full short", value=0.05, keep=0.3), NO),
    ],
)
def test_rules(name, wer, outcome):
    assert judged(name, wer) == outcome


@pytest.mark.parametrize(
    ("name", "short", "outcome"),
    [
        ("sum", only("hard by sum", value=0.05), YES),
        ("sum", only("hard by sum", value=0.0), NO),
        ("label", only("hard by sum", value=0.05), YES),
        ("label", only("hard", value=0.05), NO),
    ],
)
def test_rules_of_short_utterances(name, short, outcome):
    assert judged(name, short=short) == outcome


@pytest.mark.parametrize(("factor", "outcome"), [(0.5, YES), (0.8, NO)])
def test_time_is_a_ratio_and_judged_whatever_was_learnt(factor, outcome):
    seconds = lambda at: 100 * (factor if at["arm"] == "both, timed" else 1.0)  # noqa: E731
    assert judged("fast", lambda at: 0.5, seconds=seconds) == outcome


def test_timed_runs_are_in_no_rule_of_error_rates():
    trials = {one.labels["arm"]: one.trial for one in TIMES}
    assert trials.keys() == TIMED.keys() and not TIMED.keys() & ARMS.keys()
    full, both = (epochs_seen(trials[f"{arm}, timed"]) for arm in ("full", "both"))
    assert full / both == pytest.approx(1.96, abs=0.1)  # what frames alone would save


def run_smoke(folder, jobs=1):
    pytest.importorskip("espeakng_loader")
    return run_study(STUDY, "smoke", folder, options={"device": "cpu"}, jobs=jobs)


@pytest.mark.long
def test_the_smoke_preset_ends_with_a_page(tmp_path):
    pytest.importorskip("matplotlib")
    ended = run_smoke(tmp_path, jobs=2)
    assert len(ended.finished) == len(STUDY.trials("smoke")) and not ended.failed
    view = View.of(Records.read(tmp_path))
    sections = STUDY.sections(view)
    assert not [one.text for one in sections if one.title.startswith("Not shown")]
    assert sum(one.figure is not None for one in sections) == 2
    for _, record in view.rows:
        asked = epochs_seen(
            next(t.trial for t in STUDY.trials("smoke") if t.trial.identity == record.identity)
        )
        learnt = record.result["hours_learnt"] / record.result["hours"]
        assert learnt == pytest.approx(asked, rel=0.1)
