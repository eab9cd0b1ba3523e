"""Checksums against known values and one another; records that are damaged, cut off, skipped."""

import ast
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import regrow.motion
from regrow.motion.formats import crc
from regrow.motion.formats.crc import crc32c, crc32c_numpy, masked
from regrow.motion.formats.tfrecord import count_records, read_records, write_records
from regrow.reading import UnreadableError

RECORDS = [b"", b"a", b"tea" * 100, bytes(range(256)) * 200, b"last"]


def slowly(data):
    """Compute a CRC-32C bit by bit, as it is defined."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


@pytest.mark.parametrize(
    ("data", "known"),
    [
        (b"\0" * 32, 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (b"", 0),
    ],
)
def test_checksums_of_rfc_3720(data, known):
    assert crc32c_numpy(data) == known == crc32c(data)


@given(st.binary(max_size=300))
def test_checksum_is_that_of_the_definition(data):
    assert crc32c_numpy(data) == slowly(data)


@pytest.mark.parametrize("size", [16_383, 16_384, 16_385, 20_001, 50_000])
def test_lanes_of_long_data_are_put_together(size):
    data = np.random.default_rng(size).bytes(size)
    assert crc32c_numpy(data) == slowly(data)


def test_the_library_is_asked_where_it_is_installed(monkeypatch):
    monkeypatch.setattr(crc, "_library", lambda: len)
    assert crc32c(b"four") == 4


def test_framing_written_out(tmp_path):
    write_records(tmp_path / "a", [b"tea"])
    head = struct.pack("<Q", 3)
    wanted = head + struct.pack("<I", masked(slowly(head))) + b"tea"
    assert (tmp_path / "a").read_bytes() == wanted + struct.pack("<I", masked(slowly(b"tea")))


@pytest.fixture
def shard(tmp_path):
    write_records(tmp_path / "shard", RECORDS)
    return tmp_path / "shard"


def test_records_come_back_with_their_numbers(shard):
    assert list(read_records(shard)) == list(enumerate(RECORDS))
    assert count_records(shard) == len(RECORDS)


def damage(shard, place, value=None):
    data = bytearray(shard.read_bytes())
    data[place] = data[place] ^ 1 if value is None else value
    shard.write_bytes(bytes(data))


def test_a_damaged_content_is_named_and_may_be_skipped_without_the_others(shard):
    damage(shard, 16 + 17 + 12 + 5)  # in the third record
    with pytest.raises(UnreadableError, match=re.escape(f"{shard}, record 2 is damaged")):
        list(read_records(shard))
    told = []
    found = list(read_records(shard, told.append))
    assert found == [(n, record) for n, record in enumerate(RECORDS) if n != 2]
    assert len(told) == 1
    assert "record 2" in str(told[0])


def test_a_damaged_length_ends_the_file_and_is_told(shard):
    damage(shard, 16 + 17 + 7, 0x7F)  # a record of exabytes
    with pytest.raises(UnreadableError, match=r"record 2 is damaged \(the checksum of its length"):
        list(read_records(shard))
    told = []
    assert list(read_records(shard, told.append)) == list(enumerate(RECORDS[:2]))
    assert len(told) == 1
    with pytest.raises(UnreadableError, match="record 2"):
        count_records(shard)


def test_a_true_checksum_of_a_false_length_allocates_nothing(tmp_path):
    head = struct.pack("<Q", 1 << 60)
    (tmp_path / "a").write_bytes(head + struct.pack("<I", masked(crc32c(head))) + b"tea")
    with pytest.raises(UnreadableError, match=r"record 0 is damaged \(the file has 3 of its"):
        list(read_records(tmp_path / "a"))


def test_wherever_a_file_is_cut_off_the_records_before_are_kept(shard):
    whole = shard.read_bytes()
    ends = np.cumsum([16 + len(record) for record in RECORDS])
    for cut in [0, 1, 8, 12, 15, 16, 17, 40, 100, len(whole) - 30, len(whole) - 1]:
        shard.write_bytes(whole[:cut])
        told = []
        found = list(read_records(shard, told.append))
        assert found == list(enumerate(RECORDS))[: int((ends <= cut).sum())]
        assert len(told) == (cut not in {0, *ends})


@given(place=st.integers(0, 200), value=st.integers(0, 255))
def test_no_changed_byte_goes_unseen(tmp_path_factory, place, value):
    shard = tmp_path_factory.mktemp("fuzz") / "shard"
    write_records(shard, RECORDS[:3])
    whole = shard.read_bytes()
    damage(shard, place % len(whole), value)
    told = []
    found = list(read_records(shard, told.append))
    assert bool(told) == (shard.read_bytes() != whole)
    assert all(RECORDS[number] == record for number, record in found)


def test_a_folder_and_nothing_are_refused(tmp_path):
    with pytest.raises(UnreadableError, match="is a folder"):
        list(read_records(tmp_path))
    with pytest.raises(FileNotFoundError):
        list(read_records(tmp_path / "none"))


def test_no_source_imports_tensorflow_or_protobuf_or_waymos_package():
    """Not even where it is used: what is imported in a function counts, too."""
    imported = set()
    for path in Path(regrow.motion.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module)
    roots = {name.split(".")[0] for name in imported}
    assert {"numpy", "regrow", "google_crc32c"} <= roots
    assert not roots & {"tensorflow", "google", "waymo_open_dataset"}
