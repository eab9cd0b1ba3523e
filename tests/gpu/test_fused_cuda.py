"""The kernels between convolutions of volumes equal torch's operations, eager and compiled."""

import copy

import pytest
import torch
from torch.nn import functional

import regrow
from regrow.segmentation import E2ENet, PlainConvUNet, channel_links, fused, kernels, pack
from regrow.segmentation.joins import Reading, join, leave, norm_relu
from regrow.segmentation.shift import join_shifted, shift_segments

pytestmark = pytest.mark.skipif(
    not (torch.cuda.is_available() and kernels.available), reason="needs a GPU and Triton"
)
LAST = torch.channels_last_3d


def random(*shape, dtype=torch.float32, scale=1.0, mean=0.0):
    x = (torch.randn(*shape, device="cuda") * scale + mean).to(dtype)
    return x.to(memory_format=LAST).requires_grad_()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(2, 48, 9, 11, 13), (1, 5, 4, 4, 4), (3, 320, 4, 5, 4)])
@pytest.mark.parametrize("slope", [0.01, 1.0])
def test_the_norm_and_its_gradients_are_torchs(dtype, shape, slope):
    torch.manual_seed(0)
    z = random(*shape, dtype=dtype, scale=3.0, mean=20.0)
    weight, bias = (torch.randn(shape[1], device="cuda", requires_grad=True) for _ in range(2))
    assert fused.fusable(z)
    found = norm_relu(z, weight, bias, 1e-5, slope)
    exact = functional.instance_norm(z.double(), weight=weight.double(), bias=bias.double())
    exact = functional.leaky_relu(exact, slope)
    dy = torch.randn_like(exact).to(dtype)
    grads = torch.autograd.grad(found, [z, weight, bias], dy)
    expected = torch.autograd.grad(exact, [z, weight, bias], dy.double())
    assert found.is_contiguous(memory_format=LAST) and found.dtype == dtype
    tolerance = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}[dtype]
    for one, other in zip((found, *grads), (exact, *expected), strict=True):
        assert (one - other).abs().max() <= tolerance * other.abs().max()


def test_a_large_volume_takes_many_programs():
    z = random(1, 32, 64, 64, 64, mean=1000.0)
    ones = torch.ones(32, device="cuda")
    found = norm_relu(z, ones, 0 * ones, 1e-5, 0.01)
    exact = functional.leaky_relu(functional.instance_norm(z.double()), 0.01)
    assert (found - exact).abs().max() < 1e-3
    again = norm_relu(z, ones, 0 * ones, 1e-5, 0.01)
    assert torch.equal(found, again)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_joined_shifts_are_the_cpus(axis, dtype):
    sources = [random(2, c, 5, 4, 3, dtype=dtype) for c in (6, 70, 7)]
    segments = shift_segments((6, 70, 7), 3)
    found = join_shifted(sources, segments, axis)
    there = [s.detach().cpu().contiguous().requires_grad_() for s in sources]
    expected = join_shifted(there, segments, axis)
    assert torch.equal(found.cpu(), expected)
    gradient = torch.randn_like(expected)
    grads = torch.autograd.grad(found, sources, gradient.cuda())
    for one, other in zip(grads, torch.autograd.grad(expected, there, gradient), strict=True):
        assert torch.equal(one.cpu(), other)


@pytest.mark.parametrize(
    "build",
    [
        lambda: E2ENet(1, 3, (12, 24, 32)),
        lambda: E2ENet(1, 3, (12, 24, 32, 40), nodes=(1, 2, 1)),
        lambda: PlainConvUNet(1, 3, (8, 16, 24)),
    ],
)
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
def test_a_network_gives_what_it_gives_without_kernels(build, compiled, monkeypatch):
    torch.manual_seed(0)
    fast = build().cuda().to(memory_format=LAST)
    plain = copy.deepcopy(fast).double()  # float64 takes torch's operations
    x = torch.randn(2, 1, 16, 24, 16, device="cuda")
    with monkeypatch.context() as patch:
        patch.setattr(torch.backends.cudnn, "allow_tf32", False)
        outputs = (torch.compile(fast) if compiled else fast)(x)
        expected = plain(x.double())
        for one, other in zip(outputs, expected, strict=True):
            assert (one - other).abs().max() < 1e-3 * other.abs().max()
        sum(o.square().mean() for o in outputs).backward()
        sum(o.square().mean() for o in expected).backward()
    for one, other in zip(fast.parameters(), plain.parameters(), strict=True):
        assert (one.grad - other.grad).norm() <= 2e-3 * other.grad.norm() + 1e-6
    torch.compiler.reset()


def test_a_step_under_masks_can_be_captured_in_bfloat16():
    from regrow.segmentation import feature_fusion

    torch.manual_seed(0)
    model = E2ENet(1, 3, (12, 24, 32)).cuda().to(memory_format=LAST)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    sparse = regrow.sparsify(model, optimizer, total_steps=10, **feature_fusion(0.3))
    x = torch.randn(2, 1, 16, 16, 16, device="cuda")

    def forward():
        with torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
            return sum(scores.float().square().mean() for scores in model(x))

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            forward().backward()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    optimizer.zero_grad(set_to_none=True)
    with torch.cuda.graph(graph):
        loss = forward()
        loss.backward()
    graph.replay()
    torch.cuda.synchronize()
    assert torch.isfinite(loss)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    sparse.remove()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("window", [(1, 2, 2), (2, 2, 2)])
@pytest.mark.parametrize("whole", [False, True])
def test_readers_compute_and_send_back_what_torch_does_one_by_one(dtype, axis, window, whole):
    """Odd sides; three readers, two of whom pick and one of whom pools; another, plain source."""
    torch.manual_seed(0)
    z, up = random(2, 48, 7, 9, 37, dtype=dtype, mean=3.0), random(2, 5, 7, 9, 37, dtype=dtype)
    weight, bias = (torch.randn(48, device="cuda", requires_grad=True) for _ in range(2))
    readings = {
        "next": Reading(((0, 16, -1), (16, 32, 0), (32, 48, 1)), axis),
        "skip": Reading(((1, 2, -1), (7, 19, 0), (40, 48, 1)), axis),
        "above": Reading(((0, 3, -1), (7, 8, 0), (30, 35, 1)), axis, window),
    }
    pending = leave(z, weight, bias, 1e-5, 0.01, readings, whole=whole)
    segments = ((1, 0, 2, -1), (1, 2, 5, 1))
    found = [join([pending], (), axis, name) for name in ("next", "above")]
    found.append(join([pending, up], segments, axis, "skip"))
    found += [pending.whole] if whole else []
    leaves = [z, weight, bias, up]
    assert all(columns.is_contiguous(memory_format=LAST) for columns in found)

    # As torch does it, of the values that are stored: rounded before they are pooled.
    exact = [x.detach().double().requires_grad_() for x in leaves]
    y = functional.instance_norm(exact[0], weight=exact[1], bias=exact[2])
    y = functional.leaky_relu(y, 0.01)

    def read(reading, *others):
        picked = torch.cat([y[:, start:stop] for start, stop, _ in reading.moves], 1)
        parts, place = [], 0
        for start, stop, offset in reading.moves:
            parts.append((0, place, place + stop - start, offset))
            place += stop - start
        pooled = functional.max_pool3d(picked, reading.window)
        return join_shifted([pooled, *others], [*parts, *(segments if others else ())], axis)

    expected = [read(readings["next"]), read(readings["above"])]
    expected.append(read(readings["skip"], exact[3]))
    expected += [y] if whole else []
    outward = [torch.randn_like(columns) for columns in found]
    grads = torch.autograd.grad(found, leaves, outward)
    wanted = torch.autograd.grad(expected, exact, [x.double() for x in outward])
    tolerance = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}[dtype]
    for one, other in zip(found, expected, strict=True):
        assert (one - other).abs().max() <= tolerance * other.abs().max()
    for one, other in zip(grads, wanted, strict=True):
        # Rounded values can be equal where exact ones are not: another maximum is the first.
        assert (one - other).norm() <= (4 * tolerance) ** 0.5 * other.norm() / 4
        assert dtype != torch.float32 or (one - other).norm() <= 1e-4 * other.norm()


def packed_ways(**options):
    torch.manual_seed(0)
    model = E2ENet(1, 3, (16, 24, 32, 40), [(1, 2, 2), 2, 2], **options).cuda()
    model = model.to(memory_format=LAST)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    made = regrow.sparsify(model, optimizer, total_steps=10, **channel_links(0.2))
    return [pack(model, made.masks, fused=fused) for fused in (False, True)]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("options", [{}, {"axis": 1}, {"nodes": (1, 2, 1)}, {"shift": 0}], ids=str)
@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
def test_a_network_packed_either_way_is_the_same(options, compiled, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    apart, fused = packed_ways(**options)
    x, found = torch.randn(2, 1, 12, 24, 40, device="cuda"), []
    exact = copy.deepcopy(apart).double()
    call = torch.compile(fused, fullgraph=True) if compiled else fused
    for network in (exact, apart, call):
        outputs = network(x.double() if network is exact else x)
        sum(o.square().mean() for o in outputs).backward()
        found.append(outputs)
    for true, one, other in zip(*found, strict=True):
        for got in (one, other):
            assert (got - true).abs().max() < 1e-3 * true.abs().max()
    grads = [torch.cat([g.flatten().double() for g in map(gradient_of, network.parameters())])
             for network in (exact, apart, fused)]  # fmt: skip
    assert (grads[1] - grads[0]).norm() <= 2e-3 * grads[0].norm()
    assert (grads[2] - grads[0]).norm() <= 2e-3 * grads[0].norm()
    torch.compiler.reset()


@pytest.mark.parametrize("kind", ["masks", "links", "links, fused"])
@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
def test_torch_compile_captures_graphs_of_steps_and_of_inference(kind, monkeypatch):
    """No table that stays lies in the pool of the graphs, which torch refuses."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    torch.manual_seed(0)
    model = E2ENet(1, 3, (12, 24, 32)) if kind == "masks" else packed_ways()[kind != "links"]
    model = model.cuda().to(memory_format=LAST)
    other = copy.deepcopy(model)
    call = torch.compile(other, mode="reduce-overhead")
    for step in range(6):
        x = torch.randn(2, 1, 12, 24, 40, device="cuda")
        losses = []
        for network, run in ((model, model), (other, call)):
            torch.compiler.cudagraph_mark_step_begin()
            loss = sum(o.square().mean() for o in run(x))
            loss.backward()
            losses.append(loss.detach().clone())
            with torch.no_grad():
                for parameter in network.parameters():
                    if parameter.grad is not None:
                        parameter.sub_(parameter.grad, alpha=1e-3)
                        parameter.grad = None
        assert abs(losses[0] - losses[1]) < 2e-3 * losses[0], step
    with torch.inference_mode():
        for _ in range(4):
            torch.compiler.cudagraph_mark_step_begin()
            found, expected = call(x), model(x)
            for one, two in zip(found, expected, strict=True):
                assert (one - two).abs().max() < 2e-2 * two.abs().max()
    torch.compiler.reset()


def gradient_of(parameter):
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def test_a_fused_network_trains_in_less_memory_and_can_be_captured():
    ways, x = packed_ways(), torch.randn(1, 1, 32, 64, 64, device="cuda")
    peaks = []
    for network in ways:

        def step(network=network):
            with torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
                outputs = network(x)
            sum(scores.float().square().mean() for scores in outputs).backward()

        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for _ in range(3):
                step()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        peaks.append(torch.cuda.max_memory_allocated() - before)
        with torch.cuda.graph(graph := torch.cuda.CUDAGraph()):
            step()
        graph.replay()
        torch.cuda.synchronize()
        assert all(torch.isfinite(gradient_of(p)).all() for p in network.parameters())
    assert peaks[1] < peaks[0]
