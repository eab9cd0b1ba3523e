"""Trackers of other makers are told what a run logs, once, and never stand in its way.

W&B and MLflow are stood in for by fakes of what is called of them; where they are installed, they
are asked, too.
"""

import json
import logging
import os
import struct
import sys
import types
import warnings

import pytest
from toy_trials import Walk

from regrow.lab.attempt import attempt
from regrow.lab.loggers import LOGGERS, open_loggers
from regrow.lab.trackers import run_name

TRIAL = Walk(seed=3, steps=5)


class FakeRun:
    def __init__(self, init):
        self.init, self.logged, self.axes, self.summary, self.ended = init, [], {}, {}, None

    def define_metric(self, name, step_metric):
        self.axes[name] = step_metric

    def log(self, numbers, step):
        self.logged.append((step, dict(numbers)))

    def finish(self, exit_code):
        self.ended = exit_code


@pytest.fixture
def wandb(monkeypatch):
    runs = []

    def init(**options):
        runs.append(FakeRun(options))
        return runs[-1]

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    # What is set for wandb's own process must not outlive the test.
    monkeypatch.setenv("WANDB_X_TRANSACTION_LOG_FLUSH_INTERVAL", "1")
    return runs


class FakeClient:
    """The part of mlflow.MlflowClient that is called, over what all clients share."""

    experiments, runs = {}, {}

    def get_experiment_by_name(self, name):
        found = self.experiments.get(name)
        return found and types.SimpleNamespace(experiment_id=found)

    def create_experiment(self, name):
        return self.experiments.setdefault(name, str(len(self.experiments) + 1))

    def search_runs(self, places, wanted):
        return [
            key
            for key, run in self.runs.items()
            if run["place"] in places and wanted == f"attributes.run_id = '{key}'"
        ]

    def create_run(self, place, run_name, tags):
        key = f"run{len(self.runs)}"
        self.runs[key] = {"place": place, "name": run_name, "tags": tags, "status": "RUNNING"}
        self.runs[key] |= {"params": {}, "metrics": []}
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id=key))

    def update_run(self, key, status):
        self.runs[key]["status"] = status

    def log_batch(self, key, metrics=(), params=()):
        assert len(metrics) <= 1000 and len(params) <= 100
        self.runs[key]["params"] |= dict(params)
        self.runs[key]["metrics"] += [(name, value, step) for name, value, _, step in metrics]

    def set_terminated(self, key, status):
        self.runs[key]["status"] = status


@pytest.fixture
def mlflow(monkeypatch):
    FakeClient.experiments, FakeClient.runs = {}, {}
    entities = types.SimpleNamespace(Metric=lambda *one: one, Param=lambda *one: one)
    fake = types.SimpleNamespace(MlflowClient=FakeClient, entities=entities)
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    return FakeClient.runs


def run(names, out, trial=TRIAL, *, stop_after=None):
    """Run a trial as a command does; it may be stopped by Ctrl-C once a step was told."""

    def show(line):
        told.log(line)
        if line["step"] == stop_after:
            raise KeyboardInterrupt

    with open_loggers(names, trial, out) as told:
        ended = attempt(trial, out, {}, show=show, begin=told.open, lets_out=True)
        if ended.status == "finished":
            told.result = {"x": 1.5, "test": {"y": 1}, "name": "a"}
    return ended


def stopped_and_gone_on(names, out):
    """Step 2 is told, and made again: the run was stopped before it saved a checkpoint."""
    with pytest.raises(KeyboardInterrupt):
        run(names, out, stop_after=2)
    assert run(names, out).status == "finished"


def test_wandb_is_told_config_lines_and_result(wandb, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    run(["wandb"], tmp_path / "new")
    [one] = wandb
    assert one.init["project"] == "mine" and one.init["resume"] == "allow"
    assert one.init["config"] == TRIAL.content | {"regrow.identity": TRIAL.identity}
    assert [step for step, _ in one.logged] == [1, 2, 3, 4, 5]
    assert all(set(numbers) == {"x", "step"} for _, numbers in one.logged)
    assert one.axes == {"x": "step"}
    assert (one.summary, one.ended) == ({"result/x": 1.5, "result/test.y": 1}, 0)


def test_what_was_stopped_goes_on_in_the_same_run_and_tells_no_step_twice(wandb, mlflow, tmp_path):
    stopped_and_gone_on(["wandb", "mlflow"], tmp_path)
    first, then = wandb
    assert first.init["id"] == then.init["id"]
    assert [step for one in wandb for step, _ in one.logged] == [1, 2, 3, 4, 5]
    assert (first.ended, first.summary, then.ended) == (255, {}, 0)  # W&B calls 255 killed
    [one] = mlflow.values()
    assert [step for name, _, step in one["metrics"] if name == "x"] == [1, 2, 3, 4, 5]
    assert one["metrics"][-2:] == [("result/x", 1.5, 0), ("result/test.y", 1, 0)]
    assert one["status"] == "FINISHED" and one["params"]["steps"] == "5"
    assert one["name"] == run_name(TRIAL.content, TRIAL.identity)
    [record] = (tmp_path / "trials").iterdir()
    assert not (record / "told.json").exists()


def test_a_run_that_was_stopped_is_told_as_such(mlflow, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(["mlflow"], tmp_path, stop_after=1)
    assert mlflow["run0"]["status"] == "KILLED"


def test_a_run_that_failed_has_failed(wandb, mlflow, tmp_path):
    assert run(["wandb", "mlflow"], tmp_path, Walk(seed=0, ends="raises")).status == "failed"
    assert wandb[0].ended == 1 and mlflow["run0"]["status"] == "FAILED"


@pytest.mark.parametrize("gone", ["here", "there"])
def test_the_same_trial_by_itself_is_a_run_of_its_own(wandb, mlflow, tmp_path, gone):
    """Colleagues who made the same trial wrote into one run."""
    with pytest.raises(KeyboardInterrupt):
        run(["wandb", "mlflow"], tmp_path / "a", stop_after=2)
    if gone == "there":  # somebody removed it at the tracker: all is told anew
        FakeClient.runs["run0"]["place"] = "trash"
    run(["wandb", "mlflow"], tmp_path / ("a" if gone == "there" else "b"))
    assert [m[2] for m in mlflow["run1"]["metrics"] if m[0] == "x"] == [1, 2, 3, 4, 5]
    assert (wandb[0].init["id"] == wandb[1].init["id"]) is (gone == "there")


def test_one_that_joins_later_is_told_what_was_logged_before(wandb, mlflow, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(["wandb"], tmp_path, stop_after=3)
    run(["wandb", "mlflow"], tmp_path)
    assert [m[2] for m in mlflow["run0"]["metrics"] if m[0] == "x"] == [1, 2, 3, 4, 5]
    assert [step for one in wandb for step, _ in one.logged] == [1, 2, 3, 4, 5]


class Refuses(Walk):
    def run(self, run):
        raise ValueError("no such data")


def test_a_run_that_is_refused_or_at_work_elsewhere_leaves_nothing_there(mlflow, tmp_path):
    with pytest.raises(ValueError, match="no such data"):
        run(["mlflow"], tmp_path, Refuses(seed=0))
    assert mlflow == {}

    def again(line):
        if line["step"] == 2:
            assert run(["mlflow"], tmp_path).status == "busy"

    with open_loggers(["mlflow"], TRIAL, tmp_path) as told:
        attempt(TRIAL, tmp_path, {}, show=again, begin=told.open)
        assert mlflow["run0"]["status"] == "RUNNING"


def test_a_logger_that_fails_is_left_out_and_training_goes_on(wandb, mlflow, tmp_path, caplog):
    def breaks():
        told.open()
        wandb[0].log = lambda *_, **__: 1 / 0

    with open_loggers(["wandb", "mlflow"], TRIAL, tmp_path) as told:
        with caplog.at_level(logging.WARNING):
            ended = attempt(TRIAL, tmp_path, {}, show=told.log, begin=breaks)
        told.result = {"x": 1.0}
    assert ended.status == "finished"
    assert caplog.text.count("wandb is told no more of this run: division by zero") == 1
    [one] = mlflow.values()
    assert [step for name, _, step in one["metrics"] if name == "x"] == [1, 2, 3, 4, 5]
    assert one["status"] == "FINISHED" and wandb[0].ended is None


def test_one_that_cannot_be_opened_is_said_and_no_step_is_recorded(
    wandb, mlflow, monkeypatch, tmp_path
):
    def refused(*_):
        raise RuntimeError("no key")

    monkeypatch.setitem(LOGGERS, "mlflow", refused)
    with pytest.raises(ValueError, match="log=mlflow: no key"):
        run(["wandb", "mlflow"], tmp_path)
    assert wandb[0].ended == 1
    assert not [*tmp_path.glob("running/*/metrics.jsonl")] and not [*tmp_path.glob("failed/*")]


@pytest.mark.parametrize("name", LOGGERS)
def test_without_the_package_the_error_names_the_extra(name, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, name, None)
    with (
        pytest.raises(ImportError, match=rf"pip install '\.\[{name}\]'"),
        open_loggers([name], TRIAL, tmp_path),
    ):
        pytest.fail("the run must not begin")


def test_a_client_of_mlflow_without_its_database_says_what_to_do(mlflow, monkeypatch, tmp_path):
    def client():
        raise ModuleNotFoundError("No module named 'sqlalchemy'", name="sqlalchemy")

    monkeypatch.setattr(sys.modules["mlflow"], "MlflowClient", client)
    with pytest.raises(ImportError, match="set MLFLOW_TRACKING_URI, or pip install mlflow"):
        run(["mlflow"], tmp_path)


def test_a_damaged_note_of_what_was_told_starts_a_run_of_its_own(mlflow, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(["mlflow"], tmp_path, stop_after=2)
    [note] = tmp_path.glob("running/*/told.json")
    for content in ('{"mlflow": {"run": 3}}', "{", "[]"):
        note.write_text(content)
        with pytest.raises(KeyboardInterrupt):
            run(["mlflow"], tmp_path, stop_after=2)
    assert len(mlflow) == 4


# ---------------------------------------------------------------------- the trackers themselves


def test_tensorboard_shows_a_run_that_went_on_once(tmp_path):
    pytest.importorskip("tensorboard", reason="needs the extra regrow[tensorboard]")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        stopped_and_gone_on(["tensorboard"], tmp_path)
    [folder] = (tmp_path / "tensorboard").iterdir()
    assert folder.name == run_name(TRIAL.content, TRIAL.identity)
    found = EventAccumulator(str(folder)).Reload()
    assert [event.step for event in found.Scalars("x")] == [1, 2, 3, 4, 5]
    assert [event.value for event in found.Scalars("result/x")] == [1.5]
    [text] = found.Tensors("config/text_summary")
    written = text.tensor_proto.string_val[0].decode().strip("`\n")
    assert json.loads(written) == TRIAL.content


def wandb_records(path):
    """Read what wandb wrote: LevelDB's log format, blocks of 32 KiB, a protobuf a record."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, part = path.read_bytes(), 7, b""
    while place + 7 <= len(content):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        part += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(part)
            part = b""


def test_the_real_wandb_records_a_run_that_went_on_once(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="needs the extra regrow[wandb]")
    for name, value in {"MODE": "offline", "SILENT": "true", "PROJECT": "mine"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    monkeypatch.setenv("WANDB_X_TRANSACTION_LOG_FLUSH_INTERVAL", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stopped_and_gone_on(["wandb"], tmp_path)
    kept = sorted(tmp_path.glob("wandb/offline-run-*/*.wandb"), key=os.path.getmtime)
    records = [[*wandb_records(path)] for path in kept]
    runs = [one.run for file in records for one in file if one.HasField("run")]
    assert len({one.run_id for one in runs}) == 1
    assert {one.project for one in runs} == {"mine"}
    assert {one.display_name for one in runs} == {run_name(TRIAL.content, TRIAL.identity)}
    config = {item.key: json.loads(item.value_json) for item in runs[0].config.update}
    assert TRIAL.content.items() <= config.items()
    assert [[one.exit.exit_code for one in f if one.HasField("exit")] for f in records] == [
        [255],
        [0],
    ]
    steps = [
        {item.key or item.nested_key[0]: item.value_json for item in one.history.item}["step"]
        for file in records
        for one in file
        if one.HasField("history")
    ]
    assert steps == ["1", "2", "3", "4", "5"]
    summary = {
        item.key or item.nested_key[0]: item.value_json
        for one in records[1]
        if one.HasField("summary")
        for item in one.summary.update
    }
    assert summary["result/x"] == "1.5" and summary["result/test.y"] == "1"


def test_the_real_mlflow_records_a_run_that_went_on_once(tmp_path, monkeypatch):
    pytest.importorskip("mlflow", reason="needs the extra regrow[mlflow]")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}/runs")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow import MlflowClient

        stopped_and_gone_on(["mlflow"], tmp_path)
        client = MlflowClient()
        place = client.get_experiment_by_name("regrow").experiment_id
        [one] = client.search_runs([place])
        steps = [point.step for point in client.get_metric_history(one.info.run_id, "x")]
    assert steps == [1, 2, 3, 4, 5]
    assert one.info.run_name == run_name(TRIAL.content, TRIAL.identity)
    assert one.info.status == "FINISHED" and one.data.params["steps"] == "5"
    assert one.data.metrics["result/x"] == 1.5 and one.data.metrics["result/test.y"] == 1
