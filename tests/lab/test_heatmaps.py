"""Heat maps show every value once, and leave empty what has none."""

import numpy as np
import pytest

from regrow.lab.figures import figure_style
from regrow.lab.heatmaps import heatmaps

LOWER = np.array([[11.0, np.nan], [12.0, 13.0]])


@pytest.fixture(autouse=True)
def style():
    """Text stays text in figures."""
    with figure_style():
        yield


def test_few_rows_are_written_out_and_holes_stay_empty():
    (section,) = heatmaps("Title", "Text.", {"one": LOWER, "two": LOWER + 10}, scale="per cent")
    for number in (11, 12, 13, 21, 22, 23):
        assert f">{number}<" in section.figure
    assert ">nan<" not in section.figure
    assert all(f">{words}<" in section.figure for words in ("one", "two", "per cent"))


def test_many_rows_are_colours_alone():
    (section,) = heatmaps("Title", "Text.", {"one": np.full((7, 7), 33.0)}, scale="per cent", low=0)
    assert ">33<" not in section.figure


def test_colours_begin_where_they_are_told_to():
    ticks = [
        ">0<" in section.figure
        for low in (0.0, None)
        for section in heatmaps("Title", "", {"one": LOWER}, scale="per cent", low=low)
    ]
    assert ticks == [True, False]


def test_nothing_is_shown_of_nothing():
    assert not list(heatmaps("Title", "Text.", {}, scale="per cent"))
