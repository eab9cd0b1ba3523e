"""Segmentation: the trial, and the page of a run."""
