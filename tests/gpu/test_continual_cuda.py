"""Learners of streams on a GPU: what isolates on the CPU isolates here, and goes on after a cut."""

from functools import partial

import pytest
import torch

import regrow
from regrow.continual.baselines import (
    EWC,
    FineTuning,
    Independent,
    Joint,
    NISPALike,
    PackNet,
    Replay,
    Setup,
    SpaceNetLike,
    SubNetworks,
    Training,
)
from regrow.studies.continual_dst.data import open_stream
from regrow.vision.models import build_model

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

ISOLATED = {
    "sub-networks": lambda setup, _: SubNetworks(setup, regrow.RigL(density=0.2, update_every=3)),
    "PackNet": lambda setup, _: PackNet(setup, 0.3),
    "independent": lambda setup, _: Independent(setup, regrow.SET(density=0.2, update_every=3)),
    "SpaceNet-like": lambda setup, _: SpaceNetLike(setup, 0.2, updates=3),
    "NISPA-like": lambda setup, _: NISPALike(setup, 0.2, updates=3),
}
OTHERS = {
    "naive": lambda setup, _: FineTuning(setup),
    "EWC": lambda setup, _: EWC(setup, 10.0, samples=20),
    "replay": lambda setup, _: Replay(setup, 20),
    "joint": Joint,
}
MAKE = ISOLATED | OTHERS


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", MAKE)
def test_learners_on_a_gpu(name, precision):
    device = torch.device("cuda", torch.cuda.current_device())
    stream = open_stream("split-digits", data_dir=None, seed=0, device=device)[:3]
    training = Training(epochs=2, batch=16, learning_rate=0.1, precision=precision)
    setup = Setup(partial(build_model, "resnet20", (1, 8, 8), 10), training, 0, device)
    learner, answers = MAKE[name](setup, stream), []
    for number, task in enumerate(stream):
        learner.learn(task)
        answers.append(learner.predict(number, task.test.inputs))
        assert answers[-1].is_cuda
        if name in ISOLATED:
            for i, before in enumerate(answers):
                assert torch.equal(learner.predict(i, stream[i].test.inputs), before)
    resumed = MAKE[name](setup, stream)
    resumed.load_state_dict(learner.state_dict())
    for i, task in enumerate(stream):
        inputs = task.test.inputs
        assert torch.equal(resumed.predict(i, inputs), learner.predict(i, inputs))
