"""Progress is shown, and changes nothing that passes through."""

import io

from rich.console import Console

from regrow.lab.environment import environment
from regrow.lab.progress import follow


def test_without_a_terminal_there_are_plain_lines():
    out = io.StringIO()
    console = Console(file=out, force_terminal=False)
    assert list(follow(iter("abc"), 3, "reading", str.upper, console)) == ["a", "b", "c"]
    assert "reading: 3/3, last C" in out.getvalue()
    assert "\x1b" not in out.getvalue()


def test_in_a_terminal_there_is_a_bar():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80)
    assert list(follow(iter("abc"), 3, "reading", str.upper, console)) == ["a", "b", "c"]
    assert "3/3" in out.getvalue()


def test_the_environment_names_versions_and_hardware():
    found = environment()
    assert found["torch"]
    assert "cores" in found["cpu"]
    assert found["commit"]
