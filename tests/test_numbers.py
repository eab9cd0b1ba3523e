"""Every number of README and pages that was measured is the one in the record it names."""

import importlib.util
import re
import sys

import pytest

from tests.test_docs import DOCS, PAGES, README

spec = importlib.util.spec_from_file_location("measured", DOCS / "_ext/measured.py")
measured = sys.modules["measured"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(measured)
FACTS = measured.FACTS


@pytest.mark.parametrize("path", [README, *PAGES], ids=lambda path: path.name)
def test_numbers_are_those_of_the_record_they_name(path):
    assert list(measured.faults(path.read_text("utf-8"), FACTS)) == []


def test_every_fact_is_told_somewhere():
    told = " ".join(re.findall(r"<!-- measured: ([^>]*) -->", all_texts()))
    assert set(FACTS) <= set(told.split())


def all_texts():
    return "\n".join(path.read_text("utf-8") for path in (README, *PAGES))


def changed(text, start):
    """The text with each of its numbers changed in turn, by one in its last place."""
    for match in measured.NUMBER.finditer(text, start):
        digits = match[0]
        last = str((int(digits[-1]) + 5) % 10)
        yield text[: match.start()] + digits[:-1] + last + text[match.end() :]


@pytest.mark.parametrize("name", sorted(set(FACTS) - {"demo", "demo-accuracy"}))
def test_a_page_that_differs_from_its_record_is_a_fault(name):
    """Each number of a fact is written into a page, found there, then changed one by one."""
    values = FACTS[name]()
    text = " and ".join(f"{value:,.2f}" for value in values)
    page = f"Measured: {text}\n<!-- measured: {name} -->\n"
    assert list(measured.faults(page, FACTS)) == []
    spoilt = list(changed(page[: -len(f"<!-- measured: {name} -->\n")], len("Measured: ")))
    assert len(spoilt) == len(values)
    for one in spoilt:
        (fault,) = measured.faults(f"{one}<!-- measured: {name} -->\n", FACTS)
        assert "the page does not" in fault


def test_a_record_that_changes_is_a_fault_of_the_page(monkeypatch):
    before = measured.record

    def other(name):
        content = before(name)
        if name == "continual/memory":
            content["rows"][0]["mask_bytes_a_task"] += 1
        return content

    monkeypatch.setattr(measured, "record", other)
    page = (DOCS / "continual.md").read_text("utf-8")
    (fault,) = measured.faults(page, FACTS)
    assert "'tasks' has 1.3949e+06" in fault


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("It is 3.2 times faster.", "names no record"),
        ("| a | 97.1 ± 0.2 |\n|---|---|", "names no record"),
        ("It gains 2.1 points.\n\nMore.", "names no record"),
        ("It takes 3 ms.\n<!-- measured: nothing-like-it -->", "no fact is named"),
        ("It takes 3 ms.\n<!-- printed: python benchmarks/none.py -->", "no command"),
    ],
)
def test_numbers_without_an_origin_are_faults(page, said):
    (fault,) = measured.faults(page, FACTS)
    assert said in fault and fault.startswith("line 1:")


@pytest.mark.parametrize(
    "page", ["It gains 2.1 points.\n<!-- cited -->", "Take `3 ms`.", "```\n3.1 times as fast\n```"]
)
def test_numbers_of_another_origin_are_none(page):
    assert not list(measured.faults(page, FACTS))


def test_order_counts_and_rounding_is_that_of_the_page():
    assert measured.missing([1.24, 3.06], "1.2 and 3.1") == []
    assert measured.missing([1.24, 3.06], "3.1 and 1.2") == [3.06]
    assert measured.missing([14.6], "15×") == []
    assert measured.missing([14.4], "15×") == [14.4]
    assert measured.missing([-0.084], "−0.08 points") == []
    assert measured.missing([44_724_148], "44,724,148 bytes") == []


def test_pages_of_studies_are_held_against_verdicts_and_tables():
    said = "<p>+1.92 (0.71 to 3.13)</p><svg>5.55</svg><td>88.04</td>"
    good = "It gains 1.9 points (0.7 to 3.1), to 88.0 %, at *p* = 3.\n<!-- measured: study -->\n"
    assert not list(measured.unsaid(good, said))
    for number in ("1.9", "0.7", "3.1", "88.0"):
        (fault,) = measured.unsaid(good.replace(number, "5.5", 1), said)
        assert fault == "line 1: the study's records do not say 5.5"
    cited = good.replace("1.9", "5.5").replace("study -->", "study but 5.5 -->")
    assert not list(measured.unsaid(cited, said))
    assert not list(measured.faults(good, FACTS))  # it is the build that holds it against them
