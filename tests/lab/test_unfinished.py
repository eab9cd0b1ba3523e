"""No verdict from a study that is not finished, nor from one that is too small to judge."""

import shutil
from pathlib import Path

import pytest
from toy_study import STUDY, Fit

from regrow.cli.study import report
from regrow.lab.claims import Claim, Verdict
from regrow.lab.design import labels_by_identity
from regrow.lab.effects import gain
from regrow.lab.records import TRIALS
from regrow.lab.rules import claim
from regrow.lab.statistics import Interval
from regrow.lab.study_file import Order, add_order, leave_out, left_out
from regrow.lab.study_page import find, study_page
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


def judged(folder):
    return [verdict for _, verdict in find([folder], load_study).verdicts]


def test_a_claim_whose_trials_are_not_all_there_gets_none_and_says_why_first(whole, lacking):
    before, after = judged(whole)[0], judged(lacking)[0]
    assert before.outcome == "supported"
    assert after.outcome == "inconclusive"
    assert str(after).startswith("unfinished: 1 trial not run yet; ")
    assert after.effect is not None and after.effect.n == 4  # shown all the same
    assert "95 % interval" in str(after) and "supported" not in str(after)


def test_other_claims_are_judged_as_before(whole, lacking):
    assert judged(lacking)[1:3] == judged(whole)[1:3]


def test_a_run_that_goes_on_gives_its_verdict_once_it_is_done(whole, lacking):
    run_study(STUDY, "quick", lacking, executor="inline", options=OPTIONS)
    assert judged(lacking) == judged(whole)


def test_what_is_left_out_on_purpose_is_said_with_its_reason(lacking, tmp_path):
    leave_out("The machine was given back.", lacking)
    verdict = judged(lacking)[0]
    assert verdict.outcome == "supported"
    assert str(verdict).endswith("1 trial that it asks for left out")
    html = study_page(find([lacking], load_study))
    assert "Trials: 44 finished, 1 left out." in html
    assert "Why trials are left out: The machine was given back." in html
    report((lacking,), pack=tmp_path / "packed")
    assert judged(tmp_path / "packed")[0] == verdict
    add_order(Order("toy", "smoke"), lacking)  # asks for something new
    assert left_out(lacking) == ""


def test_a_reason_is_needed(lacking):
    with pytest.raises(ValueError, match="say why"):
        leave_out(" ", lacking)


def test_the_smoke_preset_decides_nothing_by_itself(tmp_path, monkeypatch):
    run_study(STUDY, "smoke", tmp_path, executor="inline", options=OPTIONS)
    for verdict in judged(tmp_path):
        assert verdict.outcome == "inconclusive"
        assert str(verdict).startswith("smoke preset: too small to judge")
    assert judged(tmp_path)[0].effect is not None


def test_smoke_trials_are_left_out_beside_those_of_another_preset(whole, tmp_path, monkeypatch):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    add_order(Order("toy", "smoke", "file"), tmp_path)  # trials that the quick preset has not
    found = find([tmp_path], load_study)
    assert found.missing == 18
    assert found.verdicts == find([whole], load_study).verdicts


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
    assert str(verdict) == f"unfinished: {len(rows)} trials not run yet; cannot be followed"


def test_verdicts_on_parts_are_no_way_round():
    parts = {"a": gain("RigL", "Static", density=0.05), "b": gain("SET", "Static", density=0.05)}
    view = View([], Gaps(too_small="too small"))
    assert "supported" not in str(claim("", "", parts, above=0).judge(view))
    held = Verdict("inconclusive", Interval(1, 0.5, 1.5, 3), "points", held="too small")
    assert str(held) == "too small; 1 points (95 % interval 0.5 to 1.5, n = 3)"


@pytest.mark.parametrize("name", sorted(path.parent.name for path in RESULTS.glob("*/study.json")))
def test_committed_records_are_whole_or_say_what_is_left_out(name):
    found = find([RESULTS / name], load_study)
    assert not found.missing or found.left_out
