"""Fuzzers are modules that are also commands: ``python -m tests.fuzz.NAME`` at the top folder."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
