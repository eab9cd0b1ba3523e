"""Data sets of Hugging Face as they lie on disk: what is whole is read, what is not is named.

Files are written by pyarrow as ``datasets`` writes them; where that is installed, by itself.
"""

import io
import json
import shutil

import numpy as np
import pytest

from regrow.reading import UnreadableError
from regrow.vision.data import Own, load_own

pyarrow = pytest.importorskip("pyarrow")
Image = pytest.importorskip("PIL.Image")
NAMES = ["cat", "dog", "owl"]
LABELS = [i % 3 for i in range(30)]


def png(shade):
    out = io.BytesIO()
    Image.fromarray(np.full((5, 4, 3), shade, np.uint8)).save(out, "PNG")
    return out.getvalue()


PICTURES = [{"bytes": png(8 * i), "path": None} for i in range(30)]
CLASS = {"_type": "ClassLabel", "names": NAMES}


def table(columns, **features):
    told = {"info": {"features": {name: {"_type": "Value"} for name in columns} | features}}
    return pyarrow.table(columns).replace_schema_metadata({"huggingface": json.dumps(told)})


def save(folder, whole):
    """As save_to_disk does."""
    folder.mkdir(parents=True)
    with (
        pyarrow.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as file,
        pyarrow.ipc.new_stream(file, whole.schema) as stream,
    ):
        stream.write_table(whole)
    state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}
    (folder / "state.json").write_text(json.dumps(state))


def save_parts(folder, **parts):
    for name, whole in parts.items():
        save(folder / name, whole)
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": [*parts]}))


def push(folder, **parts):
    """As a repository on the hub: two files a part."""
    from pyarrow import parquet

    (folder / "data").mkdir(parents=True)
    for name, whole in parts.items():
        half = len(whole) // 2
        for i, rows in enumerate((whole.slice(0, half), whole.slice(half))):
            parquet.write_table(rows, folder / "data" / f"{name}-0000{i}-of-00002.parquet")


def images(labels=LABELS, **more):
    columns = {"image": PICTURES[: len(labels)], "label": labels} | more
    return table(columns, image={"_type": "Image"}, label=CLASS)


def load(path, **options):
    return load_own(Own(str(path), **options))


# ---------------------------------------------------------------------- what is whole


@pytest.mark.parametrize("write", [save_parts, push])
def test_parts_are_read_whole_and_in_order(tmp_path, write):
    write(tmp_path / "set", train=images(), test=images(LABELS[:6]))
    found = load(tmp_path / "set")
    assert found.train_labels.tolist() == LABELS
    assert found.train_inputs[:, 0, 0, 0].tolist() == [8 * i for i in range(30)]
    assert found.test_labels.tolist() == LABELS[:6] and "tested on its part 'test'" in found.source


def test_a_test_whose_classes_are_hidden_is_not_tested_on(tmp_path):
    hidden, open_ones = images([-1] * 6), images(LABELS[:9])
    save_parts(tmp_path / "with", train=images(), validation=open_ones, test=hidden)
    found = load(tmp_path / "with")
    assert len(found.test_labels) == 9
    assert "tested on its part 'validation'" in found.source
    assert "the classes of its part 'test' are hidden" in found.source
    save_parts(tmp_path / "without", train=images(), test=hidden)
    found = load(tmp_path / "without")
    assert len(found.test_labels) == 6 and "a fifth of each class" in found.source


def test_classes_that_are_learnt_from_are_no_numbers(tmp_path):
    """Owls are not twice dogs."""
    of = [["no", "yes"][i % 2] for i in range(30)]
    save(tmp_path / "set", table({"kind": LABELS, "size": [1.0] * 30, "y": of}, kind=CLASS))
    found = load(tmp_path / "set", target="y")
    assert found.train_inputs.shape[1] == 4
    assert found.train_inputs[:, :3].sum(1).eq(1).all()
    assert "text as columns of 0 and 1: kind" in found.source


def test_columns_beside_images_are_said_or_left_out(tmp_path):
    save(tmp_path / "set", images(caption=["a"] * 30, mask=PICTURES))
    with pytest.raises(UnreadableError, match=r"images \(image, mask\): .*--leave-out mask"):
        load(tmp_path / "set")
    found = load(tmp_path / "set", leave_out=("mask",))
    assert found.source.endswith("; columns not read: caption")
    with pytest.raises(ValueError, match="leave_out='nix'"):
        load(tmp_path / "set", leave_out=("mask", "nix"))


def test_an_arrow_file_is_read_as_a_stream_is(tmp_path):
    whole = pyarrow.table({"x": [*range(20)], "label": [i % 2 for i in range(20)]})
    with (
        pyarrow.OSFile(str(tmp_path / "t.arrow"), "wb") as file,
        pyarrow.ipc.new_file(file, whole.schema) as out,
    ):
        out.write_table(whole)
    found = load(tmp_path / "t.arrow")
    assert sorted([*found.train_inputs[:, 0].tolist(), *found.test_inputs[:, 0].tolist()]) == [
        *range(20)
    ]


# ---------------------------------------------------------------------- what is not


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"text": [f"a sentence, the {i}th" for i in range(30)]}, r"'text' \(24 .* in 24 rows\)"),
        ({"input_ids": [[1, 2, i] for i in range(30)]}, r"such as tokens: 'input_ids' \(list<"),
        ({"when": pyarrow.array([0] * 30, pyarrow.timestamp("s"))}, r"'when' \(timestamp"),
    ],
    ids=["text", "tokens", "dates"],
)
def test_columns_that_nothing_can_be_learnt_from_are_named(tmp_path, columns, said):
    [name] = columns
    save(tmp_path / "set", table({"x": [*range(30)], "label": LABELS} | columns))
    with pytest.raises(UnreadableError, match=said) as error:
        load(tmp_path / "set")
    assert f"--leave-out {name}" in str(error.value) or name == "when"
    load(tmp_path / "set", leave_out=(name,))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"image": [*PICTURES[:29], None]}, "row 29 holds no image"),
        (
            {"image": [*PICTURES[:29], {"bytes": None, "path": "a.png"}]},
            "row 29 holds only a path, 'a.png', and no image: write the images' bytes",
        ),
        ({"image": [{"bytes": b"RIFF", "path": ""}] * 30}, "neither a JPEG nor a PNG image"),
        ({"label": [["cat"]] * 30}, "column 'label' holds list<.*>, and not one class"),
        ({"label": [*LABELS[:29], None]}, "1 rows without a label"),
    ],
    ids=["no image", "a path", "sound", "list of classes", "no class"],
)
def test_a_row_without_what_is_needed_is_named(tmp_path, changed, said):
    columns = {"image": PICTURES, "label": LABELS} | changed
    save(tmp_path / "set", pyarrow.table(columns))
    with pytest.raises(UnreadableError, match=said):
        load(tmp_path / "set")


def cut(path):
    path.write_bytes(path.read_bytes()[:-200])


@pytest.mark.parametrize(
    ("write", "breaks", "said"),
    [
        (push, lambda at: cut(at / "data/train-00001-of-00002.parquet"), "train-00001.*damaged"),
        (
            push,
            lambda at: (at / "data/train-00001-of-00002.parquet").unlink(),
            r"00000-of-00002.parquet is one of 2 files, of which 1 are missing, such as",
        ),
        (
            push,
            lambda at: (at / "data/test-00000-of-00002.parquet").write_text(
                "version https://git-lfs.github.com/spec/v1\nsize 9\n"
            ),
            "pointer of Git LFS.*git lfs pull",
        ),
        (save_parts, lambda at: cut(at / "train/data-00000-of-00001.arrow"), "damaged"),
        (save_parts, lambda at: (at / "train/data-00000-of-00001.arrow").unlink(), "no such file"),
        (save_parts, lambda at: shutil.rmtree(at / "test"), "names the part 'test', whose folder"),
        (save_parts, lambda at: (at / "test/state.json").write_text("{"), "state.json is damaged"),
    ],
    ids=["cut", "a file missing", "LFS", "Arrow cut", "no Arrow", "a part missing", "no state"],
)
def test_what_is_damaged_or_missing_is_named(tmp_path, write, breaks, said):
    write(tmp_path / "set", train=images(), test=images(LABELS[:6]))
    breaks(tmp_path / "set")
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        load(tmp_path / "set")


def test_parts_of_other_names_can_be_given_by_themselves(tmp_path):
    save_parts(tmp_path / "set", train=images(), unsupervised=images())
    with pytest.raises(ValueError, match="add one called test or validation, or give train or"):
        load(tmp_path / "set")
    assert len(load(tmp_path / "set" / "train").test_labels) == 6


# ---------------------------------------------------------------------- as datasets writes it


@pytest.fixture(scope="module")
def datasets():
    return pytest.importorskip("datasets", reason="needs the package datasets")


@pytest.mark.parametrize("kind", ["images", "tables", "shuffled"])
def test_what_datasets_saves_is_read(datasets, tmp_path, kind):
    datasets.disable_progress_bars()
    label = datasets.ClassLabel(names=NAMES)
    if kind == "tables":
        features = {"x": datasets.Value("float32"), "label": label}
        columns = {"x": [float(i) for i in range(30)]}
    else:
        features = {"image": datasets.Image(), "label": label}
        columns = {"image": [one["bytes"] for one in PICTURES]}
        columns = {"image": [Image.open(io.BytesIO(one)) for one in columns["image"]]}
    made = datasets.Dataset.from_dict(columns | {"label": LABELS}, datasets.Features(features))
    if kind == "shuffled":  # an order beside the table, which is written out
        made = made.shuffle(seed=1).select(range(20))
    both = datasets.DatasetDict(train=made, test=made.select(range(6)))
    both.save_to_disk(str(tmp_path / "saved"), num_shards={"train": 2, "test": 1})
    for part in both:
        for i in range(2):
            path = tmp_path / "hub" / "data" / f"{part}-0000{i}-of-00002.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            both[part].shard(2, i, contiguous=True).to_parquet(path)
    saved, pushed = load(tmp_path / "saved"), load(tmp_path / "hub")
    assert saved.train_labels.tolist() == made["label"][:]
    assert saved.train_inputs.equal(pushed.train_inputs)
    assert saved.train_labels.equal(pushed.train_labels)
    assert saved.test_labels.equal(pushed.test_labels)
    if kind != "tables":
        shades = [np.asarray(one)[0, 0, 0] for one in made["image"][:]]
        assert saved.train_inputs[:, 0, 0, 0].tolist() == shades
