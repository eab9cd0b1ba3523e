"""Higgs in its formats: the same table, split alike, whatever it is stored as."""

import gzip

import numpy as np
import pytest
import torch

from regrow.data.tables import read_csv
from regrow.vision.data import load_data

pyarrow = pytest.importorskip("pyarrow")

N = 40


def table(features):
    rng = np.random.default_rng(features)
    return rng.standard_normal((N, features)).astype(np.float32), np.arange(N) % 2


def uci(path):
    x, y = table(28)
    lines = [",".join(f"{v:.18e}" for v in (label, *row)) for row, label in zip(x, y, strict=True)]
    path.write_bytes(gzip.compress("\n".join(lines).encode()))


def rows(x, y):
    return [",".join([*(repr(float(v)) for v in a), str(b)]) for a, b in zip(x, y, strict=True)]


def openml_csv(path):
    x, y = table(24)
    head = ",".join([*(f"f {i}" for i in range(24)), "target"])
    path.write_text("\n".join([head, *rows(x, y)]) + "\n")


def pandas_csv(path):
    x, y = table(24)
    lines = [f"{i},{line}" for i, line in enumerate(rows(x, y))]
    path.write_text("\n".join([",".join(["", *map(str, range(24)), '"class"']), *lines]) + "\n")


def arff(path):
    x, y = table(24)
    head = ["% Higgs", "@RELATION higgs", ""]
    head += [f"@ATTRIBUTE 'm jj {i}' REAL" for i in range(24)]
    head += ["@attribute target {0,1}", "@DATA"]
    path.write_text("\n".join([*head, *rows(x, y)]) + "\n")


def parquet(path):
    from pyarrow import parquet as module

    x, y = table(24)
    columns = {"target": [str(label) for label in y]} | {f"f{i}": x[:, i] for i in range(24)}
    module.write_table(pyarrow.table(columns), path)


FORMATS = {
    "HIGGS.csv.gz": (uci, 28),
    "Higgs.csv": (openml_csv, 24),
    "higgs.csv": (pandas_csv, 24),
    "higgs.arff": (arff, 24),
    "higgs.parquet": (parquet, 24),
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "higgs").mkdir()
    return tmp_path / "higgs"


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_rows(folder, name):
    write, features = FORMATS[name]
    write(folder / name)
    data = load_data("higgs", folder.parent, download=False)
    assert data.train_inputs.shape == (34, features)
    assert data.test_inputs.shape == (6, features)
    assert data.train_inputs.dtype == torch.float32
    x, y = table(features)
    found = torch.cat([data.train_inputs, data.test_inputs]).numpy()
    labels = torch.cat([data.train_labels, data.test_labels]).numpy()
    place = [int(np.flatnonzero(np.isclose(x, row, atol=1e-6).all(1)).item()) for row in found]
    assert sorted(place) == list(range(N))
    assert np.array_equal(labels, y[place])
    again = load_data("higgs", folder.parent)
    assert torch.equal(again.test_inputs, data.test_inputs)


def test_formats_of_one_table_are_split_alike(folder):
    tests = []
    for name in ("higgs.csv", "higgs.arff", "higgs.parquet"):
        FORMATS[name][0](folder / name)
        tests.append(load_data("higgs", folder.parent).test_inputs)
        (folder / name).unlink()
    torch.testing.assert_close(tests[0], tests[1])
    torch.testing.assert_close(tests[0], tests[2])


def test_standardizing_is_by_column(folder):
    uci(folder / "HIGGS.csv.gz")
    train, _ = load_data("higgs", folder.parent).standardized()
    torch.testing.assert_close(train.mean(0), torch.zeros(28), atol=1e-5, rtol=0)
    torch.testing.assert_close(train.std(0), torch.ones(28))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("damage", [lambda c: c[: len(c) // 2 - 9], lambda c: b"", lambda c: b"x,"])
def test_a_damaged_file_is_named(folder, name, damage):
    path = folder / name
    FORMATS[name][0](path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=str(path)):
        load_data("higgs", folder.parent)


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda text: text.replace("target", "goal"), "no column target, class, label"),
        (lambda text: text.replace(",f 3", "").replace(",0\n", "\n"), "damaged"),
        (lambda text: text.replace(",1\n", ",2\n"), "labels besides 0 and 1"),
        (lambda text: text.replace(",1\n", ",nan\n"), "damaged"),
        (lambda text: text.replace(",1\n", ",\n"), "damaged"),
        (lambda text: text.replace(",1\n", ",s\n"), "damaged"),
        (lambda text: text[: text.index("\n") + 1], "damaged"),
    ],
)
def test_what_is_no_such_table_is_refused(folder, change, said):
    path = folder / "higgs.csv"
    openml_csv(path)
    path.write_text(change(path.read_text()))
    with pytest.raises(ValueError, match=said):
        load_data("higgs", folder.parent)


def test_other_counts_of_features_are_refused(folder):
    path = folder / "higgs.csv"
    path.write_text("a,target\n1.0,1\n2.0,0\n")
    assert list(read_csv(path)) == ["a", "target"]
    with pytest.raises(ValueError, match="has 1 features beside the label, not 24 or 28"):
        load_data("higgs", folder.parent)


def test_it_is_not_downloaded_but_told_how_to_get(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"higgs\.csv\.gz not found.*archive\.ics\.uci\.edu"
    ):
        load_data("higgs", tmp_path, download=True)
