"""Control: agents that learn from preferences, and from observations that are mostly noise."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from regrow.control.environments import TASKS, Environments, Gymnasium, PointMass, Step, make

if TYPE_CHECKING:
    from regrow.control.noise import NoiseFeatures, total_features
    from regrow.control.population import Population
    from regrow.control.setting import METHODS, Arm, Setting
    from regrow.control.teachers import TEACHERS, Answers, Query, ScriptedTeacher, Teacher
    from regrow.control.train import train_from_preferences

__all__ = [
    "METHODS",
    "TASKS",
    "TEACHERS",
    "Answers",
    "Arm",
    "Environments",
    "Gymnasium",
    "NoiseFeatures",
    "PointMass",
    "Population",
    "Query",
    "ScriptedTeacher",
    "Setting",
    "Step",
    "Teacher",
    "make",
    "total_features",
    "train_from_preferences",
]

_LATER = ("noise", "population", "setting", "teachers", "train")


def __getattr__(name: str) -> Any:
    """Bring in a name when it is first asked for: what steps environments needs no torch."""
    if name in __all__:
        for part in _LATER:
            module = import_module(f"regrow.control.{part}")
            if name in module.__all__:
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
