"""A task's life: what is asked in the wrong order, of nobody, or too much of."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn

import regrow
from regrow.continual import CapacityError, TaskNetwork, group_norm_
from regrow.engine.allocation import ERK, Uniform
from regrow.engine.patterns import Channel, FanIn
from regrow.engine.scores import Momentum


def static(density=0.3, **options):
    return regrow.Static(density=density, **{"allocation": Uniform()} | options)


def dynamic(density=0.3):
    return regrow.Dynamic(density=density, grow=Momentum(), update_every=2, stop_at=1.0)


class TestErrors:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"head": "nothing"}, r"head='nothing'.*'0', '2', '4'"),
            ({"reuse": "some"}, "reuse='some'"),
            ({"share": 2}, "share=2"),
            ({"when_full": "stop"}, "when_full='stop'"),
            ({"reuse": "none", "when_full": "reuse"}, "falls back on what"),
            ({"reuse": "all", "method": static(pattern=FanIn())}, "equally many units"),
            ({"exclude": ["nothing.*"]}, "matches no parameter"),
        ],
    )
    def test_bad_arguments_are_named(self, lab, options, message):
        options = {"method": static()} | options
        with pytest.raises(ValueError, match=message):
            TaskNetwork(lab.linear(), **options)

    def test_a_method_is_needed(self, lab):
        with pytest.raises(TypeError, match="method="):
            TaskNetwork(lab.linear(), "SET")

    def test_a_model_needs_more_than_its_head(self):
        with pytest.raises(ValueError, match="nothing but its head"):
            TaskNetwork(nn.Linear(4, 2), static())
        with pytest.raises(ValueError, match="head=None"):
            TaskNetwork(nn.Sequential(nn.Conv2d(1, 1, 1)), static())

    @pytest.mark.parametrize(
        ("classes", "kind", "message"),
        [
            (0, ValueError, "at least one class"),
            ([], ValueError, "at least one class"),
            ([1, 2, 1], ValueError, "comes twice"),
            (True, TypeError, "classes=True"),
            ("ab", TypeError, "classes='ab'"),
        ],
    )
    def test_classes_are_checked_and_nothing_is_changed(self, lab, classes, kind, message):
        network = TaskNetwork(lab.linear(), static())
        before = copy.deepcopy(network.model.state_dict())
        with pytest.raises(kind, match=message):
            network.add_task(classes)
        assert network.tasks == [] and network.learning is None
        assert all(v.equal(before[k]) for k, v in network.model.state_dict().items())

    def test_a_task_that_was_never_learnt_is_named_with_those_that_were(self, lab):
        network = TaskNetwork(lab.linear(), static())
        with pytest.raises(ValueError, match="task=0 was never added; those are none"):
            network.activate(0)
        lab.learn(network, name="digits")
        network.finish_task()
        for task in (1, -1, "letters", True):
            with pytest.raises(ValueError, match=r"was never added; those are digits"):
                network.logits(lab.x, task)
        assert network.logits(lab.x, "digits").equal(network.logits(lab.x, 0))

    def test_what_comes_too_early_or_twice(self, lab):
        network = TaskNetwork(lab.linear(), static())
        optimizer = lab.optimizers["sgd"](network.parameters())
        for call in (network.finish_task, lambda: network.sparsify(optimizer, total_steps=1)):
            with pytest.raises(RuntimeError, match=r"add_task\(\) first"):
                call()
        network.add_task(2)
        for call in (network.finish_task, lambda: network.masks(0)):
            with pytest.raises(RuntimeError, match=r"call sparsify\(\) first"):
                call()
        with pytest.raises(RuntimeError, match="task 0 is being learnt"):
            network.add_task(2)
        with pytest.raises(ValueError, match="optimizer does not hold 4, the head of task 0"):
            network.sparsify(optimizer, total_steps=1)
        optimizer = lab.optimizers["sgd"](network.parameters())
        with pytest.raises(ValueError, match="total_steps=0"):
            network.sparsify(optimizer, total_steps=0)
        network.sparsify(optimizer, total_steps=1)
        with pytest.raises(RuntimeError, match="sparse already"):
            network.sparsify(optimizer, total_steps=1)

    def test_a_name_comes_once(self, lab):
        network = TaskNetwork(lab.linear(), static())
        lab.learn(network, name="a")
        network.finish_task()
        with pytest.raises(ValueError, match="name='a'"):
            network.add_task(2, name="a")


def test_labels_of_unequal_and_of_one_class(lab):
    network = TaskNetwork(lab.linear(), dynamic())
    for labels in (["cat", "dog", "fox"], [7], 5):
        lab.learn(network, labels)
        network.finish_task()
    assert [task.classes for task in network.tasks] == [
        ("cat", "dog", "fox"),
        (7,),
        tuple(range(5)),
    ]
    assert [network.logits(lab.x, task).shape[1] for task in range(3)] == [3, 1, 5]


class TestCapacity:
    @pytest.mark.parametrize("reuse", ["all", "none"])
    def test_a_fixed_share_runs_out_exactly_when_it_must(self, lab, reuse):
        network = TaskNetwork(lab.linear(), static(0.25), reuse=reuse)
        for task in range(4):
            lab.learn(network, steps=1)
            network.finish_task()
            assert network.capacity().learnt == (144,) * (task + 1)
        assert network.capacity().free == 0
        before = network.logits(lab.x, 0)
        with pytest.raises(CapacityError, match=r"nothing is free|none of 576 units is free"):
            network.add_task(2)
        assert network.learning is None and len(network.tasks) == 4
        assert network.logits(lab.x, 0).equal(before)

    def test_too_little_that_is_left_is_an_error_with_numbers(self, lab):
        network = TaskNetwork(lab.linear(), static(0.6), reuse="all")
        lab.learn(network, steps=1)
        network.finish_task()
        with pytest.raises(CapacityError, match=r"345 units .* wanted .*1 before have left 231"):
            network.add_task(2)
        assert network.add_task(2, density=0.4) == 1

    def test_the_fallback_is_reuse_alone(self, lab):
        network = TaskNetwork(lab.linear(), static(0.6), reuse="all", when_full="reuse")
        for _ in range(3):
            lab.learn(network)
            network.finish_task()
        capacity = network.capacity()
        assert capacity.learnt == (345, 231, 0) and capacity.sizes == (345, 576, 576)
        assert capacity.reused == (0, 345, 576) and capacity.free == 0

    @pytest.mark.parametrize("reuse", ["all", "none", "chosen"])
    def test_a_share_of_what_is_free_never_runs_out(self, lab, reuse):
        network = TaskNetwork(lab.linear(), static(0.5), reuse=reuse, share="free")
        for _ in range(4):
            lab.learn(network, steps=1)
            network.finish_task()
        if reuse != "chosen":
            assert network.capacity().learnt == (288, 144, 72, 36)
        else:
            assert network.capacity().sizes[:2] == (288, 144)

    def test_random_masks_leave_the_free_pool_that_chance_leaves(self):
        model = nn.Sequential(nn.Linear(200, 100), nn.ReLU(), nn.Linear(100, 2))
        network = TaskNetwork(model, static(0.2))
        for _ in range(5):
            network.add_task(2)
            network.sparsify(torch.optim.SGD(network.parameters(), lr=0.1), total_steps=1)
            network.finish_task()
        assert network.capacity().free == pytest.approx(0.8**5, abs=0.01)

    def test_erk_gives_full_layers_share_to_the_others(self, lab):
        network = TaskNetwork(lab.convolution(), static(0.4, allocation=ERK()), reuse="all")
        for _ in range(2):
            lab.learn(network)
            network.finish_task()
        first, second = network.capacity().learnt
        assert first == second
        assert network.capacity().layers["1.weight"][1] == 0  # dense for the first task already

    def test_densities_by_glob_are_of_each_layer(self, lab):
        density = {"0.*": 0.5, "*": 0.25}
        network = TaskNetwork(lab.linear(), static(density), reuse="all")
        for _ in range(2):
            lab.learn(network)
            network.finish_task()
        assert network.capacity().layers == {"0.weight": (384, 0), "2.weight": (192, 96)}
        with pytest.raises(CapacityError, match=r"192 units of 0\.weight are wanted"):
            network.add_task(2)


class TestSaving:
    def saved(self, *parts):
        file = io.BytesIO()
        torch.save(parts, file)
        file.seek(0)
        return torch.load(file, weights_only=True)

    @pytest.mark.parametrize("reuse", ["chosen", "all", "none"])
    @pytest.mark.parametrize("kind", ["sgd", "adamw"])
    def test_a_half_learnt_task_goes_on_bit_for_bit(self, lab, reuse, kind):
        def network():
            method = regrow.Dynamic(
                density=0.2, grow=Momentum(), update_every=2, stop_at=1.0, allocation=Uniform()
            )
            return TaskNetwork(lab.convolution(), method, reuse=reuse)

        torch.manual_seed(1)
        one = network()
        lab.learn(one)
        one.finish_task()
        task = one.add_task(3, density=0.25)
        optimizer = lab.optimizers[kind](one.parameters())
        one.sparsify(optimizer, total_steps=9)
        for _ in range(4):
            lab.step(one, task, optimizer)
        one.activate(0)  # killed while another task is looked at
        state, optimizer_state = self.saved(one.state_dict(), optimizer.state_dict())
        one.activate(task)
        torch.manual_seed(2)
        other = network()
        other.load_state_dict(state)
        assert other.active == 0 and other.learning == task
        assert other.logits(lab.x, 0).equal(one.logits(lab.x, 0))
        other.activate(task)
        again = lab.optimizers[kind](other.parameters())
        again.load_state_dict(optimizer_state)
        sparse = other.sparsify(again, total_steps=9)
        assert sparse.steps == 4
        for run, driver in ((one, optimizer), (other, again)):
            for _ in range(5):
                lab.step(run, task, driver)
            run.finish_task()
        for number in range(2):
            assert one.logits(lab.x, number).equal(other.logits(lab.x, number))
        lab.learn(one), lab.learn(other)
        assert all(a.equal(b) for a, b in zip(one.parameters(), other.parameters(), strict=True))

    def test_a_task_that_was_only_added_goes_on(self, lab):
        one, other = (TaskNetwork(lab.linear(), dynamic()) for _ in range(2))
        one.add_task(4)
        other.load_state_dict(self.saved(one.state_dict())[0])
        for network in (one, other):
            optimizer = lab.optimizers["sgd"](network.parameters())
            network.sparsify(optimizer, total_steps=2)
            lab.step(network, 0, optimizer)
            network.finish_task()
        assert one.logits(lab.x, 0).equal(other.logits(lab.x, 0))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda s: s.update(version=9), "no state of a TaskNetwork"),
            (lambda s: s.pop("store"), "store is missing"),
            (lambda s: s["settings"].update(reuse="all"), "reuse was 'all'"),
            (lambda s: s["store"].pop("0.weight"), r"store does not fit.*0\.weight"),
            (lambda s: s["store"].update({"0.weight": torch.ones(2)}), r"0\.weight is \(2,\)"),
            (lambda s: s["tasks"][0].pop("own"), "task 0 is damaged"),
            (lambda s: s["tasks"][0]["masks"].update({"0.weight": torch.ones(3)}), "mask 0.weight"),
            (lambda s: s["tasks"][0]["own"].pop("4.bias"), "task 0 does not fit"),
            (lambda s: s.update(active=7), "active is 7"),
        ],
    )
    def test_damage_is_refused_and_changes_nothing(self, lab, change, message):
        network = TaskNetwork(lab.linear(), dynamic())
        lab.learn(network)
        network.finish_task()
        before = network.logits(lab.x, 0)
        state = copy.deepcopy(network.state_dict())
        change(state)
        with pytest.raises(ValueError, match=message):
            network.load_state_dict(state)
        assert network.logits(lab.x, 0).equal(before)


def test_only_masks_heads_and_what_changed_are_stored_for_a_task(lab):
    network = TaskNetwork(lab.convolution(), dynamic())
    network.model[2].requires_grad_(False)
    lab.learn(network)
    task = network.finish_task()
    assert {mask.dtype for mask in task.masks.values()} == {torch.uint8}
    assert sum(mask.numel() for mask in task.masks.values()) == (144 + 576) // 8
    assert "2.weight" in task.own and "1.weight" not in task.own
    assert task.own["2.weight"] is network.view.fresh.own["2.weight"]  # was not learnt


def test_group_norms_take_the_place_of_batch_norms(lab):
    model = group_norm_(lab.convolution(), groups=3)
    assert [type(m) for m in model if isinstance(m, nn.GroupNorm | nn.BatchNorm2d)] == [
        nn.GroupNorm
    ] * 2
    assert model[2].num_groups == 2
    alone = torch.cat([model(row[None]) for row in lab.x])
    assert torch.allclose(model(lab.x), alone, atol=1e-6)
    with pytest.raises(ValueError, match="groups=0"):
        group_norm_(model, 0)
    with pytest.raises(ValueError, match="model is a batch norm"):
        group_norm_(nn.BatchNorm1d(2))


@pytest.mark.parametrize("reuse", ["all", "none"])
def test_what_is_free_is_counted_in_outputs_however_weights_are_stored(lab, reuse):
    """Of a transposed convolution, whose weights are (in, out, *kernel), inputs were counted."""
    model = nn.Sequential(
        nn.Unflatten(1, (8, 3)), nn.ConvTranspose1d(8, 6, 2), nn.Flatten(), nn.Linear(24, 3)
    )
    network = TaskNetwork(model, static(density=1 / 3, pattern=Channel()), reuse=reuse)
    for task in range(3):
        lab.learn(network, 3)
        network.finish_task()
        used = network.used()["1.weight"].any(2)
        assert used.all(0).equal(used.any(0))
        assert int(used.all(0).sum()) == 2 * (task + 1)
    with pytest.raises(CapacityError, match=r"units is free|nothing is free"):
        lab.learn(network, 3)


def test_labels_that_an_earlier_task_has_too_are_told_of(caplog):
    """A class that was added twice had two outputs, and nobody was told."""
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    network = TaskNetwork(model, regrow.Static(density=0.1))
    assert repr(network) == "TaskNetwork(Sequential, Static: 0 tasks learnt)"
    told = []
    for labels in (["cat", "dog"], ["dog", "hen"], ["hen", "dog"], 2, 2):
        caplog.clear()
        number = network.add_task(labels)
        assert repr(network).endswith(f"{number} tasks learnt, learning '{number}')")
        network.sparsify(torch.optim.SGD(network.parameters(), lr=0.1), total_steps=1)
        network.finish_task()
        told.append([record.getMessage() for record in caplog.records if "classes" in record.msg])
    # The same labels all over are the same classes seen otherwise; numbers say nothing.
    assert [len(one) for one in told] == [0, 1, 1, 0, 0]
    assert told[1][0].startswith("classes ['dog'] are those of task 0, too")
