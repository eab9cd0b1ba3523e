"""The kernels' build: once for all processes, never half, never another user's, never silent."""

import fcntl
import json
import logging
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from regrow.execution.csr import build, cached
from regrow.execution.csr.build import NoLibraryError
from tests.ranks import run_code

if shutil.which("cc") is None:
    pytest.skip("no C compiler", allow_module_level=True)


def compiler(folder, body):
    """A C compiler that notes each call, and then does what `body` says."""
    folder.mkdir(exist_ok=True)
    path = folder / "compiler"
    path.write_text(f'#!/bin/sh\necho "$@" >> {folder}/calls\n{body}\n')
    path.chmod(0o755)
    return path


def calls(folder):
    """How often the kernels were compiled, links aside."""
    noted = folder / "calls"
    return sum(" -c " in line for line in noted.read_text().splitlines()) if noted.exists() else 0


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A fresh cache, a fresh folder for temporary files, and quick sources."""
    for name in ("cache", "temporary", "sources"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cached.tempfile, "gettempdir", lambda: str(tmp_path / "temporary"))
    (tmp_path / "sources" / "kernels.c").write_text("int regrow_one(void) { return 1; }\n")
    monkeypatch.setattr(
        build.compile_library, "__defaults__", (True, tmp_path / "sources", build._LIMIT)
    )
    return tmp_path


def use(monkeypatch, folder, body='exec cc "$@"'):
    monkeypatch.setenv("CC", str(compiler(folder, body)))


# ---------------------------------------------------------------------- many processes

TWELVE = """
import logging, os, sys
logging.basicConfig(level=logging.INFO)
from regrow.execution.csr import build, dispatch
build.library_name = lambda: "fresh.so"
read, write = os.pipe()
for number in range(12):
    if not os.fork():
        os.close(write)
        os.read(read, 1)  # all at once, when the last writer is gone
        os.write(1, f"{dispatch.in_use()}\\n".encode())  # in one piece
        os._exit(0)
os.close(write)
for number in range(12):
    assert os.wait()[1] == 0
"""


def run(code, **environment):
    return run_code(code, **{"REGROW_KERNELS": ""} | environment)


def test_twelve_processes_compile_once_and_all_use_it(tmp_path):
    slow = compiler(tmp_path / "cc", 'sleep 1; exec cc "$@" -O0')
    ran = run(TWELVE, CC=str(slow), XDG_CACHE_HOME=str(tmp_path / "cache"))
    used = ran.stdout.split()
    assert len(used) == 12 and "torch" not in used, ran.stderr
    assert calls(tmp_path / "cc") == 1
    assert ran.stderr.count("compiled the kernels with") == 1
    assert "waiting for the process that compiles" in ran.stderr


def test_twelve_processes_try_a_broken_compiler_once_and_each_says_why(tmp_path):
    broken = compiler(tmp_path / "cc", "echo 'no such header: omp.h'; exit 1")
    ran = run(TWELVE, CC=str(broken), XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert ran.stdout.split() == ["torch"] * 12
    assert calls(tmp_path / "cc") == 2  # with OpenMP and without
    assert ran.stderr.count("WARNING:regrow:csr layers compute with torch") == 12
    assert ran.stderr.count("no such header: omp.h") >= 12


def test_without_a_compiler_torch_computes_and_says_so_once(tmp_path):
    code = (
        "from regrow.execution.csr import build, dispatch\n"
        "build.library_name = lambda: 'nothing.so'\n"
        "print(dispatch.in_use(), dispatch.in_use(), dispatch.available())"
    )
    none = {"PATH": "", "CC": "no-such-compiler", "XDG_CACHE_HOME": str(tmp_path)}
    ran = run(code, **none)
    assert ran.stdout.split()[:2] == ["torch", "torch"]
    assert ran.stderr.count("no-such-compiler was looked for in the PATH") == 1
    assert run(code, REGROW_KERNELS="torch", **none).stderr == ""
    forced = run(code, REGROW_KERNELS="native", **none).stderr
    assert "RuntimeError" in forced and "no-such-compiler" in forced
    assert "install a C compiler" in forced


def test_a_process_that_is_killed_while_it_compiles_leaves_the_cache_usable(
    places, monkeypatch, tmp_path
):
    use(monkeypatch, tmp_path / "cc", 'echo $$ > "$0.pid"; sleep 60')
    child = os.fork()
    if not child:
        cached.cached_library(True)
        os._exit(0)
    pid = tmp_path / "cc" / "compiler.pid"
    while not (pid.exists() and pid.read_text().strip()):
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.killpg(int(pid.read_text()), signal.SIGKILL)
    assert len(list((tmp_path / "cache").rglob("part-*"))) == 1
    use(monkeypatch, tmp_path / "cc")
    made = cached.cached_library(True)
    assert sorted(p.name for p in made.parent.iterdir()) == ["build.json", made.name, "lock"]


def test_a_lock_held_for_too_long_is_named(places, monkeypatch, tmp_path):
    use(monkeypatch, tmp_path / "cc")
    monkeypatch.setattr(cached, "_PATIENCE", 0.2)
    folder = tmp_path / "cache" / "regrow" / build.source_hash() / "openmp"
    folder.mkdir(parents=True)
    with (folder / "lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(NoLibraryError, match=r"another process has held .*lock"):
            cached.cached_library(True)
    assert cached.cached_library(True).exists()


def test_a_file_system_without_locks_is_no_hindrance(places, monkeypatch, tmp_path):
    use(monkeypatch, tmp_path / "cc")

    def lacking(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", lacking)
    assert cached.cached_library(True).exists()


# ---------------------------------------------------------------------- compilers that fail


@pytest.mark.parametrize(
    ("body", "limit", "reason"),
    [
        ("echo 'kernels.c:1: no'; exit 3", 60, "failed .exit 3.: kernels.c:1: no"),
        ("kill -9 $$", 60, "was killed by signal 9"),
        ("sleep 60 & sleep 60", 0.3, "had not ended after 0.3 s"),
    ],
)
def test_a_failure_is_remembered_with_its_reason(
    places, monkeypatch, tmp_path, body, limit, reason
):
    use(monkeypatch, tmp_path / "cc", body)
    *others, _ = build.compile_library.__defaults__
    monkeypatch.setattr(build.compile_library, "__defaults__", (*others, limit))
    start = time.monotonic()
    with pytest.raises(NoLibraryError, match=reason):
        cached.cached_library(True)
    assert time.monotonic() - start < 30  # what hangs for a minute was not waited for
    assert not list((tmp_path / "cache").rglob("part-*"))
    with pytest.raises(NoLibraryError, match=f"{reason}.*failed 0 minutes ago"):
        cached.cached_library(True)
    assert calls(tmp_path / "cc") == 1
    with pytest.raises(NoLibraryError, match=reason):
        cached.cached_library(True, again=True)
    assert calls(tmp_path / "cc") == 2
    # Another compiler, or the same one mended, is tried at once.
    monkeypatch.setattr(build.compile_library, "__defaults__", (*others, 60))
    use(monkeypatch, tmp_path / "other")
    assert cached.cached_library(True).exists()


def test_a_failure_is_forgotten_after_a_day_or_when_its_file_goes(places, monkeypatch, tmp_path):
    use(monkeypatch, tmp_path / "cc", "exit 1")
    for _ in range(2):
        with pytest.raises(NoLibraryError):
            cached.cached_library(True)
    note = next((tmp_path / "cache").rglob("build.json"))
    old = json.loads(note.read_text())
    note.write_text(json.dumps(old | {"time": old["time"] - 25 * 3600}))
    with pytest.raises(NoLibraryError):
        cached.cached_library(True)
    assert calls(tmp_path / "cc") == 2
    next((tmp_path / "cache").rglob("build.json")).unlink()
    with pytest.raises(NoLibraryError):
        cached.cached_library(True)
    assert calls(tmp_path / "cc") == 3


def test_a_wait_that_is_interrupted_ends_the_compiler_and_is_not_remembered(
    places, monkeypatch, tmp_path
):
    use(monkeypatch, tmp_path / "cc", 'echo $$ > "$0.pid"; exec sleep 60')
    pid = tmp_path / "cc" / "compiler.pid"

    def wait(process, timeout=None, wait=subprocess.Popen.wait):
        if timeout is None:
            return wait(process)
        while not (pid.exists() and pid.read_text().strip()):
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "wait", wait)
    with pytest.raises(KeyboardInterrupt):
        cached.cached_library(True)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
    assert not list((tmp_path / "cache").rglob("build.json"))


# ---------------------------------------------------------------------- caches that cannot be used


def in_temporary(path, tmp_path):
    return (tmp_path / "temporary" / f"regrow-{os.getuid()}") in path.parents


def test_a_cache_that_cannot_be_written_is_replaced_by_a_temporary_folder(
    places, monkeypatch, tmp_path, caplog
):
    use(monkeypatch, tmp_path / "cc")
    (tmp_path / "cache" / "regrow").write_text("a file, where a folder should be")
    with caplog.at_level(logging.INFO, "regrow"):
        assert in_temporary(cached.cached_library(True), tmp_path)
        assert in_temporary(cached.cached_library(True), tmp_path)
    assert calls(tmp_path / "cc") == 1
    assert "cannot be kept there" in caplog.text and str(tmp_path / "cache") in caplog.text


def test_a_cache_without_room_is_replaced_by_a_temporary_folder(places, monkeypatch, tmp_path):
    use(monkeypatch, tmp_path / "cc")
    usage = shutil.disk_usage

    def full(path):
        return usage(path)._replace(free=1000) if "cache" in Path(path).parts else usage(path)

    monkeypatch.setattr(cached.shutil, "disk_usage", full)
    assert in_temporary(cached.cached_library(True), tmp_path)
    monkeypatch.setattr(cached.shutil, "disk_usage", lambda path: usage(path)._replace(free=1000))
    with pytest.raises(NoLibraryError, match="no room for the kernels"):
        cached.cached_library(False)


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_library_in_a_cache_that_is_read_only_is_used(places, monkeypatch, tmp_path):
    use(monkeypatch, tmp_path / "cc")
    made = cached.cached_library(True)
    made.parent.chmod(0o555)
    try:
        assert cached.cached_library(True) == made
    finally:
        made.parent.chmod(0o755)
    assert calls(tmp_path / "cc") == 1


# ---------------------------------------------------------------------- what is loaded


@pytest.mark.parametrize("damage", ["short", "empty", "changed", "no note", "half a note"])
def test_what_is_not_whole_is_compiled_anew(places, monkeypatch, tmp_path, damage):
    use(monkeypatch, tmp_path / "cc")
    made = cached.cached_library(True)
    whole, note = made.read_bytes(), made.parent / "build.json"
    if damage == "short":
        made.write_bytes(whole[: len(whole) // 2])
    elif damage == "empty":
        made.write_bytes(b"")
    elif damage == "changed":
        made.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    elif damage == "no note":
        note.unlink()
    else:
        note.write_text(note.read_text()[:40])
    assert cached.cached_library(True) == made
    assert made.read_bytes() == whole
    assert calls(tmp_path / "cc") == 2


def to_another_user(path, monkeypatch):
    """Let a file or folder belong to somebody else: truly where the tests run as root."""
    if os.getuid() == 0:
        os.chown(path, 54321, -1)
        return
    status = Path.stat

    def stat(self, **how):
        found = status(self, **how)
        fields = list(found)
        fields[4] = 54321
        return os.stat_result(fields) if self == path else found

    monkeypatch.setattr(Path, "stat", stat)


@pytest.mark.parametrize("above", [0, 1, 2, 3])
def test_what_belongs_to_another_user_is_not_run(places, monkeypatch, tmp_path, above, caplog):
    use(monkeypatch, tmp_path / "cc")
    made = cached.cached_library(True)
    foreign = [made, *made.parents][above]
    to_another_user(foreign, monkeypatch)
    with caplog.at_level(logging.INFO, "regrow"):
        assert in_temporary(cached.cached_library(True), tmp_path)
    assert f"{foreign} belongs to user 54321" in caplog.text


@pytest.mark.parametrize(
    ("above", "mode", "runs"),
    [
        (0, 0o757, False),
        (0, 0o775, False),
        (1, 0o775, False),
        (1, 0o757, False),
        (2, 0o775, True),
        (2, 0o777, False),
        (3, 0o777, False),
        (3, 0o1777, True),
        (0, 0o700, True),
    ],
)
def test_what_others_may_write_is_not_run(places, monkeypatch, tmp_path, above, mode, runs):
    use(monkeypatch, tmp_path / "cc")
    made = cached.cached_library(True)
    [made, *made.parents][above].chmod(mode)
    assert (cached.cached_library(True) == made) == runs


@pytest.mark.parametrize("umask", [0o002, 0o022, 0o077])
def test_any_usual_umask_makes_a_library_that_is_run_again(places, monkeypatch, tmp_path, umask):
    use(monkeypatch, tmp_path / "cc")
    before = os.umask(umask)
    try:
        assert cached.cached_library(True) == cached.cached_library(True)
    finally:
        os.umask(before)
    assert calls(tmp_path / "cc") == 1


def test_compiling_writes_one_whole_file(places):
    target = places / "folder" / build.library_name()
    build.compile_library(target, openmp=False)
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_each_kind_of_machine_has_a_library_of_its_own(monkeypatch):
    here = build.source_hash()
    monkeypatch.setattr(build.platform, "machine", lambda: "another")
    assert build.source_hash() != here


def test_kernels_for_one_thread_say_so(tmp_path):
    code = (
        "from regrow.execution.csr import build, dispatch\n"
        "build.library_name = lambda: 'fresh.so'\n"
        "print(dispatch.in_use())"
    )
    body = (
        'case "$*" in *-fopenmp*) echo "unknown option -fopenmp"; exit 1;; esac; exec cc "$@" -O0'
    )
    without = compiler(tmp_path / "cc", body)
    environment = {"CC": str(without), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    for _ in range(2):
        ran = run(code, **environment)
        assert ran.stdout.strip() not in ("", "torch"), ran.stderr
        assert ran.stderr.count("compute with one thread only") == 1
        assert "unknown option -fopenmp" in ran.stderr
    assert calls(tmp_path / "cc") == 2
