"""Environments that step all runs of a population at once."""

from regrow.control.environments.base import Environments, Step
from regrow.control.environments.catalogue import TASKS, make
from regrow.control.environments.gymnasium import Gymnasium
from regrow.control.environments.point_mass import PointMass

__all__ = ["TASKS", "Environments", "Gymnasium", "PointMass", "Step", "make"]
