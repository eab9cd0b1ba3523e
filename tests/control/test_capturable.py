"""What becomes a CUDA graph asks nothing of the host, and writes where it was captured."""

import pytest
import torch

from regrow.control.graphs import Graphed
from regrow.control.setting import METHODS, Arm, Setting
from tests.control.capturable import Refuse, places


@pytest.fixture
def runs(population, small):
    def make(**kinds):
        setting = Setting(**{**vars(small), "unsupervised_steps": 20})
        arms = [*METHODS.values(), Arm(true_reward=True)]
        made = population(arms, list(range(len(arms))), setting, **kinds)
        made.run_to_(80)
        return made

    return make


FUNCTIONS = {
    "_learn_": lambda runs: runs._learn_(),
    "_learn_alone_": lambda runs: runs._learn_alone_(),
    "_choose_": lambda runs: runs._choose_(),
    "_store_": lambda runs: runs._store_(),
    "reward models": lambda runs: runs.models.step_(),
}


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_graphs_ask_nothing_and_move_no_tensor(runs, name, stored):
    made = runs(stored=stored)
    call = FUNCTIONS[name]
    call(made)  # what is kept for later is there now
    before, weights = places(made), made.agent.critic.rows.clone()
    with Refuse():
        call(made)
    assert places(made) == before
    assert len(before) > 60  # the walk has seen them
    if name == "_learn_":
        assert not torch.equal(weights, made.agent.critic.rows)


def test_masks_move_where_graphs_read_them(runs):
    """Feedback, exchanges, eliminations, resets and loading write in place, too."""
    made = runs()
    graphed = {
        "agent": made.agent,
        "models": made.models.networks,
        "replay": made.replay,
        "draws": made.draws["batches"].count,
        "now": made._now,
    }
    before = places(graphed)
    made.run_to_(160)
    made.agent.reset_(torch.ones(len(made.arms), dtype=torch.bool), actor=True)
    made.load_state_dict(made.state_dict())
    after = places(graphed)
    assert {name: after[name] for name in before} == before


def test_the_refusal_refuses():
    with pytest.raises(AssertionError, match="waits"), Refuse():
        bool(torch.ones(()) > 0)


def test_a_cpu_calls_plainly():
    calls = []
    graphed = Graphed(lambda: calls.append(1), torch.device("cpu"))
    for _ in range(6):
        graphed()
    assert len(calls) == 6
