"""Training a classifier: the trial that studies and `regrow train` share."""
