"""Files that may be anything: never blocked, never flooded, always named."""

import bz2
import gzip
import lzma
import os
import socket

import pytest

from regrow.reading import (
    LIMIT,
    UnreadableError,
    check_names,
    check_size,
    decoding,
    open_file,
    open_unpacked,
    read_file,
)


@pytest.mark.timeout(10)  # a pipe without a writer blocks for ever
@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "folder", "loop"])
def test_what_is_no_plain_file_is_refused_at_once(tmp_path, kind, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    path = tmp_path / "odd"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path)
    with socket.socket(socket.AF_UNIX) as server:
        if kind == "socket":
            server.bind("odd")
        said = "symbolic links" if kind == "loop" else f"is a {kind}, not a file"
        for read in (open_file, read_file, open_unpacked):
            with pytest.raises(UnreadableError, match=rf"{path}.*{said}"):
                read(path)


def test_a_missing_file_is_missing_and_not_damaged(tmp_path):
    for read in (open_file, open_unpacked):
        with pytest.raises(FileNotFoundError, match=r"none: no such file"):
            read(tmp_path / "none")


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, bytes])
def test_what_was_packed_comes_back(tmp_path, pack):
    path = tmp_path / "a"
    content = os.urandom(100_000) + bytes(100_000)
    packed = pack(content)  # once: gzip writes the time into its header
    path.write_bytes(packed)
    with open_unpacked(path) as file:
        assert file.read() == content
    with open_unpacked(path) as file:
        assert b"".join(iter(lambda: file.read(777), b"")) == content
    with open_unpacked(path, packed=False) as file:
        assert file.read() == packed


def test_no_more_is_unpacked_than_is_allowed(tmp_path, monkeypatch):
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(bytes(1000)))
    monkeypatch.setenv(LIMIT, "1000")
    with open_unpacked(path) as file:
        assert file.read() == bytes(1000)
    monkeypatch.setenv(LIMIT, "999")
    with (
        open_unpacked(path) as file,
        pytest.raises(UnreadableError, match=rf"{path} takes .* bytes.*set {LIMIT}=1000 or more"),
    ):
        file.read()


@pytest.mark.parametrize(
    ("size", "stored", "allowed"),
    [
        (1 << 28, 1, True),
        ((1 << 28) + 1, 1, False),
        (200 << 28, 1 << 28, True),
        ((200 << 28) + 1, 1 << 28, False),
    ],
)
def test_a_quarter_of_a_gigabyte_or_200_times_the_file_is_allowed(size, stored, allowed):
    if allowed:
        check_size("a", size, stored)
    else:
        with pytest.raises(UnreadableError, match=r"^a takes"):
            check_size("a", size, stored)


def test_a_limit_that_is_no_number_is_named(monkeypatch):
    monkeypatch.setenv(LIMIT, "much")
    with pytest.raises(UnreadableError, match=f"{LIMIT}='much'"):
        check_size("a", 1, 1)


@pytest.mark.parametrize(
    "error", [KeyError("a"), RecursionError(), MemoryError(), OverflowError("b"), AssertionError()]
)
def test_whatever_a_decoder_raises_names_the_file_and_a_reason(error):
    said = r"^a\.x is damaged \(.+\): get it again$"
    with pytest.raises(UnreadableError, match=said) as found, decoding("a.x"):
        raise error
    assert found.value.__cause__ is error


@pytest.mark.parametrize("error", [FileNotFoundError("a"), PermissionError("a"), ImportError("a")])
def test_what_is_no_damage_passes(error):
    with pytest.raises(type(error)) as found, decoding("a"):
        raise error
    assert found.value is error


def test_a_name_that_is_no_utf_8_can_be_printed():
    with pytest.raises(UnreadableError) as found, decoding(os.fsdecode(b"/tmp/\xff.csv")):
        raise ValueError
    assert str(found.value).encode() == rb"/tmp/\udcff.csv is damaged (ValueError): get it again"


def test_names_are_checked_in_time_that_grows_as_they_do():
    names = [str(i) for i in range(300_000)]
    check_names(names, "column")
    with pytest.raises(ValueError, match="column '7' is there twice"):
        check_names([*names, "7"], "column")
