"""The scripts of ``regrow completion`` are asked as shells ask them."""

import contextlib
import io
import shutil
import subprocess

import pytest

from regrow import METHODS
from regrow.cli.commands import COMMANDS, GROUPS
from regrow.cli.completion import completion, table
from regrow.studies.registry import STUDIES

# How each is asked what it offers for words, of which the last is completed.
ASKED = {
    "bash": """source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _regrow
               printf '%s\\n' "${COMPREPLY[@]}" """,
    "zsh": """compdef() { }; _describe() { print -rl -- ${${offered//\\\\:/=}%%:*} }
              _files() { print -rl -- $words[CURRENT]*(N) }
              source "$0"; words=("$@"); CURRENT=$#; _regrow""",
    "fish": """source $argv[1]; complete -C (string join ' ' -- $argv[2..-1])""",
}


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("completion")
    for shell in ASKED:
        with contextlib.redirect_stdout(io.StringIO()) as said:
            completion(shell)
        (folder / shell).write_text(said.getvalue())
    return folder


@pytest.fixture(params=ASKED)
def offered(request, scripts, tmp_path):
    """Ask a shell; skipped where it is not installed."""
    shell = request.param
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    plain = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[shell]

    def ask(*words):
        command = [shell, *plain, "-c", ASKED[shell], str(scripts / shell), "regrow", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.stderr == ""
        found = [line.partition("\t")[0] for line in done.stdout.splitlines() if line]
        return {one.replace("2=4", "2:4") for one in found}

    return ask


def test_commands_are_offered_as_they_are_typed(offered):
    assert offered("") == {command.split()[0] for command in COMMANDS}
    assert offered("tr") == {"train"}
    for group in GROUPS:
        assert offered(group, "") == {c.split()[1] for c in COMMANDS if c.startswith(f"{group} ")}


def test_options_choices_and_names_are_offered_where_they_go(offered):
    assert offered("train", "--lea") == {"--learning-rate", "--leave-out"}
    assert {"--augment", "--no-augment"} <= offered("train", "--seed", "3", "--")
    assert offered("train", "--execution", "") == {"masked", "csr", "block", "2:4", "auto"}
    assert offered("train", "--log", "wandb", "ml") == {"mlflow"}
    assert offered("train", "--method", "") == {*METHODS}
    assert offered("train", "--epochs", "") == set()
    assert offered("study", "run", "pr") == {s for s in STUDIES if s.startswith("pr")}
    assert {*STUDIES, "--preset"} <= offered("study", "run", "") | offered("study", "run", "--")
    assert not {*STUDIES} & offered("study", "run", "demo", "")
    assert offered("study", "run", "demo", "--preset", "q") == {"quick"}
    assert {"--people", "--replay"} <= offered("control", "train", "--")  # of both its methods


def test_files_are_offered_beside_names(offered, tmp_path):
    (tmp_path / "dimples.csv").touch()
    assert offered("train", "--data", "di") == {"digits", "dimples.csv"}
    assert offered("report", "dim") == {"dimples.csv"}


def test_the_table_can_be_read_by_lines_and_tabs():
    rows = table()
    assert {row[0] for row in rows} - {""} == {*GROUPS, *COMMANDS}
    assert not [row for row in rows if set("\t\n") & set("".join(row))]
    about = [what for _, asked, candidate, what in rows if not asked and candidate]
    assert all(about)  # whatever is offered says what it is
