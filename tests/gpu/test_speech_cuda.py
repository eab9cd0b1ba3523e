"""Speech on a GPU: batches are those of a CPU, and the host waits in CTC's loss alone."""

import itertools

import pytest
import torch

import regrow
from regrow.samples import EasyToHard, Samples
from regrow.speech import TimePruning
from regrow.speech.batches import UtteranceBatches
from regrow.speech.choice import BySamples
from regrow.speech.ctc import ctc_losses
from regrow.speech.data import Learnt, Speech
from regrow.speech.features import Features
from regrow.speech.problem import SpeechSource
from regrow.speech.units import Characters
from regrow.studies.speech.recognise import Recognise
from regrow.training.trainer import Trainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

N = 96


def learnt(speeds=0):
    draw = torch.Generator().manual_seed(0)
    lengths = torch.randint(60, 400, (N,), generator=draw)

    def features(factor):
        own = (lengths * factor).long()
        return Features.of((torch.randn(int(own.sum()), 80, generator=draw).half(), own))

    labels = torch.randint(1, 5, (N, 12), generator=draw)
    many = torch.randint(1, 13, (N,), generator=draw)
    others = tuple(features(0.9 - 0.1 * i) for i in range(speeds))
    return Learnt((None,) * N, features(1), ("a",) * N, others, labels=labels, label_lengths=many)


def batches(part, device, **how):
    samples = BySamples(Samples(N, EasyToHard(), 0.5, epochs=4, warmup=1), part)
    return UtteranceBatches(
        part.features, part.labels, part.label_lengths, batch=16, seed=1, chosen=samples,
        pruning=TimePruning(0.7, 5), device=device, others=part.others, **how,
    )  # fmt: skip


def test_batches_are_those_of_a_cpu_and_no_device_is_waited_for(waiting_is):
    part = learnt(speeds=2)
    here, there = batches(part, "cpu"), batches(part, "cuda")
    made = there.epoch(0)
    first = next(made)
    with waiting_is("error"):
        others = list(itertools.islice(made, len(there) - 1))
    for a, b in zip(here.epoch(0), [first, *others], strict=True):
        for one, other in zip(
            (*a.inputs, *a.targets, a.ids), (*b.inputs, *b.targets, b.ids), strict=True
        ):
            assert other.is_cuda and other.cpu().equal(one)


def test_a_step_waits_for_the_loss_alone(host_waits):
    part = learnt()
    trial = Recognise(
        data=("none",), size="1m", seed=0, method=regrow.Dense(), epochs=4, batch=16,
        precision="bfloat16", criterion=EasyToHard(), keep=0.5, time_keep=0.7,
    )  # fmt: skip
    own = batches(part, "cuda")
    source = SpeechSource(
        batches=own, example=lambda n: (torch.zeros(n, 200, 80), torch.full((n,), 200)),
        steps=own.total(4), memory=own.chosen,
        speech=Speech(part, None, {}, Characters(" abcd"), ()), chosen=own.chosen,
    )  # fmt: skip
    torch.manual_seed(0)
    network = trial.build(source)
    trainer = Trainer(trial, network, source, trial.loss, trial.counts, torch.device("cuda"))
    steps = trainer.epoch_steps()
    losses = [next(steps).loss, next(steps).loss]
    waits = host_waits(lambda: losses.append(next(steps).loss))
    assert all(bool(loss.isfinite()) for loss in losses)

    scores = torch.randn(16, 60, 6, device="cuda", requires_grad=True)
    labels = torch.ones(16, 3, dtype=torch.int64, device="cuda")
    many, long = (torch.full((16,), n, device="cuda") for n in (3, 60))
    loss = lambda: ctc_losses(scores.log_softmax(2), long, labels, many)[0].sum().backward()  # noqa: E731
    loss()
    assert waits <= host_waits(loss)


def test_padding_changes_no_loss_in_half_precision():
    torch.manual_seed(0)
    part = learnt()
    trial = Recognise(data=("none",), size="1m", seed=0, method=regrow.Dense(), epochs=1)
    from regrow.speech import SIZES, Recogniser

    model = Recogniser(6, SIZES["1m"], 0.0, augment=False).cuda().eval()
    ids = torch.arange(8)
    frames, lengths = part.features.to(torch.device("cuda")).padded(ids, "cuda")
    wide = torch.nn.functional.pad(frames, (0, 0, 0, 40))
    targets = part.labels[ids].cuda(), part.label_lengths[ids].cuda()
    from regrow.training.batch import Batch

    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
        narrow, same = (
            trial.loss(model(x, lengths), Batch((x, lengths), targets, ids)) for x in (frames, wide)
        )
    torch.testing.assert_close(narrow, same, rtol=0.02, atol=0.02)
