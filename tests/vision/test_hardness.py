"""Scores of hardness against plain loops in float64, and the choice of a share."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy

from regrow.vision.hardness import (
    choose,
    el2n,
    forgetting,
    grand,
    grand_last,
    loss,
    mean_over_runs,
    uncertainty,
)

SEEDS = st.integers(0, 2**16)


def some(seed, n=12, classes=4, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(n, classes, generator=generator)
    return logits, torch.randint(classes, (n,), generator=generator)


# ---------------------------------------------------------------------- scores of outputs


@settings(max_examples=30)
@given(seed=SEEDS, scale=st.floats(0.0, 50.0))
def test_scores_of_outputs_are_those_of_numpy(seed, scale):
    logits, labels = some(seed, scale=scale)
    z, y = logits.double().numpy(), labels.numpy()
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    wrong = p - np.eye(4)[y]
    assert np.allclose(el2n(logits, labels), np.sqrt((wrong**2).sum(1)), atol=1e-6)
    assert np.allclose(uncertainty(logits, labels), 1 - p[np.arange(12), y], atol=1e-6)
    log_p = z - z.max(1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(1, keepdims=True))
    assert np.allclose(loss(logits, labels), -log_p[np.arange(12), y], atol=1e-4)


@settings(max_examples=30)
@given(seed=SEEDS)
def test_scores_have_their_ranges_and_ignore_a_shift_of_the_logits(seed):
    logits, labels = some(seed)
    for score, most in ((el2n, math.sqrt(2)), (uncertainty, 1.0), (loss, math.inf)):
        found = score(logits, labels)
        assert found.min() >= 0 and found.max() <= most + 1e-6
        assert torch.allclose(found, score(logits + 5.0, labels), atol=1e-5)


def test_with_two_classes_all_scores_of_outputs_rank_alike():
    logits, labels = some(1, n=40, classes=2)
    orders = [score(logits, labels).argsort().tolist() for score in (el2n, loss, uncertainty)]
    assert orders[0] == orders[1] == orders[2]


def test_half_precision_is_scored_in_full():
    logits, labels = some(3)
    half = logits.bfloat16()
    assert el2n(half, labels).equal(el2n(half.float(), labels))
    assert el2n(logits.double(), labels).dtype == torch.float64


@pytest.mark.parametrize(
    ("right", "count"),
    [
        ("0000", 4),
        ("0001", 0),
        ("1111", 0),
        ("1110", 1),
        ("1010", 2),
        ("0101", 1),
        ("0100", 1),
    ],
)
def test_forgetting_truth_table(right, count):
    predictions = torch.tensor([[int(r)] for r in right])
    assert forgetting(predictions, torch.tensor([1])).tolist() == [count]


@settings(max_examples=30)
@given(seed=SEEDS, epochs=st.integers(1, 9))
def test_what_was_never_learnt_is_harder_than_what_was_forgotten(seed, epochs):
    generator = torch.Generator().manual_seed(seed)
    predictions = torch.randint(2, (epochs, 30), generator=generator)
    labels = torch.ones(30, dtype=torch.int64)
    found = forgetting(predictions, labels)
    never = ~(predictions == 1).any(0)
    assert (found[never] == epochs).all()
    assert (found[~never] <= epochs // 2).all()


# ---------------------------------------------------------------------- scores of gradients


def networks():
    torch.manual_seed(0)
    mlp = nn.Sequential(nn.Flatten(), nn.Linear(48, 6), nn.ReLU(), nn.Linear(6, 4))
    cnn = nn.Sequential(
        nn.Conv2d(3, 5, 3),
        nn.BatchNorm2d(5),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(5, 4),
    )
    cnn(torch.randn(20, 3, 4, 4))  # statistics that are not 0 and 1
    return {"mlp": mlp.eval(), "cnn": cnn.eval()}


@pytest.mark.parametrize("name", ["mlp", "cnn"])
@pytest.mark.parametrize("chunk", [None, 1, 5])
def test_grand_is_the_gradient_of_one_sample_at_a_time(name, chunk):
    model = networks()[name]
    inputs, labels = torch.randn(12, 3, 4, 4), torch.randint(4, (12,))
    expected = []
    for x, y in zip(inputs, labels, strict=True):
        parts = torch.autograd.grad(cross_entropy(model(x[None]), y[None]), [*model.parameters()])
        expected.append(math.sqrt(sum(float(g.double().square().sum()) for g in parts)))
    found = grand(model, inputs, labels, chunk=chunk)
    assert torch.allclose(found, torch.tensor(expected), rtol=1e-4)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("bias", [True, False])
def test_the_last_layers_gradient_has_a_closed_form(bias):
    layer = nn.Linear(7, 5, bias=bias).eval()
    features, labels = torch.randn(9, 7), torch.randint(5, (9,))
    closed = grand_last(layer(features).detach(), labels, features, bias=bias)
    assert torch.allclose(closed, grand(layer, features, labels), rtol=1e-4)


def test_the_last_layer_is_a_part_of_all():
    model = networks()["mlp"]
    inputs, labels = torch.randn(12, 3, 4, 4), torch.randint(4, (12,))
    features = model[:-1](inputs).detach()
    last = grand_last(model[-1](features).detach(), labels, features)
    assert (last <= grand(model, inputs, labels) * (1 + 1e-5)).all()


def test_grand_asks_for_eval_mode():
    with pytest.raises(ValueError, match=r"call model.eval\(\) first"):
        grand(nn.Linear(2, 2), torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64))


# ---------------------------------------------------------------------- the choice


@settings(max_examples=60)
@given(
    seed=SEEDS,
    n=st.integers(1, 60),
    share=st.floats(0.01, 1.0),
    pick=st.sampled_from(["hardest", "easiest", "random"]),
    balanced=st.booleans(),
)
def test_counts_are_exact_and_classes_balanced(seed, n, share, pick, balanced):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(5, (n,), generator=generator).float()  # many ties
    labels = torch.randint(3, (n,), generator=generator)
    found = choose(scores, labels, share, pick, seed, balanced=balanced)
    assert len(found) == max(round(share * n), 1)
    assert found.equal(found.unique())  # ascending, none twice
    assert found.equal(choose(scores, labels, share, pick, seed, balanced=balanced))
    if balanced and round(share * n):
        kept, all_of = (x.bincount(minlength=3).double() for x in (labels[found], labels))
        assert ((kept - share * all_of).abs() < 1 + 1e-9).all()


@settings(max_examples=40)
@given(seed=SEEDS, n=st.integers(2, 60), share=st.floats(0.05, 0.95))
def test_hardest_and_easiest_are_ends_of_one_order(seed, n, share):
    scores = torch.rand(n, generator=torch.Generator().manual_seed(seed))
    labels = torch.zeros(n, dtype=torch.int64)
    hard, easy = (choose(scores, labels, share, pick, 0) for pick in ("hardest", "easiest"))
    rest = torch.ones(n, dtype=torch.bool)
    rest[hard] = False
    if rest.any():
        assert scores[hard].min() >= scores[rest].max()
    assert easy.equal(choose(-scores, labels, share, "hardest", 0))


def test_ties_go_to_the_lower_index():
    scores, labels = torch.ones(6), torch.tensor([0, 1, 0, 1, 0, 1])
    for pick in ("hardest", "easiest"):
        assert choose(scores, labels, 0.5, pick, 0).tolist() == [0, 1, 2]
    assert choose(scores, labels, 1 / 3, "hardest", 0, balanced=True).tolist() == [0, 1]


def test_a_random_share_depends_on_the_seed_alone():
    labels = torch.zeros(1000, dtype=torch.int64)
    one = choose(torch.rand(1000), labels, 0.3, "random", 1)
    assert one.equal(choose(torch.rand(1000), labels, 0.3, "random", 1))
    other = choose(torch.rand(1000), labels, 0.3, "random", 2)
    both = len(set(one.tolist()) & set(other.tolist()))
    assert both == pytest.approx(90, abs=35)


def test_the_mean_over_runs_is_less_noisy_than_a_run():
    torch.manual_seed(0)
    truth = torch.rand(500)
    runs = [truth + torch.randn(500) for _ in range(9)]
    error = (mean_over_runs(runs) - truth).std()
    assert error == pytest.approx(1 / 3, rel=0.15)


# ---------------------------------------------------------------------- errors

LABELS = torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: el2n(torch.zeros(3, 2), LABELS), r"logits of shape \(3, 2\) for labels"),
        (lambda: loss(torch.zeros(2, 1), LABELS), r"labels 0..1: must lie in 0..0"),
        (lambda: forgetting(torch.zeros(2, 3), LABELS), r"must be \(epochs, n\)"),
        (lambda: forgetting(torch.zeros(0, 2), LABELS), r"at least one epoch"),
        (lambda: grand_last(torch.zeros(2, 2), LABELS, torch.zeros(2)), r"must be \(n, width\)"),
        (lambda: grand(nn.ReLU().eval(), torch.zeros(2, 2), LABELS), r"no parameters"),
        (lambda: mean_over_runs([]), r"scores of shapes none"),
        (lambda: mean_over_runs([torch.zeros(1), torch.zeros(2)]), r"of the same samples"),
        (lambda: choose(torch.zeros(2), LABELS, 0.0, "hardest", 0), r"share=0.0: must be above 0"),
        (lambda: choose(torch.zeros(2), LABELS, 1.1, "hardest", 0), r"share=1.1"),
        (lambda: choose(torch.zeros(2), LABELS, 0.5, "hard", 0), r"pick='hard': must be"),
        (lambda: choose(torch.zeros(3), LABELS, 0.5, "random", 0), r"must be one each"),
        (
            lambda: choose(torch.tensor([math.nan, 0.0]), LABELS, 0.5, "hardest", 0),
            r"1 scores are NaN",
        ),
    ],
)
def test_errors_name_what_is_wrong(call, said):
    with pytest.raises(ValueError, match=said):
        call()


@pytest.mark.parametrize("score", [el2n, loss, uncertainty])
def test_labels_count_by_value_and_fractions_are_refused(score):
    logits, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    for dtype in (torch.int8, torch.uint8, torch.int32):
        assert torch.equal(score(logits, labels.to(dtype)), score(logits, labels))
    for dtype in (torch.float32, torch.bool):
        with pytest.raises(TypeError, match="must be integers"):
            score(logits, labels.to(dtype))
