"""Does choosing utterances by their losses, and looking for wrong transcripts, help with CTC?

    python benchmarks/samples_speech.py --out DIR --json results/samples/speech.json

Recognisers of 0.2 M parameters learn 53 minutes of real digit strings on a CPU: as they are, with
30 % exact copies, and with a fifth of the transcripts wrong. Every epoch has half of them, so
that all arms take as many steps; the base is random choice without replacement across epochs.
Decided before the runs: the guard of RootLoss may be left on for CTC if the interval of its error
rates against no guard does not lie above 0 where no transcript is wrong, and lies below 0 where a
fifth is. Runs of which more than half of the words are wrong have not learnt and judge nothing.
It goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

import regrow
from regrow import samples as rs
from regrow.lab.environment import environment
from regrow.lab.files import read_json
from regrow.lab.statistics import mean_interval, paired_interval
from regrow.lab.sweep import sweep
from regrow.speech.synthesis.made import Made
from regrow.studies.speech.recognise import Recognise

CONDITIONS: dict[str, dict[str, Any]] = {
    "clean": {},
    "copies": {"copies": 0.3},
    "wrong": {"wrong": 0.2},
}
ARMS: dict[str, rs.Criterion] = {
    "cyclic": rs.Cyclic(),
    "ours": rs.RootLoss(),
    "ours, no guard": rs.RootLoss(guard=False),
}
KEEP, EPOCHS = 0.5, 14
TEST = Made(what="strings", part="test", words=(2, 7), rounds=3)


def trial(condition: str, arm: str, seed: int) -> Recognise:
    """Return a run; its seed is of the network and the order, and not of the corpus."""
    learnt = Made(what="strings", part="train", words=(2, 7), rounds=2, **CONDITIONS[condition])
    return Recognise(
        seed=seed,
        method=regrow.Dense(),
        data=("learnt",),
        tests=("strings",),
        made=(("learnt", learnt), ("strings", TEST)),
        criterion=ARMS[arm],
        keep=KEEP,
        size="tiny",
        units="words",
        epochs=EPOCHS,
        batch=8,
        learning_rate=3e-3,
        warmup=0.5,
        watched=0,
        dropout=0.0,
        augment=False,
        middle=0.3,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("samples-speech"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    asked = {
        (condition, arm, seed): trial(condition, arm, seed)
        for seed in range(given.seeds)
        for condition, arm in itertools.product(CONDITIONS, ARMS)
    }
    done = sweep(list(asked.values()), given.out, options={"device": "cpu"}, jobs=given.jobs)
    if done.failed:
        raise SystemExit(done.failed[0].error)
    rows: list[dict[str, Any]] = []
    for (condition, arm, seed), one in asked.items():
        found = read_json(given.out / "trials" / one.identity / "result.json")
        labels = {"condition": condition, "arm": arm, "keep": KEEP, "seed": seed}
        rows.append(labels | {"wer": found["by_corpus"]["strings"]["wer"]})
    for condition in CONDITIONS:
        here = [row for row in rows if row["condition"] == condition]
        by_arm = {arm: {r["seed"]: 100 * r["wer"] for r in here if r["arm"] == arm} for arm in ARMS}
        print(f"{condition}: cyclic {mean_interval(by_arm['cyclic']).mean:.1f} % wrong")
        for arm in list(ARMS)[1:]:
            told = paired_interval(by_arm[arm], by_arm["cyclic"])
            print(f"    {arm:16} {told.mean:+6.2f} ± {told.half_width:.2f}")
    if given.json:
        record = {"environment": environment(), "rows": rows}
        given.json.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
