"""One update of SAC against another way to compute it, by torch's own modules."""

import math

import torch
from torch import nn
from torch.nn import functional

from regrow.control.entropy import StateEntropy, neighbour_distance
from regrow.control.networks import Networks
from regrow.control.sac import SAC, squashed
from regrow.control.setting import Setting

SETTING = Setting(width=8, learning_rate=1e-2, target_rate=0.1)


def linears(nets, run, member):
    """Return torch's own network with the weights of one member."""
    row = run * nets.members + member
    layers = []
    for place in range(0, len(nets.weights), 2):
        weight, bias = nets.weights[place][row], nets.weights[place + 1][row]
        linear = nn.Linear(*weight.shape)
        linear.weight.data, linear.bias.data = weight.detach().T.clone(), bias.detach()[0].clone()
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def batch(runs=2, n=16, d=3, a=2):
    g = torch.Generator().manual_seed(3)
    inputs = torch.randn(runs, n, d + a, generator=g).clamp(-1, 1)
    following, rewards = (torch.randn(runs, n, *s, generator=g) for s in ((d,), ()))
    return inputs, following, rewards, (rewards > 1).float()


def test_log_probabilities_are_those_of_the_transformed_distribution():
    g = torch.Generator().manual_seed(0)
    mean, log_std, noise = (torch.randn(5, 7, 2, generator=g) for _ in range(3))
    action, log_prob = squashed(mean, log_std, noise)
    normal = torch.distributions.Normal(mean, log_std.exp())
    squashing = torch.distributions.TransformedDistribution(
        normal, [torch.distributions.TanhTransform(cache_size=1)]
    )
    before = mean + log_std.exp() * noise
    torch.testing.assert_close(action, before.tanh())
    wanted = normal.log_prob(before) - squashing.transforms[0].log_abs_det_jacobian(before, action)
    torch.testing.assert_close(log_prob, wanted.sum(-1), rtol=1e-4, atol=1e-4)


def test_an_update_is_that_of_torchs_modules_and_optimizers():
    agent = SAC([0, 1], 3, 2, SETTING, torch.device("cpu"))
    twins = [[linears(agent.critic, run, m) for m in range(2)] for run in range(2)]
    actors = [linears(agent.actor, run, 0) for run in range(2)]
    noise = SAC([0, 1], 3, 2, SETTING, torch.device("cpu"))._draws.normal(2, 16, 2)
    inputs, following, rewards, ended = batch()
    agent.update_(inputs, following, rewards, ended)
    alpha = SETTING.temperature

    def policy(actor, seen, drawn):
        mean, log_std = actor(seen).chunk(2, -1)
        return squashed(mean, -5 + 3.5 * (log_std.tanh() + 1), drawn)

    for run in range(2):
        critics, actor = twins[run], actors[run]
        with torch.no_grad():
            action, log_prob = policy(actor, following[run], noise[run, 0])
            x = torch.cat([following[run], action], 1)
            ahead = torch.minimum(critics[0](x), critics[1](x))[:, 0] - alpha * log_prob
            wanted = rewards[run] + 0.99 * (1 - ended[run]) * ahead
            before = [[p.clone() for p in critic.parameters()] for critic in critics]
        for critic in critics:
            optimizer = torch.optim.Adam(critic.parameters(), lr=SETTING.learning_rate)
            functional.mse_loss(critic(inputs[run])[:, 0], wanted).backward()
            optimizer.step()
        optimizer = torch.optim.Adam(actor.parameters(), lr=SETTING.learning_rate)
        action, log_prob = policy(actor, inputs[run, :, :3], noise[run, 1])
        x = torch.cat([inputs[run, :, :3], action], 1)
        values = torch.minimum(critics[0](x), critics[1](x))[:, 0]
        (alpha * log_prob - values).mean().backward()
        optimizer.step()
        for nets, members in ((agent.critic, critics), (agent.actor, [actor])):
            for member, module in enumerate(members):
                ours = linears(nets, run, member)
                for a, b in zip(ours.parameters(), module.parameters(), strict=True):
                    torch.testing.assert_close(a, b, rtol=1e-3, atol=2e-4)
        moved = torch.tensor(math.log(alpha)) - agent.log_alpha[run, 0]
        too_sure = log_prob.mean() > 2  # the entropy is below −A
        assert bool(moved < 0) == bool(too_sure)
        target = Networks([0], 2, [5, 8, 8, 1], "x", 1e-3)
        target.rows.copy_(agent.target[2 * run : 2 * run + 2])
        for member in range(2):
            after = [p.detach() for p in linears(agent.critic, run, member).parameters()]
            for t, old, new in zip(
                linears(target, 0, member).parameters(), before[member], after, strict=True
            ):
                torch.testing.assert_close(t, old.lerp(new, 0.1), rtol=1e-4, atol=1e-5)


def test_nothing_is_worth_anything_after_the_end():
    """Where an episode ends for good, values learn the reward alone."""
    agent = SAC([0], 3, 2, SETTING, torch.device("cpu"))
    inputs, following, rewards, _ = batch(runs=1)
    for _ in range(400):
        agent.update_(inputs, following, rewards, torch.ones_like(rewards))
    values = agent.critic(inputs)[0, :, :, 0]
    assert (values - rewards).abs().mean() < 0.1


def test_gated_networks_stay_as_they_are():
    nets = Networks([0, 1], 2, [3, 4, 1], "x", 1e-2)
    before = nets.state_dict()
    on = torch.tensor([1.0, 0.0, 0.0, 1.0])[:, None]
    for _ in range(3):
        nets.step_(torch.ones_like(nets.rows), on)
    for name in ("rows", "first", "second", "steps"):
        moved = (getattr(nets, name) != before[name]).any(1)
        assert moved.tolist() == [True, False, False, True], name


def test_neighbours_are_those_of_brute_force():
    g = torch.Generator().manual_seed(1)
    among = torch.randn(2, 30, 5, generator=g)
    states = among[:, 3:9]
    for k in (1, 4):
        found = neighbour_distance(states, among, torch.tensor(20), k)
        wanted = torch.cdist(states, among[:, :20]).sort(2).values[..., k]
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)


def test_entropy_is_divided_by_the_deviation_of_all_so_far():
    g = torch.Generator().manual_seed(2)
    among, reward, seen = torch.randn(1, 40, 3, generator=g), StateEntropy(1, 2, "cpu"), []
    for place in range(0, 30, 10):
        states = among[:, place : place + 10]
        distance = neighbour_distance(states, among, torch.tensor(40), 2)
        seen.append(distance)
        found = reward(states, among, torch.tensor(40))
        wanted = distance / torch.cat(seen, 1).std(correction=0)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
