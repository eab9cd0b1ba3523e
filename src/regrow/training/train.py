"""Runs a training: starts or resumes it, logs it, saves checkpoints, tests once at the end."""

from __future__ import annotations

import io
import logging
import time
from typing import Any

import torch
from torch import distributed

from regrow.engine.patterns import Element
from regrow.engine.ranks import rank_and_ranks
from regrow.machine import naming
from regrow.training.batch import SourceT
from regrow.training.costs import costs, movement, topology
from regrow.training.problem import Problem
from regrow.training.run import RunLike, device_of
from regrow.training.setting import Setting
from regrow.training.trainer import Trainer

__all__ = ["WEIGHTS", "keep_weights", "start", "train"]

WEIGHTS = "weights.pt"

logger = logging.getLogger(__name__)


def start(
    setting: Setting, problem: Problem[SourceT], run: RunLike, source: SourceT | None = None
) -> Trainer[SourceT]:
    """Open the data, build the model and its trainer, as the run's options say.

    Args:
        setting: how it is trained.
        problem: what is learnt.
        run: whose options say where: ``device``, ``execution``, and ``graphs`` (on a GPU passes are
            captured as CUDA graphs unless it is False).
        source: the data; None: the problem opens them.
    """
    device = device_of(run.options)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    if source is None:
        source = problem.open(setting, run)
    saved = run.load() if run.options.get("execution") == "auto" else None
    torch.manual_seed(setting.seed)
    return Trainer(
        setting,
        problem.build(source),
        source,
        problem.loss,
        problem.counts,
        device,
        execution=run.options.get("execution", "masked"),
        graphs=run.options.get("graphs", True),
        saved=saved["training"]["sparse"] if saved is not None else None,
    )


def train(problem: Problem[SourceT], trainer: Trainer[SourceT], run: RunLike) -> dict[str, Any]:
    """Train, resuming from the run's checkpoint if there is one, and test.

    Args:
        problem: what is learnt.
        trainer: of the problem, not yet trained.
        run: takes a line of metrics an epoch, and checkpoints. If its options say ``keep_weights``,
            its folder takes weights and masks, as ``weights.pt``.

    Returns:
        What the problem's test found, the last epoch's metrics, costs, movement of the topology,
        and ``train_seconds``.
    """
    first = {name: mask.clone() for name, mask in trainer.sparse.masks.items()}
    seconds, metrics, begin, begun = 0.0, {}, 0.0, False

    def tell(done: float) -> None:
        nonlocal begin, begun
        before = time.perf_counter()
        run.tell(done, _words(trainer))
        if not begun:  # what a run opens when it begins, such as a tracker's, takes no training
            begin, begun = begin + time.perf_counter() - before, True

    epochs = trainer.setting.epochs
    logger.info("%s: %s", problem.describe(trainer.source), _plan(trainer))
    if (saved := run.load()) is not None:
        first, seconds = saved["first"], saved["seconds"]
        trainer.load_state_dict(saved["training"])
        logger.info("going on after epoch %d", trainer.epoch)
    while trainer.epoch < epochs:
        begin, steps = time.perf_counter(), trainer.sparse.steps
        metrics = trainer.run_epoch(tell=tell)
        seconds += time.perf_counter() - begin
        for name, value in problem.validate(trainer).items():
            metrics[f"validation_{name}"] = value
        watched = problem.watch(trainer, first)
        run.log(epoch=trainer.epoch, **metrics, **topology(trainer, steps), **watched)
        if _due(run) and trainer.epoch < epochs:
            run.save({"training": trainer.state_dict(), "first": first, "seconds": seconds})
    keep_weights(run, {"model": trainer.model.state_dict(), "sparse": trainer.sparse.state_dict()})
    return {
        **problem.test(trainer, run),
        **metrics,
        **costs(trainer),
        **movement(trainer, first),
        "train_seconds": seconds,
    }


def keep_weights(run: RunLike, weights: Any, name: str = WEIGHTS) -> None:
    """Write weights to the run's folder, if its option ``keep_weights`` asks for them.

    Args:
        run: whose folder; of several ranks one writes.
        weights: whatever ``torch.save`` takes.
        name: of the file.

    Raises:
        OSError: they cannot be written; the message names the file.
    """
    if run.options.get("keep_weights") and run.writes:
        # Not to the file itself: of a full disk torch tells positions in it, and nothing else.
        torch.save(weights, packed := io.BytesIO())
        with naming(path := run.folder / name):
            path.write_bytes(packed.getbuffer())


def _due(run: RunLike) -> bool:
    """Whether the first rank is due: all take the state then, for parts of it may be gathered."""
    due = [run.due()]
    if rank_and_ranks()[1] > 1:
        distributed.broadcast_object_list(due)
    return due[0]


def _words(trainer: Trainer[Any]) -> str:
    return f"epoch {trainer.epoch + 1} of {trainer.setting.epochs}"


def _plan(trainer: Trainer[Any]) -> str:
    setting, layers = trainer.setting, trainer.sparse.plan.layers
    parameters = sum(p.numel() for p in trainer.model.parameters())
    kept, units = (sum(getattr(layer, n) for layer in layers) for n in ("initial", "units"))
    on = f" on {trainer.ranks} ranks" if trainer.ranks > 1 else ""
    return (
        f"{parameters:,} parameters; {kept:,} of {units:,} "
        f"{'weights' if setting.method.pattern == Element() else 'units'} in "
        f"{len(layers)} layers start active; {trainer.steps:,} steps of {setting.batch} samples, "
        f"{trainer.device.type}{on}"
    )
