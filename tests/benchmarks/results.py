"""Writes the results of benchmarks: a table and a JSON file."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

FOLDER = Path(".bench")


def report(name: str, title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows with the same keys as a table, and write them to ``.bench/NAME.json``."""
    table = Table(title=title, title_justify="left")
    for index, heading in enumerate(rows[0]):
        table.add_column(heading, justify="right" if index else "left")
    for row in rows:
        table.add_row(*(_format(value) for value in row.values()))
    console = Console(highlight=False, width=130)
    console.print()
    console.print(table)
    FOLDER.mkdir(exist_ok=True)
    content = {"title": title, "machine": f"{platform.machine()}, Python {platform.python_version()}", "rows": rows}
    (FOLDER / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")


def _format(value: Any) -> str:
    if not isinstance(value, float):
        return "" if value is None else str(value)
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
