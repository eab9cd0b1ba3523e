"""Feature selectors of the literature, each with its paper's settings.

All return an estimator whose parameters may still be changed (``set_params``). They train one
network for as many epochs as the papers do, and rank all inputs at once, which costs more than the
selectors' own default. The papers standardise tables and do not clip them, and so do these.
"""

from __future__ import annotations

from typing import Any, Literal

from regrow.engine.dynamic import Dynamic
from regrow.engine.methods import SET, RigL
from regrow.engine.schedules import Cosine
from regrow.engine.scores import Gradient, Magnitude, Random
from regrow.features.recipe import Recipe
from regrow.features.selector import SparseFeatureSelector
from regrow.features.unsupervised import UnsupervisedSparseFeatureSelector
from regrow.features.wast import LinkImportance, NeuronProduct

__all__ = ["neuro_fs", "neuron_attribution", "quick_selection", "wast"]


def quick_selection(
    n_features_to_select: int | float = 50, *, max_epochs: int = 100, **parameters: Any
) -> UnsupervisedSparseFeatureSelector:
    """Make QuickSelection: the strongest inputs of a sparse denoising autoencoder trained by SET.

    A network d-1000-d with sigmoid units, ε = 13, ζ = 0.2 each epoch, noise 0.2, dropout 0.2; SGD
    with learning rate 0.01, momentum 0.9, batches of 100. Scores are Σ|w| at the end.

    Args:
        n_features_to_select: K; the paper's is 50.
        max_epochs: passes over the rows; the paper's are 100.
        parameters: of
            :class:`~regrow.features.unsupervised.UnsupervisedSparseFeatureSelector`, such as
            ``random_state``.

    Source: Atashgahi et al. 2022 (Machine Learning 111), and its released code.

    Differs from the released code: noise is drawn afresh for each batch; strength is measured on
    the last network, not on what an earlier update kept.

    Example:
        >>> quick_selection(5).method.drop_fraction
        0.2
    """
    recipe = Recipe(
        hidden=(1000,),
        activation="sigmoid",
        optimizer="sgd",
        learning_rate=0.01,
        weight_decay=1e-5,
        batch_size=100,
        max_epochs=max_epochs,
        noise=0.2,
        dropout=0.2,
        epsilon=13,
        update_each_epoch=True,
        accumulate="last",
    )
    settings: dict[str, Any] = {
        "method": SET(density=0.1, drop_fraction=0.2),
        "importance": "strength",
        "recipe": recipe,
        "clip": None,
    }
    return UnsupervisedSparseFeatureSelector(n_features_to_select, **settings | parameters)


def wast(
    n_features_to_select: int | float = 50,
    *,
    balance: float = 0.9,
    max_epochs: int = 10,
    **parameters: Any,
) -> UnsupervisedSparseFeatureSelector:
    """Make WAST: a sparse autoencoder whose links gather at neurons that matter, at every batch.

    A network d-200-d with sigmoid units, density 0.2, noise 0.2; at each step 30 % of the links
    move from weak neurons to strong ones; SGD with learning rate 0.1, Nesterov's momentum 0.9,
    batches of 128. Scores are λ · mean |x - x̂| + (1 - λ) · Σ|w|, summed over the run.

    Args:
        n_features_to_select: K.
        balance: λ; the paper takes 0.4 for images, 0.9 by default, 0.01 for SMK.
        max_epochs: passes over the rows; the paper's are 10.
        parameters: of
            :class:`~regrow.features.unsupervised.UnsupervisedSparseFeatureSelector`, such as
            ``random_state``.

    Source: Sokar et al. 2022 (NeurIPS), and its released code.

    Differs from the paper: links move by strengths within a layer
    (:class:`regrow.features.wast.LinkImportance`); the sensitivity in the score is that of the loss
    to an input of the network.

    Example:
        >>> wast(5, balance=0.4).recipe.balance
        0.4
    """
    recipe = Recipe(
        hidden=(200,),
        activation="sigmoid",
        optimizer="sgd",
        nesterov=True,
        learning_rate=0.1,
        weight_decay=0.0,
        batch_size=128,
        max_epochs=max_epochs,
        noise=0.2,
        balance=balance,
        mean_error=True,
    )
    method = Dynamic(
        density=0.2,
        drop=LinkImportance(),
        grow=NeuronProduct(),
        drop_fraction=0.3,
        update_every=1,
        stop_at=1.0,
    )
    settings: dict[str, Any] = {
        "method": method,
        "importance": "wast",
        "recipe": recipe,
        "clip": None,
    }
    return UnsupervisedSparseFeatureSelector(n_features_to_select, **settings | parameters)


def neuro_fs(
    n_features_to_select: int | float = 50, *, max_epochs: int = 100, **parameters: Any
) -> SparseFeatureSelector:
    """Make NeuroFS: a sparse perceptron whose weakest inputs are pruned epoch by epoch.

    A network d-1000-1000-1000-C with tanh units, ε = 30; 30 % of the links move to where gradients
    are largest after each epoch; inputs fall to 0.2 d + K at 65 % of the run; SGD with learning
    rate 0.01, momentum 0.9, batches of 100. Scores are Σ|w| at the end.

    Args:
        n_features_to_select: K; the paper's is 50.
        max_epochs: passes over the rows; the paper's are 100.
        parameters: of :class:`~regrow.features.selector.SparseFeatureSelector`, such as
            ``random_state``.

    Source: Atashgahi et al. 2023 (TMLR), and its released code's settings.

    Differs from it: the gradient is the loss's; a pruned input's links stay until the next update
    drops them, and it comes back by links that grow.

    Example:
        >>> neuro_fs(5).recipe.prune_inputs
        0.2
    """
    recipe = Recipe(
        hidden=(1000, 1000, 1000),
        activation="tanh",
        optimizer="sgd",
        learning_rate=0.01,
        weight_decay=1e-5,
        batch_size=100,
        max_epochs=max_epochs,
        epsilon=30,
        update_each_epoch=True,
        accumulate="last",
        prune_inputs=0.2,
    )
    settings: dict[str, Any] = {
        "method": SET(density=0.1, grow=Gradient()),
        "importance": "strength",
        "recipe": recipe,
        "clip": None,
        "label_smoothing": 0.0,
    }
    return SparseFeatureSelector(n_features_to_select, **settings | parameters)


def neuron_attribution(
    n_features_to_select: int | float = 100,
    *,
    method: Literal["SET", "RigL"] = "SET",
    importance: Literal["attribution", "strength", "sampled"] = "attribution",
    density: float = 0.2,
    max_epochs: int = 200,
    **parameters: Any,
) -> SparseFeatureSelector:
    """Make Neuron Attribution: inputs by Σ_c mean |∂f_c/∂x_j|, summed over all steps.

    A network d-1000-100-C with ReLU, densities by ERK; 30 % of the links, along a cosine down to
    0.5 %, move every 10 steps: the smallest go, others grow at random (SET) or where gradients are
    largest (RigL). Adam with learning rate 1e-3, batches of 100 (32 below 200 rows in the paper), a
    stop after 50 epochs without a lower held-out loss.

    Args:
        n_features_to_select: K; the paper's is 100, for Madelon 20.
        method: "SET" or "RigL".
        importance: "attribution"; "strength" for what the paper calls QS; "sampled" for one
            backward pass for all classes.
        density: the paper chooses among 0.75, 0.5, 0.2, 0.1, 0.05 and 0.02 by validation.
        max_epochs: passes over the rows; the paper's are 200.
        parameters: of :class:`~regrow.features.selector.SparseFeatureSelector`, such as
            ``random_state``.

    Raises:
        ValueError: another method.

    Source: Atashgahi et al. 2024 (arXiv 2408.04583), section 4 and appendix A.

    Differs from the released code: outputs are logits, and softmax is over classes; the best epoch
    counts too; Adam's moments of dropped links are reset; counts are exact.

    Example:
        >>> neuron_attribution(5, method="RigL").method.name
        'RigL'
    """
    settings: dict[str, Any] = {
        "drop": Magnitude(),
        "drop_fraction": Cosine(0.3, 0.005),
        "update_every": 10,
    }
    if method not in ("SET", "RigL"):
        raise ValueError(f"method={method!r}: must be 'SET' or 'RigL'")
    moves: Dynamic = (
        SET(density=density, grow=Random(), **settings)
        if method == "SET"
        else RigL(density=density, stop_at=1.0, replaces_step=False, **settings)
    )
    chosen: dict[str, Any] = {
        "method": moves,
        "importance": importance,
        "recipe": Recipe(max_epochs=max_epochs),
        "clip": None,
        "label_smoothing": 0.0,
        "early_stopping": True,
        "n_iter_no_change": 50,
    }
    return SparseFeatureSelector(n_features_to_select, **chosen | parameters)
