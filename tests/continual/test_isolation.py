"""Exact by construction: what a task answers never changes, whatever is learnt after it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import regrow
from regrow.continual import TaskNetwork
from regrow.engine.allocation import ERK, Uniform
from regrow.engine.patterns import FanIn, Kernel
from regrow.engine.scores import Gradient, Momentum, Random, Unfired

POLICIES = [
    ("chosen", "fixed", "error"),
    ("chosen", "free", "error"),
    ("all", "fixed", "reuse"),
    ("all", "free", "error"),
    ("none", "free", "error"),
]
SCORES = [Random(), Unfired(), Gradient(), Momentum()]


def dynamic(density=0.3, grow=SCORES[0], **options):
    chosen = {"drop_fraction": 0.5, "update_every": 2, "stop_at": 1.0} | options
    return regrow.Dynamic(density=density, grow=grow, **chosen)


@settings(max_examples=60)
@given(
    model=st.sampled_from(["linear", "batch norm", "group norm", "attention"]),
    optimizers=st.lists(st.sampled_from(["sgd", "nesterov", "adamw"]), min_size=5, max_size=5),
    classes=st.lists(st.integers(1, 6), min_size=5, max_size=5),
    grow=st.sampled_from([*SCORES, None]),
    policy=st.sampled_from(POLICIES),
    density=st.sampled_from([0.1, 0.3, 0.5]),
    seed=st.integers(0, 99),
)
def test_earlier_tasks_answer_bit_for_bit_and_as_they_were_trained(
    lab, model, optimizers, classes, grow, policy, density, seed
):
    reuse, share, when_full = policy
    allocation = Uniform() if reuse == "none" else ERK()
    if grow is None:
        method = regrow.Static(density=density, allocation=allocation)
    else:
        method = dynamic(density, grow, allocation=allocation)
    torch.manual_seed(seed)
    network = TaskNetwork(
        lab.models[model](), method, reuse=reuse, share=share, when_full=when_full, seed=seed
    )
    before: list[torch.Tensor] = []
    for kind, labels in zip(optimizers, classes, strict=True):
        lab.learn(network, labels, kind)
        network.model.eval()
        with torch.no_grad():
            trained = network.model(lab.x)
        network.finish_task()
        before.append(trained)
        assert trained.shape == (len(lab.x), labels)
        for task, logits in enumerate(before):
            assert network.logits(lab.x, task).equal(logits)


@pytest.mark.parametrize(
    "method",
    [
        regrow.SET(density=0.2, update_every=2),
        regrow.RigL(density=0.2, update_every=2),
        regrow.SNFS(density=0.2, update_every=2),
        regrow.GMP(density=0.2, update_every=2),
        regrow.MEST(density=0.2, update_every=2, soft_memory=0.5),
        regrow.GraNet(density=0.2, update_every=2),
        dynamic(pattern=Kernel()),
        dynamic(pattern=FanIn()),
    ],
    ids=lambda method: f"{method.name} {method.pattern}",
)
@pytest.mark.parametrize("reuse", ["chosen", "all"])
def test_methods_of_the_engine_are_isolated(lab, method, reuse):
    if reuse == "all" and method.pattern.group((1, 4)):
        pytest.skip("refused: what is free does not fall into equal groups")
    network = TaskNetwork(lab.convolution(), method, reuse=reuse, when_full="reuse")
    before = []
    for _ in range(6):
        lab.learn(network, 2, "adamw")
        network.finish_task()
        before.append(network.logits(lab.x, network.active))
    for task, logits in enumerate(before):
        assert network.logits(lab.x, task).equal(logits)


@pytest.mark.parametrize("grow", SCORES, ids=str)
def test_frozen_weights_are_dropped_and_come_back_with_their_own_value(lab, grow):
    network = TaskNetwork(lab.linear(), dynamic(0.4, grow))
    lab.learn(network)
    network.finish_task()
    values, used = network.view.store, network.used()
    task = network.add_task(2)
    optimizer = lab.optimizers["sgd"](network.parameters())
    network.sparsify(optimizer, total_steps=40)
    returned, away = 0, {name: torch.zeros_like(mask) for name, mask in used.items()}
    for _ in range(40):
        lab.step(network, task, optimizer)
        for name, kept in network.masks(task).items():
            weight = network.model.get_parameter(name).detach()
            assert weight[kept & used[name]].equal(values[name][kept & used[name]])
            assert not weight[~kept].any()
            returned += int((away[name] & kept).sum())
            away[name] = used[name] & ~kept
    assert returned > 0


def test_the_first_task_is_plain_sparse_training(lab):
    method = dynamic(0.3, Gradient())
    torch.manual_seed(5)
    network = TaskNetwork(lab.linear(), method)
    lab.learn(network, classes=3)
    torch.manual_seed(5)
    model = lab.linear()
    optimizer = lab.optimizers["sgd"](model.parameters())
    seed = network.current.sparse.seed
    regrow.sparsify(model, optimizer, method, total_steps=8, exclude="4.weight", seed=seed)
    for _ in range(8):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(lab.x), torch.arange(12) % 3)
        loss.backward()
        optimizer.step()
    for mine, plain in zip(network.parameters(), model.parameters(), strict=True):
        assert mine.equal(plain)


class TestWhatIsNew:
    def test_free_weights_are_drawn_anew_from_the_layers_first_values(self, lab):
        network = TaskNetwork(lab.linear(), dynamic(0.3))
        first = network.model[0].weight.detach().clone()
        lab.learn(network)
        network.finish_task()
        used = network.used()["0.weight"]
        network.add_task(2)
        begun = network.model[0].weight.detach()
        assert begun[used].equal(network.view.store["0.weight"][used])
        assert set(begun[~used].tolist()) <= set(first.flatten().tolist())
        assert not begun[~used].equal(first[~used])
        assert float(begun[~used].std()) == pytest.approx(float(first.std()), rel=0.2)

    def test_norms_and_biases_begin_as_they_were_and_heads_do_not_repeat(self, lab):
        network = TaskNetwork(lab.convolution(), dynamic())
        own = {n: p.detach().clone() for n, p in network.model.named_parameters() if "bias" in n}
        heads = []
        for _ in range(3):
            task = network.add_task(5)
            assert all(network.model.get_parameter(name).equal(own[name]) for name in list(own)[:3])
            assert network.model[2].running_mean.count_nonzero() == 0
            heads.append(network.view.head.weight.detach().clone())
            optimizer = lab.optimizers["sgd"](network.parameters())
            network.sparsify(optimizer, total_steps=3)
            lab.step(network, task, optimizer)
            network.finish_task()
        assert not heads[1].equal(heads[2])

    def test_statistics_of_batch_norm_are_the_tasks_own(self, lab):
        network = TaskNetwork(lab.convolution(), dynamic())
        means = []
        for _ in range(2):
            lab.learn(network)
            network.finish_task()
            means.append(network.model[2].running_mean.clone())
        network.activate(0)
        assert network.model[2].running_mean.equal(means[0])
        assert not means[0].equal(means[1])


class TestTamperingWithTheModel:
    def test_is_undone_when_a_task_is_activated(self, lab):
        network = TaskNetwork(lab.convolution(), dynamic())
        lab.learn(network)
        network.finish_task()
        before = network.logits(lab.x, 0)
        network.model.train()(lab.x + 3)  # moves the statistics
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(1)
        assert network.logits(lab.x, 0).equal(before)

    def test_an_old_optimizer_refuses_to_step(self, lab):
        network = TaskNetwork(lab.linear(), dynamic())
        task, optimizer = lab.learn(network)
        network.finish_task()
        with pytest.raises(RuntimeError, match="the task it was made for is finished"):
            lab.step(network, task, optimizer)
        network.add_task(2)
        with pytest.raises(RuntimeError, match="finished"):
            optimizer.step()
        network.sparsify(lab.optimizers["sgd"](network.parameters()), total_steps=3)
        with pytest.raises(RuntimeError, match="finished"):
            optimizer.step()

    @pytest.mark.parametrize("reuse", ["chosen", "all", "none"])
    def test_steps_before_it_is_sparse_do_not_reach_earlier_tasks(self, lab, reuse):
        network = TaskNetwork(lab.linear(), dynamic(allocation=Uniform()), reuse=reuse)
        lab.learn(network)
        network.finish_task()
        task = network.add_task(2)
        optimizer = lab.optimizers["sgd"](network.parameters())
        lab.step(network, task, optimizer)
        network.sparsify(optimizer, total_steps=5)
        for _ in range(5):
            lab.step(network, task, optimizer)
        network.model.eval()
        trained = network.model(lab.x)
        network.finish_task()
        assert network.logits(lab.x, task).equal(trained)

    def test_the_same_optimizer_may_serve_if_it_gets_the_new_head(self, lab):
        network = TaskNetwork(lab.linear(), dynamic())
        network.add_task(2)
        optimizer = lab.optimizers["adamw"](network.parameters())
        for task in range(3):
            if task:
                network.add_task(2)
                optimizer.add_param_group({"params": list(network.view.head.parameters())})
            network.sparsify(optimizer, total_steps=4)
            for _ in range(4):
                lab.step(network, task, optimizer)
            network.finish_task()
        assert len(optimizer._optimizer_step_pre_hooks) == 1
        assert len(network.tasks) == 3

    def test_the_optimizer_refuses_to_step_while_another_task_is_shown(self, lab):
        network = TaskNetwork(lab.linear(), dynamic())
        lab.learn(network)
        network.finish_task()
        task, optimizer = lab.learn(network)
        network.activate(0)
        with pytest.raises(RuntimeError, match=r"while task 0 was shown: activate\(1\)"):
            lab.step(network, task, optimizer)
        network.activate(task)
        lab.step(network, task, optimizer)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_looking_at_earlier_tasks_does_not_disturb_the_one_being_learnt(lab, kind):
    ends = []
    for looks in (False, True):
        torch.manual_seed(1)
        network = TaskNetwork(lab.convolution(), dynamic(0.3, Momentum()))
        lab.learn(network)
        network.finish_task()
        task = network.add_task(3)
        optimizer = lab.optimizers[kind](network.parameters())
        network.sparsify(optimizer, total_steps=10)
        for _ in range(10):
            lab.step(network, task, optimizer)
            if looks:
                network.logits(lab.x, 0)
                assert network.model.training
        network.finish_task()
        ends.append(network.logits(lab.x, task))
    assert ends[0].equal(ends[1])
