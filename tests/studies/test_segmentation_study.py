"""The study of segmentation: what it runs, how its rules decide, that it ends with a page."""

from __future__ import annotations

import json
import os
import random
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import pytest

from regrow.lab.records import Record, Records
from regrow.lab.study_run import run_study
from regrow.lab.view import View
from regrow.segmentation import E2ENet, PlainConvUNet
from regrow.segmentation.fusion import FUSION
from regrow.segmentation.segmenter import channels_of
from regrow.studies.segmentation import study
from regrow.studies.segmentation.study import ARMS, CLAIMS, STUDY

NAMES = (
    "sound", "dice", "prior dice", "static", "dense", "shift", "3×3×3", "narrow", "links",
    "lean dice", "parameters", "flops", "prior parameters", "prior flops", "lean parameters",
)  # fmt: skip


@cache
def quick():
    """Trials of the preset that has all arms; narrow networks take seconds to be found."""
    return STUDY.trials("quick")


@pytest.mark.parametrize(
    "preset", ["smoke", "quick", pytest.param("paper", marks=pytest.mark.long)]
)
def test_every_cell_is_there_once(preset):
    trials = STUDY.trials(preset)
    assert len({one.trial.identity for one in trials}) == len(trials)
    assert preset == "smoke" or {one.labels["arm"] for one in trials} == ARMS.keys()


def test_arms_differ_in_what_they_say_alone():
    """One recipe: only network, method and the weights it may drop are an arm's own."""
    own = {"seed", "fold", "model", "width", "shift", "depth_kernel", "method", "include"}
    shared = [{k: v for k, v in vars(one.trial).items() if k not in own} for one in quick()]
    assert all(one == shared[0] for one in shared)
    by_arm = {one.labels["arm"]: one.trial for one in quick()}
    assert by_arm["static"].method.next_update(0, 2000) is None
    assert by_arm["E2ENet"].method.next_update(0, 2000) == 10
    assert by_arm["no shift"].shift == 0 and by_arm["3×3×3"].depth_kernel == 3


def test_a_lean_lattice_has_kernels_of_its_own():
    lean = next(one.trial for one in quick() if one.labels["arm"] == "lean")
    with pytest.raises(ValueError, match="depth_kernel=3: 'e2enet-lean' has kernels of its own"):
        replace(lean, depth_kernel=3)


def test_narrow_networks_are_as_large_as_they_say():
    model = E2ENet(1, 3, channels_of(24, 4))
    fused = [n for n, _ in model.named_parameters() if any(fnmatchcase(n, g) for g in FUSION)]
    kept = sum(w.numel() * (0.2 if n in fused else 1) for n, w in model.named_parameters())
    width = study.narrow_nnunet(24)
    for wider, fits in ((0, True), (1, False)):
        rival = PlainConvUNet(1, 3, channels_of(width + wider, 4))
        assert (sum(w.numel() for w in rival.parameters()) <= kept) == fits
    assert 12 <= study.narrow_lattice(24) < 24


def judged(name, dice=lambda at: 0.0, size=1.0):
    records = []
    for labels, trial in quick():
        arm = labels["arm"]
        noise = random.Random(trial.identity).uniform(-2e-4, 2e-4) + 1e-3 * trial.seed
        sizes = size if arm in ("E2ENet", "lean") else 1.0
        result = {
            "dice": 0.89 + dice(labels) + noise,
            "nonzeros": 1e6 * sizes,
            "inference_flops": 1e9 * sizes,
        }
        content = json.loads(json.dumps(trial.content))
        records.append(Record(trial.identity, content, result, {}, Path(), labels=[labels]))
    return CLAIMS[NAMES.index(name)].judge(View.of(records)).outcome


def only(arm, value):
    return lambda at: value * (at["arm"] == arm)


@pytest.mark.parametrize(
    ("name", "dice", "size", "outcome"),
    [
        ("sound", only("nnU-Net", 0.0), 1, "supported"),
        ("sound", only("nnU-Net", -0.02), 1, "not supported"),
        ("dice", only("E2ENet", -0.003), 1, "supported"),
        ("dice", only("E2ENet", -0.01), 1, "not supported"),
        ("parameters", only("", 0), 0.3, "supported"),
        ("parameters", only("", 0), 0.4, "not supported"),
        ("flops", only("", 0), 0.6, "supported"),
        ("flops", only("", 0), 0.8, "not supported"),
        ("static", only("static", -0.01), 1, "supported"),
        ("static", only("static", 0.01), 1, "not supported"),
        ("dense", only("dense lattice", 0.01), 1, "not supported"),
        ("shift", only("no shift", -0.05), 1, "supported"),
        ("3×3×3", only("3×3×3", 0.02), 1, "not supported"),
        ("narrow", only("E2ENet", 0.02), 1, "supported"),
        ("narrow", only("narrow lattice", 0.02), 1, "not supported"),
        ("links", only("links", -0.01), 1, "not supported"),
        ("prior dice", only("SegResNet", 0.003), 1, "supported"),
        ("prior dice", only("SegResNet", 0.01), 1, "not supported"),
        ("prior dice", only("narrow nnU-Net", 0.01), 1, "supported"),  # a control
        ("prior parameters", only("", 0), 0.9, "supported"),
        ("prior flops", only("", 0), 1.1, "not supported"),
        ("lean dice", only("lean", -0.002), 1, "supported"),
        ("lean dice", only("lean", -0.005), 1, "not supported"),
        ("lean parameters", only("", 0), 0.3, "supported"),
        ("lean parameters", only("", 0), 0.4, "not supported"),
        # Where nothing was learnt as it should be, costs are judged and accuracies are not.
        ("dice", lambda at: -0.02, 1, "not judged"),
        ("parameters", lambda at: -0.02, 0.3, "supported"),
    ],
)
def test_rules(name, dice, size, outcome):
    assert judged(name, dice, size) == outcome


@pytest.mark.long
def test_smoke_ends_with_a_page(tmp_path):
    data = os.environ.get("REGROW_DATA")
    if not data or not (Path(data) / "hippocampus").is_dir():
        pytest.skip("needs $REGROW_DATA with hippocampus")
    found = run_study(STUDY, "smoke", tmp_path, options={"data_dir": data, "device": "cpu"}, jobs=1)
    assert not found.failed
    view = View.of(Records.read(tmp_path))
    titles = [section.title for section in STUDY.sections(view)]
    assert any("All arms" in title for title in titles)
