"""Two ranks of gloo: scores meet, choices agree, batches are equal, and one state is both's.

The ranks run all scenarios in one go (:func:`main`), since starting them takes seconds.
"""

from __future__ import annotations

import datetime
import os
import traceback

import pytest
import torch
import torch.distributed as dist
from torch import nn

from regrow.samples import Cyclic, Forgetting, InfoBatch, RootLoss, Samples, Stratified
from regrow.samples.ranks import gather
from tests.ranks import on_ranks, once
from tests.samples.loops import loss_of

WORLD, LIMIT, N, EPOCHS = 2, 120, 41, 4
# Not representable in float32, float16 or bfloat16.
IDS = [2**60 + 1 + i for i in range(N)]
CRITERIA = {
    "RootLoss": RootLoss(),
    "InfoBatch": InfoBatch(),
    "Forgetting": Forgetting(),
    "Stratified": Stratified("length", RootLoss()),
}
pytestmark = pytest.mark.slow


def make(name, **options):
    return Samples(IDS, CRITERIA[name], keep=0.6, epochs=EPOCHS, lengths=range(1, N + 1), **options)


def learn(samples, sampler, stop=None):
    """Learn an epoch, or some batches of it, with losses in half precision."""
    found = []
    for batch in sampler:
        ids = torch.tensor([IDS[p] for p in batch])
        losses = loss_of(batch, samples.epoch).bfloat16()
        samples.update(ids, losses, losses < 10)
        found.append(batch)
        if len(found) == stop:
            break
    return found


def whole_run(name, how):
    samples = make(name)
    sampler = samples.batch_sampler(**how)
    batches = [learn(samples, sampler) for _ in range(EPOCHS)]
    return {"batches": batches, "state": samples.state_dict()}


def stopped_run(name, how):
    """Saved on rank 0 in mid-epoch; a new store on each rank goes on from there."""
    samples = make(name)
    sampler = samples.batch_sampler(**how)
    before = [learn(samples, sampler), learn(samples, sampler, stop=2)]
    sent = [samples.state_dict()]
    dist.broadcast_object_list(sent, 0)
    resumed = make(name)
    resumed.load_state_dict(sent[0])
    sampler = resumed.batch_sampler(**how)
    before[1] += learn(resumed, sampler)
    return {
        "batches": before + [learn(resumed, sampler) for _ in range(2)],
        "state": resumed.state_dict(),
    }


HOW = {"size": {"batch_size": 5}, "length": {"max_length": 90.0, "buckets": 3}}


def trained(wrap):
    """A real model under a wrapper: AMP, accumulation over two batches, a loader with workers."""
    torch.manual_seed(0)
    data = torch.utils.data.TensorDataset(torch.randn(N, 6), torch.randint(3, (N,)))
    model = wrap(nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    samples = make("RootLoss")
    loader = torch.utils.data.DataLoader(
        samples.with_ids(data), batch_size=4, sampler=samples.sampler(), num_workers=1
    )
    own = {}
    for _ in range(3):
        for number, ((x, y), ids) in enumerate(loader):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                losses = nn.functional.cross_entropy(model(x), y, reduction="none")
            samples.update(ids, losses)
            own |= dict(zip(ids.tolist(), losses.float().tolist(), strict=True))
            (losses * samples.weights(ids)).mean().backward()
            if number % 2:
                optimizer.step()
                optimizer.zero_grad()
    return {"state": samples.state_dict(), "own": own, "steps": number + 1}


def fully_sharded(model):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    return fully_shard(model, mesh=init_device_mesh("cpu", (WORLD,)))


def lopsided():
    """The first rank has more batches than the second, and asks for its length alone."""
    rank = dist.get_rank()
    samples = Samples(10, Cyclic(), keep=0.5)
    sampler = samples.sampler()
    if rank == 0:
        len(sampler)
    list(sampler)
    for _ in range(3 - rank):
        samples.update([rank, 2 + rank], torch.tensor([1.0, 2.0]))
    if rank == 0:
        samples.metrics(), samples.summary()
    samples.update([9], torch.tensor([float(rank)]))  # the fourth of the first, the third here
    return {"scores": samples.state_dict()["scores"], "gathered": [g.tolist() for g in _sizes()]}


def _sizes():
    import numpy as np

    rank = dist.get_rank()
    return gather(np.arange(2**60, 2**60 + 3 * rank, dtype=np.int64))


SCENARIOS = {
    **{
        f"{kind} {name} {how}": (lambda f=f, n=name, h=h: f(n, h))
        for kind, f in (("whole", whole_run), ("stopped", stopped_run))
        for name in CRITERIA
        for how, h in HOW.items()
    },
    "ddp": lambda: trained(nn.parallel.DistributedDataParallel),
    "fsdp": lambda: trained(fully_sharded),
    "lopsided": lopsided,
}


def main(folder, backend="gloo"):
    """What each rank does."""
    timeout = datetime.timedelta(seconds=LIMIT)
    store = dist.FileStore(str(folder / "store"), WORLD)
    rank = int(os.environ["RANK"])
    if backend == "nccl":
        torch.cuda.set_device(rank)
    dist.init_process_group(backend, store=store, rank=rank, world_size=WORLD, timeout=timeout)
    torch.set_num_threads(1)
    found = {}
    for name, scenario in SCENARIOS.items():
        if backend == "nccl" and name in ("ddp", "fsdp"):  # their models are on the CPU
            continue
        try:
            found[name] = scenario()
        except Exception:
            found[name] = {"failed": traceback.format_exc()}
    torch.save(found, folder / f"rank-{rank}")
    dist.destroy_process_group()


def launch(folder, backend="gloo"):
    """Start the ranks, and wait until they have said all they have to."""
    for rank in on_ranks(main, folder, backend, ranks=WORLD, limit=LIMIT):
        assert rank.returncode == 0, rank.stderr


@pytest.fixture(scope="session")
def found(tmp_path_factory):
    """What the two ranks found; started once, by whichever worker of the suite comes first."""
    folder = once(tmp_path_factory, "samples-ranks", launch)
    return [torch.load(folder / f"rank-{rank}", weights_only=True) for rank in range(WORLD)]


def both(found, scenario):
    results = [rank[scenario] for rank in found]
    for result in results:
        assert "failed" not in result, result["failed"]
    return results


def same_state(one, other):
    assert str(one | {"done": 0}) == str(other | {"done": 0})
    for name in ("last", "average", "seen", "epoch"):
        assert one["scores"][name].equal(other["scores"][name])


def check_whole(found, name, how):
    one, other = both(found, f"whole {name} {how}")
    same_state(one["state"], other["state"])
    for a, b in zip(one["batches"], other["batches"], strict=True):
        assert len(a) == len(b)
        flat = [p for batch in a + b for p in batch]
        assert len(flat) == len(set(flat))
        if how == "size":
            assert [len(x) for x in a] == [len(x) for x in b]


def check_stopped(found, name, how):
    for whole, stopped in zip(
        both(found, f"whole {name} {how}"), both(found, f"stopped {name} {how}"), strict=True
    ):
        assert stopped["batches"] == whole["batches"]
        same_state(stopped["state"], whole["state"])


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", CRITERIA)
def test_two_ranks_choose_alike_and_share_out_evenly(found, name, how):
    check_whole(found, name, how)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", CRITERIA)
def test_what_one_rank_saved_in_mid_epoch_goes_on_on_both(found, name, how):
    check_stopped(found, name, how)


@pytest.mark.parametrize("name", CRITERIA)
def test_two_ranks_know_what_one_process_would(found, name):
    check_known(found, name)


def check_known(found, name):
    """The scores are those of a single process that saw the batches of both ranks in turn."""
    one, other = both(found, f"whole {name} size")
    alone = make(name)
    for epoch, batches in enumerate(zip(one["batches"], other["batches"], strict=True)):
        alone.set_epoch(epoch)
        list(alone.batch_sampler(99))  # chooses, and begins the epoch
        assert alone.kept.sum() == round(0.6 * N)
        for pair in zip(*batches, strict=True):
            for batch in pair:
                losses = loss_of(batch, epoch).bfloat16()
                alone.update(torch.tensor([IDS[p] for p in batch]), losses, losses < 10)
    same_state(alone.state_dict(), one["state"])


@pytest.mark.parametrize("wrapper", ["ddp", "fsdp"])
def test_scores_of_wrapped_models_land_on_the_right_ids(found, wrapper):
    one, other = both(found, wrapper)
    same_state(one["state"], other["state"])
    assert one["steps"] == other["steps"]
    assert len(one["own"]) + len(other["own"]) >= N - 2
    last = dict(zip(IDS, one["state"]["scores"]["last"].tolist(), strict=True))
    epochs = one["state"]["scores"]["epoch"].tolist()
    assert max(epochs) == 2
    for result in (one, other):
        for sample, loss in result["own"].items():
            both_have = sample in one["own"] and sample in other["own"]
            assert last[sample] == loss or both_have


def test_ranks_may_have_other_numbers_of_batches_and_ask_alone(found):
    check_lopsided(found)


def check_lopsided(found):
    one, other = both(found, "lopsided")
    for name, values in one["scores"].items():
        assert str(values) == str(other["scores"][name])
    assert one["scores"]["seen"].tolist() == [3, 2, 3, 2, 0, 0, 0, 0, 0, 2]
    assert (one["scores"]["last"][9], one["scores"]["average"][9]) == (0.0, 0.5)
    assert one["gathered"] == other["gathered"] == [[], [2**60, 2**60 + 1, 2**60 + 2]]
