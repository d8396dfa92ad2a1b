"""The examples in the documentation, as the tests run them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
EMULATED = {"6414bd3cd09663e9225130e8": "sentiment", "669a63646eb56306647e1091": "echo"}
"""Models of the public platform, and those of the emulator that stand in for them."""

_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MAKES_A_DAG = re.compile(r"\bDAG\(|^@dag", re.MULTILINE)


@dataclass(frozen=True)
class Example:
    """A block of Python on a page.

    :param name: of its page, and of the line where it begins.
    :param code: with models that the emulator has.
    """

    name: str
    code: str

    @property
    def kind(self) -> str:
        """``dag``: to be run by Airflow; ``tests``: by pytest; ``script``: by Python."""
        if _MAKES_A_DAG.search(self.code):
            return "dag"
        return "tests" if "def test_" in self.code else "script"


def examples(kind: str) -> list[Example]:
    """Return the examples of a kind. Blocks that say ``no-run`` are none."""
    return [example for page in PAGES for example in _of(page) if example.kind == kind]


def _of(page: Path) -> Iterator[Example]:
    text = page.read_text(encoding="utf-8")
    for block in _BLOCK.finditer(text):
        code = block[1]
        for public, emulated in EMULATED.items():
            code = code.replace(public, emulated)
        line = text.count("\n", 0, block.start()) + 1
        yield Example(f"{page.stem.lower()}_{line}", code)
