"""On a GPU: where float16 overflows, the layer is named, whatever a scaler skipped."""

import pytest
import torch

import regrow
from regrow.lab.run import Run
from regrow.studies.supervised.classify import Classify
from regrow.training import start
from regrow.training.loop import not_finite

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def trainer_of(folder, precision="float16"):
    method = regrow.RigL(density=0.3, update_every=5)
    problem = Classify(
        data="digits", model="mlp-300-100", method=method, epochs=2, seed=0, precision=precision
    )
    return start(problem, problem, Run(folder, {"device": "cuda"}))


def test_a_run_in_float16_is_finite_from_its_first_step_on(tmp_path):
    trainer = trainer_of(tmp_path)
    assert trainer.scaler.is_enabled()
    losses = [trainer.run_epoch()["loss"] for _ in range(2)]
    assert losses[1] < losses[0]
    assert trainer.sparse.history


@pytest.mark.parametrize("spoilt", [0, -1])
def test_whichever_batch_overflows_the_layer_is_named(tmp_path, spoilt):
    """The scaler skips the step: at the end of the epoch, every weight is as good as before."""
    trainer = trainer_of(tmp_path)
    ready, last = trainer.source.ready, len(trainer.source.batches) - 1
    calls = iter(range(10**6))

    def spoil(inputs):
        here = next(calls) % (last + 1) == spoilt % (last + 1)
        return torch.full_like(ready(inputs), 1e6) if here else ready(inputs)

    object.__setattr__(trainer.source, "ready", spoil)
    words = r"the loss is nan in epoch 1 \((in|out)puts of layer 1 in float16\)"
    with pytest.raises(FloatingPointError, match=words):
        trainer.run_epoch()
    assert all(weight.isfinite().all() for weight in trainer.model.parameters())


def test_the_layer_inside_is_named(tmp_path):
    """The first layer's outputs of 1,000 are fine; the second's would be 300,000."""
    trainer = trainer_of(tmp_path)
    with torch.no_grad():
        for weight in trainer.model.parameters():
            weight.fill_(1.0)
    inputs = torch.full((4, 1, 8, 8), 16.0)
    assert not_finite(trainer.model, lambda: trainer.predict(inputs)) == (
        "outputs of layer 3 in float16"
    )
