"""Ids stay what they are: nothing is cast, and each keeps its place."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regrow.samples import Random, Samples
from regrow.samples.ids import Ids

INTEGERS = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=40, unique=True)
TEXTS = st.lists(st.text(max_size=5), min_size=1, max_size=40, unique=True)


@given(INTEGERS, st.data())
def test_integers_are_found_where_they_are(ids, data):
    asked = data.draw(st.lists(st.integers(0, len(ids) - 1), max_size=50))
    known = Ids(torch.tensor(ids))
    assert (
        known.positions(torch.tensor([ids[p] for p in asked], dtype=torch.int64)).tolist() == asked
    )
    assert [known.at(p) for p in asked] == [ids[p] for p in asked]


@given(TEXTS, st.data())
def test_texts_are_found_where_they_are(ids, data):
    asked = data.draw(st.lists(st.integers(0, len(ids) - 1), min_size=1, max_size=50))
    known = Ids(ids)
    assert known.positions(tuple(ids[p] for p in asked)).tolist() == asked


@given(INTEGERS, st.integers(-(2**63), 2**63 - 1))
def test_an_integer_that_is_not_there_is_refused(ids, other):
    if other in ids:
        assert Ids(ids).positions([other]).tolist() == [ids.index(other)]
    else:
        with pytest.raises(ValueError, match=f"{other} is not known"):
            Ids(ids).positions([other])


@given(TEXTS, TEXTS)
def test_what_two_sets_of_texts_have_in_common(one, other):
    here, there = Ids(one).common(Ids(other))
    assert [one[p] for p in here] == [other[p] for p in there] == [t for t in one if t in other]


@given(INTEGERS, INTEGERS)
def test_what_two_sets_of_integers_have_in_common(one, other):
    here, there = Ids(one).common(Ids(other))
    assert [one[p] for p in here] == [other[p] for p in there] == [i for i in one if i in other]


def test_large_ids_are_not_rounded():
    """float32 holds integers up to 2^24 exactly, float16 up to 2^11, bfloat16 up to 2^8."""
    ids = [2**24 + 1, 2**24, 2049, 2048, 257, 256, 2**60 + 1, 2**60]
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        samples = Samples(ids, Random(), keep=0.5)
        samples.update(torch.tensor(ids), torch.arange(8).to(dtype))
        assert samples.scores["last"].tolist() == list(range(8))
        assert samples.scores["seen"].tolist() == [1] * 8


@pytest.mark.parametrize("ids", [torch.arange(4, dtype=torch.int32), np.arange(4), range(4), 4])
def test_any_form_of_integers_will_do(ids):
    assert Ids(ids) == Ids(4)
    assert Ids(4).positions(np.array([3, 0], dtype=np.int16)).tolist() == [3, 0]


@pytest.mark.parametrize(
    ("ids", "error", "words"),
    [
        (0, ValueError, "there is no sample"),
        (-3, ValueError, "there is no sample"),
        ([], ValueError, "there is no sample"),
        ([1, 2, 1], ValueError, "1 is there twice"),
        (["a", "b", "a"], ValueError, "'a' is there twice"),
        (torch.tensor([1.0, 2.0]), TypeError, "integers are needed"),
        ([1.5, 2.5], TypeError, "integers or texts"),
        ([True, False], TypeError, "integers or texts"),
        (True, TypeError, "integers or texts|one dimension"),
        ([["a"], ["b"]], TypeError, "integers or texts"),
        (torch.zeros(2, 2, dtype=torch.int64), ValueError, "one dimension"),
        (np.array([2**63], dtype=np.uint64), ValueError, "int64"),
        ("abc", TypeError, "integers or texts"),
        (None, TypeError, "integers or texts"),
    ],
)
def test_what_is_no_id_is_refused(ids, error, words):
    with pytest.raises(error, match=words):
        Ids(ids)


def test_texts_and_integers_are_not_mixed_up():
    with pytest.raises(TypeError, match="texts are needed, such as 'a'"):
        Ids(["a", "b"]).positions(torch.tensor([0]))
    with pytest.raises(TypeError, match="integers or texts"):
        Ids(3).positions(["0"])
