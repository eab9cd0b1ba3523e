"""On a GPU: the Triton kernels of block-sparse layers against dense products in float64."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from regrow.execution.block import BlockLinear, gather_blocks, scatter_blocks
from regrow.execution.block.operations import block_linear

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")

TOLERANCE = {torch.bfloat16: 1e-2, torch.float16: 1e-2, torch.float32: 1e-5}
# Sizes the blocks divide; that they do not divide, with rows of whole 16 bytes; without.
SIZES = [(384, 256), (392, 264), (193, 259)]


@pytest.fixture(autouse=True)
def _true_float32():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


def build(out, into, b, density=0.4, dtype=torch.float32, bias=True, seed=0):
    generator = torch.Generator().manual_seed(seed)
    cells = -(-out // b) * -(-into // b)
    order = torch.randperm(cells, generator=generator)
    positions = order[: max(1, round(density * cells))].sort().values
    weight = torch.randn(out, into, generator=generator).to(dtype)
    values = gather_blocks(weight, positions, b)
    bias = torch.randn(out, generator=generator).to(dtype) if bias else None
    return BlockLinear(into, out, positions, values, bias).cuda()


def error(found, expected):
    assert found.shape == expected.shape
    assert found.isfinite().all()
    distance = (found.detach().double() - expected.detach().double()).norm()
    return float(distance / expected.detach().double().norm().clamp(min=1e-30))


def exact(layer, x, g):
    """Output and gradients by dense products in float64."""
    weight, x, g = layer.dense_weight().detach().double(), x.detach().double(), g.double()
    y = x @ weight.mT
    if layer.bias is not None:
        y = y + layer.bias.detach().double()
    dw = gather_blocks(g.mT @ x, layer.index.positions, layer.block)
    return y, g @ weight, dw, g.sum(0)


def run(layer, x, g):
    x = x.detach().requires_grad_()
    layer.zero_grad()
    y = layer(x)
    y.backward(g)
    found = [y.detach(), x.grad, layer.weight.grad]
    return found + ([layer.bias.grad] if layer.bias is not None else [])


def check(layer, n_tokens, tolerance):
    kind = {"device": "cuda", "dtype": layer.weight.dtype}
    x = torch.randn(n_tokens, layer.in_features, **kind)
    g = torch.randn(n_tokens, layer.out_features, **kind)
    for found, expected in zip(run(layer, x, g), exact(layer, x, g), strict=False):
        assert error(found, expected) < tolerance


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("b", [32, 64, 128])
@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_output_and_gradients_are_those_of_the_dense_layer(dtype, b, size):
    for n_tokens in (1, 37, 256, 1003):
        check(build(*size, b, dtype=dtype), n_tokens, TOLERANCE[dtype])


@pytest.mark.parametrize("b", [32, 64, 128])
@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_without_the_copy_engine_the_same_comes_out(dtype, b, monkeypatch):
    from regrow.execution.block import abilities, launch

    monkeypatch.setattr(abilities, "has_tma", lambda device: False)
    launch.forget()
    for size in SIZES[:2]:
        for n_tokens in (256, 1003):
            check(build(*size, b, dtype=dtype), n_tokens, TOLERANCE[dtype])
    launch.forget()


@pytest.mark.parametrize("b", [32, 64, 128])
def test_tf32_is_used_where_torch_allows_it(b):
    torch.set_float32_matmul_precision("high")
    layer = build(384, 256, b)
    x, g = torch.randn(333, 256, device="cuda"), torch.randn(333, 384, device="cuda")
    errors = [
        error(found, expected)
        for found, expected in zip(run(layer, x, g)[:3], exact(layer, x, g), strict=False)
    ]
    assert all(1e-5 < e < 2e-3 for e in errors)


@pytest.mark.parametrize("b", [32, 64, 128])
def test_copies_for_tf32_may_be_turned_piece_by_piece(b, monkeypatch):
    from regrow.execution.block import launch, outer

    torch.set_float32_matmul_precision("high")
    layer = build(392, 264, b)
    x, g = torch.randn(1003, 264, device="cuda"), torch.randn(1003, 392, device="cuda")
    whole = run(layer, x, g)[2].clone()
    monkeypatch.setattr(outer, "_COPIED", 1 << 17)
    launch.forget()
    assert error(run(layer, x, g)[2], whole) < 1e-5
    launch.forget()


@pytest.mark.parametrize("b", [32, 64])
@pytest.mark.parametrize("n_tokens", [64, 1003, 4096])
def test_neighbouring_blocks_share_what_they_read(b, n_tokens):
    """Rows of more blocks than a group has, of fewer, and of none."""
    layer = build(520, 1032, b, density=0.5, dtype=torch.bfloat16)
    check(layer, n_tokens, 1e-2)
    n_columns = -(-1032 // b)
    sizes = [0, 1, n_columns, 3, n_columns, n_columns, 2, n_columns, n_columns]
    positions = [r * n_columns + c for r, size in enumerate(sizes) for c in range(size)]
    layer.set_topology_(torch.tensor(positions))
    layer.weight.data = torch.randn(len(positions), b, b, device="cuda", dtype=torch.bfloat16)
    inside = gather_blocks(torch.ones(520, 1032), torch.tensor(positions), b).cuda()
    layer.weight.data *= inside.to(torch.bfloat16)
    check(layer, n_tokens, 1e-2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("positions", [[], [1], [0, 3], [2, 5]])
def test_empty_rows_columns_and_layers(positions, dtype):
    """A grid of 2×3 blocks of which whole rows and columns, or all, are inactive."""
    positions = torch.tensor(positions, dtype=torch.int64)
    values = torch.randn(len(positions), 64, 64, dtype=dtype)
    layer = BlockLinear(192, 128, positions, values, torch.randn(128, dtype=dtype)).cuda()
    x = torch.randn(100, 192, device="cuda", dtype=dtype)
    g = torch.randn(100, 128, device="cuda", dtype=dtype)
    for found, expected in zip(run(layer, x, g), exact(layer, x, g), strict=True):
        assert error(found, expected) < TOLERANCE[dtype]


def test_what_lies_beyond_the_edges_gets_no_gradient():
    layer = build(193, 259, 64, density=1.0, dtype=torch.bfloat16)
    inside = gather_blocks(torch.ones(193, 259), torch.arange(20), 64).bool().cuda()
    layer(torch.randn(100, 259, device="cuda", dtype=torch.bfloat16)).float().sum().backward()
    assert not layer.weight.grad[~inside].any()


def test_many_tokens_split_over_few_blocks():
    """More programs than blocks share the weight gradient, and their parts end unevenly."""
    for n_tokens in (16_384, 25_216, 10_001):
        check(build(512, 512, 128, 0.2, torch.bfloat16), n_tokens, 1e-2)


def test_activations_beyond_31_bits():
    layer = build(32, 32, 32, 1.0, torch.bfloat16)
    n_tokens = 2**26 + 64
    x = torch.zeros(n_tokens, 32, device="cuda", dtype=torch.bfloat16)
    x[-64:] = torch.randn(64, 32)
    with torch.no_grad():
        y = layer(x)
        assert error(y[-64:], layer(x[-64:])) == 0
        torch.testing.assert_close(y[5], layer.bias, rtol=0, atol=0)


@pytest.mark.parametrize("view", ["transposed", "shifted", "expanded"])
def test_inputs_of_any_layout(view):
    layer = build(256, 128, 64, dtype=torch.bfloat16)
    kind = {"device": "cuda", "dtype": torch.bfloat16}
    x = {
        "transposed": lambda: torch.randn(128, 70, **kind).mT,
        "shifted": lambda: torch.randn(70 * 128 + 1, **kind)[1:].view(70, 128),
        "expanded": lambda: torch.randn(1, 128, **kind).expand(70, 128),
    }[view]()
    g = torch.randn(1, 256, **kind).expand(70, 256)
    for found, expected in zip(run(layer, x, g), exact(layer, x, g), strict=True):
        assert error(found, expected) < 1e-2


@pytest.mark.parametrize("b", [32, 64, 128])
def test_two_runs_agree_bit_for_bit(b):
    layer = build(1024, 1024, b, 0.1, torch.bfloat16)
    x = torch.randn(8_192, 1024, device="cuda", dtype=torch.bfloat16)
    g = torch.randn_like(x)
    for one, other in zip(run(layer, x, g), run(layer, x, g), strict=True):
        assert torch.equal(one, other)


def test_launches_that_were_made_before_follow_their_arguments():
    """Other memory, topologies, numbers of tokens and blocks; what lies off 16 bytes between."""
    layer = build(256, 384, 64, dtype=torch.bfloat16)
    for round_ in range(3):
        for n_tokens in (64, 100, 64):
            check(layer, n_tokens, 1e-2)
            shifted = torch.randn(n_tokens * 384 + 1, device="cuda", dtype=torch.bfloat16)[1:]
            with torch.no_grad():
                x = shifted.view(n_tokens, 384)
                assert error(layer(x), layer(x.clone())) < 1e-2
        layer.set_topology_((torch.arange(layer.n_blocks) * 2 + round_).cuda())
    positions = torch.arange(0, 24, 3, device="cuda")
    layer.set_topology_(positions)
    layer.weight.data = layer.weight.data[: len(positions)].clone()
    check(layer, 64, 1e-2)


def test_what_follows_may_write_into_the_output():
    layer = build(128, 192, 64)
    x = torch.randn(2, 35, 192, device="cuda")
    layer(x).relu_().sum().backward()
    found, layer.weight.grad = layer.weight.grad, None
    torch.relu(layer(x)).sum().backward()
    assert torch.equal(found, layer.weight.grad)


def test_a_block_size_without_kernels_is_refused():
    with pytest.raises(ValueError, match="block=16"):
        build(64, 64, 16)(torch.randn(2, 64, device="cuda"))


def test_float64_takes_the_plain_way():
    layer = build(100, 70, 64, dtype=torch.float64)
    check(layer, 9, 1e-12)


def test_the_operator_meets_torchs_own_rules():
    layer = build(128, 192, 64)
    x = torch.randn(70, 192, device="cuda", requires_grad=True)
    args = (x, layer.weight, layer.bias, layer.layout, 128)
    torch.library.opcheck(torch.ops.regrow.block_linear.default, args)
    assert block_linear(*args).shape == (70, 128)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_over_float32_weights(dtype):
    layer = build(256, 384, 64)
    weight = layer.dense_weight().detach().requires_grad_()
    x = torch.randn(2, 90, 384, device="cuda")
    with torch.autocast("cuda", dtype):
        y, expected = layer(x), functional.linear(x, weight, layer.bias.detach())
    assert y.dtype == dtype
    assert error(y, expected) < 1e-2
    y.float().square().mean().backward()
    expected.float().square().mean().backward()
    assert layer.weight.grad.dtype == torch.float32
    blocks = gather_blocks(weight.grad, layer.index.positions, 64)
    assert error(layer.weight.grad, blocks) < 2e-2


def test_captured_tiles_make_up_the_dense_gradient():
    layer = build(200, 300, 64)
    layer.captures = True
    weight = layer.dense_weight().detach().requires_grad_()
    for x in torch.randn(2, 50, 300, device="cuda"):
        layer(x).square().sum().backward()
        functional.linear(x, weight, layer.bias.detach()).square().sum().backward()
    assert error(layer.gradient_rows(0, 200), weight.grad) < 1e-5


def test_a_topology_is_built_without_waiting_for_the_device(waiting_is):
    layer = build(512, 512, 64, 0.25, torch.bfloat16)
    positions = torch.arange(16, device="cuda") * 3
    torch.cuda.synchronize()
    with waiting_is("error"):
        layer.set_topology_(positions)
    assert torch.equal(layer.index.positions, positions)
    check(layer, 65, 1e-2)


def two_layers():
    layers = [build(512, 256, 64, dtype=torch.bfloat16), build(256, 512, 64, dtype=torch.bfloat16)]
    return nn.Sequential(layers[0], nn.GELU(), layers[1])


@pytest.mark.filterwarnings("ignore")  # what a compiler has to say is not ours
def test_torch_compile_takes_the_layer_whole():
    model = two_layers()
    compiled = torch.compile(model, fullgraph=True)
    x = torch.randn(130, 256, device="cuda", dtype=torch.bfloat16)
    expected = model(x)
    expected.float().square().mean().backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    y = compiled(x)
    y.float().square().mean().backward()
    assert error(y, expected) < 1e-2
    for gradient, parameter in zip(gradients, model.parameters(), strict=True):
        assert error(parameter.grad, gradient) < 2e-2


def test_a_captured_graph_repeats_the_step_and_follows_the_topology():
    model = two_layers()
    x = torch.randn(130, 256, device="cuda", dtype=torch.bfloat16)

    def step():
        model.zero_grad(set_to_none=True)
        y = model(x)
        y.float().square().mean().backward()
        return y.detach()  # what keeps the graph alive ties later steps to its stream

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = step()
    gradients = [parameter.grad for parameter in model.parameters()]

    moved = torch.arange(model[0].n_blocks) * 2
    model[0].set_topology_(moved)
    x.copy_(torch.randn_like(x))
    graph.replay()
    replayed = [tensor.clone() for tensor in (y, *gradients)]
    eager = [step(), *(parameter.grad for parameter in model.parameters())]
    for one, other in zip(replayed, eager, strict=True):
        assert torch.equal(one, other)
    assert torch.equal(model[0].dense_weight(), scatter_blocks(model[0].weight, moved, (512, 256)))
