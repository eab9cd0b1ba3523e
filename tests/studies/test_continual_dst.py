"""The study of continual learning: what is run, how it resumes, and how its rules decide."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from regrow.continual.baselines import Training
from regrow.lab.design import Labelled, labels_by_identity
from regrow.lab.records import Record, Records
from regrow.lab.run import Run
from regrow.lab.sweep import sweep
from regrow.lab.view import View
from regrow.studies.continual_dst.data import open_stream
from regrow.studies.continual_dst.design import ARMS, trials
from regrow.studies.continual_dst.learners import (
    Consolidated,
    FineTuned,
    Joined,
    LearnerSpec,
    Packed,
    Rehearsed,
    Separate,
    SpaceReserved,
    Stabilised,
    Subnetworks,
)
from regrow.studies.continual_dst.study import CLAIMS, CONTROLS, LEARNERS, STUDY
from regrow.studies.continual_dst.trial import LearnStream
from regrow.studies.registry import load_study

BASE = LearnStream(
    seed=0,
    stream="split-digits",
    model="mlp-20",
    learner=FineTuned(),
    training=Training(epochs=1, batch=32),
)
DENSITIES = (0.05, 0.1, 0.2)
SPECS = (
    Subnetworks(0.2, "ERK", "gradient", 2),
    FineTuned(),
    Joined(),
    Separate(),
    Separate(same_total=True),
    Separate(0.2, updates=2),
    Packed(0.2),
    SpaceReserved(0.2, 2),
    Stabilised(0.2, 2),
    Consolidated(10.0),
    Rehearsed(10),
)
VERDICT = {
    name: i
    for i, name in enumerate(
        ("ERK", "uniform", "growth", "moving", "BWT", "naive", "same size", "PackNet", "sharing")
    )
}


def trial(seed: int, learner: LearnerSpec) -> LearnStream:
    return replace(BASE, seed=seed, learner=learner)


def everything(seeds: int = 4) -> list[Labelled]:
    return trials(BASE, seeds, DENSITIES, updates=2, buffer=10)


def record(one: Labelled, accuracy: float, bwt: float = 0.0) -> Record:
    rows = [[accuracy], [accuracy, accuracy]]
    result = {"ACC": accuracy, "BWT": bwt, "accuracies": rows, "weights": 10}
    result["weights_used"] = [4, 5]
    if isinstance(one.trial.learner, Subnetworks | Packed | SpaceReserved | Stabilised):
        masks = {"capacity": [0.1, 0.2], "reused": [0.0, 0.1], "overlap": [[1, 0.1], [0.1, 1]]}
        result |= masks
    identity = one.trial.identity
    return Record(identity, one.trial.content, result, {}, Path(), labels=[one.labels])


def name_of(one: Labelled) -> str:
    """Name a learner as pages do."""
    (name,) = (name for name, labels in LEARNERS.items() if labels.items() <= one.labels.items())
    return name


def judged(accuracy_of: Callable[[Labelled], float], claim: str, seeds: int = 4):
    """Judge a claim by records whose accuracies a function gives, with a little noise."""
    made = []
    for one in everything(seeds):
        noise = random.Random(one.trial.identity).uniform(-0.0005, 0.0005)
        made.append(record(one, accuracy_of(one) + noise + 0.01 * one.trial.seed))
    return CLAIMS[VERDICT[claim]].judge(View.of(made))


# ---------------------------------------------------------------------- what is run


def test_the_study_is_known_by_name():
    assert load_study("continual-dst") is STUDY
    assert len(CLAIMS) == len(VERDICT)


def test_every_cell_and_control_is_there_once():
    made = everything(2)
    assert len({one.trial.identity for one in made}) == len(made) == 2 * (3 * 2 * 5 + 6 + 3 * 4)
    assert len({json.dumps([one.labels, one.trial.seed]) for one in made}) == len(made)
    assert {one.labels["arm"] for one in made} == set(ARMS)
    seen = {(name_of(one), one.labels.get("density")) for one in made}
    controls = (*CONTROLS[:6], *((n, d) for n in CONTROLS[6:] for d in DENSITIES))
    cells = ((name, d) for name in LEARNERS if name not in CONTROLS for d in DENSITIES)
    assert seen == {*cells, *((c, None) if isinstance(c, str) else c for c in controls)}


def test_labels_say_what_a_learner_is():
    controls = (
        *(FineTuned, Consolidated, Rehearsed, Joined, Separate, Separate, Separate),
        *(Packed, SpaceReserved, Stabilised),
    )
    classes = {
        "DST": Subnetworks,
        "static": Subnetworks,
        **dict(zip(CONTROLS, controls, strict=True)),
    }
    for labels, one in everything(1):
        learner, arm = one.learner, labels["arm"]
        assert type(learner) is classes[arm]
        assert getattr(learner, "density", 1.0) == labels.get("density", 1.0)
        assert getattr(learner, "same_total", False) == (arm == "independent, same size")
        if isinstance(learner, Subnetworks):
            assert learner.allocation == labels["allocation"]
            assert learner.growth == labels.get("growth", "static")
        if "density" in labels and not isinstance(learner, Packed):
            assert learner.updates == 2


@pytest.mark.parametrize(
    ("preset", "data", "streams"),
    [
        ("smoke", None, {"split-digits"}),
        ("quick", None, {"permuted-fashion-mnist"}),
        ("quick", "fashion-mnist", {"permuted-fashion-mnist"}),
        ("quick", "cifar10", {"split-cifar10"}),
        ("paper", "cifar100", {f"split-cifar100-{n}" for n in (5, 10, 20)}),
        ("paper", "mini-imagenet", {f"split-mini-imagenet-{n}" for n in (5, 10, 20)}),
    ],
)
def test_presets(preset, data, streams):
    made = STUDY.trials(preset, data)
    assert {one.trial.stream for one in made} == streams
    for seed in range(3):
        view = View.of([record(one, 0.5) for one in made if one.trial.seed == seed])
        assert len(view.axis("task")) == len(streams)
        for stream in view.by("task").values():
            assert set(stream.axis("density")) >= {0.05, 0.2}
            assert all(stream.where(**labels) for labels in LEARNERS.values())


def test_settings_do_not_share_a_name():
    """Records of two settings in one folder must never be taken for one setting's."""
    settings: dict[str, set[LearnStream]] = {}
    for preset, data in (
        ("smoke", None),
        ("quick", "fashion-mnist"),
        ("quick", "cifar10"),
        ("paper", None),
    ):
        for labels, one in STUDY.trials(preset, data):
            setting = replace(one, seed=0, learner=FineTuned())
            settings.setdefault(str(labels["task"]), set()).add(setting)
    assert len(settings) == 9
    assert all(len(alike) == 1 for alike in settings.values())


def test_the_papers_updates_fall_every_so_many_steps():
    for labels, one in STUDY.trials("paper", "cifar100"):
        if labels["arm"] == "DST":
            tasks = int(one.stream.rsplit("-", 1)[1])
            method = one.learner.method(one.training.steps(50_000 // tasks))
            wanted = {5: 100, 10: 400, 20: 100}[tasks]
            assert method.update_every == pytest.approx(wanted, rel=0.1)


def test_data_and_choices_that_are_not_known_are_refused():
    with pytest.raises(ValueError, match="data='mnist': this preset knows"):
        STUDY.trials("quick", "mnist")
    with pytest.raises(ValueError, match="growth='rigl': must be one of random"):
        Subnetworks(0.1, growth="rigl")
    import torch

    where = {"data_dir": None, "seed": 0, "device": torch.device("cpu")}
    with pytest.raises(ValueError, match="stream='x': must be one of"):
        open_stream("x", **where)
    with pytest.raises(ValueError, match="train images: 5000 are wanted, and digits has 898"):
        open_stream("split-digits", samples=5000, **where)


def test_mini_imagenet_that_is_nowhere_says_where_it_was_looked_for(tmp_path, monkeypatch):
    import torch

    monkeypatch.delenv("REGROW_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    mine = tmp_path / "mine"
    mine.mkdir()
    where = {"data_dir": str(mine), "seed": 0, "device": torch.device("cpu")}
    with pytest.raises(FileNotFoundError, match=r"mine.mini-imagenet"):
        open_stream("split-mini-imagenet-5", **where)


# ---------------------------------------------------------------------- a trial


@pytest.mark.parametrize("learner", SPECS, ids=lambda one: type(one).__name__)
def test_a_trial_cut_off_between_tasks_finds_what_the_whole_one_finds(tmp_path, learner):
    one = trial(3, learner)
    (tmp_path / "whole").mkdir()
    whole = one.run(Run(tmp_path / "whole", {"device": "cpu"}))

    class Cut(RuntimeError):
        pass

    lines: list[object] = []

    def cut(line: object) -> None:
        lines.append(line)
        if len(lines) == 3:
            raise Cut

    (tmp_path / "cut").mkdir()
    with pytest.raises(Cut):
        one.run(Run(tmp_path / "cut", {"device": "cpu"}, save_every=0.0, show=cut))
    resumed = Run(tmp_path / "cut", {"device": "cpu"})
    result = one.run(resumed)
    for field in whole.keys() - {"train_seconds"}:
        assert result[field] == whole[field], field
    metrics = (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()
    assert len(metrics) == 5


def test_what_a_trial_returns_fits_together(tmp_path):
    result = trial(0, Subnetworks(0.2, updates=2)).run(Run(tmp_path, {"device": "cpu"}))
    assert [len(row) for row in result["accuracies"]] == [1, 2, 3, 4, 5]
    assert result["BWT"] == 0.0
    assert result["ACC"] == pytest.approx(sum(result["accuracies"][-1]) / 5)
    assert result["weights"] == 64 * 20
    assert result["capacity"][-1] == result["weights_used"][-1] / result["weights"]
    assert result["capacity"][0] == pytest.approx(0.2, abs=0.01) and result["reused"][0] == 0.0


def test_seeds_draw_other_samples_and_learners_with_one_seed_the_same():
    import torch

    def labels(seed: int) -> list[list[int]]:
        stream = open_stream(
            "split-digits",
            data_dir=None,
            seed=seed,
            device=torch.device("cpu"),
            samples=300,
            tests=200,
        )
        assert sum(len(task.train) for task in stream) == 300
        assert sum(len(task.test) for task in stream) == 200
        return [task.train.targets.tolist() for task in stream]

    assert labels(0) == labels(0) != labels(1)


def test_trials_run_in_other_processes_and_their_page_is_made(tmp_path):
    chosen = [one for one in everything(1) if name_of(one) in ("ERK, gradient", "naive")][-2:]
    done = sweep(
        [one.trial for one in chosen], tmp_path, options={"device": "cpu"}, executor="inline"
    )
    assert not done.failed
    records = Records.read(tmp_path).labelled(labels_by_identity(chosen))
    titles = [section.title for section in STUDY.sections(View.of(records))]
    assert any("Accuracy on each task" in title for title in titles)
    assert not [title for title in titles if title.startswith("Not shown")]


# ---------------------------------------------------------------------- how rules decide


def better(name: str, by: float = 0.03, density: float | None = None):
    """Give learners whose name begins so a better accuracy."""

    def of(one: Labelled) -> float:
        fits = name_of(one).startswith(name)
        here = density is None or one.labels.get("density") == density
        return 0.7 + by * (fits and here)

    return of


def test_allocation_by_density():
    assert judged(better("ERK", density=0.2), "ERK").outcome == "supported"
    assert judged(better("ERK", -0.03, 0.2), "ERK").outcome == "not supported"
    assert judged(better("ERK", density=0.05), "ERK").outcome == "inconclusive"
    assert judged(better("uniform", density=0.05), "uniform").outcome == "supported"
    assert judged(better("ERK", density=0.05), "uniform").outcome == "not supported"
    assert judged(better("ERK", density=0.2), "ERK", seeds=2).outcome == "inconclusive"


def test_growth_that_depends_on_density_and_allocation():
    def both(one):
        gradient = name_of(one) == "ERK, gradient"
        return 0.7 + 0.04 * gradient * (one.labels.get("density") == 0.05)

    assert judged(both, "growth").outcome == "supported"
    everywhere = judged(lambda t: 0.7 + 0.04 * ("gradient" in name_of(t)), "growth")
    assert everywhere.outcome == "not supported"


def test_moving_and_static():
    static = judged(lambda t: 0.7 - 0.03 * ("static" in name_of(t)), "moving")
    assert static.outcome == "supported" and static.effect.mean == pytest.approx(3, abs=0.1)
    assert judged(lambda t: 0.7 + 0.03 * ("static" in name_of(t)), "moving").outcome == (
        "not supported"
    )


@pytest.mark.parametrize(
    ("claim", "name"),
    [
        ("naive", "naive"),
        ("same size", "independent, same size"),
        ("PackNet", "PackNet"),
        ("sharing", "independent, sparse"),
    ],
)
def test_against_each_control(claim, name):
    assert judged(better(name, -0.03), claim).outcome == "supported"
    assert judged(better(name), claim).outcome == "not supported"
    assert abs(judged(better("replay"), claim).effect.mean) < 0.1


def test_a_single_run_that_forgets_in_the_last_bit_decides():
    made = everything(3)

    def outcome(bwt_of, chosen=made):
        records = [record(one, 0.5, bwt_of(one.trial)) for one in chosen]
        return CLAIMS[VERDICT["BWT"]].judge(View.of(records))

    still = outcome(lambda _: 0.0)
    assert still.outcome == "supported" and still.effect.mean == 0.0
    once = outcome(lambda t: -1e-16 if t.learner == Packed(0.1) and t.seed == 1 else 0.0)
    assert once.outcome == "not supported"
    naive = outcome(lambda t: -0.3 if t.learner == FineTuned() else 0.0)
    assert naive.outcome == "supported"
    few = [one for one in made if one.trial.seed < 2]
    assert outcome(lambda _: 0.0, few).outcome == "inconclusive"


def test_without_records_every_claim_says_what_is_missing():
    for claim in CLAIMS:
        verdict = claim.judge(View([]))
        assert verdict.outcome == "inconclusive" and verdict.why


# ---------------------------------------------------------------------- what is seen


def test_the_page_shows_every_learner_and_stays_whole_with_holes():
    made = everything(3)
    records = [record(one, 0.5 + 0.01 * one.trial.seed) for one in made]
    sections = list(STUDY.sections(View.of(records)))
    titles = " ".join(section.title for section in sections)
    for words in ("after the last task", "All learners", "What each choice", "each task after"):
        assert words in titles
    assert "Capacity" in titles and "Overlap" in titles and "Not shown" not in titles
    matrices = next(one for one in sections if "each task after" in one.title)
    table = next(one for one in sections if one.title.startswith("All numbers")).table
    for name in LEARNERS:
        assert f">{name}<" in matrices.figure or name in matrices.figure
        assert any(row[0] == name for row in table.rows)
    naive = [record(one, 0.5) for one in made if name_of(one) == "naive"]
    for kept in (records[:1], naive, records[::5]):
        titles = [section.title for section in STUDY.sections(View.of(kept))]
        assert titles and not [title for title in titles if title.startswith("Not shown")]


def test_forward_transfer_is_against_the_dense_network_alone():
    chosen = [one for one in everything(3) if name_of(one) in ("independent", "PackNet")]
    records = [record(one, 0.8 if name_of(one) == "independent" else 0.7) for one in chosen]

    def told(records):
        sections = STUDY.sections(View.of(records))
        rows = next(one for one in sections if one.title.startswith("All numbers")).table.rows
        return {row[:2]: row[4] for row in rows}

    wanted = {("PackNet", f"{density}"): "−10.00 ± 0.00 (3)" for density in DENSITIES}
    assert told(records) == wanted | {("independent", "–"): "0.00 ± 0.00 (3)"}
    alone = [one for one in records if one.labels[0]["arm"] == "PackNet"]
    assert set(told(alone).values()) == {"–"}
