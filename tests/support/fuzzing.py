"""Number of examples of each fuzz test: FUZZ_EXAMPLES, by default 500. Use 20000 when you change a parser."""

from __future__ import annotations

import os


def examples(default: int = 500) -> int:
    """Return the number of examples of a fuzz test."""
    return int(os.environ.get("FUZZ_EXAMPLES", default))
