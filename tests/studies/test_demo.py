"""The demo: repeatable, complete, and honest in its words."""

import dataclasses
import io
import json

import pytest
from rich.console import Console

from regrow.lab.statistics import Interval
from regrow.studies.demo.run import run_demo
from regrow.studies.demo.trial import CELLS, Cell, Hyperparameters, run_trial
from regrow.studies.demo.words import _judge

TINY = Hyperparameters(width=16, epochs=4, batch=64, images=512)


@pytest.fixture(scope="module")
def run():
    out = io.StringIO()
    console = Console(file=out, width=80)
    return run_demo("digits", [0, 1, 2], jobs=1, console=console, chosen=TINY), out.getvalue()


def test_every_cell_has_every_seed(run):
    results = run[0].results
    assert tuple(results) == CELLS
    assert all([r.seed for r in found] == [0, 1, 2] for found in results.values())


def test_the_table_fits_80_columns(run):
    assert all(len(line) <= 80 for line in run[1].splitlines())


@pytest.mark.parametrize("cell", [Cell("Dense"), Cell("SET", 0.1), Cell("RigL", 0.05)], ids=str)
def test_the_same_seed_gives_the_same_numbers(run, cell):
    again = run_trial("digits", cell, 1, chosen=TINY)
    assert dataclasses.asdict(again) == dataclasses.asdict(run[0].results[cell][1])


def test_a_small_dense_network_has_no_more_parameters_than_the_sparse_one(run):
    results = run[0].results
    for density in (0.1, 0.05):
        budget = results[Cell("Static", density)][0].parameters
        assert 0 < results[Cell("Small dense", density)][0].parameters <= budget


def test_costs_are_ordered_as_they_must_be(run):
    def cost(method, density=0.1):
        return run[0].results[Cell(method, density)][0]

    dense = run[0].results[CELLS[0]][0]
    assert cost("Static").training_flops == cost("SET").training_flops
    assert cost("SET").training_flops < cost("RigL").training_flops < dense.training_flops
    assert cost("Static").bytes_needed < dense.bytes_allocated < cost("Static").bytes_allocated


def test_static_topologies_stay_and_dynamic_ones_move(run):
    def shared(method):
        return run[0].results[Cell(method, 0.1)][0].overlap[-1][1]

    assert shared("Static") == 1.0
    assert shared("SET") < 1.0
    assert shared("RigL") < 1.0


def test_the_record_is_json_and_the_page_is_html(run):
    record = json.loads(json.dumps(run[0].record()))
    assert len(record["trials"]) == len(CELLS) * 3
    html = run[0].page()
    assert html.count("<svg") == 6
    assert "saves no time" in html


@pytest.mark.parametrize(
    ("interval", "words"),
    [
        (Interval(0.01, 0.005, 0.015, 5), "better than"),
        (Interval(-0.01, -0.015, -0.005, 5), "worse than"),
        (Interval(0.01, -0.005, 0.025, 5), "no clear difference"),
        (Interval(0.01, 0.009, 0.011, 2), "too few seeds"),
    ],
)
def test_a_verdict_needs_three_seeds_and_an_interval_without_zero(interval, words):
    assert words in _judge(interval)
