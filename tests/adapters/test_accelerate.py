"""The Accelerate example runs as a user would run it, learns, and saves what it needs."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import regrow

pytest.importorskip("accelerate", reason="needs the extra regrow[transformers]")
EXAMPLE = Path(__file__).parents[2] / "examples" / "accelerate_loop.py"


@pytest.mark.long
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


def bare_loop(accelerator):
    """Return what a user's own script prepares, and its loop over batches that accumulates."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    inputs = torch.randn(60, 16, generator=torch.Generator().manual_seed(1))
    data = torch.utils.data.TensorDataset(inputs, inputs[:, :4].argmax(1))
    loader = torch.utils.data.DataLoader(data, batch_size=4)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    method = regrow.RigL(density=0.25, update_every=2, stop_at=1.0)
    # 15 batches by twos: the last step of an epoch comes earlier.
    sparse = regrow.sparsify(model, optimizer, method, total_steps=24)
    accelerator.register_for_checkpointing(sparse)

    def epoch():
        for x, y in loader:
            with accelerator.accumulate(model):
                accelerator.backward(torch.nn.functional.cross_entropy(model(x).float(), y))
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()

    return model, sparse, epoch


def check_saved(file, sparse):
    weights = pytest.importorskip("safetensors.torch", reason="needs safetensors").load_file(file)
    for layer in sparse.plan.layers:
        mask = sparse.masks[layer.name]
        assert int(mask.sum()) == layer.final
        assert int(weights[layer.name][~mask].count_nonzero()) == 0


@pytest.mark.filterwarnings("ignore")  # of the library's own making
@pytest.mark.parametrize("mixed", ["no", "bf16"])
def test_a_bare_loop_saves_what_it_reports_and_resumes_bit_for_bit(mixed, tmp_path):
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(True)  # one a process, whose precision cannot be changed
    options = {"cpu": True, "gradient_accumulation_steps": 2, "mixed_precision": mixed}
    accelerator = Accelerator(**options)
    model, sparse, epoch = bare_loop(accelerator)
    epoch()
    accelerator.save_state(tmp_path / "state")
    check_saved(tmp_path / "state" / "model.safetensors", sparse)
    epoch(), epoch()
    assert sparse.steps == sparse.total_steps == 24
    assert [update.step for update in sparse.history][:3] == [2, 4, 6]
    accelerator.save_model(model, tmp_path / "model")
    check_saved(tmp_path / "model" / "model.safetensors", sparse)

    accelerator = Accelerator(**options)
    again, resumed, epoch = bare_loop(accelerator)
    accelerator.load_state(tmp_path / "state")
    epoch(), epoch()
    assert resumed.history == sparse.history
    for name, value in model.state_dict().items():
        assert value.equal(again.state_dict()[name]), name
