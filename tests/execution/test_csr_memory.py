"""What C must not read or write: memory laid out otherwise, too short, or already free."""

import gc
import weakref

import pytest
import torch
from torch import nn

from regrow.execution.csr import dispatch, layout
from regrow.execution.csr.compressed import Compressed
from regrow.execution.csr.conv import CsrConv1d, CsrConv2d
from regrow.execution.csr.geometry import Axis, OffsetPlan
from regrow.execution.csr.index import Index
from regrow.execution.csr.linear import CsrLinear
from regrow.execution.csr.norm import BatchNorm2d

needs_library = pytest.mark.skipif(dispatch.in_use() == "torch", reason="no kernel library here")


def negated(x):
    """A view that shows x and whose memory holds -x."""
    view = torch.complex(torch.zeros_like(x), -x).conj().imag
    assert view.is_neg() and torch.equal(view, x)
    return view


def linear():
    return CsrLinear(3, 2, torch.tensor([1, 3]), torch.tensor([2.0, -1.0]), torch.ones(2))


def images():
    return CsrConv2d(2, 3, 3, torch.arange(0, 54, 2), torch.randn(27), torch.ones(3))


@pytest.mark.parametrize(("make", "shape"), [(linear, (4, 3)), (images, (4, 2, 5, 5))])
def test_lazily_negated_inputs_gradients_and_weights_are_read_as_they_show(kernels, make, shape):
    plain, odd = make(), make()
    odd.load_state_dict(plain.state_dict())
    odd.weight = nn.Parameter(negated(plain.weight.detach()))
    odd.bias = nn.Parameter(negated(plain.bias.detach()))
    x = torch.randn(shape)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    expected = plain(a)
    grad = torch.randn(expected.shape)
    expected.backward(grad)
    y = odd(negated(x))
    torch.testing.assert_close(y, expected)
    odd(b).backward(negated(grad))
    torch.testing.assert_close(b.grad, a.grad)
    torch.testing.assert_close(odd.weight.grad, plain.weight.grad)
    torch.testing.assert_close(odd.bias.grad, plain.bias.grad)


@needs_library
def test_no_kernel_takes_the_memory_of_a_negated_view():
    x = negated(torch.randn(4, 3))
    with pytest.raises(Exception, match="lazily negated"):
        dispatch.kernels().pack(x, layout.empty(4, 3))


@pytest.mark.parametrize(
    "x",
    [
        torch.ones(2, 3).to_sparse(),
        torch.ones(2, 3).to_mkldnn(),
        [[1.0, 2.0, 3.0]],
        None,
    ],
)
def test_what_is_no_ordinary_tensor_is_refused(x):
    with pytest.raises(TypeError, match=r"input is .*strided"):
        linear()(x)


def test_a_size_that_was_set_since_does_not_lead_beyond_the_input():
    layer = linear()
    layer.in_features = 1
    with pytest.raises(ValueError, match="last size must be 3"):
        layer(torch.randn(4, 1))


@pytest.mark.parametrize(
    "positions",
    [
        torch.tensor([0.5, 1.7]),
        torch.tensor([False, True]),
        torch.tensor([0], device="meta"),
        torch.tensor([0j]),
        [0, 1],
        None,
    ],
)
def test_positions_are_a_tensor_of_integers(kernels, positions):
    with pytest.raises(TypeError, match="positions are"):
        Index(positions, (2, 3))


@pytest.mark.parametrize("shape", [(-1, -3), (-1, 3), (2, -1)])
def test_negative_shapes_are_refused(kernels, shape):
    with pytest.raises(ValueError, match=r"shape=.* at least 0"):
        Index(torch.tensor([0]), shape)


@pytest.mark.parametrize("features", [1, 5])
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_of_other_channels_is_refused_as_by_torch(kernels, features, training):
    x = layout.batch_last(torch.randn(8, 3, 4, 4))
    with pytest.raises(RuntimeError, match="running_mean should contain 3 elements"):
        BatchNorm2d(features).train(training)(x)


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_reads_parameters_of_any_strides(kernels, training):
    ours, theirs = BatchNorm2d(3), nn.BatchNorm2d(3)
    for name in ("weight", "bias", "running_mean", "running_var"):
        getattr(ours, name).data = torch.rand(6)[::2]
    theirs.load_state_dict(ours.state_dict())
    x = layout.batch_last(torch.randn(8, 3, 4, 4))
    y = ours.train(training)(x)
    torch.testing.assert_close(y, theirs.train(training)(x))
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


@pytest.mark.parametrize("rows", [1, 48, 100])
@pytest.mark.parametrize("columns", [1, 17, 33])
def test_rows_that_are_not_a_number_fill_no_more_than_there_is(kernels, rows, columns):
    y = layout.one_stride(layout.feature_major(torch.full((3, rows), float("nan"))))
    x = layout.one_stride(layout.feature_major(torch.randn(3, columns)))
    count, positions, values = dispatch.kernels().above(y, x, 1.0, rows * columns)
    assert count == rows * columns
    assert positions.tolist() == list(range(count))
    assert values.isnan().all()


def test_relu_keeps_what_is_not_finite_out_of_gradients(kernels):
    y, grad = torch.tensor([[-1.0, 1.0]]).t(), torch.tensor([[torch.nan, 2.0]]).t()
    out, sums = layout.empty(2, 1), torch.empty(1)
    dispatch.kernels().epilogue_backward(layout.feature_major(grad), y, out, sums)
    assert out.flatten().tolist() == [0.0, 2.0] and sums.item() == 2.0


@needs_library
def test_a_structure_lives_as_long_as_it_is_used(monkeypatch):
    from regrow.execution.csr import products

    index = Index(torch.arange(0, 5000, 3), (2, 2500))
    matrix = Compressed(index.pointers, index.columns, 2500)
    made, first = [], []
    split = products.split

    def interrupted(*arguments):
        if not first:  # another thread comes between, and is done before this one
            first.append(None)
            first[0] = products._by_reference(matrix)
        made.append(split(*arguments))
        return made[-1]

    monkeypatch.setattr(products, "split", interrupted)
    second = products._by_reference(matrix)
    borders = [weakref.ref(tensor) for tensor in made]
    assert len(borders) == 2
    made.clear()
    gc.collect()
    assert all(border() is not None for border in borders)
    del second


@needs_library
def test_images_whose_offsets_do_not_fit_are_refused():
    from regrow.execution.csr.shifted import Shifted

    plan = OffsetPlan((Axis(1), Axis(1), Axis(2**26)), 1, (64, 64), 1, 16, 8)
    with pytest.raises(ValueError, match="too large"):
        Shifted(Index(torch.tensor([0]), (64, 64)), plan, 1)


@pytest.mark.parametrize("batch", [(), (0,), (2, 3)])
def test_layers_without_inputs_or_outputs(kernels, batch):
    none = torch.zeros(0, dtype=torch.int64)
    x = torch.randn(*batch, 4)
    assert CsrLinear(4, 0, none, torch.zeros(0))(x).shape == (*batch, 0)
    y = CsrLinear(0, 4, none, torch.zeros(0), torch.ones(4))(x[..., :0])
    assert torch.equal(y, torch.ones(*batch, 4))


def test_a_way_that_another_thread_has_pushed_out_is_still_used(kernels):
    layer = CsrConv1d(1, 1, 1, torch.tensor([0]), torch.ones(1))

    class Forgetful(dict):
        def __setitem__(self, key, value):
            """Forget at once."""

    layer._ways = Forgetful()
    assert torch.equal(layer(torch.ones(1, 1, 3)), torch.ones(1, 1, 3))
