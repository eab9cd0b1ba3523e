"""Populations on a GPU: graphs give what eager calls give, and nothing in them waits."""

import pytest
import torch

from regrow.control import graphs
from regrow.control.environments import PointMass
from regrow.control.noise import NoiseFeatures
from regrow.control.population import Population
from regrow.control.setting import METHODS, Arm, Setting
from regrow.control.teachers import TEACHERS

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")

SETTING = Setting(
    steps=160, seed_steps=40, batch=16, width=16, reward_width=16, reward_batch=8, reward_steps=12,
    segment=5, queries=6, feedbacks=3, feedback_every=40, update_every=10, score_every=10,
    eliminate_every=20, reward_update_every=4,
)  # fmt: skip
ARMS = [*METHODS.values(), Arm(true_reward=True, actor="set")]


def trained(arms, seeds, device="cuda", setting=SETTING, steps=160):
    noise = NoiseFeatures(seeds, 4, 0.6, device=device)
    env = PointMass(seeds, episode=20, wall=1.2)
    population = Population(env, TEACHERS["oracle"], arms, setting, noise, device)
    population.run_to_(steps)
    return population


def weights(population):
    nets = (population.agent.actor, population.agent.critic, population.models.networks)
    return torch.cat([net.rows.detach().flatten() for net in nets])


@pytest.mark.parametrize("unsupervised", [0, 20])
def test_graphs_give_what_eager_calls_give(monkeypatch, unsupervised):
    setting = Setting(**{**vars(SETTING), "unsupervised_steps": unsupervised})
    seeds = list(range(len(ARMS)))
    captured = trained(ARMS, seeds, setting=setting)
    monkeypatch.setattr(graphs, "_WARM_UP", 10**9)
    eager = trained(ARMS, seeds, setting=setting)
    assert weights(captured).isfinite().all()
    torch.testing.assert_close(weights(captured), weights(eager), rtol=1e-3, atol=1e-4)
    assert captured.returns[0][:2] == eager.returns[0][:2]


def test_masks_hold_after_replays():
    population = trained(ARMS, list(range(len(ARMS))))
    for nets in (population.agent.actor, population.agent.critic, population.models.networks):
        n = nets.mask.shape[1]
        for rows in (nets.rows, nets.first, nets.second):
            assert not rows[:, :n][nets.mask == 0].any()


def test_random_numbers_are_the_cpus_and_graphs_draw_anew():
    from regrow.control.draws import RunDraws

    here, there = RunDraws([0, 9], "x", "cpu"), RunDraws([0, 9], "x", "cuda")
    assert torch.equal(here.uniform(3, 5), there.uniform(3, 5).cpu())
    out = torch.zeros(2, 4, device="cuda")
    draw = graphs.Graphed(lambda: out.copy_(there.uniform(4)), torch.device("cuda"))
    for _ in range(7):
        draw()
        assert torch.equal(out.cpu(), here.uniform(4))


def test_updates_do_not_wait_for_the_device(waiting_is):
    population = trained(ARMS, list(range(len(ARMS))), steps=60)
    with waiting_is("error"):
        population._learn_()
        population._store_()
        population._choose_()
        population.models.step_()


def test_a_resumed_population_goes_on(tmp_path):
    seeds = [0, 1, 2]
    whole = trained(ARMS[:3], seeds, steps=97)
    torch.save(whole.state_dict(), tmp_path / "state.pt")
    whole.run_to_(120)
    again = trained(ARMS[:3], seeds, steps=0)
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    again.run_to_(120)
    torch.testing.assert_close(weights(whole), weights(again), rtol=1e-4, atol=1e-5)


def test_a_topology_moves_under_a_captured_step():
    """What sparsifiers do for graphs of other people's steps: masks move where they are read."""
    import regrow

    model = torch.nn.Linear(32, 32).to("cuda")
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, capturable=True)
    method = regrow.RigL(density=0.25, update_every=5)
    sparse = regrow.sparsify(model, optimizer, method, total_steps=1000)
    inputs = torch.randn(8, 32, device="cuda")

    def step():
        optimizer.zero_grad(set_to_none=False)
        (model(inputs) - 1).square().mean().backward()
        optimizer.step()

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with sparse.captured(), torch.cuda.graph(graph):
        step()
    for _ in range(12):
        graph.replay()
        sparse.advance_()
        assert not model.weight[~sparse.masks["weight"]].any()
        assert int(sparse.masks["weight"].sum()) == 256
    assert [update.step for update in sparse.history] == [5, 10, 15]
    assert any(change.grown for update in sparse.history for change in update.layers.values())
