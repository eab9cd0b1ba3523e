"""Progress is shown, and changes nothing that passes through."""

import io
import threading

import pytest
from rich.console import Console

from regrow.lab import progress as module
from regrow.lab.environment import environment
from regrow.lab.progress import follow


def test_without_a_terminal_there_are_plain_lines():
    out = io.StringIO()
    console = Console(file=out, force_terminal=False)
    with follow("reading", 3, console) as tell:
        for letter in "ABC":
            tell(letter)
    said = out.getvalue().splitlines()
    assert said[0].startswith("reading: 1/3, about ")
    assert said[0].endswith(" left, last A")
    assert said[-1] == "reading: 3/3, last C"
    assert len(said) == 2  # a line every few seconds
    assert "\x1b" not in out.getvalue()


def lines_of(monkeypatch, at, **told):
    """What plain lines say at some times."""
    now, out = [0.0], io.StringIO()
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(module, "_watch", lambda *_: None)
    state = module._State("a", 9, 0, tuple, **told)
    with module._lines(state, Console(file=out, force_terminal=False, width=99)) as look:
        for now[0], done in at:
            if done != state.done:
                state.done, state.last = done, f"part {done}"
            look()
    return out.getvalue().splitlines()


def test_plain_lines_say_a_thing_once(monkeypatch):
    """What was last done stood in every line until more was."""
    said = lines_of(monkeypatch, [(0.0, 0), (10.0, 1), (20.0, 1), (30.0, 1), (40.0, 2)])
    assert sum("part 1" in line for line in said) == sum("part 2" in line for line in said) == 1
    assert len({*said}) == len(said)


def test_plain_lines_are_silent_while_others_speak(monkeypatch):
    at = [(float(second), 0) for second in range(60)]
    heard = {"heard": lambda: module.time.monotonic() - 1, "words": lambda: "epoch 1"}
    assert lines_of(monkeypatch, at, **heard) == []
    assert lines_of(monkeypatch, at, words=lambda: "epoch 1") == ["a: 0/9, epoch 1"]


def test_in_a_terminal_there_is_a_bar():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80)
    with follow("reading", 3, console) as tell:
        for letter in "ABC":
            tell(letter)
    assert "3/3" in out.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_what_is_under_way_is_looked_at_while_nothing_arrives(terminal, monkeypatch):
    monkeypatch.setattr(module, "_LOOK_EVERY", 0.01)
    monkeypatch.setattr(module, "_LINE_EVERY", 0.0)
    out, looks = io.StringIO(), threading.Semaphore(0)

    def shares():
        looks.release()
        return [0.25, 0.5]

    with follow("a", 4, Console(file=out, force_terminal=terminal, width=99), shares=shares):
        for _ in range(3):
            assert looks.acquire(timeout=10)
    assert "0/4, under way 25% 50%, about" in out.getvalue()


def test_time_left_counts_what_is_done_now_and_parts_of_what_is_under_way(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("regrow.lab.progress.time.monotonic", lambda: now[0])
    state = module._State("a", 10, 4, lambda: [0.5, 0.5])
    now[0] = 60.0
    state.done = 5
    done, words = state.look()
    assert done == 6
    assert words == "5/10, under way 50% 50%, about 2 min left"
    state.shares = lambda: [0.1, 0.3] * 5
    assert "10 under way, 20% done on average" in state.look()[1]


def test_an_error_inside_passes_and_the_watch_ends():
    before = threading.active_count()
    with pytest.raises(KeyError), follow("a", 1, Console(file=io.StringIO())):
        raise KeyError
    assert threading.active_count() == before


def test_the_environment_names_versions_and_hardware():
    found = environment()
    assert found["torch"]
    assert "cores" in found["cpu"]
    assert found["commit"]
