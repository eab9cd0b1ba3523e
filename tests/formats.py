"""The formats that are read: how small files are made and read, and read by somebody else."""

from __future__ import annotations

import contextlib
import csv
import datetime
import gzip
import io
import json
import math
import pickle
import random
import struct
import tarfile
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pyarrow
import pyarrow.csv  # here, not in every process
import torch
from PIL import Image
from pyarrow import parquet
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from scipy import sparse
from scipy.io import loadmat, savemat
from sklearn.externals import _arff

from regrow.continual.streams import mini_imagenet
from regrow.data.arff import read_arff
from regrow.data.idx import read_idx
from regrow.data.npy import map_npy
from regrow.data.pickles import read_pickle
from regrow.data.pictures import open_rgb, read_image_parquet
from regrow.data.tables import read_csv, read_parquet
from regrow.data.trees import open_tree
from regrow.execution.export import load_packed, save_packed
from regrow.features.data import read_mat
from regrow.segmentation.folders import Case
from regrow.segmentation.preprocessed import read_preprocessed
from regrow.segmentation.volumes import read_volume
from regrow.vision.data import ucf101
from tests.malformed import gzip_of_zeros, png_that_claims


@dataclass(frozen=True)
class Format:
    """How files of a format are made, read, and read by somebody else.

    Args:
        ending: of the file's name.
        make: makes the content of a small one.
        read: reads a file with the reader under test.
        oracle: reads the content independently; raises where it must be refused.
        bombs: contents that would take gigabytes.
    """

    ending: str
    make: Callable[[random.Random], bytes]
    read: Callable[[Path], Any]
    oracle: Callable[[bytes], Any]
    bombs: tuple[Callable[[], bytes], ...] = ()
    packed: bool = False


def numbers(rng: random.Random, *shape: int) -> np.ndarray:
    return np.random.default_rng(rng.randrange(1 << 30)).integers(0, 200, shape).astype(np.uint8)


# ---------------------------------------------------------------------- arrays


def make_idx(rng):
    array = numbers(rng, *[rng.randrange(1, 6) for _ in range(rng.randrange(1, 4))])
    shape = struct.pack(f">{array.ndim}I", *array.shape)
    return struct.pack(">HBB", 0, 8, array.ndim) + shape + array.tobytes()


def idx_oracle(content):
    assert content[:3] == b"\0\0\x08"
    shape = struct.unpack(f">{content[3]}I", content[4 : 4 + 4 * content[3]])
    return np.frombuffer(content[4 + 4 * content[3] :], np.uint8).reshape(shape)


def make_npy(rng):
    out = io.BytesIO()
    np.save(out, numbers(rng, 5, 3).astype(rng.choice(["u1", "<i8", ">f4"])))
    return out.getvalue()


def npy_oracle(content):
    return np.load(io.BytesIO(content), allow_pickle=False)


def make_pickle(rng):
    labels = [rng.randrange(10) for _ in range(4)]
    content = {rng.choice((b"data", "data")): numbers(rng, 4, 3), b"labels": labels}
    return pickle.dumps(content, rng.randrange(5))


class _OnlyArrays(pickle.Unpickler):
    def find_class(self, module, name):
        assert module.startswith("numpy") or name == "encode", name
        return super().find_class(module, name)


def pickle_oracle(content):
    found = _OnlyArrays(io.BytesIO(content), encoding="bytes").load()
    decoded = {key.decode("latin1") if isinstance(key, bytes) else key: found[key] for key in found}
    return {key: np.array(value) if key == "data" else value for key, value in decoded.items()}


def make_packed(rng):
    torch.manual_seed(rng.randrange(1 << 30))
    model = torch.nn.Sequential(torch.nn.Linear(40, 9), torch.nn.Conv2d(2, 3, 3))
    for weight in model.parameters():
        weight.data *= torch.rand_like(weight) < rng.choice((0.02, 0.3))
    with tempfile.TemporaryDirectory() as folder:
        save_packed(model, f"{folder}/m")
        return Path(f"{folder}/m").read_bytes()


def packed_oracle(content):
    head = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    tensors = load_safetensors(content)
    for name, text in head["__metadata__"].items():
        if name != "regrow":
            shape = [int(size) for size in text.split(",")]
            places = tensors.pop(f"{name}.places").numpy()
            if places.dtype == np.uint8:
                at = np.flatnonzero(np.unpackbits(places, bitorder="little")[: math.prod(shape)])
            else:
                at = np.cumsum(places.astype(np.int64)) - 1
            dense = np.zeros(math.prod(shape), np.float32)
            dense[at] = tensors.pop(f"{name}.values").numpy()
            tensors[name] = dense.reshape(shape)
    return {name: np.asarray(tensor) for name, tensor in tensors.items()}


def packed_that_claims():
    tensors = {"w.values": torch.ones(1), "w.places": torch.ones(1, dtype=torch.int32)}
    return save_safetensors(tensors, {"regrow": "1", "w": "100000,100000"})


# ---------------------------------------------------------------------- tables


def make_csv(rng):
    rows = [f"{rng.randrange(100)},{rng.random()},{rng.choice('xyz')}" for _ in range(5)]
    return "\n".join(["a,b c,class", *rows, ""]).encode()


MISSING = {"", "NA", "N/A", "#N/A", "<NA>", "n/a", "NULL", "null", "NaN", "nan", "-NaN", "-nan"}


def csv_oracle(content):
    lines = content.decode("utf-8-sig")
    return [row for row in csv.reader(io.StringIO(lines, newline="")) if row]


def same_table(found, rows):
    """Tell whether columns hold the rows of text that Python's own reader finds."""
    head, *body = rows
    if list(found) != head or any(len(row) != len(head) for row in body):
        return False
    return all(
        len(column) == len(body) and all(map(_same_entry, column, (row[i] for row in body)))
        for i, column in enumerate(found.values())
    )


def _same_entry(value, text):
    if isinstance(value, str):
        return value == text
    if value is None or math.isnan(value):
        return text.strip() in MISSING
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower() == text.strip().lower() or float(value) == float(text)
    number = int(text, 16) if text.strip().lower().startswith("0x") else float(text)
    return float(value) == number  # Arrow reads whole numbers that are hexadecimal, too


def make_arff(rng):
    head = "% c\n@relation r\n@attribute 'a b' real\n@attribute n numeric\n@attribute c {x,'y z'}\n"
    if rng.random() < 0.3:
        rows = [f"{{0 {rng.randrange(9)}, 1 {rng.random()}, 2 'y z'}}" for _ in range(4)]
    else:
        one = rng.choice(("x", "x", "'y z'"))
        rows = [f"{rng.randrange(9)},{rng.choice(('?', '-2.5e3'))},{one}" for _ in range(4)]
    return (head + "@data\n" + "\n".join(rows) + "\n").encode()


def arff_oracle(content):
    """Read with the package liac-arff, which scikit-learn brings along."""
    lines = [line.strip() for line in content.decode().split("\n")]
    sparse_rows = any(line.startswith("{") for line in lines)
    # It wants its name to come first, and once.
    rest = [line for line in lines if not line.lower().startswith("@relation")]
    found = _arff.load(
        "\n".join(["@relation r", *rest]),
        return_type=_arff.LOD if sparse_rows else _arff.DENSE,
    )
    kinds = [kind for _, kind in found["attributes"]]
    rows = []
    for row in found["data"]:
        zeros = [kind[0] if isinstance(kind, list) else 0.0 for kind in kinds]
        dense = [row.get(i, zero) for i, zero in enumerate(zeros)] if sparse_rows else row
        rows.append(
            [
                math.nan if v is None and type(k) is str else v
                for v, k in zip(dense, kinds, strict=True)
            ]
        )
    columns = zip(*rows, strict=True)
    return {name: list(c) for (name, _), c in zip(found["attributes"], columns, strict=True)}


def make_table(rng):
    columns = {"a": [1, None, rng.randrange(99)], "b": [0.5, 2.5, None], "class": ["x", "y", "x"]}
    odd = {
        "list": [[1], [2], [3]],
        "struct": [{"a": 1}] * 3,
        "when": [datetime.date(2020, 1, 1)] * 3,
        "raw": [b"1"] * 3,
    }
    if rng.random() < 0.3:
        name = rng.choice(sorted(odd))
        columns[name] = odd[name]
    return written(pyarrow.table(columns), rng)


def written(table, rng):
    out = io.BytesIO()
    kind = rng.choice(("none", "snappy", "gzip"))
    parquet.write_table(table, out, compression=kind, write_page_checksum=True)
    return out.getvalue()


def table_oracle(content):
    table = parquet.read_table(io.BytesIO(content), page_checksum_verification=True)
    for field in table.schema:
        assert str(field.type) in "int64 double string float int32 bool large_string null", field
    return {
        name: column.to_pylist()
        for name, column in zip(table.column_names, table.columns, strict=True)
    }


def parquet_of_one_value():
    array = pyarrow.DictionaryArray.from_arrays(np.zeros(50_000_000, np.int32), ["x" * 100])
    out = io.BytesIO()
    parquet.write_table(pyarrow.table({"a": array}), out, row_group_size=50_000_000)
    return out.getvalue()


def make_mat(rng):
    features = numbers(rng, 6, 5).astype(rng.choice(["u1", "f8", "i2"]))
    if rng.random() < 0.3:
        features = sparse.csc_array(features.astype(float))
    out = io.BytesIO()
    old = rng.random() < 0.2
    labels = np.arange(6.0).reshape(-1, 1) % 2
    savemat(
        out,
        {"X": features, "Y": labels},
        format="4" if old else "5",
        do_compression=rng.random() < 0.5,
    )
    return out.getvalue()


def mat_oracle(content):
    found = loadmat(io.BytesIO(content), variable_names=["X", "Y"])
    dense = [v.toarray() if sparse.issparse(v) else v for v in (found["X"], found["Y"])]
    labels = dense[1].argmax(1) if min(dense[1].shape) > 1 else dense[1].reshape(-1)
    return {"X": dense[0].astype(float), "y": np.unique(labels, return_inverse=True)[1]}


def read_mat_as_arrays(path):
    found = read_mat(path)
    dense = found.X.toarray() if sparse.issparse(found.X) else found.X
    return {"X": dense.astype(float), "y": found.y}


def mat_bomb():
    out = io.BytesIO()
    savemat(out, {"X": np.zeros((1 << 15, 1 << 13), np.uint8), "Y": [1]}, do_compression=True)
    return out.getvalue()


# ---------------------------------------------------------------------- pictures, archives, lists


def make_picture(rng, kind):
    out = io.BytesIO()
    mode = rng.choice(("RGB", "L", "P") if kind == "PNG" else ("RGB", "L", "CMYK"))
    Image.fromarray(numbers(rng, 9, 7, 3)).convert(mode).save(out, kind)
    return out.getvalue()


def picture_oracle(content):
    return np.asarray(Image.open(io.BytesIO(content), formats=["PNG", "JPEG"]).convert("RGB"))


def make_images(rng):
    rows = [{"bytes": make_picture(rng, "PNG"), "path": None} for _ in range(3)]
    labels = rng.choice(([1, 0, 1], [1, 0, 1], [0.5, 0, 1], [1, None, 1], [[1], [0], [1]]))
    if rng.random() < 0.2:
        rows[1] = rng.choice((None, {"bytes": None, "path": "a"}))
    return written(pyarrow.table({"img": rows, "label": labels}), rng)


def images_oracle(content):
    table = parquet.read_table(io.BytesIO(content), page_checksum_verification=True)
    assert str(table.schema.field("label").type) in "int64 int32 uint8"
    pictures = [picture_oracle(row["bytes"]) for row in table["img"].to_pylist()]
    return {
        "images": np.stack(pictures).transpose(0, 3, 1, 2),
        "labels": table["label"].to_pylist(),
    }


def read_images(path):
    images, labels, _ = read_image_parquet([path], "img", "label")
    return {"images": images, "labels": labels.tolist()}


FILES = {"set/a.txt": b"one", "set/in/b.bin": bytes(1000), "set/c": b""}


def make_tar(rng):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=rng.choice(("w", "w:gz", "w:bz2", "w:xz"))) as archive:
        for name, content in _odd_files(rng):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            if rng.random() < 0.03:
                info.type, info.linkname = rng.choice((tarfile.SYMTYPE, tarfile.FIFOTYPE)), "/x"
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def _odd_files(rng):
    odd = [("../x", b""), ("/x", b""), ("c:\\x", b""), ("set/a.txt", b"two"), ("n" * 300, b"1")]
    return [*FILES.items(), *([rng.choice(odd)] if rng.random() < 0.2 else [])]


def make_zip(rng):
    out = io.BytesIO()
    with (
        warnings.catch_warnings(),
        zipfile.ZipFile(out, "w", rng.choice((0, 8, 12, 14))) as archive,
    ):
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, content in _odd_files(rng):
            archive.writestr(name, content)
    return out.getvalue()


def read_tree(path):
    tree = open_tree(path)
    return {name: tree.read(name) for name in tree.names()}


def tar_oracle(content):
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        members = [member for member in archive if not member.isdir()]
        assert all(m.isreg() and ".." not in m.name and m.name[0] != "/" for m in members)
        assert len({m.name for m in members}) == len(members)
        return {Path(m.name).as_posix(): archive.extractfile(m).read() for m in members}


def zip_oracle(content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        assert len(set(names)) == len(names) and not any(".." in name for name in names)
        return {Path(name).as_posix(): archive.read(name) for name in names}


def zip_that_claims():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", 8) as archive, archive.open("a", "w") as file:
        for _ in range(600):
            file.write(bytes(1 << 20))
    return out.getvalue()


def tar_with_long_name():
    """Return a tar archive of one header, whose long name has 8 GB."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 8**11 - 1
    return gzip_of_zeros(600, before=info.tobuf(tarfile.GNU_FORMAT))


# ---------------------------------------------------------------------- volumes


def make_volume(rng):
    shape = [rng.randrange(1, 6) for _ in range(rng.randrange(2, 5))]
    types = (np.uint8, np.int16, ">i2", np.float32, np.float64, np.uint16)
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[rng.sample(range(3), 3)] * rng.choice((1, -2, 0.5))
    kind = rng.choice((nibabel.Nifti1Image, nibabel.Nifti2Image))
    return kind(numbers(rng, *shape).astype(rng.choice(types)), affine).to_bytes()


def volume_oracle(content):
    long = 540 in (int.from_bytes(content[:4], order) for order in ("little", "big"))
    image = (nibabel.Nifti2Image if long else nibabel.Nifti1Image).from_bytes(content)
    header, affine = image.header, image.affine
    assert len(content) >= header.get_data_offset() + image.dataobj.dtype.itemsize * math.prod(
        image.shape
    )
    voxels = np.asanyarray(image.dataobj)
    voxels = voxels.reshape(*(*voxels.shape, 1, 1)[: max(3, voxels.ndim)])
    if voxels.ndim == 5:
        assert voxels.shape[3] == 1
        voxels = voxels[:, :, :, 0]
    assert np.isfinite(affine).all() and 3 <= voxels.ndim <= 4
    turned = nibabel.Nifti1Image(voxels.astype(float), affine)
    return np.asarray(nibabel.as_closest_canonical(turned).dataobj).T


def volume_that_goes_on():
    return gzip_of_zeros(600, make_volume(random.Random(0)))


def volume_that_claims():
    content = bytearray(nibabel.Nifti1Image(np.zeros((2, 2, 2)), np.eye(4)).to_bytes())
    struct.pack_into("<4h", content, 40, 3, 30000, 30000, 30000)
    return gzip_of_zeros(600, bytes(content))


def make_prepared(rng):
    """Make what nnU-Net has preprocessed, in its older format."""
    shape = [1, *(rng.randrange(1, 5) for _ in range(3))]
    image = numbers(rng, *shape).astype(rng.choice((np.float32, np.float64, np.float16)))
    labels = (numbers(rng, *shape) % 4).astype(np.int16) - 1
    out = io.BytesIO()
    rng.choice((np.savez, np.savez_compressed))(out, data=image, seg=labels)
    return out.getvalue()


def read_prepared(path):
    found = read_preprocessed(Case("a", (path,), path), 1, {0, 1, 2}, (1.0, 1.0, 1.0))
    return np.stack([found.image[0], found.labels])


def prepared_oracle(content):
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        image, labels = arrays["data"], arrays["seg"]
    assert image.shape[:1] == labels.shape[:1] == (1,) and image.ndim == 4
    assert {image.dtype.kind, labels.dtype.kind} <= set("biuf")
    assert set(labels.flatten().tolist()) <= {-1, 0, 1, 2}
    return np.stack([image[0].astype(np.float32), np.maximum(labels[0], 0)])


def prepared_that_claims():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("data.npy", "seg.npy"):
            array = np.zeros((1, 1, 1, 300 << 20), np.uint8)
            with archive.open(name, "w", force_zip64=True) as file:
                np.save(file, array)
    return out.getvalue()


# ---------------------------------------------------------------------- lists


def make_list(rng):
    return "".join(f"{i} Class{i}\n" for i in range(1, rng.randrange(2, 9))).encode()


def list_oracle(content):
    lines = [line.split() for line in content.decode("ascii").splitlines() if line.strip()]
    assert [int(number) for number, _ in lines] == list(range(1, len(lines) + 1))
    return [name for _, name in lines]


def make_rows(rng):
    return "".join(["filename,label\n", *(f"{i}.jpg,c{i % 3}\n" for i in range(7))]).encode()


def read_rows(path):
    path.rename(path.with_name("train.csv"))
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: path.with_name("train.csv").rename(path))
        found = mini_imagenet._listed(path.parent)
    return sorted((file.name, label) for label, files in found.items() for file in files)


def rows_oracle(content):
    rows = csv.DictReader(io.StringIO(content.decode(), newline=""))
    return sorted((Path(row["filename"]).name, row["label"]) for row in rows)


def zipped(make: Callable[[random.Random], bytes]) -> Callable[[random.Random], bytes]:
    return lambda rng: gzip.compress(make(rng))


def unzipped(oracle: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    return lambda content: oracle(gzip.decompress(content))


FORMATS = {
    "idx": Format(".idx", make_idx, read_idx, idx_oracle),
    "idx.gz": Format(
        ".gz", zipped(make_idx), read_idx, unzipped(idx_oracle), packed=True,
        bombs=(lambda: gzip_of_zeros(600, b"\0\0\x08\1" + struct.pack(">I", 600 << 20)),),
    ),
    "npy": Format(".npy", make_npy, map_npy, npy_oracle),
    "pickle": Format(
        ".p", make_pickle, lambda path: read_pickle(path.read_bytes(), str(path)), pickle_oracle,
        bombs=(
            lambda: b"\x80\2N" + b"r\xff\xff\xff\x7f" + b".",
            lambda: b"\x80\4}" + b")" + b"\x85" * 100_000 + b"Ns.",
            lambda: b"\x80\4})" + b"2\x86" * 80 + b"Ns.",
            lambda: b"\x80\5\x96" + struct.pack("<Q", 1 << 40) + b".",
        ),
    ),
    "packed": Format(".packed", make_packed, load_packed, packed_oracle, (packed_that_claims,)),
    "csv": Format(".csv", make_csv, read_csv, csv_oracle),
    "csv.gz": Format(
        ".csv.gz", zipped(make_csv), read_csv, unzipped(csv_oracle), packed=True,
        bombs=(lambda: gzip_of_zeros(600, b"a,b\n"), lambda: gzip_of_zeros(600, b"a,b\n1,2\n")),
    ),
    "arff": Format(
        ".arff", make_arff, read_arff, arff_oracle,
        bombs=(
            lambda: b"@attribute '" + b"\\'" * 60 + b"x numeric\n@data\n1\n",
            lambda: b"".join(b"@attribute a%d real\n" % i for i in range(30_000))
            + b"@data\n" + b"{}\n" * 90_000,
        ),
    ),
    "arff.gz": Format(
        ".arff.gz", zipped(make_arff), read_arff, unzipped(arff_oracle), packed=True,
        bombs=(lambda: gzip_of_zeros(600, b"@attribute a real\n@data\n1\n"),),
    ),
    "parquet": Format(".parquet", make_table, read_parquet, table_oracle, (parquet_of_one_value,)),
    "mat": Format(".mat", make_mat, read_mat_as_arrays, mat_oracle, (mat_bomb,)),
    "png": Format(
        ".png", lambda rng: make_picture(rng, "PNG"), lambda path: open_rgb(path, str(path)),
        picture_oracle,
        bombs=(lambda: png_that_claims(16_000, 16_000), lambda: png_that_claims(10, 10, 16)),
    ),
    "jpeg": Format(
        ".jpg", lambda rng: make_picture(rng, "JPEG"), lambda path: open_rgb(path, str(path)),
        picture_oracle,
    ),
    "images": Format(".parquet", make_images, read_images, images_oracle),
    "tar": Format(
        ".tar.gz", make_tar, read_tree, tar_oracle,
        bombs=(lambda: gzip_of_zeros(600, bytes(10)), tar_with_long_name),
    ),
    "nii": Format(".nii", make_volume, lambda path: read_volume(path)[0], volume_oracle),
    "nii.gz": Format(
        ".nii.gz", zipped(make_volume), lambda path: read_volume(path)[0], unzipped(volume_oracle),
        bombs=(volume_that_goes_on, volume_that_claims), packed=True,
    ),
    "prepared": Format(
        ".npz", make_prepared, read_prepared, prepared_oracle, (prepared_that_claims,)
    ),
    "zip": Format(".zip", make_zip, read_tree, zip_oracle, (zip_that_claims,)),
    "classes": Format(".txt", make_list, ucf101._read_classes, list_oracle),
    "list": Format(".csv", make_rows, read_rows, rows_oracle),
}  # fmt: skip
