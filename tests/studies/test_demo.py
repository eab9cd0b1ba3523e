"""The demo: repeatable, complete, and honest in its words."""

import io

import pytest
from rich.console import Console

from regrow.cli.demo import print_results
from regrow.lab.attempt import attempt
from regrow.lab.records import Records
from regrow.lab.statistics import Interval
from regrow.lab.study_page import find, study_page
from regrow.lab.study_run import run_study
from regrow.studies.demo import DATA, demo_study
from regrow.studies.demo_page import NETWORKS, demo_table, judge

SEEDS = [1, 2, 3]
STUDY = demo_study(3, 1, model="mlp-16-16", epochs=4, samples=512)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    options = {"device": "cpu"}
    ended = run_study(
        STUDY, "quick", out, options=options, executor="inline", console=Console(file=io.StringIO())
    )
    assert not ended.failed
    return find((out,), lambda _: STUDY)


def records(found, network):
    return sorted(found.view.where(**NETWORKS[network]).records, key=lambda r: r.config["seed"])


def first(found, network):
    return records(found, network)[0].result


def test_every_network_has_every_seed(found):
    for network in NETWORKS:
        assert [r.config["seed"] for r in records(found, network)] == SEEDS
    assert [row[0] for row in demo_table(found.view).rows] == list(NETWORKS)


def test_all_data_sets_learn_the_same_networks():
    for data in DATA:
        labels = [labels for labels, _ in demo_study(1).trials("quick", data)]
        own = [{key: one[key] for key in one if key != "task"} for one in labels]
        assert sorted(own, key=str) == sorted([*NETWORKS.values(), {"arm": "times"}], key=str)


def test_what_is_printed_fits_80_columns(found):
    out = io.StringIO()
    print_results(found.view, Console(file=out, width=80))
    lines = out.getvalue().splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert sum(line.strip().startswith(tuple(NETWORKS)) for line in lines) == len(NETWORKS)
    assert sum("RigL 0.05: " in line for line in lines) == 1


@pytest.mark.parametrize("network", ["dense", "SET 0.1", "RigL 0.05"])
def test_the_same_seed_gives_the_same_numbers(found, network, tmp_path):
    record = records(found, network)[1]
    trials = {trial.identity: trial for _, trial in STUDY.trials("quick")}
    attempt(trials[record.identity], tmp_path, {"device": "cpu"})
    (again,) = Records.read(tmp_path)
    assert again.result | {"train_seconds": 0} == record.result | {"train_seconds": 0}
    assert len(again.metrics()) == len(record.metrics()) == 4


def test_a_small_dense_network_has_no_more_parameters_than_the_sparse_one(found):
    for density in ("0.1", "0.05"):
        budget = first(found, f"static {density}")["active_parameters"]
        assert 0 < first(found, f"small dense {density}")["active_parameters"] <= budget


def test_costs_are_ordered_as_they_must_be(found):
    dense, static, rigl = (first(found, name) for name in ("dense", "static 0.1", "RigL 0.1"))
    assert static["training_flops"] == first(found, "SET 0.1")["training_flops"]
    assert static["training_flops"] < rigl["training_flops"] < dense["training_flops"]
    assert static["bytes_needed"] < dense["bytes_allocated"] < static["bytes_allocated"]


def test_static_topologies_stay_and_dynamic_ones_move(found):
    for method in ("static", "SET", "RigL"):
        record = records(found, f"{method} 0.1")[0]
        shares = [line["still_active"] for line in record.metrics()]
        assert len(shares) == 4
        assert (shares[-1] == 1.0) == (method == "static")
        assert shares[-1] == pytest.approx(1 - record.result["moved"])
        assert "still_active" not in record.result


def test_connections_move_between_inputs_and_not_between_layers(found):
    for name in ("SET 0.1", "RigL 0.05"):
        result = first(found, name)
        assert result["first_densities"] == result["densities"]
        before, after = result["inputs"]["before"], result["inputs"]["after"]
        assert before != after
        assert sum(before) == sum(after)


def test_steps_of_all_networks_are_timed(found):
    seconds = found.view.where(arm="times").first.result["step_seconds"]
    assert list(seconds) == ["dense", "small dense", "static", "SET", "RigL"]
    assert all(len(own) == 15 and min(own) > 0 for own in seconds.values())


def test_the_page_is_complete(found):
    html = study_page(found)
    assert html.count("<figure>") == 6
    assert "Not shown" not in html
    assert "saves no time" in html


@pytest.mark.parametrize(
    ("interval", "words"),
    [
        (Interval(1, 0.5, 1.5, 5), "better than"),
        (Interval(-1, -1.5, -0.5, 5), "worse than"),
        (Interval(1, -0.5, 2.5, 5), "no clear difference"),
        (Interval(1, 0.9, 1.1, 2), "too few seeds"),
    ],
)
def test_a_verdict_needs_three_seeds_and_an_interval_without_zero(interval, words):
    assert words in judge(interval)
