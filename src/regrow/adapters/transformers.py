"""A Hugging Face callback: ``Trainer(callbacks=[SparseTraining(regrow.RigL(density=0.1))])``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from regrow.adapters.adapter import Adapter
from regrow.machine import needed
from regrow.reading import decoding

with needed("transformers", "transformers"):
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

__all__ = ["SparseTraining"]


class SparseTraining(Adapter, TrainerCallback):
    """Makes the model sparse when training starts; saved as ``regrow.pt`` in checkpoint folders.

    Training that is resumed from the output folder reads it from there.

    Args:
        method: such as ``regrow.RigL(density=0.1)``.
        **options: passed on to :func:`regrow.sparsify`, such as ``exclude``.
    """

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Make the model sparse: it is on its device, and a checkpoint has been loaded."""
        file = _file(args, state)
        if state.global_step and not file.exists():
            raise FileNotFoundError(
                f"{file} is missing: the topology is saved there, beside the model; if the "
                "checkpoint was moved, copy its regrow.pt back to that place"
            )
        self.loaded = _load(file) if state.global_step else None
        self.begin(kwargs["model"], kwargs["optimizer"], state.global_step, state.max_steps)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Let go of the model; if the best one was loaded, with the topology of that one."""
        best = state.best_model_checkpoint
        if self.sparse is not None and args.load_best_model_at_end and best is not None:
            file = Path(best) / "regrow.pt"
            # Without it, the masks would zero weights of the best model.
            if file.exists():
                self.sparse.load_state_dict(_load(file))
        self.mask_averages_(always=True)
        self.end()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Let averages follow the topology."""
        self.mask_averages_()

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Save the topology beside the model; all ranks gather what is sharded, one writes."""
        self.mask_averages_(always=True)
        saved = self.sparse.state_dict() if self.sparse else None
        if saved and state.is_world_process_zero:
            torch.save(saved, _file(args, state))


def _file(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(str(args.output_dir)) / f"checkpoint-{state.global_step}" / "regrow.pt"


def _load(file: Path) -> Any:
    with decoding(file):
        return torch.load(file, weights_only=True)
