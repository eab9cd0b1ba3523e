"""Control: agents that learn from preferences, and from observations that are mostly noise."""

from regrow.control.environments import TASKS, Environments, Gymnasium, PointMass, Step, make
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
