"""Environments in processes are those of one process; what goes wrong there is told here."""

import subprocess
import sys

import numpy as np
import pytest

from regrow.control.environments import make
from regrow.control.environments import spread as module
from regrow.control.environments.spread import Spread


def same(a, b):
    np.testing.assert_array_equal(a.observations, b.observations)
    np.testing.assert_array_equal(a.rewards, b.rewards)
    np.testing.assert_array_equal(a.terminated, b.terminated)
    np.testing.assert_array_equal(a.truncated, b.truncated)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("task", ["point-mass", "walker-walk"])
def test_runs_in_processes_are_those_of_one_and_are_resumed_in_any_number(task):
    if task != "point-mass":
        pytest.importorskip("dm_env")
    random, seeds = np.random.default_rng(0), [5, 2, 9]
    one, two = make(task, seeds), Spread(make, seeds, task=task, repeat=1, processes=2)
    assert (two.episode, two.actions) == (one.episode, one.actions)
    np.testing.assert_array_equal(one.reset(), two.reset())
    for number in range(12):
        if number == 6:
            again = Spread(make, seeds, task=task, repeat=1, processes=3)
            again.load_state_dict(two.state_dict())
            two = again
        if number == 8:
            which = np.array([False, True, True])
            np.testing.assert_array_equal(one.reset(which), two.reset(which))
        actions = random.uniform(-1.5, 1.5, (3, one.actions))
        same(one.step(actions), two.step(actions))


def test_processes_end_with_the_environments_and_a_dead_one_is_told():
    spread = Spread(make, [0, 1], task="point-mass", processes=8)
    ends = list(spread._ends)
    assert len(ends) == 2  # not more than there are runs
    spread.reset()
    ends[1].kill()
    ends[1].wait()
    with pytest.raises(RuntimeError, match="ended with status -9"):
        spread.step(np.zeros((2, 2)))
    del spread
    assert ends[0].wait(10) == 0


def test_an_interrupted_step_is_not_taken_for_the_next_one(monkeypatch):
    spread = Spread(make, [0, 1], task="point-mass", processes=2)
    spread.reset()

    def interrupted(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "_receive", interrupted)
        with pytest.raises(KeyboardInterrupt):
            spread.step(np.zeros((2, 2)))
    for late in (lambda: spread.step(np.zeros((2, 2))), spread.state_dict):
        with pytest.raises(RuntimeError, match="interrupted in a step: make them anew"):
            late()


def test_after_an_error_all_answers_are_those_to_what_was_asked():
    spread = Spread(make, [0, 1], task="point-mass", processes=2)
    spread.reset()
    with pytest.raises(ValueError, match="broadcast"):
        spread.advance_(np.zeros((2, 5)))
    one = make("point-mass", [0, 1])
    one.reset()
    actions = np.array([[0.5, -0.5], [1.0, 0.0]])
    same(one.step(actions), spread.step(actions))


def test_what_a_process_refuses_is_raised_here():
    with pytest.raises(ValueError, match="task='walking': must be one of"):
        Spread(make, [0], task="walking", processes=1)


def test_a_script_needs_no_guard_around_what_it_does(tmp_path):
    """Processes are none that import the script again."""
    script = tmp_path / "script.py"
    script.write_text(
        "from regrow.control.environments import make\n"
        "from regrow.control.environments.spread import Spread\n"
        "print(Spread(make, [0, 1], processes=2, task='point-mass').reset().shape)\n"
    )
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert (run.stdout, run.returncode) == ("(2, 4)\n", 0), run.stderr
