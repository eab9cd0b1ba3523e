"""``regrow speech``: train on corpora, transcribe, evaluate, generate."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from regrow.cli.checks import check_between, check_jobs, check_threads
from regrow.cli.fields import takes_fields
from regrow.machine import expanded

__all__ = ["speech_evaluate", "speech_generate", "speech_train", "speech_transcribe"]

_NO_OPTIONS = (
    "method",
    "criterion",
    "include",
    "exclude",
    "nesterov",
    "momentum",
    "milestones",
    "data",
    "tests",
    "digest",
    "made",
    "begin",
    "rescale",
)
_DEFAULTS: dict[str, Any] = {"epochs": 30, "warmup": 2.0, "seed": 0, "middle": 0.3}


@takes_fields(
    "regrow.studies.speech.recognise:Recognise", leave_out=_NO_OPTIONS, defaults=_DEFAULTS
)
def speech_train(
    corpora: tuple[Path, ...],
    /,
    *,
    test: tuple[Path, ...] = (),
    begin: Path | None = None,
    method: str = "Dense",
    density: float | None = None,
    option: tuple[str, ...] = (),
    choose: str = "",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    threads: int | None = None,
    workers: int = 2,
    out: Path = Path("speech-results"),
    **fields: Any,
) -> None:
    """Train a recogniser on corpora, test it on others, and make a page of it.

    Takes LibriSpeech, LRS3, Common Voice (.tsv), Kaldi's tables, manifests of NeMo and lhotse
    (.jsonl), tables of SpeechBrain and auto_avsr (.csv), the Free Spoken Digit Dataset (with
    :train or :test after its folder), and what "regrow speech generate" makes. The same command
    goes on where it was cut off. Weights, what was heard and the page lie in the run's folder. On
    several GPUs: torchrun --nproc-per-node N -m regrow speech train ...

    Args:
        corpora: To learn from: folders or tables, as published.
        test: Corpora to test on.
        begin: The folder of a finished run, whose recogniser learns on; it keeps its units.
        method: How the network is kept sparse: a name from "regrow methods", or how one begins.
        density: The share of weights kept; else as the method has it.
        option: More arguments of the method: update_every=50 ...
        choose: Which utterances an epoch has, by a criterion of regrow.samples such as Hard,
            EasyToHard or InfoBatch; else all. --keep says how many.
        device: Where to train; "auto" takes a GPU if there is one.
        threads: Of torch; else as torch has it.
        workers: Threads that read audio.
        out: Folder for the records of runs.
        **fields: Of the trial.
    """
    from regrow.cli.train import make_method  # noqa: PLC0415
    from regrow.cli.trial import run_trial  # noqa: PLC0415
    from regrow.lab.files import make_folder  # noqa: PLC0415
    from regrow.speech.data import fingerprint  # noqa: PLC0415
    from regrow.studies.speech.finished import weights_digest  # noqa: PLC0415
    from regrow.studies.speech.page import write_page  # noqa: PLC0415
    from regrow.studies.speech.recognise import Recognise  # noqa: PLC0415

    check_threads(threads)
    check_between("workers", workers, 1, 64)
    if not corpora:
        raise ValueError("corpora: name at least one to learn from")
    _check_used(choose, fields)
    learnt, tested = _by_name(corpora), _by_name(test)
    trial = Recognise(
        **(_DEFAULTS | fields),
        method=make_method(method, density, option),
        criterion=_criterion(choose),
        data=tuple(learnt),
        tests=tuple(tested),
        digest=fingerprint([*learnt.values(), *tested.values()]),
        begin=weights_digest(begin) if begin else "",
    )
    make_folder(out, "out")
    places = {name: str(path) for name, path in (learnt | tested).items()}
    options: dict[str, Any] = {"device": device, "keep_weights": True, "workers": workers}
    options |= {"corpora": places} | ({"begin": str(begin)} if begin else {})
    record = run_trial(trial, out, options, threads, ["wer", "cer"] if tested else [])
    print(f"page             {write_page(record)}")


def _check_used(choose: str, given: Mapping[str, Any]) -> None:
    """Refuse what would change nothing: how much is kept, of a choice that was not asked for."""
    from dataclasses import fields  # noqa: PLC0415

    from regrow.studies.speech.recognise import Recognise  # noqa: PLC0415

    usual = {field.name: field.default for field in fields(Recognise)}
    without = {
        "choose, such as EasyToHard": ()
        if choose
        else ("keep", "full_first", "full_last", "every", "score"),
        "time_keep below 1": ("time_chunk", "time_by") if given.get("time_keep", 1) == 1 else (),
    }
    for missing, names in without.items():
        for name in names:
            if (value := given.get(name, usual[name])) != usual[name]:
                raise ValueError(f"{name}={value!r}: changes nothing without {missing}: add it")


def _criterion(name: str) -> Any:
    """Make a criterion of its name, with its own defaults; RootLoss without its guard.

    It suspects nobody by the losses of sequences.
    """
    from regrow import samples  # noqa: PLC0415

    kinds = {
        kind.__name__: kind
        for kind in map(samples.__dict__.get, samples.__all__)
        if isinstance(kind, type) and issubclass(kind, samples.Criterion)
    }
    known = ", ".join(sorted(kinds.keys() - {"Criterion"}))
    if name and (name not in kinds or name == "Criterion"):
        raise ValueError(f"choose={name!r}: must be one of {known}")
    if name == "RootLoss":
        return samples.RootLoss(guard=False)
    try:
        return kinds[name]() if name else None
    except TypeError as error:
        raise ValueError(f"choose={name}: {error}: use it from Python") from error


def _by_name(paths: Sequence[Path]) -> dict[str, Path]:
    """Name corpora by the ends of their paths, so that a record is the same wherever they lie."""
    whole = [expanded(path).absolute() for path in paths]
    named = {"/".join(path.parts[-2:]): path for path in whole}
    return named if len(named) == len(whole) else {str(path): path for path in whole}


def speech_transcribe(
    run: Path,
    files: tuple[Path, ...],
    /,
    *,
    beam: int = 0,
    language: float = 0.0,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> None:
    """Print what is said in audio files; why one cannot be read is said on standard error.

    Args:
        run: The folder of a run of "regrow speech train", with result.json and weights.pt.
        files: WAV, FLAC, Opus, MP3 and others.
        beam: Prefixes that a beam search keeps; 0 takes the best path.
        language: Weight of a language model of the transcripts that were learnt from; needs a beam.
        device: Where to compute; "auto" takes a GPU if there is one.
    """
    from regrow.studies.speech.transcribe import (  # noqa: PLC0415
        Decoding,
        load_recogniser,
        transcribe,
    )

    if not files:
        raise ValueError("files: name at least one audio file")
    trained = load_recogniser(run, Decoding(beam, language), device)
    bad = 0
    for path, text, error in transcribe(trained, files):
        if error:
            bad += 1  # beside the texts, which may go into a file
            named = error if error.startswith(str(path)) else f"{path}: {error}"
            print(named, file=sys.stderr, flush=True)
        else:
            print(f"{path}: {text}" if len(files) > 1 else text, flush=True)
    if bad:
        raise ValueError(f"{bad} files could not be read; see above")


def speech_evaluate(
    run: Path,
    corpus: Path,
    /,
    *,
    out: Path = Path("evaluation.html"),
    beam: int = 0,
    language: float = 0.0,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    workers: int = 2,
) -> None:
    """Recognise a corpus and count errors: by group, worst first, with a page.

    Args:
        run: The folder of a run of "regrow speech train", with result.json and weights.pt.
        corpus: A folder or table of utterances with transcripts.
        out: The page.
        beam: Prefixes that a beam search keeps; 0 takes the best path.
        language: Weight of a language model of the transcripts that were learnt from; needs a beam.
        device: Where to compute; "auto" takes a GPU if there is one.
        workers: Threads that read audio.
    """
    from regrow.lab.files import check_writable  # noqa: PLC0415
    from regrow.studies.speech.page import write_evaluation  # noqa: PLC0415
    from regrow.studies.speech.transcribe import (  # noqa: PLC0415
        Decoding,
        hear_corpus,
        load_recogniser,
    )

    check_writable(out, "out")
    check_between("workers", workers, 1, 64)
    trained = load_recogniser(run, Decoding(beam, language), device)
    rows = hear_corpus(trained, corpus, workers)
    print(write_evaluation(rows, corpus.name, out))


def speech_generate(
    folder: Path,
    /,
    *,
    hours: float = 1.0,
    part: Literal["train", "test"] = "train",
    engine: Literal["espeak", "flite"] = "espeak",
    phrases: Path | None = None,
    noisy: float = 0.0,
    wrong: float = 0.0,
    copies: float = 0.0,
    seed: int = 0,
    jobs: int = 1,
) -> None:
    """Make a corpus of read speech: synthetic voices read phrases; what is wrong with it is known.

    Voices and phrases of "test" are in no corpus of "train"; the engine flite is another
    synthesiser, whose voices are all for tests. The folder is a corpus to train or test on.

    Args:
        folder: Where it is made.
        hours: Of speech.
        part: Whose voices and phrases: "train" or "test".
        engine: espeak (pip install espeakng-loader) or flite (Debian's flite).
        phrases: A text file, a phrase a line; else the examples of Debian's wordnet-base.
        noisy: The share of utterances with noise.
        wrong: The share with the transcript of another utterance.
        copies: The share that are copies of others.
        seed: Of all that is drawn.
        jobs: Processes; -1 for one a core.
    """
    import os  # noqa: PLC0415

    from regrow.speech.synthesis.generate import Defects, generate  # noqa: PLC0415
    from regrow.speech.synthesis.phrases import WORDNET, read_phrases  # noqa: PLC0415
    from regrow.speech.synthesis.voices import espeak_voices, flite_voices  # noqa: PLC0415

    check_jobs(jobs)
    if engine == "flite" and part == "train":
        raise ValueError("engine=flite: its voices are for tests: give --part test")
    voices = espeak_voices(part) if engine == "espeak" else flite_voices()
    manifest = generate(
        folder,
        voices,
        read_phrases(phrases or WORDNET, part),
        hours=hours,
        engine=engine,
        defects=Defects(noisy, wrong, copies),
        seed=seed,
        workers=(os.cpu_count() or 1) if jobs == -1 else jobs,
        tell=lambda done: print(f"\r{done:.2f} of {hours:g} h", end="", flush=True),
    )
    print(f"\r{manifest}")
