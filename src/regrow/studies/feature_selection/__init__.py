"""The study of feature selection: which features to keep."""
