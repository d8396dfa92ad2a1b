"""``make bench``: runs all benchmarks, for about two hours; ``python -m tests.benchmarks.NAME`` runs one."""

from __future__ import annotations

import subprocess
import sys

for name in ("schedules", "imports", "scale", "takeover", "polling", "batch", "usage_page", "visits", "end_to_end"):
    subprocess.run([sys.executable, "-m", f"tests.benchmarks.{name}"], check=True)
