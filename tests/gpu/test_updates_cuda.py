"""Updates of all layers at once on a GPU: the CPU's masks, no wait, whole or not at all."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import regrow
from regrow.engine import many, narrowing, swift
from regrow.engine.criteria import MagnitudePlusGradient, Running, Taylor, WeightTimesGradient
from regrow.engine.draws import seed_from, uniform
from regrow.engine.patterns import NM, Block, Channel, FanIn, InputChannel, Kernel
from regrow.engine.scores import (
    Gradient,
    Magnitude,
    Momentum,
    Random,
    Signals,
    SignedMagnitude,
    Unfired,
)
from regrow.engine.selection import bottom_k, random_k, seeded_generator, top_k
from regrow.engine.update import Moves
from tests.engine.test_many import DTYPES, INF
from tests.engine.test_many import VALUES as COMMON
from tests.gpu.test_cuda import SIZES as SMALL
from tests.gpu.test_cuda import build as of_name
from tests.gpu.test_cuda import on_grid

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available() or not narrowing.available,
    reason="needs a CUDA GPU and triton",
)


SIZES = [(48, 32), (64, 48, 3, 3), (16, 32), (1030, 516)]

VALUES = COMMON | {
    "what a regular sample never sees": lambda n, g: torch.where(
        torch.arange(n) % 64 == 0, 9.0, torch.randn(n, generator=g)
    ),
}


@st.composite
def contests(draw):
    """Numbers of some kind and length, who is allowed, and k: none, one, all, or between."""
    n = draw(st.sampled_from([1, 2, 255, 4096, 4097, 100_000, 1_500_000]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    values = VALUES[draw(st.sampled_from(list(VALUES)))](n, generator)
    allowed = torch.rand(n, generator=generator) < draw(st.sampled_from([0.02, 0.5, 1.0]))
    allowed[0] |= not allowed.any()
    total = int(allowed.sum())
    k = draw(st.sampled_from([0, 1, total, total // 2, total // 50, total - 1]))
    return values, k, allowed


# ---------------------------------------------------------------------- selection


@settings(max_examples=40, deadline=None)
@given(st.lists(contests(), min_size=1, max_size=4), st.sampled_from(DTYPES), st.booleans())
def test_the_same_are_chosen_as_on_the_cpu(rows, dtype, highest):
    worths, ks = [worth.to(dtype) for worth, _, _ in rows], [k for _, k, _ in rows]
    allowed, choose = [a for _, _, a in rows], top_k if highest else bottom_k
    on_gpu = [w.cuda() for w in worths], [a.cuda() for a in allowed]
    among = [int(a.sum()) for a in allowed]
    chosen = many.choose(on_gpu[0], ks, among, on_gpu[1], highest=highest)
    for i, (worth, k, there, part) in enumerate(
        zip(worths, ks, allowed, chosen.parts, strict=True)
    ):
        expected = choose(worth, k, there)
        assert int(part.sum()) == k
        assert part.cpu().equal(expected)
        assert choose(on_gpu[0][i], k, on_gpu[1][i]).cpu().equal(expected)  # one at a time


@settings(max_examples=20, deadline=None)
@given(contests(), st.booleans())
def test_by_sign_and_outside_a_mask_as_on_the_cpu(contest, regrow_dropped):
    worth, k, active = contest
    n = int(active.sum())
    by_sign = many.choose([worth.cuda()], [k], [n], [active.cuda()], by_sign=True).flat.cpu()
    assert by_sign.equal(SignedMagnitude().lowest(worth, k, active, n, torch.Generator()))
    candidates = ~active | by_sign if regrow_dropped else ~active
    left = int(candidates.sum())
    mask, also = active.float().cuda(), by_sign.cuda() if regrow_dropped else None
    for few in (0, left // 3, left):
        how = {"highest": True, "magnitude": True, "outside": True, "also": also}
        grown = many.choose([worth.cuda()], [few], [left], [mask], **how)
        assert grown.flat.cpu().equal(top_k(worth.abs(), few, candidates))
        if regrow_dropped:
            assert int(grown.shared) == int((grown.flat.cpu() & by_sign).sum())


@settings(max_examples=30, deadline=None)
@given(st.lists(contests(), min_size=1, max_size=4), st.integers(0, 2**31))
def test_the_same_are_drawn_as_on_the_cpu(rows, seed):
    allowed, ks = [a for _, _, a in rows], [k for _, k, _ in rows]
    seeds = [seed_from(torch.Generator().manual_seed(seed + i)) for i in range(len(rows))]
    sizes, among = [len(a) for a in allowed], [int(a.sum()) for a in allowed]
    drawn = many.draw(sizes, ks, among, seeds, torch.device("cuda"), [a.cuda() for a in allowed])
    for i, (k, there, part) in enumerate(zip(ks, allowed, drawn.parts, strict=True)):
        assert part.cpu().equal(random_k(k, there, torch.Generator().manual_seed(seed + i)))


def test_nan_comes_last_in_either_order():
    worth = torch.tensor([torch.nan, 1.0, INF, -INF, -torch.nan], device="cuda")
    for highest in (False, True):
        assert many.choose([worth], [3], [5], highest=highest).flat.tolist() == [0, 1, 1, 1, 0]


def test_uniform_numbers_are_those_of_the_cpu():
    assert uniform((3, 70_001), -5, "cuda").cpu().equal(uniform((3, 70_001), -5))


# ---------------------------------------------------------------------- updates


def dynamic(**options):
    return lambda: regrow.Dynamic(**{"density": 0.25, "update_every": 2} | options)


EXACT = {  # scores whose arithmetic is the same on both devices, bit for bit
    "SET, legacy": lambda: regrow.SET(density=0.25, update_every=2, legacy=True),
    "GMP, all layers together": lambda: regrow.GMP(density=0.25, update_every=2, shrink="global"),
    "RigL, fan-in": dynamic(pattern=FanIn()),
    "RigL, 2:4": dynamic(density=0.5, pattern=NM(2, 4)),
    "RigL, blocks": dynamic(pattern=Block(8), regrow_dropped=False),
    "SET, channels": dynamic(pattern=Channel(), drop=SignedMagnitude(), grow=Random()),
    "SET, input channels": dynamic(pattern=InputChannel(), drop=SignedMagnitude(), grow=Random()),
    "kernels at random": dynamic(pattern=Kernel(), grow=Random()),
    "all layers together": dynamic(threshold="global"),
    "there and back": dynamic(
        drop=MagnitudePlusGradient(0.5), initial_density=0.8, threshold="global", shrink="global",
        regrow_dropped=False,
    ),
    "averages": dynamic(drop=Running(WeightTimesGradient(), beta=0.5), drop_fraction=0.4),
    "Taylor, momentum": dynamic(drop=Taylor(), grow=Momentum()),
    "random, unfired": dynamic(drop=Random(), grow=Unfired()),
}  # fmt: skip


def trained(method, device, sizes, steps=7):
    """A run's sparsifier and weights, after steps whose gradients are equal on every device."""
    weights = {str(i): on_grid(*s, seed=i).to(device) for i, s in enumerate(sizes)}
    model = nn.ParameterDict({name: nn.Parameter(weight) for name, weight in weights.items()})
    for weight in model.values():
        weight.output_dim = 0  # no layer holds them that would tell
    optimizer = torch.optim.SGD(model.parameters(), lr=0.25, momentum=0.5)
    sparse = regrow.sparsify(model, optimizer, method, total_steps=12, include="*")
    for step in range(steps):
        for i, weight in enumerate(model.values()):
            weight.grad = on_grid(*weight.shape, seed=100 * step + i).to(device)
            if step % 3 == 0:
                weight.grad = weight.grad.round()  # ties
        optimizer.step()
    return sparse, [weight.detach().cpu() for weight in model.values()]


@pytest.mark.parametrize("name", [*(n for n in regrow.METHODS if n != "Dense"), *EXACT])
def test_masks_are_those_of_the_cpu(name):
    """Every method, and variants of the conformance suite; the exact on layers of all sizes."""
    method = EXACT[name]() if name in EXACT else of_name(name)
    sizes = SIZES if name in {"RigL", "SET", *EXACT} else SMALL
    (on_cpu, weights), (on_gpu, same) = (trained(method, d, sizes) for d in ("cpu", "cuda"))
    assert on_cpu.history == on_gpu.history
    for layer, mask in on_cpu.masks.items():
        assert on_gpu.masks[layer].cpu().equal(mask), layer
        assert on_gpu.fired[layer].cpu().equal(on_cpu.fired[layer]), layer
    for one, other in zip(weights, same, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["RigL", "SET"])
@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_an_update_at_once_is_the_update_layer_by_layer(name, dtype, kind, monkeypatch):
    """Weights, masks, optimizer state, history: bit for bit; in 16 bits most numbers tie."""
    found = []
    for at_once in (True, False):
        if not at_once:
            monkeypatch.setattr(many, "available", lambda _: False)
        generator = torch.Generator().manual_seed(0)
        model = nn.ParameterDict(
            {
                str(i): nn.Parameter(torch.randn(s, generator=generator).to("cuda", dtype))
                for i, s in enumerate(SIZES)
            }
        )
        kinds = {
            "sgd": lambda w: torch.optim.SGD(w, lr=0.05, momentum=0.9),
            # In float16 the usual eps is 0, and so may be what it is added to.
            "adam": lambda w: torch.optim.AdamW(w, lr=0.01, eps=1e-4, amsgrad=True),
        }
        optimizer = kinds[kind](model.parameters())
        method = of_name(name, update_every=1, stop_at=1.0)
        sparse = regrow.sparsify(model, optimizer, method, total_steps=30, include="*")
        for _ in range(4):
            for weight in model.values():
                gradient = torch.randn(weight.shape, generator=generator)
                weight.grad = gradient.to("cuda", dtype)
            optimizer.step()
        state = [v for s in optimizer.state.values() for v in s.values() if torch.is_tensor(v)]
        tensors = [*sparse.masks.values(), *sparse.fired.values(), *model.values(), *state]
        found.append((sparse.history, [tensor.detach().clone() for tensor in tensors]))
    assert found[0][0] == found[1][0]
    for one, other in zip(found[0][1], found[1][1], strict=True):
        assert one.equal(other)


@pytest.mark.parametrize("name", ["RigL", "SET", "MEST", "RigLITOP"])
def test_the_host_waits_once_for_the_whole_update(name, host_waits):
    """Beside that, once for the gradients, and once for weights that others may have written."""
    model = nn.ParameterDict({str(i): nn.Parameter(torch.randn(64, 64)) for i in range(20)}).cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    method = of_name(name, stop_at=1.0)
    sparse = regrow.sparsify(model, optimizer, method, total_steps=100, include="*")
    for weight in model.values():
        weight.grad = torch.randn_like(weight)
    sparse.update_()
    reads_gradients = name != "SET"
    assert host_waits(sparse.update_) <= 2 + reads_gradients


def core(seed=0):
    """Layers for the kernels alone, and what a score may look at."""
    generator = torch.Generator().manual_seed(seed)
    layers, seen = [], {}
    for i, shape in enumerate(SIZES):
        mask = (torch.rand(shape, generator=generator) < 0.2).float()
        weight = (torch.randn(shape, generator=generator) * mask).cuda()
        active, slot = int(mask.sum()), torch.ones(shape, device="cuda")
        move = Moves(exchange=active // 3)
        fired = mask.cuda() > 0
        layers.append(swift.Layer(str(i), weight, mask.cuda(), fired, (slot,), active, move))
        seen[str(i)] = Signals(weight, gradient=torch.randn(shape, generator=generator).cuda())
    return layers, lambda name, *_: seen[name]


METHODS = {
    "RigL": (Magnitude(), Gradient()),
    "SET": (SignedMagnitude(), Random()),
    "MEST": (MagnitudePlusGradient(), Random()),
}


def exchanged(name, layers, signals):
    drop, grow = METHODS[name]
    method = regrow.Dynamic(density=0.2, drop=drop, grow=grow)
    made = swift.exchange(method, layers, signals, lambda *key: seeded_generator(7, *key))
    made.write_()
    return made


@pytest.mark.parametrize("name", METHODS)
def test_the_kernels_wait_for_nothing(name, waiting_is):
    layers, signals = core()
    exchanged(name, layers, signals)  # compiled, and what they read is there
    with waiting_is("error"):
        exchanged(name, layers, signals)


@pytest.mark.parametrize("name", ["RigL", "SET"])
def test_an_update_is_captured_in_a_cuda_graph_and_replayed(name):
    """Every replay moves on from what the last one left, as a launched update does."""
    launched, captured = core(), core()
    first = [layer.mask.clone() for layer in captured[0]]
    exchanged(name, *core())
    with torch.no_grad():
        exchanged(name, *captured)  # what the kernels read is on the device before the capture
        for layer, fresh in zip(captured[0], core()[0], strict=True):
            for mine, theirs in zip(
                (layer.weight, layer.mask, layer.fired, *layer.slots),
                (fresh.weight, fresh.mask, fresh.fired, *fresh.slots),
                strict=True,
            ):
                mine.copy_(theirs)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = exchanged(name, *captured)
    for layer, mask in zip(captured[0], first, strict=True):
        assert layer.mask.equal(mask)  # captured is not done
    for _ in range(3):
        graph.replay()
        exchanged(name, *launched)
        for one, other in zip(launched[0], captured[0], strict=True):
            assert one.mask.equal(other.mask)
            assert one.weight.equal(other.weight)
            assert one.fired.equal(other.fired)
            assert one.slots[0].equal(other.slots[0])
            assert int(one.mask.sum()) == one.active
    assert not all(a.mask.equal(b) for a, b in zip(captured[0], first, strict=True))
    del kept


def test_a_capture_of_what_was_never_made_is_refused():
    layers, signals = core()
    graph = torch.cuda.CUDAGraph()
    with pytest.raises(RuntimeError, match="make the same update once"), torch.cuda.graph(graph):
        layers[0].weight.add_(0)  # an empty graph is warned of
        exchanged("RigL", layers, signals)
    torch.cuda.synchronize()
    exchanged("RigL", layers, signals)
    assert all(int(layer.mask.sum()) == layer.active for layer in layers)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_a_model_on_another_device_than_the_current_one_is_updated_there():
    found = []
    for device in ("cuda:0", "cuda:1"):
        method = of_name("RigL", update_every=1)
        found.append(trained(method, device, SMALL, steps=3)[1])
    for one, other in zip(*found, strict=True):
        assert one.equal(other)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_bad_weight_moves_nothing(bad):
    model = nn.ParameterDict({str(i): nn.Parameter(torch.randn(64, 64)) for i in range(3)}).cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparse = regrow.sparsify(model, optimizer, of_name("SET"), total_steps=99, include="*")
    sparse.update_()
    masks = sparse.masks
    with torch.no_grad():
        model["1"][tuple(masks["1"].nonzero()[0])] = bad
    before = [weight.detach().clone() for weight in model.values()]
    with pytest.raises(FloatingPointError, match="weight of 1 holds NaN"):
        sparse.update_()
    assert len(sparse.history) == 1
    for name, mask in sparse.masks.items():
        assert mask.equal(masks[name])
    for one, other in zip(before, model.values(), strict=True):
        torch.testing.assert_close(one, other.detach(), rtol=0, atol=0, equal_nan=True)


def test_weights_written_outside_the_masks_are_found_at_once(caplog):
    model = nn.ParameterDict({str(i): nn.Parameter(torch.randn(64, 64)) for i in range(3)}).cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparse = regrow.sparsify(model, optimizer, of_name("SET"), total_steps=99, include="*")
    hole = tuple((~sparse.masks["2"]).nonzero()[0])
    model["2"].data[hole] = 3.0
    sparse.update_()
    assert "2: 1 weights outside its mask" in caplog.text
    assert not model["2"][~sparse.masks["2"]].any()
