"""What the README shows runs, and every name in it is there."""

import re
from collections import OrderedDict

import pytest
import torch
from torch import nn

import regrow
from regrow.engine.patterns import Kernel
from regrow.engine.scores import Gradient, Magnitude
from tests.test_docs import README

TEXT = README.read_text("utf-8")
TWO = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2))
METHODS = TEXT[TEXT.index("## Methods") : TEXT.index("## Train and test")]


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10))


def sparsified(method, **options):
    model = network()
    optimizer = torch.optim.AdamW(model.parameters())
    sparse = regrow.sparsify(model, optimizer, method, total_steps=20_000, **options)
    return model, optimizer, sparse


def test_the_five_lines_run(tmp_path):
    code = re.search(r"## Five lines\n\n```python\n(.*?)```", TEXT, re.DOTALL)[1]
    names = {"torch": torch, "path": tmp_path / "checkpoint.pt"}
    exec(code.replace("model = ...", "model = network()"), names | {"network": network})
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    model, optimizer, sparse = sparsified(regrow.RigL(density=0.1))
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    sparse.load_state_dict(saved["sparse"])


def test_the_pipeline_keeps_columns_that_tell_something():
    datasets = pytest.importorskip("sklearn.datasets", reason="needs the extra regrow[features]")
    code = re.search(r"## In a scikit-learn pipeline\n\n```python\n(.*?)```", TEXT, re.DOTALL)[1]
    made = {"n_informative": 8, "n_redundant": 0, "shuffle": False, "random_state": 0}
    X, y = datasets.make_classification(300, 40, **made)
    names = {"X": X, "y": y}
    exec(code, names)
    kept = names["pipeline"][1].get_support(indices=True)
    assert len(kept) == 8 and (kept < 8).sum() >= 5


def excluded():
    model = nn.Sequential(OrderedDict(conv1=nn.Conv2d(3, 8, 3), body=nn.Linear(8, 8), fc=TWO))
    optimizer = torch.optim.AdamW(model.parameters())
    plan = {"exclude": ["conv1.weight", "fc.*"], "total_steps": 20_000}
    sparse = regrow.sparsify(model, optimizer, regrow.RigL(density=0.5), **plan)
    return set(sparse.masks) == {"body.weight"}


def own_densities():
    _, _, sparse = sparsified(regrow.RigL(density={"0.*": 0.5, "*": 0.1}))
    return sparse.masks["0.weight"].float().mean() == 0.5


def kernels():
    method = regrow.RigL(density=0.1, pattern=Kernel())
    _, _, sparse = sparsified(method, include=["0.weight"])
    return {0, 9} == set(sparse.masks["0.weight"].sum((2, 3)).flatten().tolist())


def composed():
    method = regrow.Dynamic(density=0.1, drop=Magnitude(), grow=Gradient())
    return sparsified(method)[2].density < 0.11


def rescaled():
    (plain, *_), (scaled, *_) = (
        sparsified(regrow.Static(density=0.1), rescale=one) for one in (False, True)
    )
    return scaled[3].weight.norm() > plain[3].weight.norm()


def clipped():
    model, _, sparse = sparsified(regrow.RigL(density=0.1))
    model(torch.ones(2, 3, 8, 8)).sum().backward()
    sparse.mask_gradients_()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    return not model[3].weight.grad[~sparse.masks["3.weight"]].any()


def averaged():
    _, _, sparse = sparsified(regrow.RigL(density=0.1))
    ema = torch.optim.swa_utils.AveragedModel(network())
    sparse.apply_to_(ema)
    return not ema.module[3].weight[~sparse.masks["3.weight"]].any()


def logged():
    return sparsified(regrow.RigL(density=0.1))[2].metrics()


# What is in the table "Worth knowing", by the name that a line of it is about.
WORTH_KNOWING = {
    "exclude=": excluded,
    'RigL(density={"fc1.*"': own_densities,
    "pattern=Kernel()": kernels,
    "Dynamic(drop=": composed,
    "rescale=True": rescaled,
    "sparse.mask_gradients_()": clipped,
    "sparse.apply_to_(ema)": averaged,
    "sparse.metrics()": logged,
}


@pytest.mark.parametrize("shown", WORTH_KNOWING)
def test_what_is_worth_knowing_does_what_it_says(shown):
    assert shown in TEXT
    assert WORTH_KNOWING[shown]()


def test_no_line_of_that_table_is_left_out():
    table = re.search(r"\| you want \| write \|\n(.*?)\n\n", TEXT, re.DOTALL)[1]
    lines = [line for line in table.split("\n")[1:] if "`" in line and "regrow.measure" not in line]
    assert len(lines) == len(WORTH_KNOWING)
    assert all(any(shown in line for shown in WORTH_KNOWING) for line in lines)


def test_methods_are_those_that_are_registered():
    named = set(re.findall(r"`(\w+)`", METHODS.split("`regrow methods`")[0]))
    assert named == set(regrow.METHODS) | {"Dynamic"}
