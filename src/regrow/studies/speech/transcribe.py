"""What a trained recogniser hears in files, and how often it errs on a corpus."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from regrow.lab.files import read_lines
from regrow.machine import expanded
from regrow.reading import decoding as decoding_of
from regrow.speech.audio import read_audio
from regrow.speech.data import Part, open_part
from regrow.speech.decode import beam, greedy
from regrow.speech.features import normalised
from regrow.speech.heard import TRAINED, recognise, rows_of
from regrow.speech.ngram import NGram
from regrow.speech.recogniser import SIZES, Heard, Recogniser
from regrow.speech.units import Units
from regrow.speech.utterances import Utterance
from regrow.studies.speech.finished import open_finished
from regrow.training.run import device_of
from regrow.training.train import WEIGHTS

__all__ = ["Decoding", "Trained", "hear_corpus", "load_recogniser", "transcribe"]

_LONGEST = 30.0  # seconds that are heard at once


@dataclass(frozen=True)
class Decoding:
    """How text is found from a recogniser's scores.

    Args:
        beam: prefixes that a beam search keeps; 0: the best path is taken.
        language: weight of an n-gram language model of the units, made from the transcripts that
            were learnt from; 0: none.
        order: units that the language model looks at together.
        bonus: of each unit, which a language model makes too costly.

    Raises:
        ValueError: an argument is out of range, or there is a language model without a beam.
    """

    beam: int = 0
    language: float = 0.0
    order: int = 5
    bonus: float = 0.5

    def __post_init__(self) -> None:
        for name, value in (("beam", self.beam), ("language", self.language)):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name}={value}: must be at least 0 and finite")
        if self.language and not self.beam:
            raise ValueError(f"language={self.language}: needs a beam, such as beam=16")


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained recogniser.

    Args:
        model: in evaluation mode, on its device.
        units: that it writes.
        device: where it is.
        decode: turns its scores into numbers of units.
    """

    model: Recogniser
    units: Units
    device: torch.device
    decode: Callable[[Tensor, Tensor], list[list[int]]]

    @torch.no_grad()
    def outputs(self, inputs: tuple[Tensor, Tensor]) -> Heard:
        """Return the scores of frames."""
        found: Heard = self.model(*inputs)
        return found


def load_recogniser(
    run: Path, decoding: Decoding | None = None, device: Literal["auto", "cpu", "cuda"] = "auto"
) -> Trained:
    """Load the recogniser of a finished run.

    Args:
        run: its folder, with ``result.json`` and ``weights.pt``.
        decoding: how text is found; None: by the best path.
        device: where it computes.

    Raises:
        FileNotFoundError: one of the files is missing.
        ValueError: a file is damaged.
    """
    run, found = expanded(run), open_finished(run)
    model = Recogniser(found.units.size, SIZES[found.size])
    with decoding_of(run / WEIGHTS):
        model.load_state_dict(found.weights)
    where = device_of({"device": device})
    decode = _decoder(decoding or Decoding(), found.units, run)
    return Trained(model.to(where).eval(), found.units, where, decode)


def _decoder(
    decoding: Decoding, units: Units, run: Path
) -> Callable[[Tensor, Tensor], list[list[int]]]:
    if not decoding.beam:
        return greedy
    language = None
    if decoding.language:
        with decoding_of(run / TRAINED):
            texts = [row["said"] for row in read_lines(run / TRAINED)]
        if not texts:
            raise FileNotFoundError(
                f"{run}: no {TRAINED} with transcripts in it, which a language model is made of: "
                "give language=0, or the folder of a finished run"
            )
        language = NGram(map(units.encode, texts), units.size, decoding.order)

    def decode(log_probs: Tensor, steps: Tensor) -> list[list[int]]:
        return [
            beam(
                one[:n],
                decoding.beam,
                language=language,
                weight=decoding.language,
                bonus=decoding.bonus if language else 0.0,
            )
            for one, n in zip(log_probs.cpu(), steps.tolist(), strict=True)
        ]

    return decode


def transcribe(trained: Trained, files: Sequence[Path]) -> Iterator[tuple[Path, str, str]]:
    """Write down what is said in audio files; long ones are heard in parts of 30 s.

    Args:
        trained: that hears.
        files: of any format that soundfile reads.

    Yields:
        The file, what was heard, and why it could not be read, or nothing.
    """
    for path in files:
        try:
            samples = read_audio(Utterance(path.name or "audio", expanded(path)))
            heard = [_heard(trained, part) for part in _parts(samples)]
        except (OSError, ValueError) as error:
            yield path, "", str(error)
        else:
            yield path, " ".join(text for text in heard if text), ""


def _parts(samples: Any) -> Iterator[Any]:
    """Cut a long recording where it is quietest, in the last third of what is heard at once."""
    import numpy as np  # noqa: PLC0415

    from regrow.speech.audio import RATE  # noqa: PLC0415

    most, look = int(_LONGEST * RATE), RATE // 10
    while len(samples) > most:
        late = samples[most * 2 // 3 : most]
        power = np.square(late[: len(late) // look * look].reshape(-1, look)).sum(1)
        cut = most * 2 // 3 + int(power.argmin()) * look + look // 2
        yield samples[:cut]
        samples = samples[cut:]
    yield samples


def _heard(trained: Trained, samples: Any) -> str:
    frames = normalised(samples)[None].to(trained.device)
    found = trained.outputs((frames, torch.tensor([frames.shape[1]], device=trained.device)))
    return trained.units.decode(trained.decode(found.log_probs, found.steps)[0])


def hear_corpus(trained: Trained, path: Path, workers: int = 2) -> list[dict[str, Any]]:
    """Recognise a corpus, and count errors.

    Args:
        trained: that hears.
        path: of the corpus.
        workers: threads that read audio.

    Returns:
        A row an utterance, as in ``tested.jsonl``.

    Raises:
        FileNotFoundError: there is no such corpus.
        ValueError: nothing of it can be used.
    """
    part, _ = open_part(path, device=trained.device, workers=workers)
    return rows_of(path.name, part, _texts(trained, part))


def _texts(trained: Trained, part: Part) -> list[str]:
    ids = torch.arange(len(part))
    heard = recognise(trained.outputs, part.features, ids, trained.device, trained.decode)
    return [trained.units.decode(numbers) for numbers in heard]
