"""The study of hard samples: its trials, its shared scores, and how its rules decide."""

from __future__ import annotations

import json
import random as randoms
import subprocess
import sys
from dataclasses import fields, replace
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from markupsafe import escape

import regrow
from regrow.lab.attempt import attempt
from regrow.lab.design import Labelled, labels_by_identity
from regrow.lab.files import read_lines
from regrow.lab.records import Record, Records
from regrow.lab.run import METRICS, Run
from regrow.lab.view import View
from regrow.studies.hard_samples import ranking
from regrow.studies.hard_samples.attacks import Attack
from regrow.studies.hard_samples.corrupted import OneOfEach
from regrow.studies.hard_samples.design import (
    ALL,
    ARMS,
    ATTACKED,
    CORE,
    EXTRA,
    Task,
    hardest,
    random,
    severity,
)
from regrow.studies.hard_samples.ranking import SCORES, Ranking, scores_of
from regrow.studies.hard_samples.study import CLAIMS, STUDY
from regrow.studies.hard_samples.trial import HardSamples
from regrow.studies.supervised.classify import Classify
from regrow.vision.data import load_data
from regrow.vision.models import MODELS

CPU = {"device": "cpu"}
TIMED = ("train_seconds", "pretraining_seconds")
RANKING = Ranking(runs=2, epochs=2)
HALF = {"share": 0.5, "pick": "hardest", "ranking": RANKING}
TASK = Task(
    HardSamples(
        seed=0,
        method=regrow.Dense(),
        data="digits",
        model="mlp-24-16",
        epochs=3,
        batch=64,
        learning_rate=0.1,
    ),
    898,
    RANKING,
    Attack(steps=1, test_steps=2),
    equal_steps=True,
)


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def trial(**changes) -> HardSamples:
    setting = {
        "seed": 0,
        "data": "digits",
        "model": "mlp-24-16",
        "method": regrow.Static(density=0.3),
        "epochs": 3,
        "batch": 64,
        "learning_rate": 0.1,
    }
    return HardSamples(**setting | changes)


def run(what: Classify, folder: Path, **options):
    folder.mkdir(exist_ok=True, parents=True)
    found = what.run(Run(folder, CPU | options))
    return {name: value for name, value in found.items() if name not in TIMED}


# ---------------------------------------------------------------------- what a trial is equal to


def test_all_samples_unchanged_is_plain_training(tmp_path):
    whole = trial()
    plain = Classify(**{field.name: getattr(whole, field.name) for field in fields(Classify)})
    found = run(whole, tmp_path / "one")
    assert found.pop("train_samples") == sum(found.pop("class_counts")) == 898
    assert found == run(plain, tmp_path / "other")


def test_the_whole_share_is_everybody_however_picked(tmp_path):
    plain = run(trial(), tmp_path / "plain")
    for pick, by in (("hardest", RANKING), ("easiest", RANKING), ("random", None)):
        assert run(trial(share=1.0, pick=pick, ranking=by), tmp_path / pick) == plain


def test_no_step_of_attack_from_no_radius_is_plain_training(tmp_path):
    plain = run(trial(), tmp_path / "plain")
    found = run(trial(attack=Attack(radius=0.0, test_steps=0)), tmp_path / "attacked")
    assert found["robust_accuracy"] == found["accuracy"] == plain["accuracy"]
    assert found["loss"] == pytest.approx(plain["loss"], rel=1e-4)


def test_a_share_has_exactly_its_samples_and_none_for_validation(tmp_path):
    found = run(trial(**HALF, validation=0.2), tmp_path)
    assert found["train_samples"] == round(0.5 * round(0.8 * 898)) == sum(found["class_counts"])
    balanced = run(trial(**HALF, balanced=True), tmp_path / "balanced")["class_counts"]
    assert max(balanced) - min(balanced) <= 3


def test_the_hardest_are_harder_than_the_easiest(tmp_path):
    losses = [
        run(trial(**HALF | {"pick": pick}, epochs=8), tmp_path / pick)["loss"]
        for pick in ("hardest", "easiest")
    ]
    assert losses[0] > 1.3 * losses[1]


# ---------------------------------------------------------------------- topologies


def test_snip_ratios_have_snips_layer_densities_and_other_masks(tmp_path):
    runs = {name: run(trial(chosen=name), tmp_path / name) for name in ("SNIP", "SNIP ratios")}
    one, other = runs.values()
    assert one["densities"] == other["densities"] != run(trial(), tmp_path / "erk")["densities"]
    assert one["loss"] != other["loss"]
    assert one["density"] == pytest.approx(0.3, abs=0.001)


def test_a_ticket_and_a_pruned_network_share_their_mask_and_differ_in_weights(tmp_path):
    dense = run(trial(method=regrow.Dense()), tmp_path / "dense")
    saved = {}
    for name in ("LTH", "OMP"):
        found = run(trial(chosen=name, epochs=3), tmp_path / name, keep_weights=True)
        weights = torch.load(tmp_path / name / "weights.pt", weights_only=True)
        saved[name] = found, weights["model"]
        assert found["pretraining_flops"] == dense["training_flops"] > found["training_flops"]
        assert not (tmp_path / name / "pretraining").exists()
    (ticket, first), (pruned, second) = saved.values()
    assert ticket["densities"] == pruned["densities"]
    names = [name for name in first if name in ticket["densities"]]
    assert names
    for name in names:
        assert first[name].ne(0).equal(second[name].ne(0))
    assert pruned["loss"] < ticket["loss"]  # it goes on from where the dense network was


def test_the_dense_network_before_is_kept_through_a_kill(tmp_path, monkeypatch):
    whole = run(trial(chosen="OMP"), tmp_path / "whole")

    class CutOff(Exception):
        pass

    class Cut(Run):
        def log(self, **values):
            super().log(**values)
            if values["epoch"] == 2:
                raise CutOff

    (tmp_path / "cut").mkdir()
    with pytest.raises(CutOff):
        trial(chosen="OMP").run(Cut(tmp_path / "cut", CPU, save_every=0.0))
    trained = []
    monkeypatch.setattr(HardSamples, "describe", lambda self, _: trained.append(self.method) or "")
    assert run(trial(chosen="OMP"), tmp_path / "cut") == whole
    assert trained == [regrow.Static(density=0.3)]  # no dense network a second time
    assert [line["epoch"] for line in read_lines(tmp_path / "cut" / METRICS)] == [1, 2, 3]


# ---------------------------------------------------------------------- corrupted and attacked


@pytest.mark.parametrize(
    "changes",
    [
        HALF,
        {"severity": 3},
        {"attack": Attack(steps=2, test_steps=1)},
        {"chosen": "SNIP"},
        {"method": regrow.SET(density=0.3, update_every=3)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_run_that_was_cut_off_goes_on_bit_for_bit(tmp_path, changes):
    class CutOff(Exception):
        pass

    class Cut(Run):
        def log(self, **values):
            super().log(**values)
            if values["epoch"] == 2:
                raise CutOff

    whole = run(trial(**changes), tmp_path / "whole")
    (tmp_path / "cut").mkdir()
    with pytest.raises(CutOff):
        trial(**changes).run(Cut(tmp_path / "cut", CPU, save_every=0.0))
    torch.manual_seed(7)
    assert run(trial(**changes), tmp_path / "cut") == whole


def test_every_image_is_corrupted_alike_for_all_seeds():
    data = load_data("digits")
    device = torch.device("cpu")
    one, again, other = (OneOfEach(n)(data, device) for n in (5, 5, 2))
    assert one.train_inputs.equal(again.train_inputs)
    assert not one.train_inputs.equal(other.train_inputs)
    assert one.train_labels is data.train_labels
    changed = (one.train_inputs != data.train_inputs).flatten(1).any(1)
    assert changed.float().mean() > 0.9

    def far(corrupted):
        return (corrupted.test_inputs.float() - data.test_inputs.float()).abs().mean()

    assert far(one) > 1.2 * far(other)


def test_corruption_and_attack_take_their_toll(tmp_path):
    plain = run(trial(epochs=8, method=regrow.Dense()), tmp_path / "plain")
    hit = run(trial(epochs=8, method=regrow.Dense(), severity=5), tmp_path / "hit")
    assert hit["accuracy"] < plain["accuracy"] - 0.03
    assert hit["accuracy"] < hit["clean_accuracy"]
    strong = Attack(radius=0.2, step=0.05, steps=3)
    met = run(trial(epochs=8, method=regrow.Dense(), attack=strong), tmp_path / "met")
    assert met["robust_accuracy"] < met["accuracy"] - 0.05
    assert met["attack_flops"] == pytest.approx(3 * 0.75 * met["training_flops"], rel=0.2)
    never = run(
        trial(epochs=8, method=regrow.Dense(), attack=replace(strong, steps=0, radius=0.0)),
        tmp_path / "never",
    )
    assert never["attack_flops"] == 0


def test_training_on_attacked_images_pays_under_attack(tmp_path):
    attack = Attack(radius=0.3, step=0.1, steps=4, test_steps=10)
    trained = run(trial(epochs=12, method=regrow.Dense(), attack=attack), tmp_path / "trained")
    free = replace(attack, steps=0)  # starts within the radius only
    loose = run(trial(epochs=12, method=regrow.Dense(), attack=free), tmp_path / "loose")
    assert trained["robust_accuracy"] > loose["robust_accuracy"] + 0.02


# ---------------------------------------------------------------------- scores for all trials


@pytest.mark.parametrize("score", SCORES)
def test_every_score_is_found_again_in_the_cache(tmp_path, monkeypatch, score):
    by = replace(RANKING, score=score)
    here = Run(tmp_path, CPU)
    found = scores_of(by, trial(), here, None)
    assert found.shape == (898,) and found.isfinite().all() and found.std() > 0
    monkeypatch.setattr(ranking, "_computed", lambda *_: pytest.fail("computed again"))
    assert scores_of(by, trial(seed=3, epochs=9), here, None).equal(found)
    assert len(list((tmp_path / "cache" / "regrow" / "hardness").glob("digits-*"))) == by.runs


def test_samples_are_ranked_alike_whatever_share_is_learnt(tmp_path):
    here = Run(tmp_path, CPU)
    short = scores_of(RANKING, trial(epochs=4, warmup=1.0), here, None)
    assert scores_of(RANKING, trial(epochs=8, warmup=2.0), here, None).equal(short)


def test_scores_depend_on_what_decides_them(tmp_path):
    here = Run(tmp_path, CPU)
    first = scores_of(RANKING, trial(), here, None)
    others = [
        (replace(RANKING, seed=5), trial(), None),
        (replace(RANKING, epochs=3), trial(), None),
        (RANKING, trial(learning_rate=0.2), None),
        (RANKING, trial(model="mlp-20"), None),
        (RANKING, trial(warmup=1.0), None),
        (RANKING, trial(), OneOfEach(5)),
    ]
    for by, setting, change in others:
        assert not scores_of(by, setting, here, change).equal(first)
    more = scores_of(replace(RANKING, runs=3), trial(), here, None)
    last = scores_of(Ranking(runs=1, epochs=2, seed=1002), trial(), here, None)
    assert torch.allclose(more, (2 * first + last) / 3)


def test_damaged_scores_are_computed_again(tmp_path):
    here = Run(tmp_path, CPU)
    first = scores_of(RANKING, trial(), here, None)
    for path in (tmp_path / "cache" / "regrow" / "hardness").rglob("scores.npy"):
        path.write_bytes(path.read_bytes()[:-9])
    assert scores_of(RANKING, trial(), here, None).equal(first)


def test_where_nothing_can_be_written_scores_are_computed_each_time(tmp_path, monkeypatch):
    first = scores_of(RANKING, trial(), Run(tmp_path, CPU), None)
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert scores_of(RANKING, trial(), Run(tmp_path, CPU), None).equal(first)


def _score_in_process(folder: str, results) -> None:
    torch.set_num_threads(1)
    computed = []
    real = ranking._computed
    ranking._computed = lambda *given: computed.append(1) or real(*given)
    by = Ranking(runs=3, epochs=2)
    found = scores_of(by, trial(), Run(Path(folder), CPU), None)
    results.put((float(found.sum()), len(computed)))


def test_two_processes_compute_each_run_once(tmp_path):
    context = get_context("fork")
    results = context.Queue()
    workers = [
        context.Process(target=_score_in_process, args=(str(tmp_path), results)) for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    assert sum(count for _, count in found) == 3  # runs of the ensemble, over both processes
    assert found[0][0] == found[1][0]


def test_several_ranks_take_scores_from_the_cache_only(tmp_path, monkeypatch):
    first = scores_of(RANKING, trial(), Run(tmp_path, CPU), None)
    monkeypatch.setattr(ranking, "rank_and_ranks", lambda: (0, 2))
    assert scores_of(RANKING, trial(), Run(tmp_path, CPU), None).equal(first)
    with pytest.raises(ValueError, match="samples are scored on one rank, and these are 2"):
        scores_of(replace(RANKING, seed=7), trial(), Run(tmp_path, CPU), None)


# ---------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"share": 0.0}, r"share=0.0: must be above 0"),
        ({"pick": "hardest"}, r"the hardest and the easiest need a ranking"),
        ({"ranking": RANKING}, r"a random share has none"),
        ({**HALF, "pick": "worst"}, r"pick='worst': must be"),
        ({**HALF, "seed": 1001}, r"seed=1001: runs of the ranking have range\(1000, 1002\)"),
        ({"severity": 6}, r"severity=6: must lie in 0..5"),
        ({"chosen": "snip"}, r"chosen='snip': must be one of at random, SNIP"),
        ({"chosen": "LTH", "method": regrow.Dense()}, r"give method=Static"),
        ({"share": 0.01}, r"batch=64: data=.digits. has 9 samples to train on: take a smaller one"),
        ({"data": "imagenet", "severity": 1}, r"data='imagenet' is read as it is"),
    ],
    ids=str,
)
def test_errors_name_the_argument_and_what_is_allowed(tmp_path, changes, said):
    with pytest.raises(ValueError, match=said):
        trial(**changes).run(Run(tmp_path, CPU))


def test_a_ranking_is_checked():
    with pytest.raises(ValueError, match="score='el3n': must be one of el2n, loss"):
        Ranking(score="el3n")
    with pytest.raises(ValueError, match="runs=0: must be at least 1"):
        Ranking(runs=0)


# ---------------------------------------------------------------------- what is run


def record(one: Labelled, accuracy: float, **more: object) -> Record:
    result = {"accuracy": accuracy, "train_samples": 1, "class_counts": [1], "densities": {}}
    content = json.loads(json.dumps(one.trial.content))
    identity = one.trial.identity
    return Record(identity, content, result | more, {}, Path(), labels=[one.labels])


def only(trials):
    (one,) = trials
    return one.trial


def test_every_cell_is_there_once():
    trials = list(TASK.trials(2, [hardest(0.5), random(0.5)], (0.5, 0.1)))
    assert len({one.trial.identity for one in trials}) == len(trials) == 2 * 2 * (1 + 4 * 2)
    assert len({json.dumps([one.labels, one.trial.seed]) for one in trials}) == len(trials)


def test_shares_have_equal_steps_or_equal_epochs():
    for task, epochs in ((TASK, 15), (replace(TASK, equal_steps=False), 3)):
        assert only(task.trials(1, [random(0.2)], (0.1,), ["SET"])).epochs == epochs


def test_a_share_warms_up_for_as_much_of_its_run():
    task = replace(TASK, base=replace(TASK.base, epochs=8, warmup=1.0))
    for one in (task, replace(task, equal_steps=False)):
        for condition in (ALL, random(0.5), hardest(0.3)):
            trial_of = only(one.trials(1, [condition], (0.1,), ["SET"]))
            assert trial_of.warmup / trial_of.epochs == pytest.approx(1 / 8)


def test_topologies_move_fifty_times():
    task = Task(replace(TASK.base, data="cifar10", model="resnet18", epochs=200, batch=128), 50_000)
    for share in (1.0, 0.3):
        one = only(task.trials(1, [random(share)], (0.1,), ["SET"]))
        steps = one.epochs * (round(share * 50_000) // one.batch)
        assert 50 <= steps // one.method.update_every <= 51
        assert one.method.drop_fraction(0.0) == 0.2 and one.method.drop_fraction(1.0) == 0.001


@pytest.mark.parametrize("preset", ["smoke", "quick", "paper"])
def test_presets_have_controls_and_refuse_other_data(preset):
    trials = STUDY.trials(preset)
    assert len({one.trial.identity for one in trials}) == len(trials)
    assert {one.trial.seed for one in trials} >= {0, 1, 2}
    arms: dict[str, set[str]] = {}
    for labels, _ in trials:
        arms.setdefault(labels["condition"], set()).add(labels["arm"])
    assert all(there >= set(CORE) for there in arms.values())
    assert arms[str(hardest(0.5))] == {*CORE, *EXTRA} == set(ARMS)
    assert {str(random(0.5)), str(ATTACKED)} <= arms.keys()
    with pytest.raises(ValueError, match="data='mnist': this preset knows"):
        STUDY.trials(preset, "mnist")


def test_the_quick_presets_runs_are_as_long():
    for data, train in (("fashion-mnist", 60_000), ("cifar10", 50_000)):
        for _, one in STUDY.trials("quick", data):
            assert 380_000 <= one.epochs * one.share * train <= 500_000
            assert one.model in MODELS or one.model.startswith("mlp-")


# ---------------------------------------------------------------------- how rules decide

QUICK = [
    *TASK.trials(3, [hardest(0.5), random(0.5), random(0.2)], (0.5, 0.2, 0.1)),
    *TASK.trials(3, [severity(2), severity(5)], (0.5, 0.1)),
    *TASK.trials(3, [hardest(0.5)], (0.1,), EXTRA),
    *TASK.trials(3, [ATTACKED], (0.1,)),
]
NAMES = (
    *("match", "sparsest", "few", "sparser", "dense enough", "severe", "clean", "robust"),
    *("layers", "trained", "pruning", "moving", "size", "hard"),
)


def judged(name: str, accuracy_of, trials=QUICK):
    """Judge a claim by records whose accuracies a function gives, with a little noise by seed."""
    records = []
    for one in trials:
        noise = randoms.Random(one.trial.identity).uniform(-0.0005, 0.0005) + 0.01 * one.trial.seed
        labels = {"density": 1.0} | one.labels
        accuracy = accuracy_of(labels["arm"], labels["density"], one.trial) + noise
        records.append(record(one, accuracy, robust_accuracy=accuracy - 0.2))
    return CLAIMS[NAMES.index(name)].judge(View.of(records)).outcome


def level(method, density, trial):
    """Give every method the same accuracy."""
    return 0.7


def sparse(method):
    return method in ("SET", "SNIP ratios")


YES, NO = "supported", "not supported"


@pytest.mark.parametrize(
    ("name", "gain", "outcome"),
    [
        ("match", lambda m, d, c: 0.0, YES),
        ("match", lambda m, d, c: -0.02 * (m == "SET"), NO),
        ("match", lambda m, d, c: -0.02 * (m == "RigL"), YES),
        ("sparsest", lambda m, d, c: 0.02 * sparse(m) * (d == 0.1), YES),
        ("sparsest", lambda m, d, c: 0.02 * sparse(m) * (d == 0.5), "inconclusive"),
        ("few", lambda m, d, c: 0.02 * sparse(m), YES),
        ("few", lambda m, d, c: 0.02 * (m == "SET") - 0.02 * (m == "SNIP ratios"), NO),
        ("sparser", lambda m, d, c: 0.01 * sparse(m) / d, YES),
        ("sparser", lambda m, d, c: 0.1 * sparse(m) * d, NO),
        ("dense enough", lambda m, d, c: 0.1 * sparse(m) * d, YES),
        ("severe", lambda m, d, c: 0.01 * c.severity * sparse(m), YES),
        ("severe", lambda m, d, c: -0.01 * c.severity * sparse(m), NO),
        ("clean", lambda m, d, c: 0.0, YES),
        ("clean", lambda m, d, c: 0.03 * sparse(m), NO),
        ("robust", lambda m, d, c: 0.03 * sparse(m), YES),
        ("robust", lambda m, d, c: -0.03 * sparse(m), NO),
        ("layers", lambda m, d, c: -0.03 * (m == "static uniform"), YES),
        ("trained", lambda m, d, c: -0.03 * (m == "LTH"), YES),
        ("pruning", lambda m, d, c: 0.03 * (m == "OMP"), YES),
        ("pruning", lambda m, d, c: 0.03 * (m in ("OMP", "dense twice")), "inconclusive"),
        ("pruning", lambda m, d, c: 0.03 * (m == "dense twice"), NO),
        ("moving", lambda m, d, c: 0.03 * (m == "SET"), YES),
        ("moving", lambda m, d, c: 0.03 * (m == "static ERK"), NO),
        ("size", lambda m, d, c: -0.03 * (m == "small dense"), YES),
        ("hard", lambda m, d, c: 0.03 * sparse(m) * (c.pick == "hardest"), YES),
        ("hard", lambda m, d, c: 0.03 * sparse(m) * (c.pick != "hardest"), NO),
    ],
)
def test_rules(name, gain, outcome):
    assert judged(name, lambda *cell: level(*cell) + gain(*cell)) == outcome


def test_two_seeds_and_none_decide_nothing():
    few = [one for one in QUICK if one.trial.seed < 2]
    assert all(judged(name, level, few) == "inconclusive" for name in NAMES)
    for claim in CLAIMS:
        verdict = claim.judge(View([]))
        assert verdict.outcome == "inconclusive" and verdict.why


def test_models_weigh_the_same_and_tasks_are_told_apart():
    other = replace(TASK, base=replace(TASK.base, model="mlp-30"))
    both = [*QUICK, *other.trials(5, [hardest(0.5)], (0.5, 0.2, 0.1))]
    assert View.of([record(one, 0.5) for one in both]).axis("task") == [
        "MLP 24-16 on digits",
        "MLP 30 on digits",
    ]

    def by_model(one):
        return 0.7 + (0.04 if one.model == "mlp-30" else -0.02) * (one.method.name == "SET")

    records = [record(one, by_model(one.trial) + 1e-4 * one.trial.seed) for one in both]
    verdict = CLAIMS[NAMES.index("size")].judge(View.of(records))
    assert verdict.effect.mean == pytest.approx(1.0) and verdict.effect.n == 3


# ---------------------------------------------------------------------- that it runs


def test_a_part_of_the_smoke_preset_runs_and_makes_a_page(tmp_path):
    parts = [
        *TASK.trials(1, [hardest(0.5)], (0.5,), (*CORE, *EXTRA)),
        *TASK.trials(1, [severity(2), ATTACKED, random(0.5)], (0.5,), ("dense", "small dense")),
        *TASK.trials(1, [severity(5), severity(2), ATTACKED], (0.5,), ("SET",)),
    ]
    for one in parts:
        outcome = attempt(one.trial, tmp_path, CPU)
        assert outcome.status == "finished", outcome.error
    records = Records.read(tmp_path).labelled(labels_by_identity(parts))
    assert len(records) == len(parts)
    for one in records:
        assert one.get("inference_flops") <= one.get("dense_inference_flops")
        (labels,) = one.labels
        assert (one.get("pretraining_flops") is not None) == (
            labels["arm"] in ("LTH", "OMP", "dense twice")
        )
    titles = [section.title for section in STUDY.sections(View.of(records))]
    assert not [title for title in titles if title.startswith("Not shown")]
    assert any(title.startswith("Density of each layer") for title in titles)
    assert any(title.startswith("Adversarial training") for title in titles)


@pytest.mark.long
def test_the_smoke_preset_ends_with_a_page(tmp_path):
    command = [sys.executable, "-m", "regrow", "study", "run", "hard-samples"]
    command += ["--preset", "smoke", "--device", "cpu", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=290, check=False)
    assert done.returncode == 0, done.stderr
    assert "0 failed, 0 were finished before" in done.stdout
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    for claim in CLAIMS:
        assert str(escape(claim.sentence)) in page and claim.sentence in done.stdout
    assert page.count("<svg") >= 5 and "not run yet" not in page
