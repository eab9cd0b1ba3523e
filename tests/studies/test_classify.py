"""Classify: repeated, resumed, stored, its data split, its test part left alone."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

import regrow
from regrow.engine.plan import make_plan
from regrow.lab.attempt import attempt
from regrow.lab.failures import headline
from regrow.lab.files import read_lines
from regrow.lab.run import METRICS, Run
from regrow.studies.supervised import source as sources
from regrow.studies.supervised.classify import Classify, accuracy
from regrow.studies.supervised.source import known_data, open_source
from regrow.training.train import WEIGHTS
from regrow.vision.data import load_data
from regrow.vision.models import MODELS, build_model, narrowed

CPU = {"device": "cpu"}
SECONDS = "train_seconds"


def classify(**changes):
    setting = {
        "seed": 0,
        "data": "digits",
        "model": "mlp-24-16",
        "method": regrow.RigL(density=0.2, update_every=5),
        "epochs": 4,
        "batch": 64,
    }
    return Classify(**setting | changes)


def run(trial, folder, **options):
    """Run a trial; its result without seconds, its metrics, its weights."""
    folder.mkdir(exist_ok=True)
    result = trial.run(Run(folder, CPU | {"keep_weights": True} | options))
    saved = torch.load(folder / WEIGHTS, weights_only=True)
    return {k: v for k, v in result.items() if k != SECONDS}, read_lines(folder / METRICS), saved


def assert_same(one, other):
    assert one[:2] == other[:2]
    for name, tensor in one[2]["model"].items():
        assert tensor.equal(other[2]["model"][name]), name


# ---------------------------------------------------------------------- models


INPUTS = {"lenet5": (1, 28, 28), "mlp-24-16": (1, 8, 8)}
INPUTS |= {name: (1, 8, 28, 28) for name, model in MODELS.items() if model.clips}
SCALES = {"deit-small": 0.25, "deit-base": 0.125, "i3d": 0.25, "resnet3d-50": 0.25}  # for speed
SCALES |= dict.fromkeys(("vgg16", "resnet18", "resnet34", "resnet50"), 0.25)


@pytest.mark.parametrize("name", ["mlp-24-16", *MODELS])
def test_every_model_trains_a_step_and_stays_sparse(name):
    shape = INPUTS.get(name, (3, 32, 32))
    model = build_model(name, shape, 7, scale=SCALES.get(name, 1.0))
    keys = list(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    method = regrow.RigL(density=0.1, update_every=2, stop_at=1.0)
    sparse = regrow.sparsify(model, optimizer, method, total_steps=4)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    for _ in range(3):  # an update between steps
        optimizer.zero_grad()
        outputs = model(torch.randn(2, *shape))
        assert outputs.shape == (2, 7)
        cross_entropy(outputs, torch.tensor([0, 6])).backward()
        optimizer.step()
    for n, mask in sparse.masks.items():
        assert not model.get_parameter(n)[~mask].any()
    moved = [n for n, p in model.named_parameters() if not p.equal(before[n])]
    assert set(sparse.masks) <= set(moved)
    assert list(model.state_dict()) == keys


NARROWED = ["mlp-300-100", "lenet5", "small-conv", "resnet20", "deit-tiny", "small-conv3d", "i3d"]


@pytest.mark.parametrize("name", NARROWED)
@settings(max_examples=5, deadline=None)
@given(share=st.floats(0.02, 0.99))
def test_a_narrowed_model_is_never_larger_than_the_sparse_one(name, share):
    shape = INPUTS.get(name, (1, 28, 28))

    def count(scale):
        with torch.device("meta"):
            return sum(p.numel() for p in build_model(name, shape, 10, scale=scale).parameters())

    with torch.device("meta"):
        full = build_model(name, shape, 10)
    plan = make_plan(full, regrow.Static(density=share))
    weights = sum(layer.units for layer in plan.layers)
    budget = round(share * weights) + count(1.0) - weights
    scale = narrowed(name, shape, 10, share)
    assert count(scale) <= budget < count(min(1.0, scale + 1 / 256)) or scale == 1.0


# ---------------------------------------------------------------------- a run


def test_the_same_seed_finds_the_same_and_another_does_not(tmp_path):
    first, again = (run(classify(), tmp_path / name) for name in "ab")
    assert_same(first, again)
    other = run(classify(seed=1), tmp_path / "c")
    assert other[0]["loss"] != first[0]["loss"]


@pytest.mark.parametrize(
    "changes",
    [
        {"dropout": 0.3},
        {"optimizer": "adamw", "learning_rate": 0.01, "schedule": "cosine", "warmup": 1.0},
        {"method": regrow.GMP(density=0.2, update_every=5), "validation": 0.2},
        {"method": regrow.Dense(), "narrow": 0.3},
        {"precision": "bfloat16"},
    ],
    ids=str,
)
@pytest.mark.parametrize("epoch", [1, 3])
def test_a_run_that_was_cut_off_goes_on_bit_for_bit(tmp_path, changes, epoch):
    class CutOff(Exception):
        pass

    class Cut(Run):
        def log(self, **values):
            super().log(**values)
            if values["epoch"] == epoch + 1:
                raise CutOff

    trial = classify(**changes)
    whole = run(trial, tmp_path / "whole")
    (tmp_path / "cut").mkdir()
    with pytest.raises(CutOff):
        trial.run(Cut(tmp_path / "cut", CPU, save_every=0.0))
    torch.manual_seed(99)
    assert_same(run(trial, tmp_path / "cut"), whole)
    assert [line["epoch"] for line in whole[1]] == [1, 2, 3, 4]


def test_what_was_kept_is_what_was_tested(tmp_path):
    result, metrics, saved = run(classify(), tmp_path / "run")
    trainer = classify().start(Run(tmp_path, CPU))
    trainer.model.load_state_dict(saved["model"])
    assert accuracy(trainer, trainer.source.test()) == result["accuracy"]
    assert result["nonzeros"] < 0.35 * result["parameters"]
    assert metrics[-1]["density"] == pytest.approx(0.2, abs=0.01)
    assert result["training_flops"] < 0.4 * result["dense_training_flops"]


def test_every_line_of_metrics_is_shown(tmp_path):
    shown = []
    outcome = attempt(classify(epochs=2), tmp_path, CPU, show=shown.append)
    assert outcome.status == "finished", outcome.error
    assert [values["epoch"] for values in shown] == [1, 2]


def test_a_loss_that_is_no_number_is_a_failure_that_says_what_to_do(tmp_path):
    trial = classify(method=regrow.Static(density=0.2), learning_rate=1e20)
    outcome = attempt(trial, tmp_path, CPU)
    assert outcome.status == "failed"
    assert "in epoch 1 (weights of 1.weight): lower the learning rate" in headline(outcome.error)


def test_stored_execution_learns_and_is_measured(tmp_path):
    found = {
        how: run(classify(epochs=8), tmp_path / how, execution=how)[0] for how in ("masked", "csr")
    }
    assert found["csr"]["accuracy"] == pytest.approx(found["masked"]["accuracy"], abs=0.1)
    assert found["csr"]["nonzeros"] == found["masked"]["nonzeros"]
    assert found["csr"]["densities"] == pytest.approx(found["masked"]["densities"])
    assert found["csr"]["bytes_allocated"] < found["masked"]["bytes_allocated"]
    assert "training_flops" not in found["csr"]


def test_the_fastest_execution_can_be_asked_for(tmp_path):
    assert run(classify(epochs=1), tmp_path / "run", execution="auto")[0]["updates"] == 1


# ---------------------------------------------------------------------- data


def opened(**changes):
    setting = {"data_dir": None, "device": torch.device("cpu"), "batch": 50, "seed": 0}
    return open_source("digits", **setting | {"augment": False} | changes)


@pytest.mark.parametrize(
    ("samples", "validation", "train", "held_out"),
    [(None, 0.0, 898, 0), (None, 0.25, 674, 224), (200, 0.0, 200, 0), (200, 0.1, 180, 20)],
)
def test_samples_and_validation_take_what_they_say(samples, validation, train, held_out):
    source = opened(samples=samples, validation=validation)
    inputs = source.batches.inputs
    held = [batch for batch, _ in source.validation()]
    held = torch.cat(held) if held else inputs[:0]
    assert (len(inputs), len(held)) == (train, held_out)
    assert sum(len(labels) for _, labels in source.test()) == 899
    counts = source.batches.labels.bincount()
    assert counts.max() - counts.min() <= 2 + 0.05 * train / 10
    both = {tuple(x.flatten().tolist()) for x in inputs} & {
        tuple(x.flatten().tolist()) for x in held
    }
    assert not both  # no digit is there twice


def test_the_test_part_is_never_trained_on(tmp_path, monkeypatch):
    trial = classify(method=regrow.Dense(), validation=0.2, epochs=10)
    clean = run(trial, tmp_path / "clean")
    data = load_data("digits")
    poisoned = vars(data) | {
        "test_inputs": 255 - data.test_inputs.flip(0),
        "test_labels": torch.zeros_like(data.test_labels),
    }
    monkeypatch.setattr(sources, "load_data", lambda *_: type(data)(**poisoned))
    sources._arrays.cache_clear()
    try:
        found = run(trial, tmp_path / "poisoned")
    finally:
        sources._arrays.cache_clear()
    assert found[1] == clean[1]
    assert all(found[2]["model"][n].equal(w) for n, w in clean[2]["model"].items())
    assert found[0]["accuracy"] < 0.5 < clean[0]["accuracy"]


def test_a_folder_of_images_is_trained_on(tmp_path):
    from PIL import Image

    for part in ("train", "val"):
        for label, colour in enumerate(("red", "blue")):
            folder = tmp_path / "imagenet" / part / f"n{label}"
            folder.mkdir(parents=True)
            for i in range(2):
                Image.new("RGB", (40 + i, 30), colour).save(folder / f"{i}.JPEG")
    trial = classify(data="imagenet", model="mlp-4", epochs=2, batch=2, learning_rate=0.001)
    result, metrics, _ = run(trial, tmp_path / "run", data_dir=str(tmp_path))
    assert len(metrics) == 2
    assert result["accuracy"] in (0.0, 0.25, 0.5, 0.75, 1.0)
    with pytest.raises(ValueError, match="leave samples and validation out"):
        run(classify(data="imagenet", samples=2), tmp_path / "no", data_dir=str(tmp_path))


# ---------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"epochs": 0}, r"epochs=0: must be at least 1"),
        ({"optimizer": "adam"}, r"optimizer='adam': must be one of sgd, adamw"),
        ({"schedule": "step"}, r"schedule='step': must be one of steps, cosine"),
        ({"precision": "half"}, r"precision='half': must be one of float32, bfloat16, float16"),
        ({"dropout": 1.0}, r"dropout=1.0: must be at least 0 and below 1"),
        ({"validation": -0.1}, r"validation=-0.1: must be at least 0"),
        ({"warmup": 5}, r"warmup=5: must lie in 0..4"),
        ({"narrow": 0.5}, r"give method=Dense\(\)"),
        ({"model": "mlp"}, r"model='mlp': must be one of conv-net, .*mlp-300-100"),
        ({"model": "resnet50"}, r"model='resnet50' takes images of 3 channels"),
        ({"data": "digit"}, r"data='digit': must be one of digits, "),
        ({"samples": 5000}, r"samples=5000: data='digits' has 898"),
        ({"batch": 1000}, r"batch=1000: data='digits' has 898 samples to train on: take a smaller"),
        ({"exclude": ("nothing*",)}, r"nothing\*"),
    ],
    ids=str,
)
def test_errors_name_the_argument_and_what_is_allowed(tmp_path, changes, said):
    with pytest.raises(ValueError, match=said):
        classify(**changes).run(Run(tmp_path, CPU))


def test_a_device_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device='cuda': torch sees no GPU here; use 'cpu'"):
        classify().run(Run(tmp_path, {"device": "cuda"}))


def test_several_ranks_do_not_store_weights(tmp_path, monkeypatch):
    monkeypatch.setattr("regrow.training.trainer.rank_and_ranks", lambda: (0, 2))
    with pytest.raises(ValueError, match="execution='csr' trains on one rank, and these are 2"):
        classify().start(Run(tmp_path, CPU | {"execution": "csr"}))


def test_the_command_names_every_data_set():
    text = Classify.__doc__
    assert all(name in text for name in known_data())


def test_the_command_names_every_model():
    words = set(re.findall(r"[\w-]+", Classify.__doc__))
    short = {f"resnet{word}" for word in words if word.isdecimal()}  # "resnet20 (32, 44, 56)"
    short |= {f"deit-{word}" for word in words & {"small", "base"}}
    assert MODELS.keys() <= words | short
