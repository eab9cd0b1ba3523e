"""Tables: one content in each format gives the same columns, and no damage passes."""

import contextlib
import datetime
import gzip
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from regrow.data import arff
from regrow.data.arff import read_arff
from regrow.data.tables import as_numbers, has_header, read_csv, read_parquet
from regrow.reading import LIMIT, open_unpacked

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


# ---------------------------------------------------------------------- what is neither


@pytest.mark.parametrize(
    "column",
    [
        [[1], [2]],
        [{"a": 1}, {"a": 2}],
        [datetime.datetime(2020, 1, 1)] * 2,
        [datetime.date(2020, 1, 1)] * 2,
        [datetime.time(1)] * 2,
        [datetime.timedelta(1)] * 2,
        [b"1", b"2"],
    ],
    ids=lambda column: type(column[0]).__name__,
)
def test_what_is_neither_numbers_nor_text_is_refused(tmp_path, column):
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"a": [1, 2], "odd": column}), tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=r"t\.parquet has columns that are neither .* 'odd' \("):
        read_parquet(tmp_path / "t.parquet")
    assert read_parquet(tmp_path / "t.parquet", without=["odd"])["a"].tolist() == [1, 2]


def test_dates_of_a_csv_file_are_no_numbers(tmp_path):
    (tmp_path / "t.csv").write_text("a,when\n1,2020-01-01\n2,2020-01-02\n")
    with pytest.raises(ValueError, match=r"t\.csv has columns .* 'when' \(date32\[day\]\): write"):
        read_csv(tmp_path / "t.csv")
    assert [*read_csv(tmp_path / "t.csv", without=["when"])] == ["a"]


def test_texts_come_back_however_they_are_stored(tmp_path):
    from pyarrow import parquet

    texts = ["x", None, "y", "x"]
    plain, coded = pyarrow.array(texts), pyarrow.array(texts).dictionary_encode()
    numbers = pyarrow.DictionaryArray.from_arrays([0, 1, None, 0], [1.5, 2.5])
    table = pyarrow.table({"plain": plain, "coded": coded, "numbers": numbers})
    parquet.write_table(pyarrow.concat_tables([table, table]), tmp_path / "t", row_group_size=3)
    columns = read_parquet(tmp_path / "t")
    assert columns["plain"].tolist() == columns["coded"].tolist() == texts * 2
    np.testing.assert_array_equal(as_numbers(columns["numbers"]), [1.5, 2.5, np.nan, 1.5] * 2)


def test_a_column_of_one_value_cannot_flood_the_memory(tmp_path):
    from pyarrow import parquet

    column = pyarrow.DictionaryArray.from_arrays(np.zeros(40_000_000, np.int8), ["x"])
    path = tmp_path / "t.parquet"
    parquet.write_table(pyarrow.table({"a": column}), path, row_group_size=40_000_000)
    assert path.stat().st_size < 100_000
    with pytest.raises(ValueError, match=r"t\.parquet takes .* bytes.*REGROW_MAX_UNPACKED"):
        read_parquet(path)


def test_no_bit_of_a_parquet_file_ends_the_process(tmp_path):
    """Pyarrow ends it where it is asked for a column whose statistics do not fit its type."""
    from pyarrow import parquet

    table = pyarrow.table({"a.b": [1, None], "c": ["x", "y"]})
    parquet.write_table(table, tmp_path / "t", store_schema=False)
    code = f"""
from pathlib import Path
from regrow.data.tables import read_parquet
whole = Path({str(tmp_path / "t")!r}).read_bytes()
start = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
assert list(read_parquet(Path({str(tmp_path / "t")!r}))) == ["a.b", "c"]
for i in range(8 * start, 8 * len(whole)):
    damaged = bytearray(whole)
    damaged[i // 8] ^= 1 << i % 8
    path = Path({str(tmp_path / "damaged")!r})
    path.write_bytes(damaged)
    try:
        read_parquet(path)
    except ValueError as error:
        assert str(path) in str(error)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr.decode()


# ---------------------------------------------------------------------- ARFF


@pytest.mark.parametrize(
    ("attribute", "said"),
    [
        ("a {x,y", "type '{x,y', none of numeric"),
        ("a {x,y} %c", "none of numeric"),
        ("a relational", "none of numeric"),
        ("a {x,x}", "'a' has the same value twice"),
        ("a {}", "'x' is no value of 'a'"),
        ("a {y}", "'x' is no value of 'a'"),
        ("a {'x y}", "a quote that does not end"),
        ("a", "has no name and type"),
        ("a'b real", "has no name and type"),
        ("'" + r"\'" * 60 + "a numeric", "none of numeric|no name and type"),
        ('"' + r"\"" * 60 + "a numeric", "none of numeric|no name and type"),
    ],
)
@pytest.mark.timeout(20)  # a reader that backtracks takes exponential time
def test_an_attribute_that_is_none_is_refused(tmp_path, attribute, said):
    (tmp_path / "t.arff").write_text(f"@attribute {attribute}\n@data\nx\n")
    with pytest.raises(ValueError, match=rf"t\.arff is damaged \(line \d: .*({said})"):
        read_arff(tmp_path / "t.arff")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("1,'x", "a quote that does not end"),
        ("1,'x'y", "a quote that does not end"),
        ("1_0,x", "could not convert '1_0'"),
        ("{0 1, 0 2}", "index 0 once more"),
        ("{1}", "'1' is no index and value"),
        ("{-1 x}", "no index and value"),
        ("{1 'x}", "a quote"),
        ("{1 " + "'" + r"\'" * 60 + "}", "a quote"),
        ("1," + "'" + r"\'" * 60, "a quote"),
    ],
)
@pytest.mark.timeout(20)
def test_a_row_that_is_none_is_refused(tmp_path, row, said):
    (tmp_path / "t.arff").write_text(f"@attribute a real\n@attribute b {{x,y}}\n@data\n{row}\n")
    with pytest.raises(ValueError, match=rf"t\.arff is damaged \(line 4: .*{said}"):
        read_arff(tmp_path / "t.arff")


def test_text_that_is_no_utf_8_is_refused_with_its_line(tmp_path):
    (tmp_path / "t.arff").write_bytes(b"@attribute na\xefve real\n@data\n1\n")
    with pytest.raises(ValueError, match=r"t\.arff is damaged \(line 1: .*UTF-8"):
        read_arff(tmp_path / "t.arff")


def test_quotes_and_backslashes_are_read(tmp_path):
    text = r"""@attribute 'it\'s, so' {'a, b', "it's", c\ d}
@attribute "b\"" string
@data
'a, b', "x, y"
"it's" , 'x \'y'
c\ d, x y
{1 'x, y'}
{0 "it's", 1 z}
"""
    (tmp_path / "t.arff").write_text(text)
    columns = read_arff(tmp_path / "t.arff")
    assert {name: column.tolist() for name, column in columns.items()} == {
        "it's, so": ["a, b", "it's", "c d", "a, b", "it's"],
        'b"': ["x, y", "x 'y", "x y", "x, y", "z"],
    }


def test_rows_that_leave_everything_out_cannot_flood_the_memory(tmp_path, monkeypatch):
    monkeypatch.setenv(LIMIT, str(16 << 20))
    head = "".join(f"@attribute a{i} real\n" for i in range(20_000))
    (tmp_path / "t.arff").write_text(head + "@data\n" + "{}\n" * 5000)
    with pytest.raises(ValueError, match=r"t\.arff takes .* bytes.*REGROW_MAX_UNPACKED"):
        read_arff(tmp_path / "t.arff")


ENTRIES = st.sampled_from(
    ["1", "-2.5", " 3 ", "1e400", "nan", "NaN", "-inf", "?", " ?", "", "+5", "1_0", "0x1", "'4'",
     ".5", "5.", "1e", "٣", "{", "%", "1 2", "\t7"]
)  # fmt: skip
NAMES = st.sampled_from(["x", "y z", "'y z'", " x ", "?", "%x", "w", '"x"', "", "x\\", "{x"])


@given(st.lists(st.tuples(ENTRIES, ENTRIES, NAMES).map(list), max_size=6), st.booleans())
@example([["1", "2", "x"], ["", "", ""]], True)
@example([["1", "?", "?"]], False)
def test_fast_and_exact_reading_agree(tmp_path_factory, rows, nominal_first):
    """Whatever the lines: if they are read fast, then just as they are read one by one."""
    path = tmp_path_factory.mktemp("arff") / "t.arff"
    kinds = ["@attribute a real", "@attribute b numeric", "@attribute c {x,'y z',w}"]
    order = [2, 0, 1] if nominal_first else [0, 1, 2]
    lines = [",".join(row[i] for i in order) for row in rows]
    path.write_text("\n".join([*(kinds[i] for i in order), "@data", *lines, ""]))
    opened = partial(open_unpacked, path)
    fast = None
    with contextlib.suppress(ValueError):
        fast = arff._read_fast(opened)
    if fast is not None:
        exact = arff._read(opened, path)
        assert list(fast) == list(exact)
        for name, column in fast.items():
            assert column.dtype == exact[name].dtype
            np.testing.assert_array_equal(column, exact[name])


def test_plain_rows_are_read_fast(tmp_path):
    """Without this, the test above might compare nothing."""
    (tmp_path / "t.arff").write_text("@attribute a real\n@attribute c {x,y}\n@data\n1,x\n?,?\n")
    found = arff._read_fast(partial(open_unpacked, tmp_path / "t.arff"))
    np.testing.assert_array_equal(found["a"], [1, np.nan])
    assert found["c"].tolist() == ["x", None]
