"""Text that arrives in pieces, cut into lines for a task's log."""

from __future__ import annotations

import re
from collections.abc import Iterator

from airflow_provider_aixplain.protocol.values import replace_control_characters

_BLANKS = re.compile(" *")


class LineBuffer:
    """Cuts text that arrives in pieces into lines for a log: at its own line ends, and where a line grows too long.

    Control characters, which could forge or hide lines, become blanks.

    :param width: the longest line, in characters.
    """

    def __init__(self, width: int = 120) -> None:
        self._width = width
        self._rest = ""

    def add(self, text: str) -> list[str]:
        """Return the lines that are complete with this piece."""
        *lines, rest = (self._rest + text).split("\n")
        *parts, self._rest = _cut(replace_control_characters(rest), self._width)
        return [part for line in lines for part in self._wrap(line)] + [part.rstrip() for part in parts if part.strip()]

    def end(self) -> list[str]:
        """Return what is left."""
        return self._wrap(self._rest)

    def _wrap(self, line: str) -> list[str]:
        return [part.rstrip() for part in _cut(replace_control_characters(line).rstrip(), self._width) if part.strip()]


def _cut(line: str, width: int) -> Iterator[str]:
    """Cut a line at blanks, and within words that are longer than a line. The last part comes in any case."""
    start = 0
    while len(line) - start > width:
        blank = line.rfind(" ", start, start + width + 1)
        end = blank if blank > start else start + width
        yield line[start:end]
        start = _BLANKS.match(line, end).end()  # type: ignore[union-attr] # it matches nothing too
    yield line[start:]
