"""Lists of ascending positions, beside numpy's set operations."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regrow.execution import positions
from regrow.execution.csr import dispatch, fallback


@pytest.fixture(params=["short", "long"])
def lists(request, monkeypatch):
    """The functions, as short lists take them, and as long ones do: through the C library."""
    monkeypatch.setattr(positions, "_FEW", 1 << 14 if request.param == "short" else 0)
    return positions


def ascending(*sizes):
    n = 5000
    for seed, size in enumerate(sizes):
        chosen = np.random.default_rng(seed).permutation(n)[:size]
        yield torch.from_numpy(np.sort(chosen)).int()


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("sizes", [(0, 0), (0, 7), (7, 0), (1, 1), (700, 900), (4000, 4999)])
def test_they_agree_with_numpy(lists, sizes, dtype):
    a, b = (part.to(dtype) for part in ascending(*sizes))
    source, shared = lists.locate(a, b)
    assert shared == np.isin(b, a).sum()
    assert (source >= 0).tolist() == np.isin(b, a).tolist()
    assert a[source[source >= 0].long()].equal(b[source >= 0])
    others = torch.from_numpy(np.setdiff1d(b, a))
    assert lists.merge(a, others).tolist() == np.union1d(a, b).tolist()
    bits = torch.zeros(625, dtype=torch.uint8)
    lists.mark(bits, a)
    marked = np.unpackbits(bits.numpy(), bitorder="little")
    assert np.flatnonzero(marked).tolist() == a.tolist()


def test_long_lists_that_int32_holds_go_to_the_library(monkeypatch):
    """Were it not so, everything above would test numpy against numpy."""
    called = []
    monkeypatch.setattr(positions.dispatch, "kernels", lambda: called.append(1) or fallback)
    monkeypatch.setattr(positions, "_FEW", 2)
    positions.merge(torch.tensor([1]), torch.tensor([2]))
    assert not called
    positions.merge(torch.tensor([1]).int(), torch.tensor([2]).int())
    assert called


@pytest.mark.parametrize("n", [2**31 - 1, 2**31])
def test_positions_are_narrow_while_they_fit(n):
    assert positions.narrow(torch.tensor([n - 1]), n).tolist() == [n - 1]


@given(st.sets(st.integers(0, 90)), st.sets(st.integers(0, 90)))
def test_what_is_located_is_what_is_shared(one, other):
    a, b = (torch.tensor(sorted(s), dtype=torch.int32) for s in (one, other))
    for kernels in (fallback, dispatch.kernels()):
        source, shared = kernels.locate(a, b)
        assert shared == len(one & other)
        assert [a.tolist()[i] for i in source.tolist() if i >= 0] == sorted(one & other)
