"""Streams: the text of a model as it is made, read from server-sent events."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from itertools import chain
from types import TracebackType
from typing import Any

from airflow_provider_aixplain.protocol.failure import ErrorCategory, Failure
from airflow_provider_aixplain.protocol.response import ModelResponse, ResponseStatus, read_response
from airflow_provider_aixplain.protocol.values import NOT_JSON, as_text, printable, read
from airflow_provider_aixplain.protocol.wire import Answer, NoAnswer, OpenAnswer, read_submission

MAX_EVENT = 64 * 1024 * 1024
"""Bytes that one event, or an answer that is no stream, may take: a stream is read in bounded memory."""

_DONE = "[DONE]"
_OTHER_FIELDS = (b"event:", b"id:", b"retry:", b":")


class ModelResponseStreamer:
    """The chunks of a model's answer as they arrive: an iterator, and a context manager that ends the exchange.

    Each chunk is a :class:`ModelResponse` in progress with the chunk's text as ``data`` and the rest of what was sent
    in its other fields. The last one brings no text: its status is ``SUCCESS``, or ``FAILED`` with the reason, also if
    the stream was cut. A platform that does not stream after all gives one chunk: the whole response, or one in
    progress whose ``url`` can be polled.

    :param outcome: what came back for the request.
    """

    def __init__(self, outcome: OpenAnswer | Answer | NoAnswer) -> None:
        self.status = ResponseStatus.IN_PROGRESS
        self._outcome = outcome
        self._chunks = _chunks(outcome) if isinstance(outcome, OpenAnswer) else iter([read_submission(outcome)])

    def __next__(self) -> ModelResponse:
        """Return the next chunk, waiting for it.

        :raises StopIteration: after the last one.
        """
        try:
            chunk = next(self._chunks)
        except StopIteration:
            self.close()
            raise
        self.status = chunk.status
        return chunk

    def __iter__(self) -> Iterator[ModelResponse]:
        """Return the streamer itself: what was read is gone."""
        return self

    def __enter__(self) -> ModelResponseStreamer:
        """Return the streamer."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End the exchange."""
        self.close()

    def close(self) -> None:
        """End the exchange. The platform goes on with the run, and bills it."""
        if isinstance(self._outcome, OpenAnswer):
            self._outcome.close()


class Transcript:
    """The whole answer of a stream, put together from its chunks."""

    def __init__(self) -> None:
        self._parts: list[Any] = []
        self._whole = ModelResponse(ResponseStatus.IN_PROGRESS)

    def add(self, chunk: ModelResponse) -> str:
        """Take in the next chunk, and return its text. What else it says replaces what an earlier one said."""
        self._parts.append(chunk.data)
        for name in ("status", "completed", "error_message", "failure"):
            setattr(self._whole, name, getattr(chunk, name))
        for name in ("details", "used_credits", "run_time", "usage", "url", "error_code", "asset"):
            if value := getattr(chunk, name):
                setattr(self._whole, name, value)
        self._whole.additional_fields.update(chunk.additional_fields)
        return as_text(chunk.data)

    def response(self) -> ModelResponse:
        """Return the answer as far as it has come."""
        alone = len(self._parts) == 1
        self._whole.data = self._parts[0] if alone else "".join(map(as_text, self._parts))
        return self._whole


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
            *parts, self._rest = textwrap.wrap(self._rest, self._width, drop_whitespace=False)
            lines += parts
        return [part for line in lines for part in textwrap.wrap(line.strip(), self._width)]

    def end(self) -> list[str]:
        """Return what is left."""
        return textwrap.wrap(self._rest.strip(), self._width)


def _chunks(answer: OpenAnswer) -> Iterator[ModelResponse]:
    lines = map(answer.redact, _lines(answer.body))
    complete = False
    try:
        first = next((line for line in lines if line.strip()), b"")
        if "event-stream" not in answer.content_type and not first.startswith((b"data:", *_OTHER_FIELDS)):
            yield read_submission(Answer(200, _bounded(chain([first], lines))))
            return
        for event in _events(chain([first], lines)):
            chunk = _read_chunk(event)
            if chunk.status is ResponseStatus.FAILED:
                yield chunk
                return
            if chunk.data == _DONE:
                complete = True
                break
            complete = complete or chunk.status is ResponseStatus.SUCCESS
            chunk.status, chunk.completed = ResponseStatus.IN_PROGRESS, False
            yield chunk
        reason = "it ended without saying that it is complete"
    except ConnectionError as error:
        reason = str(error)
    if complete:
        yield ModelResponse(ResponseStatus.SUCCESS, completed=True)
    else:
        message = printable(f"The stream was cut: {reason}")
        yield ModelResponse(ResponseStatus.FAILED, error_message=message, failure=Failure(ErrorCategory.PLATFORM))


def _lines(body: Iterable[bytes]) -> Iterator[bytes]:
    """Cut bytes into lines at LF or CR LF, and nowhere else: Unicode's other separators may stand in a text."""
    rest = b""
    for piece in body:
        *lines, rest = (rest + piece).split(b"\n")
        yield from (line.removesuffix(b"\r") for line in lines)
        _check_size(len(rest))
    yield rest


def _events(lines: Iterable[bytes]) -> Iterator[Any]:
    """Yield the data of each event as soon as it is whole: at a blank line, or when one line holds a JSON value.

    A line without a field's name counts as data, as some suppliers send plain JSON lines.
    """
    held: list[bytes] = []
    size = 0
    for line in lines:
        if line.startswith(_OTHER_FIELDS):
            continue
        data = line[5:].removeprefix(b" ") if line.startswith(b"data:") else line
        done = data.strip() == _DONE.encode()
        if held and (done or not line):
            yield _event(b"\n".join(held))
            held, size = [], 0
        if done:
            yield _DONE
        elif not held and read(data) is not NOT_JSON:
            yield _event(data)
        elif line:
            held.append(data)
            size += len(data)
            _check_size(size)
    if held:
        yield _event(b"\n".join(held))


def _event(data: bytes) -> dict[str, Any] | str:
    """Return an event's JSON object, or its text."""
    value = read(data)
    return value if isinstance(value, (dict, str)) else data.decode(errors="replace")


def _read_chunk(event: dict[str, Any] | str) -> ModelResponse:
    """Return an event as a response: failed, or successful if it says that the stream is complete, or in progress."""
    if isinstance(event, str):
        return ModelResponse(ResponseStatus.IN_PROGRESS, data=event)
    choices = event.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    status, finish = as_text(event.get("status")).upper(), choice.get("finish_reason")
    chunk = read_response(event, otherwise=ResponseStatus.IN_PROGRESS)
    if event.get("error") or status in ("FAILED", "ERROR") or finish == "error":
        error = event.get("error")
        told = error.get("message") if isinstance(error, dict) else None
        reasons = (told, chunk.error_message, event.get("message"), choice.get("error"))
        chunk.status, chunk.completed, chunk.data = ResponseStatus.FAILED, True, ""
        chunk.error_message = next((as_text(reason) for reason in reasons if reason), "the platform gives no reason")
        return chunk
    complete = status in ("SUCCESS", "COMPLETED") or (isinstance(finish, str) and finish != "")
    chunk.status = ResponseStatus.SUCCESS if complete else ResponseStatus.IN_PROGRESS
    delta = choice.get("delta")
    if isinstance(delta, dict) and isinstance(delta.get("content"), str):
        chunk.data = delta["content"]
    elif isinstance(chunk.data, dict):
        chunk.additional_fields["data"] = chunk.data
        chunk.data = as_text(next((chunk.data[key] for key in ("text", "output") if key in chunk.data), chunk.data))
    else:
        chunk.data = as_text(chunk.data)
    return chunk


def _bounded(lines: Iterable[bytes]) -> bytes:
    held = bytearray()
    for line in lines:
        held += line + b"\n"
        _check_size(len(held))
    return bytes(held)


def _check_size(size: int) -> None:
    if size > MAX_EVENT:
        raise ConnectionError(f"a part of it is longer than {MAX_EVENT} bytes")
