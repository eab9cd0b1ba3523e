"""Feature selection: scikit-learn estimators, and the data of the field."""
