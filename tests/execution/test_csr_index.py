"""Index structures against scipy and against their own definition."""

import copy
import pickle

import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from regrow.execution.csr import dispatch, fallback
from regrow.execution.csr.index import Index

BACKENDS = [
    name for name in ("native", "torch") if name == "torch" or len(dispatch.available()) > 1
]


@pytest.fixture(params=BACKENDS)
def backend(request):
    before = dispatch.in_use()
    dispatch.use("torch" if request.param == "torch" else dispatch.available()[0])
    yield request.param
    dispatch.use(before)


def draw(rows: int, columns: int, density: float, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(rows * columns, generator=generator) < density).nonzero().flatten()


@pytest.mark.parametrize("density", [0, 0.02, 0.4, 1])
@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (40, 300), (300, 40), (3, 0), (0, 4)])
def test_both_views_are_scipys(backend, shape, density):
    positions = draw(*shape, density, 3)
    index = Index(positions, shape)
    values = torch.arange(1, len(positions) + 1)
    rows, columns = positions // max(1, shape[1]), positions % max(1, shape[1])
    oracle = scipy.sparse.csr_array((values.numpy(), (rows.numpy(), columns.numpy())), shape=shape)
    assert index.pointers.tolist() == oracle.indptr.tolist()
    assert index.columns.tolist() == oracle.indices.tolist()
    by_column = oracle.tocsc()
    by_column.sort_indices()
    assert index.transposed.pointers.tolist() == by_column.indptr.tolist()
    assert index.transposed.index.tolist() == by_column.indices.tolist()
    assert values[index.transposed.order.long()].tolist() == by_column.data.tolist()
    assert index.positions.tolist() == positions.tolist()


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 9), st.integers(1, 40), st.integers(1, 12), st.floats(0, 1), st.integers(0, 99)
)
def test_blocks_cut_rows_where_columns_do(rows, columns, width, density, seed):
    index = Index(draw(rows, columns, density, seed), (rows, columns))
    blocks = -(-columns // width)
    if dispatch.in_use() == "torch":  # which has no use for blocks
        return
    split = dispatch.kernels().split(index.pointers, index.columns, width, blocks)
    for block in range(blocks):
        for row in range(rows):
            cut = index.columns[split[block][row] : split[block + 1][row]]
            assert all(column // width == block for column in cut.tolist())
    assert (split[0] == index.pointers[:-1]).all() and (split[-1] == index.pointers[1:]).all()


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 4), st.floats(0, 1), st.integers(0, 99))
def test_keys_order_like_a_stable_sort(groups, rows, key_count, density, seed):
    rows *= groups
    index = Index(draw(rows, 11, density, seed), (rows, 11))
    keys = torch.arange(11, dtype=torch.int32) * 7 % key_count
    arguments = (index.pointers, index.columns, keys.int(), rows // groups, key_count)
    made = dispatch.kernels().transpose(*arguments, key_count * groups)
    expected = fallback.transpose(*arguments, key_count * groups)
    for a, b in zip(made, expected, strict=True):
        assert a.tolist() == b.tolist()


@pytest.mark.parametrize("wrong", [[1, 1], [2, 1], [-1, 2], [0, 12], [12]])
def test_wrong_positions_are_named(backend, wrong):
    with pytest.raises(ValueError, match="strictly ascending"):
        Index(torch.tensor(wrong), (3, 4))


def test_an_index_is_shared_by_copies_and_survives_pickling():
    index = Index(torch.tensor([0, 5, 6]), (3, 4))
    assert copy.deepcopy(index) is index
    assert pickle.loads(pickle.dumps(index)).positions.tolist() == [0, 5, 6]
