"""Data of one's own: what lies on disk is what is learnt, however it is laid out."""

import csv
import io
import json

import numpy as np
import pytest
import torch

from regrow.data.parts import find_parts
from regrow.reading import UnreadableError
from regrow.vision.data import Own, digest_of, load_own, open_own_files

pyarrow = pytest.importorskip("pyarrow")
Image = pytest.importorskip("PIL.Image")
COUNT, SIDE = 40, 6


@pytest.fixture(scope="module")
def pixels():
    """Grey images, of which class 0 is dark and class 1 bright, and their classes."""
    generator = np.random.default_rng(0)
    labels = np.arange(COUNT) % 2
    images = generator.integers(0, 100, (COUNT, SIDE, SIDE)) + 120 * labels[:, None, None]
    return images.astype(np.uint8), labels


def encoded(image):
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG")
    return out.getvalue()


def write_folder(root, images, labels):
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        folder = root / ("dark", "light")[label]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i:03}.png").write_bytes(encoded(image))


def image_table(images, labels, marked="label"):
    stored = [{"bytes": encoded(image), "path": None} for image in images]
    told = {"info": {"features": {marked: {"_type": "ClassLabel", "names": ["dark", "light"]}}}}
    table = pyarrow.table({"image": stored, marked: labels, "class": labels[::-1]})
    return table.replace_schema_metadata({"huggingface": json.dumps(told)})


def write_hub(root, images, labels):
    """As a snapshot of a data set of Hugging Face."""
    from pyarrow import parquet

    (root / "data").mkdir(parents=True)
    for part, rows in (("train", slice(0, 30)), ("test", slice(30, None))):
        table = image_table(images[rows], labels[rows])
        parquet.write_table(table, root / "data" / f"{part}-00000-of-00001.parquet")


def write_saved(root, images, labels):
    """As save_to_disk writes."""
    for part, rows in (("train", slice(0, 30)), ("test", slice(30, None))):
        (root / part).mkdir(parents=True)
        table = image_table(images[rows], labels[rows])
        with (
            pyarrow.OSFile(str(root / part / "data-0.arrow"), "wb") as file,
            pyarrow.ipc.new_stream(file, table.schema) as stream,
        ):
            stream.write_table(table)
        state = {"_data_files": [{"filename": "data-0.arrow"}]}
        (root / part / "state.json").write_text(json.dumps(state))
    (root / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))


def write_folders(root, images, labels):
    write_folder(root / "train", images[:30], labels[:30])
    write_folder(root / "val", images[30:], labels[30:])


@pytest.mark.parametrize("write", [write_folders, write_hub, write_saved])
def test_every_layout_holds_the_same_images(tmp_path, pixels, write):
    images, labels = pixels
    write(tmp_path / "own", images, labels)
    found = load_own(Own(str(tmp_path / "own")))
    order = slice(None)
    if write is write_folders:  # class by class
        order = np.argsort(labels[:30], kind="stable")
    assert found.train_inputs.equal(torch.from_numpy(images[:30, None][order].copy()))
    assert found.train_labels.tolist() == labels[:30][order].tolist()
    assert (found.classes, len(found.test_inputs)) == (2, 10)
    assert "'test'" in found.source or "'val'" in found.source


def test_what_is_not_split_is_split_alike_class_by_class(tmp_path, pixels):
    write_folder(tmp_path / "own", *pixels)
    one, other = (load_own(Own(str(tmp_path / "own"))) for _ in range(2))
    assert one.test_inputs.equal(other.test_inputs)
    assert one.test_labels.bincount().tolist() == [4, 4]
    both = torch.cat([one.train_inputs, one.test_inputs]).flatten(1)
    assert len(both.unique(dim=0)) == COUNT
    assert "a fifth of each class" in one.source


def test_images_become_squares_and_are_read_as_they_are_needed(tmp_path, pixels):
    write_folders(tmp_path / "own", *pixels)
    own = Own(str(tmp_path / "own"), pixels=4)
    train, test = open_own_files(own, seed=1)
    assert (len(train), len(test), train.read(0, 0)[0].shape) == (30, 10, (3, 4, 4))
    assert not train.read(0, 0)[0].equal(train.read(0, 1)[0])
    assert train.read(0, 1)[0].equal(open_own_files(own, seed=1)[0].read(0, 1)[0])
    assert test.read(0, 0)[0].equal(test.read(0, 1)[0])
    still = open_own_files(own, augment=False)[0]
    assert still.read(0, 0)[0].equal(still.read(0, 1)[0])


def test_stored_images_of_other_sizes_become_squares_too(tmp_path, pixels):
    images, labels = pixels
    wide = [np.repeat(image, 2, 1) if i % 2 else image for i, image in enumerate(images)]
    write_hub(tmp_path / "own", wide, labels)
    with pytest.raises(ValueError, match="different sizes: give --pixels"):
        load_own(Own(str(tmp_path / "own")))
    assert load_own(Own(str(tmp_path / "own"), pixels=5)).train_inputs.shape == (30, 1, 5, 5)


# ---------------------------------------------------------------------- tables


def write_csv(path, rows, names=("a", "b", "kind", "class")):
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(rows)


ROWS = [[i, i % 3, "xyz"[i % 3], ("no", "yes")[i % 2]] for i in range(20)]


def test_a_table_is_numbers_and_text_becomes_columns_of_0_and_1(tmp_path):
    rows = [*ROWS]
    rows[3] = [3, "", "x", "yes"]
    write_csv(tmp_path / "t.csv", rows)
    found = load_own(Own(str(tmp_path / "t.csv")))
    assert (tuple(found.train_inputs.shape), len(found.test_labels)) == ((16, 5), 4)
    both = torch.cat([found.train_inputs, found.test_inputs])
    both = both[both[:, 0].argsort()]
    assert both[:, 0].tolist() == [*range(20)]
    # Of the rows that are learnt: what is held out is not looked at.
    learnt = [r[1] for r in rows if r[0] in found.train_inputs[:, 0].tolist() and r[1] != ""]
    assert both[3, 1].item() == pytest.approx(np.mean(learnt))
    assert [row.argmax().item() for row in both[:, 2:]] == [
        "xyz".index(kind) for _, _, kind, _ in rows
    ]
    assert both[:, 2:].sum(1).eq(1).all()
    assert "text as columns of 0 and 1: kind" in found.source
    assert "missing values as the mean: b" in found.source


def test_kinds_of_tables_hold_the_same(tmp_path):
    from pyarrow import csv as arrow
    from pyarrow import parquet

    write_csv(tmp_path / "t.csv", ROWS)
    table = arrow.read_csv(tmp_path / "t.csv")
    parquet.write_table(table, tmp_path / "t.parquet")
    (tmp_path / "t.tsv").write_text((tmp_path / "t.csv").read_text().replace(",", "\t"))
    found = [load_own(Own(str(tmp_path / f"t.{kind}"))) for kind in ("csv", "parquet", "tsv")]
    assert all(one.train_inputs.equal(found[0].train_inputs) for one in found)


def test_parts_of_a_folder_are_told_by_their_names(tmp_path):
    write_csv(tmp_path / "train.csv", ROWS)
    write_csv(tmp_path / "test.csv", [[0, 0, "unseen", "yes"]])
    write_csv(tmp_path / "dev.csv", ROWS)
    write_csv(tmp_path / "notes.csv", [["a", "text"]], names=("x", "y"))
    found = load_own(Own(str(tmp_path)))
    assert len(found.train_inputs) == 20
    assert "tested on its part 'test'; not read: validation" in found.source
    assert found.test_inputs.tolist() == [[0, 0, 0, 0, 0]]  # a text that was not learnt is none


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        ({}, {"target": "nix"}, "target='nix': .* has no such column; it has a, b, kind, class"),
        ({"names": ("a", "b", "kind", "c")}, {}, "say --target, one of a, b, kind, c"),
        ({"names": ("a", "y", "kind", "class")}, {}, "y, class may be the classes; say --target"),
        ({"rows": [[i, i, "x", i / 7] for i in range(9)]}, {}, "numbers such as 0.14.*, which are"),
        ({"rows": [[i, i, "x", i] for i in range(9)]}, {}, "has 9 classes in 9 rows"),
        ({"rows": [[i, i, "x", "one"] for i in range(9)]}, {}, "has one class, 'one'"),
        ({"rows": [*ROWS, [1, 1, "x", ""]]}, {}, "1 rows without a class"),
        ({"rows": [[i, f"t{i}", "x", i % 2] for i in range(300)]}, {}, "--leave-out b"),
        ({}, {"leave_out": ("class",)}, "leave_out='class'"),
        ({}, {"pixels": 8}, "pixels=8: is of images, and t.csv is a table"),
    ],
    ids=str,
)
def test_what_cannot_be_learnt_is_said_with_what_to_do(tmp_path, change, options, said):
    rows = change.get("rows", ROWS)
    rows = [[*row] for row in rows]
    write_csv(tmp_path / "t.csv", rows, change.get("names", ("a", "b", "kind", "class")))
    with pytest.raises(ValueError, match=said):
        load_own(Own(str(tmp_path / "t.csv"), **options))


def test_a_column_that_is_left_out_may_hold_anything(tmp_path):
    write_csv(tmp_path / "t.csv", [["2020-01-01", *row[1:]] for row in ROWS])
    with pytest.raises(UnreadableError, match=r"'a' \(date32"):
        load_own(Own(str(tmp_path / "t.csv")))
    found = load_own(Own(str(tmp_path / "t.csv"), leave_out=("a",)))
    assert found.train_inputs.shape == (16, 4)


# ---------------------------------------------------------------------- where it lies


def test_several_data_sets_in_a_folder_are_not_mixed(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_csv(tmp_path / name / "train.csv", ROWS)
    with pytest.raises(ValueError, match=r"several data sets \(one, two\): give the folder of"):
        find_parts(tmp_path)


@pytest.mark.parametrize("name", ["nothing", "empty"])
def test_where_nothing_is_says_what_is_wanted(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises((FileNotFoundError, ValueError), match=r"no such file|holds no images"):
        digest_of(tmp_path / name)


def test_the_digest_follows_the_content(tmp_path):
    path = tmp_path / "t.csv"
    write_csv(path, ROWS)
    before = digest_of(path)
    assert before == digest_of(path)
    path.write_text(path.read_text().replace("yes", "yet"))
    assert digest_of(path) != before


def test_one_class_of_images_and_classes_that_are_not_learnt_are_refused(tmp_path, pixels):
    images, labels = pixels
    write_folder(tmp_path / "one", images[::2], labels[::2])
    with pytest.raises(ValueError, match="has one class, 'dark'"):
        load_own(Own(str(tmp_path / "one")))
    write_folders(tmp_path / "own", images, labels)
    (tmp_path / "own" / "val" / "dark").rename(tmp_path / "own" / "val" / "grey")
    with pytest.raises(ValueError, match="grey is none of the 2 classes"):
        load_own(Own(str(tmp_path / "own")))


def test_parts_that_are_spelt_alike_are_not_mixed_up(tmp_path, pixels):
    """The last of them was taken, and nothing said of the other."""
    images, labels = pixels
    write_folder(tmp_path / "own" / "train", images[:10], labels[:10])
    write_folder(tmp_path / "own" / "train_extra", images[10:], labels[10:])
    with pytest.raises(ValueError, match=r"two parts called 'train': 'train' and 'train_extra'"):
        load_own(Own(str(tmp_path / "own")))
    write_saved(tmp_path / "saved", images, labels)
    splits = {"splits": ["train", "validation_matched", "validation_mismatched"]}
    (tmp_path / "saved" / "dataset_dict.json").write_text(json.dumps(splits))
    with pytest.raises(ValueError, match=r"two parts called 'validation'"):
        load_own(Own(str(tmp_path / "saved")))


@pytest.mark.parametrize(
    ("tested", "said"),
    [
        ([["a", "b", "class"], [0, 1, "no"]], r"tested on other columns than it learns: kind"),
        (
            [["a", "b", "kind", "class"], [0, "many", "x", "no"]],
            r"'b' holds numbers .* test on text",
        ),
    ],
    ids=["a column less", "text for numbers"],
)
def test_what_is_tested_on_is_read_as_what_is_learnt(tmp_path, tested, said):
    """A column became text in both parts, in which 5 and 5.0 are two texts, or an odd KeyError."""
    write_csv(tmp_path / "train.csv", ROWS)
    write_csv(tmp_path / "test.csv", tested[1:], tested[0])
    with pytest.raises(ValueError, match=said):
        load_own(Own(str(tmp_path)))


def test_classes_are_written_alike_in_all_files_of_a_part(tmp_path):
    write_csv(tmp_path / "train-0.csv", [[i, i % 2] for i in range(8)], ("a", "class"))
    write_csv(tmp_path / "train-1.csv", [[i, ("1", "x")[i % 2]] for i in range(8)], ("a", "class"))
    with pytest.raises(ValueError, match="write all of them alike"):
        load_own(Own(str(tmp_path)))


def test_a_part_that_is_missing_is_named(tmp_path):
    write_csv(tmp_path / "train.csv", ROWS)
    write_csv(tmp_path / "test.csv", ROWS)
    (tmp_path / "train.csv").unlink()
    with pytest.raises(ValueError, match="has the parts test: add one to train"):
        load_own(Own(str(tmp_path)))
