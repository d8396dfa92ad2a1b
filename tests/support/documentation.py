"""The examples in the documentation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))

_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_DEFINES_A_DAG = re.compile(r"\bDAG\(|^@dag", re.MULTILINE)


@dataclass(frozen=True)
class Example:
    """A block of Python on a page.

    :param name: names its page and its first line.
    :param code: its code.
    """

    name: str
    code: str

    @property
    def kind(self) -> str:
        """``dag`` if it defines a DAG, ``tests`` if it defines tests, else ``script``."""
        if _DEFINES_A_DAG.search(self.code):
            return "dag"
        return "tests" if "def test_" in self.code else "script"


def examples(kind: str) -> list[Example]:
    """Return the examples of a kind. Blocks tagged ``no-run`` are not examples."""
    return [example for page in PAGES for example in _of(page) if example.kind == kind]


def table(page: str) -> str:
    """Return the CSV file that a page shows."""
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```csv\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return str(block)


def _of(page: Path) -> Iterator[Example]:
    text = page.read_text(encoding="utf-8")
    for block in _BLOCK.finditer(text):
        line = text.count("\n", 0, block.start()) + 1
        yield Example(f"{page.stem.lower()}_{line}", block[1])
