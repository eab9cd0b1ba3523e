"""Runs alone and together, killed and resumed; what holds at every step; what is refused."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch

from regrow.control.checks import check_finite
from regrow.control.environments import PointMass
from regrow.control.noise import NoiseFeatures
from regrow.control.population import Population
from regrow.control.setting import METHODS, Arm, Setting
from regrow.control.teachers import TEACHERS, Answers, ScriptedTeacher
from regrow.engine.allocation import units_kept


def networks_of(runs):
    agent = runs.agent
    return {"actor": agent.actor, "critic": agent.critic, "reward_model": runs.models.networks}


def check_masks(runs):
    """Masked weights and their moments are zero, in targets, too; counts are exact."""
    for name, nets in networks_of(runs).items():
        n = nets.mask.shape[1]
        for rows in (nets.rows, nets.first, nets.second):
            assert not rows[:, :n][nets.mask == 0].any()
        counts = nets.mask.view(len(runs.arms), -1, n).sum(2)
        for run, arm in enumerate(runs.arms):
            if getattr(arm, name) in ("static", "set", "rigl"):
                shadows = runs.shadows.count * nets.sizes[1]  # are not read
                assert set(counts[run].tolist()) == {units_kept(arm.density, n - shadows)}
    critic = runs.agent.critic
    assert not runs.agent.target[:, : critic.mask.shape[1]][critic.mask == 0].any()


def state_of(runs, run):
    """Everything that belongs to one run."""
    found = {}
    for name, nets in networks_of(runs).items():
        part = slice(run * nets.members, (run + 1) * nets.members)
        for kind in ("rows", "first", "second", "steps", "mask"):
            found[name, kind] = getattr(nets, kind)[part]
    for name in ("inputs", "following", "rewards", "learned", "ended", "episode"):
        found[name] = getattr(runs.replay, name)[run]
    found |= {"clips": runs.models.clips[run], "target": runs.agent.target[2 * run : 2 * run + 2]}
    if runs.arms[run].eliminates:
        found["scores"] = runs.elimination.scores[run]
    found |= {"labels": runs.models.labels[run]}
    found |= {"alpha": runs.agent.log_alpha[run], "live": runs.elimination.live[run]}
    found["returns"] = torch.tensor(runs.returns[run])
    return found


def test_a_run_alone_gives_the_numbers_of_the_same_run_in_a_population(population, arms):
    seeds = list(range(3, 3 + len(arms)))
    together = population(arms, seeds)
    together.run_to_(160)
    for run in (1, 3, 6, 7, 8, 9, 11):
        alone = population([arms[run]], [seeds[run]])
        alone.run_to_(160)
        wanted = state_of(together, run)
        for name, value in state_of(alone, 0).items():
            assert torch.equal(value, wanted[name]), (run, name)


@pytest.mark.parametrize("kind", ["k-center", "k-center-entropy"])
def test_what_others_were_answered_does_not_change_what_a_run_asks(population, small, kind):
    setting = replace(small, query=kind, feedbacks=4, feedback_every=20)
    seeds = [0, 1, 2, 3]
    together = population([Arm()] * 4, seeds, setting, teacher=ScriptedTeacher(skip=1.0))
    together.run_to_(110)
    assert len(set(together.models.count[:, 0].tolist())) > 1  # as answers were
    for run in seeds:
        alone = population([Arm()], [run], setting, teacher=ScriptedTeacher(skip=1.0))
        alone.run_to_(110)
        assert torch.equal(alone.models.starts[0], together.models.starts[run])
        assert torch.equal(alone.replay.learned[0], together.replay.learned[run])


@pytest.mark.parametrize("stopped", [25, 97])
def test_a_population_that_was_killed_goes_on_bit_for_bit(population, arms, equal_states, stopped):
    seeds = list(range(len(arms)))
    options = {"kind": "autoregressive", "permuted": True}
    whole = population(arms, seeds, **options)
    whole.run_to_(stopped)
    out = io.BytesIO()
    torch.save(whole.state_dict(), out)
    whole.run_to_(130)
    out.seek(0)
    again = population(arms, seeds, **options)
    again.load_state_dict(torch.load(out, weights_only=True))
    again.run_to_(130)
    equal_states(whole.state_dict(), again.state_dict())


def test_a_state_is_a_copy(population, arms, equal_states):
    runs = population(arms[:2], [0, 1])
    runs.run_to_(60)
    state = runs.state_dict()
    before = population(arms[:2], [0, 1])
    before.load_state_dict(state)
    runs.run_to_(90)
    equal_states(state, before.state_dict())


def test_masks_hold_at_every_step(population, arms):
    runs = population(arms, list(range(len(arms))))
    for _ in range(160):
        runs.step_()
        check_masks(runs)
    assert len(runs.models.labels[0]) == 18 and runs.models.count.tolist() == [[18]] * len(arms)


def test_masks_hold_when_weights_are_exchanged(population):
    """Nothing leaves these runs, which would mask targets, too; and enough moves at a time."""
    arms = [replace(METHODS[name], drop_fraction=0.3) for name in ("r2n", "r2n-rigl")]
    runs = population(arms, [0, 1])
    before = {name: nets.mask.clone() for name, nets in networks_of(runs).items()}
    for _ in range(160):
        runs.step_()
        check_masks(runs)
    for name, nets in networks_of(runs).items():
        assert (nets.mask != before[name]).flatten(1).any(1).all(), name


def test_the_switches_of_one_arm_are_its_own(population):
    """Of dense, static and moving input layers only the last change their masks."""
    arms = [Arm(), METHODS["static"], Arm(critic="set", drop_fraction=0.5)]
    runs = population(arms, [0, 0, 0])
    before = {name: nets.mask.clone() for name, nets in networks_of(runs).items()}
    runs.run_to_(160)
    moved = {
        name: (nets.mask != before[name]).view(3, -1).any(1).tolist()
        for name, nets in networks_of(runs).items()
    }
    still = [False, False, False]
    assert moved == {"actor": still, "reward_model": still, "critic": [False, False, True]}


def test_oracle_arms_read_real_features_and_actions_only(population):
    runs = population([METHODS["oracle"]], [0], permuted=True)
    runs.run_to_(160)
    read = runs.agent.critic.input_mask()[0].any(2)
    assert torch.equal(read[:, :10], runs.noise.real.expand(2, -1))
    assert not read[:, 10:16].any() and read[:, 16:].all()  # shadows, actions
    assert runs.features() == ([4.0], [0.0])


def test_the_true_reward_is_learnt_from_where_an_arm_says_so(population):
    runs = population([Arm(true_reward=True), Arm()], [0, 0])
    runs.run_to_(120)
    kept = slice(0, 120)
    assert torch.equal(runs.replay.learned[0, kept], runs.replay.rewards[0, kept])
    inputs = runs.replay.inputs[:, kept]
    torch.testing.assert_close(runs.replay.learned[1, kept], runs.models.reward(inputs)[1])
    assert runs.replay.learned[1].abs().max() <= 1


def test_curious_runs_are_also_rewarded_for_what_models_differ_on(population, small):
    setting = Setting(**{**vars(small), "curiosity_decay": 0.01})
    curious, plain = (population([Arm(curiosity=c)], [0], setting) for c in (0.5, 0.0))
    for runs in (curious, plain):
        runs.run_to_(120)
    kept = curious.replay.inputs[:, :120]
    members = curious.models(kept)
    spread = members.detach().std(1, correction=0)
    torch.testing.assert_close(curious.replay.spread[:, :120], spread)
    torch.testing.assert_close(curious.replay.learned[:, :120], members.detach().mean(1))
    curious.step_()
    inputs, _, rewards, _ = curious._batch()
    same = (inputs[0][:, None] == kept[0][None]).all(2).float()
    found = same.argmax(1)[same.any(1)]
    wanted = curious.replay.learned[0, found] + 0.5 * 0.99**120 * curious.replay.spread[0, found]
    torch.testing.assert_close(rewards[0][same.any(1)], wanted)
    assert len(found) > 8 and spread.min() > 0
    assert not torch.equal(curious.agent.critic.rows, plain.agent.critic.rows)


@pytest.mark.parametrize("at_once", [7, 4096])
def test_the_whole_buffer_is_labelled_anew_after_it_wrapped(
    population, small, monkeypatch, at_once
):
    monkeypatch.setattr("regrow.control.replay._RELABELLED", at_once)
    setting = Setting(**{**vars(small), "replay": 30})
    runs = population([Arm()], [0], setting)
    runs.run_to_(119)
    before = runs.replay.learned.clone()
    runs.run_to_(120)  # the third feedback; the ring has wrapped three times
    assert runs.replay.added.item() == 120 and len(runs.replay) == 30
    now = runs.models.reward(runs.replay.inputs)
    torch.testing.assert_close(runs.replay.learned, now)
    assert (before != runs.replay.learned).sum() >= 29


def test_comparisons_outlive_the_replay_buffer(population, small):
    setting = Setting(**{**vars(small), "replay": 30})
    runs = population([Arm()], [0], setting)
    runs.run_to_(40)
    clips = runs.models.clips[:, :6].clone()
    runs.run_to_(120)
    assert torch.equal(runs.models.clips[:, :6], clips)


def test_critics_start_anew_after_unsupervised_steps_and_actors_do_not(population, small):
    setting = Setting(**{**vars(small), "unsupervised_steps": 20, "reward_steps": 2})
    runs = population([METHODS["r2n"]], [0], setting)
    runs.run_to_(59)
    assert runs.agent.critic.steps.unique().tolist() == [19.0]
    actor, mask = runs.agent.actor.rows.clone(), runs.agent.critic.mask.clone()
    runs.feedback_()
    assert runs.agent.critic.steps.unique().tolist() == [100.0]  # learnt anew
    assert runs.agent.actor.steps.unique().tolist() == [119.0]
    assert torch.equal(runs.agent.critic.mask, mask)
    assert not torch.equal(runs.agent.actor.rows, actor)
    check_masks(runs)
    critic = runs.agent.critic.rows.clone()
    runs.feedback_()  # later ones leave agents alone
    assert torch.equal(runs.agent.critic.rows, critic)
    assert runs.agent.actor.steps.unique().tolist() == [119.0]


def test_evaluation_changes_nothing(population, arms, equal_states):
    runs = population(arms[:3], [0, 1, 2])
    runs.run_to_(60)
    before = runs.state_dict()
    found = runs.evaluate(PointMass([7, 8, 9], episode=20), 2)
    equal_states(before, runs.state_dict())
    assert len(found) == 3 and all(np.isfinite(found))
    assert found == runs.evaluate(PointMass([7, 8, 9], episode=20), 2)


@pytest.mark.parametrize("number", [0, 4])
def test_nan_in_an_evaluation_is_no_return(population, number):
    class Broken(PointMass):
        def observe(self):
            return super().observe() * (np.nan if (self._steps == number).any() else 1)

    runs = population([Arm()], [0])
    with pytest.raises(FloatingPointError, match="observations of run 0 are NaN"):
        runs.evaluate(Broken([7], episode=20))


def test_a_teacher_that_answers_nothing_is_told_and_nothing_is_learnt(population, caplog):
    def silent(query):
        shape = query.rewards.shape[:2]
        return Answers(torch.full(shape, torch.nan), torch.zeros(shape, dtype=torch.bool))

    runs = population([Arm()], [0], teacher=silent)
    before = runs.models.networks.rows.clone()
    runs.run_to_(60)
    assert "run 0: the teacher answered none of 6" in caplog.text
    assert torch.equal(runs.models.networks.rows, before)
    assert runs.agent.critic.rows.isfinite().all()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.full((1, 6), 2.0), "0.5"),
        (torch.full((1, 6), torch.nan), "0.5"),
        (torch.zeros(1, 5), "must be of shape"),
    ],
)
def test_answers_that_are_none_are_refused_before_anything_is_learnt(population, labels, message):
    def wrong(query):
        return Answers(labels, torch.ones_like(labels, dtype=torch.bool))

    runs = population([Arm()], [0], teacher=wrong)
    before = runs.models.networks.rows.clone()
    with pytest.raises(ValueError, match=message):
        runs.run_to_(60)
    assert torch.equal(runs.models.networks.rows, before) and not runs.models.count.any()


def test_nan_of_an_environment_is_told_and_not_kept(population):
    class Broken(PointMass):
        def observe(self):
            seen = super().observe()
            if self._steps[1] == 7:
                seen[1, 2] = np.nan
            return seen

    runs = population([Arm(), Arm()], [0, 1], env=Broken([0, 1], episode=20))
    with pytest.raises(FloatingPointError, match=r"observations of run 1 are NaN.*step 6"):
        runs.run_to_(60)
    assert runs.step == 6 and runs.replay.inputs.isfinite().all()


@pytest.mark.parametrize("episode", [0, 1])
def test_nan_at_the_begin_of_an_episode_is_told(population, episode):
    class Broken(PointMass):
        def observe(self):
            seen = super().observe()
            if self._numbers[1] == episode + 1 and self._steps[1] == 0:
                seen[1, 2] = np.nan
            return seen

    with pytest.raises(FloatingPointError, match=f"of run 1 are NaN.*at step {19 * episode}:"):
        population([Arm(), Arm()], [0, 1], env=Broken([0, 1], episode=20)).run_to_(60)


def test_a_teacher_who_returns_no_answers_is_told(population):
    runs = population([Arm()], [0], teacher=lambda query: None)
    with pytest.raises(TypeError, match=r"teacher: returned None; regrow\.control\.Answers"):
        runs.run_to_(60)
    assert not runs.models.count.any()


def test_answers_that_are_no_tensors_are_told(population):
    runs = population([Arm()], [0], teacher=lambda query: Answers([[0.0] * 6], [[True] * 6]))
    with pytest.raises(TypeError, match=r"teacher: labels=\[\[0\.0.*a tensor is needed"):
        runs.run_to_(60)
    with pytest.raises(TypeError, match="teacher=5: a function from a Query"):
        population([Arm()], [0], teacher=5)


@pytest.mark.parametrize("reward", [1e39, -1e39, np.inf, np.nan])
def test_rewards_that_float32_has_not_are_told(reward):
    check_finite(3, rewards=np.array([0.0, 3e38]))
    with pytest.raises(FloatingPointError, match="rewards of run 1 are NaN or infinite at step 3"):
        check_finite(3, rewards=np.array([0.0, reward]))


def test_episodes_that_end_before_a_segment_would(population):
    """Every episode ends after a step or two: nothing can be compared, and that is said."""
    runs = population([Arm()], [0], env=PointMass([0], episode=20, wall=0.01))
    with pytest.raises(ValueError, match=r"run 0: no episode.*segment=5 steps.*shorten"):
        runs.run_to_(60)


def test_contradictory_and_duplicate_preferences_are_learnt_from(population):
    runs = population([Arm()], [0])
    runs.run_to_(39)
    clips = torch.randn(1, 1, 2, 5, runs.features_shown + 2).expand(1, 6, -1, -1, -1)
    labels = torch.tensor([[0.0, 1.0, 0.0, 1.0, 0.0, 1.0]])
    runs.models.add_(clips, labels, torch.ones(1, 6, dtype=torch.bool))
    for _ in range(200):
        runs.models.step_()
    chance = runs.models.chances(clips[:, :1])
    assert (chance - 0.5).abs().max() < 0.2


def bad(**changes):
    return {"arms": [Arm()], "setting": Setting(segment=5), "teacher": TEACHERS["oracle"]} | changes


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (bad(arms=[Arm()] * 2), "2 for 1 environments"),
        (bad(setting=Setting(segment=21)), "segment=21: episodes have 20 steps"),
        (bad(teacher=None), "run 0 learns from preferences"),
        (bad(setting=Setting(segment=5, feedbacks=0)), "run 0 learns from preferences"),
        (bad(setting=Setting(segment=5, steps=999)), "steps=999: the teacher .* after 1000"),
        (
            bad(setting=Setting(segment=5, steps=1500, unsupervised_steps=600)),
            "steps=1500: the teacher .* after 1600",
        ),
    ],
)
def test_what_cannot_be_run_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        Population(PointMass([0], episode=20), given["teacher"], given["arms"], given["setting"])


def test_noise_for_other_runs_is_another_run(population):
    one, two = NoiseFeatures([0], 4, 0.6), NoiseFeatures([1], 4, 0.6)
    real = torch.zeros(1, 4)
    assert not torch.equal(one(real), two(real))


def test_shadows_are_read_by_arms_that_need_them_only_and_leave_at_the_end(population, small):
    runs = population([METHODS["r2n"], METHODS["elimination"]], [0, 0])
    d = runs.noise.total

    def read():
        masks = [nets.input_mask()[:, :, d : d + 6] for nets in networks_of(runs).values()]
        return [mask.any(3).any(1).sum(1).tolist() for mask in masks]

    assert read() == [[0, 6]] * 3
    runs.run_to_(90)
    assert read() == [[0, 5]] * 3
    runs.run_to_(160)
    assert read() == [[0, 0]] * 3
    assert runs.elimination.live[1].sum() >= 1


@pytest.mark.parametrize("noise", [0.0, 0.6])
def test_what_is_worth_more_than_shadows_never_leaves(population, small, noise):
    """And what is worth no more has left at the end: checked at every elimination."""
    runs = population([METHODS["elimination"]], [1], noise=noise)
    made = runs.elimination
    seen = []

    def watched(step, agent, models, own=made.eliminate_):
        live, scores, null = made.live.clone(), made.scores.clone(), float(made.null()[0])
        own(step, agent, models)
        d = made.features
        above = live[0, :d] & (scores[0, :d] > null)
        assert made.live[0, :d][above].all()
        seen.append((step, null, int(above.sum()), int(made.live[0, :d].sum())))

    made.eliminate_ = watched
    runs.run_to_(160)
    last = next(line for line in seen if line[0] >= 0.6 * 160)
    assert last[3] == max(last[2], 1)
    assert all(line[1:] == (np.inf, 0, last[3]) for line in seen if line[0] > last[0])


def test_features_that_follow_themselves_most_are_kept_once(population):
    """White noise does not follow itself; the point mass does: the filter finds all of it."""
    runs = population([METHODS["autocorrelation"], Arm()], [2, 2], noise=0.8)
    runs.run_to_(40)
    assert runs.features()[0] == [4.0, 4.0] and runs.features()[1] == [0.0, 16.0]
    live = runs.elimination.live.clone()
    runs.run_to_(160)
    assert torch.equal(runs.elimination.live, live)


@pytest.mark.parametrize(("seeds", "real"), [([0, 1], 4), ([0], 5)])
def test_noise_that_was_made_for_others_is_refused(seeds, real):
    noise = NoiseFeatures(seeds, real, 0.5)
    with pytest.raises(ValueError, match=rf"noise: made for {len(seeds)} runs of {real} real"):
        Population(PointMass([0]), TEACHERS["oracle"], [Arm()], Setting(), noise)


@pytest.mark.parametrize(
    ("arm", "setting", "said"),
    [
        (Arm(), {"replay": 5, "segment": 5, "unsupervised_steps": 9}, "replay=5.*neighbours=5"),
        (METHODS["moved"], {"replay": 4_999}, "replay=4999: what actions move .* 5,000"),
    ],
)
def test_a_buffer_that_holds_too_little_is_refused(arm, setting, said):
    with pytest.raises(ValueError, match=said):
        Population(PointMass([0]), TEACHERS["oracle"], [arm], Setting(**setting))
