"""Short trainings of random networks, methods and optimizers, disturbed at random, and checked.

Every training is drawn from its number: a network, an optimizer, a method with its options, an
execution, and what happens at each step. After every step the weights, masks and records must agree
(:func:`check`), and a copy that was saved and loaded into fresh objects must go on bit for bit.
"""

from __future__ import annotations

import copy
import dataclasses
import io
import logging
import math
import pickle
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from traceback import extract_tb
from typing import Any

import torch
from torch import nn

import regrow
from regrow.engine.allocation import ER, ERK, Uniform
from regrow.engine.criteria import (
    AverageGradient,
    MagnitudePlusGradient,
    Running,
    Sensitivity,
    Taylor,
    WeightTimesGradient,
)
from regrow.engine.patterns import NM, Block, Channel, Element, FanIn, Kernel
from regrow.engine.saliency import LargestWeights, SynapticFlow
from regrow.engine.schedules import Constant, Cosine, Cubic, Linear
from regrow.engine.scores import Gradient, Magnitude, Momentum, Random, SignedMagnitude, Unfired
from tests.fuzz.budget import main

STEPS = 14

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=1e-2),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-2, foreach=False),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1),
    "amsgrad": lambda p: torch.optim.Adam(p, lr=1e-2, amsgrad=True),
    "fused": lambda p: torch.optim.AdamW(p, lr=1e-2, fused=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-3, momentum=0.9, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=1e-2),
}


class Recurrent(nn.Module):
    """A GRU over four steps of twelve numbers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inside = nn.GRU(12, width, batch_first=True)
        self.head = nn.Linear(width, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.inside(x.reshape(len(x), 4, 12))[0][:, -1])


class Tied(nn.Module):
    """Two layers that share one weight, and a branch that is never used."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.into = nn.Linear(48, width)
        self.one, self.other = nn.Linear(width, width), nn.Linear(width, width)
        self.other.weight = self.one.weight
        self.unused = nn.Linear(width, width)
        self.head = nn.Linear(width, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.into(x.flatten(1)).relu()
        return self.head(self.other(self.one(x).relu()).relu())


def make_network(kind: str, width: int) -> nn.Module:
    """Build a small classifier of inputs of shape (n, 3, 4, 4); its weights follow torch's seed."""
    if kind == "mlp":
        return nn.Sequential(
            nn.Flatten(), nn.Linear(48, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
            nn.Linear(width, 8),
        )  # fmt: skip
    if kind == "cnn":
        return nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(width, 8),
        )  # fmt: skip
    if kind == "transposed":
        return nn.Sequential(
            nn.ConvTranspose2d(3, width, 2, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
            nn.Flatten(), nn.Linear(4 * width, 8),
        )  # fmt: skip
    return {"recurrent": Recurrent, "tied": Tied}[kind](width)


def draw(rng: random.Random) -> dict[str, Any]:
    """Draw all that a training is made of."""
    kind = rng.choice(list(regrow.METHODS.values()) + [regrow.Dynamic] * 6)
    choices: dict[str, list[Any]] = {
        "allocation": [ERK(), Uniform(), ER(), Uniform(dense=("1.*",))],
        "pattern": [
            Element(),
            Element(),
            Kernel(),
            Channel(),
            Block(2),
            Block(4),
            FanIn(),
            NM(2, 4),
        ],
        "start": [None, None, LargestWeights(), SynapticFlow(inputs=torch.zeros(1, 3, 4, 4))],
        "drop": [
            Magnitude(),
            SignedMagnitude(),
            Random(),
            MagnitudePlusGradient(),
            Taylor(),
            WeightTimesGradient(),
            Sensitivity(),
            Running(Magnitude()),
            Running(WeightTimesGradient()),
        ],
        "grow": [
            Gradient(),
            Random(),
            Momentum(),
            Unfired(),
            AverageGradient(),
            Running(Gradient()),
        ],
        "drop_fraction": [0.0, 0.1, 0.5, 1.0, Constant(0.3), Cosine(0.4), Linear(0.3)],
        "start_at": [0, 0, 3, 0.3],
        "stop_at": [0.5, 0.75, 1.0, 9],
        "initial_density": [None, None, 0.9, 0.02, 1.0],
        "density_path": [Cubic(1.0), Linear(1.0)],
        "threshold": ["layer", "layer", "global"],
        "shrink": ["layer", "layer", "global"],
        "redistribute": [None, None, "momentum", "gradient"],
        "regrow_dropped": [True, True, False],
        "replaces_step": [False, False, True],
        "on_grow": ["zero", "zero", "keep", "mean"],
        "soft_memory": [0.0, 0.5],
    }
    known = {field.name for field in dataclasses.fields(kind) if field.init}
    # A named method is mostly taken as it is; Dynamic is where everything meets everything.
    share = 0.5 if kind is regrow.Dynamic else 0.15
    options = {
        name: rng.choice(values)
        for name, values in choices.items()
        if name in known and rng.random() < share
    }
    if "density" in known:
        options["density"] = rng.choice([0.05, 0.1, 0.2, 0.3, 0.5, 0.5, 0.8, 1.0])
    if "update_every" in known:
        options["update_every"] = rng.choice([1, 2, 3, 4])
    execution = rng.choice(["masked", "masked", "masked", "csr", "block", "auto"])
    networks = ["mlp", "mlp", "cnn"] + ["transposed", "recurrent", "tied"] * (execution == "masked")
    dtypes = [torch.float32] * 5 + [torch.bfloat16, torch.float64] * (execution == "masked")
    if execution in ("csr", "auto"):
        options.pop("pattern", None)
    if execution == "block":
        options["pattern"] = Block(rng.choice([2, 4]))
    return {
        "key": rng.randrange(2**31),
        "method": kind,
        "options": options,
        "network": rng.choice(networks),
        "width": rng.choice([4, 8, 12, 16]),
        "optimizer": rng.choice(list(OPTIMIZERS)),
        "execution": execution,
        "dtype": rng.choice(dtypes),
        "rescale": rng.random() < 0.2,
        "seed": rng.choice([0, 1, 2**31, 2**63 - 1]),
        "frozen": rng.random() < 0.15,
        "events": [rng.choice(EVENTS) for _ in range(STEPS)],
        "resume_at": rng.randrange(1, STEPS - 1),
        "order": rng.sample(["model", "optimizer", "sparse"], 3),
    }


# What happens in a step beside the step itself; half of the steps are ordinary.
EVENTS = [""] * 6 + [
    "clip",
    "accumulate",
    "closure",
    "by hand",
    "report",
    "set_to_none",
    "no gradient",
    "deepcopy",
    "pickle",
    "evaluate",
    "would drop",
    "learning rate",
]


def batch(step: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """The batch of a step, the same in every run."""
    generator = torch.Generator().manual_seed(step)
    inputs = torch.randn(8, 3, 4, 4, generator=generator).to(dtype)
    return inputs, torch.randint(8, (8,), generator=generator)


def loss_of(model: nn.Module, step: int, dtype: torch.dtype) -> torch.Tensor:
    """The loss at a step."""
    inputs, labels = batch(step, dtype)
    return nn.functional.cross_entropy(model(inputs).float(), labels)


def dense(case: dict[str, Any]) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Build the model of a case and its optimizer."""
    torch.manual_seed(case["key"])
    model = make_network(case["network"], case["width"]).to(case["dtype"])
    if case["frozen"]:
        next(model.parameters()).requires_grad_(False)
    return model, OPTIMIZERS[case["optimizer"]](model.parameters())


def make_sparse(
    case: dict[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer, state: Any = None
) -> regrow.Sparsifier:
    """Make the model of a case sparse, or resume a state."""
    inputs = batch(0, case["dtype"])[0]
    needed = {
        "loss": partial(loss_of, step=1_000, dtype=case["dtype"]),
        "inputs": inputs[:1],
        "trained": {name: value + 0.1 for name, value in model.state_dict().items()},
    }
    options = {name: needed[name] for name in _required(case["method"]) & needed.keys()}
    options |= case["options"]
    return regrow.sparsify(
        model,
        optimizer,
        case["method"](**options),
        total_steps=STEPS,
        execution=case["execution"],
        rescale=case["rescale"],
        seed=case["seed"],
        example_inputs=inputs if case["execution"] == "auto" else None,
        state=state,
    )


def _required(method: type) -> set[str]:
    fields = [field for field in dataclasses.fields(method) if field.init]
    return {f.name for f in fields if f.default is f.default_factory is dataclasses.MISSING}


def build(case: dict[str, Any]) -> tuple[nn.Module, torch.optim.Optimizer, regrow.Sparsifier]:
    """Build the model of a case and make it sparse."""
    model, optimizer = dense(case)
    return model, optimizer, make_sparse(case, model, optimizer)


def settle(case: dict[str, Any]) -> dict[str, Any]:
    """Leave out options, one after the other, until the rest go together; each refusal is checked.

    Raises:
        ValueError, TypeError: nothing is left that could be left out.
    """
    rng, options = random.Random(case["key"]), dict(case["options"])
    while True:
        try:
            build(case | {"options": options})
        except (ValueError, TypeError) as error:
            refused(error)
            if not (loose := sorted(options.keys() - {"density"})):
                raise
            del options[rng.choice(loose)]
        else:
            return case | {"options": options}


def take(case: dict[str, Any], parts: Any, step: int) -> Any:
    """Make one step, with what happens in it; returns the parts, which may be copies."""
    model, optimizer, sparse = parts
    event, dtype = case["events"][step], case["dtype"]
    optimizer.zero_grad(set_to_none=event != "set_to_none")
    if event == "closure":

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss = loss_of(model, step, dtype)
            loss.backward()
            return loss

        optimizer.step(closure)
        return parts
    if event != "no gradient":
        loss_of(model, step, dtype).backward()
    if event == "accumulate":
        loss_of(model, step + 500, dtype).backward()
    if event == "clip":
        sparse.mask_gradients_()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    if event == "learning rate":
        for group in optimizer.param_groups:
            group["lr"] *= 0.5
    optimizer.step()
    if event == "by hand":
        sparse.update_()
    if event == "evaluate":
        model.eval()
        with torch.no_grad():
            model(batch(step, dtype)[0])
        model.train()
    if event == "report":
        assert str(len(sparse.history)) in sparse.summary()
        assert sparse.metrics()["density/total"] == sparse.density
    if event == "would drop" and not sparse.method.followed:
        sparse.would_drop(Magnitude(), 0.5)
    if event == "deepcopy":
        return copy.deepcopy(parts)
    if event == "pickle":
        return pickle.loads(pickle.dumps(parts))
    return parts


def check(parts: Any, before: dict[str, torch.Tensor], updates: int) -> None:
    """Raise AssertionError unless weights, masks, counts and records agree.

    Args:
        parts: model, optimizer and sparsifier after a step.
        before: the masks before it.
        updates: how many there were before it.
    """
    model, _, sparse = parts
    masks = sparse.masks
    weights = dict(model.named_parameters())
    for name, mask in masks.items():
        weight = weights[name].detach()
        if weight.shape == mask.shape:  # one that is stored has nothing outside
            outside = int(torch.count_nonzero(weight * ~mask))
            assert outside == 0, f"{name}: {outside} weights outside the mask"
    kept, total = sum(int(m.sum()) for m in masks.values()), sum(m.numel() for m in masks.values())
    assert math.isclose(sparse.density, kept / total), f"density {sparse.density}: {kept}/{total}"
    new = sparse.history[updates:]
    moved = [name for name in masks if not torch.equal(masks[name], before[name])]
    if not new and sparse.method.name != "TopKAST":
        assert not moved, f"{moved} moved without a record"
    if len(new) == 1:
        # As it is for the way round that the layer stores its weight.
        patterns = {layer.name: layer.pattern for layer in sparse._topology.layers}
        for name, change in new[0].layers.items():
            units = [patterns[name].reduce(m.float()) > 0 for m in (before[name], masks[name])]
            active, both = int(units[1].sum()), int((units[0] & units[1]).sum())
            assert active == change.active, f"{name}: {active} units are active, {change} recorded"
            # TopKAST's masks move with the weights between updates, too.
            assert int(units[0].sum()) - both == change.dropped or sparse.method.name == "TopKAST"
            assert active - both == change.grown or sparse.method.name == "TopKAST"
    sparse._topology.check_state(sparse.state_dict()["layers"])


def saved(parts: Any) -> bytes:
    """Save a run as a user does."""
    model, optimizer, sparse = parts
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(),
                "sparse": sparse.state_dict()}, file)  # fmt: skip
    return file.getvalue()


def resumed(case: dict[str, Any], file: bytes) -> Any:
    """Load a saved run into fresh objects, in the order that was drawn."""
    state = torch.load(io.BytesIO(file), weights_only=True)
    # Without the state, timings choose anew how layers are computed, maybe otherwise.
    needs_state = case["execution"] == "auto"
    model, optimizer = dense(case)
    sparse = make_sparse(case, model, optimizer, state["sparse"] if needs_state else None)
    parts = model, optimizer, sparse
    for one, name in sorted(zip(parts, ("model", "optimizer", "sparse"), strict=True),
                            key=lambda pair: case["order"].index(pair[1])):  # fmt: skip
        one.load_state_dict(state[name])
    return parts


def same(a: Any, b: Any, path: str = "") -> str | None:
    """Return where two nested states differ; None if they are equal bit for bit."""
    if isinstance(a, torch.Tensor):
        equal = (
            a.shape == b.shape
            and a.dtype == b.dtype
            and torch.equal(a.nan_to_num(), b.nan_to_num())
        )
        return None if equal else path
    if isinstance(a, dict):
        if a.keys() != b.keys():
            return path
        return next((w for k in a if (w := same(a[k], b[k], f"{path}/{k}"))), None)
    if isinstance(a, list | tuple):
        if len(a) != len(b):
            return path
        return next((w for i, x in enumerate(a) if (w := same(x, b[i], f"{path}/{i}"))), None)
    return None if a == b else path


def case(rng: random.Random) -> str:
    """Run one training: "ran", or "refused"; raises AssertionError for what is wrong."""
    return play(draw(rng))


def play(case: dict[str, Any]) -> str:
    """Run a training that was drawn, and beside it, from some step on, a resumed copy."""
    with quiet():
        try:
            case = settle(case)
            parts = build(case)
        except (ValueError, TypeError) as error:
            return refused(error)
        other = None
        for step in range(STEPS):
            before, updates = parts[2].masks, len(parts[2].history)
            try:
                parts = take(case, parts, step)
            except (RuntimeError, FloatingPointError, ValueError, TypeError) as error:
                return refused(error)
            check(parts, before, updates)
            if other is not None:
                other = take(case, other, step)
                states = [
                    torch.load(io.BytesIO(saved(one)), weights_only=True) for one in (parts, other)
                ]
                assert not (where := same(*states)), (
                    f"resumed at {case['resume_at']}, differs: {where}"
                )
            if step == case["resume_at"]:
                other = resumed(case, saved(parts))
    return "ran"


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out warnings, logged ones too: most of what is tried here deserves one."""
    logger = logging.getLogger("regrow")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def refused(error: Exception) -> str:
    """Accept a refusal of ours, which names something and says more than a word; else raise."""
    ours = "/regrow/" in extract_tb(error.__traceback__)[-1].filename
    assert ours and len(str(error)) > 20, f"not a refusal of ours: {error!r}"
    return "refused"


if __name__ == "__main__":
    torch.set_num_threads(1)
    main("trainings", case, budget=2_000)
