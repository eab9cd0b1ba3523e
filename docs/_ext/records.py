"""``{record} NAME``: a table made from a record in ``results/`` when the pages are built."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from regrow.lab.effects import level
from regrow.lab.section import estimate
from regrow.lab.statistics import mean_interval, paired_interval
from regrow.lab.study_page import find
from regrow.studies.demo import STUDY
from regrow.studies.demo_page import demo_table
from regrow.studies.execution import bench
from regrow.studies.registry import load_study
from regrow.studies.sample_pruning.claims import over_cyclic
from regrow.studies.sample_pruning.design import ARMS

RESULTS = Path(__file__).parents[2] / "results"
Rows = list[tuple[str, ...]]


def load(name: str) -> dict[str, Any]:
    """Read a record."""
    content: dict[str, Any] = json.loads((RESULTS / name).read_text("utf-8"))
    return content


def cpu_part(part: str) -> list[dict[str, Any]]:
    """Return the ways that one part of ``regrow bench execution`` compared."""
    record = load("execution/cpu.json")
    ways: list[dict[str, Any]] = next(p for p in record["parts"] if p["part"] == part)["ways"]
    return ways


def cpu(part: str) -> tuple[Rows, str]:
    """Tell one part of ``regrow bench execution``."""
    record = load("execution/cpu.json")
    found = next((one for one in record["parts"] if one["part"] == part), None)
    if found is None:
        return [], ""
    where = found.get("environment", record["environment"])  # parts may be measured one by one
    measured = f"{where['cpu']}, {where['threads']} threads, torch {where['torch']}"
    return bench.table(found), f"{found['title']}. {measured}, {where['kernels']}."


def demo() -> tuple[Rows, str]:
    """Tell what `regrow demo` found."""
    found = find((RESULTS / "demo",), lambda _: STUDY)
    made = demo_table(found.view)
    said = "By `regrow demo`, five seeds. " + made.note
    return [tuple(made.columns), *(tuple(map(str, row)) for row in made.rows)], said


def block_layers(name: str, arithmetic: str) -> tuple[Rows, str]:
    """Tell how fast block-sparse layers are."""
    record = load(f"execution/{name}.json")
    rows: Rows = [("block", "density", "dense ms", "block ms", "forward", "dX", "dW", "× faster")]
    for row in record["rows"]:
        parts = (f"{row[part]['ratio']:.2f}" for part in ("forward", "dX", "dW", "total"))
        times = (f"{row['ms'][way]:.3f}" for way in ("dense", "block"))
        rows.append((str(row["block"]), f"{row['density']:g}", *times, *parts))
    layer = "Forward and both gradients of a 4096×4096 layer, 16,384 tokens, CUDA graphs"
    return rows, f"{layer}, {arithmetic}. {_gpu(record)}."


def block_launched() -> tuple[Rows, str]:
    """Tell how fast block-sparse layers are as training launches them."""
    record = load("execution/block-launched.json")
    header = ("width", "tokens", "arithmetic", "density", "dense ms", "block ms", "× faster")
    rows: Rows = [(*header, "in CUDA graphs", "host µs, dense", "host µs, block")]
    for row in record["rows"]:
        launched, tf32 = row["launched"], row.get("dtype") == "float32"
        what = (f"{row['in']}", f"{row['tokens']:,}", "TF32" if tf32 else "bfloat16")
        times = (f"{launched['ms'][way]:.2f}" for way in ("dense", "block"))
        ratios = (f"{found['total']['ratio']:.2f}" for found in (launched, row))
        host = (f"{launched['host_us'][way]:.0f}" for way in ("dense", "block"))
        rows.append((*what, f"{row['density']:g}", *times, *ratios, *host))
    layer = "Forward and both gradients of square layers as they are launched, blocks of 128"
    return rows, f"{layer}; and what the host takes to launch them. {_gpu(record)}."


def transformer() -> tuple[Rows, str]:
    """Tell how fast a transformer block is."""
    record = load("execution/transformer-block.json")
    rows: Rows = [
        ("parameters", "torch.compile", "dense ms", "block ms", "× faster", "middle half")
    ]
    for row in record["rows"]:
        compiled = "both" if row["compiled"] else "neither"
        times = (f"{row['ms'][way]:.2f}" for way in ("dense", "block"))
        total = row["total"]
        spread = f"{total['low']:.2f}-{total['high']:.2f}"
        rows.append((row["parameters"], compiled, *times, f"{total['ratio']:.2f}", spread))
    what = (
        "A whole training step of a transformer block of width 4096 at density 0.1 in blocks of "
        "128, 4×2048 tokens, bfloat16 arithmetic, fused AdamW, CUDA graphs"
    )
    return rows, f"{what}. {_gpu(record)}."


def kernel_layers() -> tuple[Rows, str]:
    """Tell how fast fusion convolutions of whole kernels are on a CPU."""
    record = load("execution/kernelwise.json")
    densities = [name.split()[1] for name in record["layers"][0]["ms"] if name[:7] == "kernels"]
    rows: Rows = [("level", "dense ms", *(f"{d}: ms (× faster)" for d in densities))]
    for row in record["layers"]:
        ms = row["ms"]
        dense = min(ms["dense"], ms["dense channels last"])
        times = [ms[f"kernels {density}"] for density in densities]
        cells = (f"{time:.1f} ({dense / time:.1f})" for time in times)
        rows.append((str(row["level"]), f"{dense:.1f}", *cells))
    what = "Fusion convolutions of E2ENet by density, a volume of 16×64×64, float32, CPU time"
    return rows, f"{what}. {_cpu(record)}."


def kernel_networks() -> tuple[Rows, str]:
    """Tell how fast whole networks with such convolutions are on a CPU."""
    record = load("execution/kernelwise.json")
    rows: Rows = [("network", "ms", "channels last, ms")]
    for name, ms in record["networks"].items():
        if not name.endswith("channels last"):
            last = record["networks"][f"{name}, channels last"]
            rows.append((name, f"{ms:.0f}", f"{last:.0f}"))
    what = "Inference of one volume of 16×64×64, density 0.2, float32, CPU time"
    return rows, f"{what}. {_cpu(record)}."


def volumes(shape: str) -> tuple[Rows, str]:
    """Tell how fast and how large networks of volumes are, on a GPU or a CPU."""
    record = load(f"execution/segmentation-{shape}.json")
    on_gpu, patch = "triton" in record["environment"], "×".join(map(str, record["patch"]))
    memory = {"step, GiB": "step GiB", "inference, GiB": "infer GiB"}
    rows: Rows = [("network", "parameters", "step, ms", "middle half", "inference, ms", *memory)]
    for name, row in record["networks"].items():
        low, high = row["step quartiles"]
        size, step, infer = row["parameters"] / 1e6, row["step ms"], row["infer ms"]
        cells = (f"{size:.1f} M", f"{step:.1f}", f"{low:.1f}-{high:.1f}", f"{infer:.1f}")
        rows.append((name, *cells, *(f"{row[key]:.2f}" for key in memory.values())))
    if on_gpu:
        what = f"Two patches of {patch}, 16 classes, bfloat16, torch.compile, channels last"
        return rows, f"{what}. {_gpu(record)}."
    dtype, where = "float32" if record["float32"] else "bfloat16", record["environment"]
    measured = f"{record['threads']} threads, {where['cpu']}, torch {where['torch']}"
    what = f"A patch of {patch}, 16 classes, {dtype}, channels last, not compiled"
    return rows, f"{what}. {measured}."


def masked() -> tuple[Rows, str]:
    """Tell what masks cost on a GPU."""
    record = load("execution/masked-step.json")
    rows: Rows = [("", "ms a step", "over dense")]
    for row in record["rows"]:
        rows.append((row["what"], f"{row['ms']:.2f}", f"{row['percent_over_dense']:+.2f} %"))
    return rows, f"ResNet-50, batch 256, bfloat16. {record['environment']['device']}."


def accuracy(data: str) -> tuple[Rows, str]:
    """Tell what blocks cost in accuracy."""
    record = load(f"execution/block-accuracy-{data}.json")
    setting = record["setting"]
    rows: Rows = [("density", "units", "accuracy, %", "to single weights, points")]
    single: dict[float, list[float]] = {}
    for row in record["rows"]:
        values, density = row["accuracy"], row["density"]
        one = mean_interval(values)
        name = row["units"].replace("RigL 1", "weights", 1) if row["units"] == "RigL 1" else ""
        name = name or row["units"].replace("RigL ", "blocks of ").replace("static 1", "static")
        if name == "weights":
            single[density] = values
        difference = ""
        if density in single and name != "weights":
            gain = paired_interval(values, single[density])
            difference = f"{gain.mean:+.2f} ± {gain.half_width:.2f}"
        name += f" ({row['device']})" if "device" in row else ""
        rows.append((f"{density:g}", name, f"{one.mean:.2f} ± {one.half_width:.2f}", difference))
    note = (
        f"Perceptron with two hidden layers of {setting['width']}, {setting['epochs']} epochs, "
        f"{setting['seeds']} seeds, RigL, uniform densities, last layer dense. "
    )
    return rows, note + record["environment"]["source"] + "."


def pruning() -> tuple[Rows, str]:
    """Tell what pruning costs a language model, and what fine-tuning gives back."""
    record = load("pruning/language-model.json")
    seeds, setting = record["seeds"], record["setting"]

    def said(values: list[float]) -> str:
        one = mean_interval(values)
        return f"{one.mean:.2f} ± {one.half_width:.2f}"

    rows: Rows = [("kept", "rule", "one-shot", "masks held", "masks moving", "held, less one-shot")]
    dense, on = ([seed[key] for seed in seeds] for key in ("dense", "dense, trained on"))
    rows.append(("all", "dense", said(dense), said(on), "", ""))
    for place, first in enumerate(seeds[0]["rows"]):
        own = [seed["rows"][place] for seed in seeds]
        before, held, moving = ([row[key] for row in own] for key in ("pruned", "held", "moving"))
        gain = paired_interval(held, before)
        cells = (said(before), said(held), said(moving))
        rows.append(
            (first["kept"], first["rule"], *cells, f"{gain.mean:+.2f} ± {gain.half_width:.2f}")
        )
    what = (
        f"Perplexity a letter, {len(seeds)} seeds, mean and 95 % interval. GPT-2 of "
        f"{setting['layers']} layers of width {setting['width']}, {setting['steps']} steps, then "
        f"{setting['fine_tuning']} of fine-tuning; calibrated on {setting['samples']} pieces of "
        f"{setting['context']} letters"
    )
    return rows, f"{what}. {record['environment']['cpu']}, torch {record['environment']['torch']}."


def samples() -> tuple[Rows, str]:
    """Tell what choosing samples of clean CIFAR-10 costs and gains."""
    found = find((RESULTS / "sample-pruning",), load_study)
    view = found.view.by("task")["ResNet-18 on CIFAR-10"]
    clean, keeps = {"condition": "clean"}, (0.7, 0.5, 0.3)
    full = level("full", **clean).maybe(view)
    rows: Rows = [
        ("", *(f"{k:.0%} kept" for k in keeps), *(f"over random, {k:.0%}" for k in keeps))
    ]
    for arm in ARMS:
        cells = [
            estimate(ask(arm, keep=k, **clean).maybe(view))
            for ask in (level, over_cyclic)
            for k in keeps
        ]
        if arm != "full" and set(cells) != {"–"}:
            rows.append((arm, *cells))
    return rows, f"Test accuracy, % (seeds); all data at all steps: {estimate(full)}."


def topology_updates() -> tuple[Rows, str]:
    """Tell what a topology update of a whole model takes on a GPU, beside other ways."""
    record = load("execution/topology-update-cuda.json")
    ways = {
        "ours": "launched, ms",
        "graph": "replayed from a graph",
        "layerwise": "layer by layer",
        "topk": "torch.topk",
        "sort": "two sorts a layer",
    }
    rows: Rows = [("model, method", *ways.values())]
    for row in record["rows"]:
        cells = (f"{row[f'{way}_ms']['median']:.2f}" for way in ways)
        rows.append((f"{row['model']}, {row['method']}", *cells))
    one = record["rows"][0]
    what = f"One update, density {one['density']}, medians of seven in turn"
    return rows, f"{what}. {one['device']}, torch {record['environment']['torch']}."


def pixel_updates() -> tuple[Rows, str]:
    """Tell what an update of agents that see takes, by method."""
    record = load("control/pixels.json")
    ways = {
        "eager float32": "eager, float32, ms",
        "graph bfloat16": "graph, bfloat16, ms",
        "graph bfloat16 compiled": "compiled, too, ms",
    }
    acting = {row["method"]: statistics.median(row["milliseconds"]) for row in record["acting"]}
    rows: Rows = [("method", *ways.values(), "GiB", "an action, ms")]
    for row in record["updates"]:
        took = (f"{row['median'][way]:.2f}" for way in ways)
        memory, act = f"{row['gigabytes']:.1f}", f"{acting[row['method']]:.2f}"
        rows.append((row["method"], *took, memory, act))
    where, size = record["environment"], record["updates"][0]
    what = f"An update, {size['size']} pixels, batches of {size['batch']}"
    return rows, f"{what}, medians of five. {where['gpu']}, torch {where['torch']}."


def motion_steps() -> tuple[Rows, str]:
    """Tell what a training step of the motion transformer takes on a GPU, in two ways."""
    record = load("motion/cuda-eager.json")
    rows: Rows = [("keys and values", "arithmetic", "ms a step", "peak, GiB")]
    for name, form in record["forms"].items():
        rows.append((*name.split(", "), f"{form['ms']:.0f}", f"{form['GiB']:.1f}"))
    options = record["options"]
    what = f"Full MTR, {options['scenes']} scenes of {options['agents']} agents, not compiled"
    return rows, f"{what}. {record['device']}, torch {record['torch']}."


def scaling() -> tuple[Rows, str]:
    """Tell what trainings gain from more GPUs, and what they lose to sending gradients."""
    record = load("execution/scaling.json")
    alone = {
        row["training"]: row["samples_per_second"]
        for row in record["rows"]
        if row["ranks"] == 1 and not row["graphs"]
    }
    parts = {
        "step": "a step, ms",
        "step, gradients kept": "nothing sent, ms",
        "all-reduce alone": "sending alone, ms",
    }
    rows: Rows = [("training", "GPUs", "batch", *parts.values(), "samples a second", "times")]
    for row in record["rows"]:
        name = row["training"] + (", CUDA graphs" if row["graphs"] else "")
        speed = row["samples_per_second"]
        cells = (f"{row[part]['ms']:.1f}" for part in parts)
        times = f"{speed / alone[row['training']]:.2f}"
        rows.append((name, str(row["ranks"]), str(row["batch"]), *cells, f"{speed:,.0f}", times))
    where = record["environment"]
    versions = f"torch {where['torch']}, NCCL {where['nccl']}"
    return rows, f"bfloat16. {where['gpu']}s of one host, {versions}."


def _cpu(record: dict[str, Any]) -> str:
    where = record["environment"]
    return f"One thread, {where['cpu']}, torch {where['torch']}"


def _gpu(record: dict[str, Any]) -> str:
    where = record["environment"]
    return f"{where['gpu']}, torch {where['torch']}, Triton {where['triton']}"


def motion_departures() -> tuple[Rows, str]:
    """Tell how much sooner paths are learnt as departures than whole."""
    record = load("motion/departures.json")
    rows: Rows = [("the network predicts", "minADE of six, m", "of the likeliest, m")]
    for arm in dict.fromkeys(row["arm"] for row in record["rows"]):
        here = [row for row in record["rows"] if row["arm"] == arm]
        means = (
            estimate(mean_interval({r["seed"]: r[name] for r in here}))
            for name in ("min_ade", "likeliest")
        )
        rows.append((arm, *means))
    set_ = record["setting"]
    steps = set_["epochs"] * -(-set_["scenes"] // set_["batch"])
    return rows, (
        f"The tiny network without LiDAR after {steps} steps of {set_['batch']} made-up scenes "
        f"({set_['scenes']:,} in all), on other scenes; 8 s ahead, ± half the 95 % interval of "
        "three seeds."
    )


def choices(name: str, rate: str, arms: tuple[str, ...], what: Callable[[Any], str]) -> Rows:
    """Tell what each way to choose samples gains over choice at random, where; in points."""
    record = load(f"samples/{name}.json")
    rows: Rows = [("what is learnt", "cyclic", *arms)]
    for place in dict.fromkeys(map(what, record["rows"])):
        here = [row for row in record["rows"] if what(row) == place]
        by_arm = {
            arm: {row["seed"]: 100 * row[rate] for row in here if row["arm"] == arm}
            for arm in ("cyclic", *arms)
        }
        base = by_arm["cyclic"]
        gains = (estimate(paired_interval(by_arm[arm], base)) for arm in arms)
        rows.append((place, f"{mean_interval(base).mean:.1f}", *gains))
    return rows


def numbers() -> tuple[Rows, str]:
    """Tell what choosing samples gains where numbers are learnt."""
    arms = ("ours", "ours, no guard", "InfoBatch", "hard")
    rows = choices("numbers", "r2", arms, lambda row: f"{row['data']}, {row['condition']}")
    return rows, (
        "Half of the samples in an epoch. Per cent of the variance explained on others that were "
        "never learnt from; then what each criterion gains over random choice without replacement, "
        "in points, ± half the 95 % interval of five seeds."
    )


def strings() -> tuple[Rows, str]:
    """Tell what choosing utterances does to a recogniser of digit strings."""
    rows = choices("speech", "wer", ("ours", "ours, no guard"), lambda row: row["condition"])
    return rows, (
        "Half of the strings in an epoch, 14 epochs, 0.2 M parameters. Per cent of the words that "
        "are wrong; then how many more are under each criterion than under random choice without "
        "replacement, in points: below 0 is better. ± half the 95 % interval of three seeds."
    )


TABLES: dict[str, Callable[[], tuple[Rows, str]]] = {
    "demo": demo,
    **{f"cpu-{part}": (lambda part=part: cpu(part)) for part in bench.PARTS},
    "block-layers": lambda: block_layers("block-layers", "bfloat16"),
    "block-small": lambda: block_layers("block-small", "bfloat16"),
    "block-tf32": lambda: block_layers("block-tf32", "TF32"),
    "block-launched": block_launched,
    "transformer-block": transformer,
    "kernel-layers": kernel_layers,
    "kernel-networks": kernel_networks,
    "volumes-cubes": lambda: volumes("cubes"),
    "volumes-cubes-fused": lambda: volumes("cubes-fused"),
    "volumes-slabs": lambda: volumes("slabs"),
    "volumes-slabs-lean": lambda: volumes("slabs-lean"),
    "volumes-cpu-float32": lambda: volumes("cpu-float32"),
    "volumes-cpu-bfloat16": lambda: volumes("cpu-bfloat16"),
    "masked-step": masked,
    "pixel-updates": pixel_updates,
    "topology-updates": topology_updates,
    "motion-steps": motion_steps,
    "motion-departures": motion_departures,
    "scaling": scaling,
    "pruning-language-model": pruning,
    "samples-cifar10": samples,
    "samples-numbers": numbers,
    "samples-speech": strings,
    "block-accuracy-fashion-mnist": lambda: accuracy("fashion-mnist"),
    "block-accuracy-cifar10": lambda: accuracy("cifar10"),
}


def table(rows: Rows, caption: str) -> nodes.Node:
    """Make a table of cells, the first row its header."""
    made, group = nodes.table(), nodes.tgroup(cols=len(rows[0]))
    made += nodes.title("", caption)
    made += group
    for _ in rows[0]:
        group += nodes.colspec(colwidth=1)
    head, body = nodes.thead(), nodes.tbody()
    for number, row in enumerate(rows):
        line = nodes.row()
        for cell in row:
            line += nodes.entry("", nodes.paragraph("", cell))
        (body if number else head).append(line)
    group += [head, body]
    return made


class Record(SphinxDirective):
    """A table from a record."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Make it."""
        rows, caption = TABLES[self.arguments[0]]()
        if not rows:
            return [nodes.paragraph("", "There is no record of it yet.")]
        return [table(rows, caption)]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("record", Record)
    return {"parallel_read_safe": True}
