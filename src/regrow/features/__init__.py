"""Feature selection by sparse networks, as scikit-learn estimators."""

from regrow.features.selector import SparseFeatureSelector

__all__ = ["SparseFeatureSelector"]
