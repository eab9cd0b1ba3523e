"""Teachers by truth tables, and by how often chance has its way."""

import math

import pytest
import torch

from regrow.control.teachers import TEACHERS, Query, ScriptedTeacher


def query(rewards, recent=0.0, episode=10, chance=None):
    """Segments of one run: rewards of shape (Q, 2, T)."""
    rewards = torch.tensor(rewards, dtype=torch.float32)[None]
    shape = rewards.shape[:2]
    nothing, late = rewards[..., None][..., :0], torch.tensor([float(recent)])
    chance = torch.full((*shape, 2), 0.5) if chance is None else chance
    return Query(rewards, nothing, nothing, torch.zeros(*shape, 2), late, episode, chance)


def test_the_oracle_prefers_more_reward_and_ties_go_to_the_first():
    answers = TEACHERS["oracle"](query([[[1, 2], [0, 4]], [[4, 0], [1, 2]], [[1, 2], [2, 1]]]))
    assert answers.labels.tolist() == [[1.0, 0.0, 0.0]] and answers.answered.all()


def test_a_myopic_teacher_sees_the_end():
    early_and_late = query([[[3, 0, 0], [0, 0, 2.5]]])
    assert TEACHERS["oracle"](early_and_late).labels.item() == 0
    assert TEACHERS["myopic"](early_and_late).labels.item() == 1
    # 3 · γ² against 2.5: they are equal at γ = √(2.5 / 3)
    even = math.sqrt(2.5 / 3)
    assert ScriptedTeacher(gamma=even + 0.01)(early_and_late).labels.item() == 0
    assert ScriptedTeacher(gamma=even - 0.01)(early_and_late).labels.item() == 1


@pytest.mark.parametrize("recent", [8.0, -8.0])
def test_epsilon_is_applied_once_to_the_return_of_a_segment(recent):
    """The threshold is return · T / episode · ε = 8 · 2 / 10 · 0.5 = 0.8, every time."""
    asked = query([[[0, 0.7], [0.2, 0.5]], [[0, 0.7], [0.2, 1.1]], [[0, 0.7], [0, 1.6]]], recent)
    skips, equal = ScriptedTeacher(skip=0.5), ScriptedTeacher(equal=0.5)
    for _ in range(3):  # B-Pref's code multiplies again after the first feedback
        assert skips(asked).answered.tolist() == [[recent < 0, True, True]]
        assert equal(asked).labels.tolist() == [[0.5, 0.5, 1.0]]


def test_mistakes_turn_as_many_answers_round_as_they_should():
    generator = torch.Generator().manual_seed(0)
    n = 20_000
    chance = torch.rand(1, n, 2, generator=generator)
    asked = query([[[0.0], [1.0]]] * n, chance=chance)
    share = 1 - ScriptedTeacher(mistake=0.1)(asked).labels.mean()
    assert abs(share - 0.1) < 4 * math.sqrt(0.09 / n)


def test_a_noisy_teacher_prefers_by_the_logistic_function():
    generator = torch.Generator().manual_seed(1)
    n = 20_000
    chance = torch.rand(1, n, 2, generator=generator)
    share = ScriptedTeacher(beta=2.0)(query([[[0.0], [0.4]]] * n, chance=chance)).labels.mean()
    wanted = 1 / (1 + math.exp(-0.8))
    assert abs(share - wanted) < 4 * math.sqrt(wanted * (1 - wanted) / n)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"mistake": 1.5}, "mistake"), ({"gamma": 0}, "gamma"), ({"beta": -1.0}, "beta")],
)
def test_what_no_teacher_can_be_is_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        ScriptedTeacher(**wrong)


@pytest.mark.parametrize("recent", [-100.0, 0.0])
def test_where_rewards_are_costs_nothing_is_skipped(recent):
    """All segments are below a mean below 0 times ε: of Pendulum a teacher would answer nothing."""
    costs = query([[[-9, -8], [-1, -7]], [[-5, -5], [-5, -5]]], recent)
    assert TEACHERS["skip"](costs).answered.all()
    assert TEACHERS["skip"](costs).labels.tolist() == [[1.0, 0.0]]


def test_a_segment_at_the_threshold_is_skipped():
    """Only what is above it is worth an answer, as in B-Pref's code."""
    at = query([[[0, 0.5], [0.5, 0.5]], [[0, 0.5], [0.5, 0.625]]], recent=10.0)
    assert ScriptedTeacher(skip=0.5)(at).answered.tolist() == [[False, True]]


TABLE = [  # (wrong by chance, near, worth an answer): the label of a pair whose second is better
    (False, False, True, 1.0), (True, False, True, 0.0), (False, True, True, 0.5),
    (True, True, True, 0.5), (False, True, False, 0.5), (True, False, False, 0.0),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "near", "worth", "label"), TABLE)
def test_what_a_teacher_of_all_faults_says(wrong, near, worth, label):
    """Skipping goes by what segments are worth, equality beats a mistake, mistakes turn round."""
    low = 3.0 if worth else 1.0
    chance = torch.tensor([[[0.5, 0.05 if wrong else 0.5]]])
    asked = query([[[low, 0.0], [low, 0.1 if near else 0.9]]], recent=10.0, chance=chance)
    found = ScriptedTeacher(mistake=0.1, skip=1.0, equal=0.1)(asked)
    assert found.labels.item() == pytest.approx(label) and found.answered.item() == worth
