"""Which task an input belongs to: by how sure a task is, or how near its classes are."""

from __future__ import annotations

import math

import pytest
import torch

import regrow
from regrow.continual import TaskNetwork, infer_task, measure_prototypes
from regrow.continual.identity import features, nearness, sureness
from regrow.continual.task import Prototypes


@pytest.fixture
def network(lab):
    network = TaskNetwork(lab.linear(), regrow.Static(density=0.3))
    for classes in (2, 3):
        lab.learn(network, classes, steps=30)
        network.finish_task()
    return network


def test_sureness_is_one_minus_entropy_over_its_largest_value():
    logits = torch.randn(7, 5, dtype=torch.float64)
    p = logits.softmax(1).numpy()
    entropies = [-sum(q * math.log(q) for q in row) for row in p]
    assert sureness(logits).tolist() == pytest.approx([1 - h / math.log(5) for h in entropies])
    assert sureness(torch.zeros(1, 9)).item() == pytest.approx(0, abs=1e-6)


def test_nearness_is_the_least_distance_in_terms_of_the_spread():
    values, means = torch.randn(6, 4), torch.randn(3, 4)
    expected = -torch.cdist(values, means).square().min(1).values / 1.5
    assert torch.allclose(nearness(values, Prototypes(means, 1.5)), expected, atol=1e-5)


def test_features_are_what_the_head_is_given(lab, network):
    network.activate(1)
    expected = network.model[:4](lab.x)
    network.activate(0)
    assert features(network, lab.x, 1).equal(expected)
    assert network.active == 0


def test_the_surest_task_is_chosen(lab, network):
    scores = torch.stack([sureness(network.logits(lab.x, task)) for task in range(2)])
    assert infer_task(network, lab.x).equal(scores.argmax(0))


def test_the_nearest_task_is_chosen_and_prototypes_are_saved(lab, network):
    far = lab.x + 20
    for task, inputs in enumerate((lab.x, far)):
        labels = torch.arange(12) % (task + 2)
        measured = measure_prototypes(
            network, task, [(inputs[:6], labels[:6]), (inputs[6:], labels[6:])]
        )
        rows = features(network, inputs, task)
        means = torch.stack([rows[labels == k].mean(0) for k in range(task + 2)])
        assert torch.allclose(measured.means, means, atol=1e-5)
    assert infer_task(network, far, by="prototype").tolist() == [1] * 12
    other = TaskNetwork(lab.linear(), regrow.Static(density=0.3))
    other.load_state_dict(network.state_dict())
    assert infer_task(other, far, by="prototype").tolist() == [1] * 12


def test_what_cannot_be_told_is_an_error(lab, network):
    with pytest.raises(ValueError, match="no task is learnt"):
        infer_task(TaskNetwork(lab.linear(), regrow.Static(density=0.3)), lab.x)
    with pytest.raises(ValueError, match="by='prototype': task 0 has none"):
        infer_task(network, lab.x, by="prototype")
    with pytest.raises(ValueError, match="by='loss'"):
        infer_task(network, lab.x, by="loss")
    with pytest.raises(ValueError, match=r"labels 0\.\.1 and needs samples of each"):
        measure_prototypes(network, 0, [(lab.x, torch.zeros(12, dtype=torch.long))])
    lab.learn(network, 1)
    with pytest.raises(ValueError, match="is being learnt"):
        measure_prototypes(network, 2, [(lab.x, torch.zeros(12, dtype=torch.long))])
    network.finish_task()
    with pytest.raises(ValueError, match="one class, and so is always sure"):
        infer_task(network, lab.x)
