"""The command as a user types it."""

import subprocess
import sys
from functools import partial

import pytest

import regrow as regrow_library
from regrow import METHODS
from regrow.cli import main
from regrow.cli.commands import COMMANDS
from regrow.cli.demo import demo
from regrow.cli.listed import kept_list, made_list
from regrow.studies.demo import demo_study
from tests.ranks import command, on_ranks


def regrow(*words):
    [ended] = on_ranks(command, *words, ranks=1)
    return ended


def test_help_names_the_commands_and_their_options():
    done = subprocess.run(
        [sys.executable, "-m", "regrow", "--help"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "") and "demo" in done.stdout
    text = regrow("demo", "--help").stdout
    assert all(option in text for option in ("--out", "--seeds", "--first-seed"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("demo", "--seeds", "0"), "seeds=0"),
        (("dmeo",), "demo"),
    ],
)
def test_a_mistake_is_a_line_not_a_traceback(arguments, said, tmp_path, monkeypatch):
    for name in ("XDG_CACHE_HOME", "HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.delenv("REGROW_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    done = regrow(*arguments)
    assert done.returncode != 0
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_methods_are_listed_and_told_by_name():
    done = regrow("methods")
    assert done.returncode == 0, done.stderr
    for name in METHODS:
        assert f"\n{name}(" in f"\n{done.stdout}"
    assert "Evci et al. 2020 (arXiv 1911.11134)" in done.stdout
    told = regrow("methods", "random").stdout
    assert told.startswith("RandomWalk(density=..., drop=Random(), grow=Random(), drop_fraction=")
    assert "the control that shows what choosing is worth" in told
    assert (
        regrow("methods", "rig").stderr == "regrow: method 'rig': must be one of RigL, RigLITOP\n"
    )


LOOKS = (["--help"], ["--version"], ["methods"], ["methods", "RigL"], ["study", "list"])


def test_whoever_only_looks_does_not_wait_for_torch():
    """These took two seconds, most of them to import torch."""
    code = (
        "import contextlib, sys; from regrow.cli import main\n"
        f"for words in {LOOKS}:\n"
        "    sys.argv = ['regrow', *words]\n"
        "    with contextlib.suppress(SystemExit): main()\n"
        "    assert not {'torch', 'numpy'} & set(sys.modules), words\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"regrow {regrow_library.__version__}\n" in done.stdout
    assert "segment" in done.stdout and "--preset smoke" in done.stdout


def test_without_the_extra_the_version_is_told_and_the_rest_says_what_to_install(monkeypatch):
    for name in ("tyro", "tyro.extras", "tyro.conf"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(sys, "argv", ["regrow", "--version"])
    main()
    monkeypatch.setattr(sys, "argv", ["regrow", "methods"])
    with pytest.raises(
        SystemExit, match=r"tyro is missing: pip install tyro, or pip install '\.\["
    ):
        main()


def test_what_is_kept_of_methods_and_studies_is_what_they_say():
    made = made_list()
    made.studies.pop("toy", None)  # a fuzzer's, for the rest of its process
    assert kept_list() == made, "write it again: python -m regrow.cli.listed"


def test_every_command_is_there_and_names_its_options(monkeypatch, capsys):
    """Only the command that is named has its options: each is asked for them."""
    for words in COMMANDS:
        monkeypatch.setattr(sys, "argv", ["regrow", *words.split(), "--help"])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr().out
        assert ended.value.code == 0 and f"usage: regrow {words}" in told
        assert ("--seed" in told) or not words.endswith("train")


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("trian",), "there is no command 'trian'; did you mean train? Known are: bench, "),
        (("study", "lst"), "study: there is no command 'lst'; did you mean list? Known are: list"),
        (("zzz", "--epochs", "3"), "there is no command 'zzz'. Known are: bench, demo, "),
        (("methods", "Rgil"), "did you mean RigL?"),
    ],
)
def test_a_command_that_is_none_names_what_may_have_been_meant(words, meant, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["regrow", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert meant in ended.value.code


def test_a_reader_who_has_had_enough_is_no_error():
    """regrow methods | head ended in a traceback."""
    line = [sys.executable, "-m", "regrow", "methods"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""


def test_importing_the_library_imports_no_extra_and_prints_nothing():
    code = (
        "import sys, regrow, regrow.measure.flops, regrow.measure.memory;"
        "extras = {'tyro', 'rich', 'matplotlib', 'jinja2', 'scipy', 'sklearn', 'joblib', 'pyarrow',"
        " 'PIL', 'torchvision', 'pandas'};"
        "assert not extras & set(sys.modules), extras & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_small_demo_tells_each_network_and_writes_its_page(tmp_path, monkeypatch, capfd):
    small = partial(demo_study, model="mlp-48-32", epochs=2, tiles=2, home=1, samples=512)
    monkeypatch.setattr("regrow.studies.demo.demo_study", small)
    demo(tmp_path, seeds=1, first_seed=7)
    assert (tmp_path / "report.html").stat().st_size > 50_000
    said = capfd.readouterr().out
    for arm in ("dense", "RigL", "static", "random", "small dense"):
        assert f"{arm:11} seed 7 " in said
    assert "fewer than" in said or "No verdict" in said or "is open" in said  # of one seed
    demo(tmp_path, seeds=1, first_seed=7)
    assert "5 were finished before" in capfd.readouterr().out


@pytest.mark.long
def test_the_demo_runs_as_it_is_typed(tmp_path):
    line = [sys.executable, "-m", "regrow", "demo", "--out", str(tmp_path), "--seeds", "1"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "12,243,810 weights" in done.stdout and (tmp_path / "report.html").exists()
