"""A Hugging Face callback: ``Trainer(callbacks=[SparseTraining(regrow.RigL(density=0.1))])``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

import regrow

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ImportError as error:
    raise ImportError("this adapter needs pip install 'regrow[transformers]'") from error

__all__ = ["SparseTraining"]


class SparseTraining(TrainerCallback):
    """Makes the model sparse when training starts; saved as ``regrow.pt`` in checkpoint folders.

    Training that is resumed from the output folder reads it from there.

    Args:
        method: such as ``regrow.RigL(density=0.1)``.
        **options: passed on to :func:`regrow.sparsify`, such as ``exclude``.

    Attributes:
        sparse: the sparsifier, from the start of training on.
    """

    sparse: regrow.Sparsifier | None = None

    def __init__(self, method: regrow.Method, **options: Any) -> None:
        self.method, self.options = method, options

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Make the model sparse: it is on its device, and a checkpoint has been loaded."""
        optimizer = getattr(kwargs["optimizer"], "optimizer", kwargs["optimizer"])
        saved = torch.load(_file(args, state), weights_only=True) if state.global_step else None
        options = self.options | {"total_steps": state.max_steps, "state": saved}
        self.sparse = regrow.sparsify(kwargs["model"], optimizer, self.method, **options)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Save the topology beside the model."""
        if self.sparse is not None and state.is_world_process_zero:
            torch.save(self.sparse.state_dict(), _file(args, state))


def _file(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(str(args.output_dir)) / f"checkpoint-{state.global_step}" / "regrow.pt"
