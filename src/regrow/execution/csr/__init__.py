"""Truly sparse layers on the CPU: weights, gradients and optimizer state for nonzeros only."""
