"""What a population does, done again for one run by torch's own modules and optimizers."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from regrow.control.draws import RunDraws
from regrow.control.environments import PointMass
from regrow.control.inputs import input_layers
from regrow.control.population import Population
from regrow.control.reward import RewardModels
from regrow.control.sac import SAC
from regrow.control.setting import METHODS, Arm, Setting
from regrow.control.teachers import TEACHERS

CPU = torch.device("cpu")
SETTING = Setting(
    width=8, batch=16, learning_rate=1e-2, target_rate=0.1, temperature_rate=3e-2, discount=0.9,
    reward_width=6, reward_rate=1e-2, reward_batch=5, reward_members=3, segment=4, queries=7,
    feedbacks=1, reward_enough=0.8,
)  # fmt: skip


class Masked:
    """A plain network whose first layer has a mask, and its Adam."""

    def __init__(self, nets, row, activation, rate):
        layers = []
        for place in range(0, len(nets.weights), 2):
            weight, bias = nets.weights[place][row], nets.weights[place + 1][row]
            linear = nn.Linear(*weight.shape)
            linear.weight.data = weight.detach().T.clone()
            linear.bias.data = bias[0].detach().clone()
            layers += [linear, activation()]
        self.net = nn.Sequential(*layers[:-1])
        shape = nets.sizes[:2]
        self.mask = nets.mask[row].view(shape).T.clone()
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=rate)

    def step(self, loss):
        self.optimizer.zero_grad()
        loss.backward()
        first = self.net[0].weight
        first.grad.mul_(self.mask)
        self.optimizer.step()
        first.data.mul_(self.mask)

    def parameters(self):
        return torch.cat([p.detach().t().flatten() for p in self.net.parameters()])


def of(nets, row, rows=None):
    """The parameters of a member, in the order of a plain network's."""
    rows = nets.rows if rows is None else rows
    return rows.detach()[row, : sum((i + 1) * o for i, o in pairwise(nets.sizes))]


def close(one, other):
    torch.testing.assert_close(one, other, rtol=2e-3, atol=2e-4)


def masked_agent(seeds, d=3, a=2):
    agent = SAC(seeds, d, a, SETTING, CPU)
    arms = [METHODS["static"]] * len(seeds)
    ones = torch.ones(len(seeds), d, dtype=torch.bool)
    nets = {"actor": agent.actor, "critic": agent.critic}
    input_layers(nets, arms, ones, ones, seeds)
    agent.target.copy_(agent.critic.rows)
    return agent


def test_updates_of_a_masked_agent_are_those_of_plain_ones():
    """Critics, actor, temperature and targets over several updates, each run by itself."""
    seeds, d, a = [4, 9], 3, 2
    agent, drawn = masked_agent(seeds), RunDraws(seeds, "actions of updates", CPU)
    assert 0 < agent.critic.mask.mean() < 0.4
    critics = [[Masked(agent.critic, 2 * r + m, nn.ReLU, 1e-2) for m in (0, 1)] for r in (0, 1)]
    targets = [[Masked(agent.critic, 2 * r + m, nn.ReLU, 0.0) for m in (0, 1)] for r in (0, 1)]
    actors = [Masked(agent.actor, r, nn.ReLU, 1e-2) for r in (0, 1)]
    log_alphas = [torch.tensor(math.log(0.1), requires_grad=True) for _ in seeds]
    tempers = [torch.optim.Adam([one], lr=3e-2) for one in log_alphas]

    def policy(actor, seen, noise):
        mean, log_std = actor.net(seen).chunk(2, -1)
        std = (-5 + 3.5 * (log_std.tanh() + 1)).exp()
        before = mean + std * noise
        log_prob = torch.distributions.Normal(mean, std).log_prob(before).sum(1)
        return before.tanh(), log_prob - (1 - before.tanh() ** 2).log().sum(1)

    g = torch.Generator().manual_seed(0)
    for _ in range(6):
        inputs, following = (torch.randn(2, 16, n, generator=g) for n in (d + a, d))
        rewards, ended = torch.randn(2, 16, generator=g), (torch.rand(2, 16, generator=g) < 0.3)
        noise = drawn.normal(2, 16, a)
        agent.update_(inputs, following, rewards, ended.float())
        for r in (0, 1):
            alpha = log_alphas[r].exp().detach()
            with torch.no_grad():
                action, log_prob = policy(actors[r], following[r], noise[r, 0])
                x = torch.cat([following[r], action], 1)
                ahead = torch.min(targets[r][0].net(x), targets[r][1].net(x))[:, 0]
                bootstrapped = rewards[r] + 0.9 * (ahead - alpha * log_prob)
                wanted = torch.where(ended[r], rewards[r], bootstrapped)
            for critic in critics[r]:
                critic.step(functional.mse_loss(critic.net(inputs[r])[:, 0], wanted))
            action, log_prob = policy(actors[r], inputs[r, :, :d], noise[r, 1])
            x = torch.cat([inputs[r, :, :d], action], 1)
            values = torch.min(critics[r][0].net(x), critics[r][1].net(x))[:, 0]
            actors[r].step((alpha * log_prob - values).mean())
            tempers[r].zero_grad()
            (log_alphas[r].exp() * (-log_prob.detach() + a)).mean().backward()  # entropy −A
            tempers[r].step()
            for target, critic in zip(targets[r], critics[r], strict=True):
                for old, new in zip(target.net.parameters(), critic.net.parameters(), strict=True):
                    old.data.lerp_(new.data, 0.1)
    for r in (0, 1):
        close(agent.log_alpha[r, 0], log_alphas[r].detach())
        close(of(agent.actor, r), actors[r].parameters())
        for m in (0, 1):
            close(of(agent.critic, 2 * r + m), critics[r][m].parameters())
            close(of(agent.critic, 2 * r + m, agent.target), targets[r][m].parameters())


def test_reward_models_learn_as_plain_ones_do():
    """Two runs: one of soft and hard labels, and one that has no comparisons yet."""
    seeds, inputs = [1, 2], 5
    models = RewardModels(seeds, inputs, SETTING, CPU, 7)
    ones = torch.ones(2, inputs, dtype=torch.bool)
    input_layers({"reward_model": models.networks}, [METHODS["static"]] * 2, ones, ones, seeds)
    plain = [Masked(models.networks, m, nn.LeakyReLU, 1e-2) for m in range(3)]
    untouched = models.networks.rows[3:].clone()
    g = torch.Generator().manual_seed(1)
    clips = torch.randn(2, 7, 2, 4, inputs, generator=g)
    labels = torch.tensor([[0.0, 1.0, 0.5, 1.0, 0.0, 0.0, 1.0]]).expand(2, -1)
    models.add_(clips, labels, torch.tensor([[True] * 7, [False] * 7]))
    drawn = RunDraws(seeds, "comparisons learnt from", CPU)
    models.accuracy.fill_(0.5)
    accuracy, steps = 0.5, 0
    for _ in range(90):
        places = (drawn.uniform(15)[0] * 7).long().view(3, 5)
        gate = accuracy < 0.8
        steps += gate
        right, decided = 0, 0
        for m, member in enumerate(plain):
            pair, label = clips[0, places[m]], labels[0, places[m]]
            sums = member.net(pair)[..., 0].tanh().sum(2)  # (5, 2)
            both = torch.stack([1 - label, label], 1)
            loss = functional.cross_entropy(sums, both)
            hard = label != 0.5
            right += int(((sums[:, 1] > sums[:, 0]) == (label > 0.5))[hard].sum())
            decided += int(hard.sum())
            if gate:
                member.step(loss)
        accuracy += 0.1 * ((right / decided if decided else accuracy) - accuracy)
        models.step_()
        assert models.accuracy[0, 0].item() == pytest.approx(accuracy, abs=1e-5)
    assert 0 < steps < 90  # it stopped by its accuracy on the way
    for m in range(3):
        close(of(models.networks, m), plain[m].parameters())
    assert torch.equal(models.networks.rows[3:], untouched)
    x = torch.randn(2, 9, inputs, generator=g)
    wanted = torch.stack([member.net(x[0])[:, 0].tanh() for member in plain]).mean(0).detach()
    close(models.reward(x)[0], wanted)


class Recorded(PointMass):
    """Remembers what every step gave, before episodes begin anew."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.steps = []

    def step(self, actions):
        found = super().step(actions)
        self.steps.append(found)
        return found


def test_time_limits_are_bootstrapped_over_and_ends_are_not(small):
    """The state that follows is the episode's last one, never the first of the next."""
    env = Recorded([0, 1, 2], episode=9, wall=1.0)
    runs = Population(env, TEACHERS["oracle"], [Arm()] * 3, small)
    runs.run_to_(120)
    terminated, truncated = (
        torch.from_numpy(np.stack([getattr(one, name) for one in env.steps], 1))
        for name in ("terminated", "truncated")
    )
    shown = torch.from_numpy(np.stack([one.observations for one in env.steps], 1))
    assert terminated.sum() > 3 and truncated.sum() > 3 and not (terminated & truncated).any()
    kept = slice(0, 120)
    assert torch.equal(runs.replay.ended[:, kept], terminated.float())
    assert torch.equal(runs.replay.following[:, kept, :4], shown)
    joined = (runs.replay.following[:, :119] == runs.replay.inputs[:, 1:120, :-2]).all(2)
    assert torch.equal(joined, ~(terminated | truncated)[:, :119])
    episodes = runs.replay.episode[:, kept]
    wanted = torch.cat([torch.zeros(3, 1), (terminated | truncated).cumsum(1)[:, :-1]], 1)
    assert torch.equal(episodes, wanted.long())
    for run in range(3):
        rewards = torch.from_numpy(np.stack([one.rewards for one in env.steps], 1))[run]
        over = (terminated | truncated)[run]
        sums = [rewards[episodes[run] == n].sum().item() for n in range(int(over.sum()))]
        assert runs.returns[run] == pytest.approx(sums)
