"""The trial: a model, a data set and a method, trained from scratch and tested once."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

import regrow
from regrow.engine.patterns import Element
from regrow.lab.ranks import rank_and_ranks
from regrow.lab.run import Run
from regrow.lab.trial import Trial
from regrow.studies.training.findings import costs, movement
from regrow.studies.training.loop import Training
from regrow.studies.training.source import Source, open_source

__all__ = ["WEIGHTS", "Classify", "device_of", "start"]

WEIGHTS = "weights.pt"

_CHOICES = {
    "optimizer": ("sgd", "adamw"),
    "schedule": ("steps", "cosine"),
    "precision": ("float32", "bfloat16", "float16"),
}

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Classify(Trial):
    """Train a classifier and test it once, after the last epoch.

    Args:
        data: a data set's name.
        model: a model's name.
        method: how it is kept sparse.
        epochs: passes over the training samples.
        batch: samples a step, over all ranks.
        optimizer: "sgd" or "adamw".
        learning_rate: at its highest.
        momentum: for "sgd".
        nesterov: for "sgd".
        weight_decay: as the optimizer takes it.
        schedule: "steps" divides the learning rate by 10 at the milestones, "cosine" lets it fall
            to 0.
        milestones: for "steps": shares of the run.
        warmup: epochs in which the learning rate rises from 0.
        label_smoothing: from 0 to 1.
        dropout: of a perceptron's hidden units.
        narrow: below 1: all widths are scaled down until the model has no more parameters than one
            of this density: the control of equal size. Goes with the dense method.
        exclude: globs over parameter names that stay dense.
        rescale: enlarge the weights kept at the start, see :func:`regrow.sparsify`.
        precision: of the passes; weights are float32.
        augment: whether to change training images as is usual for the data set.
        samples: training samples used, the same share of each class; None is all.
        validation: the share of them kept for validation.
    """

    data: str
    model: str
    method: regrow.Method
    epochs: int
    batch: int = 128
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    schedule: Literal["steps", "cosine"] = "steps"
    milestones: tuple[float, ...] = (0.5, 0.75)
    warmup: float = 0.0
    label_smoothing: float = 0.0
    dropout: float = 0.0
    narrow: float = 1.0
    exclude: tuple[str, ...] = ()
    rescale: bool = False
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    augment: bool = True
    samples: int | None = None
    validation: float = 0.0

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ValueError(f"epochs={self.epochs}: must be at least 1")
        for name, choices in _CHOICES.items():
            if (value := getattr(self, name)) not in choices:
                raise ValueError(f"{name}={value!r}: must be one of {', '.join(choices)}")
        for name in ("dropout", "label_smoothing", "validation"):
            if not 0 <= (value := getattr(self, name)) < 1:
                raise ValueError(f"{name}={value}: must be at least 0 and below 1")
        if not 0 <= self.warmup <= self.epochs:
            raise ValueError(f"warmup={self.warmup}: must lie in 0..{self.epochs}, the epochs")
        if self.narrow < 1 and not isinstance(self.method, regrow.Dense):
            raise ValueError(f"narrow={self.narrow} is a dense control: give method=Dense()")

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
                found["validation_accuracy"] = training.accuracy(on_test=False)
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
            "accuracy": training.accuracy(on_test=True),
            **found,
            **costs(training),
            **movement(training, first),
            "train_seconds": seconds,
        }

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


def start(setting: Classify, run: Run) -> Training:
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


def _open(setting: Classify, run: Run, device: torch.device) -> Source:
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
