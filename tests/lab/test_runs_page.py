"""The page of runs that belong to no study: what is best comes first, and nothing is left out."""

import sys

import pytest

from regrow.cli import main
from regrow.lab.files import append_line, write_json
from regrow.lab.records import Records
from regrow.lab.run import METRICS
from regrow.lab.runs_page import find_runs, runs_page
from regrow.lab.trial import identity_of


def keep(out, result, *, seed=0, method="RigL", density=0.1, lines=(), trial="Classify", **more):
    config = {"trial": trial, "seed": seed, "method": {"kind": method, "density": density}, **more}
    folder = out / "trials" / identity_of(config)
    folder.mkdir(parents=True)
    write_json(folder / "config.json", config)
    write_json(folder / "result.json", result)
    write_json(folder / "environment.json", {"cpu": "x", "seconds": "2.5"})
    for line in lines:
        append_line(folder / METRICS, line)


@pytest.fixture
def out(tmp_path):
    for seed in (0, 1, 2):
        for method, accuracy in (("SET", 0.5), ("RigL", 0.7)):
            lines = [{"epoch": e, "loss": 1 / e, "train_accuracy": 0.1 * e} for e in (1, 2, 3)]
            result = {"accuracy": accuracy + seed / 100, "density": 0.1, "train_seconds": 4.0}
            result |= {"inference_flops": 10.0, "dense_inference_flops": 40.0}
            keep(tmp_path, result, seed=seed, method=method, lines=lines, data="digits")
    return tmp_path


def test_the_best_setting_is_named_first_with_its_interval(out):
    html = runs_page(find_runs([out]))
    assert "6 runs of 2 settings. Highest accuracy in %: 71.00 ± 2.48 (3), RigL." in html
    table = html[html.index("Settings of Classify") :]
    assert table.index("RigL") < table.index("SET")
    assert ">0.25</td>" in table
    assert "Train accuracy on the way" in html and "Loss on the way" in html
    assert "Means over n = 3 seeds" in html


def test_where_less_is_better_the_least_is_the_best(tmp_path):
    for method, wer in (("SET", 0.5), ("RigL", 0.2)):
        keep(tmp_path, {"wer": wer}, method=method, trial="Recognise")
    assert "Lowest wer: 0.20 (1), RigL." in runs_page(find_runs([tmp_path]))


def test_settings_that_differ_in_more_than_the_seed_are_not_averaged(tmp_path):
    """Two contents of one file share name and settings, but not their data."""
    keep(tmp_path, {"accuracy": 0.9}, data="tea.csv", digest="a")
    keep(tmp_path, {"accuracy": 0.1}, data="tea.csv", digest="b", seed=1)
    html = runs_page(find_runs([tmp_path]))
    assert "2 runs of 2 settings. Highest accuracy in %: 90.00 (1)" in html


def test_results_on_other_data_are_not_ranked_together(out):
    keep(out, {"accuracy": 0.99}, data="tea", method="SET")
    html = runs_page(find_runs([out]))
    assert "Classify on digits: 6 runs of 2 settings. Highest accuracy in %: 71.00" in html
    assert "Classify on tea: 1 run of 1 setting. Highest accuracy in %: 99.00" in html


def test_runs_of_several_kinds_failures_and_damage_are_all_there(out):
    keep(out, {"dice": 0.8}, trial="Segment")
    [broken, *_] = sorted((out / "trials").iterdir())
    (broken / "result.json").write_text("{")
    html = runs_page(find_runs([out]))
    assert "Highest dice" in html or broken.name in html
    assert f"Left out: {broken}" in html or str(broken) in html


def test_the_command_makes_the_page_and_packs_what_it_was_made_of(out, tmp_path, monkeypatch):
    words = ["report", str(out), "--pack", str(tmp_path / "kept"), "--csv", str(out / "x.csv")]
    monkeypatch.setattr(sys, "argv", ["regrow", *words])
    main()
    assert "RigL" in (out / "report.html").read_text("utf-8")
    assert len((out / "x.csv").read_text().splitlines()) == 7
    monkeypatch.setattr(sys, "argv", ["regrow", "report", str(tmp_path / "kept")])
    main()
    assert len(Records.read(tmp_path / "kept")) == 6


def test_where_nothing_ran_the_error_says_what_is_wanted(tmp_path):
    with pytest.raises(FileNotFoundError, match="no run and no study; name a folder"):
        find_runs([tmp_path])
