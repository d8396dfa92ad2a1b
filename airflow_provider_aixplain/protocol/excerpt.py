"""Reads whether a run has finished from an answer that is too large to be parsed, in linear time and bounded memory."""

from __future__ import annotations

import re

from airflow_provider_aixplain.protocol.values import read_json

MAX_SCALAR = 100
"""Bytes of a string that are kept until its end arrives; a status is shorter."""

MAX_TOP_LEVEL = 64 * 1024
"""Bytes of the top level that are kept in addition to the beginning of an answer."""

# A match is a bracket, or a string, whose group is missing if its end has not arrived. The pattern never backtracks.
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(")?|[{}\[\]]', re.DOTALL)
_CLOSERS = {b"{": b"}", b"[": b"]"}
_QUOTE, _OPENERS = ord('"'), b"{["


class Excerpt:
    """A short JSON object: all values that the beginning of an answer contains, and the top level of the rest.

    Lists and objects that begin later are empty in it, and the beginning of a long string is left out.

    :param head: the beginning of the answer.
    :param limit: the size of the largest answer that is read to its end, in bytes.
    """

    def __init__(self, head: bytes, limit: int) -> None:
        self._left = limit - len(head)
        self._max_size = len(head) + MAX_TOP_LEVEL
        self._json = bytearray()
        self._rest = b""
        self._depth = 0
        self.is_done = self._left <= 0 or not head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")
        """Whether the rest of the answer is not needed."""
        if not self.is_done:
            self._read_head(head)

    @property
    def text(self) -> bytes:
        """The JSON text. It is empty or incomplete if the answer could not be read."""
        return bytes(self._json)

    def add(self, piece: bytes) -> None:
        """Read a further piece of the answer, of at most 64 KiB, so that other work gets its turn in between."""
        if self.is_done:
            return
        self._left -= len(piece)
        self._scan(piece)
        if self._left < 0 or len(self._json) > self._max_size:
            self._json.clear()
            self.is_done = True

    def _read_head(self, head: bytes) -> None:
        closers: list[bytes] = []
        end = 0
        for token in _TOKEN.finditer(head):
            mark = token[0]
            if mark[0] == _QUOTE:
                continue
            if mark in _OPENERS:
                closers.append(_CLOSERS[mark])
            elif closers:
                closers.pop()
            end = token.end()
        self._depth = len(closers)
        self._json += head[:end] + b"".join(reversed(closers[2:]))
        self._scan(head[end:])
        # At the top level the head may end within a value, which is left out.
        candidate = self._json.rpartition(b",")[0] if self._depth == 1 else self._json
        candidate = candidate + b"".join(reversed(closers[:2]))
        values = read_json(bytes(candidate))
        if isinstance(values, dict) and (values.get("completed") is True or values.keys() >= {"status", "completed"}):
            self._json, self.is_done = candidate, True

    def _scan(self, piece: bytes) -> None:
        """Keep what is at the top level: the brackets of nested values, but not what is between them."""
        piece = self._rest + piece
        self._rest = b""
        start, end = 0, len(piece)
        for token in _TOKEN.finditer(piece):
            mark = piece[token.start()]
            if mark == _QUOTE:
                if token[1] is None:
                    end = token.start()
                    # The mark "…" before the rest of a long string makes it unequal to any status.
                    self._rest = piece[end:] if len(piece) - end < MAX_SCALAR else '"…'.encode() + piece[token.end() :]
            elif mark in _OPENERS:
                self._depth += 1
                if self._depth == 2:
                    self._json += piece[start : token.end()]
            else:
                self._depth -= 1
                if self._depth == 1:
                    start = token.start()
        if self._depth < 2:
            self._json += piece[start:end]
