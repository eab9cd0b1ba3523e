"""How hard samples are for a model, and which share of them to keep: the hardest, the easiest.

A higher score is a harder sample. Most scores are noisy for one model: take the mean over an
ensemble (:func:`mean_over_runs`).
"""

from regrow.vision.hardness.choice import Pick, choose
from regrow.vision.hardness.gradients import grand, grand_last
from regrow.vision.hardness.scores import el2n, forgetting, loss, mean_over_runs, uncertainty

__all__ = [
    "Pick",
    "choose",
    "el2n",
    "forgetting",
    "grand",
    "grand_last",
    "loss",
    "mean_over_runs",
    "uncertainty",
]
