"""Tables of features: readers of the field's formats, data sets by name, and Madelon."""

from regrow.features.data.catalogue import FEATURE_SETS, load_features
from regrow.features.data.feature_set import FeatureSet
from regrow.features.data.madelon import make_madelon
from regrow.features.data.mat import read_mat
from regrow.features.data.openml import load_openml
from regrow.features.data.tables import read_arff, read_csv, read_parquet

__all__ = [
    "FEATURE_SETS",
    "FeatureSet",
    "load_features",
    "load_openml",
    "make_madelon",
    "read_arff",
    "read_csv",
    "read_mat",
    "read_parquet",
]
