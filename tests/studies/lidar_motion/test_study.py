"""The study of LiDAR: what it runs, how its rules decide, that it ends with a page."""

import dataclasses
import json
import random
from functools import cache
from pathlib import Path

import pytest

from regrow.lab.records import Record, Records
from regrow.lab.study_run import run_study
from regrow.lab.view import View
from regrow.motion.lidar import PointNetLinear, TemporalPointNet
from regrow.studies.lidar_motion.design import ARMS, DENSITY, narrow_hidden
from regrow.studies.lidar_motion.study import CLAIMS, STUDY

NAMES = (
    "learnt", "ade", "map", "likeliest", "kinds", "range", "ranges", "cue", "harm", "fusions",
    "controls", "reliability", "crowds", "sparse", "moving", "narrow", "small",
)  # fmt: skip


@cache
def quick():
    return STUDY.trials("quick") + STUDY.trials("quick", "crowds")


@pytest.mark.parametrize("preset", ["smoke", "quick", "paper"])
def test_every_cell_is_there_once(preset):
    trials = STUDY.trials(preset)
    assert len({one.trial.identity for one in trials}) == len(trials)
    assert preset == "smoke" or {one.labels["arm"] for one in trials} == ARMS.keys()


def test_arms_differ_in_the_lidar_alone():
    own = {
        "seed", "lidar", "fusion", "method", "include", "control", "reliability", "lidar_hidden",
        "lidar_points", "lidar_frames",
    }  # fmt: skip
    trials = [one.trial for one in STUDY.trials("quick") if "distance" not in one.labels]
    shared = [{k: v for k, v in vars(one).items() if k not in own} for one in trials]
    assert all(one == shared[0] for one in shared)


def test_arms_at_a_range_differ_in_it_and_in_lidar_alone():
    """And each range has its own network without LiDAR beside it, on the same scenes."""
    usual = {(one.labels["arm"], one.trial.seed): one.trial for one in STUDY.trials("quick")}
    there = [one for one in STUDY.trials("quick") if "distance" in one.labels]
    found = {}
    for labels, trial in there:
        arm, distance = labels["arm"].split()[0], labels["distance"]
        assert (trial.near, trial.far) == (distance - 10, distance + 10)
        one = usual[arm, trial.seed]
        assert dataclasses.replace(trial, near=one.near, far=one.far) == one
        found.setdefault((distance, trial.seed), set()).add((arm, trial.lots(None)))
    assert len(found) == 9
    for pair in found.values():
        assert {arm for arm, _ in pair} == {"MTR", "LiDAR"}
        assert len({lots for _, lots in pair}) == 1


def test_the_narrow_encoder_is_as_large_as_the_sparse_one():
    whole = sum(p.numel() for p in PointNetLinear(9, 96, 11).parameters())
    hidden = narrow_hidden("small", 11)
    for more, fits in ((0, True), (4, False)):
        narrow = sum(p.numel() for p in TemporalPointNet(9, 96, hidden + more).parameters())
        assert (narrow <= DENSITY * whole) == fits


def _result(labels, noise, gains):
    """Return a made-up result in which an arm has gains over no LiDAR, in metres, by group."""
    off = {name: sum(g(labels) for n, g in gains if n in (name, "all")) for name in _GROUPS}
    row = {name: {"min_ade": 1.0 + off[name] + noise, "targets": 10} for name in _GROUPS}
    kinds = ("vehicle", "pedestrian", "cyclist")
    whole = 1.0 + off["whole"] + noise
    return {
        "waymo_min_ade": whole,
        "min_ade": whole,
        "ade_1": whole,
        "waymo_map": 0.4 - off["whole"] / 10 + noise,
        "by_kind": {kind: row[kind] for kind in kinds},
        "by_range": {"0 to 15": row["near"], "35 to 75": row["far"]},
        "by_story": {"stand, cue": row["cue"], "ride, map": row["map"]},
        "nonzeros": 1e6,
        "train_seconds": 1.0,
    }


_GROUPS = ("whole", "vehicle", "pedestrian", "cyclist", "near", "far", "cue", "map")


def judged(name, *gains):
    records = []
    for labels, trial in quick():
        noise = random.Random(trial.identity).uniform(-2e-3, 2e-3) + 1e-3 * trial.seed
        content = json.loads(json.dumps(trial.content))
        result = _result(labels, noise, gains)
        records.append(Record(trial.identity, content, result, {}, Path(), labels=[labels]))
    return CLAIMS[NAMES.index(name)].judge(View.of(records)).outcome


def arm(name, value, group="whole"):
    return group, lambda labels: value * (labels["arm"] == name)


def at_range(value):
    return "cue", lambda at: value(at["distance"]) if at["arm"] == "LiDAR at a range" else 0.0


def lidar(value, group):
    return group, lambda labels: value * (labels["arm"] != "MTR")


YES, NO = "supported", "not supported"


@pytest.mark.parametrize(
    ("name", "gains", "outcome"),
    [
        ("learnt", [], YES),
        ("learnt", [("map", lambda _: 2.0)], NO),
        ("ade", [arm("LiDAR", -0.2)], YES),
        ("ade", [arm("LiDAR", 0.2)], NO),
        ("map", [arm("LiDAR", -0.2)], YES),
        ("map", [arm("LiDAR", 0.2)], NO),
        ("likeliest", [arm("LiDAR", -0.2)], YES),
        ("kinds", [arm("LiDAR", -0.2, "pedestrian"), arm("LiDAR", -0.2, "cyclist")], YES),
        ("kinds", [arm("LiDAR", -0.2, "vehicle")], NO),
        ("kinds", [arm("LiDAR", -0.2, "pedestrian"), arm("LiDAR", 0.2, "cyclist")], NO),
        ("range", [arm("LiDAR", -0.2, "near")], YES),
        ("range", [arm("LiDAR", -0.2, "far")], NO),
        ("ranges", [at_range(lambda distance: -10 / distance)], YES),
        ("ranges", [at_range(lambda distance: -distance / 100)], NO),
        ("cue", [arm("LiDAR", -0.2, "cue")], YES),
        ("harm", [], YES),
        ("harm", [arm("LiDAR", 0.2, "map")], NO),
        ("fusions", [lidar(-0.1, "whole")], YES),
        ("fusions", [lidar(-0.1, "whole"), arm("keys", 0.2)], NO),
        ("controls", [arm("LiDAR", -0.3)], YES),
        ("controls", [arm("shuffled", -0.3)], NO),
        ("controls", [arm("chance", -0.3)], NO),
        ("reliability", [("cue", lambda at: -0.4 * at.get("reliability", 0))], YES),
        ("reliability", [("cue", lambda at: 0.4 * at.get("reliability", 0))], NO),
        ("crowds", [], YES),
        ("crowds", [("whole", lambda at: -0.3 * (at["arm"] == "LiDAR"))], NO),
        ("sparse", [], YES),
        ("sparse", [arm("sparse", 0.2)], NO),
        ("moving", [arm("static", 0.1)], YES),
        ("moving", [arm("sparse", 0.1)], NO),
        ("narrow", [arm("narrow", -0.2)], NO),
        ("small", [arm("LiDAR", 0.2)], NO),
        # What has not learnt from tracks and map judges nothing else.
        ("ade", [arm("LiDAR", -0.2), ("map", lambda _: 3.0)], "not judged"),
    ],
)
def test_rules(name, gains, outcome):
    assert judged(name, *gains) == outcome


def test_as_many_names_as_claims():
    assert len(NAMES) == len(CLAIMS)


@pytest.mark.slow
@pytest.mark.long
def test_smoke_ends_with_a_page(tmp_path):
    options = {"data_dir": str(tmp_path / "data"), "device": "cpu"}
    found = run_study(STUDY, "smoke", tmp_path / "out", options=options, jobs=1)
    assert not found.failed
    view = View.of(Records.read(tmp_path / "out"))
    titles = [section.title for section in STUDY.sections(view)]
    assert "All arms: simulator" in titles
    assert "What LiDAR is worth: simulator" in titles
    assert any(title.startswith("Whom it helps") for title in titles)
    assert not any(title.startswith("Not shown") for title in titles)
