"""A pickle is a program: it gets its arrays, and nothing it asks for besides."""

import os
import pickle
import struct

import numpy as np
import pytest

from regrow.data.pickles import read_pickle, read_pickles

DATA = np.arange(6, dtype=np.uint8).reshape(2, 3)


class Evil:
    def __init__(self, call, *arguments):
        self.made = call, arguments

    def __reduce__(self):
        return self.made


@pytest.mark.parametrize("protocol", range(5))
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_today_are_read(protocol, order):
    written = {b"data": np.asarray(DATA, order=order), "labels": [1, 2], b"name": b"\xff"}
    found = read_pickle(pickle.dumps(written, protocol), "a file")
    assert np.array_equal(found["data"], DATA)
    assert (found["labels"], found["name"]) == ([1, 2], b"\xff")


def test_arrays_of_python_2_are_read(python2_pickle):
    found = read_pickle(python2_pickle({"data": DATA, "labels": [3, -1]}), "a file")
    assert np.array_equal(found["data"], DATA)
    assert found["labels"] == [3, -1]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("deep", [lambda evil: evil, lambda evil: {b"data": [evil]}])
def test_a_call_is_refused_and_not_made(tmp_path, protocol, deep):
    seen = tmp_path / "seen"
    content = pickle.dumps(deep(Evil(os.system, f"touch {seen}")), protocol)
    pickle.loads(content)
    assert seen.exists()  # it does what it should not, where it can
    seen.unlink()
    with pytest.raises(ValueError, match=r"a file asks for (posix|os|nt)\.system.*nothing was run"):
        read_pickle(content, "a file")
    assert not seen.exists()


@pytest.mark.parametrize(
    "module, name",
    [
        ("builtins", "eval"),
        ("numpy", "load"),
        ("numpy", "ndarray.tofile"),
        ("numpy.core.multiarray", "scalar"),
        ("_codecs", "decode"),
        ("regrow.data.pickles", "pickle.loads"),
    ],
)
def test_nothing_else_can_be_named(module, name):
    content = b"\x80\x04\x8c" + bytes([len(module)]) + module.encode()
    content += b"\x8c" + bytes([len(name)]) + name.encode() + b"\x93."
    with pytest.raises(ValueError, match=f"asks for {module}.{name}"):
        read_pickle(content, "a file")


@pytest.mark.parametrize(
    "array",
    [np.array([object()]), np.zeros(2, np.float64), np.zeros(2, [("a", "u1")])],
    ids=["objects", "floats", "records"],
)
def test_arrays_of_anything_but_bytes_are_refused(array):
    with pytest.raises(ValueError, match="a file"):
        read_pickle(pickle.dumps({"data": array}, 2), "a file")


def test_an_array_that_claims_more_than_it_holds_is_refused(python2_pickle):
    content = python2_pickle({"data": DATA}).replace(b"J\x02\0\0\0", b"J\x09\0\0\0")
    with pytest.raises(ValueError, match=r"6 bytes for an array of shape \(9, 3\)"):
        read_pickle(content, "a file")


def test_no_prefix_of_a_pickle_is_taken_for_one(python2_pickle):
    content = python2_pickle({"data": DATA, "labels": [0]})
    for length in range(len(content)):
        with pytest.raises(ValueError, match="a file is damaged"):
            read_pickle(content[:length], "a file")


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "content",
    [
        b"\x80\2Nr\xff\xff\xff\x7f.",  # a place in a memo of 34 GB
        b"\x80\4})" + b"\x85" * 100_000 + b"Ns.",  # a key so deep that hashing it ends the process
        b"\x80\4})" + b"q\0h\0h\0\x86" * 60 + b"Ns.",  # a key that takes exponential time
        b"\x80\5\x96" + (1 << 40).to_bytes(8, "little") + b".",  # a terabyte
        b"I" + b"9" * 10_000 + b"\n.",
        b"}" * 10 + b".",
        b"(((.",
        b"\x80\2)\x81.",
        b"\x80\4\x8c\5numpy\x8c\5dtype\x93}\x8c\1a\x8c\1bsb.",  # changes what it names
        b"\x82\1.",
        b"Pa\n.",
        b"Np-1\n.",  # a place that is none
        b"\x80\4Pa\n}s.",
        b"\x80\4\x95\3" + bytes(7) + b"}.",  # a part of three bytes, of which two are there
        b"\x80\2\x82\7.",  # of a registry of what may be called
    ],
    ids=range(15),
)
def test_bombs_and_odd_operations_are_refused(content):
    with pytest.raises(ValueError, match=r"^a file (is damaged|asks for)"):
        read_pickle(content, "a file")


def test_an_array_of_negative_sides_is_refused(python2_pickle):
    content = python2_pickle({"data": DATA})
    twice = struct.pack("<i", -2).join([b"J", struct.pack("<i", -3).join([b"J", b""])])
    lie = content.replace(b"J\x02\0\0\0J\x03\0\0\0", twice)
    assert lie != content
    with pytest.raises(ValueError, match=r"6 bytes for an array of shape \(-2, -3\)"):
        read_pickle(lie, "a file")


def test_pickles_that_follow_each_other_are_read_with_numbers_and_lists_inside():
    numbers = np.array([[0.5, -1.0]])
    written = [1, {"colours": [{"red": numbers}, (2, "x")]}, DATA]
    found = read_pickles(b"".join(pickle.dumps(one, 2) for one in written), "a file")
    assert found[0] == 1 and np.array_equal(found[2], DATA)
    assert np.array_equal(found[1]["colours"][0]["red"], numbers)
    assert found[1]["colours"][1] == [2, "x"]


def test_numbers_are_no_pictures():
    with pytest.raises(ValueError, match="an array is not of uint8"):
        read_pickle(pickle.dumps({"data": np.zeros(3)}), "a file")
    with pytest.raises(ValueError, match="whose first byte is the highest"):
        read_pickles(pickle.dumps([np.zeros(3, ">f8")]), "a file")


def test_values_shared_again_and_again_do_not_fill_the_memory():
    value = [0]
    for _ in range(7):
        value = [value] * 1000
    with pytest.raises(ValueError, match=r"a file is damaged .*more than there are bytes"):
        read_pickles(pickle.dumps(value), "a file")
    deep = [0]
    for _ in range(9):
        deep = [deep]
    with pytest.raises(ValueError, match="deeper than 8"):
        read_pickles(pickle.dumps(deep), "a file")
