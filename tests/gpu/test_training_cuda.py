"""On a GPU: a trial that was cut off goes on from its checkpoint, which was read on the CPU."""

import pytest
import torch

import regrow
from regrow.lab.run import Run
from regrow.measure.movement import distance, jaccard
from regrow.studies.supervised.classify import Classify

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


class CutOff(Exception):
    """The process died."""


class Cut(Run):
    """A run that dies after its second epoch."""

    def log(self, **values):
        super().log(**values)
        if values["epoch"] == 2:
            raise CutOff


@pytest.mark.parametrize("method", [regrow.Dense(), regrow.SET(density=0.3, update_every=5)])
def test_a_trial_that_was_cut_off_ends_as_a_whole_one_does(tmp_path, method):
    trial = Classify(data="digits", model="mlp-300-100", method=method, epochs=3, batch=64, seed=0)
    found = {}
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
        run = Run(tmp_path / name, {"device": "cuda"}, save_every=0.0)
        if name == "cut":
            with pytest.raises(CutOff):
                trial.run(Cut(tmp_path / name, {"device": "cuda"}, save_every=0.0))
        found[name] = trial.run(run)
    cut, whole = found["cut"], found["whole"]
    assert (cut["updates"], cut["nonzeros"]) == (whole["updates"], whole["nonzeros"])
    for name in ("moved", "explored", "accuracy"):
        assert cut[name] == pytest.approx(whole[name], abs=0.02), name


def test_topologies_on_two_devices_are_compared():
    one = {"w": torch.tensor([True, True, False])}
    there = {"w": torch.tensor([False, True, True], device="cuda")}
    assert distance(one, there) == distance(one, {"w": there["w"].cpu()})
    assert distance(there, one) == distance({"w": there["w"].cpu()}, one)
    assert jaccard(one, there)["w"] == jaccard(there, one)["w"] == pytest.approx(1 / 3)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA GPUs")
def test_trials_of_one_process_take_turns_on_two_gpus(tmp_path):
    """Torch keeps the stream of a process's first capture, which is of one GPU."""
    trial = Classify(data="digits", model="mlp-300-100", method=regrow.Dense(), epochs=2, seed=0)
    accuracies = []
    for gpu in (0, 1, 0):
        folder = tmp_path / str(len(accuracies))
        folder.mkdir()
        with torch.cuda.device(gpu):
            accuracies.append(trial.run(Run(folder, {"device": "cuda"}))["accuracy"])
    assert accuracies[0] == pytest.approx(accuracies[1], abs=0.02)
    assert accuracies[0] == pytest.approx(accuracies[2], abs=0.02)
