"""A language that a small recogniser learns in seconds: every word is a tone of its own."""

import json

import numpy as np

from tests.speech.recordings import write

HERTZ = {"one": 300, "two": 500, "three": 800, "four": 1300, "five": 2100, "six": 3400}


def spoken(words, draw):
    """Return the sound of words, with pauses and a little noise."""
    parts = [np.zeros(800)]
    for word in words:
        time = np.arange(draw.integers(1900, 2600)) / 16_000
        parts += [0.4 * np.sin(2 * np.pi * HERTZ[word] * time), np.zeros(draw.integers(500, 1300))]
    whole = np.concatenate(parts)
    return (whole + 0.003 * draw.normal(size=len(whole))).astype(np.float32)


def corpus(folder, n, seed, more=()):
    """Write n sentences of two to five words as a corpus; return its folder."""
    draw = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    lines = list(more)
    for i in range(n):
        words = draw.choice(list(HERTZ), draw.integers(2, 6)).tolist()
        write(folder / f"{i}.wav", spoken(words, draw))
        lines.append({
            "id": f"s{i}", "audio_filepath": f"{i}.wav", "text": " ".join(words),
            "speaker": f"p{i % 3}", "group": "odd" if i % 2 else "even",
        })  # fmt: skip
    (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder
