"""Ways to damage the content of a file: blindly, in its text, in its numbers; and bombs."""

from __future__ import annotations

import functools
import gzip
import random
import re
import struct
import zlib

ODD_NUMBERS = [
    *("-1", "0", "+5", "1e999", "-1e-999", "nan", "inf", "9" * 20),
    *("0x10", "1_0", ".", "1e", "1,5", "٣"),
]
ODD_TEXTS = [
    b"", b"?", b'"', b"'", b"{", b"}", b"%", b",", b"\\", b"\0", b"\xff\xfe", b"\xc3", b"\n", b"\r",
    b"'" + b"\\'" * 40, b"\\" * 41, b"'" * 500, b"{" * 500, b"(" * 5000, b"a" * 100_000, b"../",
]  # fmt: skip


def malform(rng: random.Random, content: bytes) -> tuple[str, bytes]:
    """Damage a content in one of the ways below; return which, and the damaged content."""
    way = rng.choice(_WAYS)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        content = way(rng, content)
    return way.__name__, content


def truncate(rng, content):
    return content[: rng.randrange(len(content) + 1)]


def flip_bits(rng, content):
    damaged = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        if damaged:
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def flip_early_bits(rng, content):
    early = rng.choice((16, 64, 256))
    return flip_bits(rng, content[:early]) + content[early:]


def flip_late_bits(rng, content):
    late = max(0, len(content) - rng.choice((16, 64, 512)))
    return content[:late] + flip_bits(rng, content[late:])


def cut_out(rng, content):
    start, end = _part(rng, content)
    return content[:start] + content[end:]


def repeat(rng, content):
    start, end = _part(rng, content)
    return content[:end] + content[start:]


def fill_in(rng, content):
    start, end = _part(rng, content)
    return content[:start] + rng.choice((b"\0", b"\xff", b" ")) * (end - start) + content[end:]


def append(rng, content):
    return content + rng.choice((b"\0", b"\n", rng.randbytes(20), content))


def put_odd_number(rng, content):
    """Overwrite bytes with a number that a length or count should not be."""
    size, code = rng.choice(((1, "B"), (2, "H"), (4, "I"), (8, "Q")))
    place = rng.randrange(max(1, min(len(content), rng.choice((32, 200, 10**9)))))
    most = 256**size - 1
    number = rng.choice((0, 1, most, most // 2, most // 2 + 1, rng.randrange(most), 64 << 20))
    coded = struct.pack(rng.choice("<>") + code, number & most)
    return content[:place] + coded + content[place + size :]


def change_number_in_text(rng, content):
    numbers = list(re.finditer(rb"-?\d+(?:\.\d+)?", content[:5000]))
    if not numbers:
        return flip_bits(rng, content)
    start, end = rng.choice(numbers).span()
    return content[:start] + rng.choice(ODD_NUMBERS).encode() + content[end:]


def insert_text(rng, content):
    place = rng.randrange(min(len(content), 2000) + 1)
    return content[:place] + rng.choice(ODD_TEXTS) + content[place:]


def swap_lines(rng, content):
    lines = content.split(b"\n")
    one, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[one], lines[other] = lines[other], lines[one]
    return b"\n".join(lines)


def random_bytes(rng, content):
    return rng.randbytes(rng.choice((0, 1, 10, 1000)))


_WAYS = [
    *(truncate, flip_bits, flip_early_bits, flip_late_bits, cut_out, repeat, fill_in, append),
    *(put_odd_number, put_odd_number, change_number_in_text, insert_text, swap_lines, random_bytes),
]


def _part(rng, content):
    start = rng.randrange(len(content) + 1)
    return start, min(len(content), start + rng.choice((1, 4, 30, 1000)))


@functools.cache
def gzip_of_zeros(megabytes: int, before: bytes = b"") -> bytes:
    """Return a gzip file of a thousandth of what it unpacks to, made at once: of many members."""
    return gzip.compress(before) + gzip.compress(bytes(1 << 20)) * megabytes


def png_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png_that_claims(width: int, height: int, depth: int = 8, colour: int = 0) -> bytes:
    """Return a PNG file of any size that holds zeros, with right checksums."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    lines = zlib.compress(bytes(min(height * (width * depth // 8 + 1), 1 << 20)))
    chunks = png_chunk(b"IHDR", head) + png_chunk(b"IDAT", lines) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks
