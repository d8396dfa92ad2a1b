"""Streamed text as lines of a task's log."""

from __future__ import annotations

import re
from collections.abc import Iterator

from airflow_provider_aixplain.protocol.values import replace_control_characters

_BLANKS = re.compile(" *")


class LineBuffer:
    """Splits streamed text into lines for a log: at its line ends, and where a line exceeds the width.

    Control characters, which could forge or hide lines, become spaces.

    :param width: the longest line, in characters.
    """

    def __init__(self, width: int = 120) -> None:
        self._width = width
        self._rest = ""

    def add(self, text: str) -> list[str]:
        """Return the lines that this piece of text completes."""
        *lines, rest = (self._rest + text).split("\n")
        *parts, self._rest = _cut(replace_control_characters(rest), self._width)
        return [part for line in lines for part in self._wrap(line)] + [part.rstrip() for part in parts if part.strip()]

    def end(self) -> list[str]:
        """Return the last lines."""
        return self._wrap(self._rest)

    def _wrap(self, line: str) -> list[str]:
        return [part.rstrip() for part in _cut(replace_control_characters(line).rstrip(), self._width) if part.strip()]


def _cut(line: str, width: int) -> Iterator[str]:
    """Yield the parts of a line, cut at spaces and within words that exceed the width. The last part may be empty."""
    start = 0
    while len(line) - start > width:
        blank = line.rfind(" ", start, start + width + 1)
        end = blank if blank > start else start + width
        yield line[start:end]
        start = _BLANKS.match(line, end).end()  # type: ignore[union-attr] # it matches the empty string too
    yield line[start:]
