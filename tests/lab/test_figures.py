"""Figures show the intervals they are given."""

import math

import pytest
from matplotlib.figure import Figure

from regrow.lab.figures import about_runs, draw_curves, draw_rows
from regrow.lab.statistics import Interval, mean_interval


@pytest.mark.parametrize("even", [False, True])
def test_error_bars_reach_where_the_intervals_end(even):
    curves = {
        "a": {0.1: Interval(1.0, 0.5, 2.5, 5), 0.5: Interval(2.0, math.nan, math.nan, 1)},
        "b": {0.5: Interval(3.0, 2.0, 4.0, 5)},
    }
    axes = Figure().subplots()
    draw_curves(axes, curves, x="density", y="accuracy, %", even=even)
    first = axes.containers[0]
    assert list(first.lines[0].get_ydata()) == [1.0, 2.0]
    [bars] = first.lines[2]
    ends = [segment[:, 1].tolist() for segment in bars.get_segments()]
    assert ends == [[0.5, 2.5], [2.0, 2.0]]
    if not even:
        assert list(first.lines[0].get_xdata()) == [0.1, 0.5]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("density", "accuracy, %")


def test_rows_go_from_top_to_bottom():
    axes = Figure().subplots()
    draw_rows(axes, {"a": Interval(1, 0, 2, 3), "b": Interval(2, 1, 3, 3)}, x="points", zero=0)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    low, high = axes.get_ylim()
    assert low > high


def test_captions_count_runs():
    assert about_runs([]) == "No runs."
    assert "n = 1" in about_runs([mean_interval([1.0])])
    assert "n = 2 to 5 seeds" in about_runs([Interval(0, 0, 0, 5), Interval(0, 0, 0, 2)])
