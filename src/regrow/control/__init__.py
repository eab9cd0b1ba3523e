"""Control: agents that learn from preferences, and from observations that are mostly noise."""
