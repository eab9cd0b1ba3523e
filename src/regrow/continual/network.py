"""One network that learns task after task, and answers earlier ones bit for bit as before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from operator import index
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from regrow.continual.capacity import Capacity, Reuse, Share, WhenFull, for_task
from regrow.continual.fresh import copies, take_fresh
from regrow.continual.saved import VERSION, check_state
from regrow.continual.task import Task, check_classes, count, union
from regrow.continual.views import find_head, new_head, own_tensors, write_
from regrow.engine.dynamic import Method, check_choice
from regrow.engine.layer import free_units
from regrow.engine.plan import Globs, make_plan, unwrap
from regrow.engine.saved import pack, unpack
from regrow.engine.selection import seeded_generator
from regrow.engine.sparsifier import Sparsifier
from regrow.engine.sparsify import driver, sparsify

__all__ = ["TaskNetwork"]


@dataclass
class _Learning:
    """The task that is being learnt."""

    task: int
    method: Method
    density: Any
    head: nn.Linear
    sparse: Sparsifier | None = None
    state: Mapping[str, Any] | None = None  # of a sparsifier, to resume from
    parked: dict[str, Tensor] | None = None  # all the model's tensors while another task is shown
    training: bool = True


class TaskNetwork:
    """A model that learns tasks one after another, each with a sparse network inside it.

    Weights under a mask are shared: a weight belongs to the first task that learnt it, and is
    frozen from then on; later tasks may use it in their forward pass. All else (head, norms with
    their statistics, biases, embeddings) belongs to one task. So what a task answers cannot change:
    its network is written from the store, bit for bit, whenever it is activated.

    The store is a dense copy on the CPU; the model shows one task at a time. Free weights are drawn
    anew for each task from the values their layer had at first. A mask gives no speed and, here, no
    memory: the network is as large as the dense one, and a task adds its mask at one bit a weight,
    its head and its norms.

    A task goes through ``add_task``, a new optimizer, ``sparsify``, the training loop as it was,
    and ``finish_task``. Biases and norms go with their values at that moment.

    Args:
        model: any module with linear or convolutional weights, and a linear head.
        method: how each task finds its network, such as ``regrow.SET(density=0.1)``: allocation,
            scores, schedule and period are its own; ``regrow.Static`` keeps the first topology.
        head: the name of the linear layer that gives the logits; None: the last one.
        reuse: which weights of earlier tasks take part in a task's network. "chosen": those its
            topology holds: it is drawn over all weights, and frozen ones are dropped and grown like
            any others, but always come back with their own value. "all": every one, beside as many
            free ones as the density asks for. "none".
        share: what a density is a fraction of. "fixed": all weights. "free": those that no task has
            learnt, so that capacity never runs out, and later tasks get less.
        when_full: what to do when too few are free. "error", or "reuse": make do with what is left;
            if that is nothing, with earlier tasks' weights, an own head and own norms.
        include: globs over parameter names to share, in place of linear, convolution, attention and
            recurrent weights.
        exclude: globs over parameter names that each task is to have for itself.
        seed: fixes every random choice.

    Attributes:
        tasks: those learnt, and last the one being learnt.
        active: which task the model shows; None before the first.
        plan: which weights are shared.

    Raises:
        TypeError: an argument is of another type.
        ValueError: an argument is out of range, or two do not go together.

    Example:
        >>> import regrow
        >>> model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
        >>> network = TaskNetwork(model, regrow.SET(density=0.2, update_every=5))
        >>> for task in range(2):
        ...     _ = network.add_task(classes=3 + task)
        ...     optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        ...     _ = network.sparsify(optimizer, total_steps=10)
        ...     for _ in range(10):
        ...         optimizer.zero_grad()
        ...         network.model(torch.ones(1, 8)).logsumexp(1).sum().backward()
        ...         optimizer.step()
        ...     _ = network.finish_task()
        >>> network.logits(torch.ones(1, 8), task=0).shape, network.capacity().sizes
        (torch.Size([1, 3]), (26, 26))

    Source: Yildirim et al. 2024, continual learning with dynamic sparse training (CPAL 2024).

    Differs from the released code: free weights are drawn anew, not zero; a frozen weight that is
    regrown has its value at once, not only after training; heads, biases and norms are per task;
    gradient growth may choose frozen weights; counts are exact.
    """

    def __init__(
        self,
        model: nn.Module,
        method: Method,
        *,
        head: str | None = None,
        reuse: Reuse = "chosen",
        share: Share = "fixed",
        when_full: WhenFull = "error",
        include: Globs = None,
        exclude: Sequence[str] = (),
        seed: int = 0,
    ) -> None:
        check_choice(reuse, ("chosen", "all", "none"), "reuse")
        check_choice(share, ("fixed", "free"), "share")
        check_choice(when_full, ("error", "reuse"), "when_full")
        if not isinstance(method, Method):
            raise TypeError(f"method={method!r}: one is needed, such as regrow.SET(density=0.1)")
        if (reuse, when_full) == ("none", "reuse"):
            raise ValueError("when_full='reuse' falls back on what reuse='none' rules out")
        if method.pattern.group((1, 4)) is not None and (reuse, share) != ("chosen", "fixed"):
            raise ValueError(
                f"pattern={method.pattern} keeps equally many units in every group, and what is "
                "free does not fall so: use reuse='chosen' with share='fixed'"
            )
        inner = unwrap(model)
        self.model = model
        self.method, self.reuse, self.share, self.when_full = method, reuse, share, when_full
        self.tasks: list[Task] = []
        self.active: int | None = None
        self._head_name = find_head(inner, head)
        self._include, self._exclude = include, [*exclude, f"{self._head_name}.weight"]
        self._seed = seed
        self.plan = make_plan(inner, method, include, self._exclude)
        self._shapes = {layer.name: layer.shape for layer in self.plan.layers}
        shared = {name: inner.get_parameter(name) for name in self._shapes}
        self._store = copies(shared.items())
        own = own_tensors(inner, self._shapes)
        heads = {name: own.pop(name) for name in list(own) if self._of_head(name)}
        self._fresh = take_fresh(own, shared | heads, seed)
        self._learning: _Learning | None = None
        self._guarded: Optimizer | None = None

    # ------------------------------------------------------------------ what it tells

    @property
    def learning(self) -> int | None:
        """Which task is being learnt; None between tasks."""
        return None if self._learning is None else self._learning.task

    @property
    def sparse(self) -> Sparsifier | None:
        """The sparsifier of the task that is being learnt, once ``sparsify`` was called."""
        return None if self._learning is None else self._learning.sparse

    @property
    def head(self) -> nn.Linear:
        """The head of the task that is shown."""
        module = unwrap(self.model).get_submodule(self._head_name)
        assert isinstance(module, nn.Linear)
        return module

    def parameters(self) -> Iterator[nn.Parameter]:
        """Return the model's parameters, the active task's head among them."""
        return unwrap(self.model).parameters()

    def masks(self, task: int | str) -> dict[str, Tensor]:
        """Return which shared weights take part in a task's forward pass; bool tensors by name."""
        position = self._position(task)
        if self._learning is not None and position == self._learning.task:
            return self._require_sparse(self._learning).masks
        packed = self.tasks[position].masks
        return {name: unpack(packed[name], shape) for name, shape in self._shapes.items()}

    def learnt_task(self, task: int | str) -> Task:
        """Return a task that is learnt, by number or name; ValueError if it is not."""
        one = self.tasks[self._position(task)]
        if not one.learnt:
            raise ValueError(f"task={task!r} is being learnt: finish_task() first")
        return one

    def used(self) -> dict[str, Tensor]:
        """Return which shared weights some task has learnt; bool tensors by name."""
        packed = _unions([task.masks for task in self._learnt()])
        if not packed:
            return {n: torch.zeros(shape, dtype=torch.bool) for n, shape in self._shapes.items()}
        return {name: unpack(packed[name], shape) for name, shape in self._shapes.items()}

    def capacity(self) -> Capacity:
        """Count what the learnt tasks have taken of the shared weights."""
        learnt = [task.masks for task in self._learnt()]
        used: dict[str, Tensor] = {}
        totals = [0]
        for masks in learnt:
            used = _unions([used, masks]) if used else masks
            totals.append(_count(used))
        layers = {
            name: (value.numel(), value.numel() - (count(used[name]) if used else 0))
            for name, value in self._store.items()
        }
        new = tuple(after - before for before, after in pairwise(totals))
        return Capacity(layers, tuple(map(_count, learnt)), new)

    # ------------------------------------------------------------------ a task's life

    def add_task(
        self,
        classes: int | Sequence[int | str],
        *,
        name: str | None = None,
        density: float | Mapping[str, float] | None = None,
    ) -> int:
        """Begin a task: the model gets its head, fresh norms and fresh free weights.

        Make the optimizer after this, from :meth:`parameters`: the head is a new one.

        Args:
            classes: how many, or the labels in the order of the logits.
            name: to call it by; None: its number.
            density: of this task, in place of the method's.

        Returns:
            The task's number, from 0.

        Raises:
            CapacityError: too few weights are free.
            RuntimeError: another task has not been finished.
            TypeError: an argument is of another type.
            ValueError: there is no class, or one comes twice; the name is taken; the density is out
                of range. Nothing is then changed.
        """
        if self._learning is not None:
            raise RuntimeError(f"task {self._learning.task} is being learnt: finish_task() first")
        labels, task = check_classes(classes), len(self.tasks)
        name = str(task) if name is None else name
        if name in {one.name for one in self.tasks}:
            raise ValueError(f"name={name!r}: another task has it")
        method = self._method_for(density)
        self.tasks.append(Task(name, labels))
        self._learning = _Learning(task, method, density, self._make_head(len(labels)))
        self._show_fresh(self._learning)
        return task

    def sparsify(self, optimizer: Optimizer, *, total_steps: int) -> Sparsifier:
        """Draw the task's topology, or go on with the loaded one; the optimizer then drives it.

        Args:
            optimizer: made from :meth:`parameters` since ``add_task``; of any kind, with momentum
                and weight decay: frozen weights are put back after each of its steps.
            total_steps: optimizer steps of this task; schedules refer to it.

        Returns:
            The sparsifier of this task (:func:`regrow.sparsify`).

        Raises:
            RuntimeError: no task was added, or this was called already.
            ValueError: the optimizer does not hold the head, or as for :func:`regrow.sparsify`.
        """
        learning = self._require_learning()
        if learning.sparse is not None:
            raise RuntimeError(f"task {learning.task} is sparse already: train it")
        self.activate(learning.task)
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        if not all(id(p) in held for p in learning.head.parameters() if p.requires_grad):
            raise ValueError(
                f"optimizer does not hold {self._head_name}, the head of task {learning.task}: "
                "make it from network.parameters() after add_task() or load_state_dict()"
            )
        used = self.used() if any(self._learnt()) else {}
        frozen = used if self.reuse == "chosen" else {}
        available = {} if frozen else {name: ~mask for name, mask in used.items()}
        self._guard_(driver(optimizer))
        learning.sparse = sparsify(
            self.model,
            optimizer,
            learning.method,
            total_steps=total_steps,
            include=self._include,
            exclude=self._exclude,
            available=available,
            frozen=frozen,
            seed=seeded_generator(self._seed, "task", learning.task).initial_seed() >> 1,
            state=learning.state,
        )
        learning.state = None
        return learning.sparse

    def finish_task(self) -> Task:
        """Freeze the task that is being learnt, and show it as it will be answered for ever.

        Raises:
            RuntimeError: no task is being learnt, or it was never made sparse.
        """
        learning = self._require_learning()
        sparse = self._require_sparse(learning)
        self.activate(learning.task)
        inner, used = unwrap(self.model), self.used()
        masks = {name: mask.cpu() for name, mask in sparse.masks.items()}
        if self.reuse == "all":  # a frozen zero is one of the task's weights, too
            masks = {name: mask | used[name] for name, mask in masks.items()}
        for name, mask in masks.items():
            new = mask & ~used[name]
            value = inner.get_parameter(name).detach().to(self._store[name])
            self._store[name] = torch.where(new, value, self._store[name])
        task = self.tasks[learning.task]
        task.masks = {name: pack(mask) for name, mask in masks.items()}
        task.own = self._own()
        sparse.remove()
        self._learning = None
        self.activate(learning.task)
        return task

    # ------------------------------------------------------------------ which task is shown

    def activate(self, task: int | str) -> None:
        """Let the model show a task, in eval mode; the task being learnt goes on as it was.

        While a task is being learnt, others may be looked at: its weights, statistics and mode are
        put aside, and come back when it is activated again. Until then the optimizer refuses to
        step.

        Raises:
            ValueError: there is no such task.
        """
        position, learning = self._position(task), self._learning
        if learning is not None and position == learning.task:
            self._unpark(learning)
        else:
            if learning is not None and learning.parked is None:
                learning.parked = copies(self._everything().items())
                learning.training = self.model.training
            self._show(self.tasks[position])
            self.model.eval()
        self.active = position

    @contextmanager
    def shown(self, task: int | str) -> Iterator[nn.Module]:
        """Show a task for a while, in eval mode; afterwards the task and mode of before."""
        before, mode = self.active, self.model.training
        self.activate(task)
        self.model.eval()
        try:
            yield self.model
        finally:
            if before is not None:
                self.activate(before)
            self.model.train(mode)

    def logits(self, inputs: Tensor, task: int | str) -> Tensor:
        """Return a task's logits, one for each of its classes, in eval mode and without gradients.

        Raises:
            ValueError: there is no such task.
        """
        with self.shown(task) as model, torch.no_grad():
            outputs: Tensor = model(inputs)
        return outputs

    # ------------------------------------------------------------------ save and restore

    def state_dict(self) -> dict[str, Any]:
        """Return all that was learnt, be a task half learnt: tensors, numbers and strings only.

        The model's and the optimizer's own states are not in it; the model's need not be saved.
        """
        learning = self._learning
        return {
            "version": VERSION,
            "settings": self._settings(),
            "store": dict(self._store),
            "fresh": dict(self._fresh.own),
            "samples": dict(self._fresh.samples),
            "tasks": [task.state_dict() for task in self.tasks],
            "active": self.active,
            "learning": None if learning is None else self._learning_state(learning),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a saved state. A half-learnt task goes on after :meth:`sparsify`.

        Make the optimizer after this, load its own state, and call ``sparsify``: training goes on
        bit for bit as if it had not stopped.

        Raises:
            ValueError: the state is damaged, or of another model, method or setting. Nothing is
                then changed.
        """
        own = own_tensors(unwrap(self.model), self._shapes)
        names = {name: tuple(t.shape) for name, t in own.items() if not self._of_head(name)}
        heads = [name for name in own if self._of_head(name)]
        check_state(state, self._settings(), self._shapes, names, heads, self.head.in_features)
        if self._learning is not None and self._learning.sparse is not None:
            self._learning.sparse.remove()
        self._learning, self.active = None, None
        self._store = copies(state["store"].items())
        own_values, samples = copies(state["fresh"].items()), copies(state["samples"].items())
        self._fresh = replace(self._fresh, own=own_values, samples=samples)
        self.tasks = [Task.from_state(task) for task in state["tasks"]]
        if (saved := state["learning"]) is not None:
            self._resume(saved)
        if state["active"] is not None:
            self.activate(state["active"])

    def _learning_state(self, learning: _Learning) -> dict[str, Any]:
        values = learning.parked or copies(self._everything().items())
        sparse = learning.sparse.state_dict() if learning.sparse else learning.state
        return {"density": learning.density, "values": values, "sparse": sparse}

    def _resume(self, saved: Mapping[str, Any]) -> None:
        task = len(self.tasks) - 1
        method = self._method_for(saved["density"])
        head = new_head(self.head, len(self.tasks[task].classes))
        self._learning = _Learning(task, method, saved["density"], head, state=saved["sparse"])
        self._learning.parked = dict(saved["values"])
        self.activate(task)

    # ------------------------------------------------------------------ inside

    def _settings(self) -> dict[str, Any]:
        return {
            "method": repr(self.method),
            "reuse": self.reuse,
            "share": self.share,
            "when_full": self.when_full,
            "seed": self._seed,
            "head": self._head_name,
        }

    def _of_head(self, name: str) -> bool:
        return name.startswith(f"{self._head_name}.")

    def _learnt(self) -> list[Task]:
        return [task for task in self.tasks if task.learnt]

    def _position(self, task: int | str) -> int:
        names = [one.name for one in self.tasks]
        if isinstance(task, str) and task in names:
            return names.index(task)
        if not isinstance(task, str | bool) and 0 <= index(task) < len(names):
            return index(task)
        known = ", ".join(f"{i} ({n})" if str(i) != n else n for i, n in enumerate(names))
        raise ValueError(f"task={task!r} was never added; those are {known or 'none'}")

    def _require_learning(self) -> _Learning:
        if self._learning is None:
            raise RuntimeError("no task is being learnt: add_task() first")
        return self._learning

    def _require_sparse(self, learning: _Learning) -> Sparsifier:
        if learning.sparse is None:
            raise RuntimeError(f"task {learning.task} has no topology yet: call sparsify() first")
        return learning.sparse

    def _method_for(self, density: Any) -> Method:
        method = self.method if density is None else replace(self.method, density=density)
        used = self.used()
        free = {n: int(free_units(method.pattern, ~mask).sum()) for n, mask in used.items()}
        return for_task(
            method,
            self._shapes,
            free,
            reuse=self.reuse,
            share=self.share,
            when_full=self.when_full,
            earlier=len(self._learnt()),
        )

    def _make_head(self, outputs: int) -> nn.Linear:
        """Make a task's head; the first task keeps the model's own if it fits."""
        if not self.tasks[:-1] and outputs == self.head.out_features:
            return self.head
        head = new_head(self.head, outputs)
        with torch.no_grad():
            for name, value in head.named_parameters():
                full = f"{self._head_name}.{name}"
                value.copy_(self._fresh.draw(full, tuple(value.shape), len(self.tasks) - 1))
        return head

    def _own(self) -> dict[str, Tensor]:
        """Copy what belongs to the active task; what is as it was at first is stored once."""
        own = copies(own_tensors(unwrap(self.model), self._shapes).items())
        first = self._fresh.own
        return {n: first[n] if n in first and _same(first[n], v) else v for n, v in own.items()}

    def _everything(self) -> dict[str, Tensor]:
        return own_tensors(unwrap(self.model), ())

    def _show_fresh(self, learning: _Learning) -> None:
        inner = unwrap(self.model)
        inner.set_submodule(self._head_name, learning.head)
        write_(inner, self._fresh.own)
        used = self.used()
        for name, shape in self._shapes.items():
            fresh = self._fresh.draw(name, shape, learning.task)
            value = self._store[name]
            if learning.task:
                earlier = torch.zeros_like(value) if self.reuse == "none" else value
                value = torch.where(used[name], earlier, fresh.to(value))
            write_(inner, {name: value})
        for parameter in inner.parameters():
            parameter.grad = None
        self.active = learning.task
        self.model.train()

    def _show(self, task: Task) -> None:
        """Write a learnt task into the model."""
        inner = unwrap(self.model)
        inner.set_submodule(self._head_name, new_head(self.head, len(task.classes)))
        for name, shape in self._shapes.items():
            mask = unpack(task.masks[name], shape)
            write_(inner, {name: torch.where(mask, self._store[name], 0)})
        write_(inner, task.own)

    def _unpark(self, learning: _Learning) -> None:
        if learning.parked is None:
            return
        inner = unwrap(self.model)
        inner.set_submodule(self._head_name, learning.head)
        write_(inner, learning.parked)
        learning.parked = None
        self.model.train(learning.training)

    def _guard_(self, optimizer: Optimizer) -> None:
        """Let the optimizer step only while the task it is to learn is shown."""
        if self._guarded is optimizer:
            return
        task = self._require_learning().task
        self._guarded = optimizer

        def check(driven: Optimizer, *_: Any) -> None:
            if self._guarded is not driven or self.learning is None:
                raise RuntimeError(
                    f"the optimizer of task {task} stepped, but that task is finished: make a new "
                    "one after add_task(), and call sparsify()"
                )
            if self.active != self.learning:
                raise RuntimeError(
                    f"the optimizer stepped while task {self.active} was shown: "
                    f"activate({self.learning}) first"
                )

        optimizer.register_step_pre_hook(check)


def _unions(masks: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: union(one[name] for one in masks) for name in masks[0]} if masks else {}


def _count(masks: Mapping[str, Tensor]) -> int:
    return sum(map(count, masks.values()))


def _same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a, b)
