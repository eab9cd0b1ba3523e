"""Utterances chosen by losses: lengths are kept by label and shifted by sums; nothing is lost."""

import json

import pytest
import torch

import regrow
from regrow.lab.files import read_lines
from regrow.lab.run import METRICS, Run
from regrow.samples import Easy, Hard, InfoBatch, Random, Samples
from regrow.speech.choice import BySamples
from regrow.speech.data import Learnt
from regrow.speech.features import Features
from regrow.speech.heard import TRAINED
from regrow.speech.recogniser import Heard
from regrow.studies.speech.recognise import Recognise
from regrow.training.batch import Batch
from tests.speech.beeps import corpus


def learnt(n=400):
    draw = torch.Generator().manual_seed(0)
    labels = torch.randint(2, 40, (n,), generator=draw)
    lengths = labels * 12 + torch.randint(0, 9, (n,), generator=draw)
    none = torch.zeros(0, 80)
    return Learnt(
        (None,) * n,
        Features.of((none, lengths)),
        ("",) * n,
        labels=torch.zeros(n, 40),
        label_lengths=labels,
    )


def mean_length_kept(score):
    part = learnt()
    n = len(part.utterances)
    choice = BySamples(Samples(n, Hard(), 0.5, epochs=3, warmup=1), part, score)
    choice.chosen(0)
    draw = torch.Generator().manual_seed(1)
    choice.update(torch.arange(n), torch.rand(n, generator=draw))  # by label: no bias
    choice.finish()
    ids = choice.chosen(1)
    assert len(ids) == choice.count(1) == n // 2
    lengths = part.features.lengths.double()
    return float(lengths[ids].mean() / lengths.mean())


def test_losses_by_label_keep_the_lengths_and_sums_shift_them():
    assert mean_length_kept("label") == pytest.approx(1.0, abs=0.07)
    assert mean_length_kept("step") == pytest.approx(1.0, abs=0.15)
    assert mean_length_kept("sum") > 1.2


def test_last_scores_are_known_and_missing_ones_are_not_zero():
    part = learnt(6)
    choice = BySamples(Samples(6, Random(), 0.5), part, "sum")
    choice.chosen(0)
    choice.update(torch.tensor([2, 5]), torch.tensor([0.5, 1.0]))
    wanted = torch.tensor([0.5, 1.0]) * part.label_lengths[[2, 5]]
    torch.testing.assert_close(choice.losses[[2, 5]], wanted)
    assert choice.losses[[0, 1, 3, 4]].isnan().all() and choice.seen.tolist() == [0, 0, 1, 0, 0, 1]


def test_what_cannot_be_aligned_has_no_loss_and_is_not_the_easiest():
    """Such as where a network has fewer steps than its class says."""
    scores = torch.randn(2, 5, 4).log_softmax(2)
    heard = Heard(scores, torch.tensor([5, 5]), None)
    targets = torch.tensor([[1, 1, 2, 2], [1, 2, 0, 0]]), torch.tensor([4, 2])
    losses = trial().loss(heard, Batch((), targets, torch.arange(2)))
    assert losses.isnan().tolist() == [True, False]
    with pytest.raises(ValueError, match="not finite, such as nan of id 0"):
        Samples(2, Easy()).update(torch.arange(2), losses)


def test_the_middles_loss_is_weighed_against_the_ends():
    torch.manual_seed(0)
    end, half = torch.randn(2, 2, 5, 4).log_softmax(3)
    steps = torch.tensor([5, 4])
    targets = torch.tensor([[1, 2, 3], [2, 2, 0]]), torch.tensor([3, 2])
    batch = Batch((), targets, torch.arange(2))
    plain, weighed = trial(), trial(middle=0.25)
    alone = [plain.loss(Heard(x, steps, None), batch) for x in (end, half)]
    found = weighed.loss(Heard(end, steps, None, half), batch)
    torch.testing.assert_close(found, 0.75 * alone[0] + 0.25 * alone[1])
    counted = weighed.counts(Heard(end, steps, None, half), batch)
    torch.testing.assert_close(counted["ctc"], alone[0].sum())
    assert plain.counts(Heard(end, steps, None), batch) == {}


def test_what_cannot_be_planned_is_refused():
    with pytest.raises(ValueError, match="keep=None"):
        BySamples(Samples(6, InfoBatch(), None), learnt(6))
    with pytest.raises(ValueError, match="score='mean'"):
        BySamples(Samples(6, Hard()), learnt(6), "mean")


def test_more_epochs_on_all_than_there_are_is_told_by_the_arguments_names():
    with pytest.raises(ValueError, match="full_first=1 and full_last=4: together more than epo"):
        trial(full_last=4).choose(trial(), learnt(6))


@pytest.fixture
def data(tmp_path):
    corpus(tmp_path / "learnt", 40, 0)
    corpus(tmp_path / "heard", 6, 1)
    return tmp_path


def trial(**change):
    setting = {
        "data": ("learnt",), "tests": ("heard",), "size": "tiny", "units": "words", "batch": 8,
        "method": regrow.Dense(), "epochs": 4, "watched": 0, "seed": 0, "criterion": Easy(),
        "keep": 0.5,
    }  # fmt: skip
    return Recognise(**setting | change)


def run(trial, folder, data, **kind):
    folder.mkdir(exist_ok=True)
    options = {"data_dir": str(data), "device": "cpu", "keep_weights": True}
    return trial.run(Run(folder, options, save_every=0, **kind))


def test_an_epoch_has_what_was_kept_and_tests_are_never_pruned(data, tmp_path):
    result = run(trial(full_last=1), tmp_path / "run", data)
    lines = read_lines(tmp_path / "run" / METRICS)
    shares = [line["hours_kept"] / line["hours_in_all"] for line in lines]
    assert shares[0] == shares[-1] == 1.0 and all(0.3 < share < 0.65 for share in shares[1:3])
    kept = [sum(line[f"kept_{i}"] for i in range(1, 11)) / 10 for line in lines[1:3]]
    assert kept == [pytest.approx(0.5), pytest.approx(0.5)]
    rows = read_lines(tmp_path / "run" / TRAINED)
    assert result["hours_learnt"] == pytest.approx(sum(line["hours_kept"] for line in lines))
    assert result["seen_by_group"] == {
        group: pytest.approx(sum(of) / len(of) / 3)  # 120 losses of 40 utterances
        for group in ("even", "odd")
        if (of := [row["seen"] for row in rows if row["group"] == group])
    }
    assert sum(row["seen"] for row in rows) == 40 + 20 + 20 + 40
    assert len(read_lines(tmp_path / "run" / "tested.jsonl")) == 6


@pytest.mark.parametrize("criterion", [Easy(), InfoBatch(), Random()])
def test_a_pruned_run_goes_on_bit_for_bit(criterion, data, tmp_path):
    class Cut(Exception):
        pass

    def stop(values):
        if values["epoch"] == 2:
            raise Cut

    one = trial(criterion=criterion, time_keep=0.8, time_chunk=2)
    with pytest.raises(Cut):
        run(one, tmp_path / "cut", data, show=stop)
    again, whole = run(one, tmp_path / "cut", data), run(one, tmp_path / "whole", data)
    assert again["loss"] == whole["loss"] and again["wer"] == whole["wer"]
    rows = [(tmp_path / f / TRAINED).read_text() for f in ("cut", "whole")]
    assert rows[0] == rows[1]
    weights = [torch.load(tmp_path / f / "weights.pt")["model"] for f in ("cut", "whole")]
    assert all(w.equal(weights[1][name]) for name, w in weights[0].items())


def test_the_content_of_a_trial_names_its_criterion():
    content = json.loads(json.dumps(trial().content))
    assert content["criterion"]["kind"] == "Easy" and content["keep"] == 0.5
