"""The benchmark runs at a tiny size, and the loop it compares with is SVEA."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional

FILE = Path(__file__).parents[3] / "benchmarks" / "pixels.py"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("benchmark_of_pixels", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _as_before():
    before = torch.backends.cudnn.benchmark
    yield
    torch.backends.cudnn.benchmark = before


def test_every_part_leaves_its_figures(benchmark, tmp_path, capsys):
    file = tmp_path / "deep" / "record.json"
    arguments = ["--device", "cpu", "--size", "24", "--batch", "2", "--loop-batch", "2"]
    arguments += ["--repetitions", "2", "--seconds", "0.01", "--methods", "SAC", "MaDi-strided"]
    arguments += ["--task", "dot"]
    parts = ["updates", "loop", "acting", "augmentations", "processes"]
    benchmark.main([*parts, *arguments, "--json", str(file)])
    record = json.loads(file.read_text())
    assert [row["method"] for row in record["updates"]] == ["SAC", "MaDi-strided"]
    for row in record["updates"]:
        assert row["finite"] and len(row["milliseconds"]["eager float32"]) == 2
    assert record["loop"][0]["times_as_fast"] > 0
    assert "torch" in record["environment"]
    assert [len(row["steps_per_second"]) for row in record["processes"]] == [2, 2]
    assert capsys.readouterr().out.count("\n") == 2 + 1 + 2 + 5 + 2


def test_the_other_loop_learns_what_svea_learns(benchmark):
    torch.manual_seed(0)
    loop = benchmark.Common(24, 4, 16, torch.device("cpu"))
    before = [p.detach().clone() for p in loop.encoder.parameters()]
    target = [p.detach().clone() for p in loop.target.parameters()]
    told = loop.update()
    assert len(told) == 7 and all(value == value for value in told)  # noqa: PLR0124
    assert any((a != b).any() for a, b in zip(before, loop.encoder.parameters(), strict=True))
    for new, old, source in zip(
        loop.target.parameters(), target, loop.critic.parameters(), strict=True
    ):
        torch.testing.assert_close(new, 0.99 * old + 0.01 * source, rtol=1e-4, atol=1e-6)


def test_its_shifts_by_interpolation_are_shifts(benchmark):
    images = torch.rand(20, 3, 12, 12)
    padded = functional.pad(images, (4,) * 4, "replicate")
    for found, whole in zip(benchmark.shifted(images), padded, strict=True):
        places = [
            (row, column)
            for row in range(9)
            for column in range(9)
            if torch.allclose(whole[:, row : row + 12, column : column + 12], found, atol=1e-4)
        ]
        assert len(places) == 1
