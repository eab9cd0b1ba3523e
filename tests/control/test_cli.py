"""``regrow control train``: a record, the same again, what is wrong in a line; and a killed run."""

import json
import re

import numpy as np
import pytest

from regrow.cli.control import control_train
from regrow.control.environments import PointMass
from regrow.control.people.drawings import DRAWN
from regrow.control.train import train_from_preferences
from regrow.lab.run import Run
from regrow.studies.control import page

QUICK = {
    "task": "point-mass", "steps": 160, "seed_steps": 60, "segment": 10, "queries": 5,
    "feedbacks": 2, "feedback_every": 50, "reward_steps": 5, "width": 8, "reward_width": 8,
    "batch": 8, "update_every": 10, "runs": 2, "episodes": 1, "noise": 0.5,
}  # fmt: skip


def test_a_run_leaves_a_record_and_is_not_done_twice(tmp_path, capsys):
    control_train(**QUICK, method="r2n", out=tmp_path)
    said = capsys.readouterr().out
    assert "step  60 of 160" in said and "features read    4 4 real, 4 4 noise" in said
    (folder,) = (tmp_path / "trials").iterdir()
    result = json.loads((folder / "result.json").read_text())
    result = result.get("result", result)
    assert len(result["returns"]) == 2 and result["comparisons"] == [10, 10]
    assert [len(returns) for returns in result["training_returns"]] == [3, 3]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [60, 110, 160]
    assert lines[0]["real_connections"] > 0
    assert (folder / "agent.pt").is_file()
    film = (folder / "film.html").read_text()
    assert "<h1>point-mass" in film and '"frames":[[[0' in film and "/*" not in film
    looks = result["looks"]
    assert [len(one) for one in looks["step"]] == [2] * len(looks["step"]) and len(looks) == 10
    html = (folder / "page.html").read_text()
    for title in ("The agent", "Returns", "What is attended to", "The learned reward", "Runs"):
        assert f">{title}</h2>" in html
    assert html.count("<svg") == 1 + 4 + 3 and "&quot;frames&quot;:[[[0" in html
    control_train(**QUICK, method="r2n", out=tmp_path)
    assert "it was finished before" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "left_out"),
    [
        ({"reward": "true"}, ["The learned reward"]),
        ({"noise": 0.0}, ["What is attended to"]),
        ({"steps": 45, "feedbacks": 1, "seed_steps": 40, "segment": 5}, ["Returns"]),
    ],
)
def test_pages_leave_out_what_there_is_not(tmp_path, given, left_out, capsys):
    control_train(**(QUICK | given), method="pebble", out=tmp_path)
    (folder,) = (tmp_path / "trials").iterdir()
    html = (folder / "page.html").read_text()
    titles = {"Returns", "What is attended to", "The learned reward", "Runs"}
    assert {t for t in titles if f">{t}</h2>" not in html} == set(left_out)
    assert not re.search(r"\bnan\b", html)


def test_a_task_without_a_drawing_has_a_page_and_no_film(tmp_path, capsys, monkeypatch):
    monkeypatch.delitem(DRAWN, "point-mass")
    control_train(**QUICK, method="pebble", out=tmp_path)
    (folder,) = (tmp_path / "trials").iterdir()
    assert not (folder / "film.html").exists()
    assert "The agent" not in (folder / "page.html").read_text()
    assert "none: there is no drawing" in capsys.readouterr().out


def test_a_smooth_curve_is_the_mean_of_what_came_before():
    found = page._smooth(np.array([1.0, 3.0, 5.0, 7.0]), 2)
    np.testing.assert_allclose(found, [1, 2, 4, 6])


def test_histograms_are_taken_from_the_task_itself(tmp_path, capsys):
    control_train(**QUICK, method="static", noise_kind="histogram", permuted=True, out=tmp_path)
    assert "record" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"task": "walker"}, "task='walker'"),
        ({"noise": 1.0}, r"noise=1\.0"),
        ({"runs": 0}, "runs=0"),
        ({"segment": 51}, "segment=51"),
        ({"seed": -1}, "seed=-1"),
        ({"workers": 0}, "workers=0"),
        ({"repeat": 0}, "repeat=0"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_kept(tmp_path, wrong, said, capsys):
    with pytest.raises((ValueError, SystemExit), match=said):
        control_train(**(QUICK | wrong), out=tmp_path / "out")
    assert not list((tmp_path / "out").glob("trials/*"))


class Killed(PointMass):
    """An environment whose process dies at a step."""

    left = 130

    def advance_(self, actions):
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt
        return super().advance_(actions)


def test_a_killed_training_goes_on_from_its_checkpoint_bit_for_bit(tmp_path, small, equal_states):
    options = {"method": ["r2n", "elimination"], "setting": small, "noise": 0.5}

    def run():
        tmp_path.joinpath("run").mkdir(exist_ok=True)
        return Run(tmp_path / "run", save_every=0.0)

    with pytest.raises(KeyboardInterrupt):
        train_from_preferences(Killed([0, 1], episode=20), **options, run=run())
    assert (tmp_path / "run" / "checkpoint.pt").is_file()
    again = train_from_preferences(PointMass([0, 1], episode=20), **options, run=run())
    whole = train_from_preferences(PointMass([0, 1], episode=20), **options)
    equal_states(again.state_dict(), whole.state_dict())
    steps = [
        json.loads(line)["step"]
        for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    assert steps == [40, 80, 120, 160]
