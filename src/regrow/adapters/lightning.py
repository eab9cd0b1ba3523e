"""A Lightning callback: ``Trainer(callbacks=[SparseTraining(regrow.RigL(density=0.1))])``."""

from __future__ import annotations

import math
from typing import Any

import torch

import regrow
from regrow.adapters.adapter import Adapter
from regrow.machine import needed

with needed("lightning", "lightning"):
    from lightning.pytorch import Callback, LightningModule, Trainer
    from lightning.pytorch.callbacks import GradientAccumulationScheduler
    from lightning.pytorch.utilities import rank_zero_warn

__all__ = ["SparseTraining", "total_steps"]


def total_steps(trainer: Trainer) -> float:
    """Return the optimizer steps of the whole run, accumulation that changes by epoch included.

    Lightning's own estimate takes the accumulation of the moment for that of all epochs.
    """
    schedule, batches = _accumulation(trainer), trainer.num_training_batches
    if schedule is None or trainer.max_epochs in (None, -1) or batches == float("inf"):
        return trainer.estimated_stepping_batches
    of_epoch = schedule.get_accumulate_grad_batches
    steps = sum(math.ceil(batches / of_epoch(epoch)) for epoch in range(trainer.max_epochs))
    return steps if trainer.max_steps == -1 else min(steps, trainer.max_steps)


def _accumulation(trainer: Trainer) -> GradientAccumulationScheduler | None:
    found = (
        c for c in getattr(trainer, "callbacks", ()) if isinstance(c, GradientAccumulationScheduler)
    )
    return next(found, None)


class SparseTraining(Adapter, Callback):
    """Makes the module sparse when training starts; saved in and resumed from checkpoints.

    Args:
        method: such as ``regrow.RigL(density=0.1)``.
        optimizer: which of the module's optimizers drives the topology.
        log: whether :meth:`regrow.Sparsifier.metrics` are logged after every epoch.
        **options: passed on to :func:`regrow.sparsify`, such as ``exclude``.
    """

    def __init__(
        self, method: regrow.Method, *, optimizer: int = 0, log: bool = True, **options: Any
    ) -> None:
        super().__init__(method, **options)
        self.optimizer, self.log = optimizer, log

    @property
    def state_key(self) -> str:
        """What tells the callbacks of several optimizers apart in a checkpoint."""
        return f"{type(self).__qualname__}-{self.optimizer}"

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the module sparse: it is on its device, and a checkpoint has been loaded."""
        optimizer, steps = trainer.optimizers[self.optimizer], trainer.global_step
        self.begin(pl_module, optimizer, steps, total_steps(trainer))
        self.planned = trainer.accumulate_grad_batches

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say it if a step now gathers other batches than the schedules count on."""
        now, fixed = trainer.accumulate_grad_batches, "total_steps" in self.options
        if now != self.planned and not fixed and _accumulation(trainer) is None:
            rank_zero_warn(
                f"accumulate_grad_batches was {self.planned} when training began and is {now} now, "
                "so that the run has another number of steps than the schedules of "
                f"{self.method.name} count on: pass total_steps=... to SparseTraining, or use "
                "Lightning's GradientAccumulationScheduler, which is followed"
            )
        self.planned = now

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let go of the module, into which an average may have been or may yet be written."""
        self.mask_averages_(*_averages(trainer), always=True)
        if self.sparse is not None:
            self.sparse.apply_to_(pl_module)
        self.end()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Let averages follow the topology."""
        self.mask_averages_(*_averages(trainer))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let averages be sparse where they are shown."""
        self.mask_averages_(*_averages(trainer), always=True)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Let averages be sparse where they are saved."""
        self.mask_averages_(*_averages(trainer), always=True)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log metrics."""
        if self.log and self.sparse is not None:
            pl_module.log_dict(self.sparse.metrics(), rank_zero_only=True)

    def state_dict(self) -> dict[str, Any]:
        """Return the topology for a checkpoint."""
        return {} if self.sparse is None else self.sparse.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the topology of a checkpoint until training starts."""
        self.loaded = state_dict or None


def _averages(trainer: Trainer) -> list[torch.nn.Module]:
    """Return the averages that Lightning's own callbacks keep (WeightAveraging, SWA)."""
    callbacks: list[Callback] = getattr(trainer, "callbacks")  # noqa: B009 untyped there
    found = (getattr(callback, "_average_model", None) for callback in callbacks)
    return [average for average in found if isinstance(average, torch.nn.Module)]
