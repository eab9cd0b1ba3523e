"""The study of masks learnt from reward alone, which hide distractions from agents that see."""
