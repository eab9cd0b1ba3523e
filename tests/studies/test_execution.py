"""The benchmark of execution, small: what it runs, what it tells."""

import json

import pytest
import torch

from regrow.cli.bench import bench, model_of
from regrow.studies.execution import bench as study
from regrow.studies.execution.foretold import compare_advice
from regrow.studies.execution.inference import compare_inference
from regrow.studies.execution.layers import compare_layers
from regrow.studies.execution.memory import peak_memory
from regrow.studies.execution.steps import StepSetting, compare
from regrow.vision.models import MODELS, mlp


@pytest.fixture
def small():
    return StepSetting(
        "a small perceptron",
        lambda: mlp(20, 16, 10),
        (8, 20),
        10,
        lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        dense_steps=2,
        update_every=4,
    )


def test_every_way_is_run_for_as_many_turns_and_updates_fall_into_each(small):
    found = compare(small, (0.5, 0.1), turns=3)
    assert [(one.way, one.density) for one in found] == [
        ("dense float32", 1.0),
        ("dense bfloat16", 1.0),
        ("csr", 0.5),
        ("csr", 0.1),
    ]
    assert all(len(one.step.seconds) == 3 for one in found)
    for one in found[2:]:
        assert one.update_share is not None
        assert all(0 <= share < 1 for share in one.update_share.seconds)
        assert max(one.update_share.seconds) > 0


def test_layers_are_timed_beside_what_is_installed():
    found = compare_layers(32, (0.5,), batch=8, seconds=0.0)
    assert {("dense", 1.0), ("csr", 0.5), ("torch csr", 0.5)} <= set(found)
    assert all(timing.median > 0 for timing in found.values())


@pytest.mark.long
def test_the_peak_is_of_the_training_process_alone():
    ballast = torch.ones(60_000_000)  # 229 MiB in this process, which the other does not have
    dense = peak_memory((512, 2048, 2048, 10), 1.0, batch=8, steps=6)
    sparse = peak_memory((512, 2048, 2048, 10), 0.05, batch=8, steps=6)
    numbers = 512 * 2048 + 2048 * 2048
    assert ballast.sum() > 0
    assert dense > 16 * numbers  # weights, gradients and two moments of four bytes
    assert dense - sparse > 0.8 * 16 * numbers


def test_what_is_wrong_in_the_other_process_is_raised_here():
    with pytest.raises(RuntimeError, match="negative dimension -1"):
        peak_memory((-1, 4, 2), 1.0)


def test_parts_print_as_they_are_done_and_the_record_holds_all(
    small, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(study.SETTINGS, "narrow", small)
    monkeypatch.setattr(study, "WIDTHS", (16,))
    out = tmp_path / "record.json"
    bench("execution", json=out, parts=("narrow", "layers"), turns=1, threads=1)
    said = capsys.readouterr().out
    assert "a small perceptron" in said
    assert "× faster" in said
    assert "kernels:" in said
    record = json.loads(out.read_text())
    assert [part["part"] for part in record["parts"]] == ["narrow", "layers"]
    assert {"commit", "cpu", "torch", "threads", "kernels"} <= set(record["environment"])


def test_a_models_advice_is_printed(capsys):
    bench("model", model="mlp-8-8-8", batch=4, densities=(0.5,), threads=1)
    assert "A whole training step" in capsys.readouterr().out


def test_images_are_trained_channels_last_too_and_the_faster_layout_is_the_baseline():
    setting = StepSetting(
        "a convolution",
        lambda: torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten()),
        (2, 3, 6, 6),
        64,
        lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        dense_steps=2,
        update_every=4,
    )
    names = [one.way for one in compare(setting, (0.5,), turns=1)]
    last = "dense {}, channels last"
    assert names[2:] == [last.format("float32"), last.format("bfloat16"), "csr"]
    seconds = zip(names, (6.0, 1.0, 4.0, 1.0, 2.0), strict=True)
    ways = [
        {"way": way, "density": 0.5 if way == "csr" else 1.0, "seconds": [second]}
        for way, second in seconds
    ]
    rows = study.table({"part": "resnet", "ways": ways})
    assert [row[4] for row in rows[1:]] == ["0.67", "4.00", "1.00", "4.00", "2.00"]


def test_inference_is_timed_beside_what_is_installed():
    found = compare_inference(16, (0.5,), 3, depth=2, seconds=0.0)
    assert {("dense", 1.0), ("csr", 0.5)} <= set(found)
    assert all(len(timing.seconds) >= 15 for timing in found.values())


def test_advice_is_told_beside_what_was_measured(small):
    ways = compare_advice(small, (0.5,), turns=2)
    assert len(ways[0]["told"]) == len(ways[0]["measured"]) == len(ways[0]["took"]) == 2
    way = {"network": "n", "density": 0.5, "told": [3.0], "measured": [2.0], "took": [4.0]}
    table = study.table({"part": "advice", "ways": [way]})
    assert table[1] == ("n", "0.5", "3.00", "2.00", "+50%", "4.0")


@pytest.mark.parametrize("name", [*MODELS, "mlp-16-8"])
def test_every_model_that_is_trained_can_be_timed(name):
    """bench had names of its own: perceptron and resnet-20."""
    with torch.device("meta"):
        model, shape = model_of(name, (), 10, None)
    assert sum(p.numel() for p in model.parameters()) and len(shape) in (1, 3, 4)
    if name in MODELS and MODELS[name].width:
        with torch.device("meta"):
            narrow = model_of(name, (), 10, MODELS[name].width // 2)[0]
        assert sum(p.numel() for p in narrow.parameters()) < sum(
            p.numel() for p in model.parameters()
        )
