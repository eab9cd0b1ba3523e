"""Networks that learn labels or numbers: the trials that studies and `regrow train` share."""
