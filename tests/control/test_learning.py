"""What is learnt: rewards from comparisons, which features are real, and a task."""

import torch

from regrow.control.draws import RunDraws
from regrow.control.elimination import FeatureElimination
from regrow.control.environments import PointMass
from regrow.control.inputs import InputLayers
from regrow.control.population import Population
from regrow.control.reward import RewardModels
from regrow.control.setting import METHODS, Arm, Setting
from regrow.control.teachers import TEACHERS
from regrow.control.train import train_from_preferences

D, A, LENGTH = 20, 1, 4


def learnt(arms, comparisons=200, steps=250):
    """Let reward models learn r = x₀, told by comparisons; inputs 1 to 19 are noise."""
    setting = Setting(reward_width=16, reward_steps=steps, reward_batch=16, segment=LENGTH,
                      reward_rate=3e-3, reward_enough=1.0, reward_update_every=5)  # fmt: skip
    seeds = [0] * len(arms)
    models = RewardModels(seeds, D + A, setting, torch.device("cpu"), comparisons)
    real = torch.arange(D + A).expand(len(arms), -1) < 1
    layers = InputLayers(
        models.networks, [arm.reward_model for arm in arms], arms, real, torch.ones_like(real), D,
        seeds, "reward_model",
    )  # fmt: skip
    clips = RunDraws(seeds, "clips", "cpu").normal(comparisons, 2, LENGTH, D + A)
    sums = clips[..., 0].sum(-1)
    everyone = torch.ones(len(arms), comparisons, dtype=torch.bool)
    models.add_(clips, (sums[..., 1] > sums[..., 0]).float(), everyone)
    models.learn_(layers)
    fresh = RunDraws(seeds, "fresh", "cpu").normal(1000, D + A)
    reward = models.reward(fresh)
    correlation = [float(torch.corrcoef(torch.stack([r, f]))[0, 1]) for r, f in
                   zip(reward, fresh[..., 0], strict=True)]  # fmt: skip
    return models, layers, real, correlation


def test_dense_reward_models_learn_by_heart_and_oracles_do_not():
    """Noise: accuracy in training near 1, and a reward that follows the true one less."""
    models, _, _, correlation = learnt([METHODS["pebble"], METHODS["oracle"]])
    assert models.accuracy[0] > 0.95
    assert correlation[1] > 0.9 and correlation[0] < correlation[1] - 0.05


def test_rigl_moves_connections_to_the_real_feature_and_static_masks_do_not():
    moving = Arm(reward_model="rigl", drop_fraction=0.2)
    _, layers, real, _ = learnt([moving, METHODS["static"]])
    of_real, of_noise = layers.connections(real[:, :D])
    ratio = of_real / of_noise
    assert ratio[0] > 1.5 and 0.4 < ratio[1] < 1.6


def test_a_run_stops_learning_once_it_is_accurate_enough():
    setting = Setting(reward_width=8, segment=LENGTH, reward_enough=0.7)
    models = RewardModels([0, 1], 3, setting, torch.device("cpu"), 4)
    clips = torch.randn(1, 4, 2, LENGTH, 3).expand(2, -1, -1, -1, -1)
    labels = torch.tensor([[1.0, 1.0, 0.0, 0.0]] * 2)
    models.add_(clips, labels, torch.ones(2, 4, dtype=torch.bool))
    models.accuracy.copy_(torch.tensor([[0.9], [0.5]]))
    before = models.networks.rows.clone()
    models.step_()
    moved = (models.networks.rows != before).any(1)
    assert moved.tolist() == [False] * 3 + [True] * 3


def test_elimination_keeps_what_the_reward_depends_on():
    arm = Arm(reward_model="features", actor="features", critic="features", keep=0.1,
              true_reward=False, window=(0.0, 0.5))  # fmt: skip
    models, _, _, _ = learnt([arm, arm])
    from regrow.control.sac import SAC

    setting = Setting(width=8)
    agent = SAC([0, 0], D, A, setting, torch.device("cpu"))
    elimination = FeatureElimination([arm, arm], D, [0, 0], Setting(steps=100), torch.device("cpu"))
    for step in range(0, 101, 5):
        inputs = RunDraws([0, 0], f"batch {step}", "cpu").normal(64, D + A)
        elimination.score_(agent, models, inputs)
        elimination.eliminate_(step, agent, models)
        stay, trial = elimination.counts(0, step)
        assert elimination.live.sum(1).tolist() == [stay + trial] * 2
        for nets in (agent.actor, agent.critic, models.networks):
            read = nets.input_mask()[:, :, :D].amax(3).bool()
            assert read.equal(elimination.live[:, None].expand_as(read))
    assert elimination.live.sum(1).tolist() == [2, 2]
    assert elimination.live[:, 0].all()


def test_features_come_back_on_probation_with_fresh_weights():
    arm = Arm(reward_model="features", actor="features", critic="features", keep=0.2,
              window=(0.0, 1.0), probation=0.5)  # fmt: skip
    setting = Setting(width=8, reward_width=8, segment=LENGTH)
    from regrow.control.sac import SAC

    agent = SAC([0], D, A, setting, torch.device("cpu"))
    models = RewardModels([0], D + A, setting, torch.device("cpu"), 1)
    elimination = FeatureElimination([arm], D, [0], Setting(steps=100), torch.device("cpu"))
    elimination.scores.copy_(torch.arange(D, 0, -1.0))
    elimination.eliminate_(50, agent, models)
    before = elimination.live.clone()
    elimination.eliminate_(60, agent, models)
    back = (elimination.live & ~before)[0]
    assert back.any()
    weights = agent.critic.input_weights()[0][:, :D]
    assert weights[:, back].abs().min(2).values.max() > 0
    assert not agent.critic.first[:, : agent.critic.mask.shape[1]].any()
    assert elimination.live[0, : elimination.counts(0, 60)[0]].all()  # the best by score stay


def test_a_point_mass_is_pushed_to_the_middle_by_rewards_that_were_learnt():
    """Three runs of one population: true reward, learned reward, and nothing learned at all."""
    setting = Setting(steps=900, seed_steps=300, batch=32, width=32, reward_width=16, segment=10,
                      reward_steps=60, queries=25, feedbacks=4, feedback_every=150,
                      learning_rate=3e-3, target_rate=0.02, temperature=0.05)  # fmt: skip
    arms = [Arm(true_reward=True), METHODS["pebble"]]
    runs = Population(PointMass([0, 0]), TEACHERS["oracle"], arms, setting)
    others = PointMass([5, 5])
    before = runs.evaluate(others, 4)
    runs.run_to_(900)
    after = runs.evaluate(PointMass([5, 5]), 4)
    assert after[0] > before[0] + 8 and after[1] > before[1] + 8
    assert runs.correlations()[1] > 0.5


def test_one_call_trains_and_names_what_is_wrong(small):
    import pytest

    trained = train_from_preferences(
        PointMass([0, 1], episode=20), "noisy", method=["r2n", Arm()], setting=small, noise=0.5
    )
    assert trained.step == small.steps and trained.noise.total == 8
    for given, said in (
        ({"method": "r3n"}, "method='r3n'"),
        ({"teacher": "nobody"}, "teacher='nobody'"),
        ({"noise": 2.0}, "noise=2.0"),
        ({"device": "cuda"}, "no GPU")
        if not torch.cuda.is_available()
        else ({"noise": -1}, "noise"),
        ({"method": ["r2n"]}, "1 for 2 environments"),
    ):
        with pytest.raises(ValueError, match=said):
            train_from_preferences(PointMass([0, 1], episode=20), setting=small, **given)
