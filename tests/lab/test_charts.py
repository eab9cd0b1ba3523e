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


POINT = {1.0: Interval(1, 0, 2, 3), 2.0: Interval(2, 1, 3, 3)}


def legends(figure):
    return [
        re.findall(r"</svg>([^<]+)</li>", part) for part in figure.split('<ul class="legend">')[1:]
    ]


@pytest.mark.parametrize("count", [1, 6, 7, 12, 13, 20])
def test_a_plot_has_six_lines_at_most_and_each_line_is_in_one(count):
    names = [f"arm {i}" for i in range(count)]
    lines = dict.fromkeys(names, POINT)
    (section,) = curves("Title", "", {"a": lines, "b": lines}, x="x", y="y")
    shown = legends(section.figure)
    assert [name for part in shown for name in part] == names
    assert max(map(len, shown)) <= 6 and max(map(len, shown)) - min(map(len, shown)) <= 1
    assert len(shown) == -(-count // 6)


def test_a_legend_names_what_is_drawn_and_nothing_else():
    panels = {"a": {"SET": POINT, "RigL": {}}, "b": {"SET": POINT}, "c": {"RigL": {}}}
    levels = {"a": {"dense": Interval(3, 2, 4, 3)}, "c": {"static": Interval(3, 2, 4, 3)}}
    (section,) = curves("Title", "", panels, x="x", y="y", levels=levels)
    assert legends(section.figure) == [["SET", "dense"]]
    assert ">c<" not in section.figure


def test_rows_that_a_panel_has_not_are_not_there():
    panels = {"clean": {"SET": Interval(1, 0, 2, 3), "RigL": Interval(2, 1, 3, 3)},
              "wrong": {"SET": Interval(1, 0, 2, 3)}, "none": {}}  # fmt: skip
    (section,) = rows("Title", "", panels, x="points")
    assert section.figure.count(">SET<") == 2 and section.figure.count(">RigL<") == 1
    assert ">none<" not in section.figure


def test_a_bar_that_leaves_its_plot_is_said():
    wide = {str(i): Interval(i, i - 0.5, i + 0.5, 5) for i in range(4)} | {
        "w": Interval(1, -99, 99, 2)
    }
    (section,) = rows("Title", "", {"": wide}, x="points")
    assert section.caption.endswith("Bars that leave a plot go on beyond it.")
    (section,) = rows("Title", "", {"": {"a": Interval(1, 0, 2, 3)}}, x="points")
    assert "leave" not in section.caption
