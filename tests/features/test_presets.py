"""The family: what the papers set is set, what is stored computes what masks do."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from regrow import RigL
from regrow.engine.scores import Signals
from regrow.features import (
    SparseFeatureSelector,
    neuro_fs,
    neuron_attribution,
    quick_selection,
    wast,
)
from regrow.features.perceptron import Perceptron
from regrow.features.recipe import Recipe
from regrow.features.targets import Reconstruction, Values
from regrow.features.training import n_live
from regrow.features.wast import LinkImportance, NeuronProduct

PRESETS = [neuro_fs, neuron_attribution, quick_selection, wast]


def table(n=200, d=20):
    X = np.random.default_rng(0).normal(size=(n, d))
    X[:, 10:] = X[:, :10] + 0.3 * X[:, 10:]
    return X, (X[:, 4] > 0).astype(int)


def quick(preset, **parameters):
    selector = preset(3, max_epochs=4, random_state=0, **parameters)
    return selector.set_params(recipe=replace(selector.recipe, hidden=(24,), batch_size=20))


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_rank_and_repeat(preset):
    X, y = table()
    selector = quick(preset).fit(X, y)
    assert selector.transform(X).shape == (200, 3)
    assert np.isfinite(selector.scores_).all()
    assert selector.scores_.std() > 0
    assert (quick(preset).fit(X, y).scores_ == selector.scores_).all()


@pytest.mark.parametrize("method", ["SET", "RigL"])
@pytest.mark.parametrize("importance", ["attribution", "strength", "sampled", "mixed", "wast"])
def test_the_input_that_decides_scores_highest(method, importance):
    X, y = table()
    X[:, 14] = np.random.default_rng(1).normal(size=200)
    selector = quick(neuron_attribution, method=method, importance=importance, density=0.5)
    selector.set_params(recipe=replace(selector.recipe, learning_rate=1e-2, max_epochs=40))
    assert selector.fit(X, y).ranking_[4] == 1


@pytest.mark.parametrize("preset", [neuro_fs, neuron_attribution, quick_selection])
def test_stored_layers_rank_as_masked_ones_do(preset):
    X, y = table()
    masked = quick(preset)
    stored = quick(preset).set_params(recipe=replace(masked.recipe, execution="csr"))
    scores = [selector.fit(X, y).scores_ for selector in (masked, stored)]
    np.testing.assert_allclose(*scores, rtol=2e-3)


@pytest.mark.parametrize("execution", ["masked", "csr"])
def test_attribution_of_a_perceptron_is_autograds(execution):
    recipe = Recipe(hidden=(9, 7), execution=execution)
    method = RigL(density=0.4, update_every=2)
    net = Perceptron(6, 3, recipe, method, 10, 5, torch.Generator().manual_seed(0))
    x, targets, rows = torch.randn(8, 6), Values(torch.arange(8) % 3, 3), torch.arange(8)
    for _ in range(4):
        net.step_(x, targets, rows, torch.ones(8), ())
    slopes = torch.stack(
        [torch.autograd.functional.jacobian(lambda r: net.model(r[None])[0], row) for row in x]
    )
    strength = net.strength()
    found = net.step_(x, targets, rows, torch.ones(8), ("attribution", "strength"))
    torch.testing.assert_close(found["attribution"], slopes.abs().mean(0).sum(0))
    torch.testing.assert_close(found["strength"], strength)


@pytest.mark.parametrize("execution", ["masked", "csr"])
def test_pruned_inputs_have_no_strength(execution):
    recipe = Recipe(hidden=(9,), execution=execution)
    net = Perceptron(12, 3, recipe, RigL(density=0.5), 10, 5, torch.Generator().manual_seed(0))
    before = net.strength()
    net.prune_inputs_(5)
    assert (net.strength() > 0).sum() == 5
    assert net.strength()[before.topk(5).indices].min() > 0


def test_inputs_are_pruned_until_sixty_five_percent():
    counts = [n_live(1000, 50, 0.2, progress) for progress in np.linspace(0, 1, 21)]
    assert counts == sorted(counts, reverse=True)
    assert (counts[0], counts[13], counts[-1]) == (1000, 250, 250)


def test_the_links_of_wast_are_worth_what_their_neurons_are():
    weight = torch.randn(4, 6)
    size = weight.abs().numpy()
    product = size.sum(1)[:, None] * size.sum(0)[None]
    np.testing.assert_allclose(NeuronProduct()(Signals(weight)).numpy(), product, rtol=1e-5)
    np.testing.assert_allclose(LinkImportance()(Signals(weight)).numpy(), product * size, rtol=1e-5)


def test_epsilon_counts_links_as_erdos_and_renyi_do():
    recipe = Recipe(hidden=(50,), epsilon=5)
    net = Perceptron(200, 3, recipe, RigL(density=0.1), 10, 5, torch.Generator().manual_seed(0))
    counts = [int(mask.sum()) for mask in net.sparse.masks.values()]
    assert counts == [5 * 250, 150]


def test_a_sketch_keeps_distances_on_average():
    class Table:
        live = np.arange(400)
        rows = torch.randn(50, 400)

        def batch(self, rows):
            return self.rows[rows]

    everyone = torch.arange(50)
    losses = [
        Reconstruction(Table(), size, torch.Generator().manual_seed(0)).loss(
            torch.zeros(()), everyone
        )
        for size in (None, 300)
    ]
    torch.testing.assert_close(losses[0], losses[1], rtol=0.3, atol=0)
    torch.testing.assert_close(losses[0].mean(), losses[1].mean(), rtol=0.05, atol=0)


@pytest.mark.parametrize(
    "wrong", [{"activation": "gelu"}, {"hidden": ()}, {"max_epochs": 0}, {"balance": 1.5}]
)
def test_a_wrong_recipe_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Recipe(**wrong)


def test_a_run_that_diverges_says_so():
    X, y = table()
    recipe = Recipe(hidden=(24,), optimizer="sgd", learning_rate=1e9, max_epochs=20)
    selector = SparseFeatureSelector(3, method="Static", recipe=recipe, random_state=0)
    with pytest.raises(ValueError, match="training diverged"):
        selector.fit(X, y)
