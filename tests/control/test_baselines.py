"""SURF's pseudo-labels and crops, MRN's bi-level step, the group lasso: formulas and invariants."""

import copy
import math

import pytest
import torch
from torch.nn import functional

from regrow.control.networks import Networks, shrunk
from regrow.control.pseudo import crops, guesses
from regrow.control.replay import Replay
from regrow.control.reward import cross_entropy
from regrow.control.setting import METHODS, Arm, Setting


def test_crops_lie_inside_and_every_length_and_place_comes():
    inside = torch.ones(3000, 2, 9, dtype=torch.bool)
    inside[1000:, 0, :2] = False  # an episode begins within the margin
    inside[2000:, 1, 7:] = False  # another ends there
    shown = crops(inside, 3, 7, torch.rand(3000, 3))
    assert not (shown & ~inside).any()
    length = shown.sum(2)
    assert torch.equal(length[:, 0], length[:, 1])
    assert (shown.int().diff(dim=2).abs().sum(2) <= 2).all()  # one stretch
    for part in shown.split(1000):
        assert set(part.sum(2)[:, 0].tolist()) == {3, 4, 5, 6, 7}
    free, late = shown[:1000], shown[2000:]
    assert set(free.int().argmax(2).flatten().tolist()) == set(range(7))
    assert set(late[:, 0].int().argmax(1).tolist()) == set(range(2, 7))
    assert set(late[:, 1].int().argmax(1).tolist()) == set(range(5))
    assert not torch.equal(free[:, 0], free[:, 1])


@pytest.mark.parametrize(
    ("confident", "sure"), [(0.5, [1, 1, 1, 1]), (0.9, [1, 0, 0, 1]), (1.0, [0, 0, 0, 0])]
)
def test_guesses_count_where_their_probability_is_high(confident, sure):
    apart = torch.tensor([2.2, 2.19, -0.1, -2.2])  # σ(2.2) = 0.9002, σ(2.19) = 0.8993
    labels, found = guesses(apart, confident)
    assert labels.tolist() == [1.0, 1.0, 0.0, 0.0] and found.int().tolist() == sure


def test_cross_entropy_is_torchs():
    apart, labels = torch.randn(50), torch.rand(50)
    wanted = functional.binary_cross_entropy_with_logits(apart, labels, reduction="none")
    torch.testing.assert_close(cross_entropy(apart, labels), wanted)


def test_margins_of_segments_stop_at_episodes_and_at_the_ends_of_the_buffer():
    ring, number = Replay(1, 12, 1, 1, "cpu"), 0
    for episode, length in enumerate([4, 6, 5]):
        for _ in range(length):
            one = torch.full((1, 1), float(number))
            ring.add_(one.expand(1, 2), one, *[one[:, 0]] * 4, torch.tensor([episode]))
            number += 1
    # Kept are 3 (episode 0), 4 to 9 (1), 10 to 14 (2); 12 lies at place 0.
    starts = torch.tensor([[4, 10, 3]])  # of transitions 4, 10 and 3
    steps = ring.segments(starts, 2, "rewards", margin=3)[0]
    inside = ring.inside(starts, 2, 3)[0]
    held = [row[ok].int().tolist() for row, ok in zip(steps, inside, strict=True)]
    assert held == [[4, 5, 6, 7, 8], [10, 11, 12, 13, 14], [3]]
    alone = ring.segments(starts, 2, "rewards")[0]
    assert torch.equal(steps[:, 3:5], alone)
    runs = torch.tensor([0])
    assert torch.equal(ring.segments(starts, 2, "rewards", margin=3, runs=runs)[0], steps)


def losses_by_hand(runs, run):
    """SURF's loss of every member of a run, by its formula, from what is drawn next."""
    models, pseudo, setting = runs.models, runs.pseudo, runs.setting
    members, batch, length = setting.reward_members, setting.reward_batch, setting.segment
    place = pseudo.runs.tolist().index(run)
    draws = copy.deepcopy(models._draws), copy.deepcopy(pseudo._draws)
    chosen = (draws[0].uniform(members * batch)[run] * models.count[run]).long()
    windows = draws[1].uniform(members, batch, 3)[place]
    pairs = copy.deepcopy(pseudo)
    pairs._draws = draws[1]
    others, around = pairs.pairs()
    again = draws[1].uniform(members, setting.guesses * batch, 3)[place]
    found = []
    for member in range(members):

        def reward(x, member=member):
            return models(x.flatten(0, -2)[None].expand(len(runs.arms), -1, -1))[
                run, member
            ].unflatten(0, x.shape[:-1])

        here = chosen[member * batch : (member + 1) * batch]
        compared, labels = models.wide[run, here], models.labels[run, here]
        bounds = (length - setting.crop, length + setting.crop)
        shown = crops(models.inside[run, here], *bounds, windows[member])
        sums = (reward(compared) * shown).sum(2)
        own = functional.binary_cross_entropy_with_logits(sums[:, 1] - sums[:, 0], labels)
        row = place * members + member
        whole = reward(others[row])[..., setting.crop : setting.crop + length].sum(2)
        chance = torch.softmax(whole, 1)
        sure = chance.amax(1) >= setting.confident
        shown = crops(around[row], *bounds, again[member])
        sums = (reward(others[row]) * shown).sum(2)
        each = functional.cross_entropy(sums, chance.argmax(1), reduction="none")
        found.append(own + 0.5 * (each * sure).mean())
    return torch.stack(found), draws


def test_the_loss_of_pseudo_labels_is_surfs_formula(population, small):
    setting = Setting(**{**vars(small), "confident": 0.55})
    runs = population([Arm(), Arm(pseudo_labels=0.5)], [0, 1], setting)
    runs.run_to_(121)
    wanted, draws = losses_by_hand(runs, 1)
    members, batch = setting.reward_members, setting.reward_batch
    drawn = runs.models._draws.uniform(members * batch)
    places = (drawn * runs.models.count).long()
    rows = torch.arange(2)[:, None]
    labels = runs.models.labels[rows, places].unflatten(1, (members, batch))
    found = runs.models._guess(places, labels)
    torch.testing.assert_close(found[0], wanted, rtol=1e-4, atol=1e-5)
    assert torch.equal(runs.pseudo._draws.count, draws[1].count)


def test_pairs_of_pseudo_labels_are_the_latest_ones_and_their_own(population, small):
    setting = Setting(**{**vars(small), "recent": 30})
    runs = population([METHODS["surf"], Arm()], [0, 1], setting)
    runs.run_to_(120)
    assert runs.pseudo._starts.shape == (1, 12, 2)
    assert runs.pseudo._starts.min() >= 90 and runs.pseudo._starts.max() <= 115
    pairs, inside = runs.pseudo.pairs()
    assert pairs.shape[:4] == (3, 16, 2, 9) and inside[..., 2:7].all()
    kept = runs.replay.inputs[0, :120]
    assert all((row == kept).all(1).any() for row in pairs[:, :2, :, 4].flatten(0, 2))


def outer_loss(runs, run, rewards_of):
    """The outer loss of one run, with torch's own modules and Adam, given reward weights."""
    agent, models, setting = runs.agent, runs.models, runs.setting
    bilevel = copy.deepcopy(runs.bilevel)
    places = runs.replay.places(bilevel._batches.uniform(setting.batch))
    inputs, following, _, ended = runs.replay.sample(places)
    noise = bilevel._actions.normal(setting.batch, agent.n_actions)
    ahead, inputs, ended = agent.value(following, noise)[run], inputs[run], ended[run]
    wanted = rewards_of(inputs) + setting.discount * (1 - ended) * ahead
    total, count = 0.0, int(models.count[run])
    number = min(setting.reward_batch, count)
    clips = models.clips[run, count - number : count, :, 0]
    labels = models.labels[run, count - number : count]
    for member in range(2):
        row = 2 * run + member
        weights = [p[row].detach().clone().requires_grad_() for p in agent.critic.weights]

        def value(x, w=weights):
            return (torch.relu(torch.relu(x @ w[0] + w[1]) @ w[2] + w[3]) @ w[4] + w[5])[..., 0]

        loss = (value(inputs) - wanted.detach()).square().mean()
        gradients = torch.autograd.grad(loss, weights)
        steps, at, moved = float(agent.critic.steps[row, 0]) + 1, 0, []
        for place, (weight, gradient) in enumerate(zip(weights, gradients, strict=True)):
            n = weight.numel()
            first = agent.critic.first[row, at : at + n].view_as(weight)
            second = agent.critic.second[row, at : at + n].view_as(weight)
            at += n
            kept = agent.critic.mask[row].view_as(weight) if place == 0 else 1.0
            first = 0.9 * first + 0.1 * kept * gradient
            second = 0.999 * second + 0.001 * (kept * gradient) ** 2
            sizes = (second / (1 - 0.999**steps)).sqrt() + 1e-8
            moved.append(weight - setting.learning_rate * first / (1 - 0.9**steps) / sizes)
        q = value(clips, moved)
        apart = (q[:, 1] - q[:, 0]).detach()
        total += float(functional.binary_cross_entropy_with_logits(apart, labels))
    return total


def test_reward_models_go_down_the_gradient_through_the_critics_step(population, small):
    """A loss that is computed another way falls along the gradient, and rises against it."""
    setting = Setting(**{**vars(small), "bilevel_every": 1000, "learning_rate": 0.01})
    runs = population([Arm(), METHODS["mrn"]], [0, 1], setting)
    runs.run_to_(90)
    models, bilevel = runs.models, copy.deepcopy(runs.bilevel)
    places = runs.replay.places(bilevel._batches.uniform(setting.batch))
    inputs, following, _, ended = runs.replay.sample(places)
    weights = bilevel._inner(runs.agent, models, inputs, following, ended)
    outer = bilevel._outer(runs.agent.critic, weights, models)
    gradients = models.networks.gradients(outer)[3:]  # of the second run

    def rewards_of(x):
        return models(x[None].expand(2, -1, -1))[1].mean(0).detach()

    wanted = outer_loss(runs, 1, rewards_of)
    of_first = models.count[0].clone()
    models.count[0] = 0  # no loss is the first run's
    found = bilevel._outer(runs.agent.critic, [w.detach() for w in weights], models)
    models.count[0] = of_first
    assert math.isclose(float(found), wanted, rel_tol=1e-4)
    before, size = models.networks.rows.detach().clone(), gradients.norm()
    assert size > 0
    with torch.no_grad():
        models.networks.rows[3:] -= 0.5 * gradients / size
    after = outer_loss(runs, 1, rewards_of)
    with torch.no_grad():
        models.networks.rows.copy_(before)
        models.networks.rows[3:] += 0.5 * gradients / size
    assert after < wanted < outer_loss(runs, 1, rewards_of)


def test_a_bilevel_step_moves_its_own_reward_models_and_labels_only(population, small):
    setting = Setting(**{**vars(small), "bilevel_every": 1000})
    runs = population([Arm(), METHODS["mrn"], Arm(true_reward=True, bilevel=True)], [0, 1, 2],
                      setting)  # fmt: skip
    runs.run_to_(90)
    nets, replay = runs.models.networks, runs.replay
    before = {name: value.clone() for name, value in nets.state_dict().items()}
    critic, learned = runs.agent.critic.rows.detach().clone(), replay.learned.clone()
    runs.bilevel.step_(runs.agent, runs.models, replay)
    runs.relabel_(runs.bilevel.which)
    for name in ("rows", "first", "second", "steps"):
        moved = (getattr(nets, name) != before[name]).any(1).view(3, 3)
        assert moved.tolist() == [[False] * 3, [True] * 3, [False] * 3], name
    assert torch.equal(runs.agent.critic.rows, critic)
    assert torch.equal(replay.learned[[0, 2]], learned[[0, 2]])
    kept = slice(0, 90)
    torch.testing.assert_close(
        replay.learned[1, kept], runs.models.reward(replay.inputs[:, kept])[1]
    )
    assert not torch.equal(replay.learned[1, kept], learned[1, kept])


def test_bilevel_steps_come_between_the_first_feedback_and_the_last(population, small):
    runs = population([METHODS["mrn"]], [0])
    due = [step for step in range(200) if runs.bilevel.due(step)]
    assert due == [45, 60, 75, 90, 105]  # every 15; feedback after 40, 80 and 120
    assert not population([Arm()], [0]).bilevel.due(45)


def test_columns_are_shortened_together():
    columns, thresholds = torch.randn(2, 5, 7), torch.tensor([[0.5], [0.0]])
    found = shrunk(columns, thresholds)
    lengths = columns.norm(dim=2)
    torch.testing.assert_close(found.norm(dim=2), (lengths - thresholds).clamp(min=0))
    cosine = functional.cosine_similarity(found[0], columns[0], dim=1)
    assert (cosine > 0.999).all()
    assert torch.equal(found[1], columns[1])  # no penalty: nothing moves, bit by bit
    assert not shrunk(columns, torch.full((2, 1), 99.0)).any()


def test_the_lasso_takes_noise_away_and_leaves_what_matters():
    nets = Networks([0, 1], 1, [6, 16, 1], "x", 1e-2)
    nets.penalise_([0.5, 0.0], 5)  # of one run; the last input is an action
    generator = torch.Generator().manual_seed(0)
    for _ in range(600):
        x = torch.randn(1, 64, 6, generator=generator).expand(2, -1, -1)
        loss = (nets(x)[:, 0, :, 0] - x[..., 0]).square().mean(1).sum()
        nets.step_(nets.gradients(loss))
    sizes = nets.input_weights()[:, 0].norm(dim=2)
    assert sizes[0, 0] > 5 * sizes[0, 1:5].max()
    assert sizes[1, 1:5].min() > sizes[0, 1:5].max()
    zeroed = nets.reads()[0, 0].any(1)
    assert zeroed[0] and zeroed[5] and nets.reads()[1].all()
