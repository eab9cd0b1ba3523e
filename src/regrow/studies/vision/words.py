"""Names groups of runs for readers."""

from __future__ import annotations

from regrow.lab.records import Records

__all__ = ["model_on_data"]


def model_on_data(group: Records) -> str:
    """Name a group of runs of one model on one data set."""
    return f"{group.all[0].get('model')} on {group.all[0].get('data')}"
