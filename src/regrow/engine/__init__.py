"""The engine: score, keep, regrow. Needs torch and numpy only."""
