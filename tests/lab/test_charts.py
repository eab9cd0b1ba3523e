"""Charts show what they are given, panel by panel."""

import re

import pytest
from matplotlib.axes import Axes

from regrow.lab.charts import curves, rows
from regrow.lab.figures import figure_style
from regrow.lab.statistics import Interval

LINES = {"SET": {1.0: Interval(200, 100, 300, 3), 2.0: Interval(300, 200, 400, 3)}}


@pytest.fixture(autouse=True)
def style():
    """Text stays text in figures."""
    with figure_style():
        yield


@pytest.mark.parametrize("even", [False, True])
def test_black_lines_are_horizontal_or_go_through_places(monkeypatch, even):
    drawn = {}
    plot, across = Axes.plot, Axes.axhline

    def keep(axes, x, y, **options):
        drawn[options["label"]] = x, y
        return plot(axes, x, y, **options)

    def keep_across(axes, y, **options):
        drawn[options["label"]] = y
        return across(axes, y, **options)

    monkeypatch.setattr(Axes, "plot", keep)
    monkeypatch.setattr(Axes, "axhline", keep_across)
    levels = {"": {"dense": Interval(5, 4, 6, 3), "expected": {1: 0.1, 2: 0.3}}}
    (section,) = curves("Title", "", {"": LINES}, x="x", y="y", levels=levels, even=even)
    assert drawn == {"dense": 5, "expected": ([0, 1] if even else [1, 2], [0.1, 0.3])}
    assert "n = 3 seeds" in section.caption


def test_whole_places_have_whole_ticks():
    (section,) = curves("Title", "", {"": LINES}, x="x", y="y", even=False, limits=(0, None))
    assert ">2<" in section.figure and not re.search(r">\d+\.\d+<", section.figure)


@pytest.mark.parametrize(("zero", "lines"), [({"BWT": 0.5}, [0.5]), (0.0, [0.0] * 2), (None, [])])
def test_the_line_of_no_difference_is_drawn_where_it_is_asked_for(monkeypatch, zero, lines):
    drawn = []
    monkeypatch.setattr(Axes, "axvline", lambda axes, x, **_: drawn.append(x))
    panels = {"ACC": {"SET": Interval(80, 79, 81, 3)}, "BWT": {"SET": Interval(-1, -2, 0, 3)}}
    assert list(rows("Title", "", panels, x="points", zero=zero))
    assert drawn == lines
