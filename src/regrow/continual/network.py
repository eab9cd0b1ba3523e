"""A network that learns task after task; outputs of earlier tasks stay the same, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from operator import index
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from regrow.continual.capacity import Capacity, Reuse, Share, WhenFull, for_task, measure
from regrow.continual.guard import guard_
from regrow.continual.learning import Learning
from regrow.continual.saved import VERSION, check_state
from regrow.continual.task import Task, check_classes, union, warn_if_shared
from regrow.continual.views import View, find_head, new_head
from regrow.engine.checks import check_choice, check_integer
from regrow.engine.layer import free_units
from regrow.engine.layouts import turned
from regrow.engine.method import Method
from regrow.engine.plan import Globs, make_plan
from regrow.engine.saved import pack, unpack
from regrow.engine.selection import seeded_generator
from regrow.engine.sparsifier import Sparsifier
from regrow.engine.sparsify import driver, sparsify
from regrow.engine.wrappers import unwrap

__all__ = ["TaskNetwork"]


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
    and ``finish_task``. Biases and norms go with their values at that moment. ``drop_task`` gives
    it up instead. What is not finite is never kept.

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
        learning: the task being learnt; None between tasks.
        plan: which weights are shared.
        current: all about the task being learnt; ``current.sparse`` is its sparsifier.
        optimizer: what drives it.
        view: the model, the store that it is written from, and the head that is shown.

    Raises:
        TypeError: an argument is of another type.
        ValueError: an argument is out of range, two do not go together, or a weight is not finite.

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
        _check_choices(method, reuse, share, when_full)
        seed = check_integer(seed, "seed")
        inner = unwrap(model)
        head = find_head(inner, head)
        self._include, self._exclude = include, [*exclude, f"{head}.weight"]
        self.plan = make_plan(inner, method, include, self._exclude)
        self._shapes = {layer.name: layer.shape for layer in self.plan.layers}
        self.view = View(model, head, self._shapes, seed)
        self.model, self.method, self.seed = model, method, seed
        self.reuse, self.share, self.when_full = reuse, share, when_full
        self.tasks: list[Task] = []
        self.active: int | None = None
        self.current: Learning | None = None
        self.optimizer: Optimizer | None = None
        self._guarded: WeakSet[Optimizer] = WeakSet()

    # ------------------------------------------------------------------ what it tells

    def __repr__(self) -> str:
        """Tell in a line what it is and which tasks it has; its model tells its layers."""
        now = "" if self.learning is None else f", learning {self.tasks[-1].name!r}"
        kind, learnt = type(self.model).__name__, sum(task.learnt for task in self.tasks)
        return f"TaskNetwork({kind}, {type(self.method).__name__}: {learnt} tasks learnt{now})"

    @property
    def learning(self) -> int | None:
        """Which task is being learnt; None between tasks."""
        return None if self.current is None else self.current.task

    @property
    def learnt(self) -> list[Task]:
        """The tasks that are finished."""
        return self.tasks if self.current is None else self.tasks[:-1]

    def parameters(self) -> Iterator[nn.Parameter]:
        """Return the model's parameters, the head of the task that is shown among them."""
        return unwrap(self.model).parameters()

    def number(self, task: int | str) -> int:
        """Return a task's number.

        Raises:
            ValueError: there is no such task.
        """
        names = [one.name for one in self.tasks]
        if isinstance(task, str) and task in names:
            return names.index(task)
        if not isinstance(task, str | bool) and 0 <= index(task) < len(names):
            return index(task)
        raise ValueError(f"task={task!r} was never added; those are {', '.join(names) or 'none'}")

    def masks(self, task: int | str) -> dict[str, Tensor]:
        """Return which shared weights take part in a task's forward pass; bool tensors by name."""
        number = self.number(task)
        if self.current is not None and number == self.current.task:
            return self.current.topology().masks
        packed = self.tasks[number].masks
        return {name: unpack(packed[name], shape) for name, shape in self._shapes.items()}

    def used(self) -> dict[str, Tensor]:
        """Return which shared weights some task has learnt; bool tensors by name."""
        if not self.learnt:
            return {n: torch.zeros(shape, dtype=torch.bool) for n, shape in self._shapes.items()}
        return {
            name: unpack(union(task.masks[name] for task in self.learnt), shape)
            for name, shape in self._shapes.items()
        }

    def capacity(self) -> Capacity:
        """Count what the learnt tasks have taken of the shared weights."""
        sizes = {name: value.numel() for name, value in self.view.store.items()}
        return measure(sizes, [task.masks for task in self.learnt])

    # ------------------------------------------------------------------ a task's life

    def add_task(
        self,
        classes: int | Sequence[int | str],
        *,
        name: str | None = None,
        density: float | Mapping[str, float] | None = None,
    ) -> int:
        """Begin a task: the model gets its head, fresh norms and fresh free weights, to be trained.

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
        if self.current is not None:
            raise RuntimeError(
                f"task {self.current.task} is being learnt: finish_task() or drop_task() first"
            )
        labels, number = check_classes(classes), len(self.tasks)
        name = str(number) if name is None else name
        if name in {one.name for one in self.tasks}:
            raise ValueError(f"name={name!r}: another task has it; give another")
        warn_if_shared(labels, self.tasks, classes)
        method = self._method_for(density)
        head = self.view.make_head(number, len(labels))
        self.view.begin(number, head, self.used(), reuse=self.reuse != "none")
        self.current = Learning(number, density, method, head)
        self.tasks.append(Task(name, labels))
        self.active = number
        self.model.train()
        return number

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
        current = self._current()
        if current.sparse is not None:
            raise RuntimeError(f"task {current.task} is sparse already: train it")
        self.activate(current.task)
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        if not all(id(p) in held for p in current.head.parameters() if p.requires_grad):
            raise ValueError(
                f"optimizer does not hold {self.view.head_name}, the head of task {current.task}: "
                "make it from network.parameters() after add_task() or load_state_dict()"
            )
        used = self.used() if self.learnt else {}
        chosen = self.reuse == "chosen"
        driven = driver(optimizer)
        if current.state is None:  # what is frozen is frozen at what the model shows
            self.view.show_shared(used, reuse=self.reuse != "none")
        handle = None if driven in self._guarded else guard_(driven, self)
        try:
            current.sparse = sparsify(
                self.model,
                optimizer,
                current.method,
                total_steps=total_steps,
                include=self._include,
                exclude=self._exclude,
                available={} if chosen else {name: ~mask for name, mask in used.items()},
                frozen=used if chosen else {},
                seed=seeded_generator(self.seed, "task", current.task).initial_seed() >> 1,
                state=current.state,
            )
        except BaseException:
            if handle is not None:
                handle.remove()
            raise
        self._guarded.add(driven)
        self.optimizer, current.state = driven, None
        return current.sparse

    def finish_task(self) -> Task:
        """Freeze the task that is being learnt, and show it as it will be answered for ever.

        Raises:
            RuntimeError: no task is being learnt, or it was never made sparse.
            FloatingPointError: what it has learnt is not finite. Nothing is then changed.
        """
        current, used = self._current(), self.used()
        sparse = current.topology()
        masks = {name: mask.cpu() for name, mask in sparse.masks.items()}
        if self.reuse == "all":  # a frozen zero is one of the task's weights, too
            masks = {name: mask | used[name] for name, mask in masks.items()}
        new = {name: mask & ~used[name] for name, mask in masks.items()}
        if odd := self.view.not_finite(new, current.parked):
            raise FloatingPointError(
                f"task {current.task}: {', '.join(odd[:5])} holds NaN or infinity, which would "
                "stay for ever; nothing was changed: drop_task(), and train it anew, as a rule "
                "with a lower learning rate"
            )
        self.activate(current.task)
        self.view.learn(new)
        task = self.tasks[current.task]
        task.masks = {name: pack(mask) for name, mask in masks.items()}
        task.own = self.view.own()
        sparse.remove()
        self.current, self.optimizer = None, None
        self.activate(current.task)
        return task

    def drop_task(self) -> None:
        """Give up the task that is being learnt, as if it had never been added.

        The task before is shown, or, if there is none, the network as it was at first. The dropped
        task's optimizer refuses to step.

        Raises:
            RuntimeError: no task is being learnt.
        """
        current = self._current()
        if current.sparse is not None:
            current.sparse.remove()
        self.tasks.pop()
        self.current, self.optimizer, self.active = None, None, None
        if self.tasks:
            self.activate(len(self.tasks) - 1)
        else:
            self.view.show_first()

    # ------------------------------------------------------------------ which task is shown

    def activate(self, task: int | str) -> None:
        """Let the model show a task, in eval mode; the task being learnt goes on as it was.

        While a task is being learnt, others may be looked at: its weights, statistics and mode are
        put aside, and come back when it is activated again. Until then the optimizer refuses to
        step.

        Raises:
            ValueError: there is no such task.
        """
        number, current = self.number(task), self.current
        if current is not None and number == current.task:
            current.unpark(self.view)
        else:
            if current is not None:
                current.park(self.view)
            self.view.show(self.tasks[number])
            self.model.eval()
        self.active = number

    @contextmanager
    def shown(self, task: int | str) -> Iterator[nn.Module]:
        """Show a task for a while, in eval mode; afterwards the task and mode of before.

        Raises:
            ValueError: there is no such task.
        """
        number, before, mode = self.number(task), self.active, self.model.training
        self.activate(number)
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

        The model's own state need not be saved beside it; the optimizer's must, to resume.
        """
        current = self.current
        return {
            "version": VERSION,
            "settings": self._settings(),
            "store": dict(self.view.store),
            "fresh": dict(self.view.fresh.own),
            "samples": dict(self.view.fresh.samples),
            "tasks": [task.state_dict() for task in self.tasks],
            "active": self.active,
            "learning": None if current is None else current.state_dict(self.view),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a saved state. A half-learnt task goes on after :meth:`sparsify`.

        Make the optimizer after this, load its own state, and call ``sparsify``: training goes on
        bit for bit as if it had not stopped.

        Raises:
            ValueError: the state is damaged, or of another model, method or setting. Nothing is
                then changed.
        """
        check_state(state, self._settings(), self.view)
        if self.current is not None and self.current.sparse is not None:
            self.current.sparse.remove()
        self.current, self.active, self.optimizer = None, None, None
        self.view.load(state["store"], state["fresh"], state["samples"])
        self.tasks = [Task.from_state(task) for task in state["tasks"]]
        if (saved := state["learning"]) is not None:
            last = self.tasks.pop()
            density, method = saved["density"], self._method_for(saved["density"])
            head = new_head(self.view.head, len(last.classes))
            self.current = Learning(len(self.tasks), density, method, head, state=saved["sparse"])
            self.current.parked = dict(saved["values"])
            self.tasks.append(last)
            self.activate(self.current.task)
        if state["active"] is not None:
            self.activate(state["active"])

    def __getstate__(self) -> dict[str, Any]:
        """Leave behind which optimizers are guarded: hooks belong to one optimizer object."""
        return {name: value for name, value in self.__dict__.items() if name != "_guarded"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Guard the optimizer that came along."""
        self.__dict__.update(state)
        self._guarded = WeakSet()
        if self.optimizer is not None:
            guard_(self.optimizer, self)
            self._guarded.add(self.optimizer)

    # ------------------------------------------------------------------ inside

    def _settings(self) -> dict[str, Any]:
        """Return what a saved state must have been made with."""
        return {
            "method": self.method.name,
            "reuse": self.reuse,
            "share": self.share,
            "when_full": self.when_full,
            "seed": self.seed,
            "head": self.view.head_name,
        }

    def _current(self) -> Learning:
        if self.current is None:
            raise RuntimeError("no task is being learnt: add_task() first")
        return self.current

    def _method_for(self, density: float | Mapping[str, float] | None) -> Method:
        method = self.method if density is None else replace(self.method, density=density)
        layers, used = self.plan.layers, self.used()
        free = {
            one.name: int(free_units(turned(method.pattern, one.layout), ~used[one.name]).sum())
            for one in layers
        }
        return for_task(
            method,
            layers,
            free,
            reuse=self.reuse,
            share=self.share,
            when_full=self.when_full,
            earlier=len(self.learnt),
        )


def _check_choices(method: Method, reuse: Reuse, share: Share, when_full: WhenFull) -> None:
    if not isinstance(method, Method):
        raise TypeError(f"method={method!r}: one is needed, such as regrow.SET(density=0.1)")
    check_choice(reuse, ("chosen", "all", "none"), "reuse")
    check_choice(share, ("fixed", "free"), "share")
    check_choice(when_full, ("error", "reuse"), "when_full")
    if (reuse, when_full) == ("none", "reuse"):
        raise ValueError("when_full='reuse' falls back on what reuse='none' rules out")
    if method.pattern.group((1, 4)) is not None and (reuse, share) != ("chosen", "fixed"):
        raise ValueError(
            f"pattern={method.pattern} keeps equally many units in every group, and what is free "
            "does not fall so: use reuse='chosen' with share='fixed'"
        )
