"""The masks of a whole model: all layers move, or none does."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import regrow
from regrow.engine.allocation import Uniform
from regrow.engine.changes import LayerChange
from regrow.engine.finite import check_finite
from regrow.engine.layer import MaskedLayer
from regrow.engine.patterns import Element, Kernel
from regrow.engine.plan import make_plan
from regrow.engine.saved import pack
from regrow.engine.selection import seeded_generator
from regrow.engine.topology import Topology
from regrow.engine.update import Moves

SHAPES = [(6, 5), (4, 3, 2, 2), (1, 1)]
METHOD = regrow.RigL(density=0.5, allocation=Uniform(), drop_fraction=0.5)
MOVES = {"w0": Moves(exchange=3), "w1": Moves(exchange=4)}


@pytest.fixture
def make(weights):
    """make(): a model with gradients, its topology, and an optimizer with momentum."""

    def build(method=METHOD, shapes=SHAPES, available=None):
        model = weights(shapes)
        layers = [
            MaskedLayer(
                layer,
                method.pattern,
                model.get_parameter(layer.name),
                seeded_generator(0, layer.name),
                available=(available or {}).get(layer.name),
            )
            for layer in make_plan(model, method, include="*").layers
        ]
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for weight in model.parameters():
            weight.grad = torch.arange(float(weight.numel())).reshape(weight.shape) - 7.5
        optimizer.step()
        topology = Topology(model, layers)
        topology.apply_()
        return model, topology, optimizer

    return build


def state(model, topology, optimizer):
    return copy.deepcopy(
        (dict(model.state_dict()), optimizer.state_dict(), topology.state_dict(), topology.kept())
    )


def gradients_of(model):
    return {name: weight.grad for name, weight in model.named_parameters()}


def generator_for(name, role):
    return seeded_generator("update", name, role)


class TestApply:
    def test_every_weight_outside_its_mask_is_zero(self, make):
        model, topology, _ = make()
        for name, kept in topology.kept().items():
            weight = model.get_parameter(name)
            assert not weight[~kept].any()
            assert weight[kept].all()

    def test_counts_are_the_plans(self, make):
        _, topology, _ = make()
        assert [int(kept.sum()) for kept in topology.kept().values()] == [15, 24, 1]
        assert [layer.active for layer in topology.layers] == [15, 24, 1]

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
    def test_follows_a_model_that_changes_its_dtype(self, make, dtype):
        model, topology, _ = make()
        before = topology.kept()
        model.to(dtype)
        for weight in model.parameters():
            weight.data.fill_(1.0)
        topology.apply_()
        for name, kept in topology.kept().items():
            assert model.get_parameter(name).dtype == dtype
            assert (model.get_parameter(name) != 0).equal(kept)
            assert kept.equal(before[name])


class TestMemoryFormat:
    """A multiply by a mask laid out otherwise leaves the fast path."""

    @pytest.fixture
    def run(self):
        model = nn.Sequential(nn.Conv2d(6, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1))

        def begin(memory_format, method):
            made = copy.deepcopy(model).to(memory_format=memory_format)
            optimizer = torch.optim.AdamW(made.parameters(), lr=0.01)
            return made, optimizer, regrow.sparsify(made, optimizer, method, total_steps=40)

        return begin

    @staticmethod
    def train(model, optimizer, steps):
        for step in steps:
            optimizer.zero_grad()
            inputs = torch.randn(2, 6, 5, 5, generator=torch.Generator().manual_seed(step))
            model(inputs).square().mean().backward()
            optimizer.step()

    @staticmethod
    def strides(sparse):
        layers, weights = sparse._topology.layers, sparse.weights()
        assert all(la.mask.stride() == w.stride() for la, w in zip(layers, weights, strict=True))
        return weights[0].stride()

    def test_is_the_weights_own_from_the_start_and_after_loading(self, run):
        method = regrow.RigL(density=0.3, update_every=2)
        model, optimizer, sparse = run(torch.channels_last, method)
        assert self.strides(sparse) == (54, 1, 18, 6)
        self.train(model, optimizer, range(5))
        self.strides(sparse)
        other = run(torch.contiguous_format, method)
        other[2].load_state_dict(sparse.state_dict())
        assert self.strides(other[2]) == (54, 9, 3, 1)
        sparse.load_state_dict(other[2].state_dict())
        assert self.strides(sparse) == (54, 1, 18, 6)

    def test_follows_a_model_that_changes_its_own(self, run):
        model, optimizer, sparse = run(
            torch.contiguous_format, regrow.RigL(density=0.3, update_every=2)
        )
        masks = sparse.masks
        model.to(memory_format=torch.channels_last)
        self.train(model, optimizer, range(1))
        assert self.strides(sparse) == (54, 1, 18, 6)
        assert all(mask.equal(masks[name]) for name, mask in sparse.masks.items())
        self.train(model, optimizer, range(1, 9))
        self.strides(sparse)

    @pytest.mark.parametrize("method", ["RigL", "SET", "CHT", "SRigL", "SNFS", "MEST"])
    def test_changes_no_topology(self, run, method):
        found = []
        for memory_format in (torch.contiguous_format, torch.channels_last):
            chosen = regrow.METHODS[method](density=0.3, update_every=2)
            model, optimizer, sparse = run(memory_format, chosen)
            self.train(model, optimizer, range(6))
            assert len(sparse.history) == 3
            found.append(sparse.masks)
        assert all(mask.equal(found[1][name]) for name, mask in found[0].items())


class TestUpdate:
    def test_reports_what_it_did(self, make):
        model, topology, optimizer = make()
        before = topology.kept()
        changes = topology.update_(
            METHOD, MOVES, 0.0, optimizer, gradients_of(model), generator_for
        )
        after = topology.kept()
        assert list(changes) == ["w0", "w1"]
        for name, change in changes.items():
            assert change == LayerChange(
                dropped=int((before[name] & ~after[name]).sum()),
                grown=int((after[name] & ~before[name]).sum()),
                active=int(after[name].sum()),
            )
            assert change.grown > 0
            assert not model.get_parameter(name)[~after[name]].any()
        assert after["w2"].equal(before["w2"])

    @pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
    def test_one_bad_weight_in_the_last_layer_leaves_every_layer_as_it_was(
        self, make, bad, assert_same
    ):
        model, topology, optimizer = make()
        with torch.no_grad():
            model.w1[topology.kept()["w1"].nonzero()[0].tolist()] = bad
        before = state(model, topology, optimizer)
        with pytest.raises(FloatingPointError, match="the weight of w1 holds NaN or inf") as error:
            topology.update_(METHOD, MOVES, 0.0, optimizer, gradients_of(model), generator_for)
        assert "w0" not in str(error.value)
        assert_same(state(model, topology, optimizer), before)

    def test_a_score_that_is_nan_in_the_last_layer_leaves_every_layer_as_it_was(
        self, make, assert_same
    ):
        model, topology, optimizer = make()
        model.w1.grad.fill_(torch.nan)
        before = state(model, topology, optimizer)
        with pytest.raises(ValueError, match="NaN"):
            topology.update_(METHOD, MOVES, 0.0, optimizer, gradients_of(model), generator_for)
        assert_same(state(model, topology, optimizer), before)

    def test_gradients_are_needed_only_by_methods_that_read_them(self, make):
        _, topology, optimizer = make()
        method = regrow.SET(density=0.5)
        assert list(topology.update_(method, MOVES, 0.0, optimizer, {}, generator_for)) == [
            "w0",
            "w1",
        ]


class TestCheckFinite:
    @pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
    def test_every_bad_tensor_is_named_and_no_other(self, bad):
        tensors = {"a": torch.ones(3), "b": torch.tensor([1.0, bad]), "c": torch.tensor([bad])}
        with pytest.raises(FloatingPointError, match=r"the gradient of b, c holds NaN or infinite"):
            check_finite(tensors, "gradient")

    def test_large_numbers_are_numbers(self):
        check_finite({"a": torch.tensor([1e300], dtype=torch.float64)}, "weight")


class TestMoves:
    def test_layers_in_which_nothing_moves_are_left_out(self, make):
        _, topology, _ = make()
        # 0.5 of 15, 0.5 of 24; the layer of one unit is dense.
        assert topology.moves(METHOD, 0.0) == {"w0": Moves(exchange=7), "w1": Moves(exchange=12)}
        assert topology.moves(METHOD, 1.0) == {}

    @pytest.mark.parametrize(
        ("progress", "counts"), [(0.0, [30, 48]), (0.5, [9, 14]), (1, [6, 10])]
    )
    def test_a_falling_density_asks_for_the_cubics_count(self, make, progress, counts):
        method = regrow.GMP(density=0.2)
        _, topology, _ = make(method)
        moves = topology.moves(method, progress)
        for layer, count in zip(topology.layers, counts, strict=False):
            move = moves.get(layer.name, Moves())
            assert move == Moves(shrink=layer.active - count)


class TestState:
    def test_masks_take_one_bit_a_weight(self, make):
        _, topology, _ = make(shapes=[(64, 64)])
        assert topology.state_dict()["w0"]["mask"].numel() == 64 * 64 // 8

    def test_loading_restores_masks_counts_and_zeros(self, make):
        model, topology, optimizer = make()
        saved = topology.state_dict()
        before = topology.kept()
        topology.update_(METHOD, MOVES, 0.0, optimizer, gradients_of(model), generator_for)
        model, fresh, _ = make()
        fresh.update_(
            METHOD,
            MOVES,
            0.0,
            optimizer,
            gradients_of(model),
            lambda name, role: seeded_generator("other", name),
        )
        for weight in model.parameters():
            weight.data.fill_(1.0)
        fresh.load_state_dict(saved)
        for name, kept in fresh.kept().items():
            assert kept.equal(before[name])
            assert (model.get_parameter(name) != 0).equal(kept)

    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            (lambda s: s.pop("w1"), r"masks of \['w0', 'w2'\], but \['w0', 'w1', 'w2'\]"),
            (lambda s: s.update(other=s["w0"]), "masks of .*'other'"),
            (lambda s: s["w1"].update(mask=s["w0"]["mask"]), "hold no mask of shape"),
            (lambda s: s["w1"].update(mask=s["w1"]["mask"].float()), "hold no mask of shape"),
            (lambda s: s["w1"].update(fired=s["w0"]["fired"]), "hold no mask of shape"),
            (lambda s: s["w0"].update(free=pack(torch.ones(6, 5) > 0)), "other weights available"),
            (lambda s: s["w1"].update(counts=[24, 23]), "w1 goes from 24 to 23 units, here"),
        ],
    )
    def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(
        self, make, damage, message, assert_same
    ):
        model, donor, optimizer = make()
        donor.update_(METHOD, MOVES, 0.0, optimizer, gradients_of(model), generator_for)
        saved = donor.state_dict()
        damage(saved)
        model, topology, optimizer = make()
        before = state(model, topology, optimizer)
        with pytest.raises(ValueError, match=message):
            topology.load_state_dict(saved)
        assert_same(state(model, topology, optimizer), before)

    def test_a_mask_of_broken_units_is_refused(self, make):
        _, kernels, _ = make(regrow.RigL(density=0.5, pattern=Kernel()))
        saved = kernels.state_dict()
        saved["w1"]["mask"] = pack(torch.arange(48).reshape(4, 3, 2, 2) % 3 == 0)
        with pytest.raises(ValueError, match=r"mask of w1 has broken units of Kernel\(\)"):
            kernels.load_state_dict(saved)
        saved["w1"]["mask"] = pack(torch.ones(4, 3, 2, 2, dtype=torch.bool))
        kernels.load_state_dict(saved)

    def test_a_state_saved_with_other_weights_available_is_refused(self, make, assert_same):
        upper = torch.arange(30).reshape(6, 5) < 20
        _, donor, _ = make(shapes=[(6, 5)], available={"w0": upper})
        model, topology, optimizer = make(shapes=[(6, 5)], available={"w0": upper.flip(0)})
        before = state(model, topology, optimizer)
        with pytest.raises(ValueError, match="available"):
            topology.load_state_dict(donor.state_dict())
        assert_same(state(model, topology, optimizer), before)


def test_elements_are_the_default_unit():
    assert METHOD.pattern == Element()
