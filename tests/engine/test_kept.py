"""From a trained dense model, or one that was pruned elsewhere, to a sparse one."""

import logging
import re

import pytest
import torch
from torch import nn

import regrow
from regrow.engine.kept import KeptWeights
from regrow.engine.patterns import Block, FanIn, Kernel
from regrow.engine.saliency import LargestWeights


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 8))


def optimizer_of(model):
    return torch.optim.SGD(model.parameters(), lr=0.1)


def magnitude_(model, density):
    """Prune over all layers together, as torch's global_unstructured does."""
    weights = [model[0].weight, model[2].weight]
    every = torch.cat([w.detach().abs().reshape(-1) for w in weights])
    bar = every.sort(descending=True).values[round(density * len(every)) - 1]
    with torch.no_grad():
        for weight in weights:
            weight.mul_(weight.abs() >= bar)


def wanda_(model, inputs, density):
    """|w| times the norm of its input, the same number in every row (arXiv 2306.11695)."""
    with torch.no_grad():
        for layer in (model[0], model[2]):
            norm = inputs.norm(dim=0)
            inputs = layer(inputs).relu()
            score = layer.weight.abs() * norm
            keep = round(density * score.shape[1])
            bar = score.sort(dim=1, descending=True).values[:, keep - 1 : keep]
            layer.weight.mul_(score >= bar)


def masks_of(model):
    return {name: w != 0 for name, w in model.named_parameters() if w.ndim == 2}


PRUNED = {
    "magnitude": lambda model: magnitude_(model, 0.4),
    "Wanda": lambda model: wanda_(model, torch.rand(16, 12), 0.5),
}
METHODS = {
    "Static": regrow.Static,
    "SET": regrow.SET,
    "RigL": regrow.RigL,
    "MEST": regrow.MEST,
}


@pytest.mark.parametrize("pruner", PRUNED)
@pytest.mark.parametrize("method", METHODS)
def test_a_pruned_model_keeps_its_own_zeros_and_counts(pruner, method, caplog):
    model = network()
    PRUNED[pruner](model)
    before, weights = masks_of(model), [p.detach().clone() for p in model.parameters()]
    density = sum(int(m.sum()) for m in before.values()) / sum(m.numel() for m in before.values())
    chosen = METHODS[method](density=density, start=KeptWeights())
    sparse = regrow.sparsify(model, optimizer_of(model), chosen, total_steps=100)
    assert sparse.density == density
    for name, mask in before.items():
        assert torch.equal(sparse.masks[name].bool(), mask)
    assert all(map(torch.equal, model.parameters(), weights))  # not one weight has moved
    counts = {name: int(mask.sum()) for name, mask in before.items()}
    for _ in range(3):
        model(torch.rand(4, 12)).square().sum().backward()
        if method != "Static":
            sparse.update_()
    assert {name: int(mask.sum()) for name, mask in sparse.masks.items()} == counts


def test_masks_that_are_given_are_taken():
    model = network()
    masks = {name: torch.rand(w.shape) < 0.5 for name, w in model.named_parameters() if w.ndim > 1}
    density = sum(int(m.sum()) for m in masks.values()) / sum(m.numel() for m in masks.values())
    method = regrow.RigL(density=density, start=KeptWeights(masks=masks))
    sparse = regrow.sparsify(model, optimizer_of(model), method, total_steps=100)
    assert all(torch.equal(sparse.masks[name].bool(), mask) for name, mask in masks.items())
    assert all(not w[~masks[n]].any() for n, w in model.named_parameters() if n in masks)


def test_2_to_4_stays_2_to_4():
    model = nn.Linear(16, 8)
    with torch.no_grad():
        groups = model.weight.reshape(-1, 4)
        groups.mul_(groups.abs() >= groups.abs().sort(dim=1).values[:, 2:3])
    before = model.weight != 0
    method = regrow.DynamicNM(start=KeptWeights())
    sparse = regrow.sparsify(model, optimizer_of(model), method, total_steps=100)
    assert torch.equal(sparse.masks["weight"].bool(), before)
    model(torch.rand(4, 16)).square().sum().backward()
    sparse.update_()
    assert (sparse.masks["weight"].reshape(-1, 4).sum(1) == 2).all()


def test_equal_rows_stay_equal():
    model = network()
    wanda_(model, torch.rand(16, 12), 0.5)
    method = regrow.RigL(density=0.5, pattern=FanIn(), start=KeptWeights())
    sparse = regrow.sparsify(model, optimizer_of(model), method, total_steps=100)
    assert (sparse.masks["0.weight"].sum(1) == 6).all()


def test_a_density_goes_on_falling_from_where_it_was():
    model = network()
    magnitude_(model, 0.5)
    method = regrow.GMP(
        density=0.2, initial_density=0.5, start_at=0, stop_at=8, update_every=2, start=KeptWeights()
    )
    optimizer = optimizer_of(model)
    zeros = {name: ~mask for name, mask in masks_of(model).items()}
    sparse = regrow.sparsify(model, optimizer, method, total_steps=10)
    seen = [sparse.density]
    for _ in range(10):
        model(torch.rand(4, 12)).square().sum().backward()
        optimizer.step()
        seen.append(sparse.density)
    assert seen == sorted(seen, reverse=True)
    assert seen[0] == 0.5 and seen[-1] == 0.2
    assert all(not sparse.masks[name].bool()[zero].any() for name, zero in zeros.items())


@pytest.mark.parametrize(
    ("change", "method", "said"),
    [
        (lambda m: None, {"density": 0.3}, "write density=0.4, or initial_density=0.4"),
        (
            lambda m: nn.init.ones_(m[2].weight),
            {"density": 0.4},
            "without zeros are 2.weight: exclude them",
        ),
        (lambda m: nn.init.zeros_(m[0].weight), {"density": 0.4}, "0.weight keeps no weight"),
        (lambda m: None, {"density": 0.4, "pattern": Block(4)}, "cut through units of pattern"),
        (lambda m: None, {"density": 0.4, "pattern": FanIn()}, "do not keep equally many"),
    ],
)
def test_masks_that_are_others_are_refused_and_nothing_changes(change, method, said):
    model = network()
    magnitude_(model, 0.4)
    change(model)
    before = [p.detach().clone() for p in model.parameters()]
    chosen = regrow.RigL(start=KeptWeights(), **method)
    with pytest.raises(ValueError, match=re.escape(said)):
        regrow.sparsify(model, optimizer_of(model), chosen, total_steps=100)
    assert all(map(torch.equal, model.parameters(), before))


def test_given_masks_are_checked():
    model = network()
    some = {"0.weight": torch.ones(20, 12, dtype=torch.bool)}
    for masks, said in (
        (some, "masks has none for 2.weight: give it, or exclude"),
        (some | {"2.weight": torch.ones(8, 20)}, "is torch.float32 of shape (8, 20): a bool"),
        (some | {"2.weight": torch.ones(8, 2, dtype=torch.bool)}, "of shape (8, 2): a bool"),
    ):
        method = regrow.Static(density=0.9, start=KeptWeights(masks=masks))
        with pytest.raises(ValueError, match=re.escape(said)):
            regrow.sparsify(model, optimizer_of(model), method, total_steps=10)


def test_whole_kernels_that_were_pruned_are_units():
    model = nn.Conv2d(6, 4, 3)
    with torch.no_grad():
        model.weight[:, ::2] = 0
    method = regrow.RigL(density=0.5, pattern=Kernel(), start=KeptWeights())
    sparse = regrow.sparsify(model, optimizer_of(model), method, total_steps=10)
    assert torch.equal(sparse.masks["weight"].bool(), model.weight != 0)


def test_a_run_resumes_with_the_counts_of_its_masks():
    model = network()
    magnitude_(model, 0.4)
    method = regrow.RigL(density=0.4, start=KeptWeights())
    sparse = regrow.sparsify(model, optimizer_of(model), method, total_steps=100)
    again = network()
    again.load_state_dict(model.state_dict())
    state = sparse.state_dict()
    resumed = regrow.sparsify(again, optimizer_of(again), method, total_steps=100, state=state)
    for name, mask in sparse.masks.items():
        assert torch.equal(resumed.masks[name], mask)


def test_choosing_among_zeros_is_said(caplog):
    """One-shot pruning of a model pruned further already filled up with the first zeros."""
    model = network()
    magnitude_(model, 0.2)
    with caplog.at_level(logging.WARNING, "regrow"):
        method = regrow.RigL(density=0.5, start=LargestWeights())
        regrow.sparsify(model, optimizer_of(model), method, total_steps=10)
    assert "keeps 120 weights that are zero" in caplog.text
    assert "KeptWeights()" in caplog.text
