"""The Accelerate example runs as a user would run it, learns, and saves what it needs."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import regrow

pytest.importorskip("accelerate", reason="needs the extra regrow[transformers]")
EXAMPLE = Path(__file__).parents[2] / "examples" / "accelerate_loop.py"


def test_the_example_learns_and_saves(tmp_path):
    command = [sys.executable, str(EXAMPLE), "--epochs", "6", "--save", str(tmp_path / "state")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) > 0.8
    assert "density now 0.1000" in done.stdout
    assert list((tmp_path / "state").glob("custom_checkpoint*"))


@pytest.mark.filterwarnings("ignore")  # of the library's own making
def test_the_wrapped_optimizer_may_be_passed_as_it_is():
    """It lacked the hooks: AttributeError, _optimizer_step_pre_hooks."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    model = torch.nn.Linear(8, 4)
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
    method = regrow.SET(density=0.25, update_every=2)
    sparse = regrow.sparsify(model, optimizer, method, total_steps=9)
    for _ in range(4):
        accelerator.backward(model(torch.ones(2, 8)).square().sum())
        optimizer.step()
        optimizer.zero_grad()
    assert sparse.steps == 4
    assert not model.weight[~sparse.masks["weight"]].any()
