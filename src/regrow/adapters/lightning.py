"""A Lightning callback: ``Trainer(callbacks=[SparseTraining(regrow.RigL(density=0.1))])``."""

from __future__ import annotations

from typing import Any

import regrow

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError as error:
    raise ImportError("this adapter needs Lightning: pip install 'regrow[lightning]'") from error

__all__ = ["SparseTraining"]


class SparseTraining(Callback):
    """Makes the module sparse when training starts; saved in and resumed from checkpoints.

    Args:
        method: such as ``regrow.RigL(density=0.1)``.
        optimizer: which of the module's optimizers drives the topology.
        log: whether :meth:`regrow.Sparsifier.metrics` are logged after every epoch.
        **options: passed on to :func:`regrow.sparsify`, such as ``exclude``.

    Attributes:
        sparse: the sparsifier, from the start of training on.
    """

    sparse: regrow.Sparsifier | None = None

    def __init__(
        self, method: regrow.Method, *, optimizer: int = 0, log: bool = True, **options: Any
    ) -> None:
        self.method, self.optimizer, self.log, self.options = method, optimizer, log, options
        self._state: dict[str, Any] | None = None

    @property
    def state_key(self) -> str:
        """What tells the callbacks of several optimizers apart in a checkpoint."""
        return f"{type(self).__qualname__}-{self.optimizer}"

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the module sparse: it is on its device, and a checkpoint has been loaded."""
        total_steps = int(trainer.estimated_stepping_batches)
        optimizer = trainer.optimizers[self.optimizer]
        options = self.options | {"total_steps": total_steps, "state": self._state}
        self.sparse = regrow.sparsify(pl_module, optimizer, self.method, **options)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log metrics."""
        if self.log and self.sparse is not None:
            pl_module.log_dict(self.sparse.metrics(), rank_zero_only=True)

    def state_dict(self) -> dict[str, Any]:
        """Return the topology for a checkpoint."""
        return {} if self.sparse is None else self.sparse.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the topology of a checkpoint until training starts."""
        self._state = state_dict or None
