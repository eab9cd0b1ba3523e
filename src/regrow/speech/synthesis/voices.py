"""Speech synthesisers: eSpeak NG inside this process, Flite as a program."""

from __future__ import annotations

import _ctypes
import ctypes
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from regrow.machine import needed
from regrow.speech.audio import RATE, read_samples, resample

__all__ = ["Voice", "espeak_voices", "flite_voices", "speak"]

Samples = npt.NDArray[np.float32]

_ACCENTS = (
    *("en-us", "en", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd"),
    *("en-029", "en-us-nyc"),
)
# Whispers and creaks are speech, too; these are not, or say nothing.
_NO_VOICES = {"Mr serious", "robosoft", "robosoft2", "robosoft3", "robosoft4", "robosoft5"}
_HELD_OUT = 5  # every so many variants are for testing
_SYNCHRONOUS, _UTF8, _CHARACTERS = 2, 1, 1
_RATE_PARAMETER, _PITCH_PARAMETER = 1, 3


@dataclass(frozen=True)
class Voice:
    """A voice of a synthesiser, and how it speaks.

    Args:
        engine: "espeak" or "flite".
        name: of the voice, as the synthesiser knows it.
        speed: words a minute, for espeak; 175 is usual.
        pitch: from 0 to 99, for espeak; 50 is usual.
    """

    engine: Literal["espeak", "flite"]
    name: str
    speed: int = 175
    pitch: int = 50


def espeak_voices(part: Literal["train", "test"]) -> list[str]:
    """Return English voices of eSpeak NG: an accent and a variant, such as "en-us+f3".

    Args:
        part: "train" or "test": variants, which are its speakers, are in one of them only.

    Raises:
        ImportError: espeakng-loader is missing.
    """
    files = _variants(_loader()).iterdir()
    variants = sorted(path.name for path in files if path.name not in _NO_VOICES)
    test = part == "test"
    own = [v for i, v in enumerate(variants) if (i % _HELD_OUT == 0) == test]
    return [f"{accent}+{variant}" for variant in own for accent in _ACCENTS]


def _variants(loader: Any) -> Path:
    return Path(loader.get_data_path()) / "voices" / "!v"


def flite_voices() -> list[str]:
    """Return the voices of Flite, but the one that can only tell the time.

    Raises:
        FileNotFoundError: the program is not installed.
    """
    listed = subprocess.run([_flite(), "-lv"], capture_output=True, text=True, check=True).stdout
    return [name for name in listed.partition(":")[2].split() if name != "awb_time"]


def speak(voice: Voice, text: str) -> Samples:
    """Let a voice read a text.

    Args:
        voice: that reads.
        text: of words.

    Returns:
        Samples at 16 kHz, in -1..1.

    Raises:
        ImportError: espeakng-loader is missing.
        FileNotFoundError: Flite is not installed.
        ValueError: there is no such voice, or it says nothing.
    """
    samples, rate = _espeak(voice, text) if voice.engine == "espeak" else _flite_says(voice, text)
    if not len(samples):
        raise ValueError(f"voice {voice.name!r} says nothing to {text!r}")
    return resample(samples, rate, RATE)


def _loader() -> Any:
    with needed("espeakng-loader", "synthesis"):
        import espeakng_loader  # noqa: PLC0415
    return espeakng_loader


_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


def _espeak(voice: Voice, text: str) -> tuple[Samples, int]:
    """Read a text with a library that is loaded for it alone.

    What eSpeak NG says hangs on all it has said before: its random numbers and phases go on.
    """
    loader = _loader()
    variant = voice.name.partition("+")[2]
    if variant and not (_variants(loader) / variant).is_file():  # it is silently left out else
        raise ValueError(f"voice {voice.name!r}: eSpeak NG has no variant {variant!r}")
    library = ctypes.CDLL(loader.get_library_path())
    parts: list[npt.NDArray[np.int16]] = []

    def take(samples: Any, number: int, events: Any) -> int:
        if samples and number > 0:
            parts.append(np.ctypeslib.as_array(samples, (number,)).copy())
        return 0

    callback = _CALLBACK(take)
    try:
        data = str(loader.get_data_path()).encode()
        rate = int(library.espeak_Initialize(_SYNCHRONOUS, 0, data, 0))
        if rate <= 0:
            raise ValueError("eSpeak NG cannot be started: install espeakng-loader again")
        # The noise of breath and whisper begins with the clock else.
        library.espeak_ng_SetRandSeed(ctypes.c_long(1))
        library.espeak_SetSynthCallback(callback)
        if library.espeak_SetVoiceByName(voice.name.encode()) != 0:
            raise ValueError(f"voice {voice.name!r}: eSpeak NG has none of this name")
        library.espeak_SetParameter(_RATE_PARAMETER, voice.speed, 0)
        library.espeak_SetParameter(_PITCH_PARAMETER, voice.pitch, 0)
        said = text.encode()
        library.espeak_Synth(said, len(said) + 1, 0, _CHARACTERS, 0, _UTF8, None, None)
        library.espeak_Synchronize()
        library.espeak_Terminate()
    finally:
        _unload(library._handle)
    whole = np.concatenate(parts) if parts else np.zeros(0, np.int16)
    return (whole / 32768).astype(np.float32), rate


def _unload(handle: int) -> None:
    unload: Any = getattr(_ctypes, "dlclose", None) or getattr(_ctypes, "FreeLibrary", None)
    unload(handle)


def _flite() -> str:
    if (program := shutil.which("flite")) is None:
        raise FileNotFoundError("flite: the program is not installed: install Debian's flite")
    return program


def _flite_says(voice: Voice, text: str) -> tuple[Samples, int]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "said.wav"
        command = [_flite(), "-voice", voice.name, "-t", text, "-o", str(path)]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        if found.returncode or not path.is_file():
            raise ValueError(f"voice {voice.name!r}: flite fails: {found.stderr.strip()}")
        return read_samples(path)
