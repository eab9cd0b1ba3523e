"""The wire format against the examples of its specification, and messages that are damaged."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrow.motion.formats.wire import field, fields, packed, rows, signed, varints, zigzag


def test_examples_of_the_specification():
    assert fields(bytes.fromhex("089601")) == {1: [150]}
    assert fields(bytes.fromhex("120774657374696e67")) == {2: [b"testing"]}
    assert varints(bytes.fromhex("038e029ea705")).tolist() == [3, 270, 86942]
    assert zigzag(np.array([0, 1, 2, 3, 2**32 - 2, 2**64 - 1], np.uint64)).tolist() == [
        *[0, -1, 1, -2, 2**31 - 1, -(2**63)]
    ]


def encoded(value):
    data = bytearray()
    while value >= 0x80:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*data, value])


INTEGERS = st.one_of(st.integers(0, 300), st.integers(0, 2**64 - 1))


@given(st.lists(INTEGERS, max_size=30))
def test_packed_integers_of_any_length(values):
    found = varints(b"".join(map(encoded, values)))
    assert found.tolist() == values


@given(st.integers(1, 2**28), st.integers(-(2**63), 2**63 - 1), st.binary(max_size=300))
def test_fields_come_back(number, integer, content):
    found = fields(field(number, integer) + field(number + 1, content) + field(number, 2.5, "<f4"))
    assert signed(found[number][0]) == integer
    assert found[number + 1] == [content]
    assert packed(found[number], "<f4").tolist() == [2.5]


ROW = st.fixed_dictionaries(
    {},
    optional={1: st.floats(allow_nan=False), 2: st.floats(width=32, allow_nan=False), 3: INTEGERS},
)


@given(st.lists(ROW, max_size=12), st.randoms())
def test_rows_read_at_once_are_those_read_one_by_one(messages, random):
    """Messages lack fields, have them in any order, twice, and fields that are not known."""
    layout = {1: "<f8", 2: "<f4", 3: "varint"}
    kinds = {1: "<f8", 2: "<f4", 3: ""}
    encodings = []
    for message in messages:
        parts = [field(n, x, kinds[n]) for n, x in message.items()]
        parts += random.choice([[], [field(9, b"tea")], [field(8, 1.5)], [field(9, b"ta")]])
        random.shuffle(parts)
        encodings.append(b"".join(parts))
    found = rows(encodings, layout)
    for place, message in enumerate(messages):
        for number in (1, 2):
            assert found[number][place] == message.get(number, 0.0)
        assert found[3][place] == signed(message.get(3, 0))


def test_of_a_field_that_is_there_twice_the_last_counts():
    assert rows([field(1, 1.0) + field(1, 2.0)], {1: "<f8"})[1].tolist() == [2.0]


def test_messages_that_are_all_laid_out_otherwise_take_no_longer_and_longer():
    """Reading at once must not cost as the square of their number."""
    values = [(1 << 62) + 7 * place for place in range(20_000)]
    found = rows([field(3, value) for value in values], {3: "varint"})
    assert found[3].tolist() == values


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\x80", "no end"),
        (b"\xff" * 11, "no end"),
        (b"\x0a\x05tea", "past the end"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7ftea", "past the end"),
        (b"\x0a", "no end"),
        (b"\x09\0\0", "past the end"),
        (b"\x0b", "of type 3"),
        (b"\x00\x01", "number 0"),
    ],
)
def test_what_is_no_message_is_refused(data, said):
    with pytest.raises(ValueError, match=said):
        fields(data)


def test_rows_of_the_wrong_type_are_refused():
    for message in (field(1, 3), field(1, b"tea"), field(1, 1.0, "<f4")):
        with pytest.raises(ValueError, match="field 1 is of type"):
            rows([message], {1: "<f8"})
    with pytest.raises(ValueError, match="a message is an integer"):
        rows([3], {1: "<f8"})


@given(st.binary(max_size=60))
def test_any_bytes_are_a_message_or_an_error(data):
    for read in (fields, varints, lambda data: rows([data], {1: "<f8", 2: "varint"})):
        try:
            read(data)
        except ValueError:
            assert data


def test_fixed_values_are_little_endian():
    assert field(1, 1.0) == b"\x09" + struct.pack("<d", 1.0)
