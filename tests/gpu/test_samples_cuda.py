"""Losses and ids on a GPU: nothing is waited for but the first batch, and nothing is mixed up."""

import pytest
import torch

from regrow.samples import Cyclic, InfoBatch, RootLoss, Samples

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

N = 4096


@pytest.mark.parametrize("ids_on", ["cpu", "cuda"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_scores_land_on_the_right_ids_without_a_wait(ids_on, dtype, waiting_is):
    samples = Samples(range(10**12, 10**12 + N), Cyclic(), keep=1.0)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(0))
    batches = [(part + 10**12).to(ids_on) for part in order.split(64)]
    losses = [(part % 200).to(dtype).cuda() for part in order.split(64)]
    samples.update(batches[0], losses[0])
    with waiting_is("error"):
        for ids, loss in zip(batches[1:], losses[1:], strict=True):
            samples.update(ids, loss)
    assert samples.scores["last"].tolist() == [float(p % 200) for p in range(N)]
    assert samples.scores["seen"].tolist() == [1] * N


def test_memory_that_is_used_again_does_not_change_what_was_told():
    """Losses are copied in the order of the stream, before they are written over."""
    samples = Samples(N, Cyclic(), keep=1.0)
    buffer = torch.empty(64, device="cuda")
    for start in range(0, N, 64):
        buffer.copy_(torch.arange(start, start + 64, dtype=torch.float32))
        samples.update(torch.arange(start, start + 64), buffer)
        buffer.fill_(-1)
    assert samples.scores["last"].tolist() == list(range(N))


def test_the_first_mistake_shows_at_once_and_later_ones_before_the_next_choice():
    samples = Samples(8, RootLoss(), keep=0.5)
    with pytest.raises(ValueError, match="not finite"):
        samples.update([0, 1], torch.tensor([1.0, float("nan")], device="cuda"))
    samples = Samples(8, RootLoss(), keep=0.5)
    samples.update([0, 1], torch.ones(2, device="cuda"))
    with pytest.raises(ValueError, match="not finite"):
        for _ in range(2):
            samples.update([2, 3], torch.tensor([1.0, float("inf")], device="cuda"))
            samples.scores  # noqa: B018 waits


def test_a_single_value_is_refused_at_once():
    with pytest.raises(ValueError, match="reduction='none'"):
        Samples(8, RootLoss()).update([0], torch.tensor(1.0, device="cuda"))


@pytest.mark.parametrize("ids", [range(N), range(5, N + 5)])
def test_weights_are_looked_up_on_the_gpu(ids):
    samples = Samples(ids, InfoBatch(), keep=0.6)
    asked = torch.tensor(list(ids))
    assert samples.weights(asked.cuda()).is_cuda
    samples.update(asked, (asked % 7).float().cuda())
    samples.set_epoch(1)
    kept = asked[samples.kept]
    found = samples.weights(kept.cuda())
    assert found.is_cuda
    assert found.cpu().equal(samples.weights(kept))
    assert len(found.unique()) == 2


def test_a_loop_on_a_gpu_is_a_loop_on_the_cpu():
    """The same losses, the same choice: wherever they were computed."""
    kept = []
    for device in ("cpu", "cuda"):
        samples = Samples(N, RootLoss(), keep=0.5)
        sampler = samples.batch_sampler(256)
        for _ in range(4):
            for batch in sampler:
                losses = torch.tensor([float(p * 37 % 101) for p in batch], device=device)
                samples.update(torch.tensor(batch, device=device), losses)
        kept.append(samples.state_dict())
    assert str(kept[0]) == str(kept[1])
