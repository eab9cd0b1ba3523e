"""Continual learning: one network learns task after task and forgets none of them."""

from regrow.continual.capacity import Capacity, CapacityError
from regrow.continual.identity import infer_task, measure_prototypes
from regrow.continual.network import TaskNetwork
from regrow.continual.norms import group_norm_
from regrow.continual.task import Task

__all__ = [
    "Capacity",
    "CapacityError",
    "Task",
    "TaskNetwork",
    "group_norm_",
    "infer_task",
    "measure_prototypes",
]
