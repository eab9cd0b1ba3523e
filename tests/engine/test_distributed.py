"""Two ranks of gloo on this machine's loopback are one process on the batches of both.

Every registered method is tested. The ranks run all scenarios of this file in one go
(:func:`main`), since starting them takes seconds, and leave what they found in a folder; tests read
it. In float64 the order of a sum decides no tie.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import datetime
import functools
import os
import traceback
from dataclasses import MISSING, asdict
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional

import regrow
from regrow.engine.criteria import AverageGradient, Running, WeightTimesGradient
from regrow.engine.patterns import Block, Channel
from regrow.engine.wrappers import unwrap
from tests.ranks import on_ranks, once

TOTAL, STOPPED, WORLD = 12, 5, 2  # updates every two steps: stopped in the middle of an interval
LIMIT = 200  # seconds, for the ranks to say all they have to

# ---------------------------------------------------------------------- what is trained


def make_net(seed=0, device="cpu"):
    """15, 7 and 1 outputs: no two ranks can share them evenly, and the last not at all."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = nn.Linear(12, 15), nn.Tanh(), nn.Linear(15, 7), nn.Tanh(), nn.Linear(7, 1)
    return nn.Sequential(*layers).to(device, torch.float64)


def make_data(step, rank=0, world=1, device="cpu"):
    """This rank's part of the batch of this step."""
    generator = torch.Generator().manual_seed(step)
    inputs = torch.randn(16, 12, generator=generator, dtype=torch.float64)
    answers = torch.randn(16, 1, generator=generator, dtype=torch.float64)
    return inputs.chunk(world)[rank].to(device), answers.chunk(world)[rank].to(device)


def whole_batch_loss(model):
    """What starts that need data are given: the same on all ranks."""
    device = next(model.parameters()).device
    inputs, answers = make_data(1_000, device=device)
    return functional.mse_loss(model(inputs), answers)


EVERY = {"density": 0.3, "update_every": 2}
NEEDED = {
    "loss": lambda: whole_batch_loss,
    "inputs": lambda: torch.zeros(1, 12),
    "trained": lambda: make_net(seed=5).state_dict(),
}


def build(kind):
    """Make a registered method; blocks are small here, and what it needs is found by its name."""
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    options = {name: value for name, value in EVERY.items() if name in fields}
    if isinstance(fields["pattern"].default, Block):
        options["pattern"] = Block(2)
    for name, field in fields.items():
        if name not in options and (field.default, field.default_factory) == (MISSING, MISSING):
            assert name in NEEDED, f"{kind.__name__} needs {name}: say in NEEDED what to give it"
            options[name] = NEEDED[name]()
    return kind(**options)


METHODS = {name: build(kind) for name, kind in regrow.METHODS.items()} | {
    "MEST, soft memory": regrow.MEST(**EVERY, soft_memory=0.5, gamma=1.0),
    "SRigL, ablating": regrow.SRigL(**EVERY, gamma=0.9),
    "averages": regrow.Dynamic(
        **EVERY, drop=Running(WeightTimesGradient()), grow=AverageGradient()
    ),
    "all layers together": regrow.RigL(**EVERY, threshold="global", on_grow="mean"),
    "channels": regrow.RigL(**EVERY | {"density": 0.6}, drop_fraction=0.5, pattern=Channel()),
    "SET, blocks": regrow.SET(**EVERY, pattern=Block(2)),
}
# Top-KAST keeps weights aside, and a start scores whole models.
SHARDED = [n for n, method in METHODS.items() if n != "TopKAST" and method.start is None]
STYLES = ("plain", "accumulating", "clipping")
STYLED = ("RigL", "MEST, soft memory", "averages")
# Each keeps something else in its state; that every method resumes is tested on one process.
RESUMED = (*STYLED, "GraNet", "ACDC", "SRigL, ablating", "SNFS", "channels", "SET, blocks")

# ---------------------------------------------------------------------- what every process does


def quietly(model, last):
    """While a batch is not complete, ranks do not talk."""
    if hasattr(model, "set_requires_gradient_sync"):
        model.set_requires_gradient_sync(last)
        return contextlib.nullcontext()
    silent = hasattr(model, "no_sync") and not last
    return model.no_sync() if silent else contextlib.nullcontext()


def train(run, steps, style="plain", **place):
    """Take steps, and return the masks after each of these that was an update."""
    model, optimizer, sparse = run
    trail = []
    parts = 2 if style == "accumulating" and place else 1
    for step in steps:
        optimizer.zero_grad()
        inputs, answers = make_data(step, **place)
        for part, (some, theirs) in enumerate(
            zip(inputs.chunk(parts), answers.chunk(parts), strict=True)
        ):
            with quietly(model, part == parts - 1):
                (functional.mse_loss(model(some), theirs) / parts).backward()
        if style == "clipping":
            sparse.mask_gradients_()
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        before = len(sparse.history)
        optimizer.step()
        if len(sparse.history) > before:
            trail.append({name: mask.clone() for name, mask in sparse.masks.items()})
    return trail


def fits(pattern, shape):
    try:
        return bool(pattern.units(shape))
    except ValueError:  # inputs that are no multiple of m
        return False


def start(model, method, optimizer=torch.optim.AdamW):
    made = optimizer(model.parameters(), lr=0.01)
    weights = {n: tuple(w.shape) for n, w in unwrap(model).named_parameters() if w.ndim > 1}
    some = [name for name, shape in weights.items() if fits(method.pattern, shape)]
    return model, made, regrow.sparsify(model, made, method, total_steps=TOTAL, include=some)


def whole(tensor):
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def tell(run):
    """All that a run has come to, gathered from the ranks; copied, for it goes on."""
    model, optimizer, sparse = run
    state = [{k: whole(v) for k, v in s.items()} for s in optimizer.state_dict()["state"].values()]
    return copy.deepcopy(
        {
            "weights": {k.removeprefix("module."): whole(v) for k, v in model.state_dict().items()},
            "optimizer": state,
            "masks": sparse.masks,
            "fired": sparse.fired,
            "history": [asdict(update) for update in sparse.history],
            "sparse": sparse.state_dict(),
        }
    )


# ---------------------------------------------------------------------- what the ranks do


def under_ddp(name, style, place):
    run = start(
        nn.parallel.DistributedDataParallel(make_net(device=place["device"])), METHODS[name]
    )
    trail = train(run, range(STOPPED), style, **place)
    stopped = tell(run)
    trail += train(run, range(STOPPED, TOTAL), style, **place)
    return {"stopped": stopped, "end": tell(run), "trail": trail}


def shard(model, device, each=True):
    """Shard a model, its layers apart or, faster, together; parts of weights are the same."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(torch.device(device).type, (WORLD,))
    for layer in model:
        if each and isinstance(layer, nn.Linear):
            fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def under_fsdp(name, style, place):
    """Train, save whole states on the way, train on; some then resume in another model."""
    from torch.distributed.checkpoint.state_dict import (
        StateDictOptions,
        get_state_dict,
        set_state_dict,
    )

    options = StateDictOptions(full_state_dict=True)
    each = name in STYLED
    run = model, optimizer, sparse = start(
        shard(make_net(device=place["device"]), place["device"], each), METHODS[name]
    )
    masks = [layer.mask for layer in sparse._topology.layers]
    parts = [tuple(mask.to_local().shape) for mask in masks]
    same = all(
        (mask.device_mesh, mask.placements) == (weight.device_mesh, weight.placements)
        and mask.to_local().shape == weight.to_local().shape
        for mask, weight in zip(masks, sparse.weights(), strict=True)
    )
    trail = train(run, range(STOPPED), style, **place)
    stopped = tell(run)
    resumes = name in RESUMED and style == "plain"
    saved = resumes and copy.deepcopy(
        (*get_state_dict(model, optimizer, options=options), sparse.state_dict())
    )
    trail += train(run, range(STOPPED, TOTAL), style, **place)
    found = {"stopped": stopped, "end": tell(run), "trail": trail}
    found |= {"parts": parts, "sharded": same}
    if not resumes:
        return found
    twin = start(shard(make_net(9, place["device"]), place["device"], each), METHODS[name])
    set_state_dict(*twin[:2], model_state_dict=saved[0], optim_state_dict=saved[1], options=options)
    twin[2].load_state_dict(saved[2])  # last: filling an optimizer's state takes a step
    train(twin, range(STOPPED, TOTAL), style, **place)
    return found | {"resumed": tell(twin)}


def odds_and_ends(place):
    """What is asked of a sharded model now and then."""
    model, _, sparse = run = start(
        shard(make_net(device=place["device"]), place["device"]), METHODS["RigL"]
    )
    train(run, range(4), **place)
    before = {name: mask.clone() for name, mask in sparse.masks.items()}
    chosen = sparse.would_drop(WeightTimesGradient(), 0.3)
    told = {"density": sparse.density, "metrics": sparse.metrics(), "summary": sparse.summary()}
    with torch.no_grad():
        for weight in sparse.weights():
            weight.fill_(1.0)
    sparse.apply_to_(model)
    told["applied"] = all(
        whole(weight.detach()).equal(before[name].to(torch.float64))
        for name, weight in zip(before, sparse.weights(), strict=True)
    )
    return told | {"chosen": chosen, "masks": before}


def bad_numbers(place):
    """A gradient that is infinite on one rank only; a model for Top-KAST."""
    run = start(shard(make_net(device=place["device"]), place["device"]), METHODS["RigL"])
    train(run, range(1), **place)
    errors = []
    for weight in run[2].weights():
        weight.grad = torch.ones_like(weight)
    if place["rank"] == 1:
        run[2].weights()[0].grad.to_local()[0, 0] = torch.inf
    for act in (
        run[1].step,
        lambda: start(shard(make_net(device=place["device"]), place["device"]), METHODS["TopKAST"]),
    ):
        try:
            act()
        except (FloatingPointError, ValueError) as error:
            errors.append(f"{type(error).__name__}: {error}")
    return {"errors": errors, "updates": len(run[2].history)}


def scenarios():
    for style in STYLES:
        for name in METHODS:
            if style == "plain" or name in STYLED:
                yield f"ddp {style} {name}", lambda p, n=name, s=style: under_ddp(n, s, p)
                if name in SHARDED:
                    yield f"fsdp {style} {name}", lambda p, n=name, s=style: under_fsdp(n, s, p)
    yield "fsdp odds and ends", odds_and_ends
    yield "fsdp bad numbers", bad_numbers


def main(folder, backend, device):
    """Run every scenario as one of the ranks."""
    rank = int(os.environ["RANK"])
    if device == "cuda":
        device = f"cuda:{rank if backend == 'nccl' else 0}"
        torch.cuda.set_device(device)
    dist.init_process_group(
        backend,
        f"file://{folder}/store",
        rank=rank,
        world_size=WORLD,
        timeout=datetime.timedelta(seconds=60),
    )
    torch.manual_seed(100 + rank)  # the ranks' own generators must not matter
    place, found = {"rank": rank, "world": WORLD, "device": device}, {}
    for name, scenario in scenarios():
        try:
            found[name] = scenario(place)
        except Exception:
            found[name] = {"failed": traceback.format_exc()}
    torch.save(found, Path(folder) / f"rank-{rank}")
    dist.destroy_process_group()


def launch(folder, backend="gloo", device="cpu", limit=LIMIT):
    """Run :func:`main` in two processes and return what each found."""
    for rank in on_ranks(main, folder, backend, device, ranks=WORLD, limit=limit):
        assert rank.returncode == 0, rank.stderr
    return [
        torch.load(Path(folder) / f"rank-{rank}", weights_only=True, map_location="cpu")
        for rank in range(WORLD)
    ]


# ---------------------------------------------------------------------- what must have come of it


@pytest.fixture(scope="session")
def ranks(tmp_path_factory):
    """What the two ranks found; started once, by whichever worker of the suite comes first."""
    folder = once(tmp_path_factory, "ranks", launch)
    return [torch.load(folder / f"rank-{rank}", weights_only=True) for rank in range(WORLD)]


def both(ranks, scenario):
    """What the ranks found in one scenario; neither may have failed."""
    found = [rank[scenario] for rank in ranks]
    for result in found:
        assert "failed" not in result, result["failed"]
    return found


@functools.cache
def alone(name, style):
    """The same run in one process on the CPU, on the batches of both ranks."""
    run = start(make_net(), METHODS[name])
    trail = train(run, range(STOPPED), style)
    stopped = tell(run)
    trail += train(run, range(STOPPED, TOTAL), style)
    return {"stopped": stopped, "end": tell(run), "trail": trail}


def named(mode):
    """The scenarios of a mode that are told apart by style and method."""
    names = [name.split(maxsplit=1) for name, _ in scenarios()]
    return [rest for first, rest in names if first == mode and rest.split()[0] in STYLES]


def check_run(found, scenario, same):
    """After every update, at the stop and at the end, what one process has come to.

    Sums in another order apart.
    """
    whole_run = alone(*reversed(scenario.split(maxsplit=1)))
    if "trail" in found:
        same(found["trail"], whole_run["trail"])
    for moment in ("stopped", "end"):
        expected = whole_run[moment]
        for key in ("masks", "fired", "history"):
            same(found[moment][key], expected[key])
        for key in ("weights", "optimizer"):
            torch.testing.assert_close(found[moment][key], expected[key], rtol=1e-7, atol=1e-10)
    moved = isinstance(METHODS[scenario.split(maxsplit=1)[1]], regrow.Dynamic)
    assert (len(found["end"]["history"]) > 1) == moved


def check_ddp(ranks, scenario, same):
    one, other = both(ranks, f"ddp {scenario}")
    same(one, other)
    check_run(one, scenario, same)


def check_fsdp(ranks, scenario, same):
    one, other = both(ranks, f"fsdp {scenario}")
    assert one["sharded"]
    assert other["sharded"]
    for found, parts in (
        (one, {"0.weight": (8, 12), "2.weight": (4, 15), "4.weight": (1, 7)}),
        (other, {"0.weight": (7, 12), "2.weight": (3, 15), "4.weight": (0, 7)}),
    ):
        assert found["parts"] == [parts[name] for name in found["end"]["masks"]]
    for key in ("trail", "stopped", "end"):
        same(one[key], other[key])
    check_run(one, scenario, same)
    for found in (one, other) if scenario in {f"plain {name}" for name in RESUMED} else ():
        same(found["resumed"], found["end"])


def check_odds_and_ends(ranks, same):
    one, other = both(ranks, "fsdp odds and ends")
    same(one, other)
    run = start(make_net(), METHODS["RigL"])
    train(run, range(4))
    sparse = run[2]
    same(one["chosen"], sparse.would_drop(WeightTimesGradient(), 0.3))
    same(one["masks"], sparse.masks)
    assert one["density"] == sparse.density
    assert one["metrics"] == sparse.metrics()
    assert one["summary"] == sparse.summary()
    assert one["applied"]


def check_bad_numbers(ranks):
    for found in both(ranks, "fsdp bad numbers"):
        bad, sharded = found["errors"]
        assert bad.startswith("FloatingPointError: topology update: the gradient of 0.weight holds")
        assert sharded.startswith("ValueError: 0.weight is sharded")
        assert found["updates"] == 0


pytestmark = pytest.mark.slow


@pytest.mark.parametrize("scenario", named("ddp"))
def test_two_ranks_under_ddp_are_one_process(ranks, assert_same, scenario):
    check_ddp(ranks, scenario, assert_same)


@pytest.mark.parametrize("scenario", named("fsdp"))
def test_two_ranks_under_fsdp_are_one_process(ranks, assert_same, scenario):
    """Parts are uneven, and what was saved on the way goes on in another model bit for bit."""
    check_fsdp(ranks, scenario, assert_same)


@pytest.mark.parametrize("name", ["RigL", "averages", "SNFS"])
def test_a_state_saved_by_ranks_goes_on_in_one_process(ranks, assert_same, name):
    found, _ = both(ranks, f"fsdp plain {name}")
    run = model, optimizer, sparse = start(make_net(9), METHODS[name])
    model.load_state_dict(found["stopped"]["weights"])
    state = optimizer.state_dict() | {"state": dict(enumerate(found["stopped"]["optimizer"]))}
    optimizer.load_state_dict(copy.deepcopy(state))
    sparse.load_state_dict(found["stopped"]["sparse"])
    train(run, range(STOPPED, TOTAL))
    check_run({"stopped": found["stopped"], "end": tell(run)}, f"plain {name}", assert_same)


def test_a_sharded_model_tells_and_chooses_as_a_whole_one(ranks, assert_same):
    check_odds_and_ends(ranks, assert_same)


def test_all_ranks_refuse_what_one_cannot_do(ranks):
    """Else one would wait for the other for ever."""
    check_bad_numbers(ranks)
