"""Optimizer state that is no plain moment: left alone, read and written back, or refused whole."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

import regrow
from regrow.engine import quantised
from regrow.engine.moments import slots

pytestmark = pytest.mark.usefixtures("uncompiled")

ASCENDING = torch.linspace(-1, 1, 255).tolist()


class Odd(torch.optim.SGD):
    """Momentum and one more slot of the weight's shape, of any kind."""

    def __init__(self, params, make):
        super().__init__(params, lr=0.1, momentum=0.9)
        self.make = make

    def step(self, closure=None):
        """Step, and keep the slot."""
        done = super().step(closure)
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p].setdefault("other", self.make(p))
        return done


def eight_bit(values, signed=True):
    """State as bitsandbytes keeps it, spelled out: places in a table, times a scale for 256."""
    table = torch.linspace(-1 if signed else 0, 1, 256)
    table[128 if signed else 0] = 0.0
    blocks = functional.pad(values.flatten(), (0, -values.numel() % 256)).reshape(-1, 256)
    scale = blocks.abs().amax(1)
    codes = ((blocks / scale[:, None])[:, :, None] - table).abs().argmin(2)
    state1 = codes.flatten()[: values.numel()].reshape(values.shape).to(torch.uint8)
    return {"step": 1, "state1": state1, "qmap1": table, "absmax1": scale}


class TestCodesWithATable:
    @pytest.mark.parametrize("shape", [(16, 32), (7, 9), (3, 5, 7, 7)])
    def test_are_read_as_the_numbers_they_stand_for(self, filled, shape):
        state = eight_bit(filled(shape))
        expected = torch.tensor(
            [
                float(state["qmap1"][code] * state["absmax1"][place // 256])
                for place, code in enumerate(state["state1"].flatten().tolist())
            ]
        )
        assert quantised.read(state, "state1").flatten().equal(expected)

    def test_what_is_written_unchanged_keeps_its_codes(self, filled):
        state = eight_bit(filled((16, 40)))
        before = {name: value.clone() for name, value in state.items() if name != "step"}
        quantised.writing(state, "state1", quantised.read(state, "state1"))()
        assert all(state[name].equal(value) for name, value in before.items())

    def test_what_is_written_is_the_nearest_there_is_and_zero_is_exact(self, filled):
        state = eight_bit(filled((16, 32)))
        values = quantised.read(state, "state1")
        values[3], values[4, 0] = 0.0, 9.0  # above any scale there was
        quantised.writing(state, "state1", values)()
        found = quantised.read(state, "state1")
        assert not found[3].any()
        assert found[4, 0] == pytest.approx(9.0)
        step = state["qmap1"].diff().max() * state["absmax1"].max()
        assert (found - values).abs().max() <= step

    def test_a_table_of_another_form_is_not_written(self, filled):
        state = eight_bit(filled((16, 32)))
        assert quantised.writable(state, "state1")
        assert not quantised.writable(state | {"qmap1": state["qmap1"].flip(0)}, "state1")
        assert not quantised.writable(state | {"absmax1": torch.ones(3)}, "state1")


class TestLeftAlone:
    @pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.int32, torch.int8])
    def test_flags_and_counts(self, mlp, train, dtype):
        model = mlp()
        optimizer = Odd(model.parameters(), lambda p: torch.ones_like(p, dtype=dtype))
        method = regrow.RigL(density=0.3, update_every=2, drop_fraction=0.5)
        sparse = regrow.sparsify(model, optimizer, method, total_steps=100)
        train(model, optimizer, range(10))
        assert len(sparse.history) > 2
        assert all(optimizer.state[p]["other"].all() for p in sparse.weights())
        assert "other" not in slots(optimizer, model[0].weight)


def as_float8(p):
    return torch.ones_like(p).to(torch.float8_e4m3fn)


def as_sparse(p):
    return torch.ones_like(p).to_sparse()


class Foreign(torch.Tensor):
    """A tensor class nobody knows."""


def as_foreign(p):
    return torch.ones_like(p.detach()).as_subclass(Foreign)


UNKNOWN = pytest.mark.parametrize(
    ("make", "dtype"),
    [(as_float8, "float8_e4m3fn"), (as_sparse, "sparse"), (as_foreign, "Foreign")],
)


class TestRefused:
    """By name and dtype, at the first step or at once; the way out works."""

    @UNKNOWN
    def test_at_the_first_step(self, mlp, train, make, dtype):
        model = mlp()
        optimizer = Odd(model.parameters(), make)
        sparse = regrow.sparsify(model, optimizer, regrow.RigL(density=0.3), total_steps=1000)
        with pytest.raises(ValueError, match=rf"'other'.*Odd.*0.weight.*{dtype}.*on_grow='keep'"):
            train(model, optimizer, range(2))
        assert all(not model.get_parameter(n)[~m].any() for n, m in sparse.masks.items())

    @UNKNOWN
    def test_at_once_if_the_state_is_there(self, mlp, train, make, dtype):
        model = mlp()
        optimizer = Odd(model.parameters(), make)
        train(model, optimizer, [0])
        before = model[0].weight.clone()
        with pytest.raises(ValueError, match=rf"'other'.*{dtype}"):
            regrow.sparsify(model, optimizer, regrow.RigL(density=0.3), total_steps=1000)
        assert model[0].weight.equal(before)

    @UNKNOWN
    def test_keep_and_static_topologies_go_on(self, mlp, train, make, dtype):
        for method in (
            regrow.RigL(density=0.3, update_every=2, on_grow="keep"),
            regrow.Static(density=0.3),
        ):
            model = mlp()
            optimizer = Odd(model.parameters(), make)
            sparse = regrow.sparsify(model, optimizer, method, total_steps=100)
            train(model, optimizer, range(6))
            assert sparse.density == pytest.approx(0.3, abs=0.01)

    def test_an_update_happens_whole_or_not_at_all(self, mlp, train, snapshot, assert_same):
        """The last layer's state is replaced after the first step; the first layer's is fine."""
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        method = regrow.RigL(density=0.3, update_every=100, drop_fraction=0.5)
        sparse = regrow.sparsify(model, optimizer, method, total_steps=1000)
        train(model, optimizer, range(3))
        state = optimizer.state[model[2].weight]
        state["momentum_buffer"] = as_foreign(state["momentum_buffer"])
        before = snapshot(model, nn.Identity(), sparse)
        with pytest.raises(ValueError, match=r"'momentum_buffer'.*2.weight.*Foreign"):
            sparse.update_()
        assert_same(before, snapshot(model, nn.Identity(), sparse))

    @pytest.mark.parametrize("make", [as_float8, lambda p: torch.ones_like(p, dtype=torch.int64)])
    def test_stored_layers_whose_entries_change_places(self, mlp, train, make):
        pytest.importorskip("regrow.execution.csr")
        model = mlp()
        optimizer = Odd(model.parameters(), make)
        regrow.sparsify(
            model, optimizer, regrow.RigL(density=0.3), total_steps=1000, execution="csr"
        )
        with pytest.raises(ValueError, match=r"'other'.*execution='masked'"):
            train(model, optimizer, range(2))


def bitsandbytes_adamw(params, **options):
    bnb = pytest.importorskip("bitsandbytes", reason="8-bit optimizers need bitsandbytes")
    return bnb.optim.AdamW8bit(params, lr=1e-3, min_8bit_size=1, **options)


def torchao_adamw(kind):
    def make(params):
        ao = pytest.importorskip("torchao.optim", reason="low-bit optimizers need torchao")
        return getattr(ao, kind)(params, lr=1e-3, block_size=32)

    return make


LOW_BIT = {
    "bitsandbytes": bitsandbytes_adamw,
    **{kind: torchao_adamw(kind) for kind in ("AdamW8bit", "AdamW4bit", "AdamWFp8")},
}


class TestLowBitOptimizers:
    @pytest.fixture(params=LOW_BIT)
    def low_bit(self, request, mlp):
        """low_bit(on_grow): a model of 64-64-64 that has trained to one step before an update."""

        def build(on_grow):
            torch.manual_seed(0)
            model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64))
            optimizer = LOW_BIT[request.param](model.parameters())
            method = regrow.RigL(
                density=0.3, update_every=5, drop_fraction=0.5, stop_at=1.0, on_grow=on_grow
            )
            return model, optimizer, regrow.sparsify(model, optimizer, method, total_steps=1000)

        return build

    @staticmethod
    def step(model, optimizer, number):
        generator = torch.Generator().manual_seed(number)
        inputs = torch.randn(32, 64, generator=generator)
        optimizer.zero_grad()
        loss = functional.mse_loss(model(inputs), inputs)
        loss.backward()
        optimizer.step()
        return loss.item()

    def test_grown_weights_find_zeros(self, low_bit):
        """8-bit zeros meant "largest negative value": grown weights jumped by 1.9."""
        model, optimizer, sparse = low_bit("zero")
        for number in range(4):
            self.step(model, optimizer, number)
        before, values = sparse.masks, {n: slots(optimizer, w) for n, w in self.named(model)}
        self.step(model, optimizer, 4)  # RigL's update takes the place of the step
        assert len(sparse.history) == 1
        for name, weight in self.named(model):
            grown = sparse.masks[name] & ~before[name]
            found = slots(optimizer, weight)
            assert found
            assert grown.any()
            for key, moment in found.items():
                scale = values[name][key].abs().max()
                # Four bits for squares have no zero: the lowest of sixteen numbers is 1/16.
                assert moment[grown].abs().max() <= (key == "exp_avg_sq") * scale / 15
                assert (moment - values[name][key])[~grown].abs().max() <= 0.2 * scale

    def test_the_loss_does_not_jump_and_no_weight_moves_further_than_adamw_moves_it(self, low_bit):
        model, optimizer, sparse = low_bit("zero")
        losses = []
        for number in range(40):
            before = [w.detach().clone() for w in sparse.weights()]
            losses.append(self.step(model, optimizer, number))
            for weight, old in zip(sparse.weights(), before, strict=True):
                assert (weight - old).abs()[weight != 0].max() <= 6e-3  # six learning rates
        assert losses[-1] < losses[0]
        assert max(losses) <= 1.2 * losses[0]
        for mask, weight in zip(sparse.masks.values(), sparse.weights(), strict=True):
            assert not weight[~mask].any()

    def test_mean_gives_squares_the_survivors_mean(self, low_bit):
        model, optimizer, sparse = low_bit("mean")
        for number in range(4):
            self.step(model, optimizer, number)
        before = sparse.masks
        self.step(model, optimizer, 4)
        for name, weight in self.named(model):
            found = slots(optimizer, weight)
            squares = found.get("exp_avg_sq", found.get("state2"))
            grown, stayed = sparse.masks[name] & ~before[name], sparse.masks[name] & before[name]
            assert float(squares[grown].mean()) == pytest.approx(
                float(squares[stayed].mean()), rel=0.35
            )

    @staticmethod
    def named(model):
        return [(name, w) for name, w in model.named_parameters() if w.ndim == 2]
