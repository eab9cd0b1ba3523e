"""Every kind of growth: what tests of patterns and of updates go through."""

from regrow.engine.criteria import AverageGradient, Running
from regrow.engine.links import LinkPrediction
from regrow.engine.scores import Gradient, Momentum, Random, Unfired

GROWS = (
    Gradient(),
    Random(),
    Momentum(),
    AverageGradient(),
    Running(Gradient()),
    Unfired(),
    LinkPrediction("CH2", by="node", soft=True),
    LinkPrediction("CH3", by="path"),
)
