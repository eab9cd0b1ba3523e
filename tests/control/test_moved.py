"""Features that actions move are found, and no others; runs that go by them read these alone."""

from dataclasses import replace

import pytest
import torch

from regrow.control import elimination, moved
from regrow.control.environments import PointMass
from regrow.control.noise import NoiseFeatures
from regrow.control.population import Population
from regrow.control.setting import METHODS, Arm, Setting
from regrow.control.teachers import TEACHERS

SETTING = Setting(
    steps=1200, seed_steps=100, batch=8, width=8, reward_width=16, reward_batch=8, reward_steps=6,
    segment=5, queries=6, feedbacks=2, feedback_every=100, reward_update_every=4,
)  # fmt: skip


def trajectories(n, draw, *, slow=0.97, hold=8, lever=1.0):
    """A cart that is pushed, a pole that it swings, a flag nobody moves, and slow noise.

    The pole feels the push only through the cart's speed times where the pole itself is.
    """
    noise = torch.zeros(4)
    cart, pole, flag = torch.zeros(2), torch.tensor([0.3, 0.0]), torch.tensor([0.7])
    seen, actions = [], []
    action = torch.zeros(1)
    for step in range(n + 1):
        if step % hold == 0:
            action = 2 * torch.rand(1, generator=draw) - 1
        seen.append(torch.cat([cart, pole, flag, noise]))
        actions.append(action)
        speed = 0.9 * cart[1] + 0.1 * action[0]
        swing = 0.9 * pole[1] - 0.2 * pole[0] + lever * speed * pole[0] + 0.1 * lever * speed
        cart = torch.stack([0.95 * cart[0] + 0.1 * speed, speed])
        pole = torch.stack([pole[0] + 0.1 * swing, swing]).clamp(-2, 2)
        noise = slow * noise + (1 - slow**2) ** 0.5 * torch.randn(4, generator=draw)
    seen = torch.stack(seen)
    return seen[:-1], torch.stack(actions)[:-1], seen[1:]


@pytest.mark.parametrize("slow", [0.0, 0.97])
def test_all_that_actions_move_is_found_and_nothing_else(slow):
    draw = torch.Generator().manual_seed(0)
    found = moved.moved(*trajectories(5000, draw, slow=slow))
    assert found.tolist() == [True] * 4 + [False] * 5


def test_what_hangs_on_nothing_that_is_moved_is_left_out():
    draw = torch.Generator().manual_seed(1)
    found = moved.moved(*trajectories(5000, draw, lever=0.0))
    assert found.tolist() == [True, True] + [False] * 7


def test_pure_noise_gives_nothing_in_a_hundred_tries():
    draw = torch.Generator().manual_seed(2)
    for _ in range(100):
        values = torch.randn(401, 12, generator=draw).cumsum(0) * 0.1
        actions = torch.randn(400, 2, generator=draw)
        assert not moved.moved(values[:-1], actions, values[1:]).any()


def test_units_and_order_of_features_do_not_matter():
    now, actions, following = trajectories(5000, torch.Generator().manual_seed(0))
    order = torch.randperm(9, generator=torch.Generator().manual_seed(3))
    scale, offset = torch.logspace(-2, 3, 9), torch.linspace(-50, 50, 9)
    found = moved.moved(
        *((x[:, order] * scale + offset) for x in (now,)),
        actions,
        following[:, order] * scale + offset,
    )
    assert torch.equal(found, moved.moved(now, actions, following)[order])


def test_how_many_transitions_are_enough():
    assert not moved.enough(4999, 5, 1) and moved.enough(5000, 5, 1)
    assert not moved.enough(5000, 2000, 10) and moved.enough(8044, 2000, 10)


def test_a_keep_is_refused():
    with pytest.raises(ValueError, match=r"keep=0.2: score='moved' finds how many: give keep=None"):
        Arm(reward_model="features", actor="features", critic="features", score="moved")


@pytest.fixture
def early(monkeypatch):
    """Look every 200 steps, from 300 transitions on."""
    monkeypatch.setattr(moved, "LEAST", 300)
    monkeypatch.setattr(elimination, "_LOOK_FOR_MOVED", 200)


def population(methods, seeds, steps=900):
    noise = NoiseFeatures(seeds, 4, 0.6)
    made = Population(
        PointMass(seeds, episode=20, wall=1.2),
        TEACHERS["oracle"],
        [METHODS[name] for name in methods],
        SETTING,
        noise,
    )
    made.run_to_(steps)
    return made


def test_runs_read_what_actions_move_and_their_networks_nothing_else(early):
    trained = population(["moved", "pebble"], [0, 1])
    real = trained.noise.real.bool()
    assert torch.equal(trained.elimination.live[0, :10], real[0])
    assert trained.elimination.live[1].all()
    for nets in (trained.agent.actor, trained.agent.critic, trained.models.networks):
        left = nets.input_mask()[0, :, :10].bool()  # (members, features, units)
        assert torch.equal(left, real[0][None, :, None].expand_as(left))
        assert not nets.rows[:, : nets.mask.shape[1]][nets.mask == 0].any()
    before = population(["moved"], [0], steps=399)  # not looked yet
    assert before.elimination.live.all()


@pytest.mark.long
def test_alone_in_company_and_resumed_a_run_is_the_same(early):
    together = population(["elimination-fixed", "moved", "pebble"], [5, 0, 1])
    alone = population(["moved"], [0])
    half = population(["moved"], [0], steps=500)
    state = half.state_dict()
    resumed = population(["moved"], [0], steps=0)
    resumed.load_state_dict(state)
    resumed.run_to_(900)
    for one in (alone, resumed):
        assert one.returns[0] == together.returns[1]
        assert torch.equal(one.agent.actor.rows[0], together.agent.actor.rows[1])


def test_features_come_back_with_fresh_weights_when_they_are_found(early, monkeypatch):
    answers = iter([[0], [0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3]])

    def found(now, actions, following):
        return torch.zeros(now.shape[1], dtype=torch.bool).index_fill_(
            0, torch.tensor(next(answers)), True
        )

    monkeypatch.setattr(elimination, "moved", found)
    trained = population(["moved"], [0], steps=500)
    assert trained.elimination.live[0].sum() == 1
    trained.run_to_(601)
    assert trained.elimination.live[0].nonzero()[:, 0].tolist() == [0, 1, 2, 3]
    critic = trained.agent.critic
    grown = critic.input_mask()[0, :, 1:4].bool()
    assert grown.all() and critic.rows[:, : critic.mask.shape[1]].abs().sum() > 0


@pytest.mark.parametrize(("capacity", "looked_at"), [(299, None), (300, 300), (None, 320)])
def test_as_many_transitions_are_looked_at_as_are_needed(monkeypatch, early, capacity, looked_at):
    """At least those that are needed, whatever is usual; of a buffer that holds fewer, none."""
    monkeypatch.setattr(elimination, "_LOOKED_AT", 100)
    monkeypatch.setattr(moved, "LEAST", 300 if capacity else 320)
    seen = []

    def found(now, actions, following):
        seen.append(len(now))
        return torch.ones(now.shape[1], dtype=torch.bool)

    monkeypatch.setattr(elimination, "moved", found)
    setting = replace(SETTING, replay=capacity)
    monkeypatch.setattr("regrow.control.checks.LEAST", 1)  # which refuses such a buffer at once
    environments = PointMass([0], episode=20, wall=1.2)
    runs = Population(environments, TEACHERS["oracle"], [METHODS["moved"]], setting)
    runs.run_to_(401)
    assert seen == ([] if looked_at is None else [looked_at])
