"""Units of text there and back; error rates; a language model."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrow.speech.ngram import NGram
from regrow.speech.units import Characters, make_units, units_from
from regrow.speech.wer import Errors, bootstrap, errors_of, rate

TEXTS = [
    f"{a} {b} it's a {c}" for a in ("one", "two") for b in ("tea", "pot") for c in ("cup", "x")
]


@pytest.mark.parametrize(("kind", "size"), [("characters", 0), ("words", 99), ("pieces", 25)])
def test_units_bring_texts_there_and_back(kind, size):
    pytest.importorskip("sentencepiece")
    units = make_units(kind, TEXTS, size)
    again = units_from(units.told())
    for text in TEXTS:
        numbers = units.encode(text)
        assert min(numbers) >= 1 and max(numbers) < units.size  # 0 is the blank
        assert units.decode(numbers) == text
        assert again.encode(text) == numbers
    assert again.size == units.size


def test_what_has_no_unit_is_named_or_unknown():
    with pytest.raises(ValueError, match="the character 'z' is none of"):
        Characters("ab").encode("az")
    words = make_units("words", ["one one two"], 1)
    assert words.decode(words.encode("one two")) == "one <unknown>"


def test_wrong_units_are_refused():
    with pytest.raises(ValueError, match="units='letters'"):
        make_units("letters", TEXTS)
    with pytest.raises(ValueError, match="not one word"):
        make_units("words", ["", ""])
    pytest.importorskip("sentencepiece")
    assert make_units("pieces", TEXTS, 5000).size < 100  # at most
    with pytest.raises(ValueError, match="unit_count=3"):
        make_units("pieces", TEXTS, 3)


def distance(a, b):
    """Levenshtein's, by its recursion."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


words = st.lists(st.sampled_from(["a", "b", "cab", "it"]), max_size=6).map(" ".join)


@given(words.filter(bool), words)
def test_errors_are_the_edit_distance(said, heard):
    pytest.importorskip("jiwer")
    found = errors_of(said, heard)
    assert found.word_errors == distance(said.split(), heard.split())
    assert found.character_errors == distance(said, heard)
    assert (found.words, found.characters) == (len(said.split()), len(said))


def test_an_empty_transcript_has_no_error_rate():
    with pytest.raises(ValueError, match="empty transcript"):
        errors_of(" ", "tea")


def test_a_rate_is_that_of_all_words_not_the_mean_of_rates():
    assert rate([Errors(9, 0, 40, 0), Errors(1, 1, 2, 2)]) == 0.1
    assert rate([Errors(9, 0, 40, 0), Errors(1, 1, 10, 2)], characters=True) == 0.04


def test_an_interval_is_wider_where_errors_go_together():
    errors = [Errors(10, 10 * (i % 2), 50, 0) for i in range(40)]
    apart = bootstrap(errors, [""] * 40)
    together = bootstrap(errors, ["bad" if i % 2 else "good" for i in range(40)])
    assert together == (0.0, 1.0)
    assert 0.3 < apart[0] < 0.5 < apart[1] < 0.7
    assert bootstrap(errors, [""] * 40) == apart
    assert bootstrap(errors, ["ann"] * 40) == apart  # one speaker says nothing of others


@given(st.lists(st.lists(st.integers(1, 3), max_size=5), min_size=1, max_size=5), st.integers(1, 4))
def test_probabilities_of_a_language_sum_to_one(texts, order):
    model = NGram(texts, units=4, order=order)
    for before in [(), (1,), (3, 2), (1, 2, 3, 1, 2)]:
        total = sum(model.probability(before, unit) for unit in range(4))
        assert total == pytest.approx(1.0)
        assert all(model(before, unit) > -math.inf for unit in range(4))


def test_a_language_prefers_what_it_has_read():
    model = NGram([[1, 2, 1, 2]] * 5, units=4, order=3)
    assert model.probability((1,), 2) > 0.7 > model.probability((1,), 3)
    assert model.probability((1, 2, 1, 2), 0) > model.probability((1, 2, 1), 0)
    for wrong in ({"order": 0}, {"discount": 1.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            NGram([[1]], units=2, **wrong)
