"""scikit-learn's own checks, over both selectors and a perceptron."""

from sklearn.utils.estimator_checks import parametrize_with_checks

from regrow.features import Recipe, SparseFeatureSelector, UnsupervisedSparseFeatureSelector

SMALL = {"max_iter": 20, "n_members": 2, "width": 8, "n_rounds": 5, "random_state": 0}
PERCEPTRON = {
    "method": "SET",
    "importance": "attribution",
    "recipe": Recipe(hidden=(8,), max_epochs=3),
    "random_state": 0,
}
BATCHES = (
    "rows are drawn into batches at random, so that a repeated row and a row of twice the weight "
    "are not the same to the optimizer"
)
EXPECTED = {
    "check_sample_weight_equivalence_on_dense_data": BATCHES,
    "check_sample_weight_equivalence_on_sparse_data": BATCHES,
}


@parametrize_with_checks(
    [
        SparseFeatureSelector(**SMALL),
        SparseFeatureSelector(n_features_to_select=1, **PERCEPTRON),
        UnsupervisedSparseFeatureSelector(**SMALL),
        UnsupervisedSparseFeatureSelector(n_features_to_select=1, **PERCEPTRON),
    ],
    expected_failed_checks=lambda _: EXPECTED,
)
def test_scikit_learn(estimator, check):
    check(estimator)
