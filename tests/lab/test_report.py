"""The page: escapes what it prints, needs nothing from outside."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from regrow.lab.charts import verdicts_by_task
from regrow.lab.claims import Claim, Verdict
from regrow.lab.effects import Measure, level
from regrow.lab.figures import figure_style, svg
from regrow.lab.records import Record
from regrow.lab.report import page, section_html
from regrow.lab.rules import claim
from regrow.lab.section import Section, Table
from regrow.lab.statistics import Interval
from regrow.lab.view import View

EVIL = "<script>alert('x')</script>"


class Checker(HTMLParser):
    VOID = ("meta", "br", "link", "img", "use", "path", "rect")

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.links = [], set(), []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


@pytest.fixture
def html():
    with figure_style():
        figure = Figure()
        axes = figure.subplots()
        axes.plot([0, 1], label=EVIL)
        axes.legend()
        drawing = svg(figure, f'a "title" {EVIL}')
    table = Table(("a", EVIL), [("row", EVIL)], EVIL)
    return page(EVIL, EVIL, [EVIL], [Section(EVIL, EVIL, drawing, table)], EVIL)


def test_nothing_that_is_printed_can_run(html):
    checker = Checker()
    checker.feed(html)
    assert checker.open == []
    assert "script" not in checker.tags
    assert html.count("&lt;script&gt;") >= 8


def test_every_text_is_shown_and_no_template(html):
    texts = ("the title", "the source", "a finding", "a section", "what it is", "the end")
    title, source, finding, section, text, end = texts
    shown = page(title, source, [finding], [Section(section, text)], end)
    body = shown[shown.index("<body>") :]
    assert all(body.count(text) == 1 for text in texts)
    assert [body.index(text) for text in (title, finding, source, section, text, end)] == sorted(
        body.index(text) for text in texts
    )
    assert "{{" not in shown + html


def test_the_page_asks_nobody_for_anything(html):
    checker = Checker()
    checker.feed(html)
    assert all(link.startswith("#") for link in checker.links)
    assert not re.search(r"url\((?!#)|@import", html)


def test_a_figure_is_drawn_alike_twice():
    def draw():
        with figure_style():
            figure = Figure()
            figure.subplots().plot([1, 2, 3])
            return svg(figure, "line")

    assert draw() == draw()


def test_each_task_is_judged_by_its_own_records():
    def made(task, gain):
        config = [{"seed": seed} for seed in range(3)]
        return [
            Record(f"{task}{c['seed']}", c, {"gain": gain}, {}, Path(), labels=[{"task": task}])
            for c in config
        ]

    gain = Measure("gain", lambda record: record.get("gain"))
    claims = [claim("It helps.", "", level(None, gain), above=0)]
    up, down = made("up", 1.0), made("down", -2.0)
    (section,) = verdicts_by_task(claims, View.of([*up, *down]))
    assert section.table.columns == ("", "down", "up")
    ((name, first, second),) = section.table.rows
    assert name == "It helps." and second.startswith("supported: 1.00")
    assert first.startswith("not supported: −2.00")
    assert not list(verdicts_by_task(claims, View.of(up)))


def test_the_contents_lead_to_every_part_and_no_name_is_used_twice():
    titles = ("Gains: a", "Gains: b", "Gains: a", "Costs", "Verdicts", "<i>: </i>")
    made = [(Claim("It works.", "", "", None), Verdict("inconclusive"))] * 2
    html = page("t", "", ["answer"], [Section(title, "") for title in titles], "", made)
    names = re.findall(r' id="([^"]+)"', html)
    assert len(names) == len(set(names))
    links = re.findall(r'href="#([^"]+)"', html)
    assert set(links) <= set(names)
    heads = set(re.findall(r'<h2 id="([^"]+)"', html))
    assert heads <= set(
        re.findall(r'href="#([^"]+)"', html[html.index("<nav") : html.index("</nav>")])
    )


@pytest.mark.parametrize("judged", [True, False])
def test_verdicts_are_a_table_and_shown_only_where_they_are_given(judged):
    effect = Interval(-1.234, -2.0, -0.5, 5)
    made = [
        (Claim("It <works>.", "a paper", "A rule.", None), Verdict("supported", effect, "points"))
    ]
    html = page("t", "", ["answer"], [], "", made, judged=judged)
    table = html[html.index('<table class="verdicts">') : html.index("</table>")]
    for words in ("It &lt;works&gt;.", "\u22121.23 points", "\u22122 to \u22120.5", ">5<"):
        assert words in table
    assert (">Supported<" in table) is judged


@pytest.mark.parametrize(("rows", "folded"), [(12, False), (13, True)])
def test_long_tables_are_folded(rows, folded):
    html = section_html(Section("t", "", table=Table(("", "a"), [("r", "1")] * rows)))
    assert ("<details>" in html) is folded


@pytest.mark.parametrize(("columns", "wide"), [(2, False), (8, True)])
def test_cells_of_a_wide_table_name_their_column_for_a_phone(columns, wide):
    heads = ("", *(f"column {i}" for i in range(columns)))
    html = section_html(
        Section("t", "", table=Table(heads, [("r", *["1.00 \u00b1 0.10"] * columns)]))
    )
    assert [f'data-label="{head}"' in html for head in heads[1:]] == [wide] * columns
