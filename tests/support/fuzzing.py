"""How many examples the fuzz tests try: 2,000 by default, more with FUZZ_EXAMPLES."""

from __future__ import annotations

import os


def examples(default: int = 2000) -> int:
    """Return how many examples one fuzz test tries."""
    return int(os.environ.get("FUZZ_EXAMPLES", default))
