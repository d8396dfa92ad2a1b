"""Streams: the output of a model as it is generated, read from server-sent events."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from types import TracebackType
from typing import Any

from airflow_provider_aixplain.protocol import sse
from airflow_provider_aixplain.protocol.failure import ErrorCategory, Failure
from airflow_provider_aixplain.protocol.response import FIELDS, ModelResponse, ResponseStatus, read_response
from airflow_provider_aixplain.protocol.statuses import NO_REASON, is_success, normalize_status
from airflow_provider_aixplain.protocol.values import (
    NOT_JSON,
    read_json,
    read_json_text,
    to_printable,
    to_storable,
    to_text,
)
from airflow_provider_aixplain.protocol.wire import Answer, NoResponse, OpenAnswer, read_submission

_DONE = sse.DONE.decode()


class ModelResponseStreamer:
    """The chunks of a model's answer as they arrive: an iterator, and a context manager that closes the connection.

    Each chunk is a :class:`ModelResponse` in progress, with the chunk's text as ``data`` and everything else in its
    other fields. The last chunk has no text: its status is ``SUCCESS``, or ``FAILED`` with the reason, also if the
    stream was cut. If the platform does not stream, there is one chunk: the whole response, or one in progress whose
    ``url`` can be polled.

    :param outcome: the outcome of the request.
    """

    def __init__(self, outcome: OpenAnswer | Answer | NoResponse) -> None:
        self.status = ResponseStatus.IN_PROGRESS
        self._outcome = outcome
        self._chunks = _chunks(outcome) if isinstance(outcome, OpenAnswer) else iter([read_submission(outcome)])

    def __next__(self) -> ModelResponse:
        """Wait for the next chunk and return it.

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
        """Return the streamer itself; each chunk is returned once."""
        return self

    def __enter__(self) -> ModelResponseStreamer:
        """Return the streamer."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection. The run continues and is billed."""
        if isinstance(self._outcome, OpenAnswer):
            self._outcome.close()


class Transcript:
    """The whole answer of a stream, assembled from its chunks.

    Text is joined, and so are the other deltas of OpenAI's chunks: tool calls, reasoning and further choices are in
    ``additional_fields["choices"]``, each with a whole ``message``, as in an answer without streaming. Any other field
    keeps its last value that is not empty.
    """

    def __init__(self) -> None:
        self._parts: list[Any] = []
        self._whole = ModelResponse(ResponseStatus.IN_PROGRESS)
        self._choices: dict[Any, list[dict[str, Any]]] = {}

    def add(self, chunk: ModelResponse) -> str:
        """Add the next chunk, and return its text."""
        self._parts.append(chunk.data)
        for name in ("status", "completed", "failure"):
            setattr(self._whole, name, getattr(chunk, name))
        for name in FIELDS:
            if name not in ("status", "completed", "data", "additional_fields") and (value := getattr(chunk, name)):
                setattr(self._whole, name, value)
        for key, value in chunk.additional_fields.items():
            if key == "choices" and isinstance(value, list):
                for choice in filter(_is_object, value):
                    index = _index(choice)
                    self._choices.setdefault(index, []).append(choice if index else _text_of(choice)[1])
            elif value:
                self._whole.additional_fields[key] = value
        return to_text(chunk.data)

    def response(self) -> ModelResponse:
        """Return the answer so far."""
        is_single = len(self._parts) == 1
        self._whole.data = self._parts[0] if is_single else "".join(map(to_text, self._parts))
        if choices := list(filter(None, map(_join_choice, self._choices.values()))):
            self._whole.additional_fields["choices"] = choices
        return self._whole


def _join_choice(pieces: list[dict[str, Any]]) -> dict[str, Any]:
    joined = {key: value for piece in pieces for key, value in piece.items() if key != "delta" and value is not None}
    deltas = [piece["delta"] for piece in pieces if piece.get("delta")]
    return {**joined, "message": _join(deltas)} if deltas else joined


_NAMES = frozenset({"index", "id", "type", "role", "name"})
"""Keys of names and ids, which some suppliers repeat in each delta."""


def _join(pieces: list[Any], key: str = "") -> Any:
    """Return the value of its deltas: strings are joined, objects by key, lists by the ``index`` of their items.

    :param key: the key of the value.
    """
    pieces = [piece for piece in pieces if piece is not None]
    if pieces and all(isinstance(piece, str) for piece in pieces):
        return pieces[0] if key in _NAMES and len(set(pieces)) == 1 else "".join(pieces)
    if pieces and all(map(_is_object, pieces)):
        values: dict[str, list[Any]] = {}
        for name, value in chain.from_iterable(piece.items() for piece in pieces):
            values.setdefault(name, []).append(value)
        return {name: _join(deltas, name) for name, deltas in values.items()}
    if pieces and all(isinstance(piece, list) for piece in pieces):
        items: dict[Any, list[Any]] = {}
        for number, item in enumerate(chain.from_iterable(pieces)):
            is_indexed = _is_object(item) and isinstance(item.get("index"), int)
            items.setdefault(item["index"] if is_indexed else ("unindexed", number), []).append(item)
        return [_join(deltas) if len(deltas) > 1 else deltas[0] for deltas in items.values()]
    return pieces[-1] if pieces else None


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _index(choice: dict[str, Any]) -> Any:
    index = choice.get("index")
    return index if isinstance(index, int) else 0


def _chunks(answer: OpenAnswer) -> Iterator[ModelResponse]:
    events = _Events(answer)
    complete = False
    has_text = False
    pending: ModelResponse | None = None
    try:
        if (whole := events.plain_answer()) is not None:
            yield read_submission(Answer(answer.status_code, whole, redact=answer.redact))
            return
        for event in events:
            if event is None:
                complete = True
                break
            chunk = _read_chunk(event, has_text)
            if chunk.status is ResponseStatus.FAILED:
                yield chunk
                return
            if chunk.data:
                # The stream continued after a chunk that looked like the last one.
                complete, has_text = False, True
                if pending is not None:
                    yield pending
                    pending = None
            complete = complete or chunk.status is ResponseStatus.SUCCESS
            chunk.status, chunk.completed = ResponseStatus.IN_PROGRESS, False
            if chunk.data == _DONE:
                complete, pending = True, chunk
            else:
                yield chunk
        reason = "it ended without a completion event"
    except (ConnectionError, TimeoutError) as error:
        complete = complete and not events.is_inside
        reason = str(error)
    if complete:
        yield ModelResponse(ResponseStatus.SUCCESS, completed=True)
    else:
        message = to_printable(f"The stream was cut: {reason}")
        yield ModelResponse(ResponseStatus.FAILED, error_message=message, failure=Failure(ErrorCategory.PLATFORM))


class _Events:
    """The events of an answer: JSON objects, strings, or None for ``[DONE]``."""

    def __init__(self, answer: OpenAnswer) -> None:
        self._is_stream: bool | None = True if "event-stream" in answer.content_type else None
        self._pieces = iter(answer.body)
        self._redact = answer.redact
        self._decoder = sse.EventDecoder()

    @property
    def is_inside(self) -> bool:
        """Whether an event has begun and not ended."""
        return self._decoder.is_inside

    def plain_answer(self) -> bytes | None:
        """Return the whole body if it is not a stream; otherwise None."""
        start = b""
        while self._is_stream is None and (piece := next(self._pieces, None)) is not None:
            start = start + piece if start.strip() else piece
            self._is_stream = sse.looks_like_events(start)
        if self._is_stream:
            self._pieces = chain([start], self._pieces)
            return None
        pieces, size = [start], len(start)
        for piece in self._pieces:
            pieces.append(piece)
            size += len(piece)
            sse.check_size(size)
        whole = b"".join(pieces)
        if not isinstance(read_json(whole), dict) and isinstance(read_json(whole.lstrip().partition(b"\n")[0]), dict):
            self._pieces = iter([whole])  # JSON lines
            return None
        return whole

    def __iter__(self) -> Iterator[dict[str, Any] | str | None]:
        for piece in self._pieces:
            for event in self._decoder.feed(piece):
                yield from self._read(event)
        for event in self._decoder.end():
            # A JSON value that was cut off is not output of the model.
            if (
                not event.data.startswith((b"{", b"[", b'"'))
                or self._lines(event)
                or read_json(event.data) is not NOT_JSON
            ):
                yield from self._read(event)

    def _read(self, event: sse.Event) -> Iterator[dict[str, Any] | str | None]:
        text = event.data.decode(errors="replace")
        value = read_json_text(text, self._redact)
        text = to_storable(text, self._redact)
        if event.name.strip() == b"error":
            yield {"error": (text or True) if value is NOT_JSON else value}
        elif isinstance(value, (dict, str)):
            yield value
        elif text:
            yield from self._lines(event) or [text]

    def _lines(self, event: sse.Event) -> list[dict[str, Any] | None]:
        """Return the lines of an event if each is a JSON object or ``[DONE]``: some suppliers omit the blank lines."""
        values = []
        for line in event.data.split(b"\n"):
            value = None if line.strip() == sse.DONE else read_json_text(line.decode(errors="replace"), self._redact)
            if not isinstance(value, dict) and line.strip() != sse.DONE:
                return []
            values.append(value)
        return values


def _read_chunk(event: dict[str, Any] | str, has_text: bool) -> ModelResponse:
    """Return the response of an event: failed, successful if it is a completion event, otherwise in progress.

    :param has_text: whether earlier events had text.
    """
    if isinstance(event, str):
        return ModelResponse(ResponseStatus.IN_PROGRESS, data=event)
    choice = _text_choice(event)
    finish = choice.get("finish_reason")
    if choice.get("error") and not event.get("error"):
        event = {**event, "error": choice["error"]}
    text = "" if has_text and "delta" not in choice and "text" not in choice else _text_of(choice)[0]
    chunk = read_response(event, has_data=has_text or bool(text) or None)
    has_reason = chunk.error_message and chunk.status is ResponseStatus.IN_PROGRESS
    is_failed = chunk.status is ResponseStatus.FAILED or (has_reason and not is_success(normalize_status(event)))
    if is_failed or event.get("error") or finish == "error":
        chunk.status, chunk.completed, chunk.data = ResponseStatus.FAILED, True, ""
        chunk.error_message = chunk.error_message or to_text(event.get("message")) or NO_REASON
        return chunk
    if isinstance(finish, str) and finish:
        chunk.status = ResponseStatus.SUCCESS
    if text:
        chunk.data = text
    elif isinstance(chunk.data, dict):
        chunk.additional_fields["data"] = chunk.data
        chunk.data = to_text(next((chunk.data[key] for key in ("text", "output") if key in chunk.data), chunk.data))
    else:
        chunk.data = to_text(chunk.data)
    return chunk


def _text_choice(event: dict[str, Any]) -> dict[str, Any]:
    """Return the first choice of an OpenAI chunk, whose text is the answer; empty if it is missing."""
    choices = event.get("choices")
    choices = filter(_is_object, choices) if isinstance(choices, list) else ()
    return next((choice for choice in choices if _index(choice) == 0), {})


def _text_of(choice: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the text of a choice, and the choice without it."""
    for name, key in (("delta", "content"), ("message", "content"), ("", "text")):
        place = choice.get(name) if name else choice
        if isinstance(place, dict) and place.get(key):
            content = place[key]
            parts = content if isinstance(content, list) else [content]
            others = [part for part in parts if not _text_of_part(part)]
            kept = {k: v for k, v in place.items() if k != key} | ({key: others} if others else {})
            return "".join(map(_text_of_part, parts)), {**choice, name: kept} if name else kept
    return "", choice


def _text_of_part(part: Any) -> str:
    """Return the text of a part of a message's content: a string, or an object with ``text``; otherwise empty."""
    text = part.get("text") if isinstance(part, dict) else part
    return text if isinstance(text, str) else ""
