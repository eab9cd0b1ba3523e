"""Makes the records of `results/` that need a GPU again: each a command, with what it takes.

    python benchmarks/records.py                          what there is, and what it takes
    python benchmarks/records.py topology control --out DIR
    python benchmarks/records.py digit-strings distraction-masks --beside --lacking --out DIR
    CUDA_VISIBLE_DEVICES=1 python benchmarks/records.py tests --out DIR

Jobs run one after another, or all at once (`--beside`). What each prints goes into DIR/NAME.log as
it comes, its record into DIR/NAME.json or, of a study, into the folder DIR/NAME, which goes on
where it was cut off; with `--lacking` it runs only those trials that results/ has not. A job that
takes longer than twice what it should is stopped, and said to be. Timings need a machine that does
nothing else; studies fill a GPU by many trials side by side (`--jobs`), for which NVIDIA's MPS
pays: under it a process sees the GPU of its daemon as number 0. `regrow report results/NAME
DIR/NAME --pack results/NAME` puts new trials of a study to those that are there.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from regrow.lab.records import PACKED

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Job:
    """A command that makes a record.

    Args:
        command: of Python; {out} stands for what it writes.
        minutes: on an H200.
        record: in results/; empty: there is none.
        gpus: that it needs.
    """

    command: str
    minutes: float
    record: str = ""
    gpus: int = 1


PYTEST = "-m pytest -vv -rf -p no:cacheprovider -n 6"
RANKS = "tests/gpu/test_nccl.py tests/gpu/test_ranks_nccl.py tests/gpu/test_samples_nccl.py"
ALONE = "does_not_fit"  # a test that fills the memory of a GPU
TIMED = "benchmarks/{} --json {{out}}.json"
STUDY = "-m regrow study run {} --preset quick --data {} --device cuda --jobs {} --out {{out}}"
GRAPHED = (
    "--networks nnU-Net 'nnU-Net, fused norms' 'E2ENet, masks' 'E2ENet, links' 'lean, masks' "
    "'lean, links'"
)
JOBS = {
    "tests": Job(f"{PYTEST} tests/gpu -k 'not {ALONE} and not nccl'", 6),
    "tests-alone": Job(f"-m pytest -vv -rf tests/gpu -k {ALONE}", 1),
    "tests-ranks": Job(f"-m pytest -vv -rf -p no:cacheprovider {RANKS}", 5, gpus=2),
    "scaling": Job(
        TIMED.format("scaling.py --ranks 1 2 --only ResNet cubes Conformer"),
        5,
        "execution/scaling.json",
        gpus=2,
    ),
    "topology": Job(
        TIMED.format("topology_update.py --model resnet50 gpt-353m --device cuda"),
        1,
        "execution/topology-update-cuda.json",
    ),
    "layers": Job(TIMED.format("block_layers.py --only layers"), 3, "execution/block-layers.json"),
    "small-blocks": Job(
        TIMED.format("block_layers.py --only layers --blocks 32 64 --densities .1"),
        1,
        "execution/block-small.json",
    ),
    "launched": Job(
        TIMED.format("block_layers.py --only launched"), 1, "execution/block-launched.json"
    ),
    "tf32": Job(TIMED.format("block_layers.py --only tf32"), 1, "execution/block-tf32.json"),
    "gpt": Job(TIMED.format("block_gpt.py"), 3, "execution/block-gpt.json"),
    "two-four": Job(TIMED.format("two_four.py"), 1, "execution/two-four.json"),
    "control": Job(
        TIMED.format("control.py updates environments --tf32 --seconds .3 --repetitions 7"),
        1,
        "control/speed.json",
    ),
    "rival": Job(
        TIMED.format("control.py updates rival --tf32 --seconds .2 --repetitions 7"),
        1,
        "control/rival.json",
    ),
    "pixels": Job(
        TIMED.format("pixels.py updates loop acting --compiled --seconds .3"),
        5,
        "control/pixels.json",
    ),
    "volumes-cubes": Job(
        TIMED.format("segmentation.py --patch 128 128 128"), 5, "execution/segmentation-cubes.json"
    ),
    "volumes-fused": Job(
        TIMED.format(
            "segmentation.py --patch 128 128 128 --networks nnU-Net 'E2ENet, links' "
            "'E2ENet, links, fused' 'lean, links' 'lean, links, fused'"
        ),
        2,
        "execution/segmentation-cubes-fused.json",
    ),
    "volumes-slabs": Job(
        TIMED.format("segmentation.py --patch 64 160 160"), 5, "execution/segmentation-slabs.json"
    ),
    **{
        f"{shape}-graphs": Job(
            TIMED.format(f"segmentation.py --patch {sides} --graphs {GRAPHED}"),
            3,
            f"execution/segmentation-{shape.partition('-')[2]}-graphs.json",
        )
        for shape, sides in (("volumes-cubes", "128 128 128"), ("volumes-slabs", "64 160 160"))
    },
    "motion-eager": Job(TIMED.format("motion.py --eager"), 2, "motion/cuda-eager.json"),
    "motion": Job(TIMED.format("motion.py"), 5, "motion/cuda.json"),
    "sample-pruning": Job(STUDY.format("sample-pruning", "cifar10", 12), 25, "sample-pruning"),
    "sentences": Job("benchmarks/speech_sentences.py --parts read --out {out}", 20, "speech"),
    "sentences-real": Job("benchmarks/speech_sentences.py --out {out}", 40, "speech"),
    "defects": Job(STUDY.format("speech-pruning", "defects", 18), 22, "speech-pruning"),
    "digit-strings": Job(STUDY.format("speech-pruning", "digit-strings", 18), 10, "speech-pruning"),
    "time": Job(STUDY.format("speech-pruning", "time", 1), 10, "speech-pruning"),
    "speechocean762": Job(
        STUDY.format("speech-pruning", "speechocean762", 18), 30, "speech-pruning"
    ),
    "preference-noise": Job(
        STUDY.format("preference-noise", "walker-walk", 1), 40, "preference-noise"
    ),
    "distraction-masks": Job(
        STUDY.format("distraction-masks", "cartpole-swingup-25k", 9), 20, "distraction-masks"
    ),
    "lidar-motion": Job(STUDY.format("lidar-motion", "simulator", 16), 45, "lidar-motion"),
}


def run(name: str, out: Path) -> str:
    """Run a job, say how it ended, and return what was not well, or nothing."""
    began = time.monotonic()
    fault = _fault(name, out)
    print(f"{name}: {time.monotonic() - began:.0f} s {fault or 'well'}", flush=True)
    return fault


def begin(name: str, out: Path) -> None:
    """Put the records that results/ has into the folder of a study, which then runs the others."""
    there = ROOT / "results" / JOBS[name].record / PACKED
    if there.is_file() and not (out / name / PACKED).exists():
        (out / name).mkdir(parents=True, exist_ok=True)
        shutil.copy(there, out / name)


def _fault(name: str, out: Path) -> str:
    job, limit = JOBS[name], 120 * JOBS[name].minutes
    words = shlex.split(job.command.format(out=shlex.quote(str(out / name))))
    extra = {"PYTHONUNBUFFERED": "1"}
    with (out / f"{name}.log").open("a") as log:
        started = subprocess.Popen(
            [sys.executable, *words], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT,
            env=os.environ | extra, start_new_session=True,
        )  # fmt: skip
        try:
            status = started.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(started.pid, signal.SIGTERM)  # its own processes, too
            started.wait()
            return f"stopped after {limit:.0f} s, twice what it should take"
    return f"ended with status {status}" if status else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("jobs", nargs="*", help="names; none: say what there is")
    parser.add_argument("--out", type=Path, default=Path("records"))
    parser.add_argument("--beside", action="store_true", help="all at once; not for timings")
    parser.add_argument("--lacking", action="store_true", help="studies: what results/ has not")
    given = parser.parse_args()
    if unknown := [name for name in given.jobs if name not in JOBS]:
        parser.error(f"{unknown[0]!r}: must be one of {', '.join(JOBS)}")
    if not given.jobs:
        for name, job in JOBS.items():
            print(f"{name:18} {job.gpus} GPU, {job.minutes:3g} min  {job.record}")
            print(f"    python {job.command.format(out=name)}")
        return
    wanting = max(JOBS[name].gpus for name in given.jobs)
    if torch.cuda.device_count() < wanting:
        parser.error(f"{wanting} GPUs are needed; torch sees {torch.cuda.device_count()}")
    out = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    for name in given.jobs if given.lacking else ():
        begin(name, out)
    with ThreadPoolExecutor(len(given.jobs) if given.beside else 1) as threads:
        ended = list(threads.map(lambda name: run(name, out), given.jobs))
    faults = [name for name, fault in zip(given.jobs, ended, strict=True) if fault]
    sys.exit(f"not well: {', '.join(faults)}: see their logs in {out}" if faults else 0)


if __name__ == "__main__":
    main()
