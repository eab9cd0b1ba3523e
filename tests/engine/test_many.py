"""The k lowest of many tensors at once, as a GPU finds them, against selection on the CPU.

Twice: step by step in numpy (``narrowed.py``), everywhere; and by the kernels themselves, under
Triton's interpreter, by ``make interpret``. ``tests/gpu/test_updates_cuda.py`` runs them on a GPU.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import regrow
from regrow.engine import many, topology
from regrow.engine.draws import seed_from
from regrow.engine.scores import SignedMagnitude, Unfired
from regrow.engine.selection import bottom_k, random_k, top_k
from tests.engine import narrowed
from tests.interpreted import interpreted

INF = float("inf")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
VALUES = {
    "distinct": lambda n, g: torch.randn(n, generator=g),
    "many ties": lambda n, g: torch.randn(n, generator=g).round(),
    "all equal": lambda n, g: torch.full((n,), 0.5),
    "zeros of both signs": lambda n, g: torch.randn(n, generator=g).sign() * 0.0,
    "mostly zeros": lambda n, g: torch.randn(n, generator=g).sub(1.5).relu(),
    "infinities": lambda n, g: torch.where(
        torch.rand(n, generator=g) < 0.3, INF, torch.randn(n, generator=g)
    ).mul(torch.randn(n, generator=g).sign()),
    "tiny and huge": lambda n, g: (
        torch.randn(n, generator=g) * 10.0 ** torch.randint(-44, 38, (n,), generator=g)
    ),
    "ascending": lambda n, g: torch.arange(n) / n,
}


@st.composite
def contests(draw, largest=4000):
    """Numbers of some kind, who is allowed, and k: none, one, all, or something between."""
    n, seed = draw(st.integers(1, largest)), draw(st.integers(0, 2**31))
    generator = torch.Generator().manual_seed(seed)
    values = VALUES[draw(st.sampled_from(list(VALUES)))](n, generator)
    share = draw(st.sampled_from([0.02, 0.5, 1.0]))
    allowed = torch.rand(n, generator=generator) < share
    allowed[0] |= not allowed.any()
    k = draw(st.sampled_from([0, 1, int(allowed.sum()), None]))
    k = draw(st.integers(0, int(allowed.sum()))) if k is None else k
    return values.to(draw(st.sampled_from(DTYPES))), k, allowed


class TestTheAlgorithm:
    @settings(max_examples=300)
    @given(contests(), st.booleans(), st.booleans(), st.booleans())
    def test_chooses_what_selection_chooses(self, contest, highest, magnitude, misled):
        worth, k, allowed = contest
        how = {"highest": highest, "magnitude": magnitude, "misled": misled}
        chosen, _ = narrowed.lowest(worth, k, allowed, sample=64, few=16, passes=3, **how)
        numbers = worth.abs() if magnitude else worth
        assert chosen.equal((top_k if highest else bottom_k)(numbers, k, allowed))

    def test_nan_comes_last_in_either_order(self):
        worth = torch.tensor([torch.nan, 1.0, INF, -INF, -torch.nan])
        everyone = torch.ones(5, dtype=torch.bool)
        for highest in (False, True):
            options = {"sample": 64, "few": 2, "passes": 3, "highest": highest}
            assert narrowed.lowest(worth, 3, everyone, **options)[0].tolist() == [0, 1, 1, 1, 0]

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("kind", ["distinct", "many ties", "all equal", "mostly zeros"])
    @pytest.mark.parametrize("share", [0.001, 0.03, 0.5])
    def test_is_done_in_as_many_passes_as_are_launched(self, dtype, kind, share):
        """What takes longer is finished by one program alone, which is slow."""
        worth = VALUES[kind](1 << 20, torch.Generator().manual_seed(1)).to(dtype)
        k, everyone = int(share * len(worth)), torch.ones(len(worth), dtype=torch.bool)
        sizes = {"sample": many._SAMPLE, "few": many._FEW, "passes": many._PASSES}
        _, made = narrowed.lowest(worth, k, everyone, **sizes)
        assert made <= (1 if kind == "distinct" and dtype == torch.float32 else many._PASSES)


@pytest.fixture(scope="module")
def kernels():
    """Sizes that make small tensors long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(many, "_SAMPLE", 64)
        patch.setattr(many, "_FEW", 32)
        patch.setitem(many.LAUNCH, "STEP", 256)
        patch.setitem(many.LAUNCH, "STEPS", 2)
        patch.setattr(many, "TILE", 512)
        yield


# numpy remarks on words that wrap, as they are meant to.
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
@pytest.mark.usefixtures("kernels")
@interpreted
class TestTheKernels:
    @settings(max_examples=40)
    @given(st.lists(contests(1500), min_size=1, max_size=3), st.data())
    def test_choose_what_selection_chooses(self, rows, data):
        dtype, highest = data.draw(st.sampled_from(DTYPES)), data.draw(st.booleans())
        counted = data.draw(st.booleans())
        worths = [worth.to(dtype) for worth, _, _ in rows]
        ks, allowed = [k for _, k, _ in rows], [a for _, _, a in rows]
        among = [int(a.sum()) if counted else -1 for a in allowed]
        chosen = many.choose(worths, ks, among, allowed, highest=highest)
        for worth, k, there, part in zip(worths, ks, allowed, chosen.parts, strict=True):
            assert part.equal((top_k if highest else bottom_k)(worth, k, there))

    @settings(max_examples=25)
    @given(contests(900), st.floats(0, 1))
    def test_grow_outside_a_mask_and_among_what_was_dropped(self, contest, share):
        worth, _, active = contest
        mask = active.to(worth.dtype)
        dropped = active & (torch.rand(len(active)) < 0.4)
        candidates = ~active | dropped
        k = int(share * int(candidates.sum()))
        how = {"highest": True, "magnitude": True, "outside": True, "also": dropped}
        chosen = many.choose([worth], [k], [int(candidates.sum())], [mask], **how)
        assert chosen.flat.equal(top_k(worth.abs(), k, candidates))
        assert int(chosen.shared) == int((chosen.flat & dropped).sum())

    @settings(max_examples=25)
    @given(contests(900))
    def test_take_the_same_share_of_each_sign(self, contest):
        worth, k, allowed = contest
        n = int(allowed.sum())
        chosen = many.choose([worth], [k], [n], [allowed], by_sign=True).flat
        assert chosen.equal(SignedMagnitude().lowest(worth, k, allowed, n, torch.Generator()))

    @settings(max_examples=25)
    @given(st.lists(contests(1500), min_size=1, max_size=3), st.integers(0, 99))
    def test_draw_what_the_cpu_draws(self, rows, seed):
        allowed, ks = [a for _, _, a in rows], [k for _, k, _ in rows]
        seeds = [seed_from(torch.Generator().manual_seed(seed + i)) for i in range(len(rows))]
        sizes, among = [len(a) for a in allowed], [int(a.sum()) for a in allowed]
        drawn = many.draw(sizes, ks, among, seeds, torch.device("cpu"), allowed)
        for i, (k, there, part) in enumerate(zip(ks, allowed, drawn.parts, strict=True)):
            assert part.equal(random_k(k, there, torch.Generator().manual_seed(seed + i)))

    @pytest.mark.parametrize("optimizer", ["sgd", "adam"])
    @pytest.mark.parametrize(
        "method",
        [
            regrow.RigL(density=0.2, update_every=1, stop_at=1.0),
            regrow.SET(density=0.2, update_every=1, stop_at=1.0, on_grow="keep"),
            regrow.Dynamic(
                density=0.3, initial_density=0.6, grow=Unfired(), regrow_dropped=False,
                update_every=1, stop_at=1.0,
            ),
            regrow.RigL(density=0.2, update_every=1, stop_at=1.0, threshold="global"),
        ],
        ids=["RigL", "SET, keep", "falling, unfired", "RigL, all together"],
    )  # fmt: skip
    def test_make_updates_as_the_cpu_does(self, method, optimizer, monkeypatch):
        """Masks, weights, optimizer state, history: the same, bit for bit."""
        expected = _trained(method, optimizer)
        monkeypatch.setattr(many, "available", lambda _: True)
        asked = []
        propose = topology.swift.propose
        monkeypatch.setattr(
            topology.swift, "propose", lambda *args: asked.append(propose(*args)) or asked[-1]
        )
        found = _trained(method, optimizer)
        assert (asked[0] is not None) == (method.threshold == "layer")
        assert found[0] == expected[0]
        for one, other in zip(found[1:], expected[1:], strict=True):
            assert one.equal(other)


def _trained(method, optimizer, steps=3):
    """History, then masks, weights and optimizer state of a small run."""
    shapes = [(20, 24), (8, 10, 3, 3), (7, 9)]
    generator = torch.Generator().manual_seed(0)
    model = nn.ParameterDict(
        {str(i): nn.Parameter(torch.randn(s, generator=generator)) for i, s in enumerate(shapes)}
    )
    kinds = {
        "sgd": lambda weights: torch.optim.SGD(weights, lr=0.05, momentum=0.9),
        "adam": lambda weights: torch.optim.AdamW(weights, lr=0.01, amsgrad=True),
    }
    made = kinds[optimizer](model.parameters())
    sparse = regrow.sparsify(model, made, method, total_steps=20, include="*", seed=3)
    for step in range(steps):
        for weight in model.values():
            weight.grad = torch.randn(weight.shape, generator=generator)
            if step % 2:
                weight.grad = weight.grad.round()  # ties
        made.step()
    tensors = [*sparse.masks.values(), *sparse.fired.values(), *model.values()]
    for state in made.state.values():
        tensors += [value for value in state.values() if isinstance(value, torch.Tensor)]
    return sparse.history, *(tensor.detach() for tensor in tensors)
