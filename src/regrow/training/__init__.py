"""Trains any problem: one loop, free of what is learnt."""

from regrow.training.batch import Batch, Batches, Source
from regrow.training.loop import take_steps
from regrow.training.problem import Problem
from regrow.training.setting import Setting
from regrow.training.train import start, train
from regrow.training.trainer import Trainer

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
