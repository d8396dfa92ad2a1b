"""Streams: the text of a model as it is made, read from server-sent events."""

from __future__ import annotations

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
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


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
        self._whole.additional_fields.update({key: value for key, value in chunk.additional_fields.items() if value})
        return as_text(chunk.data)

    def response(self) -> ModelResponse:
        """Return the answer as far as it has come."""
        alone = len(self._parts) == 1
        self._whole.data = self._parts[0] if alone else "".join(map(as_text, self._parts))
        return self._whole


def _chunks(answer: OpenAnswer) -> Iterator[ModelResponse]:
    events = _Events(answer)
    complete = False
    held: ModelResponse | None = None
    try:
        if (whole := events.plain_answer()) is not None:
            yield read_submission(Answer(answer.status_code, whole))
            return
        for event in events:
            if event is None:
                complete = True
                break
            chunk = _read_chunk(event)
            if chunk.status is ResponseStatus.FAILED:
                yield chunk
                return
            if chunk.data:
                # Text that comes after it shows that what looked like the end was none.
                complete = False
                if held is not None:
                    yield held
                    held = None
            complete = complete or chunk.completed or chunk.status is ResponseStatus.SUCCESS
            chunk.status, chunk.completed = ResponseStatus.IN_PROGRESS, False
            if chunk.data == _DONE:
                complete, held = True, chunk
            else:
                yield chunk
        reason = "it ended without saying that it is complete"
    except (ConnectionError, TimeoutError) as error:
        complete = complete and not events.unfinished
        reason = str(error)
    if complete:
        yield ModelResponse(ResponseStatus.SUCCESS, completed=True)
    else:
        message = printable(f"The stream was cut: {reason}")
        yield ModelResponse(ResponseStatus.FAILED, error_message=message, failure=Failure(ErrorCategory.PLATFORM))


class _Events:
    """The events of an answer, each as soon as it is whole: at a blank line, or when one line holds a JSON object.

    An event is a JSON object, or a text, or None for ``[DONE]``. A line without a field's name counts as data, as some
    suppliers send plain JSON lines.
    """

    def __init__(self, answer: OpenAnswer) -> None:
        self._is_stream = "event-stream" in answer.content_type
        self._lines: Iterator[bytes] = map(answer.redact, self._cut(answer.body))
        self._line: list[bytes] = []
        self._data: list[bytes] = []

    @property
    def unfinished(self) -> bool:
        """Whether an event has begun and not ended."""
        return any(self._line) or any(self._data)

    def plain_answer(self) -> bytes | None:
        """Return the whole body if it is no stream, else None."""
        first = next((line for line in self._lines if line.strip()), b"").removeprefix(_BYTE_ORDER_MARK)
        self._lines = chain([first], self._lines)
        if self._is_stream or first.startswith((b"data:", *_OTHER_FIELDS)):
            return None
        lines, size = [], 0
        for line in self._lines:
            lines.append(line)
            size += len(line)
            _check_size(size)
        whole = b"\n".join(lines)
        if isinstance(read(first), dict) and read(whole) is NOT_JSON:
            self._lines = iter(lines)
            return None
        return whole

    def __iter__(self) -> Iterator[dict[str, Any] | str | None]:
        size = 0
        is_error = False
        for line in self._lines:
            if line.startswith(_OTHER_FIELDS):
                is_error = is_error or line.replace(b" ", b"") == b"event:error"
                continue
            data = line[5:].removeprefix(b" ") if line.startswith(b"data:") else line
            is_done = data.strip() == _DONE.encode()
            is_whole = not self._data and isinstance(read(data), dict)
            if line and not is_done:
                self._data.append(data)
                size += len(data)
                _check_size(size)
            if self._data and (is_done or is_whole or not line):
                yield self._event(is_error)
                size, is_error = 0, False
            if is_done:
                yield None
        # What a cut has left of an event is no text of the model's.
        if self._data and not self._data[0].startswith((b"{", b"[", b'"')):
            yield self._event(is_error)

    def _event(self, is_error: bool) -> dict[str, Any] | str:
        data = b"\n".join(self._data)
        self._data = []
        value = read(data)
        if is_error:
            return {"error": data.decode(errors="replace") if value is NOT_JSON else value}
        return value if isinstance(value, (dict, str)) else data.decode(errors="replace")

    def _cut(self, body: Iterable[bytes]) -> Iterator[bytes]:
        """Cut bytes into lines at LF or CR LF, and nowhere else: Unicode's other separators may stand in a text."""
        size = 0
        for piece in body:
            *ends, rest = piece.split(b"\n")
            for end in ends:
                line = b"".join([*self._line, end])
                self._line, size = [], 0
                yield line.removesuffix(b"\r")
            self._line.append(rest)
            size += len(rest)
            _check_size(size)
        line = b"".join(self._line)
        self._line = []
        yield line


def _read_chunk(event: dict[str, Any] | str) -> ModelResponse:
    """Return an event as a response: failed, or successful if it says that the stream is complete, or in progress."""
    if isinstance(event, str):
        return ModelResponse(ResponseStatus.IN_PROGRESS, data=event)
    choices = event.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    status, finish = as_text(event.get("status")).upper(), choice.get("finish_reason")
    succeeded = status in ("SUCCESS", "COMPLETED")
    chunk = read_response(event, otherwise=ResponseStatus.IN_PROGRESS)
    error = event.get("error")
    reported = chunk.error_message and not succeeded
    if error or reported or status in ("FAILED", "ERROR") or finish == "error":
        told = error.get("message") if isinstance(error, dict) else None
        reasons = (told, chunk.error_message, event.get("message"), choice.get("error"))
        chunk.status, chunk.completed, chunk.data = ResponseStatus.FAILED, True, ""
        chunk.error_message = next((as_text(reason) for reason in reasons if reason), "the platform gives no reason")
        return chunk
    ended = succeeded or (isinstance(finish, str) and finish != "")
    chunk.status = ResponseStatus.SUCCESS if ended else ResponseStatus.IN_PROGRESS
    delta = choice.get("delta")
    if isinstance(delta, dict) and isinstance(delta.get("content"), str):
        chunk.data = delta["content"]
    elif isinstance(chunk.data, dict):
        chunk.additional_fields["data"] = chunk.data
        chunk.data = as_text(next((chunk.data[key] for key in ("text", "output") if key in chunk.data), chunk.data))
    else:
        chunk.data = as_text(chunk.data)
    return chunk


def _check_size(size: int) -> None:
    if size > MAX_EVENT:
        raise ConnectionError(f"a part of it is longer than {MAX_EVENT} bytes")
