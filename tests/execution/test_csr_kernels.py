"""The C library: how it is found and chosen, and its operations beside those of torch."""

import shutil
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from regrow.execution.csr import dispatch, fallback, layout
from regrow.execution.csr.index import Index
from tests.ranks import run_code

needs_library = pytest.mark.skipif(dispatch.in_use() == "torch", reason="no kernel library here")
SETS = [name for name in dispatch.available() if name != "torch"]


@pytest.fixture(params=SETS)
def each_set(request):
    before = dispatch.in_use()
    dispatch.use(request.param)
    yield request.param
    dispatch.use(before)


def test_a_machine_with_a_compiler_has_a_library():
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    assert dispatch.available()[0] != "torch"


@pytest.mark.parametrize(
    ("value", "expected"), [("torch", "torch"), ("native", SETS[0] if SETS else "")]
)
def test_the_environment_forces_one(value, expected):
    if value == "native" and not SETS:
        pytest.skip("no kernel library here")
    code = "from regrow.execution.csr import dispatch; print(dispatch.in_use())"
    assert run_code(code, REGROW_KERNELS=value).stdout.strip() == expected


def test_unknown_names_are_refused():
    code = "from regrow.execution.csr import dispatch; dispatch.in_use()"
    assert "'native' and 'torch'" in run_code(code, REGROW_KERNELS="cuda").stderr
    with pytest.raises(ValueError, match="not available here"):
        dispatch.use("mmx")


@needs_library
def test_one_openmp_runtime_serves_torch_and_the_kernels():
    code = (
        "import torch\n"
        "from regrow.execution.csr import native\n"
        "native.library()\n"
        "maps = open('/proc/self/maps').read().split()\n"
        "print(len({p for p in maps if 'libgomp' in p or 'libomp' in p or 'libiomp' in p}))"
    )
    if not sys.platform.startswith("linux"):
        pytest.skip("needs /proc")
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.stdout.strip() == "1", ran.stderr


@settings(deadline=None, max_examples=30)
@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 300),
    batch=st.integers(0, 150),
    density=st.sampled_from([0.0, 0.01, 0.1, 0.5, 1.0]),
    threads=st.sampled_from([1, 2, 3]),
    seed=st.integers(0, 2**16),
)
def test_products_are_those_of_torch(rows, columns, batch, density, threads, seed):
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    positions = (torch.rand(rows * columns) < density).nonzero().flatten()
    index, values = Index(positions, (rows, columns)), torch.randn(len(positions))
    x = layout.feature_major(torch.randn(batch, columns))
    y = layout.feature_major(torch.randn(batch, rows))
    bias = torch.randn(rows)
    for name in SETS:
        dispatch.use(name)
        ours = dispatch.kernels()
        for matrix, source, size in ((index.forward, x, rows), (index.transposed, y, columns)):
            some_bias = bias if size == rows else None
            for relu in (False, True):
                made = ours.multiply(
                    matrix, values, source, layout.empty(batch, size), some_bias, relu
                )
                expected = fallback.multiply(
                    matrix, values, source, layout.empty(batch, size), some_bias, relu
                )
                torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-4)
        made, expected = ours.dot(index.forward, x, y), fallback.dot(index.forward, x, y)
        torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-4)
    dispatch.use(dispatch.available()[0])


@needs_library
def test_results_do_not_depend_on_threads(each_set):
    positions = (torch.rand(300 * 500) < 0.1).nonzero().flatten()
    index, values = Index(positions, (300, 500)), torch.randn(len(positions))
    x, y = layout.feature_major(torch.randn(150, 500)), layout.feature_major(torch.randn(150, 300))
    kernels, found = dispatch.kernels(), []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        out = kernels.multiply(index.forward, values, x, layout.empty(150, 300), None, False)
        found.append((out, kernels.dot(index.forward, x, y)))
    for out, dot in found[1:]:
        assert torch.equal(out, found[0][0]) and torch.equal(dot, found[0][1])


@needs_library
def test_relu_keeps_what_is_not_a_number(each_set):
    index = Index(torch.tensor([0]), (1, 1))
    x = layout.feature_major(torch.full((19, 1), float("nan")))
    out = dispatch.kernels().multiply(
        index.forward, torch.ones(1), x, layout.empty(19, 1), None, True
    )
    assert out.isnan().all()


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (5, 33), (130, 7), (3000, 4)])
@needs_library
def test_epilogue_backward_is_that_of_torch(each_set, shape, relu):
    grad, y = layout.feature_major(torch.randn(shape)), layout.feature_major(torch.randn(shape))
    out, sums = layout.empty(*shape), torch.empty(shape[1])
    dispatch.kernels().epilogue_backward(grad, y if relu else None, out, sums)
    expected = grad * (y > 0) if relu else grad
    assert torch.equal(out, expected)
    torch.testing.assert_close(sums, expected.sum(0), rtol=1e-4, atol=1e-4)


def test_padding_spares_cache_sets_only_where_it_matters():
    assert [layout.leading(n) for n in (1, 128, 176, 256, 512, 520)] == [1, 128, 176, 272, 528, 520]


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x,
        lambda x: x.t().contiguous().t(),
        lambda x: x.repeat(1, 2)[:, ::2],
        lambda x: x.repeat(2, 1)[::2],
        lambda x: x[:1].expand(x.shape),
        lambda x: x[:, :1].expand(x.shape),
        lambda x: x.flip(0),
    ],
)
@pytest.mark.parametrize("shape", [(1, 5), (6, 1), (33, 20), (256, 17)])
def test_packing_keeps_every_number(shape, make):
    x = make(torch.randn(shape))
    packed = layout.feature_major(x, reuse=100)
    assert torch.equal(packed, x)
    assert shape[0] == 1 or packed.stride(0) == 1
