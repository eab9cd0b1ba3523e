"""The largest entries of gradients that are never formed, beside gradients that are."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from regrow.engine.selection import top_k
from regrow.execution.csr import dispatch, largest, layout
from regrow.execution.csr.largest import highest_of_product
from regrow.execution.growth import highest


def feature_major(batch, features, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return layout.feature_major(torch.randn(batch, features, generator=generator))


def entries(y, x):
    return (y.double().t() @ x.double()).abs().flatten()


@settings(max_examples=60)
@given(st.integers(1, 70), st.integers(1, 90), st.integers(1, 70), st.integers(0, 9))
@example(48, 32, 128, 0)
@example(49, 33, 17, 0)
@example(12, 64, 2, 1)
def test_what_exceeds_a_bound_is_found_with_every_instruction_set(rows, columns, batch, seed):
    y, x = feature_major(batch, rows, seed), feature_major(batch, columns, seed + 1)
    expected = entries(y, x)
    bound = float(expected.quantile(0.8))
    for name in dispatch.available():
        dispatch.use(name)
        count, positions, values = dispatch.kernels().above(y, x, bound, rows * columns)
        # Of what lies within rounding of the bound nothing is promised.
        sure, possible = (expected > bound * (1 + s * 1e-4) for s in (1, -1))
        found = torch.zeros_like(sure)
        found[positions.long()] = True
        assert count == len(positions) and positions.tolist() == sorted(positions.tolist())
        assert bool((found | ~sure).all()) and bool((possible | ~found).all())
        assert torch.allclose(values.double(), expected[positions.long()], rtol=1e-4)
    dispatch.use(dispatch.available()[0])


@pytest.mark.parametrize("rounds", range(3))
def test_rounding_to_bfloat16_hides_nothing(kernels, rounds):
    """Columns that differ in size a thousandfold, and a bound on which many entries lie closely."""
    y, x = feature_major(64, 60, rounds), feature_major(64, 200, rounds + 9)
    x.mul_(10.0 ** torch.linspace(-2, 1, 200))
    expected = (y.t() @ x).abs().flatten()
    bound = float(expected.sort().values[6000])
    _, positions, _ = dispatch.kernels().above(y, x, bound, 12_000)
    near = (expected / bound - 1).abs() < 1e-5
    found = torch.zeros_like(near)
    found[positions.long()] = True
    assert bool(((found == (expected > bound)) | near).all())


def test_more_than_the_capacity_is_counted_and_not_written(kernels):
    y, x = feature_major(16, 100), feature_major(16, 100, 1)
    count, positions, values = dispatch.kernels().above(y, x, 0.0, 50)
    assert count == 10_000
    assert len(positions) == len(values) == 0


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("where", [(0, 0), (15, 99)])
def test_no_bad_number_goes_unnoticed(kernels, bad, where):
    y, x = feature_major(16, 100), feature_major(16, 100, 1)
    x[where] = bad
    for k in (1, 300, 9000):
        with pytest.raises(FloatingPointError, match="NaN or infinite"):
            if highest_of_product(y, x, k, torch.empty(0, dtype=torch.int32)) is None:
                by_rows(y, x, k, np.empty(0, dtype=np.int32))


def by_rows(y, x, k, taken):
    def worth(first, end):
        return (y.t()[first:end] @ x).abs_().numpy()

    return highest(worth, (y.shape[1], x.shape[1]), k, taken)


@pytest.mark.parametrize("batch", [1, 16, 130])
@pytest.mark.parametrize(("k", "n_taken"), [(1, 0), (40, 3000), (2000, 900), (29_999, 1)])
def test_it_finds_what_row_by_row_finds(kernels, batch, k, n_taken):
    y, x = feature_major(batch, 150), feature_major(batch, 200, 1)
    taken = torch.randperm(30_000)[:n_taken].sort().values.int()
    expected = by_rows(y, x, k, taken.numpy())
    found = highest_of_product(y, x, k, taken)
    if found is None:  # the bound left too many
        assert k > 20_000
        return
    assert found.dtype == torch.int32
    differing = set(found.tolist()) ^ set(expected.tolist())
    worth = entries(y, x)
    assert not set(found.tolist()) & set(taken.tolist())
    limit = float(worth[expected].min())
    assert all(abs(float(worth[p]) / limit - 1) < 1e-4 for p in differing)


def test_ties_go_to_the_lower_position(kernels):
    y, x = feature_major(4, 30).fill_(1.0), feature_major(4, 40).fill_(1.0)
    x[:, ::2] = 2.0  # products are 4 and 8
    taken = torch.tensor([0, 2], dtype=torch.int32)
    found = highest_of_product(y, x, 5, taken)
    expected = top_k((y.t() @ x).flatten(), 7).nonzero().squeeze(1)[2:]
    found = by_rows(y, x, 5, taken.numpy()) if found is None else found
    assert found.tolist() == expected.tolist() == [4, 6, 8, 10, 12]


def test_a_part_that_misleads_costs_a_second_look_and_no_mistake():
    """All large gradients sit in a few rows, of which the sampled part has none, or all."""
    y, x = feature_major(8, 600), feature_major(8, 600, 1)
    for rows in (slice(1, 3), slice(0, None, 3)):
        scaled = y.clone()
        scaled[:, rows] *= 1000
        expected = by_rows(scaled, x, 5000, np.empty(0, dtype=np.int32))
        found = highest_of_product(scaled, x, 5000, torch.empty(0, dtype=torch.int32))
        assert found is None or set(found.tolist()) == set(expected.tolist())


def test_a_gradient_of_zeros_is_left_to_the_rows(kernels):
    y, x = torch.zeros(30, 4).t(), torch.zeros(40, 4).t()
    assert highest_of_product(y, x, 5, torch.empty(0, dtype=torch.int32)) is None
    assert by_rows(y, x, 3, np.array([1])).tolist() == [0, 2, 3]
    assert largest._SAMPLED > 40


@pytest.mark.parametrize("side", [1, 32, 64])
@pytest.mark.parametrize(("out", "into"), [(1024, 2048), (4096, 512)])
def test_a_tile_of_a_dense_gradient_has_2_to_the_20_numbers_whatever_a_unit_is(side, out, into):
    seen = []
    rows, columns = out // side, into // side
    values = torch.rand(rows, columns, generator=torch.Generator().manual_seed(side)).numpy()

    def worth(first, end):
        seen.append((end - first) * side * into)
        return values[first:end].copy()

    taken = np.arange(0, rows * columns, 3)
    found = highest(worth, (rows, columns), 40, taken, side * side)
    left = values.flatten()
    left[taken] = -1
    assert found.tolist() == np.sort(np.argsort(-left, kind="stable")[:40]).tolist()
    assert max(seen) <= max(1 << 20, side * into)
    assert sum(seen) >= out * into
