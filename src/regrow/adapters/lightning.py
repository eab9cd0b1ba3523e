"""A Lightning callback: ``Trainer(callbacks=[SparseTraining(regrow.RigL(density=0.1))])``."""

from __future__ import annotations

from typing import Any

import torch

import regrow
from regrow.adapters.adapter import Adapter
from regrow.machine import needed

with needed("lightning", "lightning"):
    from lightning.pytorch import Callback, LightningModule, Trainer

__all__ = ["SparseTraining"]


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
        self.begin(pl_module, optimizer, steps, trainer.estimated_stepping_batches)

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
