"""Learners: what each promises, on tasks small enough to be learnt in a second."""

from __future__ import annotations

import io
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import regrow
from regrow.continual.baselines import (
    EWC,
    FineTuning,
    Independent,
    Joint,
    Learner,
    NISPALike,
    PackNet,
    Replay,
    Setup,
    SpaceNetLike,
    SubNetworks,
    Training,
    accuracy,
)
from regrow.continual.baselines.network import MultiHead
from regrow.continual.baselines.training import fit
from regrow.continual.metrics import backward_transfer, reused_share
from regrow.continual.streams import Part, Stream, permuted, split

SET = regrow.SET(density=0.3, update_every=2)


def data(classes: int = 6, each: int = 24):
    """Images in clusters, one a class: easy to learn."""
    generator = torch.Generator().manual_seed(1)
    centres = 2 * torch.randn(classes, 1, 4, 4, generator=generator)
    labels = torch.arange(classes).repeat(each)
    inputs = centres[labels] + 0.5 * torch.randn(len(labels), 1, 4, 4, generator=generator)
    return SimpleNamespace(
        train_inputs=inputs[: 16 * classes],
        train_labels=labels[: 16 * classes],
        test_inputs=inputs[16 * classes :],
        test_labels=labels[16 * classes :],
        classes=classes,
    )


STREAM = split(data(), (2, 3, 1))
PIXELS = permuted(data(3), 3)


def perceptron() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(16, 20), nn.ReLU(), nn.Linear(20, 12), nn.ReLU(), nn.Linear(12, 2)
    )


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, padding=1),
        nn.GroupNorm(2, 8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 2),
    )


def setup_of(build=perceptron, **changes) -> Setup:
    how = {"epochs": 6, "batch": 8, "learning_rate": 0.1, "weight_decay": 1e-2} | changes
    return Setup(build, Training(**how), seed=3)


MAKE: dict[str, Callable[[Setup, Stream], Learner]] = {
    "naive": lambda setup, _: FineTuning(setup),
    "EWC": lambda setup, _: EWC(setup, 100.0, samples=20),
    "replay": lambda setup, _: Replay(setup, 12),
    "joint": Joint,
    "independent": lambda setup, _: Independent(setup),
    "independent, sparse": lambda setup, _: Independent(setup, SET),
    "PackNet": lambda setup, _: PackNet(setup, 0.4),
    "sub-networks": lambda setup, _: SubNetworks(setup, SET),
    "SpaceNet-like": lambda setup, _: SpaceNetLike(setup, 0.2, updates=5),
    "NISPA-like": lambda setup, _: NISPALike(setup, 0.3, updates=5),
}
ISOLATED = tuple(MAKE)[4:]


def learn_all(learner: Learner, stream: Stream = STREAM) -> list[list[float]]:
    rows = []
    for number, task in enumerate(stream):
        learner.learn(task)
        rows.append([accuracy(learner, i, stream[i].test) for i in range(number + 1)])
    return rows


# ---------------------------------------------------------------------- what all promise


@pytest.mark.parametrize("name", MAKE)
def test_each_learns_tasks_of_unequal_class_counts(name):
    learner = MAKE[name](setup_of(), STREAM)
    rows = learn_all(learner)
    assert learner.learnt == 3
    for number, task in enumerate(STREAM):
        logits = learner.predict(number, task.test.inputs)
        assert logits.shape == (len(task.test), task.classes) and logits.dtype == torch.float32
        assert not logits.requires_grad
        assert rows[number][number] > 0.6
    assert rows[2][2] == 1.0  # one class
    assert learner.weights_used > 0


@pytest.mark.parametrize("name", MAKE)
def test_a_task_never_learnt_is_refused(name):
    learner = MAKE[name](setup_of(epochs=1), STREAM)
    learner.learn(STREAM[0])
    for task in (1, -1):
        with pytest.raises(ValueError, match=f"task={task}: was never learnt; 1 tasks were"):
            learner.predict(task, STREAM[0].test.inputs)


@pytest.mark.parametrize("name", MAKE)
def test_what_is_said_of_one_input_does_not_depend_on_the_others(name):
    learner = MAKE[name](setup_of(convolutional, epochs=2), STREAM)
    learner.learn(STREAM[0])
    inputs = STREAM[0].test.inputs
    together, alone = learner.predict(0, inputs), learner.predict(0, inputs[3:4])
    torch.testing.assert_close(together[3:4], alone)


@pytest.mark.parametrize("name", MAKE)
def test_the_same_seed_learns_the_same(name):
    one, two = (MAKE[name](setup_of(epochs=2), STREAM) for _ in range(2))
    for learner in (one, two):
        torch.rand(7)  # torch's own generator is in another state
        for task in STREAM[:2]:
            learner.learn(task)
    for task in range(2):
        assert torch.equal(*(one_.predict(task, STREAM[task].test.inputs) for one_ in (one, two)))


@pytest.mark.parametrize("build", [perceptron, convolutional])
@pytest.mark.parametrize("name", MAKE)
def test_saved_between_tasks_it_goes_on_bit_for_bit(name, build):
    whole, first = (MAKE[name](setup_of(build, epochs=2), STREAM) for _ in range(2))
    for task in STREAM[:2]:
        whole.learn(task)
    first.learn(STREAM[0])
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    resumed = MAKE[name](setup_of(build, epochs=2), STREAM)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    inputs = STREAM[0].test.inputs
    assert torch.equal(resumed.predict(0, inputs), first.predict(0, inputs))
    resumed.learn(STREAM[1])
    for task in range(2):
        inputs = STREAM[task].test.inputs
        assert torch.equal(resumed.predict(task, inputs), whole.predict(task, inputs))
    assert resumed.weights_used == whole.weights_used


@pytest.mark.parametrize("name", MAKE)
def test_images_are_augmented_in_training_only(name):
    calls = []

    def augment(inputs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        calls.append(len(inputs))
        return inputs + 0.01 * torch.randn(inputs.shape, generator=generator)

    base = setup_of(epochs=1)
    learner = MAKE[name](Setup(base.build, base.training, augment=augment), STREAM)
    learner.learn(STREAM[0])
    seen = len(calls)
    assert seen >= 4
    first = learner.predict(0, STREAM[0].test.inputs)
    assert torch.equal(first, learner.predict(0, STREAM[0].test.inputs)) and len(calls) == seen


# ---------------------------------------------------------------------- isolation


@pytest.mark.parametrize("build", [perceptron, convolutional])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("name", ISOLATED)
def test_isolated_learners_answer_earlier_tasks_bit_for_bit_as_before(name, optimizer, build):
    rate = 0.1 if optimizer == "sgd" else 0.01
    setup = setup_of(build, epochs=3, optimizer=optimizer, learning_rate=rate)
    learner, answers = MAKE[name](setup, PIXELS), []
    rows = []
    for number, task in enumerate(PIXELS):
        learner.learn(task)
        answers.append(learner.predict(number, task.test.inputs))
        for i, before in enumerate(answers):
            assert torch.equal(learner.predict(i, PIXELS[i].test.inputs), before)
        rows.append([accuracy(learner, i, PIXELS[i].test) for i in range(number + 1)])
    assert backward_transfer(rows) == 0.0


def test_the_others_do_not():
    for name in ("naive", "EWC", "replay"):
        learner = MAKE[name](setup_of(epochs=2), PIXELS)
        learner.learn(PIXELS[0])
        before = learner.predict(0, PIXELS[0].test.inputs)
        learner.learn(PIXELS[1])
        assert not torch.equal(learner.predict(0, PIXELS[0].test.inputs), before)


# ---------------------------------------------------------------------- one by one


def test_packnet_keeps_its_share_of_what_is_free_and_reads_all_earlier_weights():
    learner = PackNet(setup_of(epochs=2), 0.5)
    learn_all(learner, PIXELS)
    weights = 16 * 20 + 20 * 12
    taken = [sum(int(m.sum()) for m in masks.values()) for masks in learner.masks]
    assert taken == [weights // 2, weights * 3 // 4, weights * 7 // 8]
    for earlier, later in zip(learner.masks, learner.masks[1:], strict=False):
        for name in earlier:
            assert not (earlier[name] & ~later[name]).any()
    assert reused_share(learner.masks) == [0.0, 2 / 3, 6 / 7]
    with pytest.raises(ValueError, match="prune_at=1"):
        PackNet(setup_of(), 0.5, prune_at=1)


def test_independent_networks_share_nothing_and_count_what_they_hold():
    dense, sparse = Independent(setup_of(epochs=1)), Independent(setup_of(epochs=1), SET)
    for learner in (dense, sparse):
        learn_all(learner, PIXELS)
    assert dense.weights_used == 3 * (16 * 20 + 20 * 12)
    shapes = {"body.1.weight": (20, 16), "body.3.weight": (12, 20)}
    kept = sum(round(SET.densities(shapes)[n] * a * b) for n, (a, b) in shapes.items())
    assert sparse.weights_used == 3 * kept


@pytest.mark.parametrize("reserve", [0.2, 0.6, 1.0])
def test_no_weight_grows_into_units_that_earlier_tasks_reserved(reserve):
    learner = SpaceNetLike(setup_of(epochs=2), 0.2, reserve=reserve, updates=3)
    for task in PIXELS:
        reserved = {name: units.clone() for name, units in learner.reserved.items()}
        used = {name: mask.clone() for name, mask in learner.used.items()}
        learner.learn(task)
        for name, mask in learner.used.items():
            new = mask & ~used[name]
            assert not new[reserved[name]].any()
            assert not (reserved[name] & ~learner.reserved[name]).any()
            if reserved[name].all():
                assert not new.any()
            else:
                assert learner.reserved[name].sum() > reserved[name].sum()
    with pytest.raises(ValueError, match="reserve=0"):
        SpaceNetLike(setup_of(), 0.2, reserve=0)


def test_stable_units_depend_on_stable_units_alone():
    learner = NISPALike(setup_of(epochs=2), 0.5, reserve=0.3, updates=3)
    for task in PIXELS:
        learner.learn(task)
        used, stable = learner.used, learner.reserved
        assert not used["1.weight"][~stable["1.weight"]].any()
        assert not used["3.weight"][~stable["3.weight"]].any()
        assert not used["3.weight"][:, ~stable["1.weight"]].any()


def test_without_strength_ewc_is_fine_tuning_and_with_much_it_holds_what_matters():
    naive, free, held = FineTuning(setup_of()), EWC(setup_of(), 0.0), EWC(setup_of(), 1e12)
    moved = []
    for learner in (free, held):
        learner.learn(PIXELS[0])
        before = [w.detach().clone() for w in learner.network.body.parameters()]
        fisher = [f.clone() for f in learner._fisher]
        learner.learn(PIXELS[1])
        after = [w.detach() for w in learner.network.body.parameters()]
        parts = zip(fisher, after, before, strict=True)
        moved.append(sum(float((f * (a - b).square()).sum()) for f, a, b in parts))
    assert moved[0] > 10 * moved[1]
    for task in PIXELS[:2]:
        naive.learn(task)
    for one, other in zip(naive.network.parameters(), free.network.parameters(), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(ValueError, match="strength=-1"):
        EWC(setup_of(), -1)


def test_fisher_information_is_the_mean_squared_gradient_sample_by_sample():
    learner = EWC(setup_of(convolutional), 1.0, samples=40)
    learner.network.add_head(3, 0)
    part = PIXELS[0].train.some(40, 0)
    found = learner._fisher_of(part, 0)
    chances = learner.predict(0, part.inputs).softmax(1)
    from regrow.engine.selection import seeded_generator

    labels = torch.multinomial(chances, 1, generator=seeded_generator(3, "labels", 0))[:, 0]
    network = learner.network.eval()
    totals = [torch.zeros_like(w) for w in network.body.parameters()]
    for image, label in zip(part.inputs, labels, strict=True):
        network.zero_grad()
        cross_entropy(network(image[None], 0), label[None]).backward()
        for total, weight in zip(totals, network.body.parameters(), strict=True):
            total.add_(weight.grad.square() / 40)
    torch.testing.assert_close(found, totals, rtol=1e-4, atol=1e-8)


def test_replay_keeps_equal_shares_of_all_tasks_so_far():
    learner = Replay(setup_of(epochs=1), 12)
    for number, task in enumerate(PIXELS):
        learner.learn(task)
        assert [len(part) for part in learner.buffer] == [12 // (number + 1)] * (number + 1)
    first = {tuple(x.flatten().tolist()) for x in PIXELS[0].train.inputs}
    assert all(tuple(x.flatten().tolist()) in first for x in learner.buffer[0].inputs)
    with pytest.raises(ValueError, match="capacity=0"):
        Replay(setup_of(), 0)


def test_joint_training_takes_the_streams_tasks_in_order():
    learner = Joint(setup_of(epochs=1), PIXELS)
    with pytest.raises(ValueError, match="is not task 0"):
        learner.learn(PIXELS[1])
    for task in PIXELS:
        learner.learn(task)
    with pytest.raises(ValueError, match="is not task 3"):
        learner.learn(PIXELS[0])


# ---------------------------------------------------------------------- the network, the loop


def test_the_loss_of_a_mixed_batch_is_that_of_each_sample_under_its_own_head():
    network = MultiHead(perceptron, seed=0)
    for number, classes in enumerate((2, 5, 1)):
        network.add_head(classes, number)
    tasks = torch.tensor([1, 0, 2, 1])
    targets = torch.tensor([4, 1, 0, 0])
    inputs = torch.randn(4, 1, 4, 4)
    each = [
        cross_entropy(network(inputs[i : i + 1], int(tasks[i])), targets[i : i + 1])
        for i in range(4)
    ]
    torch.testing.assert_close(network.mixed_loss(inputs, targets, tasks), sum(each) / 4)


def test_a_network_without_a_linear_layer_inside_has_no_head():
    for build in (lambda: nn.Linear(3, 2), lambda: nn.Sequential(nn.Flatten())):
        with pytest.raises(ValueError, match="no linear layer inside"):
            MultiHead(build, seed=0)


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("steps", [1.0, 1.0, 0.1, 0.01]),
        ("cosine", [1.0, 0.853553, 0.5, 0.146447]),
        ("constant", [1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_the_learning_rate_moves_within_a_task(schedule, rates):
    weight, seen = nn.Parameter(torch.zeros(1)), []
    training = Training(epochs=2, batch=2, learning_rate=1.0, schedule=schedule)
    optimizer = training.make_optimizer([weight])
    part = Part(torch.arange(4.0), torch.zeros(4, dtype=torch.int64))
    look = lambda: seen.append(optimizer.param_groups[0]["lr"])  # noqa: E731
    fit(lambda _: weight.sum(), optimizer, part, Setup(perceptron, training), before_step=look)
    assert seen == pytest.approx(rates, abs=1e-6)


def test_settings_of_training_are_checked_and_steps_counted():
    training = Training(epochs=2, batch=4)
    assert [training.steps(n) for n in (1, 4, 11)] == [2, 2, 4]
    for bad in ({"epochs": 0}, {"batch": 0}, {"optimizer": "lion"}, {"schedule": "x"}):
        with pytest.raises(ValueError, match=f"{next(iter(bad))}="):
            Training(**({"epochs": 1} | bad))


def test_fit_takes_as_many_steps_as_it_says_and_each_sample_once_an_epoch():
    seen: list[torch.Tensor] = []
    weight = nn.Parameter(torch.zeros(1))
    training = Training(epochs=3, batch=4)

    def loss(batch):
        seen.append(batch.inputs)
        assert batch.inputs.equal(part.inputs[batch.ids])
        return (weight * batch.inputs).sum() * 0

    part = Part(torch.arange(10.0), torch.zeros(10, dtype=torch.int64))
    told: list[float] = []
    fit(loss, torch.optim.SGD([weight], 0.1), part, Setup(perceptron, training), tell=told.append)
    assert len(seen) == training.steps(10) == 6 and told[-1] == 1.0
    for epoch in range(3):
        inside = torch.cat(seen[2 * epoch : 2 * epoch + 2]).tolist()
        assert len(set(inside)) == 8
    assert not torch.equal(seen[0], seen[2])


def test_a_loss_that_is_no_number_and_no_samples_are_errors():
    once = Setup(perceptron, Training(epochs=1))
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], 0.1)
    part = Part(torch.arange(4.0), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        fit(lambda _: weight.sum() * torch.inf, optimizer, part, once)
    empty = Part(part.inputs[:0], part.targets[:0])
    with pytest.raises(ValueError, match="no sample to train on"):
        fit(lambda _: weight.sum(), optimizer, empty, once)
    learner = FineTuning(setup_of(epochs=1))
    learner.learn(PIXELS[0])
    with pytest.raises(ValueError, match="no sample to test on"):
        accuracy(learner, 0, Part(PIXELS[0].test.inputs[:0], empty.targets))
