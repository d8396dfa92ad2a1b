"""Text that arrives in pieces, cut into lines for a task's log."""

from __future__ import annotations

import textwrap


class Lines:
    """Cuts text that arrives in pieces into lines for a log: at its own line ends, and where a line grows too long.

    :param width: the longest line, in characters.
    """

    def __init__(self, width: int = 120) -> None:
        self._width = width
        self._rest = ""

    def add(self, text: str) -> list[str]:
        """Return the lines that are whole with this piece."""
        *lines, self._rest = (self._rest + text).split("\n")
        if len(self._rest) > self._width:
            *parts, rest = textwrap.wrap(self._rest, self._width, drop_whitespace=False)
            lines += parts
            self._rest = rest.lstrip()
        return [part for line in lines for part in textwrap.wrap(line.rstrip(), self._width)]

    def end(self) -> list[str]:
        """Return what is left."""
        return textwrap.wrap(self._rest.rstrip(), self._width)
