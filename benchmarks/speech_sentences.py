"""How well a recogniser hears whole sentences after minutes on a GPU: synthetic ones, then real.

    python benchmarks/speech_sentences.py --out DIR               # both, 25 minutes each at most
    python benchmarks/speech_sentences.py --out DIR --parts read

"read" learns hours of synthetic sentences and hears voices and phrases never learnt. "real" goes on
from there: speechocean762's training speakers, and as many hours of noisy synthetic speech beside
them; it hears the test speakers. Each writes DIR/NAME.json: setting, error rates with 95 %
intervals, by the best path and by a beam with a language model of the transcripts that were learnt
from (its weight is one for all, and was not tuned), and what was seen on the way.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import regrow
from regrow.cli.trial import run_trial
from regrow.lab.files import read_json, read_lines, write_json
from regrow.speech.heard import summary
from regrow.speech.synthesis.made import Made
from regrow.studies.speech.finished import weights_digest
from regrow.studies.speech.recognise import Recognise, make_all
from regrow.studies.speech.transcribe import Decoding, hear_corpus, load_recogniser

DECODING = Decoding(beam=16, language=0.3)


def reading(given: argparse.Namespace, _: Path) -> Recognise:
    """Return the run on synthetic sentences."""
    learnt = Made(what="sentences", part="train", hours=given.hours)
    heard = Made(what="sentences", part="test", hours=given.test_hours)
    return Recognise(
        seed=given.seed,
        method=regrow.Dense(),
        data=("learnt",),
        tests=("heard",),
        made=(("learnt", learnt), ("heard", heard)),
        size=given.size,
        units="characters",
        epochs=given.epochs,
        batch=48,
        learning_rate=1.2e-3,
        warmup=1.0,
        watched=64,
        augment=False,
        middle=0.3,
        precision=given.precision,
    )


def really(given: argparse.Namespace, out: Path) -> Recognise:
    """Return the run on real sentences, which begins with what the other one learnt."""
    beside = Made(what="sentences", part="train", hours=given.hours / 10, noisy=0.5, seed=1)
    return dataclasses.replace(
        reading(given, out),
        begin=weights_digest(run_of(out / "read")),
        data=("speechocean762/train", "beside"),
        tests=("speechocean762/test",),
        made=(("beside", beside),),
        epochs=given.epochs,
        learning_rate=5e-4,
        augment=True,
    )


PARTS: Mapping[str, Callable[[argparse.Namespace, Path], Recognise]] = {
    "read": reading,
    "real": really,
}


def run_of(out: Path) -> Path:
    """Return the folder of the last finished run in a folder.

    Raises:
        FileNotFoundError: there is none.
    """
    found = sorted((out / "trials").glob("*/result.json"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise FileNotFoundError(f"{out} has no finished run: run --parts read first")
    return found[-1].parent


def learn(name: str, given: argparse.Namespace) -> None:
    """Run a part, hear its test by a beam, too, and write the record."""
    trial = PARTS[name](given, given.out)
    options: dict[str, Any] = {"device": given.device, "keep_weights": True}
    if trial.begin:
        options["begin"] = str(run_of(given.out / "read"))
    make_all([trial], options, print)
    folder = run_trial(trial, given.out / name, options, None, ["wer", "cer"])
    result = read_json(folder / "result.json")
    began = time.perf_counter()
    rows = hear_corpus(
        load_recogniser(folder, DECODING, given.device), trial.place(trial.tests[0], options)
    )
    beam = summary(rows) | dataclasses.asdict(DECODING)
    beam["seconds"] = time.perf_counter() - began
    for how, found in (("best path", result), ("beam", beam)):
        told = (100 * float(found[rate]) for rate in ("wer", "low", "high", "cer"))
        print(name, how, "WER {:.1f} % ({:.1f} to {:.1f}), CER {:.1f} %".format(*told))
    config, environment = (read_json(folder / f"{n}.json") for n in ("config", "environment"))
    metrics = read_lines(folder / "metrics.jsonl")
    record = {"config": config, "result": result, "beam": beam}
    write_json(
        given.out / f"{name}.json", record | {"environment": environment, "metrics": metrics}
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--out", type=Path, default=Path("sentences-results"))
    parser.add_argument("--size", default="5m")
    parser.add_argument("--hours", type=float, default=30.0)
    parser.add_argument("--test-hours", type=float, default=0.5)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--precision", default="bfloat16")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    for name in given.parts:
        learn(name, given)


if __name__ == "__main__":
    main()
