"""Task-incremental learning in one network: tasks come one after another, and all are kept."""
