"""Tables of the study's page: all accuracies, layer-wise densities, costs."""

from __future__ import annotations

from collections.abc import Iterator

from regrow.lab.records import Record, Records
from regrow.lab.report import Folded, Section, Table, cell, if_there
from regrow.lab.statistics import Interval, mean_interval
from regrow.studies.hard_samples.conditions import Condition
from regrow.studies.hard_samples.methods import WHOLE
from regrow.studies.hard_samples.view import Task, tasks

__all__ = ["tables"]

_FIELDS = {
    "accuracy": "",
    "clean_accuracy": ", on clean images",
    "robust_accuracy": ", on attacked images",
}


def tables(records: Records) -> Iterator[Section]:
    """Make the tables of every task."""
    for task in tasks(records):
        yield from _accuracies(task)
        yield from _layers(task)
        yield from _costs(task)


def _accuracies(task: Task) -> Iterator[Section]:
    folded = []
    for condition in task.conditions:
        for field, words in _FIELDS.items():
            densities = task.densities(condition, "small dense")
            rows = []
            for name in task.methods(condition):
                found = [_mean(task, name, density, condition, field) for density in densities]
                if any(found):
                    rows.append((name, *(cell(one) for one in found)))
            if rows:
                columns = ("", *(f"density {d:g}" for d in densities))
                summary = f"{condition}{words}: {_about(task, condition)}"
                folded.append(Folded(summary, table=Table(columns, rows)))
    yield Section(
        f"All accuracies: {task.name}",
        "Test accuracy in per cent, mean ± half the 95 % interval (Student's t), and n. LTH and "
        "OMP train a dense network first, for as many epochs; dense twice goes on as OMP does, "
        "with nothing pruned.",
        folded=folded,
    )


def _about(task: Task, condition: Condition) -> str:
    record = next(iter(task.under(condition)))
    said = f"{record.get('train_samples'):,} samples, {record.get('epochs')} epochs"
    if condition.pick != "random":
        counts = record.get("class_counts")
        said += f", {min(counts):,} to {max(counts):,} of a class"
    return said


def _layers(task: Task) -> Iterator[Section]:
    """Tell how dense each layer is at the least density, of the condition with most methods."""
    condition = _with_most_methods(task)
    names = [n for n in task.methods(condition) if n not in (*WHOLE, "small dense")]
    found = {
        name: record
        for name in names
        if (record := _sparsest(task, name, condition)) is not None and record.result["densities"]
    }
    if not found:
        return
    layers = list(next(iter(found.values())).result["densities"])
    rows = [
        (layer, *(f"{record.result['densities'].get(layer, 1.0):.3f}" for record in found.values()))
        for layer in layers
    ]
    least = min(task.densities(condition, names[0]))
    yield Section(
        f"Density of each layer: {task.name}, {condition}, density {least:g}",
        "After training, of the first seed; layers from the input to the output. ERK decides those "
        "of SET and RigL, SNIP also those of SNIP ratios, magnitude those of GMP, OMP and LTH.",
        table=Table(("layer", *found), rows),
    )


def _with_most_methods(task: Task) -> Condition:
    return max(task.conditions, key=lambda condition: len(task.methods(condition)))


def _sparsest(task: Task, name: str, condition: Condition) -> Record | None:
    least = min(task.densities(condition, "small dense"), default=0.0)
    return next(iter(sorted(task.one(name, least, condition), key=_seed)), None)


def _seed(record: Record) -> int:
    return int(record.config["seed"])


def _costs(task: Task) -> Iterator[Section]:
    """Tell what each method costs at the least density, as a share of the dense network's."""
    rows = []
    most = _with_most_methods(task)
    for condition in [c for c in task.conditions if c == most or c.attacked]:
        dense = next(iter(task.one("dense", 1.0, condition)), None)
        if dense is None or dense.get("training_flops") is None:
            continue
        for name in task.methods(condition):
            record = None if name == "dense" else _sparsest(task, name, condition)
            if record is None:
                continue
            shares = [_training(record) / _training(dense)]
            for field in ("inference_flops", "bytes_needed"):
                shares.append(record.get(field) / dense.get(field))
            rows.append((f"{condition}: {name}", *(f"{share:.3f}" for share in shares)))
    if rows:
        yield Section(
            f"What it costs, counted: {task.name}, least density",
            "As a fraction of the dense network's under the same condition. Training counts the "
            "attacks and, for LTH, OMP and dense twice, the dense network before; not the scores, "
            "which all trials share. Networks were trained under masks, which saves nothing: this "
            "is what active weights alone would take.",
            table=Table(("", "training FLOPs", "inference FLOPs", "bytes"), rows),
        )


def _training(record: Record) -> float:
    parts = ("training_flops", "attack_flops", "pretraining_flops")
    return sum(float(record.get(part) or 0.0) for part in parts)


def _mean(
    task: Task, name: str, density: float, condition: Condition, field: str
) -> Interval | None:
    return if_there(lambda: mean_interval(task.found(name, density, condition, field)))
