"""Cuts channels that do nothing out of a model: a smaller dense one with equal outputs."""

from regrow.engine.slim.slim import Slimmed, check_slimmable, slim_

__all__ = ["Slimmed", "check_slimmable", "slim_"]
