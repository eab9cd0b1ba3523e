"""The demo: repeatable, complete, measured in processes of their own, honest in its words."""

import io
import os
import signal
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

import regrow
from regrow.cli.demo import print_results
from regrow.lab.attempt import attempt
from regrow.lab.records import Records
from regrow.lab.study_page import find, study_page
from regrow.lab.study_run import run_study
from regrow.lab.trial import Trial
from regrow.studies import demo_trial
from regrow.studies.demo import ARMS, CLAIMS, demo_study
from regrow.studies.demo_page import NETWORKS, demo_table
from regrow.studies.demo_trial import Hide, hide
from regrow.studies.measured import alone
from regrow.studies.registry import STUDIES, load_study
from regrow.studies.systems import SYSTEMS
from regrow.vision.data import load_data

OWN = {"model": "mlp-48-32", "epochs": 2, "tiles": 2, "home": 1, "samples": 512}


STUDY = demo_study(3, **OWN)


def here(call, *arguments, imported):
    return call(*arguments)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    quiet = Console(file=io.StringIO())
    options = {"device": "cpu"}
    with pytest.MonkeyPatch.context() as patch:  # a process each takes a second
        patch.setattr(demo_trial, "alone", here)
        patch.setattr("gc.collect", int)  # nor is what they cost asked here
        ended = run_study(STUDY, "quick", out, options=options, executor="inline", console=quiet)
    assert not ended.failed, ended.failed[0].error
    return find((out,), lambda _: STUDY)


def first(found, arm):
    return found.view.where(arm=arm).first.result


# ---------------------------------------------------------------------- the task


def test_only_the_home_tile_is_the_image_and_all_are_of_its_pixels():
    images = load_data("digits").train_inputs
    field = hide(images, 3, 5, torch.Generator().manual_seed(0))
    tiles = {(i, j): field[..., 8 * i : 8 * i + 8, 8 * j : 8 * j + 8] for i, j in np.ndindex(3, 3)}
    assert [place for place, one in tiles.items() if one.equal(images)] == [(1, 2)]
    own = images.flatten(1)
    for one in tiles.values():  # pixel by pixel the values that it has in some image
        values = one.flatten(1)
        assert all(torch.isin(values[:, i], own[:, i]).all() for i in range(64))
        assert torch.allclose(values.float().mean(0), own.float().mean(0), atol=255 / 898**0.5 * 2)


def test_images_for_testing_are_hidden_among_their_own():
    data = load_data("digits")
    marked = replace(data, test_inputs=torch.full_like(data.test_inputs, 77))
    device = torch.device("cpu")
    made = Hide(2, 0, 7)(marked, device)
    assert made.test_inputs.unique().tolist() == [77]
    assert made.train_inputs.equal(Hide(2, 0, 7)(data, device).train_inputs)
    assert not made.train_inputs.equal(Hide(2, 0, 8)(data, device).train_inputs)


# ---------------------------------------------------------------------- what is trained


def test_sparse_networks_and_the_narrow_one_have_as_many_weights():
    trials = {one.labels["arm"]: one.trial for one in demo_study(1).trials("quick")}
    assert list(trials) == list(ARMS) and set(ARMS) == set(NETWORKS)
    pixels = 64 * trials["dense"].tiles ** 2

    def layers(name):
        sizes = [pixels, *map(int, trials[name].model.split("-")[1:]), 10]
        return list(pairwise(sizes)), sum(sizes[1:])

    pairs, biases = layers("RigL")
    shapes = {str(i): (b, a) for i, (a, b) in enumerate(pairs[:-1])}
    method = trials["RigL"].method
    kept = sum(
        round(share * np.prod(shapes[name]))
        for name, share in method.allocation(shapes, method.density).items()
    )
    sparse = kept + biases + np.prod(pairs[-1])
    narrow, few = layers("small dense")
    assert 0.97 * sparse < sum(a * b for a, b in narrow) + few <= sparse
    assert trials["static"].method.density == trials["random"].method.density == method.density


def test_every_network_is_trained_with_every_seed_and_paired(found):
    for arm in NETWORKS:
        assert set(found.view.where(arm=arm).values(lambda r: r.result["accuracy"])) == {5, 6, 7}
    seeds = [one.trial.seed for one in STUDY.trials("quick")]
    assert seeds == sorted(seeds)  # what is compared runs at about the same time


def test_numbers_are_those_of_the_seed_and_costs_are_there(found, tmp_path):
    record = found.view.where(arm="RigL").records[1]
    trials = {one.trial.identity: one.trial for one in STUDY.trials("quick")}
    assert attempt(trials[record.identity], tmp_path, {"device": "cpu"}).status == "finished"
    (again,) = Records.read(tmp_path)
    costs = dict.fromkeys(("seconds", "cpu_seconds", "peak_bytes"), 0)
    assert again.result | costs == record.result | costs
    assert len(again.metrics()) == 2
    assert 0 < record.result["cpu_seconds"] < 60
    assert record.result["peak_bytes"] is None or 0 <= record.result["peak_bytes"] < 2**30


def test_connections_stay_under_static_and_move_under_the_others(found):
    start = first(found, "static")["pixels"]
    assert len(start) == 256 and sum(start) == sum(first(found, "RigL")["pixels"])
    assert first(found, "RigL")["pixels"] != start != first(found, "random")["pixels"]
    own = np.array(start).reshape(16, 16)[:8, 8:]
    assert first(found, "static")["digit_share"] == pytest.approx(own.sum() / sum(start))
    assert "pixels" not in first(found, "dense")


# ---------------------------------------------------------------------- what is said


def costs(seed):
    return {"cpu_seconds": 55.0 + 9 * seed, "peak_bytes": 2**20 * (128 + 9 * seed)}


def test_what_is_printed_fits_80_columns_and_ends_in_the_answer(found):
    out = io.StringIO()
    wide = [  # as they are of the whole demo on a slow machine
        replace(one, result={**one.result, "weights": 12_243_810, **costs(one.config["seed"])})
        for one in found.records
    ]
    found = replace(found, records=Records(wide))
    print_results(found, Console(file=out, width=80))
    text = out.getvalue()
    assert "…" not in text and all(len(line) <= 80 for line in text.splitlines())
    assert [row[0] for row in demo_table(found.view).rows] == list(NETWORKS)
    assert " ".join(text.split()).endswith(" ".join(found.answer.split()))


def test_the_page_opens_with_the_answer_and_names_the_systems(found):
    html = study_page(found)
    assert html.count("<figure>") == 2 and "Not shown" not in html
    assert html.index(found.answer[:40]) < html.index("<h2")
    assert all(system.command in html for system in SYSTEMS)


def changed(found, **results):
    """The same records with other numbers of the sparse network."""
    records = [
        replace(one, result={**one.result, **results}) if own["arm"] == "RigL" else one
        for own, one in found.view.rows
    ]
    return replace(found, records=Records(records))


@pytest.mark.parametrize(
    ("results", "said"),
    [
        ({"accuracy": 0.0}, "classifies worse than the dense one"),
        ({"cpu_seconds": 1e4}, "does not take twice as long"),
        ({"peak_bytes": 2**40}, "does not take twice the memory"),
        ({"accuracy": 0.0}, "left where they were drawn beat those that move"),
        ({"accuracy": 1.0, "cpu_seconds": 1e-9, "peak_bytes": 1}, "takes more than twice as long"),
    ],
)
def test_a_sparse_run_that_is_not_better_is_said_to_be_worse(found, results, said):
    rows = [
        (own, replace(one, result={**one.result, "peak_bytes": 2**20}))
        for own, one in found.view.rows
    ]
    level = replace(found, records=Records(one for _, one in rows))
    assert said in changed(level, **results).answer


def test_memory_that_the_system_does_not_tell_is_no_verdict(found):
    records = [replace(one, result={**one.result, "peak_bytes": None}) for one in found.records]
    other = replace(found, records=Records(records))
    by_sentence = {one.sentence: verdict for one, verdict in other.verdicts}
    assert by_sentence[CLAIMS[2].sentence].outcome == "inconclusive"
    assert "Not shown" not in study_page(other)


def test_the_ten_systems_have_studies_that_can_be_tried():
    assert len({one.study for one in SYSTEMS}) == len(SYSTEMS) == 10
    assert all("smoke" in load_study(one.study).presets for one in SYSTEMS)
    assert {one.study for one in SYSTEMS} < set(STUDIES)


# ---------------------------------------------------------------------- a process of its own


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


def wrong():
    raise ValueError("told")


@pytest.mark.parametrize("imported", [(), ("regrow.studies.measured",)])
def test_a_process_of_its_own_raises_what_it_raised_and_its_death_is_told(imported):
    assert alone(os.getpid, imported=imported) != os.getpid()
    if imported:
        with pytest.raises(ValueError, match="told"):
            alone(wrong, imported=imported)
        with pytest.raises(MemoryError, match="killed: its process died"):
            alone(killed, imported=imported)


_FRESH = """
from regrow.studies import measured
measured._reset = bool
call = lambda: len(b"x" * 2**26)
print(measured.measured(call, fresh=True)[1]["peak_bytes"])
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux's peaks are asked")
def test_a_peak_that_cannot_be_set_back_is_not_that_of_the_parent():
    """Linux's getrusage begins with the parent's, which hid what the process itself took."""
    command = [sys.executable, "-c", _FRESH]
    held = b"x" * 2**29  # more than the process will have
    said = subprocess.run(command, capture_output=True, check=True, text=True)
    assert 2**25 < int(said.stdout) < 2**27 < len(held)


def test_a_dense_trial_is_told_of_no_layer_but_the_last():
    (dense,) = (one.trial for one in demo_study(1).trials("quick") if one.labels["arm"] == "dense")
    assert isinstance(dense, Trial) and isinstance(dense.method, regrow.Dense)
    assert dense.include == ("5.weight",)
