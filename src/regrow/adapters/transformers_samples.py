"""A Hugging Face callback: ``Trainer(callbacks=[SampleTraining(samples)])``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from regrow.machine import needed
from regrow.reading import decoding
from regrow.samples.samples import Samples

with needed("transformers", "transformers"):
    from transformers import TrainerCallback, TrainerState, TrainingArguments

__all__ = ["SampleTraining"]


class SampleTraining(TrainerCallback):
    """Saves samples as ``samples.pt`` in checkpoint folders; resumed training reads them there.

    The trainer's ``_get_train_sampler`` returns ``samples.sampler(ranks=1)``, for the trainer
    shares batches out itself; its ``compute_loss`` calls ``samples.update(ids, losses)``.

    Args:
        samples: what the trainer trains on.
    """

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any
    ) -> None:
        """Go on where a checkpoint was taken; refuse epochs that the trainer cannot count."""
        if state.global_step:
            with decoding(file := _file(args, state)):
                saved = torch.load(file, weights_only=True)
            self.samples.load_state_dict(saved, from_start=not args.ignore_data_skip)
        if not self.samples.even:
            raise ValueError(
                "the trainer counts on epochs of equal lengths: give Samples a number as keep, and "
                "neither warmup, anneal nor share_of='length'; or train in a loop of your own"
            )
        own, its = self.samples.shares.epochs, state.num_train_epochs
        if own not in (None, its):
            raise ValueError(f"samples of epochs={own}, a trainer of {its}: give both the same")

    def on_save(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        """Save what is known; all ranks exchange it, one writes."""
        saved = self.samples.state_dict()
        if state.is_world_process_zero:
            torch.save(saved, _file(args, state))


def _file(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(str(args.output_dir)) / f"checkpoint-{state.global_step}" / "samples.pt"
