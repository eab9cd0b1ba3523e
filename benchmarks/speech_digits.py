"""How well a recogniser of 0.2 M parameters hears real digits after minutes on one CPU core.

    python benchmarks/speech_digits.py --out digits-results

Strings of 2 to 7 digits are put together of recordings of the Free Spoken Digit Dataset, which
$REGROW_DATA has: 53 minutes to learn from, and others of the same six speakers to test on. Printed
are the word error rates of strings and of single digits, with 95 % intervals over speakers."""

from __future__ import annotations

import argparse
from pathlib import Path

import regrow
from regrow.cli.trial import run_trial
from regrow.lab.files import read_json
from regrow.speech.synthesis.made import Made
from regrow.studies.speech.recognise import Recognise

MADE = {
    "learnt": Made(what="strings", part="train", words=(2, 7), rounds=2),
    "strings": Made(what="strings", part="test", words=(2, 7), rounds=3),
    "single digits": Made(what="strings", part="test", words=(1, 1)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("digits-results"))
    parser.add_argument("--epochs", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    trial = Recognise(
        seed=given.seed,
        method=regrow.Dense(),
        data=("learnt",),
        tests=("strings", "single digits"),
        made=tuple(MADE.items()),
        size="tiny",
        units="words",
        epochs=given.epochs,
        batch=8,
        learning_rate=3e-3,
        warmup=0.5,
        watched=60,
        dropout=0.0,
        augment=False,
    )
    record = run_trial(trial, given.out, {"device": "cpu"}, 1, ["wer", "cer"])
    for name, found in read_json(record / "result.json")["by_corpus"].items():
        low, high = 100 * found["low"], 100 * found["high"]
        print(
            f"{name}: WER {100 * found['wer']:.2f} % ({low:.2f} to {high:.2f}), "
            f"{found['utterances']} utterances"
        )


if __name__ == "__main__":
    main()
