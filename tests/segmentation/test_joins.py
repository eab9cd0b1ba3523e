"""Outputs that their readers compute, against norm, ReLU, pick, pooling and shift one by one."""

import copy
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from benchmarks import segmentation_bytes
from regrow.segmentation import E2ENet, pack
from regrow.segmentation.fused import channels_last
from regrow.segmentation.joins import Pending, Reading, join, leave
from regrow.segmentation.shift import join_shifted
from tests.segmentation.test_links import gradient, sparse_lattice, volume
from tests.test_docs import DOCS

LAST = torch.channels_last_3d
OPTIONS = [
    {},
    {"second": 1.0},
    {"density": 0.05, "finest": 0.05},
    {"shift": 0},
    {"axis": 1},
    {"axis": 2, "shift": 5},
    {"nodes": (1, 2, 1), "blocks": (1, 2, 2, 2)},
    {"nodes": (1, 1, 1), "depth_kernel": (3, 1, 1, 1)},
]


def one_by_one(z, weight, bias, reading):
    y = functional.instance_norm(z, weight=weight, bias=bias, eps=1e-5)
    y = functional.leaky_relu(y, 0.01)
    picked = torch.cat([y[:, start:stop] for start, stop, _ in reading.moves], 1)
    pooled = functional.max_pool3d(picked, reading.window)
    place, segments = 0, []
    for start, stop, offset in reading.moves:
        segments.append((0, place, place + stop - start, offset))
        place += stop - start
    return join_shifted([pooled], segments, reading.axis)


@st.composite
def blocks(draw):
    """Sides that windows need not divide; one to three readers; some channels read by nobody."""
    sides = [draw(st.integers(1, 5)) for _ in range(3)]
    sides[2] = max(sides[2], 2)  # a norm needs two voxels
    channels, axis, readings = draw(st.integers(1, 6)), draw(st.integers(0, 2)), {}
    for reader in range(draw(st.integers(1, 3))):
        window = draw(st.sampled_from([(1, 1, 1), (1, 2, 2), (2, 2, 2), (3, 1, 2)]))
        window = tuple(min(a, b) for a, b in zip(window, sides, strict=True))
        cuts = sorted(draw(st.sets(st.integers(0, channels), min_size=2, max_size=4)))
        moves = tuple((*ends, draw(st.integers(-2, 2))) for ends in pairwise(cuts))
        readings[str(reader)] = Reading(moves[draw(st.booleans()) :] or moves, axis, window)
    return channels, sides, readings, draw(st.booleans()), draw(st.booleans())


@settings(deadline=None)
@given(blocks(), st.integers(0, 2**16))
def test_what_readers_compute_is_what_was_computed_for_them(made, seed):
    channels, sides, readings, whole, last = made
    torch.manual_seed(seed)
    z = torch.randn(2, channels, *sides, dtype=torch.float64)
    z = z.to(memory_format=LAST if last else torch.contiguous_format).requires_grad_()
    weight, bias = (torch.randn(channels, dtype=z.dtype, requires_grad=True) for _ in range(2))
    pending = leave(z, weight, bias, 1e-5, 0.01, readings, whole=whole)
    found = [join([pending], (), r.axis, name) for name, r in readings.items()]
    expected = [one_by_one(z, weight, bias, reading) for reading in readings.values()]
    if whole:
        every = Reading(((0, channels, 0),), 0)
        found.append(pending.whole)
        expected.append(one_by_one(z, weight, bias, every))
    outward = [torch.randn_like(e) for e in expected]
    grads = torch.autograd.grad(found, [z, weight, bias], outward)
    wanted = torch.autograd.grad(expected, [z, weight, bias], outward)
    for one, other in zip((*found, *grads), (*expected, *wanted), strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-9)
    for reading, columns in zip(readings.values(), found, strict=False):
        assert columns.shape[1] == sum(stop - start for start, stop, _ in reading.moves)


@pytest.mark.parametrize("whole", [False, True])
def test_gradients_are_those_of_finite_differences(whole):
    torch.manual_seed(0)
    readings = {
        "one": Reading(((0, 2, -1), (2, 3, 1)), 0),
        "two": Reading(((1, 2, 0), (3, 4, 1)), 0, (1, 2, 2)),
    }

    def call(z, weight, bias, up):
        pending = leave(z, weight, bias, 1e-5, 0.01, readings, whole=whole)
        one = join([pending, up], ((1, 0, 1, 0), (1, 2, 3, -1)), 0, "one")
        return one, join([pending], (), 0, "two"), *([pending.whole] if whole else [])

    shapes = (2, 4, 3, 5, 4), (4,), (4,), (2, 3, 3, 5, 4)
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    assert torch.autograd.gradcheck(call, inputs)


def test_the_first_of_equal_maxima_takes_the_gradient():
    z = torch.tensor([2.0, 2.0, -1.0, 2.0, 0.0, -1.0], dtype=torch.float64).reshape(1, 1, 1, 1, 6)
    z.requires_grad_()
    ones = torch.ones(1, dtype=z.dtype)
    pending = leave(
        z, ones, 0 * ones, 1e-5, 0.01, {"a": Reading(((0, 1, 0),), 0, (1, 1, 3))}, whole=False
    )
    sent = torch.autograd.grad(join([pending], (), 0, "a").sum(), pending.carriers["a"])[0]
    assert sent.shape == (1, 1, 1, 1, 2)
    back = torch.ops.regrow.join_normed_gradient(
        [sent], z.detach(), pending.norm, None, 1, [0, 0, 1, 0, 0], [1, 1, 3], 0, 0.01
    )
    assert back.flatten().tolist() == [1, 0, 0, 1, 0, 0]


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("supervised", [False, True])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_network_packed_either_way_is_the_same(options, supervised, last):
    model, _, sparse = sparse_lattice(**options)
    model.deep_supervision = supervised
    apart, fused = (pack(model, sparse.masks, fused=fused) for fused in (False, True))
    fused.load_state_dict(apart.state_dict())
    x, found = volume(), []
    if last:
        apart, fused, x = (what.to(memory_format=LAST) for what in (apart, fused, x))
    for network in (apart, fused):
        torch.manual_seed(1)
        outputs = network(x) if supervised else [network(x)]
        torch.autograd.backward(outputs, [torch.randn_like(y) for y in outputs])
        found.append((*outputs, *map(gradient, network.parameters())))
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, rtol=1e-8, atol=1e-9)


def test_bfloat16_is_about_as_exact_as_layers_one_by_one():
    """Those keep what torch normalises in float32, so that they round less often."""
    torch.manual_seed(0)
    model, _, sparse = sparse_lattice()
    model.float()
    apart, fused = (pack(model, sparse.masks, fused=fused) for fused in (False, True))
    exact = pack(copy.deepcopy(model).double(), sparse.masks)
    found = []
    for network in (exact, apart, fused):
        cast = torch.autocast("cpu", torch.bfloat16, enabled=network is not exact)
        with cast:
            outputs = network(volume() if network is exact else volume().float())
        assert network is exact or all(o.dtype == torch.bfloat16 for o in outputs)
        sum(o.double().square().mean() for o in outputs).backward()
        grads = torch.cat([gradient(p).flatten().double() for p in network.parameters()])
        found.append([*(o.double() for o in outputs), grads])
    for true, one, other in zip(*found, strict=True):
        assert (other - true).norm() < 2 * (one - true).norm() < 0.2 * true.norm()


def pending_outputs(network):
    """Return the outputs that blocks leave to their readers in one pass, by name."""
    found = {}
    for name, module in network.named_modules():
        if getattr(module, "readings", None):
            module.register_forward_hook(lambda _, __, out, name=name: found.update({name: out}))
    network(volume())
    return found


def test_only_what_is_read_whole_is_normalised():
    model, _, sparse = sparse_lattice()
    outputs = pending_outputs(pack(model, sparse.masks, fused=True))
    assert all(isinstance(out, Pending) for out in outputs.values())
    # At full resolution nobody up-samples: all of it is read through joins.
    finest = {name for name in outputs if name.startswith(("encoder.0", "nodes.0_"))}
    nodes = {f"nodes.0_{stage}.blocks.0" for stage in (1, 2, 3)}
    assert finest == {"encoder.0.0", "encoder.0.1"} | nodes
    assert all(outputs[name].whole is None for name in finest)
    # Up-sampled ones are written for that, once.
    assert {n for n, o in outputs.items() if o.whole is not None} == {
        "encoder.1.1", "encoder.2.1", "nodes.1_1.blocks.0",
    }  # fmt: skip
    for out in outputs.values():
        for carrier in out.carriers.values():
            assert carrier.untyped_storage().nbytes() == carrier.element_size()


def kept_bytes(network):
    """Return how much a forward pass keeps for the backward pass, each storage once."""
    kept = {}

    def pack_(x):
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack_, lambda x: x):
        network(volume())
    return sum(kept.values())


def test_training_keeps_less():
    model, _, sparse = sparse_lattice()
    apart, fused = (kept_bytes(pack(model, sparse.masks, fused=fused)) for fused in (False, True))
    assert fused < apart


@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_a_fused_network_compiles_whole():
    model, _, sparse = sparse_lattice()
    packed = pack(model, sparse.masks, fused=True)
    torch.compiler.reset()
    compiled = torch.compile(copy.deepcopy(packed), fullgraph=True, backend="aot_eager")
    found = []
    for network in (packed, compiled):
        torch.manual_seed(1)
        outputs = network(volume())
        torch.autograd.backward(outputs, [torch.randn_like(y) for y in outputs])
        found.append((*outputs, *map(gradient, network.parameters())))
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-9)
    torch.compiler.reset()


def test_a_fused_network_is_exported_copied_and_trained():
    few = {"nodes": (1, 1, 1), "blocks": (1, 1, 2, 1), "deep_supervision": False}
    model, _, sparse = sparse_lattice(**few)
    packed = pack(model, sparse.masks, fused=True).eval()
    wanted = model.eval()(volume())
    exported = torch.export.export(packed, (volume(),)).module()
    for network in (packed, copy.deepcopy(packed), exported):
        assert torch.allclose(network(volume()), wanted)
    optimizer = torch.optim.SGD(packed.parameters(), lr=0.01)
    losses = []
    for _ in range(5):
        loss = functional.cross_entropy(packed(volume()), (volume()[:, 0] > 0).long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


OPERATORS = "norm_numbers norm_relu norm_relu_gradient join_normed join_normed_gradient"


@pytest.mark.parametrize("op", OPERATORS.split())
@pytest.mark.parametrize("last", [False, True])
def test_operators_say_the_shapes_that_they_return(op, last):
    z = torch.randn(2, 4, 3, 4, 6, dtype=torch.bfloat16)
    z = z.to(memory_format=LAST) if last else z
    ones, norm = torch.ones(4), torch.rand(2, 4, 4)
    columns = [torch.randn(2, 3, 3, 2, 3), torch.randn(2, 4, 3, 4, 6)[:, :2]]
    moves = [0, 0, 3, 1, 0, 1, 2, 4, 0, 0]
    segments = [0, 0, 3, 1, 1, 0, 2, 0]
    given = {
        "norm_numbers": (z, ones, ones, 1e-5),
        "norm_relu": (z, norm, 0.01),
        "norm_relu_gradient": (z, z, norm, 0.01),
        "join_normed": ([z, z], [norm, None], segments, [1, 2, 2] * 2, 0, [0.01, 1.0]),
        "join_normed_gradient": (columns, z, norm, z, 4, moves, [1, 2, 2, 1, 1, 1], 0, 0.01),
    }[op]  # fmt: skip
    tests = ("test_schema", "test_faketensor")
    torch.library.opcheck(getattr(torch.ops.regrow, op).default, given, test_utils=tests)
    if op == "join_normed_gradient":
        plain = ([columns[0]], None, None, None, 5, moves[:5], [1, 1, 1], 2, 1.0)
        torch.library.opcheck(
            torch.ops.regrow.join_normed_gradient.default, plain, test_utils=tests
        )


def test_a_lattice_reads_what_it_did_where_nobody_asks():
    torch.manual_seed(0)
    model = E2ENet(1, 2, (6, 12))
    assert not any(block.readings for block in model.modules() if hasattr(block, "readings"))
    assert not pending_outputs(pack(*_small()))


def _small():
    model, _, sparse = sparse_lattice()
    return model, sparse.masks


@pytest.mark.parametrize(("name", "density"), [("E2ENet", 0.2), ("lean", 0.25)])
def test_the_page_tells_the_bytes_that_are_counted(name, density):
    ways = segmentation_bytes.counted(density, lean=name == "lean")
    forth, back = (
        " | ".join(f"{ways[way][direction]:,.0f}" for way in ("apart", "fused"))
        for direction in ("forth", "back")
    )
    text = (DOCS / "segmentation.md").read_text("utf-8")
    assert f"| {name}, links {density} | forth | {forth} |\n| | back | {back} |" in text


def test_bytes_by_hand():
    """A level of one reader who picks and one who pools; a sector holds 16 channels."""
    reading = Reading(((0, 2, 1), (15, 17, 0), (40, 41, 0)), 0)
    assert segmentation_bytes.fetched(reading, 32) == 96  # of channels 0-15, 16-31, 32-47
    assert segmentation_bytes.fetched(reading, 2) == 10


def test_one_channel_is_joined_and_sent_back_as_channels_that_lie_last():
    """It lies first and last in memory alike; kernels take what may be read as lying last."""
    one = torch.randn(1, 1, 3, 4, 5)
    joined = join([one, one], ((0, 0, 1, 0), (1, 0, 1, 1)), 0)
    assert channels_last(joined)
    back = torch.ops.regrow.join_normed_gradient(
        [one], None, None, None, 8, [0, 2, 3, 1, 0], [1, 1, 1], 0, 1.0
    )
    assert channels_last(back)
    assert torch.equal(back[:, 2, :-1], one[:, 0, 1:])
