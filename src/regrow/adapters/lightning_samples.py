"""A Lightning callback: ``Trainer(callbacks=[SampleTraining(samples)])``."""

from __future__ import annotations

from typing import Any

from torch.utils._pytree import tree_leaves

from regrow.machine import needed
from regrow.samples.samples import Samples

with needed("lightning", "lightning"):
    from lightning.pytorch import Callback, LightningModule, Trainer

__all__ = ["SampleTraining"]


class SampleTraining(Callback):
    """Saves samples in checkpoints, logs their metrics, and lets epochs have different lengths.

    Args:
        samples: whose sampler the train loader has, and which the training step updates itself.
    """

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse loaders that do not have the sampler, and evaluation on chosen samples."""
        if not any(map(self._is_ours, tree_leaves(trainer.train_dataloader))):
            raise ValueError(
                "the train loader does not have a sampler of these samples: give it samples."
                "sampler() or .batch_sampler(), and Trainer(use_distributed_sampler=False)"
            )
        if any(map(self._is_ours, tree_leaves(trainer.val_dataloaders))):
            raise ValueError("a validation loader has a sampler of samples: evaluate on all data")

    def _is_ours(self, loader: Any) -> bool:
        found = (getattr(loader, name, None) for name in ("sampler", "batch_sampler"))
        return any(map(self.samples.owns, found))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell the trainer how many batches this epoch has, unless it was told a limit."""
        if trainer.limit_train_batches == 1.0 and not isinstance(trainer.train_dataloader, dict):
            trainer.fit_loop.max_batches = n = min(map(len, tree_leaves(trainer.train_dataloader)))
            if isinstance(trainer.val_check_interval, float):
                trainer.val_check_batch = max(1, int(n * trainer.val_check_interval))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log metrics."""
        pl_module.log_dict(self.samples.metrics(), rank_zero_only=True)

    def state_dict(self) -> dict[str, Any]:
        """Return what is known of the samples; Lightning asks all ranks."""
        return self.samples.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where a checkpoint was taken."""
        self.samples.load_state_dict(state_dict)
