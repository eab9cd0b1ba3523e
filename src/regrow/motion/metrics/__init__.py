"""Metrics of motion prediction: Waymo's and Argoverse 2's, without TensorFlow."""

from regrow.motion.metrics.argoverse import argoverse_mean, argoverse_metrics
from regrow.motion.metrics.measured import Measured, measure
from regrow.motion.metrics.rules import BEFORE_MARCH_2024, Rules
from regrow.motion.metrics.waymo import MotionMetrics, Values, values_of

__all__ = [
    "BEFORE_MARCH_2024",
    "Measured",
    "MotionMetrics",
    "Rules",
    "Values",
    "argoverse_mean",
    "argoverse_metrics",
    "measure",
    "values_of",
]
