"""Trains any problem: one loop, free of what is learnt."""

from regrow.training.batch import Batch, Batches, Source
from regrow.training.loop import Trainer, take_steps
from regrow.training.problem import Problem
from regrow.training.setting import Setting
from regrow.training.train import start, train

__all__ = [
    "Batch",
    "Batches",
    "Problem",
    "Setting",
    "Source",
    "Trainer",
    "start",
    "take_steps",
    "train",
]
