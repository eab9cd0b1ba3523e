"""No data of Waymo or Argoverse, and no weights, are in the repository or its history.

Their terms forbid it. All that is tracked is text, and records of studies as gzipped text; data and
weights come in formats that are not. What somebody typed from data into text is not found so.
"""

import gzip
import pickle
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from regrow.motion.formats.crc import crc32c, masked
from regrow.motion.formats.tfrecord import write_records

ROOT = Path(__file__).parents[2]
BEGINNINGS = {
    b"PAR1": "Parquet",
    b"ARROW1": "Feather",
    b"FEA1": "Feather",
    b"\x93NUMPY": "NumPy",
    b"\x89HDF": "HDF5",
    b"PK\x03\x04": "an archive, as of arrays or weights",
    b"\x80": "a pickle",
}
FIXTURES = ("formats/waymo_lidar.json", "metrics/waymo_operator.json")
LARGEST = 100_000  # bytes of a fixture; a scenario of Waymo has ten times as many


def format_of(content):
    """Return the format of data that a file's content has; None: it is text."""
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    head = content[:12]
    if len(head) == 12 and struct.unpack("<I", head[8:])[0] == masked(crc32c(head[:8])):
        return "TFRecord"
    for beginning, name in BEGINNINGS.items():
        if head.startswith(beginning):
            return name
    try:
        content.decode()
    except UnicodeDecodeError:
        return "no text"
    return None


def git(*words, **how):
    """Return what git says; a test is skipped where there is no repository."""
    try:
        done = subprocess.run(
            ["git", *words], cwd=ROOT, capture_output=True, timeout=60, check=True, **how
        )
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs a git repository: {error}")
    return done.stdout


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzipped"])
def test_what_holds_data_is_recognised(packed, tmp_path):
    write_records(tmp_path / "scenario.tfrecord", [b"scenario"])
    np.save(tmp_path / "tracks.npy", np.zeros(3))
    np.savez(tmp_path / "tracks.npz", np.zeros(3))
    torch.save({"weight": torch.zeros(3)}, tmp_path / "weights.pt")
    centres = {"VEHICLE": np.zeros((64, 2))}
    (tmp_path / "intentions.pkl").write_bytes(pickle.dumps(centres))
    (tmp_path / "scenario.parquet").write_bytes(b"PAR1" + bytes(9) + b"PAR1")
    (tmp_path / "boxes.feather").write_bytes(b"ARROW1" + bytes(9))
    (tmp_path / "submission.binproto").write_bytes(b"\x08\x01\xff\xfe")
    found = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    wrap = gzip.compress if packed else bytes
    assert {name for name, content in found.items() if format_of(wrap(content))} == found.keys()
    assert format_of(wrap("Größe 3 m, \n".encode())) is None


def test_all_that_is_tracked_is_text():
    paths = [ROOT / name for name in git("ls-files", "-z").decode().split("\0") if name]
    assert len(paths) > 500
    found = {str(p): format_of(p.read_bytes()) for p in paths if p.is_file()}
    assert not {name: kind for name, kind in found.items() if kind}


def test_all_that_was_ever_tracked_is_text():
    """Of each version of each file, as git keeps it."""
    names = git("rev-list", "--objects", "--all").split(b"\n")
    stream = git("cat-file", "--batch", input=b"\n".join(n.split(b" ")[0] for n in names if n))
    known = {n.split(b" ")[0]: n.split(b" ")[1:] for n in names if n}
    at, blobs, found = 0, 0, []
    while at < len(stream):
        end = stream.index(b"\n", at)
        number, kind, size = stream[at:end].split()
        content = stream[end + 1 : end + 1 + int(size)]
        at = end + 2 + int(size)
        blobs += kind == b"blob"
        if kind == b"blob" and format_of(content):
            found.append(known[number])
    assert blobs > 0
    assert not found


def test_fixtures_are_few_and_small():
    """They hold what Waymo's code made of inputs that tests draw; the inputs are not kept."""
    folder = Path(__file__).parent
    there = {p for p in folder.rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")}
    assert there == {folder / name for name in FIXTURES}
    assert all(path.stat().st_size < LARGEST for path in folder.rglob("*.*"))
