"""Folders and archives read alike; an archive cannot reach beyond itself."""

import io
import os
import struct
import tarfile
import warnings
import zipfile

import pytest

from regrow.data.trees import open_tree
from tests.malformed import gzip_of_zeros

FILES = {"a.txt": b"one", "in/b.bin": bytes(1000), "in/deep/c": b""}
PATHS_OUT = ["../out", "in/../../out", "/out", "..\\out", "c:\\out", "C:/out"]


@pytest.fixture(params=["folder", "tar", "tar.gz", "zip"])
def where(request, tmp_path):
    if request.param == "folder":
        for name, content in FILES.items():
            path = tmp_path / "tree" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return tmp_path / "tree"
    path = tmp_path / f"tree.{request.param}"
    if request.param == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in FILES.items():
                archive.writestr(f"set/{name}", content)
    else:
        with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
            archive.addfile(folder := tarfile.TarInfo("set"))
            folder.type = tarfile.DIRTYPE
            for name, content in FILES.items():
                archive.addfile(member(f"./set/{name}", content), io.BytesIO(content))
    return path


def member(name, content=b""):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    return info


def test_files_are_named_and_read_alike(where):
    tree = open_tree(where, "set")
    assert [name for name in tree.names() if name != "set"] == sorted(FILES)
    assert {name: tree.read(name) for name in FILES} == FILES


def test_a_missing_file_is_named(where):
    with pytest.raises(FileNotFoundError, match=r"tree.*in/other is missing"):
        open_tree(where, "set").read("in/other")


@pytest.mark.parametrize("part", [0.1, 0.6, 0.99, 1 - 1e-9])
def test_a_part_of_an_archive_is_noticed(where, part):
    if where.is_dir():
        pytest.skip("a folder is no archive")
    content = where.read_bytes()
    # A plain tar ends its last file at 3584, and fills up with zeros.
    whole = 3584 if where.suffix == ".tar" else len(content)
    where.write_bytes(content[: int(part * whole)])
    with pytest.raises(ValueError, match=f"{where} is damaged"):
        open_tree(where, "set")


def test_a_damaged_member_is_named(tmp_path):
    path = tmp_path / "tree.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", b"unmistakable")
    path.write_bytes(path.read_bytes().replace(b"unmistakable", b"unmistakably"))
    with pytest.raises(ValueError, match=f"{path}: a is damaged"):
        open_tree(path).read("a")


@pytest.mark.parametrize("name", PATHS_OUT)
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_names_that_lead_out_are_refused(tmp_path, name, kind):
    path = tmp_path / f"tree.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, b"evil")
    else:
        with tarfile.open(path, "w") as archive:
            archive.addfile(member(name, b"evil"), io.BytesIO(b"evil"))
    with pytest.raises(ValueError, match=r"leads out of it.*nothing was read"):
        open_tree(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name]


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
)
def test_links_and_devices_are_refused(tmp_path, kind):
    path = tmp_path / "tree.tar"
    info = tarfile.TarInfo("a")
    info.type, info.linkname = kind, "/etc/passwd"
    with tarfile.open(path, "w") as archive:
        archive.addfile(info)
    with pytest.raises(ValueError, match="'a', a link"):
        open_tree(path)


def test_reading_an_archive_writes_nothing(where, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    open_tree(where, "set").read("a.txt")
    assert sorted(tmp_path.rglob("*")) == before


def test_stamps_change_with_the_content(where):
    before = open_tree(where, "set").stamps()
    assert open_tree(where, "set").stamps() == before
    path = where / "in" / "b.bin" if where.is_dir() else where
    path.write_bytes(path.read_bytes() + b"\0")
    assert [s[:2] for s in before] != [
        (str(p.absolute()), p.stat().st_size)
        for p in (sorted(q for q in where.rglob("*") if q.is_file()) if where.is_dir() else [where])
    ]


# ---------------------------------------------------------------------- bombs and doubles


@pytest.mark.parametrize("names", [("a", "a"), ("a", "./a"), ("set/a", "a"), ("b\\a", "b/a")])
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_two_files_of_one_name_are_refused(tmp_path, names, kind):
    path = tmp_path / f"tree.{kind}"
    if kind == "zip":
        with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
            warnings.simplefilter("ignore")
            for name in names:
                archive.writestr(name, name)
    else:
        with tarfile.open(path, "w") as archive:
            for name in names:
                archive.addfile(member(name, b"1"), io.BytesIO(b"1"))
    with pytest.raises(ValueError, match=rf"{path} is damaged \(file '.*' is there twice"):
        open_tree(path, "set")


def tar_of_zeros():
    return gzip_of_zeros(300, before=member("a", b"\0").tobuf())


def tar_of_one_large_file():
    info = tarfile.TarInfo("a")
    info.size = 300 << 20
    return gzip_of_zeros(301, before=info.tobuf())


def tar_with_a_long_name():
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 8**11 - 1
    return gzip_of_zeros(300, before=info.tobuf(tarfile.GNU_FORMAT))


@pytest.mark.parametrize("make", [tar_of_zeros, tar_of_one_large_file, tar_with_a_long_name])
def test_a_tar_bomb_is_refused(tmp_path, make):
    path = tmp_path / "tree.tar.gz"
    path.write_bytes(make())
    with pytest.raises(ValueError, match=rf"{path} takes .*REGROW_MAX_UNPACKED"):
        open_tree(path)


def test_a_tar_file_with_holes_is_refused(tmp_path):
    """Its size is what it says, however little is there."""
    info = tarfile.TarInfo("a")
    info.type, info.size = tarfile.GNUTYPE_SPARSE, 0
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[483:495] = b"00000001000\0"  # the size that it unpacks to
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + 8 * 32 + sum(block[156:]))
    (tmp_path / "tree.tar").write_bytes(bytes(block) + bytes(1024))
    with pytest.raises(ValueError, match=r"tree\.tar (holds 'a'|is damaged)"):
        open_tree(tmp_path / "tree.tar")


def test_a_zip_bomb_is_refused_where_it_is_read(tmp_path):
    path = tmp_path / "tree.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("good", b"1")
        archive.writestr("bomb", bytes(257 << 20))
    tree = open_tree(path)
    assert tree.read("good") == b"1"
    with pytest.raises(ValueError, match=rf"{path}: bomb takes .*REGROW_MAX_UNPACKED"):
        tree.read("bomb")


def test_a_member_that_unpacks_to_more_than_it_says_is_refused(tmp_path):
    path = tmp_path / "tree.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", bytes(1000))
    path.write_bytes(path.read_bytes().replace(struct.pack("<I", 1000), struct.pack("<I", 10)))
    with pytest.raises(ValueError, match=rf"{path}: a is damaged"):
        open_tree(path).read("a")


@pytest.mark.timeout(10)
def test_pipes_and_links_to_themselves_in_a_folder_block_nobody(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "around").symlink_to(tmp_path)
    (tmp_path / "a").write_bytes(b"1")
    tree = open_tree(tmp_path)
    assert tree.names() == ["a", "loop", "pipe"]
    assert tree.read("a") == b"1"
    for name in ("loop", "pipe"):
        with pytest.raises(ValueError, match=f"{tmp_path}/{name} "):
            tree.read(name)
