"""Numbers in README and pages, held against the records that they come from.

``<!-- measured: NAME -->`` stands right after a block (a paragraph, a table, fenced code) and names
facts, made from files in ``results/``. A fact's numbers, in order, have to be in the block,
rounded as they are shown there. In a page with ``{study}`` the name is ``study``: each number that
reads like a measurement has to be among what the study's verdicts and tables say, but for those
listed, ``<!-- measured: study but 0.6 2.4 -->``: of other origin, or from the records in a way that
no table shows.

Numbers of other origin say so: ``cited`` (a paper's, another project's), ``given`` (a setting, a
constant), ``printed: COMMAND`` (by a command of this repository; there is no record). A block with
numbers that read like measurements and no such comment is an error.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"
NUMBER = re.compile(r"(?<![\w.])[+−-]?\d[\d,]*(?:\.\d+)?(?![\w]*\d)")
LIKE_MEASURED = re.compile(
    r"\d ?×(?! ?\d)|± ?\d|\d\.\d+ times|\d times\s(?:as|less|more|faster)"
    r"|\d\s(?:ms|µs|points)\b|\d\.\d+ %"
)
OF_A_STUDY = re.compile(r"[+−-]?\d+\.\d+|[+−-]?\d+(?= (?:%|points))")
COMMENT = re.compile(r"<!-- (measured|cited|given|printed)(?:: ([^>]*?))? -->")


@dataclass(frozen=True)
class Block:
    """A part of a page between blank lines, and what its comment says."""

    line: int
    text: str
    kind: str = ""
    names: str = ""


def blocks(text: str) -> Iterator[Block]:
    """Cut a page into blocks; fenced code and tables stay whole."""
    kept, start, fence = [], 1, ""
    for number, line in enumerate([*text.split("\n"), ""], 1):
        opened = re.match(r"(`{3,}|:{3,})", line)
        if opened and opened[1][0] == "`":
            fence = "" if fence else opened[1]
        if line.strip() or fence:
            if not kept:
                start = number
            kept.append(line)
        elif kept:
            whole = "\n".join(kept)
            said = COMMENT.search(whole)
            yield Block(
                start, COMMENT.sub("", whole), *((said[1], said[2] or "") if said else ("", ""))
            )
            kept = []


def shown(text: str) -> list[tuple[float, int]]:
    """Return the numbers of a text, each with its decimals."""
    found = []
    for match in NUMBER.finditer(text):
        digits = match[0].replace(",", "").replace("−", "-")
        found.append((float(digits), len(digits.partition(".")[2])))
    return found


def agrees(value: float, number: float, decimals: int) -> bool:
    """Tell whether a shown number is the value rounded; a sign that words say may be left out."""
    near = 0.5 * 10**-decimals + 1e-9 * max(1.0, abs(value))
    return min(abs(value - number), abs(abs(value) - number)) <= near


def missing(values: list[float], text: str) -> list[float]:
    """Return the values that are not, in order, among a text's numbers."""
    numbers, absent = iter(shown(text)), []
    rest = list(numbers)
    for value in values:
        place = next((i for i, one in enumerate(rest) if agrees(value, *one)), None)
        if place is None:
            absent.append(value)
        else:
            rest = rest[place + 1 :]
    return absent


def faults(text: str, facts: dict[str, Callable[[], list[float]]]) -> Iterator[str]:
    """Say what is wrong with the numbers of a page, by line."""
    for block in blocks(text):
        prose = re.sub(r"`[^`\n]*`", "", block.text) if not block.text.startswith("```") else ""
        if not block.kind:
            if found := LIKE_MEASURED.search(prose):
                near = prose[max(0, found.start() - 20) : found.end()]
                yield f"line {block.line}: {near!r} names no record"
        elif block.kind == "printed":
            yield from _printed(block)
        elif block.kind == "measured" and not block.names.startswith("study"):
            yield from _measured(block, facts)


def _printed(block: Block) -> Iterator[str]:
    script = re.search(r"benchmarks/\w+\.py|regrow \w+", block.names)
    if not script or (script[0].startswith("bench") and not (ROOT / script[0]).exists()):
        yield f"line {block.line}: {block.names!r} is no command of this repository"


def _measured(block: Block, facts: dict[str, Callable[[], list[float]]]) -> Iterator[str]:
    for name in block.names.split():
        if name not in facts:
            yield f"line {block.line}: no fact is named {name!r}; there are {', '.join(facts)}"
        elif absent := missing(facts[name](), block.text):
            said = ", ".join(f"{value:.6g}" for value in absent)
            yield f"line {block.line}: the record of {name!r} has {said}, the page does not"


def unsaid(text: str, said: str) -> Iterator[str]:
    """Say which numbers of a study's page neither verdicts nor tables hold, by line.

    Args:
        text: of the page.
        said: verdicts and tables, as HTML.
    """
    plain = re.sub(r"<[^>]+>", " ", re.sub(r"<svg.*?</svg>", "", said, flags=re.DOTALL))
    there = [number for number, _ in shown(plain)]
    for block in blocks(text):
        if block.kind != "measured" or not block.names.startswith("study"):
            continue
        other = {number for number, _ in shown(block.names)}
        for match in OF_A_STUDY.finditer(re.sub(r"\[[^\]]*\]\([^)]*\)|`[^`]*`", "", block.text)):
            number, decimals = shown(match[0])[0]
            if number not in other and not any(agrees(one, number, decimals) for one in there):
                yield f"line {block.line}: the study's records do not say {match[0]}"


# ---------------------------------------------------------------------- what the records say


def record(name: str) -> dict[str, Any]:
    """Read a record."""
    content: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text("utf-8"))
    return content


def _ways(part: str) -> list[dict[str, Any]]:
    parts = record("execution/cpu")["parts"]
    return next(one["ways"] for one in parts if one["part"] == part)


def faster(part: str, beside: str = "dense float32") -> list[float]:
    """How many times faster a training step is stored than dense, by density as recorded."""
    ways = _ways(part)
    dense = next(median(way["seconds"]) for way in ways if way["way"] == beside)
    return [dense / median(way["seconds"]) for way in ways if way["way"] == "csr"]


def smaller() -> list[float]:
    """How many times less peak memory training takes, by density."""
    ways = _ways("memory")
    return [ways[0]["bytes"] / way["bytes"] for way in ways if way["way"] == "csr"]


def on_a_gpu() -> list[float]:
    """Times faster: a layer in blocks of 128 at 0.2, 0.1, 0.05; a transformer's step at 0.1."""
    rows = record("execution/block-layers")["rows"]
    ratio = {row["density"]: row["total"]["ratio"] for row in rows if row["block"] == 128}
    steps = record("execution/transformer-block")["rows"]
    compiled = next(r for r in steps if r["compiled"] and r["parameters"] == "bfloat16")
    return [*(ratio[density] for density in (0.2, 0.1, 0.05)), compiled["total"]["ratio"]]


def noticing() -> list[float]:
    """Microseconds, and percent of two perceptrons' steps."""
    rows = record("execution/noticing")["rows"]
    percents = [row["percent"]["least"] for row in rows]
    return [rows[1]["asked_us"]["least"], *percents]


def of_tasks() -> list[float]:
    """Bytes of continual learning, in the order of the table."""
    (row,) = record("continual/memory")["rows"]
    bytes_of = ("dense_bytes", "mask_bytes_a_task", "norm_bytes_a_task", "head_bytes_a_task")
    return [*(row[name] for name in bytes_of), row["saved_bytes_a_task"]]


def share_of_a_task() -> list[float]:
    """Percent of the dense network that a task adds."""
    return [record("continual/memory")["rows"][0]["percent_of_dense_a_task"]]


def samples_step() -> list[float]:
    """Microseconds of an update, its share in per cent, and the step's milliseconds, of two."""
    steps = record("samples/overhead")["steps"]
    return [x for s in steps for x in (1e3 * s["update_ms"], 100 * s["share"], s["step_ms"])]


def samples_epoch() -> list[float]:
    """The least and the most seconds and megabytes of an epoch of ten million ids."""
    epochs = record("samples/overhead")["epochs"].values()
    ends = [
        [end(e[name] for e in epochs) for end in (min, max)] for name in ("seconds", "megabytes")
    ]
    (quick, slow), (small, large) = ends
    return [quick, slow, round(small, -1), round(large, -1)]


def samples_numbers() -> list[float]:
    """How often wrong numbers are visited without the guard, relative to all."""
    rows = record("samples/numbers")["rows"]
    asked = ("ours, no guard", "wrong")
    visits = [row["visits"] for row in rows if (row["arm"], row["condition"]) == asked]
    return [sum(visits) / len(visits)]


def samples_lengths() -> list[float]:
    """Seconds of an epoch of ten million ids with lengths, and megabytes beyond what is held."""
    rows = record("samples/overhead")["with_lengths"].values()
    return [*(r["seconds"] for r in rows), *(round(r["more_megabytes"], -1) for r in rows)]


def beside_monai() -> list[float]:
    """How many times as long MONAI takes, with quartiles, of figures, windows, loss, patches."""
    found = []
    for row in record("segmentation-monai/cpu")["rows"]:
        low, middle, high = row["ratio"]
        found += [middle, low, high]
    return found


def selector_default() -> list[float]:
    """Tables; points gained over the former default, agreement now and then, ratios of seconds."""
    found = record("features/default")["after"]
    return [
        *(len(found["tables"]), *found["gain"], *reversed(found["agreement"])),
        *(*found["agreement_gain"][1:], found["cpu_ratio"], *found["cpu_ratio_ends"]),
    ]


def selector_density() -> list[float]:
    """Points gained by density 0.2 over full layers, agreement gained, ratios of seconds."""
    found = record("features/density")["density 0.2"]
    return [*found["gain"], *found["agreement_gain"], *found["cpu_ratio_ends"]]


def selector_tables() -> list[float]:
    """Points over LightGBM, extra trees, L1 and f_classif on narrow tables."""
    gains = record("features/tables")["gain_of_ours"]
    return [x for name in ("LightGBM", "ExtraTrees", "L1", "f_classif") for x in gains[name]]


def control_updates() -> list[float]:
    """Updates a second on a GPU, of one run and of 32, and without graphs."""
    one, many = (
        u for u in record("control/speed")["updates"] if u["inputs"] == 240 and u["runs"] in (1, 32)
    )
    graphs = ("agent, graph", "agent with rewards, graph", "agent with learning, graph")
    rate = "run_updates_per_second"
    together = [round(many[rate][name], -2) for name in graphs]
    eager = [one[rate]["agent, eager"], round(many[rate]["agent, eager"], -3)]
    loop = record("control/loop")["loop"]
    return [
        *(one[rate][name] for name in graphs), *together, *eager,
        loop["runs"], loop["steps"], round(loop["seconds"]),
        *(round(e["per_cpu_second"], -2 if e["per_cpu_second"] < 1e4 else -3)
          for e in record("control/speed")["environments"] if e["threads"] == 1),
    ]  # fmt: skip


def demo(*columns: int) -> list[float]:
    """The numbers of the demo's table: weights, accuracy, seconds, memory, faster, smaller."""
    from regrow.lab.study_page import find  # noqa: PLC0415
    from regrow.studies.demo import STUDY  # noqa: PLC0415
    from regrow.studies.demo_page import demo_table  # noqa: PLC0415

    found = find((RESULTS / "demo",), lambda name: STUDY)
    chosen = columns or (1, 2, 3, 4, 5, 6)
    rows = demo_table(found.view).rows[: 3 if columns else None]
    return [number for number, _ in shown(" ".join(row[i] for row in rows for i in chosen))]


def demo_answer() -> list[float]:
    """The effects in the sentence that the demo's page opens with."""
    from regrow.lab.study_page import find  # noqa: PLC0415
    from regrow.studies.demo import STUDY  # noqa: PLC0415

    said = find((RESULTS / "demo",), lambda name: STUDY).answer
    return [number for number, _ in shown(" ".join(re.findall(r"\(([^)]*)\)", said)))]


@functools.cache  # thousands of records are read
def samples_of_cifar10() -> list[float]:
    """Points: ours over choice at random at three shares; ours, InfoBatch and SeTa to full data."""
    from regrow.lab.study_page import find  # noqa: PLC0415
    from regrow.studies.registry import load_study  # noqa: PLC0415
    from regrow.studies.sample_pruning.claims import over_cyclic, over_full  # noqa: PLC0415

    whole = find((RESULTS / "sample-pruning",), load_study).view
    view = whole.by("task")["ResNet-18 on CIFAR-10"]
    asked = [
        *(over_cyclic("ours", keep=k) for k in (0.3, 0.5, 0.7)),
        *(over_full(*one) for one in (("ours", 0.7), ("InfoBatch", 0.7), ("InfoBatch", 0.3))),
        over_full("SeTa", 0.7),
    ]
    return [one.maybe(view).mean for one in asked]


def pixel_updates() -> list[float]:
    """Updates of two maskers over SVEA's; milliseconds of the loop: ours, and the common one."""
    found = record("control/pixels")
    took = {row["method"]: row["median"]["graph bfloat16 compiled"] for row in found["updates"]}
    loop = found["loop"][0]["milliseconds"]
    of_loop = median(loop["ours"]), median(loop["common, eager float32"])
    return [took["MaDi"] / took["SVEA"], took["MaDi-shared"] / took["SVEA"], *of_loop]


def scaling() -> list[float]:
    """Times as fast on two GPUs, a batch each; what two trainings wait for, and a third loses."""
    alone, each, _ = _on_gpus()
    quiet = "step, gradients kept"
    resnet, _, conformer = each
    waits = [row["step"]["ms"] - row[quiet]["ms"] for row in (resnet, conformer)]
    longer = conformer[quiet]["ms"] - alone[conformer["training"]]["step"]["ms"]
    return [*(_times(row, alone) for row in each), *waits, longer]


def scaling_shared() -> list[float]:
    """Times as fast on two GPUs, one batch for both: volumes, images, speech."""
    alone, _, shared = _on_gpus()
    images, volumes, speech = (_times(row, alone) for row in shared)
    return [volumes, images, speech]


def _on_gpus() -> tuple[dict[str, Any], list[Any], list[Any]]:
    rows = record("execution/scaling")["rows"]
    alone = {r["training"]: r for r in rows if r["ranks"] == 1 and not r["graphs"]}
    two = [row for row in rows if row["ranks"] == 2]
    each = [row for row in two if row["mode"] == "same batch a rank"]
    return alone, each, [row for row in two if row not in each]


def _times(row: dict[str, Any], alone: dict[str, Any]) -> float:
    return float(row["samples_per_second"] / alone[row["training"]]["samples_per_second"])


def control_environments() -> list[float]:
    """Thousands of control steps a CPU-second on another machine: cartpole, walker, cheetah."""
    rows = record("control/environments")["environments"]
    return [1000 * round(row["per_cpu_second"] / 1000) for row in rows if row["threads"] == 1]


def control_rival() -> list[float]:
    """Updates a second of Stable-Baselines3, and how many times as many one run and 32 make."""
    found = record("control/rival")
    theirs = median(found["rival"]["updates_per_second"])
    ours = [row["run_updates_per_second"]["agent, graph"] for row in found["updates"]]
    return [theirs, *(one / theirs for one in ours)]


def small_blocks() -> list[float]:
    """Times as fast as dense: a layer in blocks of 32, of 64, and the weight's gradient of 32."""
    small, larger = record("execution/block-small")["rows"]
    return [small["total"]["ratio"], larger["total"]["ratio"], small["dW"]["ratio"]]


def speech_heard() -> list[float]:
    """What runs on sentences took, and got wrong, with intervals; then those on real ones."""
    read, real = record("speech/sentences"), record("speech/speechocean762")
    result, epochs = read["result"], [one["config"]["epochs"] for one in (read, real)]
    heard = real["result"]["by_corpus"]["speechocean762/test"]
    rates = [100 * result[name] for name in ("wer", "low", "high", "cer")]
    return [
        result["parameters"] / 1e6, epochs[0], result["hours"], round(result["train_seconds"]),
        *rates, *(100 * heard[name] for name in ("wer", "low", "high")), epochs[1],
        real["result"]["parameters"] / 1e6,
    ]  # fmt: skip


def fused_joins() -> list[float]:
    """Per cent: what a step takes longer, then what it takes less memory, of two networks."""
    networks = record("execution/segmentation-cubes-fused")["networks"]
    pairs = [
        (networks[name], networks[f"{name}, fused"]) for name in ("E2ENet, links", "lean, links")
    ]
    found = []
    for key, sign in (("step ms", 1), ("step GiB", -1)):
        found += [sign * 100 * (fused[key] / apart[key] - 1) for apart, fused in pairs]
    return found


FACTS: dict[str, Callable[[], list[float]]] = {
    "faster-wide": lambda: faster("wide"),
    "faster-narrow": lambda: faster("narrow"),
    "faster-resnet": lambda: [*faster("resnet", "dense bfloat16"), *faster("resnet")],
    "smaller": smaller,
    "on-a-gpu": on_a_gpu,
    "noticing": noticing,
    "tasks": of_tasks,
    "share-of-a-task": share_of_a_task,
    "samples-step": samples_step,
    "samples-epoch": samples_epoch,
    "samples-lengths": samples_lengths,
    "samples-numbers": samples_numbers,
    "beside-monai": beside_monai,
    "selector-default": selector_default,
    "selector-density": selector_density,
    "selector-tables": selector_tables,
    "selector-tables-cost": lambda: record("features/tables")["cpu_ratio_ends"],
    "control-updates": control_updates,
    "demo": demo,
    "samples-cifar10": samples_of_cifar10,
    "pixel-updates": pixel_updates,
    "scaling": scaling,
    "scaling-shared": scaling_shared,
    "fused-joins": fused_joins,
    "control-environments": control_environments,
    "control-rival": control_rival,
    "small-blocks": small_blocks,
    "speech-heard": speech_heard,
    "demo-accuracy": lambda: demo(2),
    "demo-answer": demo_answer,
}
