"""Classifiers of images, clips and tables: the trial that studies and `regrow train` share."""
