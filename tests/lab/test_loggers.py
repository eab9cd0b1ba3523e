"""Trackers of other makers are told what a run logs, and never stand in its way.

W&B and MLflow are stood in for by fakes of what is called of them; where they are installed, they
are asked, too.
"""

import logging
import sys
import types
import warnings

import pytest
from toy_trials import Walk

from regrow.lab.attempt import attempt
from regrow.lab.loggers import LOGGERS, open_loggers, run_name

TRIAL = Walk(seed=3, steps=3)
LINES = [{"epoch": 1, "loss": 2.0, "phase": "a"}, {"epoch": 2, "loss": 1.5, "accuracy": 0.5}]


class FakeRun:
    def __init__(self, init):
        self.init, self.logged, self.axes, self.summary, self.ended = init, [], {}, {}, None

    def define_metric(self, name, step_metric):
        self.axes[name] = step_metric

    def log(self, numbers):
        self.logged.append(dict(numbers))

    def finish(self, exit_code):
        self.ended = exit_code


@pytest.fixture
def wandb(monkeypatch):
    runs = []

    def init(**options):
        runs.append(FakeRun(options))
        return runs[-1]

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
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
            types.SimpleNamespace(info=types.SimpleNamespace(run_id=key))
            for key, run in self.runs.items()
            for tag, value in run["tags"].items()
            if run["place"] in places and wanted == f"tags.`{tag}` = '{value}'"
        ]

    def create_run(self, place, run_name, tags):
        key = f"run{len(self.runs)}"
        self.runs[key] = {"place": place, "name": run_name, "tags": tags, "status": "RUNNING"}
        self.runs[key] |= {"params": {}, "metrics": []}
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id=key))

    def update_run(self, key, status):
        self.runs[key]["status"] = status

    def log_param(self, key, name, value):
        assert len(value) <= 500
        self.runs[key]["params"][name] = value

    def log_metric(self, key, name, value, step=0):
        self.runs[key]["metrics"].append((name, value, step))

    def set_terminated(self, key, status):
        self.runs[key]["status"] = status


@pytest.fixture
def mlflow(monkeypatch):
    FakeClient.experiments, FakeClient.runs = {}, {}
    fake = types.SimpleNamespace(MlflowClient=FakeClient)
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    return FakeClient.runs


def tell(names, out, result):
    with open_loggers(names, TRIAL, out) as told:
        for line in LINES:
            told.log(line)
        told.result = result


def test_wandb_is_told_config_lines_and_result(wandb, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    tell(["wandb"], tmp_path / "new", {"accuracy": 0.5, "test": {"x": 1}, "name": "a"})
    [run] = wandb
    assert run.init["project"] == "mine" and run.init["id"] == TRIAL.identity
    assert run.init["config"] == TRIAL.content and run.init["resume"] == "allow"
    assert run.logged == [{"loss": 2.0, "epoch": 1}, {"loss": 1.5, "accuracy": 0.5, "epoch": 2}]
    assert run.axes == {"loss": "epoch", "accuracy": "epoch"}
    assert (run.summary, run.ended) == ({"result/accuracy": 0.5, "result/test.x": 1}, 0)


def test_mlflow_is_told_and_a_run_that_was_cut_off_goes_on(mlflow, tmp_path):
    tell(["mlflow"], tmp_path, None)
    [run] = mlflow.values()
    assert run["status"] == "FAILED" and run["params"]["steps"] == "3"
    tell(["mlflow"], tmp_path, {"accuracy": 0.5})
    assert [*mlflow.values()] == [run] and run["status"] == "FINISHED"
    assert run["metrics"][:3] == [("loss", 2.0, 1), ("loss", 1.5, 2), ("accuracy", 0.5, 2)]
    assert run["metrics"][-1] == ("result/accuracy", 0.5, 0)
    assert run["name"] == run_name(TRIAL.content, TRIAL.identity)


def test_a_run_without_a_result_has_failed(wandb, tmp_path):
    with pytest.raises(KeyboardInterrupt), open_loggers(["wandb"], TRIAL, tmp_path):
        raise KeyboardInterrupt
    assert wandb[0].ended == 1


def test_a_logger_that_fails_is_left_out_and_training_goes_on(wandb, mlflow, tmp_path, caplog):
    with open_loggers(["wandb", "mlflow"], TRIAL, tmp_path) as told:
        wandb[0].log = lambda _: 1 / 0
        with caplog.at_level(logging.WARNING):
            ended = attempt(TRIAL, tmp_path, {}, show=told.log)
        told.result = {"x": 1.0}
    assert ended.status == "finished"
    assert caplog.text.count("wandb is told no more of this run: division by zero") == 1
    [run] = mlflow.values()
    assert [step for name, _, step in run["metrics"] if name == "x"] == [1, 2, 3]
    assert run["status"] == "FINISHED" and wandb[0].ended is None


def test_one_that_cannot_be_opened_is_said_before_the_run(wandb, monkeypatch, tmp_path):
    def refused(*_):
        raise RuntimeError("no key")

    monkeypatch.setitem(LOGGERS, "mlflow", refused)
    with (
        pytest.raises(ValueError, match="log=mlflow: no key"),
        open_loggers(["wandb", "mlflow"], TRIAL, tmp_path),
    ):
        pass
    assert wandb[0].ended == 1


@pytest.mark.parametrize("name", LOGGERS)
def test_without_the_package_the_error_names_the_extra(name, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, name, None)
    with (
        pytest.raises(ImportError, match=rf"pip install '\.\[{name}\]'"),
        open_loggers([name], TRIAL, tmp_path),
    ):
        pass


def test_tensorboard_shows_a_run_that_went_on_once(tmp_path):
    pytest.importorskip("tensorboard", reason="needs the extra regrow[tensorboard]")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        tell(["tensorboard"], tmp_path, None)
        with open_loggers(["tensorboard"], TRIAL, tmp_path) as told:
            for line in ({"epoch": 2, "loss": 1.0}, {"epoch": 3, "loss": 0.5}):
                told.log(line)
            told.result = {"accuracy": 0.5}
    [folder] = (tmp_path / "tensorboard").iterdir()
    assert folder.name == run_name(TRIAL.content, TRIAL.identity)
    found = EventAccumulator(str(folder)).Reload()
    losses = [(event.step, event.value) for event in found.Scalars("loss")]
    assert losses == [(1, 2.0), (2, 1.0), (3, 0.5)]
    assert [event.value for event in found.Scalars("result/accuracy")] == [0.5]


def test_the_real_wandb_takes_it(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="needs the extra regrow[wandb]")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tell(["wandb"], tmp_path, {"accuracy": 0.5})
    [kept] = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert TRIAL.identity in kept.name and kept.stat().st_size > 0


def test_the_real_mlflow_takes_it_and_gives_it_back(tmp_path, monkeypatch):
    pytest.importorskip("mlflow", reason="needs the extra regrow[mlflow]")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}/runs")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow import MlflowClient

        tell(["mlflow"], tmp_path, None)
        tell(["mlflow"], tmp_path, {"accuracy": 0.5})
        client = MlflowClient()
        place = client.get_experiment_by_name("regrow").experiment_id
        [run] = client.search_runs([place])
    assert run.info.status == "FINISHED" and run.data.params["steps"] == "3"
    assert run.data.metrics["loss"] == 1.5 and run.data.metrics["result/accuracy"] == 0.5
