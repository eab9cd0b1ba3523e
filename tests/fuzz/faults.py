"""Interruptions at random torch operators: a state is the old one or the new one, bit for bit.

A training is drawn as in :mod:`tests.fuzz.trainings`. On it something is done that must be whole or
not at all: made sparse, updated, loaded. It is interrupted before or after one operator.
"""

from __future__ import annotations

import copy
import io
import random
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.fuzz.budget import main
from tests.fuzz.trainings import (
    build,
    dense,
    draw,
    make_sparse,
    quiet,
    refused,
    same,
    saved,
    settle,
    take,
)

ERRORS = (MemoryError, KeyboardInterrupt, RuntimeError)


class Fault(TorchDispatchMode):
    """Raises at the n-th torch operator, before it is computed or after; counts them."""

    def __init__(
        self, n: int | None = None, error: type[BaseException] = MemoryError, *, after: bool = False
    ) -> None:
        super().__init__()
        self.n, self.error, self.after, self.count = n, error, after, 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        self.count += 1
        if self.count == self.n and not self.after:
            raise self.error("a fault")
        made = function(*args, **(kwargs or {}))
        if self.count == self.n:
            raise self.error("a fault")
        return made


def state(parts: Any) -> dict[str, Any]:
    """All that a model, an optimizer and, where there is one, a sparsifier hold."""
    model, optimizer, *sparse = parts
    held = {id(p): name for name, p in model.named_parameters()}
    found = {
        "model": model.state_dict(),
        "modules": {name: type(module).__name__ for name, module in model.named_modules()},
        "optimizer": optimizer.state_dict(),
        "holds": [held.get(id(p)) for group in optimizer.param_groups for p in group["params"]],
        "hooks": len(optimizer._optimizer_step_pre_hooks),
        "sparse": [one.state_dict() for one in sparse if one is not None],
    }
    return copy.deepcopy(found)


def interrupted(make: Callable[[], Any], act: Callable[[Any], Any], rng: random.Random) -> str:
    """Interrupt an act at a drawn operator; raise AssertionError if what is left is torn."""
    parts = make()
    old = state(parts)
    fault = Fault()
    with fault:
        made = act(parts)
    new = state((*parts[:2], *([made] if made is not None else parts[2:])))
    if not fault.count:
        return "nothing to interrupt"
    n, error, after = rng.randint(1, fault.count), rng.choice(ERRORS), rng.random() < 0.5
    parts = make()
    try:
        with Fault(n, error, after=after):
            act(parts)
    except error:
        pass
    else:
        raise AssertionError(f"a {error.__name__} at operator {n} was swallowed")
    now = state(parts)
    torn = [where for one in (old, new) if (where := same(one, now))]
    assert len(torn) < 2, f"{error.__name__} at {n} of {fault.count}, {after=}: torn at {torn}"
    return "left as it was" if same(old, now) is None else "finished"


def case(rng: random.Random) -> str:
    """Interrupt one thing that is done to a random training."""
    act = rng.choice(["made sparse", "updated", "loaded"])
    with quiet():
        try:
            drawn = draw(rng)
            if drawn["execution"] == "auto":  # chosen by timing: two builds are not the same
                drawn["execution"] = "masked"
            drawn = settle(drawn)
            done = _act(act, drawn, rng)
        except (ValueError, TypeError, FloatingPointError, RuntimeError) as error:
            return f"{act}: {refused(error)}"
    return f"{act}: {done}"


def _act(act: str, drawn: dict[str, Any], rng: random.Random) -> str:
    if act == "made sparse":
        return interrupted(lambda: dense(drawn), lambda parts: make_sparse(drawn, *parts), rng)
    steps = rng.randint(1, 6)

    def trained() -> Any:
        parts = build(drawn)
        for step in range(steps):
            parts = take(drawn, parts, step)
        return parts

    def update(parts: Any) -> None:
        parts[2].update_()

    later = trained()
    for step in range(steps, steps + 4):
        later = take(drawn, later, step)
    file = saved(later)

    def load(parts: Any) -> None:
        parts[2].load_state_dict(torch.load(io.BytesIO(file), weights_only=True)["sparse"])

    return interrupted(trained, {"updated": update, "loaded": load}[act], rng)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main("faults", case, budget=2_000)
