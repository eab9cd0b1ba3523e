"""Scaling and batches against numpy in float64, however the table is kept."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.sparse import csr_array, csr_matrix

from regrow.features import inputs as module
from regrow.features.inputs import Inputs, scaling
from regrow.features.stream import merged

VALUES = st.integers(-4, 4).map(lambda value: float(max(value, 0)))


def expected(table, weights, clip):
    mean = np.average(table, axis=0, weights=weights)
    std = np.sqrt(np.average((table - mean) ** 2, axis=0, weights=weights))
    scaled = ((table - mean) / np.where(std > 1e-9, std, 1)).clip(-clip, clip)
    return scaled - np.average(scaled, axis=0, weights=weights)


@given(arrays(float, (7, 3), elements=VALUES), arrays(float, 7, elements=st.floats(0.1, 2)))
@pytest.mark.parametrize("form", [np.asarray, csr_array, csr_matrix])
@pytest.mark.parametrize("clip", [1.0, None])
def test_rows_are_standardised_clipped_and_centred(form, clip, table, weights):
    found = scaling(form(table), weights, clip)
    assert found.constant.tolist() == [len(set(column)) == 1 for column in table.T]
    if found.constant.all():
        with pytest.raises(ValueError, match="No feature in X"):
            Inputs(form(table), found, clip)
        return
    inputs = Inputs(form(table), found, clip)
    wanted = expected(table, weights, np.inf if clip is None else clip)[:, inputs.live]
    np.testing.assert_allclose(inputs.batch(torch.arange(7)).numpy(), wanted, atol=1e-5)


@pytest.mark.parametrize("form", [np.asarray, csr_array])
def test_a_table_read_where_it_lies_gives_the_same_batches(form, monkeypatch):
    table = np.random.default_rng(0).normal(size=(50, 8)).round(1)
    found, rows, places = scaling(table, np.ones(50), 2.0), torch.tensor([3, 49, 0]), [1, 4, 7]
    batches = []
    for limit in (1 << 20, 0):
        monkeypatch.setattr(module, "_PREPARED", limit)
        inputs = Inputs(form(table), found, 2.0)
        before = inputs.batch(rows)
        inputs.keep_(torch.tensor(places))
        assert inputs.live.tolist() == places
        assert torch.equal(inputs.batch(rows), before[:, places])
        batches.append(before)
    assert torch.equal(*batches)


def test_pieces_do_not_change_what_is_measured(monkeypatch):
    table = np.random.default_rng(0).normal(size=(50, 8))
    whole = scaling(table, np.ones(50), 1.0)
    monkeypatch.setattr(module, "_CHUNK", 3 * 8)
    for found, wanted in zip(scaling(table, np.ones(50), 1.0), whole, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_a_large_constant_is_constant():
    table = np.c_[np.full(1000, 1e8 + 0.1), np.arange(1000)]
    assert scaling(table, np.ones(1000), 3.0).constant.tolist() == [True, False]


@given(arrays(float, (9, 2), elements=st.floats(-5, 5)), st.integers(1, 8))
def test_merged_parts_are_the_whole(table, cut):
    parts = [scaling(part, np.ones(len(part)), None) for part in (table[:cut], table[cut:])]
    whole, both = scaling(table, np.ones(9), None), merged(*parts, (9 - cut) / 9)
    np.testing.assert_allclose(both.mean, whole.mean, atol=1e-9)
    varies = ~(whole.constant | both.constant)
    np.testing.assert_allclose(both.std[varies], whole.std[varies], rtol=1e-4, atol=1e-7)
