"""Damages a file of a study's folder: what is damaged is named and left out, the rest goes on.

Each case copies the folder of a finished study, or of its pack, or of one that was cut off, damages
one file in one way and asks for the report, then runs the study again.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import functools
import gzip
import io
import json
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[1] / "lab"))

from toy_study import STUDY, Fit, numbers, preset

from regrow.cli import main as command_line
from regrow.lab.records import PACKED, RUNNING, TRIALS, Records
from regrow.lab.run import CHECKPOINT, METRICS, PROGRESS, Run
from regrow.lab.study_run import run_study
from regrow.studies.registry import STUDIES
from tests.fuzz.budget import main

# Drawing figures is most of a report's time, and what grows with the number of trials the rest.
SMALL = dataclasses.replace(STUDY, page=(numbers,), presets={"smoke": preset("a second", 1)})
STUDIES["toy"] = f"{__name__}:SMALL"

Damage = Callable[[Path, random.Random], None]

_VALUES = (
    None,
    True,
    -1,
    10**400,
    float("nan"),
    float("inf"),
    "x",
    "\ud800",
    [],
    [1],
    {},
    {"a": 1},
)


def _rewrite(change: Callable[[bytes, random.Random], bytes]) -> Damage:
    def damage(path: Path, rng: random.Random) -> None:
        content = path.read_bytes()
        unpack = path.name == PACKED and change in (_wrong_type, _key_lost, _deep, _huge)
        if unpack:
            content = gzip.decompress(content)
        new = change(content, rng)
        path.write_bytes(gzip.compress(new, mtime=0) if unpack else new)

    return damage


def _truncate(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def _flip(content: bytes, rng: random.Random) -> bytes:
    new = bytearray(content)
    for _ in range(rng.choice([1, 1, 4])):
        new[rng.randrange(len(new))] ^= 1 << rng.randrange(8)
    return bytes(new)


def _nul(content: bytes, rng: random.Random) -> bytes:
    """What a power cut leaves: the length is right and the end was never written."""
    kept = rng.randrange(len(content))
    return content[:kept] + b"\0" * (len(content) - kept)


def _objects(content: bytes) -> list[dict]:
    lines = content.split(b"\n")
    try:
        return [json.loads(content)]
    except ValueError:
        return [json.loads(line) for line in lines if line]


def _written(objects: list[dict], one_line: bool) -> bytes:
    return "".join(
        json.dumps(one, indent=None if one_line else 1) + "\n" for one in objects
    ).encode()


def _place(objects: list[dict], rng: random.Random) -> tuple[dict, str]:
    """Choose a key anywhere in one of the objects."""
    inside = rng.choice(objects)
    while True:
        key = rng.choice(sorted(inside))
        inner = inside[key]
        if not isinstance(inner, dict) or not inner or rng.random() < 0.3:
            return inside, key
        inside = inner


def _wrong_type(content: bytes, rng: random.Random) -> bytes:
    objects = _objects(content)
    inside, key = _place(objects, rng)
    inside[key] = rng.choice(_VALUES)
    return _written(objects, len(objects) > 1)


def _key_lost(content: bytes, rng: random.Random) -> bytes:
    objects = _objects(content)
    inside, key = _place(objects, rng)
    del inside[key]
    return _written(objects, len(objects) > 1)


def _deep(content: bytes, rng: random.Random) -> bytes:
    depth = rng.choice([200, 900, 100_000])
    objects = _objects(content)
    inside, key = _place(objects, rng)
    inside[key] = "HERE"
    nest = rng.choice([b"[" * depth + b"]" * depth, b'{"a":' * depth + b"1" + b"}" * depth])
    return _written(objects, len(objects) > 1).replace(b'"HERE"', nest)


def _huge(content: bytes, rng: random.Random) -> bytes:
    objects = _objects(content)
    inside, key = _place(objects, rng)
    inside[key] = "HERE"
    number = rng.choice([b"1" * 5000, b"1e999", b"-1e999", b"1" * 400, b"NaN"])
    return _written(objects, len(objects) > 1).replace(b'"HERE"', number)


def _folder(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.mkdir()
    (path / "inside").write_text("kept")


def _fifo(path: Path, rng: random.Random) -> None:
    path.unlink()
    os.mkfifo(path)


def _unreadable(path: Path, rng: random.Random) -> None:
    """Root may read anything, so a link to itself takes the place of a file nobody may read."""
    path.unlink()
    path.symlink_to(path.name)


DAMAGES: dict[str, Damage] = {
    "truncated": _rewrite(_truncate),
    "flipped": _rewrite(_flip),
    "end is NUL": _rewrite(_nul),
    "wrong type": _rewrite(_wrong_type),
    "key lost": _rewrite(_key_lost),
    "nested deep": _rewrite(_deep),
    "huge number": _rewrite(_huge),
    "not UTF-8": _rewrite(lambda content, rng: content.decode().encode("utf-16")),
    "other JSON": _rewrite(lambda content, rng: rng.choice([b"[]", b"1", b'"x"', b"null", b"{}"])),
    "empty": _rewrite(lambda content, rng: b""),
    "a folder": _folder,
    "a FIFO": _fifo,
    "unreadable": _unreadable,
    "lost": lambda path, rng: path.unlink(),
}
_INSIDE = ("nested deep", "huge number", "wrong type", "key lost")
_TEXT = (*_INSIDE, "not UTF-8")

# One file of each kind, by the folder that holds it.
FILES = {
    "config.json": "done",
    "environment.json": "done",
    METRICS: "done",
    "result.json": "done",
    "labels.json": "done",
    "study.json": "done",
    "failed": "done",
    PACKED: "packed",
    CHECKPOINT: "cut off",
    f"running {METRICS}": "cut off",
    "starts.json": "cut off",
    PROGRESS: "cut off",
}


def kinds(name: str) -> list[str]:
    """Name the ways in which a file can be damaged."""
    without = {CHECKPOINT: _TEXT, PACKED: ("not UTF-8",)}.get(name, ())
    return [kind for kind in DAMAGES if kind not in without]


@functools.cache
def _folders() -> dict[str, Path]:
    """Make the three folders once: a finished study with one failure, its pack, one cut off."""
    top = Path(tempfile.mkdtemp(prefix="fuzz-records-"))
    atexit.register(shutil.rmtree, top, ignore_errors=True)
    options = {"data_dir": None, "device": "auto"}
    quiet = contextlib.redirect_stdout(io.StringIO())
    with quiet:
        run_study(SMALL, "smoke", top / "done", executor="inline", options=options)
        trouble = {"data": "trouble", "only": Fit(seed=7, ends="raises").identity}
        run_study(SMALL, "smoke", top / "done", executor="inline", options=options, **trouble)
    shutil.copytree(top / "done", top / "packed")
    shutil.copytree(top / "done", top / "cut off")
    Records.read(top / "packed").pack(top / "packed" / PACKED)
    shutil.rmtree(top / "packed" / TRIALS)
    one = sorted((top / "cut off" / TRIALS).iterdir())[0]
    _cut_off(one, top / "cut off" / RUNNING / one.name)
    return {name: top / name for name in ("done", "packed", "cut off")}


def _cut_off(finished: Path, running: Path) -> None:
    """Turn a finished trial into one that was killed after its second of three steps."""
    lines = (finished / METRICS).read_text().splitlines(keepends=True)
    running.mkdir()
    shutil.copy(finished / "config.json", running)
    (running / METRICS).write_text("".join(lines[:2]))
    Run(running).save({"step": 2})
    (running / PROGRESS).write_text('{"done": 0.6, "words": ""}')
    (running / "starts.json").write_text('{"starts": 1}')
    shutil.rmtree(finished)


def _find(out: Path, name: str) -> Path:
    if name in ("study.json", PACKED):
        return out / name
    if name == "failed":
        return next((out / "failed").glob("*.json"))
    inside = FILES[name] == "cut off"
    wanted = name.removeprefix("running ")
    return sorted((out / (RUNNING if inside else TRIALS)).glob(f"*/{wanted}"))[0]


def _call(*arguments: object) -> tuple[object, str]:
    """Call the command line in this process; anything but an exit is a traceback."""
    said = io.StringIO()
    status: object = 0
    argv = ["regrow", *map(str, arguments)]
    with contextlib.redirect_stdout(said), mock.patch.object(sys, "argv", argv):
        try:
            command_line()
        except SystemExit as ended:
            status = ended.code
    return status, f"{said.getvalue()}\n{status}"


@functools.cache
def _truth() -> dict[str, tuple]:
    return {one.identity: _data(one) for one in Records.read(_folders()["done"])}


def _data(record) -> tuple:
    """What verdicts hang on."""
    parts = (record.config, record.result, record.metrics())
    return tuple(json.dumps(part, sort_keys=True) for part in parts)


def check(name: str, kind: str, rng: random.Random) -> str:
    """Damage one file in one way, and look at all that must hold."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as top:
        out = Path(top) / "out"
        shutil.copytree(_folders()[FILES[name]], out)
        path = _find(out, name)
        DAMAGES[kind](path, rng)
        before = _seen(out)
        for arguments in (("report", out), (*_RUN, "--out", out)):
            status, said = _call(*arguments)
            if name == "study.json" and status and str(path) in said:
                assert _seen(out) == before, "study.json cannot be read, and something was changed"
                continue
            # A pack that was packed again with other content is no accident, and has no checksum
            # of before: it must be read or refused, and what it says is what it says.
            forged = name == PACKED and kind in _INSIDE
            _check_data(out, arguments[0], status, said, 1 if forged else 0)
        assert _seen(out).items() >= _finished(before).items(), "a finished record was changed"
    return f"{name} {kind}"


_RUN = ("study", "run", "toy", "--preset", "smoke", "--executor", "inline")


def _check_data(out: Path, command: str, status: object, said: str, other: int) -> None:
    named: list[str] = []
    found = {one.identity: _data(one) for one in Records.read(out, damaged=named.append)}
    wrong = [identity for identity, data in found.items() if data != _truth()[identity]]
    assert len(wrong) <= other, f"{command}: read as if it were right: {wrong}"
    if named:
        assert status not in (0, None), f"{command}: exit status {status} and {named}"
        assert all(words in said for words in named), f"{command}: not said: {named} in {said}"
    lost = _truth().keys() - found.keys()
    if command == "study":
        unnamed = [one for one in lost if not any(one in words for words in named)]
        assert not unnamed, f"neither there nor named: {unnamed}"


def _seen(out: Path) -> dict[str, bytes]:
    """Everything in a folder but the page and the locks."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.suffix not in (".lock", ".html")
    }


def _finished(seen: dict[str, bytes]) -> dict[str, bytes]:
    """What must never change: labels are the design's, and are written again."""
    kept = {name: content for name, content in seen.items() if name.startswith((TRIALS, PACKED))}
    return {name: content for name, content in kept.items() if not name.endswith("labels.json")}


def case(rng: random.Random) -> str:
    """Damage a file that a study's folder holds, at random."""
    name = rng.choice(sorted(FILES))
    kind = rng.choice(kinds(name))
    check(name, kind, rng)
    return name


if __name__ == "__main__":
    main("records", case, budget=2000)
