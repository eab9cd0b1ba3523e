"""Studies from the command line: run, judged, shown, and run again."""

import dataclasses
import io
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from rich.console import Console
from toy_study import STUDY, Fit

from regrow.cli import main
from regrow.lab.design import labels_by_identity
from regrow.lab.files import read_json
from regrow.lab.origin import rows_of_trials
from regrow.lab.records import PACKED, TRIALS, Record, Records
from regrow.lab.study_file import Order, add_order, command, leave_out, read_orders
from regrow.lab.study_page import find, study_page
from regrow.lab.study_run import run_study
from regrow.lab.sweep import sweep
from regrow.studies.registry import STUDIES, load_study


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(STUDIES, "toy", "toy_study:STUDY")
    monkeypatch.setitem(STUDIES, "other", "toy_study:STUDY")


@pytest.fixture
def regrow(monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["regrow", *map(str, arguments)])
        status = 0
        try:
            main()
        except SystemExit as ended:
            status = ended.code
        return status, capsys.readouterr().out

    return call


def run(regrow, out, *more, preset="smoke"):
    fixed = ("study", "run", "toy", "--executor", "inline", "--preset", preset)
    return regrow(*fixed, "--out", out, *more)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A folder in which quick was run, with two seeds' failures beside it."""
    from regrow.lab.study_run import run_study

    out = tmp_path_factory.mktemp("done")
    options = {"data_dir": "/nowhere", "device": "auto"}
    run_study(STUDY, "quick", out, data="trouble", executor="inline", options=options)
    return out


def test_studies_are_listed_with_what_they_cost(regrow):
    _, said = regrow("study", "list")
    assert f"toy: {STUDY.title}" in said
    assert "--preset smoke  a second" in said


def test_a_run_tells_verdicts_and_writes_records_and_page(regrow, tmp_path):
    status, said = run(regrow, tmp_path)
    assert status == 0
    assert "18 trials finished, 0 failed, 0 were finished before" in said
    assert "No verdict: the smoke preset is too small to judge by." in said
    lines = [line for line in said.splitlines() if line.startswith("not judged: ")]
    assert len(lines) == len(STUDY.claims)
    assert len(Records.read(tmp_path)) == len(Records.read(str(tmp_path))) == 18
    assert "<svg" in (tmp_path / "report.html").read_text("utf-8")
    assert read_json(tmp_path / "study.json")["study"] == "toy"
    assert "0 trials finished, 0 failed, 18 were finished before" in run(regrow, tmp_path)[1]


def test_presets_of_one_study_add_up_in_a_folder(regrow, tmp_path):
    run(regrow, tmp_path)
    _, said = run(regrow, tmp_path, preset="quick")
    assert "27 trials finished, 0 failed, 18 were finished before" in said
    assert "supported:     Every dynamic method" in said
    assert read_orders(tmp_path) == [Order("toy", "smoke"), Order("toy", "quick")]


def test_another_study_is_refused_and_nothing_touched(regrow, tmp_path):
    add_order(Order("other", "smoke"), tmp_path)
    before = sorted(tmp_path.iterdir())
    status, _ = run(regrow, tmp_path)
    assert "holds the study 'other'" in status
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("study", "run", "tyo"), "study 'tyo': there is none; known are: "),
        (("study", "run", "tyo"), "did you mean toy?"),
        (("study", "run", "toy", "--preset", "paper"), "toy has 'smoke', 'quick'"),
        (("study", "run", "toy", "--data", "x"), "data='x'"),
        (("study", "run", "toy", "--only", "zz"), "only='zz': 0 of the preset's 45 trials"),
        (("report",), "no folder"),
        (("report", "nowhere"), "nowhere: there is no run and no study; name a folder that was"),
    ],
)
def test_a_mistake_is_a_line_and_leaves_no_folder(regrow, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    status, _ = regrow(*arguments)
    assert said in status
    assert not list(tmp_path.iterdir())


def test_one_number_is_computed_again_alike(regrow, done, tmp_path):
    wanted = {"method": "SET", "density": 0.1, "seed": 3}
    record = next(one for one in Records.read(done) if wanted.items() <= one.config.items())
    order = next(o for o, names in find([done], load_study).orders.items())
    line = command(order, record.identity).replace("DIR", str(tmp_path))
    status, said = regrow(*line.split()[1:], "--executor", "inline")
    assert status == 0 and "1 trials finished" in said
    [again] = Records.read(tmp_path)
    assert (again.identity, again.result) == (record.identity, record.result)


def test_failures_are_said_where_they_happen_and_the_rest_is_kept(regrow, tmp_path):
    status, said = run(regrow, tmp_path, "--data", "trouble", "--data-dir", "/nowhere")
    assert status == 1
    failed = [line for line in said.splitlines() if line.startswith("failed: ")]
    for words in ("ZeroDivisionError: <b>one & all</b>", "CUDA out of memory", "/nowhere/shift"):
        [line] = [line for line in failed if words in line]
        kept = line.rpartition("traceback in ")[2]
        assert "Traceback" in read_json(Path(kept))["error"]
    assert said.index(failed[0]) < said.index("18 trials finished, 3 failed")
    (tmp_path / "shift.json").write_text("[damaged")
    status, said = run(regrow, tmp_path, "--data", "file", "--data-dir", tmp_path)
    assert status == 1
    assert said.count("JSONDecodeError") == 18
    (tmp_path / "shift.json").write_text("0.01")
    status, said = run(regrow, tmp_path, "--data", "file", "--data-dir", tmp_path)
    assert status == 0
    assert "18 trials finished" in said
    run(regrow, tmp_path, "--data", "trouble", "--data-dir", tmp_path)
    # The failure that has finished since is one no more.
    assert "Trials: 37 finished, 2 failed." in (tmp_path / "report.html").read_text("utf-8")


def test_a_disk_that_fills_up_loses_nothing_that_was_finished(regrow, tmp_path, monkeypatch):
    from regrow.lab import files

    room = [60]

    def write(path, content):
        room[0] -= 1
        if room[0] < 0:
            raise OSError(28, "No space left on device", str(path))
        return whole(path, content)

    whole = files.write_bytes
    for module in ("files", "run"):
        monkeypatch.setattr(f"regrow.lab.{module}.write_bytes", write)
    status, said = run(regrow, tmp_path)
    assert "No space left" in said and "its traceback could not be kept" in said
    assert "No space left" in str(status)  # nor is there room for the page
    finished = len(Records.read(tmp_path))
    assert 0 < finished < 18
    monkeypatch.setattr("regrow.lab.files.write_bytes", whole)
    monkeypatch.setattr("regrow.lab.run.write_bytes", whole)
    status, said = run(regrow, tmp_path)
    assert status == 0
    assert f"{18 - finished} trials finished, 0 failed, {finished} were finished" in said


def test_a_damaged_record_is_named_and_the_rest_reported(regrow, done, tmp_path):
    shutil.copytree(done, tmp_path, dirs_exist_ok=True)
    broken, lacking = sorted((tmp_path / "trials").iterdir())[:2]
    (broken / "result.json").write_text('{"accuracy": 0.')
    (lacking / "config.json").unlink()
    status, said = regrow("report", tmp_path)
    assert status == 1
    for path in (broken, lacking):
        assert f"remove {path} and run the study again" in said
    html = (tmp_path / "report.html").read_text("utf-8")
    assert "Trials: 43 finished, 3 failed, 2 not run yet." in html
    assert html.count("Left out: ") == 2


def test_records_of_several_folders_add_up(regrow, done, tmp_path):
    run(regrow, tmp_path, "--data", "slow")
    status, _ = regrow("report", done, tmp_path, "--page", tmp_path / "both.html")
    assert status == 0
    assert "Trials: 63 finished, 3 failed." in (tmp_path / "both.html").read_text("utf-8")
    add_order(Order("other", "smoke"), tmp_path / "c")
    assert "'other', 'toy'" in regrow("report", done, tmp_path / "c")[0]


def test_the_page_shows_everything_in_order_and_escaped(done, tmp_path):
    shutil.copytree(done, tmp_path, dirs_exist_ok=True)
    leave_out("They fail on purpose.", tmp_path)
    html = study_page(find([tmp_path], load_study))
    parts = [
        "Does a toy &lt;learn&gt;?",
        "Of 4 claims: 2 inconclusive, 1 supported, 1 not supported.",
        "Trials: 45 finished, 3 failed.",
        "Why trials are left out: They fail on purpose.",
        ">Verdicts</h2>",
        'class="supported"',
        "2.59 points",
        "<nav",
        "Numbers made up",
        ">Accuracy against density</h2>",
        "Means over n = 5 seeds",
        ">All numbers</h2>",
        ">How each claim was decided</h2>",
        "Rule: for each of RigL, SET: it over Static (density 0.05)",
        "<b>Supported</b>: 2.59 points (95 % interval",
        "<b>Not supported</b>",
        "toy: GraNet over RigL: no records",
        ">Failed trials</h2>",
        "ZeroDivisionError: &lt;b&gt;one &amp; all",
        ">Where it ran</h2>",
        ">How to run it again</h2>",
        "regrow study run toy --preset quick --data trouble --out DIR",
        "--only IDENTITY",
    ]
    place = html.index("<body>")
    for part in parts:
        place = html.index(part, place)
    assert ".;" not in html
    for record in Records.read(done):
        assert record.identity in html
    assert "<b>one" not in html


def test_figures_that_cannot_be_made_are_said_and_the_page_is_made(regrow, tmp_path):
    identity = Fit(seed=0, method="RigL", density=0.05).identity
    status, _ = run(regrow, tmp_path, "--only", identity)
    assert status == 0
    html = (tmp_path / "report.html").read_text("utf-8")
    assert ">Not shown: gains over static</h2>" in html
    assert "These records do not give it: toy: " in html
    assert "17 not run yet" in html


def test_orders_given_at_once_are_all_noted(tmp_path):
    orders = [Order("toy", "smoke", str(i)) for i in range(12)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda order: add_order(order, tmp_path), orders * 2))
    assert sorted(read_orders(tmp_path), key=lambda o: int(o.data)) == orders


def test_a_damaged_study_file_is_named(tmp_path):
    for content in ("{", '{"study": "toy"}', '{"study": "toy", "runs": [1]}'):
        (tmp_path / "study.json").write_text(content)
        with pytest.raises(ValueError, match=r"study\.json is damaged"):
            add_order(Order("toy", "smoke"), tmp_path)
        assert (tmp_path / "study.json").read_text() == content


def test_commands_are_quoted():
    line = command(Order("toy", "quick", "two words"))
    assert line == "regrow study run toy --preset quick --data 'two words' --out DIR"


def test_every_registered_study_keeps_its_name():
    for name in set(STUDIES) - {"other"}:
        assert load_study(name).name == name
        assert load_study(name).claims


def test_packed_records_take_the_place_of_their_folders(tmp_path, done):
    records = Records.read(done)
    packed, again = tmp_path / "one", tmp_path / "two"
    for folder in (packed, again):
        folder.mkdir()
        records.pack(folder / PACKED)
    assert (packed / PACKED).read_bytes() == (again / PACKED).read_bytes()
    found = Records.read(packed)
    assert [one.metrics() for one in found] == [one.metrics() for one in records]
    assert found.rows() == records.rows()
    assert len(Records.read(packed, done)) == len(records)
    all_of_them = [one.trial for one in STUDY.trials("quick")]
    trials = [trial for trial in all_of_them if (done / TRIALS / trial.identity).exists()]
    assert len(sweep(trials, packed, executor="inline").skipped) == len(trials) > 0


@pytest.mark.parametrize("damage", [lambda b: b[:-9], lambda b: b"no" + b, lambda b: b""])
def test_a_damaged_pack_is_named(tmp_path, done, damage):
    path = tmp_path / PACKED
    Records.read(done).pack(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"records\.jsonl\.gz is damaged"):
        Records.read(tmp_path)
    told = []
    assert len(Records.read(tmp_path, damaged=told.append)) == 0 and len(told) == 1


def test_trials_without_labels_are_told_apart_by_the_settings_in_which_they_differ():
    """A method's argument of None and no such argument looked alike, and the page failed."""
    configs = [{"seed": 1, "data": "d"}, {"seed": 1, "data": "d", "method": {"start": None}}]
    for order in (configs, configs[::-1]):
        table = rows_of_trials([Record(str(c), c, {"accuracy": 1.0}, {}, Path()) for c in order])
        assert sorted(row[1:] for row in table.rows) == [
            ("", "1", "accuracy=1"),
            ("method.start=None", "1", "accuracy=1"),
        ]


def test_labels_stay_with_their_records_wherever_these_go(regrow, tmp_path):
    run(regrow, tmp_path / "run")
    regrow("report", tmp_path / "run", "--pack", tmp_path / "packed")
    wanted = labels_by_identity(STUDY.trials("smoke"))
    for folder in ("run", "packed"):
        records = Records.read(tmp_path / folder)
        assert {one.identity: list(one.labels) for one in records} == wanted
        row = next(iter(records.rows()))
        assert {"label.task", "label.arm", "label.density"} <= row.keys()
        assert "labels" not in records.all[0].config


def test_labels_are_of_the_design_where_a_run_was_cut_off_before_it_wrote_them(regrow, tmp_path):
    run(regrow, tmp_path)
    for path in tmp_path.glob("trials/*/labels.json"):
        path.unlink()
    assert not any(one.labels for one in Records.read(tmp_path))
    found = find([tmp_path], load_study)
    assert {one.identity: list(one.labels) for one in found.records} == labels_by_identity(
        STUDY.trials("smoke")
    )
    run(regrow, tmp_path)
    assert len(list(tmp_path.glob("trials/*/labels.json"))) == 18


def test_damaged_labels_are_named_and_the_rest_is_read(regrow, tmp_path):
    run(regrow, tmp_path)
    one, *_ = sorted(tmp_path.glob("trials/*/labels.json"))
    for damage in ("[1]", '{"labels": 1}', '{"labels": [1]}', "{"):
        one.write_text(damage)
        damaged: list[str] = []
        assert len(Records.read(tmp_path, damaged=damaged.append)) == 17
        assert len(damaged) == 1 and str(one) in damaged[0]


def test_a_terminal_without_the_signs_does_not_cost_the_page(tmp_path, monkeypatch):
    """Where ± and − cannot be encoded, the report ended in a traceback before the page was made."""
    words = ["study", "run", "toy", "--preset", "smoke", "--executor", "inline", "--out"]
    monkeypatch.setattr(sys, "argv", ["regrow", *words, str(tmp_path / "\u00e4")])
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict")
    monkeypatch.setattr(sys, "stdout", terminal)
    main()
    terminal.flush()
    said = terminal.buffer.getvalue()
    assert b"Report with figures" in said and b"\\xe4" in said
    assert (tmp_path / "\u00e4" / "report.html").stat().st_size > 10_000


def test_a_truncated_pack_is_named_and_the_exit_status_says_so(regrow, done, tmp_path):
    add_order(Order("toy", "quick"), tmp_path)
    Records.read(done).pack(tmp_path / PACKED)
    content = (tmp_path / PACKED).read_bytes()
    (tmp_path / PACKED).write_bytes(content[: len(content) // 2])
    status, said = regrow("report", tmp_path)
    assert status == 1 and f"left out: {tmp_path / PACKED} is damaged" in said
    assert "Left out: " in (tmp_path / "report.html").read_text("utf-8")


def test_a_damaged_study_file_leaves_the_other_folder_readable(regrow, done, tmp_path):
    (tmp_path / "study.json").write_text("{")
    status, said = regrow("report", tmp_path, done, "--page", tmp_path / "page.html")
    assert status == 1 and "study.json is damaged" in said
    assert "Trials: 45 finished" in (tmp_path / "page.html").read_text("utf-8")


def test_a_finished_trial_that_was_not_moved_is_not_run_again(tmp_path):
    """A kill between the last file and the move cost the whole trial."""
    trial = Fit(seed=1, ends="well")
    options = {"device": "cpu"}
    sweep([trial], tmp_path, executor="inline", options=options)
    folder = tmp_path / TRIALS / trial.identity
    before = (folder / "environment.json").read_bytes()
    folder.rename(tmp_path / "running" / trial.identity)
    assert sweep([trial], tmp_path, executor="inline", options=options).finished
    assert (folder / "environment.json").read_bytes() == before


def test_what_trials_share_is_made_before_the_first_of_them(tmp_path):
    """It is asked for what is left, with the run's options, and not again when all is done."""
    asked = []

    def prepare(trials, options, tell):
        tell("making it")
        done = list((tmp_path / TRIALS).glob("*")) if (tmp_path / TRIALS).is_dir() else []
        asked.append((len(trials), options["device"], len(done)))

    study = dataclasses.replace(STUDY, prepare=prepare)
    words = io.StringIO()

    def go(only=None):
        console = Console(file=words)
        how = {"options": {"device": "cpu"}, "executor": "inline", "console": console}
        return run_study(study, "smoke", tmp_path, only=only, **how)

    first = STUDY.trials("smoke")[0].trial.identity
    go(first)
    go()
    go()
    assert asked == [(1, "cpu", 0), (17, "cpu", 1)]
    assert words.getvalue().count("making it") == 2
