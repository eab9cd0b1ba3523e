"""Measures of robustness to corruptions, of image frequencies, and of convolution kernels."""

from regrow.vision.analysis.filters import (
    effective_filter_sizes,
    remaining_kernels,
    singular_value_entropy,
)
from regrow.vision.analysis.robustness import (
    gains,
    mean_corruption_error,
    relative_mean_corruption_error,
    robustness_accuracy,
)
from regrow.vision.analysis.spectral import (
    high_frequency_share,
    keep_frequencies,
    order_by_frequency,
    radius_accuracy,
)

__all__ = [
    "effective_filter_sizes",
    "gains",
    "high_frequency_share",
    "keep_frequencies",
    "mean_corruption_error",
    "order_by_frequency",
    "radius_accuracy",
    "relative_mean_corruption_error",
    "remaining_kernels",
    "robustness_accuracy",
    "singular_value_entropy",
]
