"""Execution: layers that store and compute active weights only."""

from regrow.execution import export

__all__ = ["export"]
