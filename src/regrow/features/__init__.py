"""Feature selection by sparse networks, as scikit-learn estimators."""

from regrow.machine import needed

with needed("scikit-learn", "features"):
    from regrow.features.plot import plot_importances
    from regrow.features.presets import neuro_fs, neuron_attribution, quick_selection, wast
    from regrow.features.recipe import Recipe
    from regrow.features.selector import SparseFeatureSelector
    from regrow.features.unsupervised import UnsupervisedSparseFeatureSelector

__all__ = [
    "Recipe",
    "SparseFeatureSelector",
    "UnsupervisedSparseFeatureSelector",
    "neuro_fs",
    "neuron_attribution",
    "plot_importances",
    "quick_selection",
    "wast",
]
