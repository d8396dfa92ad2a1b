"""Server-sent events as in the WHATWG HTML standard, decoded from bytes that arrive in pieces."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass

from airflow_provider_aixplain.protocol.values import read_json

MAX_EVENT = 64 * 1024 * 1024
"""The largest event, or answer that is not a stream, in bytes: streams are read in bounded memory."""

DONE = b"[DONE]"

_LINE_END = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True)
class Event:
    """A server-sent event.

    :param data: its data lines, joined by LF.
    :param name: its type; empty by default.
    """

    data: bytes
    name: bytes = b""


class EventDecoder:
    """Decodes events: :meth:`feed` accepts bytes as they arrive, :meth:`end` returns an event that was cut off.

    Comments and unknown fields are ignored, and so are ``id`` and ``retry``, as a stream is never requested again. As
    an extension of the standard, a line that is a JSON object or ``[DONE]``, without a field name, is an event: some
    suppliers send JSON lines.
    """

    def __init__(self) -> None:
        self._line: list[bytes] = []
        self._line_size = 0
        self._data: list[bytes] = []
        self._data_size = 0
        self._name = b""
        self._is_first_line = True
        self._ended_with_cr = False

    @property
    def is_inside(self) -> bool:
        """Whether an event has started and not ended."""
        return any(self._line) or bool(self._data)

    def feed(self, piece: bytes) -> Iterator[Event]:
        """Return the events that this piece completes.

        :raises ConnectionError: if an event exceeds ``MAX_EVENT``.
        """
        if not piece:
            return
        rest_of_crlf, self._ended_with_cr = self._ended_with_cr, piece.endswith(b"\r")
        *ends, rest = _LINE_END.split(piece.removeprefix(b"\n") if rest_of_crlf else piece)
        for end in ends:
            yield from self._add_line(self._pop_line(end))
        self._line.append(rest)
        self._line_size += len(rest)
        check_size(self._line_size)

    def end(self) -> Iterator[Event]:
        """Return the event that the end of the stream cut off, if any. (The standard discards it.)"""
        if any(self._line):
            yield from self._add_line(self._pop_line(b""))
        if event := self._pop_event():
            yield event

    def _pop_line(self, end: bytes) -> bytes:
        line = b"".join([*self._line, end])
        self._line, self._line_size = [], 0
        if self._is_first_line:
            self._is_first_line = False
            return line.removeprefix(codecs.BOM_UTF8)
        return line

    def _add_line(self, line: bytes) -> Iterator[Event]:
        if not line:
            if event := self._pop_event():
                yield event
            return
        if line.strip() == DONE or (line.startswith(b"{") and isinstance(read_json(line), dict)):
            if event := self._pop_event():
                yield event
            yield Event(line.strip())
            return
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
            self._data_size += len(value) + 1
            check_size(self._data_size)
        elif field == b"event":
            self._name = value

    def _pop_event(self) -> Event | None:
        event = Event(b"\n".join(self._data), self._name) if self._data else None
        self._data, self._data_size, self._name = [], 0, b""
        return event


def looks_like_events(start: bytes) -> bool | None:
    """Return whether an answer is a stream of events, by its beginning; None if more bytes are needed."""
    start = start.removeprefix(codecs.BOM_UTF8).lstrip()
    if re.match(rb"(data|event|id|retry)?:|(data|event|id|retry)[\r\n]", start):
        return True
    longest = len(b"event:")
    return None if len(start) < longest else False


def check_size(size: int) -> None:
    """Check the size of an event, in bytes.

    :raises ConnectionError: if it exceeds ``MAX_EVENT``.
    """
    if size > MAX_EVENT:
        raise ConnectionError(f"an event exceeds {MAX_EVENT} bytes")
