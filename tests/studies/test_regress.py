"""Numbers are learnt by the squared error, and told in their own unit."""

import numpy as np
import pytest
import torch

import regrow
from regrow.cli.train import train
from regrow.lab.records import Records
from regrow.studies.supervised.regress import Regress, errors
from regrow.vision.data import Own, load_own

pytest.importorskip("pyarrow")

ROWS = 200
DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(ROWS, 3))
PRICE = 250_000 + 40_000 * X[:, 0] - 20_000 * X[:, 1] ** 2


def write(path, targets=PRICE, name="price"):
    lines = [f"{a},{b},{c},{y}" for (a, b, c), y in zip(X, targets, strict=True)]
    path.write_text("\n".join([f"size,age,noise,{name}", *lines]))
    return path


OPTIONS = {"model": "mlp-32-32", "epochs": 30, "target": "price", "regression": True, "threads": 1}


@pytest.mark.parametrize("unit", [1.0, 1e-3])
def test_a_price_is_learnt_and_told_in_its_unit(tmp_path, capsys, unit):
    path = write(tmp_path / "houses.csv", PRICE * unit)
    train(data=str(path), density=0.5, **OPTIONS, out=tmp_path / "out")
    [record] = Records.read(tmp_path / "out")
    assert record.config["trial"] == "Regress"
    assert record.result["r2"] > 0.8
    tested = load_own(Own(str(path), "price", regression=True)).test_labels
    spread = float((tested - tested.mean()).square().mean().sqrt())
    wanted = spread * (1 - record.result["r2"]) ** 0.5  # what R² says of the same errors
    assert record.result["rmse"] == pytest.approx(wanted, rel=1e-4)
    told = capsys.readouterr().out
    assert "test R² " in told and "test RMSE " in told
    assert "a fifth of the rows for testing" in told


class Means:
    """Stands in for a trainer whose network knows the mean only, and is off by a bit."""

    device = torch.device("cpu")

    def __init__(self, off):
        self.off, self.source = off, self
        self.scale = (10.0, 2.0)

    def ready(self, inputs):
        return inputs

    def outputs(self, inputs):
        return torch.full((len(inputs), 1), self.off)


def test_the_errors_are_those_of_the_formula():
    pairs = [(torch.zeros(2, 1), torch.tensor([-1.0, 1.0])), (torch.zeros(1, 1), torch.zeros(1))]
    assert errors(Means(0.0), pairs) == pytest.approx({"r2": 0.0, "rmse": 2 * (2 / 3) ** 0.5})
    worse = errors(Means(1.0), pairs)  # squares 4, 0, 1 where those about the mean sum to 2
    assert worse == pytest.approx({"r2": -1.5, "rmse": 2 * (5 / 3) ** 0.5})
    assert np.isnan(errors(Means(0.0), pairs[1:])["r2"])


def test_validation_and_fewer_samples_need_no_classes(tmp_path):
    path = write(tmp_path / "houses.csv")
    more = {"validation": 0.2, "samples": 100, "seed": 1}
    train(data=str(path), method="Dense", **OPTIONS | {"epochs": 2}, **more, out=tmp_path / "out")
    [record] = Records.read(tmp_path / "out")
    line = record.metrics()[-1]
    assert {"loss", "validation_r2", "validation_rmse"} <= line.keys()
    assert not [name for name in line if "accuracy" in name]


def test_numbers_keep_their_digits(tmp_path):
    """Seconds since 1970 have more than 32 bits of a float hold."""
    times = 1.7e9 + np.arange(ROWS)
    own = Own(str(write(tmp_path / "t.csv", times)), "price", regression=True)
    found = load_own(own)
    both = torch.cat([found.train_labels, found.test_labels]).sort().values
    assert both.tolist() == times.tolist()


@pytest.mark.parametrize(
    ("targets", "options", "said"),
    [
        (PRICE, {"regression": False}, "which are no classes: learn them as numbers, --regression"),
        ([*range(ROWS)], {"regression": False}, "has 200 classes .* learn them as numbers, --reg"),
        (["a", "b"] * 100, {}, "holds text such as 'a', and --regression learns numbers"),
        (["true", "false"] * 100, {}, "holds truths, and --regression learns numbers"),
        ([3.5] * ROWS, {}, "has one number to learn, 3.5, in 200 rows"),
        ([*PRICE[1:], ""], {}, "1 rows without a price"),
        ([*PRICE[1:], "inf"], {}, "'price' holds infinite numbers"),
        (PRICE, {"target": ""}, "no column is called class or label as the numbers; say --target"),
        (PRICE, {"label_smoothing": 0.1}, "label_smoothing=0.1 is of classes"),
        (PRICE, {"batch": 500}, "batch=500: data='houses.csv' has 160 samples to train on"),
    ],
)
def test_what_cannot_be_learnt_is_said_and_leaves_nothing(tmp_path, targets, options, said):
    path = write(tmp_path / "houses.csv", targets)
    with pytest.raises(ValueError, match=said):
        train(data=str(path), **OPTIONS | options, out=tmp_path / "out")
    assert not [*(tmp_path / "out").glob("*/*/")]


def test_data_by_name_have_classes():
    with pytest.raises(ValueError, match="data='digits' is of classes"):
        Regress(seed=0, method=regrow.Dense(), data="digits", model="mlp-8", epochs=1, batch=8)
