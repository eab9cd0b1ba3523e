"""The trial: a model, a data set and a method, trained from scratch and tested once."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

import torch

from regrow.engine.patterns import Element
from regrow.lab.ranks import rank_and_ranks
from regrow.lab.run import Run
from regrow.studies.training.findings import costs, movement
from regrow.studies.training.loop import Training
from regrow.studies.training.setting import Setting
from regrow.studies.training.source import Source, open_source

__all__ = ["WEIGHTS", "Classify", "device_of", "start"]

WEIGHTS = "weights.pt"

logger = logging.getLogger(__name__)


class Classify(Setting):
    """Train a classifier and test it once, after the last epoch."""

    def run(self, run: Run) -> Mapping[str, Any]:
        """Train, resuming from the run's checkpoint if there is one, and test.

        Options of the run: ``data_dir``, ``device``, ``execution``, ``keep_weights``, and
        ``graphs`` (on a GPU, passes are captured as CUDA graphs unless it is False).
        """
        training = start(self, run)
        first = {name: mask.clone() for name, mask in training.sparse.masks.items()}
        seconds = 0.0
        logger.info("%s", self._plan(training))
        if (saved := run.load()) is not None:
            first, seconds = saved["first"], saved["seconds"]
            training.load_state_dict(saved["training"])
            logger.info("going on after epoch %d", training.epoch)
        while training.epoch < self.epochs:
            begin = time.perf_counter()
            found = training.run_epoch(tell=lambda done: run.tell(done, self._words(training)))
            seconds += time.perf_counter() - begin
            if self.validation:
                found["validation_accuracy"] = training.accuracy(training.source.validation())
            density = training.sparse.density if training.sparse.plan.layers else 1.0
            run.log(epoch=training.epoch, **found, density=density)
            if run.due() and training.epoch < self.epochs:
                state = {"training": training.state_dict(), "first": first, "seconds": seconds}
                run.save(state)
        if run.options.get("keep_weights") and run.writes:
            torch.save(
                {"model": training.model.state_dict(), "sparse": training.sparse.state_dict()},
                run.folder / WEIGHTS,
            )
        return {
            **self.test(training, run),
            **found,
            **costs(training),
            **movement(training, first),
            "train_seconds": seconds,
        }

    def test(self, training: Training, run: Run) -> Mapping[str, Any]:
        """Test what was trained; a trial that asks for more adds it here.

        Returns:
            ``accuracy`` on the test part, and whatever else was found.
        """
        return {"accuracy": training.accuracy(training.source.test())}

    def _plan(self, training: Training) -> str:
        parameters = sum(p.numel() for p in training.model.parameters())
        layers = training.sparse.plan.layers
        kept, units = (sum(getattr(layer, n) for layer in layers) for n in ("initial", "units"))
        on = f" on {training.ranks} ranks" if training.ranks > 1 else ""
        return (
            f"{self.model} for inputs of {'×'.join(map(str, training.source.shape))} and "
            f"{training.source.classes} classes: {parameters:,} parameters; {kept:,} of {units:,} "
            f"{'weights' if self.method.pattern == Element() else 'units'} in {len(layers)} layers "
            f"start active; {training.steps:,} steps of "
            f"{self.batch} samples, {training.device.type}{on}"
        )

    def _words(self, training: Training) -> str:
        return f"epoch {training.epoch + 1} of {self.epochs}"


def start(setting: Setting, run: Run) -> Training:
    """Open the data and build what is trained, as the run's options say."""
    device = device_of(run.options)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    return Training(
        setting,
        _open(setting, run, device),
        device,
        execution=run.options.get("execution", "masked"),
        graphs=run.options.get("graphs", True),
    )


def _open(setting: Setting, run: Run, device: torch.device) -> Source:
    rank, ranks = rank_and_ranks()
    return open_source(
        setting.data,
        data_dir=run.options.get("data_dir"),
        device=device,
        batch=setting.batch,
        seed=setting.seed,
        augment=setting.augment,
        samples=setting.samples,
        validation=setting.validation,
        rank=rank,
        ranks=ranks,
    )


def device_of(options: Mapping[str, Any]) -> torch.device:
    """Return the device the options name; "auto" or none: a GPU if there is one.

    Raises:
        ValueError: it is a GPU and there is none.
    """
    name = options.get("device") or "auto"
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device={name!r}: torch sees no GPU here; use 'cpu'")
    if name == "cuda":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device(name)
