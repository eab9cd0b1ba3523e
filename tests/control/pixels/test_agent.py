"""The update: where gradients go, what equals what, and each method's own losses."""

import copy
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from regrow.control.pixels.agent import PixelAgent
from regrow.control.pixels.auxiliary import attribution_mask, guided_gradient
from regrow.control.pixels.frames import Frames
from regrow.control.pixels.method import PIXEL_METHODS, PixelMethod

CPU = torch.device("cpu")


def compiler():
    return shutil.which("g++") or shutil.which("clang++")


def filled(method, size=16, steps=30, seed=0):
    """A ring of random frames in episodes of ten steps."""
    random = np.random.default_rng(seed)
    channels = 4 if PIXEL_METHODS[method].mask == "segmentation" else 3
    side = PIXEL_METHODS[method].rendered(size)

    def frame():
        return torch.from_numpy(random.integers(0, 256, (channels, side, side), dtype=np.uint8))

    ring = Frames(2 * steps, channels, side, 2, CPU)
    for step in range(steps):
        if step % 10 == 0:
            ring.begin_(frame())
        action = torch.from_numpy(random.uniform(-1, 1, 2)).float()
        ring.add_(action, float(random.normal()), step % 10 == 9 and step % 20 == 9, frame())
    return ring


def agent_of(method, setting, seed=0):
    return PixelAgent(PIXEL_METHODS[method], setting, 2, seed, CPU)


def weights(agent):
    state = agent.state_dict()
    nets = ("encoder", "critic", "actor", "target_encoder", "target_critic")
    return torch.cat([v.flatten() for n in nets for v in state["parts"][n].values()])


def snapshot(agent):
    nets = ("encoder", "critic", "actor", "masker", "target_encoder", "target_critic")
    return {n: copy.deepcopy(getattr(agent, n).state_dict()) for n in nets if getattr(agent, n)}


def moved(agent, before):
    return {
        name
        for name, state in before.items()
        if any(not torch.equal(v, getattr(agent, name).state_dict()[k]) for k, v in state.items())
    }


def test_the_critic_s_loss_moves_encoder_critic_and_masker_and_no_target(tiny):
    agent, ring = agent_of("MaDi", tiny()), filled("MaDi")
    before = snapshot(agent)
    agent.update_(ring, False, False, False)
    assert moved(agent, before) == {"encoder", "critic", "masker"}


def test_the_actor_s_loss_moves_the_actor_alone(tiny):
    agent, ring = agent_of("MaDi", tiny()), filled("MaDi")
    observed = agent.images(ring.stacked(ring.numbers(torch.arange(4))[0]))
    before, alpha = snapshot(agent), float(agent.log_alpha.detach())
    agent._improve_(observed, torch.randn(4, 2))
    assert moved(agent, before) == {"actor"}
    assert float(agent.log_alpha.detach()) != alpha
    assert all(p.grad is None for n in (agent.encoder, agent.masker) for p in n.parameters())


def test_both_halves_of_the_critic_s_loss_train_the_masker(tiny):
    agent, ring = agent_of("MaDi", tiny()), filled("MaDi")
    images, _ = agent.images(ring.stacked(ring.numbers(torch.arange(4))[0]))
    actions, wanted = ring.actions[:4], torch.randn(4, 1)
    parameters = list(agent.masker.parameters())
    agent.augment = lambda x: x.flip(3)
    whole = torch.autograd.grad(agent._critic_loss((images, None), actions, wanted), parameters)
    halves = []
    for part in (images, images.flip(3)):
        values = agent.critic(agent.features(part, None), actions)
        loss = sum(functional.mse_loss(value, wanted) for value in values) / 2
        halves.append(torch.autograd.grad(loss, parameters))
    for all_of_it, plain, strong in zip(whole, *halves, strict=True):
        assert plain.any() and strong.any()
        torch.testing.assert_close(all_of_it, plain + strong)


def test_there_is_no_target_masker_targets_see_through_the_masker_as_it_is_now(tiny):
    agent, ring = agent_of("MaDi", tiny()), filled("MaDi")
    assert not any("masker" in name and "target" in name for name in vars(agent))
    following = agent.images(ring.stacked(ring.numbers(torch.arange(4))[1]))
    noise = torch.zeros(4, 2)
    one = agent._wanted(ring, torch.arange(4), following, noise)
    with torch.no_grad():
        agent.masker.last.bias.fill_(-5.0)
    assert not torch.equal(one, agent._wanted(ring, torch.arange(4), following, noise))


def test_targets_are_those_of_the_formula(tiny):
    agent, ring = agent_of("SVEA", tiny()), filled("SVEA")
    places, noise = torch.arange(8, 12), torch.randn(4, 2)
    following, _ = agent.images(ring.stacked(ring.numbers(places)[1]))
    with torch.no_grad():
        mean, log_std = agent.actor(agent.encoder(following))
        before = mean + log_std.exp() * noise
        action = torch.tanh(before)
        normal = torch.distributions.Normal(mean, log_std.exp()).log_prob(before).sum(1)
        log_prob = normal - torch.log(1 - action.square()).sum(1)
        values = agent.target_critic(agent.target_encoder(following), action)
        soft = torch.minimum(*values)[:, 0] - 0.1 * log_prob
        wanted = ring.rewards[places][:, 0] + 0.99 * (1 - ring.ended[places][:, 0]) * soft
        found = agent._wanted(ring, places, (following, None), noise)
    assert ring.ended[9] == 1 and ring.ended[8] == 0
    torch.testing.assert_close(found[:, 0], wanted, rtol=1e-4, atol=1e-4)


def test_the_actor_s_loss_is_that_of_the_formula_and_the_temperature_follows_the_entropy(tiny):
    agent, ring = agent_of("MaDi", tiny()), filled("MaDi")
    observed = agent.images(ring.stacked(ring.numbers(torch.arange(6))[0]))
    noise = torch.randn(6, 2)
    with torch.no_grad():
        features = agent.encoder(agent.masked(*observed))
        mean, log_std = agent.actor(features)
        before = mean + log_std.exp() * noise
        normal = torch.distributions.Normal(mean, log_std.exp()).log_prob(before).sum(1)
        log_prob = normal - torch.log(1 - torch.tanh(before).square()).sum(1)
        value = torch.minimum(*agent.critic(features, torch.tanh(before)))[:, 0]
    alpha = float(agent.log_alpha.detach().exp())
    wanted = {n: p.clone() for n, p in agent.actor.named_parameters()}
    agent._improve_(observed, noise)
    torch.testing.assert_close(
        agent.losses[1], (alpha * log_prob - value).mean(), rtol=1e-4, atol=1e-4
    )
    assert any((p != wanted[n]).any() for n, p in agent.actor.named_parameters())
    # An action's entropy is to be −2: below it the temperature rises, above it falls.
    assert float(-log_prob.mean()) < -2 and agent.log_alpha.exp() > alpha
    with torch.no_grad():
        agent.actor.net[-1].bias[2:] = 0.6  # a deviation of about a half
    alpha = float(agent.log_alpha.detach().exp())
    agent.optimizers["alpha"].state.clear()
    agent._improve_(observed, noise)
    assert agent.log_alpha.exp() < alpha


def test_actor_and_targets_move_every_second_update(tiny):
    agent, ring = agent_of("MaDi", tiny(actor_every=2, target_every=3)), filled("MaDi")
    seen = []
    for _ in range(6):
        before = snapshot(agent)
        agent.learn_(ring)
        seen.append(moved(agent, before) - {"encoder", "critic", "masker"})
    targets = {"target_encoder", "target_critic"}
    assert seen == [set(), {"actor"}, targets, {"actor"}, set(), {"actor"} | targets]


def test_sgqn_s_critic_also_learns_values_that_hang_on_few_pixels(tiny):
    agent, ring = agent_of("SGQN", tiny()), filled("SGQN")
    with torch.no_grad():  # values hang on few pixels at all at the start
        for layer in (agent.encoder.first, *agent.encoder.others):
            layer.weight.normal_(0, 0.2, generator=torch.Generator().manual_seed(0))
    images, _ = agent.images(ring.stacked(ring.numbers(torch.arange(4))[0]))
    images = 0.3 + images / 2  # the grey is between the darkest and the brightest
    actions, wanted = ring.actions[:4], torch.randn(4, 1)
    values = agent.critic(agent.encoder(images), actions)
    plain = sum(functional.mse_loss(value, wanted) for value in values)
    count = agent.draws["auxiliary"].count.clone()
    whole = agent._critic_loss((images, None), actions, wanted)
    agent.draws["auxiliary"].count.copy_(count)  # the same grey once more
    grey = images.min() + (images.max() - images.min()) * agent.draws["auxiliary"].uniform(1)[0]
    kept = attribution_mask(guided_gradient(agent.encoder, agent.critic, images, actions), 0.95)
    assert 0 < kept.float().mean() < 0.1
    others = agent.critic(agent.encoder(images * kept + grey * ~kept), actions)
    change = sum(functional.mse_loss(a, b) for a, b in zip(values, others, strict=True))
    assert change > 0
    torch.testing.assert_close(whole, plain + 0.5 * change)


def test_targets_follow_at_their_own_rates(tiny):
    agent, ring = agent_of("DrQ", tiny(target_rate=0.25, encoder_target_rate=0.5)), filled("DrQ")
    agent.update_(ring, True, False, False)
    old = copy.deepcopy(agent.target_critic), copy.deepcopy(agent.target_encoder)
    agent._move_targets_()
    for new, before, source, rate in (
        (agent.target_critic.q1, old[0].q1, agent.critic.q1, 0.25),
        (agent.target_critic.q2, old[0].q2, agent.critic.q2, 0.25),
        (agent.target_critic.projection, old[0].projection, agent.critic.projection, 0.5),
        (agent.target_encoder, old[1], agent.encoder, 0.5),
    ):
        for a, b, c in zip(new.parameters(), before.parameters(), source.parameters(), strict=True):
            torch.testing.assert_close(a, b + rate * (c - b))


def test_a_mask_of_ones_is_svea_bit_for_bit(tiny):
    ones, svea = agent_of("mask-ones", tiny()), agent_of("SVEA", tiny())
    ring = filled("SVEA")
    for _ in range(6):
        ones.learn_(ring)
        svea.learn_(ring)
    assert torch.equal(weights(ones), weights(svea))


def test_without_augmentation_or_shift_svea_is_sac(tiny):
    plain = tiny(augmentation="none", shift=0)
    svea, sac = agent_of("SVEA", plain), agent_of("SAC", plain)
    ring = filled("SAC")
    for _ in range(4):
        svea.learn_(ring)
        sac.learn_(ring)
    torch.testing.assert_close(weights(svea), weights(sac), rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("method", PIXEL_METHODS)
def test_every_method_learns_and_goes_on_from_its_state_bit_for_bit(method, tiny):
    agent, ring = agent_of(method, tiny()), filled(method)
    start = weights(agent)
    for _ in range(3):
        agent.learn_(ring)
    again = agent_of(method, tiny(), seed=0)
    again.load_state_dict(agent.state_dict())
    for one in (agent, again):
        for _ in range(3):
            one.learn_(ring)
    assert weights(agent).isfinite().all() and not torch.equal(start, weights(agent))
    assert torch.equal(weights(agent), weights(again))
    assert torch.equal(agent.losses[:2], again.losses[:2])


def test_seeds_decide_everything(tiny):
    ring = filled("MaDi")
    agents = [agent_of("MaDi", tiny(), seed) for seed in (0, 0, 1)]
    torch.manual_seed(123)
    for agent in agents:
        agent.learn_(ring)
    one, two, other = map(weights, agents)
    assert torch.equal(one, two) and not torch.equal(one, other)


def test_building_an_agent_leaves_the_global_generator_alone(tiny):
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    agent_of("SGQN", tiny())
    assert torch.equal(torch.rand(3), wanted)


def test_masks_are_hard_in_tests_alone_where_they_are_mixed(tiny):
    method = replace(PIXEL_METHODS["MaDi"], hard="mixed")
    agent = PixelAgent(method, tiny(), 2, 0, CPU)
    images = torch.rand(2, 9, 16, 16)
    soft, hard = agent.masks(images, None), agent.masks(images, None, test=True)
    assert set(hard.detach().unique().tolist()) <= {0.0, 1.0}
    assert ((soft > 0) & (soft < 1)).all()
    assert torch.equal(hard.detach().bool(), soft > 0.5)


def test_a_hard_mask_learns(tiny):
    agent = PixelAgent(replace(PIXEL_METHODS["MaDi"], hard="hard"), tiny(), 2, 0, CPU)
    before = snapshot(agent)
    agent.update_(filled("MaDi"), False, False, False)
    assert "masker" in moved(agent, before)


def test_the_true_foreground_is_what_a_segmentation_shows(tiny):
    agent, ring = agent_of("mask-segmentation", tiny()), filled("mask-segmentation")
    stacked = ring.stacked(ring.numbers(torch.tensor([5]))[0])
    images, foreground = agent.images(stacked)
    assert images.shape == (1, 9, 16, 16) and foreground.shape == (1, 3, 16, 16)
    masked = agent.masked(images, foreground).view(3, 3, 16, 16)
    for frame in range(3):
        raw = stacked[0, 4 * frame : 4 * frame + 4]
        wanted = raw[:3].float() / 255 * (raw[3] > 0)
        torch.testing.assert_close(masked[frame], wanted)


def test_random_masks_are_drawn_anew_and_those_of_tests_apart(tiny):
    agent = agent_of("mask-random", tiny())
    images = torch.rand(2, 9, 16, 16)
    one, two = agent.masks(images, None), agent.masks(images, None)
    assert not torch.equal(one, two) and ((one >= 0) & (one <= 1)).all()
    count = agent.draws["masks"].count.clone()
    agent.act(torch.zeros(1, 9, 16, 16, dtype=torch.uint8), test=True)
    assert torch.equal(agent.draws["masks"].count, count)


def test_methods_cut_as_they_say(tiny):
    for method, now, then in (
        ("SAC", False, False), ("SVEA", True, False), ("MaDi", True, False), ("DrQ", True, True),
        ("SGQN", True, True), ("RAD", True, True), ("SODA", True, True),
    ):  # fmt: skip
        starts = agent_of(method, tiny())._starts(filled(method), 50)
        assert [start is not None for start in starts] == [now, then], method
        for start in starts:
            if start is not None:
                low, high = (0, 3) if PIXEL_METHODS[method].crop else (-2, 2)
                assert low <= start.min() and start.max() <= high


def test_guided_gradients_go_through_what_is_positive_alone(tiny):
    agent = agent_of("SGQN", tiny())
    images, actions = torch.rand(3, 9, 16, 16), torch.rand(3, 2)
    found = guided_gradient(agent.encoder, agent.critic, images, actions)
    hooks, seen = [], images.clone().requires_grad_()

    def guide(gradient):
        return gradient.clamp(min=0)

    x = agent.encoder.first(seen)
    for layer in agent.encoder.others:
        x = functional.relu(x)
        hooks.append(x.register_hook(guide))
        x = layer(x)
    x = torch.cat([agent.critic.projection(x.flatten(1)), actions], 1)
    for layer in agent.critic.q1:
        x = layer(x)
        if isinstance(layer, torch.nn.ReLU):
            hooks.append(x.register_hook(guide))
    x.sum().backward()
    torch.testing.assert_close(found, seen.grad)
    plain = images.clone().requires_grad_()
    agent.critic(agent.encoder(plain), actions)[0].sum().backward()
    assert not torch.allclose(found, plain.grad)


def test_attributions_keep_the_quantile_of_each_frame():
    gradient = torch.randn(2, 9, 10, 10, generator=torch.Generator().manual_seed(0))
    mask = attribution_mask(gradient, 0.9)
    strength = gradient.view(2, 3, 3, 100).abs().amax(2)
    wanted = strength >= torch.quantile(strength, 0.9, 2, keepdim=True)
    assert torch.equal(mask.view(2, 3, 3, 100)[:, :, 0], wanted)
    assert torch.equal(mask.view(2, 3, 3, 100)[:, :, 0], mask.view(2, 3, 3, 100)[:, :, 2])


def test_soda_compares_directions_and_trains_no_target(tiny):
    agent, ring = agent_of("SODA", tiny()), filled("SODA")
    x, y = torch.randn(6, agent.soda.projection[0].in_features), torch.randn(6, 4 * 3 * 3)
    a = agent.soda.prediction(agent.soda.projection(x))
    b = agent.soda.target(y)
    wanted = (2 - 2 * functional.cosine_similarity(a, b)).mean() / a.shape[1]
    torch.testing.assert_close(agent.soda(x, y), wanted)
    target = copy.deepcopy(agent.soda.target.state_dict())
    encoder = copy.deepcopy(agent.encoder.state_dict())
    agent._learn_soda_(ring)
    assert any(not torch.equal(v, agent.encoder.state_dict()[k]) for k, v in encoder.items())
    new, source = agent.soda.target.state_dict(), agent.soda.projection.state_dict()
    for name, before in target.items():
        torch.testing.assert_close(new[name], before + 0.005 * (source[name] - before))


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.skipif(not compiler(), reason="torch.compile needs a C++ compiler")
def test_what_is_compiled_is_what_is_eager(tiny):
    ring = filled("MaDi")
    eager, compiled = (agent_of("MaDi", tiny(compiled=on)) for on in (False, True))
    assert compiled._encode is not compiled.encoder and eager._encode is eager.encoder
    for agent in (eager, compiled):
        for _ in range(3):
            agent.learn_(ring)
    torch.testing.assert_close(weights(compiled), weights(eager), rtol=1e-3, atol=1e-4)


def test_bfloat16_gives_nearly_the_same_update(tiny):
    ring = filled("MaDi")
    full, low = agent_of("MaDi", tiny()), agent_of("MaDi", tiny(precision="bfloat16"))
    for agent in (full, low):
        agent.update_(ring, True, True, False)
    assert all(p.dtype == torch.float32 for p in low.encoder.parameters())
    assert not torch.equal(weights(full), weights(low))
    torch.testing.assert_close(low.losses[0], full.losses[0], rtol=0.1, atol=0.05)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"mask": "x"}, "mask='x'"), ({"masker": "x"}, "masker='x'"), ({"shift": "x"}, "shift='x'"),
        ({"auxiliary": "x"}, "auxiliary='x'"), ({"hard": "x"}, "hard='x'"),
        ({"threshold": "x"}, "threshold='x'"), ({"level": 2.0}, r"level=2\.0"),
        ({"auxiliary_rate": 0.0}, r"auxiliary_rate=0\.0"),
        ({"crop": True, "shift": "both"}, "crop=True, shift='both'"),
        ({"hard": "mixed"}, "hard='mixed', mask='none'"),
        ({"hard": "hard", "mask": "random"}, "hard='hard', mask='random'"),
        ({"auxiliary": "sgqn", "mask": "learned"}, "auxiliary='sgqn', mask='learned'"),
    ],
)  # fmt: skip
def test_wrong_methods_are_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        PixelMethod(**wrong)
