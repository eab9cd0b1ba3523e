"""Execution: layers that store and compute active weights only."""
