"""The benchmark of several GPUs runs on ranks of gloo, and tells of each what it is made of."""

import json

import pytest

from benchmarks import scaling
from tests.ranks import on_ranks


@pytest.mark.slow
def test_two_ranks_are_timed_in_their_parts(tmp_path, capsys):
    out = tmp_path / "rows.json"
    for rank in on_ranks(scaling.be_a_rank, True, 2, 1, ["conformer"], out):
        assert rank.returncode == 0, rank.stderr
    found = json.loads(out.read_text())
    assert found["environment"]["backend"] == "gloo"
    assert [(row["mode"], row["batch"]) for row in found["rows"]] == [
        ("same batch a rank", 8),
        ("same batch in all", 4),
    ]
    for row in found["rows"]:
        for part in ("step", "step, gradients kept", "all-reduce alone"):
            low, high = row[part]["quartiles"]
            assert 0 < low <= row[part]["ms"] <= high
        assert row["samples_per_second"] == pytest.approx(1e3 * row["batch"] / row["step"]["ms"])
        assert row["gradient_mbytes"] > 0.8  # 0.2 M parameters
    alone = [{**row, "ranks": 1, "batch": 4} for row in found["rows"][:1]]
    scaling.show(alone + found["rows"])
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 4 and said[1].endswith("1.00") and "same batch in all" in said[3]


@pytest.mark.long
@pytest.mark.slow
def test_the_whole_benchmark_runs(tmp_path, monkeypatch):
    out = tmp_path / "out.json"
    words = ["--size", "tiny", "--ranks", "1", "2", "--rounds", "7", "--steps", "1"]
    monkeypatch.setattr("sys.argv", ["scaling.py", *words, "--json", str(out)])
    scaling.main()
    rows = json.loads(out.read_text())["rows"]
    assert [row["ranks"] for row in rows] == [1] * 3 + [2] * 6
    assert len({row["training"] for row in rows}) == 3
