"""Tables: one content in each format gives the same columns, and no damage passes."""

import gzip

import numpy as np
import pytest

from regrow.data.arff import read_arff
from regrow.data.tables import as_numbers, has_header, read_csv, read_parquet

pyarrow = pytest.importorskip("pyarrow")

ROWS = "1,2.5,x\n?,4,y\n-3,1e3,x\n"
ARFF = "@relation tea\n@attribute a real\n@attribute 'b c' real\n@attribute class {x,y}\n@data\n"


def write_csv(path):
    path.write_text("a,b c,class\n" + ROWS.replace("?", ""))
    return read_csv(path)


def write_gzipped_csv(path):
    path = path.with_suffix(".csv.gz")
    path.write_bytes(gzip.compress(("a,b c,class\n" + ROWS.replace("?", "NA")).encode()))
    return read_csv(path)


def write_arff(path):
    path.write_text(ARFF + ROWS)
    return read_arff(path)


def write_gzipped_arff(path):
    path = path.with_suffix(".arff.gz")
    path.write_bytes(
        gzip.compress((ARFF + "{0 1, 1 2.5}\n{0 ?, 1 4, 2 y}\n{0 -3, 1 1e3}").encode())
    )
    return read_arff(path)


def write_parquet(path):
    from pyarrow import parquet

    columns = {"a": [1, None, -3], "b c": [2.5, 4.0, 1e3], "class": ["x", "y", "x"]}
    parquet.write_table(pyarrow.table(columns), path)
    return read_parquet(path)


WRITERS = [write_csv, write_gzipped_csv, write_arff, write_gzipped_arff, write_parquet]


@pytest.mark.parametrize("write", WRITERS)
def test_every_format_gives_the_same_columns(tmp_path, write):
    columns = write(tmp_path / "table")
    assert list(columns) == ["a", "b c", "class"]
    np.testing.assert_array_equal(columns["a"], [1, np.nan, -3])
    np.testing.assert_array_equal(columns["b c"], [2.5, 4, 1000])
    assert columns["class"].tolist() == ["x", "y", "x"]


@pytest.mark.parametrize("read", [read_csv, read_parquet, read_arff])
def test_what_is_not_there_or_empty_is_said(tmp_path, read):
    with pytest.raises(FileNotFoundError, match="none"):
        read(tmp_path / "none")
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(ValueError, match="empty is damaged"):
        read(tmp_path / "empty")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n", "no rows"),
        ("a,a\n1,2\n", "column 'a' is there twice"),
        ("a\n1,2\n", "columns"),
    ],
)
def test_a_csv_file_that_is_no_table_is_refused(tmp_path, text, said):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ValueError, match=rf"t\.csv is damaged.*{said}"):
        read_csv(tmp_path / "t.csv")


def test_no_part_of_a_gzipped_table_is_taken_for_all_of_it(tmp_path):
    text = "a,b\n" + "".join(f"{i},{i * i}\n" for i in range(200))
    whole = gzip.compress(text.encode())
    path = tmp_path / "t.csv.gz"
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"t\.csv\.gz is damaged"):
            read_csv(path)


@pytest.mark.parametrize(
    ("line", "header"),
    [("1,2.5", False), ("-1e3", False), ("a,2", True), ("1,", True), ("nan,1", True), ("", False)],
)
def test_a_line_that_is_not_all_numbers_is_a_header(tmp_path, line, header):
    (tmp_path / "t.csv").write_text(f"{line}\n1,2\n")
    assert has_header(tmp_path / "t.csv") == header


def test_float32_is_read_as_such_and_text_refused(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('\ufeff"a b",c\n0.1,1\n,2\n')
    columns = read_csv(path, float32=True)
    assert {name: column.dtype for name, column in columns.items()} == {
        "a b": np.float32, "c": np.float32,
    }  # fmt: skip
    np.testing.assert_array_equal(columns["a b"], np.array([0.1, np.nan], np.float32))
    path.write_text("0.1;1\n2;3\n")
    named = read_csv(path, header=False, delimiter=";", float32=True)
    assert [named[name].tolist() for name in ("x0", "x1")] == [
        [np.float32(0.1), 2.0], [1.0, 3.0],
    ]  # fmt: skip
    path.write_text("a\nred\n")
    with pytest.raises(ValueError, match=r"t\.csv is damaged.*red"):
        read_csv(path, float32=True)


@pytest.mark.parametrize("text", ["@data\n1\n", ARFF.replace("'b c'", "a") + ROWS, ARFF])
def test_arff_without_rows_or_with_an_attribute_twice_is_refused(tmp_path, text):
    (tmp_path / "t.arff").write_text(text)
    with pytest.raises(ValueError, match=r"t\.arff is damaged"):
        read_arff(tmp_path / "t.arff")


def test_text_that_is_no_number_is_refused():
    assert as_numbers(np.array([True, False])).tolist() == [True, False]
    for wrong in (["1", "red"], [b"1", {}]):
        with pytest.raises(ValueError):
            as_numbers(np.array(wrong, object))
