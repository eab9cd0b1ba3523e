"""Block-sparse layers against the dense weight they stand for, on the CPU in float64."""

import copy
import io
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from regrow.engine.patterns import Block
from regrow.execution.block import BlockIndex, BlockLinear, gather_blocks, scatter_blocks
from regrow.execution.block.tiles import groups, parts


@st.composite
def topologies(draw):
    """Sizes that blocks need not divide, and any set of blocks: none, all, empty rows, columns."""
    out, into, b = draw(st.integers(1, 20)), draw(st.integers(1, 20)), draw(st.integers(1, 7))
    cells = -(-out // b) * -(-into // b)
    active = draw(st.sets(st.integers(0, cells - 1)))
    return out, into, b, torch.tensor(sorted(active), dtype=torch.int64)


def build(out, into, b, positions, bias=True, dtype=torch.float64):
    weight = torch.randn(out, into, dtype=dtype)
    values = gather_blocks(weight, positions, b)
    return BlockLinear(
        into, out, positions, values, torch.randn(out, dtype=dtype) if bias else None
    )


def twin(layer):
    """The dense parameters that compute the same."""
    weight = layer.dense_weight().detach().requires_grad_()
    bias = None if layer.bias is None else layer.bias.detach().clone().requires_grad_()
    return weight, bias


def example(**options):
    return build(10, 13, 4, torch.tensor([1, 3, 4, 7, 11]), **options)


# ---------------------------------------------------------------------- index


@given(topologies())
def test_the_index_lists_every_block_of_every_row_and_column(topology):
    out, into, b, positions = topology
    index = BlockIndex.build(positions, (out, into), b)
    n_rows, n_columns = index.grid
    where = {divmod(int(p), n_columns): i for i, p in enumerate(positions)}
    for row in range(n_rows):
        blocks = range(*index.row_pointers[row : row + 2].tolist())
        assert [(row, int(index.columns[i]), i) for i in blocks] == [
            (r, c, i) for (r, c), i in where.items() if r == row
        ]
        assert all(index.rows[i] == row for i in blocks)
    for column in range(n_columns):
        entries = range(*index.column_pointers[column : column + 2].tolist())
        assert [(int(index.rows_by_column[e]), int(index.by_column[e])) for e in entries] == [
            (r, i) for (r, c), i in where.items() if c == column
        ]
    assert torch.equal(index.positions, positions)
    parts_start = [part.storage_offset() for part in (index.rows, index.columns, index.by_column)]
    assert all(start % 4 == 0 for start in parts_start)


@pytest.mark.parametrize("wrong", [[2, 1], [1, 1], [-1, 0], [0, 12]])
def test_positions_that_do_not_ascend_or_leave_the_grid_are_refused(wrong):
    with pytest.raises(ValueError, match="positions"):
        BlockIndex.build(torch.tensor(wrong), (10, 13), 4)
    layer = example()
    before = copy.deepcopy(layer.state_dict())
    with pytest.raises(ValueError, match="positions"):
        layer.set_topology_(torch.tensor(wrong))
    assert all(torch.equal(before[name], now) for name, now in layer.state_dict().items())


@pytest.mark.parametrize("positions", [torch.tensor([0.0]), torch.tensor([[0]])])
def test_positions_must_be_a_vector_of_whole_numbers(positions):
    with pytest.raises(ValueError, match="positions"):
        BlockIndex.build(positions, (4, 4), 2)


def test_a_layout_of_another_number_of_blocks_is_refused_on_the_cpu():
    """Layouts of 5 and of 7 blocks are of one length."""
    five, seven = (BlockIndex.build(torch.arange(n), (12, 12), 4) for n in (5, 7))
    assert len(five.layout) == len(seven.layout)
    five.check()
    with pytest.raises(ValueError, match="weight holds 5 blocks, the topology another number"):
        BlockIndex(seven.layout, 5, (12, 12), 4).check()


@given(topologies())
def test_blocks_and_the_dense_weight_are_two_views_of_one_thing(topology):
    out, into, b, positions = topology
    dense = torch.randn(out, into, dtype=torch.float64)
    mask = torch.zeros(Block(b).units((out, into)), dtype=torch.bool)
    mask[positions] = True
    mask = Block(b).expand(mask.view(Block(b).grid((out, into))), (out, into))
    blocks = gather_blocks(dense, positions, b)
    assert torch.equal(scatter_blocks(blocks, positions, (out, into)), dense * mask)
    assert blocks.count_nonzero() == mask.sum()  # beyond the edges there are zeros


# ---------------------------------------------------------------------- products and gradients


@settings(deadline=None)
@given(topologies(), st.sampled_from([(), (1,), (3,), (2, 3), (0,)]), st.booleans())
def test_output_and_gradients_are_those_of_the_dense_layer(topology, leading, bias):
    layer = build(*topology, bias=bias)
    weight, dense_bias = twin(layer)
    x = torch.randn(*leading, layer.in_features, dtype=torch.float64, requires_grad=True)
    same = x.detach().clone().requires_grad_()
    y, expected = layer(x), functional.linear(same, weight, dense_bias)
    torch.testing.assert_close(y, expected)
    g = torch.randn_like(y)
    y.backward(g)
    expected.backward(g)
    torch.testing.assert_close(x.grad, same.grad)
    index = layer.index
    torch.testing.assert_close(
        layer.weight.grad, gather_blocks(weight.grad, index.positions, index.block)
    )
    if bias:
        torch.testing.assert_close(layer.bias.grad, dense_bias.grad)


@settings(deadline=None)
@given(topologies())
def test_what_lies_beyond_the_edges_takes_no_part_and_gets_no_gradient(topology):
    out, into, b, positions = topology
    layer = build(*topology)
    inside = gather_blocks(torch.ones(out, into), positions, b).bool()
    x = torch.randn(3, into, dtype=torch.float64)
    expected = layer(x)
    with torch.no_grad():
        layer.weight.masked_fill_(~inside, 1e6)
    y = layer(x)
    assert torch.equal(y, expected)
    y.square().sum().backward()
    assert not layer.weight.grad[~inside].any()


def test_gradients_of_several_passes_add_up():
    layer = example()
    weight, bias = twin(layer)
    for x in torch.randn(3, 5, 13, dtype=torch.float64):
        layer(x).square().sum().backward()
        functional.linear(x, weight, bias).square().sum().backward()
    expected = gather_blocks(weight.grad, layer.index.positions, 4)
    torch.testing.assert_close(layer.weight.grad, expected)


def test_only_the_gradients_asked_for_are_computed():
    layer = example()
    layer.weight.requires_grad_(False)
    x = torch.randn(2, 13, dtype=torch.float64, requires_grad=True)
    layer(x).sum().backward()
    assert layer.weight.grad is None
    torch.testing.assert_close(x.grad, layer.dense_weight().sum(0).expand(2, 13))


def test_the_operators_meet_torchs_own_rules():
    layer = example()
    x = torch.randn(3, 13, dtype=torch.float64, requires_grad=True)
    args = (x, layer.weight, layer.bias, layer.layout, 10)
    torch.library.opcheck(torch.ops.regrow.block_linear.default, args)


def test_gradcheck():
    layer = example()

    def call(x, weight, bias):
        return torch.ops.regrow.block_linear(x, weight, bias, layer.layout, 10)

    x = torch.randn(2, 13, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(call, (x, layer.weight, layer.bias))


def test_it_is_differentiated_once():
    layer = example()
    x = torch.randn(2, 13, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_torch_func_differentiates_it():
    layer = example()
    weights = {name: p.detach() for name, p in layer.named_parameters()}
    x = torch.randn(2, 3, 13, dtype=torch.float64)

    def loss(weights):
        return torch.func.functional_call(layer, weights, (x,)).square().sum()

    layer(x).square().sum().backward()
    for name, gradient in torch.func.grad(loss)(weights).items():
        torch.testing.assert_close(gradient, layer.get_parameter(name).grad)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("leading", [(), (3,), (2, 3)])
def test_what_follows_may_write_into_the_output(leading, bias):
    layer = example(bias=bias)
    x = torch.randn(*leading, 13, dtype=torch.float64)
    torch.relu(layer(x)).sum().backward()
    expected = layer.weight.grad
    layer.weight.grad = None
    layer(x).relu_().sum().backward()
    assert torch.equal(layer.weight.grad, expected)


def test_halves_are_summed_in_float32():
    layer = example().to(torch.bfloat16)
    x = torch.randn(7, 13).to(torch.bfloat16)
    weight, bias = twin(layer)
    exact = functional.linear(x.double(), weight.double(), bias.double())
    error = (layer(x).double() - exact).abs()
    assert (error <= 2.0**-8 * exact.abs()).all()


def test_a_block_row_without_blocks_gives_the_bias():
    layer = build(8, 8, 4, torch.tensor([2]))
    y = layer(torch.randn(3, 8, dtype=torch.float64))
    torch.testing.assert_close(y[:, :4], layer.bias[:4].expand(3, 4), rtol=0, atol=0)


def test_input_that_does_not_fit_is_refused():
    layer = example()
    with pytest.raises(ValueError, match="last size must be 13"):
        layer(torch.randn(2, 12, dtype=torch.float64))
    with pytest.raises(TypeError, match="autocast"):
        layer(torch.randn(2, 13))


@pytest.mark.parametrize(
    ("values", "bias"), [((2, 2, 2), (4,)), ((1, 2, 3), (4,)), ((1, 2), (4,)), ((1, 2, 2), (3,))]
)
def test_values_that_do_not_fit_are_refused(values, bias):
    with pytest.raises(ValueError, match=r"values|bias"):
        BlockLinear(4, 4, torch.tensor([1]), torch.zeros(values), torch.zeros(bias))


# ---------------------------------------------------------------------- captured gradients


@settings(deadline=None)
@given(topologies(), st.integers(1, 9))
def test_captured_tiles_make_up_the_dense_gradient(topology, rows):
    layer = build(*topology)
    layer.captures = True
    weight, bias = twin(layer)
    for x in torch.randn(2, 3, layer.in_features, dtype=torch.float64):
        layer(x).square().sum().backward()
        functional.linear(x, weight, bias).square().sum().backward()
    end = layer.out_features
    tiles = [layer.gradient_rows(row, min(row + rows, end)) for row in range(0, end, rows)]
    torch.testing.assert_close(torch.cat(tiles), weight.grad)
    torch.testing.assert_close(layer.gradient_rows(0, end), weight.grad)


def test_nothing_is_kept_unless_asked_and_release_forgets():
    layer, x = example(), torch.randn(2, 13, dtype=torch.float64)
    layer(x).sum().backward()
    with pytest.raises(RuntimeError, match="captures = True"):
        layer.gradient_rows(0, 4)
    layer.captures = True
    with torch.no_grad():
        layer(x)
    assert not layer.captured
    layer(x).sum().backward()
    layer.release()
    with pytest.raises(RuntimeError, match="captures = True"):
        layer.gradient_rows(0, 4)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_passes_are_captured_once(reentrant):
    layer = example()
    layer.captures = True
    x = torch.randn(3, 13, dtype=torch.float64, requires_grad=True)
    checkpoint(layer, x, use_reentrant=reentrant).square().sum().backward()
    once, gradient = layer.gradient_rows(0, layer.out_features), layer.weight.grad
    layer.release()
    layer.weight.grad = None
    layer(x).square().sum().backward()
    assert torch.equal(once, layer.gradient_rows(0, layer.out_features))
    assert torch.equal(gradient, layer.weight.grad)


# ---------------------------------------------------------------------- moving, saving, composing


def test_a_new_topology_of_as_many_blocks_keeps_its_memory():
    layer = example()
    memory, positions = layer.layout.data_ptr(), torch.tensor([0, 2, 4, 5, 6], dtype=torch.int32)
    layer.set_topology_(positions)
    assert layer.layout.data_ptr() == memory
    assert torch.equal(layer.index.positions, positions.long())
    dense = scatter_blocks(layer.weight, positions, (10, 13)).detach()
    x = torch.randn(2, 13, dtype=torch.float64)
    torch.testing.assert_close(layer(x), functional.linear(x, dense, layer.bias))


def test_a_new_number_of_blocks_waits_for_its_weights():
    layer, x = example(), torch.randn(2, 13, dtype=torch.float64)
    layer.set_topology_(torch.tensor([0, 5]))
    with pytest.raises(ValueError, match="weight holds 5 blocks, the topology 2"):
        layer(x)
    layer.weight.data = layer.weight.data[:2].clone()
    layer(x).sum().backward()
    assert layer.weight.grad.shape == (2, 4, 4)


def test_a_checkpoint_brings_its_topology_along():
    source, target = example(), build(10, 13, 4, torch.tensor([0, 6]))
    target.load_state_dict(copy.deepcopy(source.state_dict()))
    x = torch.randn(2, 13, dtype=torch.float64)
    assert torch.equal(source(x), target(x))
    assert torch.equal(source.index.positions, target.index.positions)


def test_copies_and_pickles_compute_the_same_and_leave_captures_behind():
    layer = example()
    layer.captures = True
    x = torch.randn(2, 13, dtype=torch.float64)
    layer(x).sum().backward()
    buffer = io.BytesIO()
    torch.save(layer, buffer)
    buffer.seek(0)
    loaded = torch.load(buffer, weights_only=False)
    for twin_layer in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), loaded):
        assert torch.equal(twin_layer(x), layer(x))
        assert not twin_layer.captured
    assert layer.captured


def test_a_dense_layer_with_all_blocks_stays_what_it_was():
    dense = nn.Linear(13, 10, bias=False)
    positions = torch.arange(12)
    values = gather_blocks(dense.weight.detach(), positions, 4)
    layer = BlockLinear(13, 10, positions, values)
    x = torch.randn(2, 13)
    torch.testing.assert_close(layer(x), dense(x))
    assert layer.bias is None
    assert "active=12 of 12" in repr(layer)


def test_autocast_casts_as_it_does_for_the_dense_layer():
    layer = example(dtype=torch.float32)
    weight, bias = twin(layer)
    x = torch.randn(5, 13)
    with torch.autocast("cpu", torch.bfloat16):
        y, expected = layer(x), functional.linear(x, weight, bias)
        y.float().square().sum().backward()
        expected.float().square().sum().backward()
    assert y.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(y, expected, rtol=2e-2, atol=2e-2)
    assert layer.weight.grad.dtype == torch.float32
    blocks = gather_blocks(weight.grad, layer.index.positions, 4)
    torch.testing.assert_close(layer.weight.grad, blocks, rtol=5e-2, atol=5e-2)


def test_torch_compile_takes_the_layer_whole():
    model = nn.Sequential(example(), nn.ReLU(), build(6, 10, 4, torch.tensor([0, 3])))
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    x = torch.randn(3, 13, dtype=torch.float64)
    expected = model(x)
    expected.square().sum().backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    y = compiled(x)
    y.square().sum().backward()
    torch.testing.assert_close(y, expected)
    for gradient, parameter in zip(gradients, model.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


# Dynamo means to hide this warning of its own; turned into an error it cannot.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
def test_compiled_passes_can_be_captured():
    layer = example()
    compiled = torch.compile(layer, backend="aot_eager")
    x = torch.randn(3, 13, dtype=torch.float64)
    compiled(x).sum().backward()
    assert not layer.captured
    layer.captures = True
    compiled(x).sum().backward()
    weight, bias = twin(layer)
    functional.linear(x, weight, bias).sum().backward()
    torch.testing.assert_close(layer.gradient_rows(0, layer.out_features), weight.grad)


# ---------------------------------------------------------------------- how work is split


@given(st.integers(1, 5000), st.integers(0, 100_000), st.integers(1, 200))
def test_a_weight_gradient_is_split_only_where_parts_stay_long(n_blocks, n_tokens, processors):
    k = parts(n_blocks, n_tokens, processors)
    assert 1 <= k <= 8
    assert k == 1 or n_tokens // k >= 512
    if n_blocks % processors == 0:
        assert k == 1  # nobody is idle


@given(st.lists(st.integers(0, 40), min_size=1, max_size=30), st.integers(1, 9))
def test_there_are_programs_for_every_group_of_every_row(counts, most):
    needed = sum(-(-count // most) for count in counts)
    found = groups(sum(counts), len(counts), most)
    assert needed <= found <= min(sum(counts), needed + len(counts))
