"""A fuzzer that finds something says so, says which case, and can be asked for it again."""

import subprocess
import sys
from pathlib import Path

from tests.fuzz.budget import run


def odd(rng):
    if rng.random() < 0.2:
        raise AssertionError("found")
    return "even" if rng.random() < 0.5 else "odd"


def test_what_is_wrong_is_kept_by_its_number_and_found_again():
    kinds, wrong = run(odd, 3, range(50))
    assert 0 < len(wrong) < 50
    assert sum(kinds.values()) + len(wrong) == 50 and set(kinds) == {"even", "odd"}
    number = int(wrong[0].split()[1])
    assert run(odd, 3, [number])[1][0].startswith(f"case {number} of seed 3:")


def command(path, *arguments):
    environment = {"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin"}
    return subprocess.run(
        [sys.executable, path, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )


def test_the_exit_status_says_whether_something_was_wrong(tmp_path):
    (tmp_path / "one.py").write_text(
        "from tests.fuzz.budget import main\n"
        "def case(rng):\n    assert rng.random() < 0.9, 'found'\n    return 'kind'\n"
        "main('one', case, 40)\n"
    )
    done = command(tmp_path / "one.py")
    assert done.returncode == 1 and "AssertionError: found" in done.stdout, done.stderr
    assert done.stdout.splitlines()[-1].startswith("one: seed 0, 40 cases, ")
    assert command(tmp_path / "one.py", "--budget", "1").returncode == 0
