"""No verdict from a study that is not finished, nor from one that is too small to judge."""

import functools
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from toy_study import STUDY, Fit

from regrow.cli.study import report
from regrow.lab.claims import SEEDS_NEEDED, Claim, Verdict
from regrow.lab.design import labels_by_identity
from regrow.lab.effects import gain
from regrow.lab.failures import Failure, keep_failure
from regrow.lab.learnt import Known
from regrow.lab.records import TRIALS, Records
from regrow.lab.rules import claim
from regrow.lab.statistics import Interval
from regrow.lab.study_file import Order, add_order, leave_out, left_out
from regrow.lab.study_page import Found, find, study_page
from regrow.lab.study_run import run_study
from regrow.lab.view import Gaps, NotRun, View
from regrow.studies.registry import STUDIES, load_study

RESULTS = Path(__file__).parents[2] / "results"
OPTIONS = {"data_dir": None, "device": "auto"}


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(STUDIES, "toy", "toy_study:STUDY")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    run_study(STUDY, "quick", out, executor="inline", options=OPTIONS)
    return out


@pytest.fixture
def lacking(whole, tmp_path):
    """All of the quick preset but one seed of RigL at density 0.05, which the first claim needs."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / TRIALS / Fit(seed=4, method="RigL", density=0.05).identity)
    return tmp_path


@functools.cache
def committed(name):
    return find([RESULTS / name], load_study)


def judged(folder):
    return [verdict for _, verdict in find([folder], load_study).verdicts]


def test_a_study_that_lacks_a_trial_gives_no_verdict_and_says_so_first(whole, lacking):
    before, after = judged(whole), judged(lacking)
    assert {verdict.outcome for verdict in before} > {"supported", "not supported"}
    assert {verdict.outcome for verdict in after} == {"not judged"}
    assert str(after[0]).startswith("unfinished, of 45 trials 1 not run yet; ")
    assert after[0].effect is not None and after[0].effect.n == 4  # shown all the same
    assert all("supported" not in str(verdict) for verdict in after)
    found = find([lacking], load_study)
    assert found.answer == "No verdict: unfinished, of 45 trials 1 not run yet."
    assert 'class="supported"' not in study_page(found)
    body = study_page(found).split("</h1>")[1]
    assert body.lstrip().startswith(f'<p class="answer held">{found.answer}</p>')


def test_a_run_that_goes_on_gives_its_verdict_once_it_is_done(whole, lacking):
    run_study(STUDY, "quick", lacking, executor="inline", options=OPTIONS)
    assert judged(lacking) == judged(whole)


def test_what_is_left_out_on_purpose_is_said_with_its_reason(whole, lacking, tmp_path):
    leave_out("The machine was given back.", lacking)
    verdict = judged(lacking)[0]
    assert verdict.outcome == "supported"
    assert str(verdict).endswith("1 trial that it asks for left out")
    assert judged(lacking)[1:3] == judged(whole)[1:3]  # which do not ask for it
    html = study_page(find([lacking], load_study))
    assert "Trials: 44 finished, 1 left out." in html
    assert "Why trials are left out: The machine was given back." in html
    report((lacking,), pack=tmp_path / "packed")
    assert judged(tmp_path / "packed")[0] == verdict
    add_order(Order("toy", "smoke"), lacking)  # asks for something new
    assert left_out(lacking) == ""


def test_what_failed_and_is_left_out_is_said_like_what_was_not_run(lacking):
    keep_failure(Fit(seed=4, method="RigL", density=0.05), lacking, "OSError: no room")
    leave_out("The disk was full.", lacking)
    assert str(judged(lacking)[0]).endswith("1 trial that it asks for left out")
    assert "Trials: 44 finished, 1 failed." in study_page(find([lacking], load_study))


def test_a_reason_is_needed(lacking):
    with pytest.raises(ValueError, match="say why"):
        leave_out(" ", lacking)


@pytest.mark.parametrize("reason", ["", "It is broken."])
@pytest.mark.parametrize("failed", [0, 2])
@pytest.mark.parametrize("waiting", [0, 3])
@pytest.mark.parametrize("preset", ["smoke", "quick"])
def test_verdicts_need_a_preset_that_judges_and_all_trials_or_a_reason(
    whole, preset, waiting, failed, reason
):
    trials = {one.trial.identity: one.trial.content for one in STUDY.trials(preset)}
    orders = {Order("toy", preset): list(trials)}
    lost, broken = list(trials)[:waiting], list(trials)[waiting : waiting + failed]
    made = Found(
        STUDY,
        Records(one for one in Records.read(whole) if one.identity not in (*lost, *broken)),
        [Failure(one, trials[one], "") for one in broken],
        [],
        orders,
        [NotRun(one, trials[one], {}, {}, Path()) for one in lost],
        reason,
    )
    fit = preset == "quick" and (bool(reason) or not (waiting or failed))
    assert bool(made.held) is not fit
    assert any(verdict.outcome != "not judged" for _, verdict in made.verdicts) is fit
    if not fit:
        assert made.answer.startswith("No verdict: ")
    if not fit and preset == "quick":
        assert (f"{waiting} not run yet" in made.answer) is bool(waiting)
        assert (f"{failed} failed" in made.answer) is bool(failed)


def test_a_preset_that_does_not_judge_decides_nothing_by_itself(tmp_path):
    run_study(STUDY, "smoke", tmp_path, executor="inline", options=OPTIONS)
    for verdict in judged(tmp_path):
        assert verdict.outcome == "not judged"
        assert str(verdict).startswith("the smoke preset is too small to judge by")
    assert judged(tmp_path)[0].effect is not None


def test_its_trials_are_left_out_beside_those_of_another_preset(whole, tmp_path):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    add_order(Order("toy", "smoke", "file"), tmp_path)  # trials that the quick preset has not
    found = find([tmp_path], load_study)
    assert len(found.waiting) == 18 and not found.missing
    assert found.verdicts == find([whole], load_study).verdicts


def test_smoke_presets_judge_nothing():
    for name in set(STUDIES) - {"demo", "toy", "other"}:
        assert not load_study(name).presets["smoke"].judges


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ("update-schedule", "toy") else [pytest.mark.long])
        for name in sorted({*STUDIES, "toy"})
    ],
)
def test_presets_that_judge_have_the_seeds_for_it(name):
    for preset in load_study(name).presets.values():
        some = preset.default or next(iter(preset.designs))
        if preset.judges:
            assert len({one.trial.seed for one in preset.trials(some)}) >= SEEDS_NEEDED


# ---------------------------------------------------------------------- what did not learn


def with_level(found, wanted, accuracy):
    """Change what trials reached."""
    records = [
        replace(one, result={**one.result, "accuracy": accuracy})
        if wanted.items() <= one.config.items()
        else one
        for one in found.records
    ]
    return replace(found, records=Records(records))


STATIC = {"method": "Static", "density": 0.05, "seed": 2}


def test_a_control_that_did_not_learn_is_named_and_what_reads_it_is_not_judged(whole):
    before = find([whole], load_study)
    assert not before.unlearnt
    found = with_level(before, STATIC, 0.1)
    (lost,) = found.unlearnt
    assert str(lost) == (
        "toy, Static, density 0.05, seed 2: test accuracy 10.0, where 90 is known (the toy itself)"
    )
    reads, *others = (verdict for _, verdict in found.verdicts)
    assert reads.outcome == "not judged"
    assert str(reads).startswith("1 trial that it reads did not learn; ")
    assert others == [verdict for _, verdict in before.verdicts][1:]
    html = study_page(found)
    assert f"Did not learn: {lost}." in html and ">Controls that did not learn</h2>" in html
    assert lost.record.identity in html


@pytest.mark.parametrize(
    ("accuracy", "learnt"), [(0.46, True), (0.45, True), (0.4499, False), (math.nan, False)]
)
def test_learning_is_half_of_the_way_from_chance(whole, accuracy, learnt):
    assert bool(with_level(find([whole], load_study), STATIC, accuracy).unlearnt) is not learnt


def test_only_controls_of_known_level_are_looked_at(whole):
    found = find([whole], load_study)
    assert not with_level(found, {**STATIC, "method": "SET"}, 0.1).unlearnt
    assert len(with_level(found, {"method": "Static"}, 0.1).unlearnt) == 15


def test_a_known_level_lies_above_chance():
    with pytest.raises(ValueError, match="level=10"):
        Known({}, 10.0, "", chance=10.0)


@pytest.mark.parametrize("name", sorted(path.parent.name for path in RESULTS.glob("*/study.json")))
def test_known_levels_are_those_of_the_records_that_they_name(name):
    found = committed(name)
    for known in found.study.known:
        if known.source.startswith(f"results/{name}") and "," not in known.source:
            reached = [known.measure.read(r) for r in found.view.where(**known.at).records]
            assert sum(reached) / len(reached) == pytest.approx(known.level, abs=0.1)
    if name != "hard-samples-no-warmup":  # which began at too high a rate
        assert not found.unlearnt


def test_a_rule_that_cannot_be_followed_may_read_any_trial():
    labels = labels_by_identity(STUDY.trials("quick"))
    rows = [
        (one, NotRun(identity, {"seed": 0}, {}, {}, Path(), labels=(one,)))
        for identity, ones in labels.items()
        for one in ones
    ]

    def refuses(view):
        raise ValueError("cannot be followed")

    verdict = Claim("", "", "", refuses).judge(View([], Gaps(rows)))
    assert str(verdict) == f"cannot be followed; {len(rows)} trials that it asks for left out"


def test_verdicts_on_parts_are_no_way_round():
    parts = {"a": gain("RigL", "Static", density=0.05), "b": gain("SET", "Static", density=0.05)}
    view = View([], Gaps(held="too small"))
    assert "supported" not in str(claim("", "", parts, above=0).judge(view))
    of_parts = Verdict("inconclusive", Interval(0, -1, 1, 5), "", "as for a; a: inconclusive")
    said = str(Claim("", "", "", lambda _: of_parts).judge(view))
    assert said == "too small; 0 (95 % interval -1 to 1, n = 5)".replace("-", "\u2212")
    held = Verdict("not judged", Interval(1, 0.5, 1.5, 3), "points", held="too small.")
    assert str(held) == "too small; 1 points (95 % interval 0.5 to 1.5, n = 3)"


@pytest.mark.parametrize("name", sorted(path.parent.name for path in RESULTS.glob("*/study.json")))
def test_committed_records_are_whole_or_say_what_is_left_out(name):
    found = committed(name)
    assert not found.missing or found.left_out
