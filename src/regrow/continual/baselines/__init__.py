"""Learners to compare with: each learns a stream's tasks one after another."""

from regrow.continual.baselines.independent import Independent
from regrow.continual.baselines.joint import Joint
from regrow.continual.baselines.learner import Learner, accuracy
from regrow.continual.baselines.nispa import NISPALike
from regrow.continual.baselines.shared import EWC, FineTuning, Replay
from regrow.continual.baselines.spacenet import SpaceNetLike
from regrow.continual.baselines.subnetworks import PackNet, SubNetworks
from regrow.continual.baselines.training import Setup, Training

__all__ = [
    "EWC",
    "FineTuning",
    "Independent",
    "Joint",
    "Learner",
    "NISPALike",
    "PackNet",
    "Replay",
    "Setup",
    "SpaceNetLike",
    "SubNetworks",
    "Training",
    "accuracy",
]
