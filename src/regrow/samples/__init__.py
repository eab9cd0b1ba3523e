"""Train on fewer samples: which ones, chosen anew as training goes.

>>> from regrow.samples import InfoBatch, Samples
>>> samples = Samples(50_000, InfoBatch(), keep=0.7)
>>> int(samples.kept.sum())
35000

:class:`Samples` keeps a loss for each sample, by its id; a *criterion* chooses those of an epoch;
samplers feed them to any ``DataLoader``.
"""

from regrow.samples.criteria import (
    UCB,
    Cyclic,
    Easy,
    EasyToHard,
    EpsilonGreedy,
    Forgetting,
    Hard,
    Random,
    RHOLoss,
    SeTa,
)
from regrow.samples.known import Choice, Criterion, Known
from regrow.samples.rates import RootLoss
from regrow.samples.samples import Samples
from regrow.samples.strata import Coverage, InfoBatch, Stratified

__all__ = [
    "UCB",
    "Choice",
    "Coverage",
    "Criterion",
    "Cyclic",
    "Easy",
    "EasyToHard",
    "EpsilonGreedy",
    "Forgetting",
    "Hard",
    "InfoBatch",
    "Known",
    "RHOLoss",
    "Random",
    "RootLoss",
    "Samples",
    "SeTa",
    "Stratified",
]
