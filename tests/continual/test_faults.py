"""What is not finite is never kept; a task can be given up; a network can be pickled."""

import copy
import pickle

import pytest
import torch
from torch import nn

import regrow
from regrow.continual import TaskNetwork, infer_task, measure_prototypes

BAD = [torch.nan, torch.inf, -torch.inf]


@pytest.fixture
def network(lab):
    torch.manual_seed(0)
    made = TaskNetwork(lab.convolution(), regrow.SET(density=0.3, update_every=3), seed=1)
    lab.learn(made)
    made.finish_task()
    return made


def everything(network):
    return [
        *(network.view.store[name].clone() for name in network.view.store),
        *(value.clone() for task in network.learnt for value in task.own.values()),
        *(value.clone() for task in network.learnt for value in task.masks.values()),
    ]


def same(one, other):
    return len(one) == len(other) and all(map(torch.equal, one, other))


def spoil(network, name, value):
    """Write into one place of a tensor that belongs to the task being learnt."""
    tensor = dict(network.model.named_parameters()) | dict(network.model.named_buffers())
    place = 0
    if name in network.view.shapes:
        mine = network.current.sparse.masks[name] & ~network.used()[name]
        place = int(mine.flatten().nonzero()[0])
    with torch.no_grad():
        tensor[name].view(-1)[place] = value


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("name", ["4.weight", "2.bias", "2.running_var", "8.bias"])
@pytest.mark.parametrize("looked_away", [False, True])
def test_what_is_not_finite_is_not_finished(lab, network, name, value, looked_away):
    before, answers = everything(network), network.logits(lab.x, 0)
    task, _ = lab.learn(network, 5)
    spoil(network, name, value)
    if looked_away:
        network.activate(0)
    with pytest.raises(FloatingPointError, match=f"task 1: {name} holds NaN.*drop_task"):
        network.finish_task()
    assert network.learning == task and network.active == (0 if looked_away else 1)
    assert same(everything(network), before)
    network.drop_task()
    assert torch.equal(network.logits(lab.x, 0), answers)
    lab.learn(network, 5)
    network.finish_task()
    assert network.logits(lab.x, 1).isfinite().all()
    assert torch.equal(network.logits(lab.x, 0), answers)


def test_what_belongs_to_no_task_may_be_anything(lab, network):
    """A weight outside the masks is drawn anew for the next task."""
    lab.learn(network)
    outside = ~network.current.sparse.masks["4.weight"]
    with torch.no_grad():
        network.model[4].weight[outside] = torch.nan
    network.finish_task()
    assert all(value.isfinite().all() for value in everything(network))


def test_infinity_that_was_there_at_first_stays(lab):
    class Masked(nn.Sequential):
        def __init__(self):
            super().__init__(nn.Linear(24, 8), nn.Linear(8, 3))
            self.register_buffer("added", torch.tensor([0.0, -torch.inf]))

    network = TaskNetwork(Masked(), regrow.Static(density=0.5))
    lab.learn(network)
    assert network.finish_task().own["added"].tolist() == [0.0, -torch.inf]


@pytest.mark.parametrize("value", BAD)
def test_a_model_that_is_not_finite_is_refused(lab, value):
    model = lab.linear()
    with torch.no_grad():
        model[2].weight[0, 0] = value
    with pytest.raises(ValueError, match=r"2.weight holds NaN or infinity"):
        TaskNetwork(model, regrow.Static(density=0.5))


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("learnt", [0, 1])
def test_a_dropped_task_was_never_there(lab, sparse, learnt):
    torch.manual_seed(0)
    model = lab.convolution()
    networks = [
        TaskNetwork(copy.deepcopy(model), regrow.SET(density=0.3, update_every=3)) for _ in range(2)
    ]
    for network in networks:
        for _ in range(learnt):
            lab.learn(network)
            network.finish_task()
    dropped, other = networks
    if sparse:
        _, optimizer = lab.learn(dropped, 5, steps=3)
    else:
        dropped.add_task(5)
    dropped.drop_task()
    assert (dropped.learning, len(dropped.tasks)) == (None, learnt)
    assert dropped.active == (0 if learnt else None)
    if sparse:
        with pytest.raises(RuntimeError, match="make a new one"):
            optimizer.step()
    for network in networks:
        lab.learn(network, 5, name="again")
        network.finish_task()
    assert same(everything(dropped), everything(other))
    assert torch.equal(dropped.logits(lab.x, "again"), other.logits(lab.x, "again"))


def test_there_must_be_a_task_to_drop(network):
    with pytest.raises(RuntimeError, match="no task is being learnt"):
        network.drop_task()


@pytest.mark.parametrize("copied", [lambda n: pickle.loads(pickle.dumps(n)), copy.deepcopy])
@pytest.mark.parametrize("shown", [0, 1])
def test_a_copy_goes_on_bit_for_bit(lab, network, copied, shown):
    lab.learn(network, 3, steps=9)
    network.activate(shown)
    twin = copied(network)
    for one in (network, twin):
        one.activate(1)
        for _ in range(4):
            lab.step(one, 1, one.optimizer)
        one.finish_task()
    assert same(everything(twin), everything(network))
    assert torch.equal(twin.logits(lab.x, 1), network.logits(lab.x, 1))


@pytest.mark.parametrize("copied", [lambda n: pickle.loads(pickle.dumps(n)), copy.deepcopy])
def test_a_copy_refuses_steps_on_another_task(lab, network, copied):
    lab.learn(network)
    twin = copied(network)
    twin.activate(0)
    answers = twin.logits(lab.x, 0)
    for parameter in twin.parameters():
        parameter.grad = torch.ones_like(parameter)
    with pytest.raises(RuntimeError, match="while task 0 was shown"):
        twin.optimizer.step()
    assert torch.equal(twin.logits(lab.x, 0), answers)


def test_tasks_are_not_told_apart_by_nan(lab, network):
    with pytest.raises(ValueError, match="answers 1 of them by NaN"):
        infer_task(network, torch.cat([lab.x[:3], torch.full((1, 24), torch.nan)]))


@pytest.mark.parametrize(
    ("batches", "match"),
    [
        ([], "there is none"),
        ([(torch.zeros(2, 24), torch.tensor([0.0, 1.0]))], "no numbers of classes"),
        ([(torch.zeros(2, 24), torch.tensor([-1, 1]))], "no numbers of classes"),
        ([(torch.full((2, 24), torch.nan), torch.tensor([0, 1]))], "NaN or infinity"),
    ],
)
def test_prototypes_of_odd_batches_are_refused(network, batches, match):
    with pytest.raises(ValueError, match=match):
        measure_prototypes(network, 0, batches)
    assert network.tasks[0].prototypes is None
