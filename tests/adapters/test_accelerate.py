"""The Accelerate example runs as a user would run it, learns, and saves what it needs."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("accelerate", reason="needs the extra regrow[transformers]")
EXAMPLE = Path(__file__).parents[2] / "examples" / "accelerate_loop.py"


def test_the_example_learns_and_saves(tmp_path):
    command = [sys.executable, str(EXAMPLE), "--epochs", "6", "--save", str(tmp_path / "state")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) > 0.8
    assert "density now 0.1000" in done.stdout
    assert list((tmp_path / "state").glob("custom_checkpoint*"))
