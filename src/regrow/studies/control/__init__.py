"""Studies of control: agents that learn from preferences."""
