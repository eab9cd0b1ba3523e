"""Kernels counted by loops, entropies by numpy and scipy in float64, and a real sparse network."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import regrow
from regrow.vision.analysis import (
    effective_filter_sizes,
    remaining_kernels,
    singular_value_entropy,
)

KERNELS = [(1,), (5,), (1, 1), (3, 3), (2, 5), (3, 3, 3)]
shapes = st.builds(
    lambda out, into, kernel: (out, into, *kernel),
    st.integers(1, 5),
    st.integers(1, 4),
    st.sampled_from(KERNELS),
)


def drawn(shape, seed, density=1.0):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(shape, generator=generator)
    return weight * (torch.rand(shape, generator=generator) < density)


@given(st.lists(shapes, min_size=1, max_size=3), st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_counts_are_those_of_loops_over_kernels(given_shapes, density):
    weights = {str(i): drawn(shape, i, density) for i, shape in enumerate(given_shapes)}
    found = {
        name: [np.count_nonzero(w[o, i]) for o in range(w.shape[0]) for i in range(w.shape[1])]
        for name, w in ((name, weight.numpy()) for name, weight in weights.items())
    }
    found["total"] = [count for counts in found.values() for count in counts]
    lengths = {name: weight[0, 0].numel() + 1 for name, weight in weights.items()}
    lengths["total"] = max(lengths.values())
    for others in (weights, {name: weight != 0 for name, weight in weights.items()}):
        sizes, shares = effective_filter_sizes(others), remaining_kernels(others)
        assert list(sizes) == list(shares) == list(found)
        for name, counts in found.items():
            assert sizes[name] == [counts.count(j) for j in range(lengths[name])]
            assert shares[name] == pytest.approx(np.mean([count > 0 for count in counts]))
            assert shares[name] == pytest.approx(1 - sizes[name][0] / sum(sizes[name]))


def test_a_sparse_run_is_looked_at_as_it_is():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparse = regrow.sparsify(model, optimizer, regrow.Static(density=0.2), total_steps=9)
    by_mask = effective_filter_sizes(sparse.masks)
    assert list(by_mask) == ["0.weight", "total"]
    assert by_mask == effective_filter_sizes(dict(model.named_parameters()))
    active = sum(count * size for size, count in enumerate(by_mask["total"]))
    assert active == int(sparse.masks["0.weight"].sum())
    whole = remaining_kernels({"w": torch.ones(2, 2, 3, 3)})
    assert whole == {"w": 1, "total": 1}


def by_scipy(weight):
    """Entropy of the explained variance, from the covariance's eigenvalues."""
    stats = pytest.importorskip("scipy.stats")
    rows = weight.double().reshape(weight.shape[0] * weight.shape[1], -1).numpy()
    variance = np.linalg.eigvalsh(np.cov(rows, rowvar=False)).clip(0)
    return stats.entropy(variance, base=10)


@given(
    st.sampled_from([(3, 1, 2, 2), (4, 5, 3, 3), (2, 2, 3, 3), (6, 2, 5), (3, 4, 2, 3, 2)]),
    st.integers(0, 50),
    st.sampled_from([0.3, 1.0]),
)
def test_entropy_is_that_of_the_covariance(shape, seed, density):
    weight = drawn(shape, seed, density)
    if len({tuple(row) for row in weight.flatten(2).flatten(0, 1).tolist()}) > 1:
        assert singular_value_entropy(weight) == pytest.approx(by_scipy(weight), abs=1e-9)


@given(st.integers(3, 40), st.integers(0, 20), st.floats(0.001, 1000))
def test_entropy_does_not_see_scale_shift_order_or_rotation(n, seed, unit):
    weight = drawn((n, 1, 3, 3), seed).double()
    entropy = singular_value_entropy(weight)
    assert 0 <= entropy <= math.log10(min(9, n - 1)) + 1e-12
    rotation, _ = torch.linalg.qr(drawn((9, 9), seed + 1).double())
    moved = drawn((3, 3), seed + 2).double()
    for other in (
        unit * weight,
        weight + moved,
        weight.flip(0),
        (weight.view(n, 9) @ rotation).view_as(weight),
        weight.view(1, n, 3, 3),
    ):
        assert singular_value_entropy(other) == pytest.approx(entropy, abs=1e-9)


@pytest.mark.parametrize("n", [1, 2, 3, 64, 4096])
@pytest.mark.parametrize("value", [0.0, 0.1, -3e7])
def test_equal_kernels_have_no_entropy(n, value):
    weight = (value * (1 + torch.arange(9.0) / 7)).view(1, 1, 3, 3).expand(n, 1, 3, 3)
    for normalized in (False, True):
        assert singular_value_entropy(weight, normalized=normalized) == 0


def test_two_kernels_lie_on_a_line():
    for normalized in (False, True):
        assert singular_value_entropy(torch.randn(2, 1, 3, 3), normalized=normalized) == 0


@pytest.mark.parametrize("n", [3, 16, 256, 20_000])
def test_normalized_is_the_quotient_by_the_published_curve(n):
    """Many random kernels come near 1: what the curve is said to be for."""
    weight = torch.randn(n, 1, 3, 3)
    curve = 1.2618047 / (1 + np.exp(-0.88767525 * (np.log2(n) - 2.30436435))) - 0.31050834
    normalized = singular_value_entropy(weight, normalized=True)
    assert normalized * curve == pytest.approx(singular_value_entropy(weight))
    if n > 100:
        assert 0.98 < normalized < 1.1


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda: remaining_kernels({"a": torch.ones(2, 2)}), "weights of a: none is of a conv"),
        (lambda: effective_filter_sizes({}), "weights of nothing"),
        (lambda: remaining_kernels({"a": torch.ones(2, 0, 3, 3)}), r"weights\['a'\] of shape"),
        (
            lambda: singular_value_entropy(torch.ones(2, 2)),
            r"shape \(2, 2\): must be a convolution's",
        ),
        (lambda: singular_value_entropy(torch.ones(0, 2, 3, 3)), "must hold some weights"),
        (lambda: singular_value_entropy(torch.full((1, 1, 3, 3), torch.nan)), "NaN"),
        (lambda: singular_value_entropy(torch.ones(4)), "must be a convolution's"),
        (lambda: singular_value_entropy(torch.full((1, 1, 3), torch.inf)), "infinity"),
        (
            lambda: singular_value_entropy(torch.ones(4, 1, 5, 5), normalized=True),
            "only kernels of 3×3",
        ),
    ],
)
def test_what_cannot_be_is_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call()
