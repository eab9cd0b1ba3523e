"""One layer: what applying and committing do to the weight; masks at one bit a weight."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from regrow.engine.patterns import Block, Channel, Kernel
from regrow.engine.saved import pack, unpack
from regrow.engine.selection import random_k, seeded_generator

fast = settings(max_examples=150, deadline=None)


class TestApply:
    def test_dropped_weights_become_zero_and_kept_ones_stay(self, layer, filled):
        weight = filled((6, 5))
        masked = layer((6, 5), 7)
        applied = weight.clone()
        masked.apply_(applied)
        assert applied.equal(torch.where(masked.mask > 0, weight, 0.0))
        assert set(masked.mask.unique().tolist()) == {0.0, 1.0}
        assert int(masked.mask.sum()) == masked.active == 7

    def test_held_weights_return_to_their_value(self, layer, filled):
        weight = filled((6, 5))
        available = torch.rand(6, 5, generator=seeded_generator(1)) < 0.5
        masked = layer((6, 5), 4, available=available, weight=weight)
        moved = weight + 1
        masked.apply_(moved)
        assert moved[~available].equal(weight[~available])
        assert int((moved[available] != 0).sum()) == 4

    def test_frozen_weights_have_their_value_or_zero_and_others_are_free(self, layer, filled):
        weight = filled((6, 5))
        where = torch.rand(6, 5, generator=seeded_generator(2)) < 0.5
        masked = layer((6, 5), 15, weight=weight)
        masked.freeze_(where, weight)
        moved = weight + 1
        masked.apply_(moved)
        active = masked.mask > 0
        assert (where & active).any() and (where & ~active).any()
        assert moved.equal(torch.where(active, torch.where(where, weight, weight + 1), 0))
        assert masked.learns.equal((active & ~where).float())

    def test_a_frozen_weight_that_is_grown_again_has_its_own_value(self, layer, filled):
        weight = filled((6, 5))
        where = torch.rand(6, 5, generator=seeded_generator(2)) < 0.5
        masked = layer((6, 5), 15, weight=weight)
        masked.freeze_(where, weight)
        model = weight.clone()
        for number in range(20):
            units = random_k(15, torch.ones(6, 5, dtype=torch.bool), seeded_generator(number))
            masked.committing(units, model, {}, "zero")()
            model += 1  # an optimizer's step
            masked.apply_(model)
            assert model[units & where].equal(weight[units & where])
            assert not model[~units].any()

    def test_rescaling_leaves_frozen_weights(self, layer, filled):
        weight = filled((6, 5))
        where = torch.rand(6, 5, generator=seeded_generator(2)) < 0.5
        masked = layer((6, 5), 15, weight=weight)
        masked.freeze_(where, weight)
        scaled = weight.clone()
        masked.rescale_(scaled, 2.0)
        assert scaled.equal(torch.where((masked.mask > 0) & ~where, 2 * weight, weight))

    def test_frozen_weights_are_saved_and_need_the_same_places(self, layer, filled):
        weight = filled((6, 5))
        where = torch.rand(6, 5, generator=seeded_generator(2)) < 0.5
        donor, masked, other, plain = (layer((6, 5), 15, weight=weight) for _ in range(4))
        donor.freeze_(where, weight)
        masked.freeze_(where, torch.zeros(6, 5))
        other.freeze_(~where, weight)
        state, resumed = donor.state_dict(), weight + 1
        masked.loading(state, masked.check_state(state), resumed)()
        expected = weight + 1
        donor.apply_(expected)
        assert resumed.equal(expected)
        for unfit in (other, plain):
            with pytest.raises(ValueError, match="w had other weights frozen"):
                unfit.check_state(state)
        with pytest.raises(ValueError, match="frozen of w is missing"):
            donor.check_state(plain.state_dict())

    @pytest.mark.parametrize("pattern", [Kernel(), Channel(), Block(2)])
    def test_a_unit_with_a_held_weight_is_held_whole(self, layer, pattern):
        shape = (6, 5, 2, 2)
        available = torch.ones(shape, dtype=torch.bool)
        available[3, 2, 1, 1] = False
        units = pattern.units(shape)
        masked = layer(shape, units - 1, pattern, available=available, weight=torch.ones(shape))
        assert masked.n_free == units - 1
        assert (masked.held != 0).equal(masked.mask == 0)
        assert layer(shape, units, pattern, available=available).active == units - 1
        available[0] = False
        with pytest.raises(ValueError, match=rf"w: {units - 1} units are to be active, but only"):
            layer(shape, units - 1, pattern, available=available)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_follows_the_weight_to_another_dtype(self, layer, dtype, filled):
        available = torch.arange(30).reshape(6, 5) > 4
        masked = layer((6, 5), 7, available=available, weight=filled((6, 5)))
        weight = filled((6, 5)).to(dtype)
        masked.follow_(weight)
        masked.apply_(weight)
        assert weight.dtype == masked.mask.dtype == masked.held.dtype == dtype
        assert weight[0].equal(filled((6, 5))[0].to(dtype))


class TestCommit:
    def test_grown_weights_start_at_zero_regrown_ones_stay_as_they_were(self, layer):
        masked = layer((1, 4), 2)
        masked.mask.copy_(torch.tensor([[1, 1, 0, 0]]))
        weight = torch.tensor([[3.0, 5.0, 7.0, 9.0]])  # as before masking
        slot = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
        masked.apply_(weight)
        units = torch.tensor([[True, False, True, False]])
        masked.committing(units, weight, {"exp_avg": slot}, "zero")()
        assert weight.tolist() == [[3.0, 0.0, 0.0, 0.0]]
        assert slot.tolist() == [[1.0, 2.0, 0.0, 4.0]]
        assert masked.units().equal(units)

    def test_the_mask_is_changed_in_place_so_that_compiled_code_sees_it(self, layer):
        masked = layer((2, 4), 4)
        mask = masked.mask
        masked.committing(~masked.units(), torch.ones(2, 4), {}, "zero")()
        assert masked.mask is mask


class TestPack:
    @fast
    @given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(0, 99), st.floats(0, 1))
    def test_unpacking_gives_the_mask_back(self, shape, seed, density):
        everyone = torch.ones(shape, dtype=torch.bool)
        mask = random_k(int(density * everyone.numel()), everyone, seeded_generator(seed))
        packed = pack(mask)
        assert packed.numel() == -(-mask.numel() // 8)
        assert unpack(packed, tuple(shape)).equal(mask)

    @pytest.mark.parametrize(
        "packed", [torch.zeros(2, dtype=torch.uint8), torch.zeros(1), torch.zeros(0).byte()]
    )
    def test_what_does_not_fit_is_refused(self, packed):
        with pytest.raises(ValueError, match=r"hold no mask of shape \(2, 4\)"):
            unpack(packed, (2, 4))
