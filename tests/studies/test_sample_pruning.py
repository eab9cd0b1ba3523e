"""The study of samples: what it runs, what its data are, how its rules decide."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import regrow
from regrow.lab.records import Record, Records
from regrow.lab.run import Run
from regrow.lab.study import Preset
from regrow.lab.study_run import run_study
from regrow.lab.view import View
from regrow.samples import Cyclic, Hard, InfoBatch, RootLoss
from regrow.studies.sample_pruning.batches import changed_index, wrong_labels
from regrow.studies.sample_pruning.design import (
    ARMS,
    BY_HEART,
    CONDITIONS,
    CORE,
    FIRST,
    KEEPS,
    SPARED,
)
from regrow.studies.sample_pruning.nested import CANDIDATES, nested
from regrow.studies.sample_pruning.study import CLAIMS, STUDY
from regrow.studies.sample_pruning.trial import PruneSamples

NAMES = (
    *("ours", "wrong", "by heart", "guard", "nested", "apart", "weights"),
    *("InfoBatch lossless", "SeTa lossless", "cyclic lossless", "InfoBatch", "SeTa"),
    *("dynamic", "bandits", "curriculum", "hard", "without replacement"),
)
TRIALS = STUDY.trials("quick", "fashion-mnist")
OPTIONS = {"data_dir": None, "device": "cpu"}


def digits(**fields):
    common = {"data": "digits", "model": "mlp-20", "epochs": 3, "batch": 32, "seed": 0}
    own = {"criterion": RootLoss(), "keep": 0.5, "method": regrow.Dense(), "augment": False}
    return PruneSamples(**common | own | fields)


def fresh(folder, name, kind=Run, **more):
    (folder / name).mkdir(exist_ok=True)
    return kind(folder / name, OPTIONS, **more)


# ---------------------------------------------------------------------- design


@pytest.mark.parametrize(
    ("preset", "data"),
    [
        ("smoke", "digits"),
        *(("quick", data) for data in ("fashion-mnist", "spoken-digits", "wordnet", "cifar10")),
    ],
)
def test_every_cell_is_there_once_with_its_base(preset, data):
    trials = STUDY.trials(preset, data)
    assert len({one.trial.identity for one in trials}) == len(trials)
    bases = {
        (at["task"], at["condition"], at["keep"], trial.seed)
        for at, trial in trials
        if at["arm"] == "cyclic"
    }
    for labels, trial in trials:
        assert labels["arm"] in {*ARMS, *SPARED}
        if labels["arm"] != "full":
            assert (labels["task"], labels["condition"], labels["keep"], trial.seed) in bases


def test_all_shares_are_run_by_all_arms_and_all_conditions_by_the_core():
    found = {(at["arm"], at["condition"], at["keep"]) for at, _ in TRIALS if "keep" in at}
    for arm in {*ARMS} - {"full", "InfoBatch raw"}:
        asked = (*CONDITIONS, BY_HEART) if arm in CORE else ("clean",)
        assert {(arm, c, k) for c in asked for k in KEEPS} <= found
    assert {k for arm, _, k in found if arm == "InfoBatch raw"} == {0.7}


# ---------------------------------------------------------------------- data


@pytest.mark.parametrize("seed", [0, 1])
def test_copies_are_of_few_and_come_last(seed):
    labels = torch.arange(10).repeat(50)
    index = changed_index(labels, "copies", seed)
    assert len(index) == 500
    own, copies = index[:350], index[350:]
    assert len(own.unique()) == 350
    assert set(copies.tolist()) <= set(own.tolist())
    assert len(copies.unique()) <= 17


def test_imbalanced_classes_are_in_another_order_for_another_seed():
    labels = torch.arange(10).repeat(100)
    counts = [labels[changed_index(labels, "imbalanced", s)].bincount().tolist() for s in range(3)]
    assert all(max(c) == 20 * min(c) for c in counts)
    assert len({tuple(c) for c in counts}) == 3


def test_a_fifth_of_each_class_is_wrong():
    labels = torch.arange(5).repeat(40)
    changed, wrong = wrong_labels(labels, 5, seed=0)
    assert labels[wrong].bincount().tolist() == [8] * 5
    assert changed[~wrong].equal(labels[~wrong])
    assert (changed[wrong] != labels[wrong]).all()
    assert ((changed >= 0) & (changed < 5)).all()


# ---------------------------------------------------------------------- trial


def test_copies_are_learnt_in_place_of_what_was_left_out(tmp_path):
    """As many as there were, which once passed for all of them."""
    trainer = digits(criterion=Cyclic(), condition="copies").start(Run(tmp_path, OPTIONS))
    batches = trainer.source.batches
    own = round(0.7 * len(batches.inputs))
    assert len(batches.inputs.unique(dim=0)) <= own
    few = batches.inputs[own:].unique(dim=0)
    assert len(few) <= own // 20
    rows = {tuple(row.ravel().tolist()) for row in batches.inputs[:own]}
    assert {tuple(row.ravel().tolist()) for row in few} <= rows


@pytest.mark.parametrize("condition", CONDITIONS)
def test_all_choices_take_as_many_steps(tmp_path, condition):
    steps = set()
    for number, (criterion, spared) in enumerate(
        [(Cyclic(), False), (RootLoss(), False), (InfoBatch(), False), (Cyclic(), True)]
    ):
        trial = digits(criterion=criterion, condition=condition, spared=spared)
        found = trial.run(fresh(tmp_path, str(number)))
        steps.add(found["steps"])
        assert ("visits" in found) == (condition in ("copies", "wrong"))
        if spared and "visits" in found:
            assert found["visits"] == 0
    assert len(steps) == 1
    (one,) = steps
    assert one == 3 * (round(0.5 * found["train_samples"]) // 32)


def test_full_data_learn_each_sample_in_each_epoch(tmp_path):
    trial = digits(criterion=Cyclic(), keep=1.0)
    found = trial.run(Run(tmp_path, OPTIONS))
    assert found["never_seen"] <= 31 / found["train_samples"]
    assert found["drift"] == 0


def test_hard_samples_are_chosen_once_losses_are_known(tmp_path):
    trial = digits(criterion=Hard(), condition="wrong", epochs=8)
    assert trial.run(Run(tmp_path, OPTIONS))["visits"] > 1.2


@pytest.mark.parametrize("criterion", [RootLoss(), InfoBatch(), Cyclic()])
def test_a_trial_that_was_stopped_goes_on_bit_for_bit(tmp_path, criterion):
    class Stopped(Exception):
        pass

    class Stopping(Run):
        def log(self, **values):
            super().log(**values)
            if values["epoch"] == 3:
                raise Stopped

    trial = digits(criterion=criterion, epochs=5)
    whole = trial.run(fresh(tmp_path, "whole"))
    with pytest.raises(Stopped):
        trial.run(fresh(tmp_path, "part", Stopping, save_every=0))
    again = trial.run(fresh(tmp_path, "part", save_every=0))
    for name in ("accuracy", "loss", "train_accuracy", "never_seen", "drift"):
        assert again[name] == whole[name], name


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"keep": 0.0}, "keep=0.0"),
        ({"keep": 1.5}, "keep=1.5"),
        ({"condition": "noisy"}, "condition='noisy'"),
    ],
)
def test_what_does_not_fit_is_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        digits(**fields)


def test_the_criterion_is_part_of_what_a_trial_is():
    one, other = digits(criterion=RootLoss()), digits(criterion=RootLoss(guard=False))
    assert one.identity != other.identity
    assert one.content["criterion"] == {"kind": "RootLoss", "guard": "sure", "weighted": False}
    assert replace(one, keep=0.7).identity != one.identity


def test_records_of_the_first_guard_are_told_from_those_of_today():
    """Trials that were run when the guard was a flag keep what they are, under a name of theirs."""
    first, today = digits(criterion=RootLoss(guard=True)), digits(criterion=RootLoss())
    assert first.content["criterion"] == {"kind": "RootLoss", "guard": True, "weighted": False}
    arms = {name: digits(**arm(keep=0.5)).identity for name, arm in ARMS.items() if name != "full"}
    assert arms["ours"] == today.identity
    assert arms[FIRST] == first.identity
    assert len(set(arms.values())) == len(arms)


# ---------------------------------------------------------------------- rules


def records_of(gain, validated=None, trials=TRIALS):
    records = []
    for labels, trial in trials:
        noise = random.Random(trial.identity).uniform(-0.0002, 0.0002) + 0.01 * trial.seed
        tested, kept = gain(labels), (validated or gain)(labels)
        result = {"accuracy": 0.7 + tested + noise, "validation_accuracy": 0.7 + kept + noise}
        content = json.loads(json.dumps(trial.content))
        records.append(Record(trial.identity, content, result, {}, Path(), labels=[labels]))
    return View.of(records)


def judged(name, gain):
    trials = TRIALS + STUDY.trials("quick", "wordnet") if name == "apart" else TRIALS
    return CLAIMS[NAMES.index(name)].judge(records_of(gain, trials=trials)).outcome


def when(arm, amount, *conditions):
    return lambda at: (
        amount * (at["arm"] == arm and (not conditions or at["condition"] in conditions))
    )


YES, NO, OPEN = "supported", "not supported", "inconclusive"


@pytest.mark.parametrize(
    ("name", "gain", "outcome"),
    [
        ("ours", when("ours", 0.01), YES),
        ("ours", when("ours", -0.01, "copies"), NO),
        ("ours", when("ours", 0.01, "clean", "copies"), OPEN),
        ("wrong", when("ours", 0.0), YES),
        ("wrong", when("ours", -0.01, "wrong"), NO),
        ("by heart", when("ours", 0.01, BY_HEART), YES),
        ("by heart", when("ours", 0.01, "wrong"), OPEN),
        ("by heart", when("ours", -0.01, BY_HEART), NO),
        ("guard", when("ours, no guard", -0.01, BY_HEART), YES),
        ("guard", when("ours, no guard", 0.01, BY_HEART), NO),
        ("nested", when("ours", 0.01), YES),
        ("nested", lambda at: -0.01 * (at["arm"] != "cyclic"), OPEN),
        ("apart", when("ours", 0.01), YES),
        ("apart", when("ours", -0.01, "clean"), OPEN),
        ("weights", when(FIRST, 0.01), YES),
        ("weights", when("ours, weighted", 0.01), NO),
        ("InfoBatch lossless", when("full", 0.001), YES),
        ("InfoBatch lossless", when("full", 0.01), NO),
        ("InfoBatch lossless", when("InfoBatch raw", -0.01), NO),
        ("SeTa lossless", when("SeTa", 0.01), YES),
        ("SeTa lossless", when("SeTa", -0.01), NO),
        ("cyclic lossless", when("cyclic", 0.0), YES),
        ("cyclic lossless", when("full", 0.01), NO),
        ("InfoBatch", when("InfoBatch", 0.01), YES),
        ("InfoBatch", when("cyclic", 0.01), NO),
        ("SeTa", when("SeTa", 0.01), YES),
        ("SeTa", when("SeTa", -0.01), NO),
        ("dynamic", when("random once", -0.01), YES),
        ("dynamic", when("random once", 0.01), NO),
        ("bandits", lambda at: 0.01 * (at["arm"] in ("UCB", "epsilon-greedy")), YES),
        ("bandits", when("UCB", 0.01), OPEN),
        ("bandits", when("random", 0.01), NO),
        ("curriculum", when("easy to hard", 0.0), YES),
        ("curriculum", when("easy to hard", -0.01), NO),
        ("hard", when("hard", -0.01, "wrong"), YES),
        ("hard", when("hard", 0.01), NO),
        ("without replacement", when("random", -0.01), YES),
        ("without replacement", when("random", 0.01), NO),
    ],
)
def test_rules(name, gain, outcome):
    assert judged(name, gain) == outcome


def test_a_criterion_is_picked_by_the_validation_samples_of_the_other_conditions():
    def validated(at):  # UCB is best on clean data only, and so much that it leads on average
        return 0.1 * (at["arm"] == "UCB" and at["condition"] == "clean") + 0.01 * (
            at["arm"] == "ours"
        )

    tested = when("ours", -0.02, "clean")
    picked = {one.cell[1]: one for one in nested(records_of(tested, validated))}
    assert picked.keys() == {*CONDITIONS, BY_HEART}
    assert {c: one.arm for c, one in picked.items()} == {
        c: "ours" if c == "clean" else "UCB" for c in picked
    }
    assert picked["clean"].elsewhere == pytest.approx(1, abs=0.05)
    assert all(gain == pytest.approx(-2, abs=0.05) for gain in picked["clean"].gains.values())


def test_apart_no_condition_of_the_tested_data_set_is_picked_by():
    texts = STUDY.trials("quick", "wordnet")
    task = texts[0].labels["task"]

    def best(at):  # UCB on texts, ours by less on pictures
        own = 0.05 * (at["arm"] == "UCB") if at["task"] == task else 0.01 * (at["arm"] == "ours")
        return own - 0.02 * (at["arm"] == "ours" and at["task"] == task)

    view = records_of(best, trials=TRIALS + texts)
    assert {one.arm for one in nested(view)} == {"UCB"}
    apart = {one.cell[0]: one.arm for one in nested(view, apart=True)}
    assert apart.pop(task) == "ours" and set(apart.values()) == {"UCB"}
    lost = [one for one in nested(view, apart=True) if one.cell[0] == task]
    assert all(gain == pytest.approx(-2, abs=0.05) for one in lost for gain in one.gains.values())
    with pytest.raises(ValueError, match="two data sets are needed"):
        nested(records_of(best), apart=True)


def test_choice_at_random_is_picked_where_nothing_beats_it():
    lost = records_of(lambda at: -0.01 * (at["arm"] != "cyclic"))
    assert {one.arm for one in nested(lost)} == {"cyclic"}
    assert all(set(one.gains.values()) == {0.0} for one in nested(lost))


def test_only_what_was_run_everywhere_can_be_picked():
    view = records_of(when("ours", 0.01))
    rows = [r for r in view.rows if (r[0]["arm"], r[0]["condition"]) != ("ours", "copies")]
    assert "ours" not in {one.arm for one in nested(View(rows))}
    with pytest.raises(ValueError, match="nothing to pick by"):
        nested(View(rows).where(condition="clean"))
    assert {"cyclic", "ours", "InfoBatch", "SeTa"} <= {*CANDIDATES}


def test_every_claim_is_named_here():
    assert len(NAMES) == len(CLAIMS)


@pytest.mark.parametrize("epochs", [1, pytest.param(None, marks=pytest.mark.long)])
def test_the_smoke_preset_ends_with_a_page(tmp_path, epochs):
    made = STUDY.trials("smoke")
    if epochs:
        made = [one._replace(trial=replace(one.trial, epochs=epochs)) for one in made]
    short = replace(STUDY, presets={"smoke": Preset("seconds", {"digits": lambda: made})})
    ended = run_study(short, "smoke", tmp_path, options=OPTIONS, jobs=1)
    assert len(ended.finished) == len(made) and not ended.failed
    view = View.of(Records.read(tmp_path))
    sections = STUDY.sections(view)
    assert not [one for one in sections if one.title.startswith("Not shown")]
    assert sum(one.figure is not None for one in sections) == 3
    assert not [c.sentence for c in CLAIMS if "no records" in c.judge(view).why]
