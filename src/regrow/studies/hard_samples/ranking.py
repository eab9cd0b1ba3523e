"""How hard each training sample is: scored by an ensemble, once for all trials."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

import regrow
from regrow.data.kept import Arrays, kept
from regrow.engine.ranks import rank_and_ranks
from regrow.lab.run import Run
from regrow.studies.supervised.classify import Classifier, Classify, open_for
from regrow.studies.supervised.source import Change
from regrow.training.run import device_of
from regrow.training.train import start
from regrow.vision.data import Batches, load_data
from regrow.vision.hardness import (
    el2n,
    forgetting,
    grand,
    grand_last,
    loss,
    mean_over_runs,
    uncertainty,
)

__all__ = ["SCORES", "Ranking", "Score", "scores_of"]

logger = logging.getLogger(__name__)

Score = Literal["el2n", "loss", "uncertainty", "forgetting", "grand", "grand last"]

_VERSION = 1  # raised when a score changes its meaning
_AT_ONCE = 1000
_OF_OUTPUTS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "el2n": el2n,
    "loss": loss,
    "uncertainty": uncertainty,
}
SCORES = get_args(Score)
_SHARED = (
    *("data", "model", "batch", "optimizer", "learning_rate", "momentum", "nesterov"),
    *("weight_decay", "label_smoothing", "dropout", "precision", "augment"),
)


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """How samples are scored: the mean over dense runs that end early.

    The runs have the trial's model and optimizer; the learning rate stays where it begins, as in
    the first epochs of a long run, and rises to there in the first epoch if the trial warms up.
    They learn all training samples and score them as they are, without augmentation: after the last
    epoch, or ("forgetting") after each.

    Args:
        score: of ``SCORES``.
        runs: of the ensemble, at least 1.
        epochs: of each run, at least 1.
        seed: of the first run; the others follow. No trial may have one of them.

    Raises:
        ValueError: an argument is out of range.
    """

    score: Score = "el2n"
    runs: int = 10
    epochs: int = 20
    seed: int = 1000

    def __post_init__(self) -> None:
        if self.score not in SCORES:
            raise ValueError(f"score={self.score!r}: must be one of {', '.join(SCORES)}")
        for name in ("runs", "epochs"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name}={value}: must be at least 1")

    @property
    def seeds(self) -> range:
        """The seeds of the runs."""
        return range(self.seed, self.seed + self.runs)


def scores_of(ranking: Ranking, trial: Classify, run: Run, change: Change | None) -> Tensor:
    """Return how hard each training sample of a data set is, from the cache or by training.

    Each run of the ensemble is kept by itself, under a hash of all that decides it: its setting,
    the score, the data, and the kind of device.

    Args:
        ranking: by which score, of which ensemble.
        trial: that asks.
        run: whose options say where to train; is told how far it is.
        change: what is done to the data set first; its ``repr`` is a part of the hash.

    Returns:
        float32, shape (n,), on the CPU.

    Raises:
        ValueError: several ranks ask for scores that are not in the cache.
    """
    fields = {name: getattr(trial, name) for name in _SHARED}
    fields["warmup"] = min(trial.warmup, 1.0)
    found = []
    for number, seed in enumerate(ranking.seeds):
        member = Classify(
            seed=seed, epochs=ranking.epochs, method=regrow.Dense(), milestones=(), **fields
        )

        def make(member: Classify = member, number: int = number) -> Arrays:
            logger.info("scoring samples, run %d of %d", number + 1, ranking.runs)
            return {"scores": _computed(ranking.score, member, run, change).cpu().numpy()}

        decided = _decided(ranking.score, member, run, change)
        name = f"{member.data}-{member.model}"
        arrays = kept(name, decided, make, folder="hardness", alone=True)
        found.append(torch.from_numpy(arrays["scores"]))
    return mean_over_runs(found)


def _decided(score: str, member: Classify, run: Run, change: Change | None) -> list[object]:
    """Tell all that decides the scores; of the data set a part is looked at."""
    data = load_data(member.data, run.options.get("data_dir"))
    some = data.train_inputs[:: max(len(data.train_inputs) // 512, 1)].contiguous()
    seen = hashlib.sha256(some.numpy().tobytes() + data.train_labels.numpy().tobytes())
    device = device_of(run.options).type
    return [_VERSION, score, member.content, repr(change), device, seen.hexdigest()]


def _computed(score: str, member: Classify, run: Run, change: Change | None) -> Tensor:
    if (ranks := rank_and_ranks()[1]) > 1:
        raise ValueError(
            f"samples are scored on one rank, and these are {ranks}: run a trial once without "
            "torchrun; its scores are kept for all"
        )
    trainer = start(member, member, run, open_for(member, run, change=change))
    batches = trainer.source.batches
    assert isinstance(batches, Batches)
    inputs, labels = batches.inputs, batches.labels
    predictions = []
    while trainer.epoch < member.epochs:
        trainer.run_epoch(tell=lambda done: run.tell(0.0, f"scoring samples, {done:.0%}"))
        if score == "forgetting":
            predictions.append(_outputs(trainer, inputs).argmax(1))
    if score == "forgetting":
        return forgetting(torch.stack(predictions), labels)
    if score == "grand":
        trainer.model.eval()
        return grand(trainer.model, inputs, labels)
    if score == "grand last":
        with _Features(trainer.model) as features:
            logits = _outputs(trainer, inputs)
            return grand_last(logits, labels, torch.cat(features.seen), bias=features.has_bias)
    return _OF_OUTPUTS[score](_outputs(trainer, inputs), labels).float()


def _outputs(trainer: Classifier, inputs: Tensor) -> Tensor:
    return torch.cat([trainer.outputs(part).float() for part in inputs.split(_AT_ONCE)])


class _Features:
    """Gathers what goes into the last linear layer of a model, which must be its last layer."""

    def __init__(self, model: nn.Module) -> None:
        *_, last = model.modules()
        if not isinstance(last, nn.Linear):
            raise ValueError(f"score='grand last': the model's last layer is {last}, not linear")
        self.seen: list[Tensor] = []
        self.has_bias = last.bias is not None
        self._hook = last.register_forward_pre_hook(lambda _, args: self.seen.append(args[0]))

    def __enter__(self) -> _Features:
        return self

    def __exit__(self, *_: object) -> None:
        self._hook.remove()
