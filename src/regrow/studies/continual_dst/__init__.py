"""Continual learning with dynamic sparse training: a sparse network a task, nothing forgotten."""
