"""People as teachers: what is kept, what a browser shows and sends, and what training learns."""

import json
import multiprocessing
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from urllib.parse import quote

import numpy as np
import pytest
import torch

from regrow.control import PointMass
from regrow.control.environments import TASKS
from regrow.control.people import Clip, People, Preferences, drawing_of
from regrow.control.people.drawings import DRAWN
from regrow.control.people.server import make_server
from regrow.control.train import train_from_preferences

BOX = (0.0, 0.0, 1.0, 1.0)


def clip(y):
    return Clip(BOX, 25.0, [[[1, 0.0, 0.0, 1.0, y]], [[1, 0.0, 0.1, 1.0, y]]])


@pytest.fixture
def kept(tmp_path):
    return Preferences(tmp_path / "answers.sqlite")


@contextmanager
def served(preferences, **options):
    with make_server(preferences, **options) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def post(address, body, **headers):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(address, data, {"Content-Type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=20) as reply:
            return reply.status, json.loads(reply.read())
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def get(address, **headers):
    try:
        request = urllib.request.Request(address, headers=headers)
        with urllib.request.urlopen(request, timeout=20) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


# ---------------------------------------------------------------------- what is kept


def test_a_question_asked_again_is_the_same_one(kept):
    pairs = [(clip(0.0), clip(1.0)), (clip(1.0), clip(0.0))]
    numbers = kept.ask(pairs)
    assert len(set(numbers)) == 2 and kept.ask(pairs[::-1]) == numbers[::-1]
    assert kept.answer(numbers[0], "first", "ada")
    assert not kept.answer(numbers[0], "second", "bob")
    again = Preferences(kept.path)
    assert again.answers(numbers) == ["first", None] and again.counts() == (2, 1)


def test_two_people_are_shown_different_questions_and_undo_their_own(kept):
    kept.ask([(clip(i), clip(i + 1.0)) for i in range(2)])
    ada, bob = kept.next("ada"), kept.next("bob")
    assert ada.number != bob.number and kept.next("ada") == ada and kept.next("cy") is None
    kept.answer(ada.number, "equal", "ada")
    kept.answer(bob.number, "skip", "bob")
    assert kept.undo("ada") == ada.number and kept.undo("ada") is None
    assert kept.answers([ada.number, bob.number]) == [None, "skip"]
    assert kept.next("ada").number == ada.number


def test_a_question_that_nobody_answers_is_given_to_another(kept, monkeypatch):
    kept.ask([(clip(0.0), clip(1.0))])
    begin = time.time()
    assert kept.next("ada") and kept.next("bob") is None
    monkeypatch.setattr("regrow.control.people.store.time.time", lambda: begin + 121)
    assert kept.next("bob").number == 1 and kept.next("ada") is None


def test_writes_are_on_the_disk_before_they_are_said_to_be(kept):
    with kept._open() as file:
        assert file.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


def test_answers_are_exported_and_read_back(kept, tmp_path):
    numbers = kept.ask([(clip(0.0), clip(1.0)), (clip(2.0), clip(1.0))])
    for number, choice in zip(numbers, ("second", "skip"), strict=True):
        kept.answer(number, choice, "ada")
    exported = json.loads(json.dumps(kept.export()))
    other = Preferences(tmp_path / "other.sqlite")
    assert other.read(exported) == 2 and other.read(exported) == 0
    assert [(e["clips"], e["choice"]) for e in other.export()] == [
        (e["clips"], e["choice"]) for e in exported
    ]
    with pytest.raises(ValueError, match="entry 1: is no exported answer"):
        Preferences(tmp_path / "third.sqlite").read([exported[0], {"choice": "first"}])
    assert Preferences(tmp_path / "third.sqlite").counts() == (0, 0)


def _keep_answering(path, numbers, ready):
    preferences = Preferences(path)
    for number in numbers:
        preferences.answer(number, "first", "ada")
        ready.send(number)  # after it was said to be kept


def test_what_was_said_to_be_kept_survives_a_kill(kept):
    numbers = kept.ask([(clip(float(i)), clip(i + 0.5)) for i in range(400)])
    context = multiprocessing.get_context("fork")
    ends = context.Pipe()
    process = context.Process(target=_keep_answering, args=(kept.path, numbers, ends[1]))
    process.start()
    for _ in range(7):
        last = ends[0].recv()
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    while ends[0].poll():
        last = ends[0].recv()
    told = numbers.index(last) + 1
    said = Preferences(kept.path).answers(numbers)
    assert said[:told] == ["first"] * told and 400 - said.count(None) in (told, told + 1)


@pytest.mark.parametrize("content", [b"not a database" * 400, None])
def test_a_damaged_file_is_named(kept, content):
    kept.ask([(clip(float(i)), clip(i + 0.5)) for i in range(60)])
    with sqlite3.connect(kept.path) as file:
        file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    file.close()
    whole = kept.path.read_bytes()
    kept.path.write_bytes(content or whole[:4096] + b"\xff" * 4096 + whole[8192:])
    with pytest.raises(ValueError, match=r"answers.sqlite is no file of preferences, or damaged"):
        Preferences(kept.path)


@pytest.mark.parametrize("table", ["bookmarks (address)", "questions (number)", "answers (a, b)"])
def test_a_database_of_something_else_is_left_as_it_is(tmp_path, table):
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as file:
        file.execute(f"CREATE TABLE {table}")
    file.close()
    before = path.read_bytes()
    with pytest.raises(ValueError, match=f"no file of preferences.*it has {table.split()[0]} with"):
        Preferences(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_file_whose_making_was_cut_off_is_completed(kept):
    with sqlite3.connect(kept.path) as file:
        file.execute("DROP TABLE answers")
    file.close()
    assert Preferences(kept.path).counts() == (0, 0)


def test_what_cannot_be_is_refused(kept, tmp_path):
    [number] = kept.ask([(clip(0.0), clip(1.0))])
    with pytest.raises(ValueError, match="choice='third'"):
        kept.answer(number, "third", "ada")
    with pytest.raises(ValueError, match=rf"question {number + 1}: .* has none of that number"):
        kept.answer(number + 1, "first", "ada")
    with pytest.raises(OSError, match=r"none/answers\.sqlite: cannot be opened"):
        Preferences(tmp_path / "none" / "answers.sqlite")
    with pytest.raises(ValueError, match="task='chess'"):
        drawing_of("chess")
    assert kept.counts() == (1, 0)


def test_a_disk_that_is_full_loses_nothing(kept):
    numbers = kept.ask([(clip(0.0), clip(1.0)), (clip(2.0), clip(1.0))])
    kept.answer(numbers[0], "first", "ada")

    def full():
        with kept._open() as file:  # SQLite's own limit: no page may be added
            pages = file.execute("PRAGMA page_count").fetchone()[0]
            file.execute(f"PRAGMA max_page_count = {pages}")
            file.execute("UPDATE answers SET choice = 'second'")
            file.execute("UPDATE questions SET clips = ?", ("x" * 10**6,))

    with pytest.raises(OSError, match=r"answers\.sqlite: .*full; nothing of this was kept"):
        full()
    assert kept.answers(numbers) == ["first", None]  # nor the half that had room
    assert kept.answer(numbers[1], "equal", "ada")


# ---------------------------------------------------------------------- what is served


def test_the_page_answers_and_takes_back(kept):
    kept.ask([(clip(0.0), clip(1.0))])
    with served(kept) as address:
        assert "Which of these is better?" in get(address + "/")[1]
        shown = json.loads(get(address + "/next?person=ada")[1])
        assert shown["question"]["clips"][1]["frames"] == clip(1.0).frames
        said = {"person": "ada", "number": shown["question"]["number"], "choice": "second"}
        assert post(address + "/answer", said) == (200, {"asked": 1, "answered": 1, "kept": True})
        assert post(address + "/answer", {**said, "person": "bob"})[1]["kept"] is False
        assert "question" not in json.loads(get(address + "/next?person=ada")[1])
        assert post(address + "/undo", {"person": "ada"})[1]["undone"] == said["number"]


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/answer", {"person": "ada", "number": 1, "choice": "third"}, {}, 400),
        ("/answer", {"person": "ada", "choice": "first"}, {}, 400),
        ("/answer", {"person": "ada", "number": 99, "choice": "first"}, {}, 400),
        ("/answer", {"person": "ada", "number": [1], "choice": "first"}, {}, 400),
        ("/answer", {"person": "ada", "number": True, "choice": "first"}, {}, 400),
        ("/answer", {"person": "ada", "number": 1.5, "choice": "first"}, {}, 400),
        ("/answer", {"person": "ada", "number": 10**30, "choice": "first"}, {}, 400),
        ("/answer", b'{"person": "a", "number": 1e999, "choice": "first"}', {}, 400),
        ("/answer", b"{}", {"Content-Length": "many"}, 400),
        ("/answer", b"[1]", {}, 400),
        ("/answer", b"{", {}, 400),
        ("/answer", {"person": "ada" * 9999}, {}, 400),
        ("/answer", b"number=1&choice=first", {"Content-Type": "text/plain"}, 400),
        ("/elsewhere", {"person": "ada"}, {}, 404),
        ("/undo", {"person": "ada"}, {"Host": "evil.example:80"}, 403),
    ],
)
def test_bad_requests_change_nothing(path, body, headers, status, kept):
    kept.ask([(clip(0.0), clip(1.0))])
    with served(kept) as address:
        assert post(address + path, body, **headers)[0] == status
    assert kept.counts() == (1, 0)


def test_other_machines_need_a_token(kept):
    with pytest.raises(ValueError, match=r"host='0.0.0.0' lets other machines in: give a token"):
        make_server(kept, "0.0.0.0")
    with served(kept, token="secret") as address:
        assert get(address + "/")[0] == get(address + "/next?person=a&token=wrong")[0] == 403
        assert get(address + "/?token=secret")[0] == 200
        assert get(address + "/next?person=a", Cookie="token=secret")[0] == 200
        assert post(address + "/undo", {"person": "a"})[0] == 403


def test_any_word_may_be_a_token(kept):
    token = "a b&c;d=é"
    with served(kept, token=token) as address:
        request = f"{address}/?token={quote(token)}"
        with urllib.request.urlopen(request, timeout=20) as reply:
            cookie = reply.headers["Set-Cookie"].partition(";")[0]
        assert get(address + "/next?person=a", Cookie=cookie)[0] == 200
        assert get(address + "/next?person=a", Cookie="token=a")[0] == 403


def test_a_port_that_is_taken_is_named(kept):
    with served(kept) as address:
        port = int(address.rpartition(":")[2])
        with pytest.raises(OSError, match=f"host='127.0.0.1', port={port}: .*port=0 takes one"):
            make_server(kept, port=port)


@pytest.mark.skipif(not socket.has_ipv6, reason="needs IPv6")
def test_loopback_has_a_longer_address_too(kept):
    try:
        server = make_server(kept, "::1")
    except OSError:
        pytest.skip("this machine has no ::1")
    with server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        assert get(f"http://[::1]:{server.server_port}/")[0] == 200


def told_by_a_browser(kept, tmp_path, monkeypatch, script):
    """What a script says of the real page, in a frame of a page of the same server."""
    presses = f"""<iframe id="f" src="/" width="1000" height="800"></iframe><pre id="out">-</pre>
    <script>
    const wait = ms => new Promise(done => setTimeout(done, ms));
    f.onload = async () => {{
      const page = f.contentWindow, at = id => page.document.getElementById(id);
      const settled = async () => {{ await wait(400); while (page.eval("busy")) await wait(50); }};
      const press = async key => {{ await settled();
        page.document.dispatchEvent(new page.KeyboardEvent("keydown", {{ key }})); }};
      {script}
    }};</script>"""
    with served(kept) as address:
        from regrow.control.people import server

        send = server._Handler.do_GET

        def do_get(self):
            if self.path == "/try":
                self._send(200, presses.encode(), "text/html; charset=utf-8")
            else:
                send(self)

        monkeypatch.setattr(server._Handler, "do_GET", do_get)
        browser = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom"]
        browser += [f"--user-data-dir={tmp_path / 'profile'}", "--timeout=60000"]
        browser += ["--virtual-time-budget=20000", address + "/try"]
        page = subprocess.run(browser, capture_output=True, text=True, timeout=120, check=False)
    return json.loads(page.stdout.partition('<pre id="out">')[2].partition("</pre>")[0])


needs_chromium = pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")


@needs_chromium
def test_keys_in_a_real_browser(kept, tmp_path, monkeypatch):
    numbers = kept.ask([(clip(float(i)), clip(i + 0.5)) for i in range(5)])
    script = """
      for (const key of ["1", "2", "U", "0", "S", "2", "1"]) await press(key);
      await settled();
      const drawn = [...page.document.querySelectorAll("canvas")].map(c =>
        c.getContext("2d").getImageData(0, 0, c.width, c.height).data.some(v => v));
      out.textContent = JSON.stringify({ drawn, count: page.count.textContent,
        empty: !at("empty").hidden });"""
    said = told_by_a_browser(kept, tmp_path, monkeypatch, script)
    assert said == {"drawn": [True, True], "count": "5 of 5 answered", "empty": True}
    # The second was taken back, shown again, and said to be equal.
    assert kept.answers(numbers) == ["first", "equal", "skip", "second", "first"]


@needs_chromium
def test_the_last_answer_can_be_taken_back_without_keys(kept, tmp_path, monkeypatch):
    """Once all is answered there is nothing to choose, and still a button to take back."""
    numbers = kept.ask([(clip(0.0), clip(0.5))])
    script = """
      const buttons = () => [...page.document.querySelectorAll("button")]
        .filter(one => one.offsetParent).map(one => one.dataset.choice || one.id);
      await settled(); const before = buttons(); await press("1"); await settled();
      const after = buttons(); at("undo").click(); await settled();
      out.textContent = JSON.stringify([before, after, buttons()]);"""
    said = told_by_a_browser(kept, tmp_path, monkeypatch, script)
    everything = ["first", "second", "equal", "skip", "undo"]
    assert said == [everything, ["undo"], everything] and kept.answers(numbers) == [None]


@needs_chromium
def test_what_was_not_kept_is_not_shown_as_chosen(kept, tmp_path, monkeypatch):
    numbers = kept.ask([(clip(0.0), clip(0.5))])

    def full(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(Preferences, "answer", full)
    script = """
      await press("1"); await settled(); const full = at("said").textContent;
      page.fetch = () => Promise.reject(new page.TypeError("Failed to fetch"));
      await press("2"); await settled();
      const chosen = page.document.querySelectorAll(".chosen").length;
      out.textContent = JSON.stringify([full, at("said").textContent, chosen]);"""
    said = told_by_a_browser(kept, tmp_path, monkeypatch, script)
    assert said == ["Not kept: the disk is full. Try again.",
                    "Not kept: there is no connection. Try again.", 0]  # fmt: skip
    assert kept.answers(numbers) == [None]


# ---------------------------------------------------------------------- what is learnt


def _answer_by_distance(preferences, stop):
    """Answer as somebody would who sees which mass ends closer to the middle."""
    while not stop.is_set():
        question = preferences.next("somebody")
        if question is None:
            stop.wait(0.01)
            continue
        far = [
            np.hypot(*np.mean(np.reshape(c.frames[-1][2][1:], (-1, 2)), 0)) for c in question.clips
        ]
        choice = "first" if far[0] < far[1] else "second"
        preferences.answer(question.number, choice, "somebody")


def test_training_asks_people_and_goes_on_with_their_answers(kept, small):
    def train():
        environments = PointMass([0], 20)
        teacher = People(
            preferences=kept,
            draw=drawing_of("point-mass"),
            places=torch.arange(4)[None],
            every=0.01,
        )
        return train_from_preferences(environments, teacher, method="pebble", setting=small)

    stop = threading.Event()
    somebody = threading.Thread(target=_answer_by_distance, args=(kept, stop))
    somebody.start()
    try:
        first = train()
    finally:
        stop.set()
        somebody.join()
    assert kept.counts() == (18, 18) and first.models.count.min() == 18
    again = train()  # nobody answers any more: the same questions have their answers
    assert kept.counts() == (18, 18)
    assert torch.equal(first.replay.learned, again.replay.learned)


def test_every_task_has_a_drawing_but_those_that_do_not_show_where_they_are():
    assert set(TASKS) - DRAWN.keys() == {"quadruped-walk", "humanoid-stand"}


@pytest.mark.parametrize("task", ["point-mass", "cartpole-swingup", "walker-walk", "cheetah-run"])
def test_drawings_are_of_what_happened(task):
    if task != "point-mass":
        pytest.importorskip("mujoco", reason="needs the extra regrow[control]")
        pytest.importorskip("dm_control", reason="needs the extra regrow[control]")
    from regrow.control.environments import make

    environment = make(task, [3])
    seen = [environment.reset()[0]]
    for _ in range(5):
        seen.append(environment.step(np.full((1, environment.actions), 0.5)).observations[0])
    drawn = drawing_of(task)(np.array(seen, dtype=float), 1)
    assert len(drawn.frames) == 6 and drawn.frames[0] != drawn.frames[5]
    if task in ("walker-walk", "cheetah-run"):
        _check_bodies(environment, drawn.frames[-1])


def test_a_pole_is_seen_wherever_the_cart_is():
    draw = drawing_of("cartpole-swingup")
    for x in (-1.8, 1.8):
        clip = draw(np.array([[x, 0.0, np.sign(x), 0.0, 0.0]]), 1)
        left, bottom, right, top = clip.box
        points = np.concatenate([np.reshape(line[1:], (-1, 2)) for line in clip.frames[0]])
        assert (points >= (left, bottom)).all() and (points <= (right, top)).all()


def _check_bodies(environment, lines):
    """Compare with where mujoco itself has the bodies' capsules, but for the way they have gone."""
    data, model = environment._datas[0], environment._model
    environment._mujoco.mj_forward(model, data)
    bodies = [line for line in lines if line[0] != 0]
    geoms = [g for g in range(model.ngeom) if model.geom_bodyid[g] != 0]
    assert len(bodies) == len(geoms)
    torso = data.xpos[environment._torso, 0]
    for line, geom in zip(bodies, geoms, strict=True):
        axis = data.geom_xmat[geom].reshape(3, 3)[:, 2] * model.geom_size[geom, 1]
        ends = [data.geom_xpos[geom] + side * axis for side in (-1, 1)]
        expected = [[end[0] - torso, end[2]] for end in ends]
        assert np.allclose(np.reshape(line[1:], (2, 2)), expected, atol=2e-3)
