"""Figures show the intervals they are given."""

import math
import re
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from regrow.lab.figures import Look, about_runs, draw_curves, draw_rows, figure_style, reach, svg
from regrow.lab.statistics import Interval, mean_interval


@pytest.mark.parametrize("even", [False, True])
def test_error_bars_reach_where_the_intervals_end(even):
    curves = {
        "a": {0.1: Interval(1.0, 0.5, 2.5, 5), 0.5: Interval(2.0, math.nan, math.nan, 1)},
        "b": {0.5: Interval(3.0, 2.0, 4.0, 5)},
    }
    axes = Figure().subplots()
    looks = {name: Look("#56b4e9", "o") for name in curves}
    places = (0.1, 0.5) if even else ()
    draw_curves(axes, curves, x="density", y="accuracy, %", looks=looks, places=places)
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


numbers = st.floats(-1e6, 1e6)
intervals = st.builds(lambda mean, half, n: Interval(mean, mean - half, mean + half, n),
                      numbers, st.floats(0, 1e6), st.integers(2, 9))  # fmt: skip


@given(st.lists(intervals, min_size=1, max_size=12), st.lists(numbers, max_size=2))
def test_an_axis_holds_all_means_and_no_bar_makes_them_small(shown, also):
    low, high = reach(shown, also)
    means = [*(one.mean for one in shown), *also]
    assert low < min(means) and max(means) < high
    room = max(max(means) - min(means), 2 * median(one.half_width for one in shown))
    assert high - low <= 3.4 * (room or abs(means[0]) or 1.0) * (1 + 1e-9)


@pytest.mark.parametrize(("low", "high"), [(-0.5, 0.5), (-50, 50)])
def test_bars_of_one_size_are_all_shown_whole(low, high):
    found = reach([Interval(0, low, high, 5)] * 4)
    assert found[0] < low and high < found[1]


def test_a_mean_far_from_all_others_is_written_at_the_edge():
    near = {str(i): Interval(i / 10, i / 10 - 0.1, i / 10 + 0.1, 5) for i in range(6)}
    axes = Figure().subplots()
    draw_rows(axes, {**near, "far": Interval(-23.8, -24, -23, 5)}, x="points")
    assert axes.get_xlim()[0] > -3
    assert [text.get_text().strip() for text in axes.texts] == ["\u221223.8"]
    half = {name: Interval(-23.8, -24, -23, 5) for name in "abcdef"}
    assert (
        reach([*near.values(), *half.values()], outliers=True)[0] < -23.8
    )  # not the few: all on it
    zeros = [Interval(0, 0, 0, 5)] * 9
    assert reach([*zeros, Interval(-16, -17, -15, 5)], outliers=True)[0] < -16


def test_a_figure_takes_the_colours_of_the_page_and_no_name_twice():
    with figure_style():
        figure = Figure()
        axes = figure.subplots()
        axes.plot([0, 1], color="black")
        axes.axhline(0.5, color="#0072b2")
        drawing = svg(figure, "a line")
    assert "currentColor" in drawing and "var(--blue" in drawing and "var(--grid" in drawing
    assert not re.search(r": #(?:000000|ffffff)", drawing)
    names = re.findall(r' id="([^"]+)"', drawing)
    assert len(names) == len(set(names))
    used = re.findall(r'(?:href="#|url\(#)([^")]+)', drawing)
    assert set(used) <= set(names)


def test_a_colour_with_a_twin_for_dark_pages_is_said_twice():
    """First for browsers that know no light-dark(); text and lines alike."""
    with figure_style():
        figure = Figure()
        figure.text(0.5, 0.5, "words", color="#22252b")
        figure.subplots().plot([0, 1], color="#22252b")
        drawing = svg(figure, "a line", {"#22252b": "#e8eaee"})
    for what in ("fill", "stroke"):
        assert f"{what}: #22252b; {what}: light-dark(#22252b, #e8eaee)" in drawing
    assert drawing.count("#22252b") == 2 * drawing.count("#e8eaee")
