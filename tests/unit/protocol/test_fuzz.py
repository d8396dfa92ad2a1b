"""For any answer of the platform: no exception, only storable values, no key, and linear time."""

from __future__ import annotations

import gc
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_aixplain.protocol import wire
from airflow_provider_aixplain.protocol.excerpt import Excerpt
from airflow_provider_aixplain.protocol.response import ModelResponse, ResponseStatus
from airflow_provider_aixplain.protocol.stream import ModelResponseStreamer, Transcript
from airflow_provider_aixplain.protocol.values import MAX_FIGURE, RESERVED_KEYS
from airflow_provider_aixplain.protocol.wait import Wait
from airflow_provider_aixplain.protocol.wire import Answer, OpenAnswer
from tests.support.fuzzing import examples

KEY = "k3y/that-nobody-sees"
FUZZ = settings(max_examples=examples(), deadline=None)


def redact(text: str) -> str:
    return text.replace(KEY, "***")


TEXTS = st.sampled_from(
    ["", "hi", "a\0b", "\ud83d", "\ude00 half", "é 世界", f"it is {KEY}", "https://h/1", "1e999", "NaN", "[DONE]"]
)
RAW_NUMBERS = st.sampled_from(["NaN", "-Infinity", "1e999", "1" * 400, "-0", "0.1", "18446744073709551616"])
KEYS = st.sampled_from(["text", "output", "message", "code", "index", "a\0", "\ud800", KEY, *sorted(RESERVED_KEYS)])
KNOWN = st.sampled_from(
    [
        "status",
        "completed",
        "data",
        "url",
        "error_message",
        "errorMessage",
        "errorDetails",
        "error",
        "supplierError",
        "usedCredits",
        "used_credits",
        "runTime",
        "run_time",
        "usage",
        "asset",
        "requestId",
        "details",
        "error_code",
        "executionStats",
        "steps",
        "choices",
        "delta",
        "content",
        "tool_calls",
        "finish_reason",
        "start_time",
        "end_time",
        "credits",
    ]
)
STATUSES = st.sampled_from(["SUCCESS", "completed", "FAILED", "Aborted", "IN_PROGRESS", "QUEUED", "ERROR", "DONE"])
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | STATUSES
SMALL = st.dictionaries(KEYS | KNOWN, LEAVES, max_size=2)
JSON = (
    LEAVES | SMALL | st.lists(LEAVES | SMALL, max_size=2) | st.dictionaries(KNOWN, SMALL | st.lists(SMALL), max_size=2)
)
OBJECTS = st.dictionaries(KNOWN, JSON, max_size=4)
ENCODINGS = st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-32-be"])


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """JSON in all its spellings, whole or damaged, or anything else."""
    text = json.dumps(draw(OBJECTS | JSON), ensure_ascii=draw(st.booleans()))
    text = text.replace('"1e999"', draw(RAW_NUMBERS))
    if draw(st.booleans()):
        text = text.replace(KEY, "".join(f"\\u{ord(c):04x}" for c in KEY)).replace("__", "\\u005f_")
    body = text.encode(draw(ENCODINGS), "surrogatepass")
    damage = draw(st.sampled_from([0, 0, 0, 1, 2]))
    at = draw(st.integers(0, len(body)))
    return [body, body[:at], body[:at] + draw(st.binary(max_size=4)) + body[at:]][damage]


def check_stored(value: Any) -> None:
    """Fail if Airflow cannot store a value of an event or XCom, or if it contains the key."""
    if isinstance(value, dict):
        for key, item in value.items():
            assert key not in RESERVED_KEYS
            check_stored(key)
            check_stored(item)
    elif isinstance(value, list):
        for item in value:
            check_stored(item)
    elif isinstance(value, str):
        assert "\0" not in value
        assert KEY not in value
        value.encode()
    elif isinstance(value, (int, float)):
        assert math.isfinite(value)
        assert isinstance(value, float) or -(2**63) <= value < 2**64


def check_response(response: ModelResponse) -> None:
    event = response.to_dict()
    json.dumps(event, allow_nan=False)
    check_stored(event)
    repr(response)
    if response.failure and response.failure.retry_after is not None:
        assert 0 <= response.failure.retry_after <= MAX_FIGURE
    if outcome := Wait(1, 100).judge(response, 5):
        check_stored(outcome.to_event("https://h/1"))


DATES = ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]
TIMES = st.sampled_from(["", "0", "7", "0.4", "9" * 400, "-1", "1e5", "\u0667", *DATES]) | st.text(max_size=30)
HEADERS = st.dictionaries(st.sampled_from(["retry-after", "date"]), TIMES)


@FUZZ
@given(st.sampled_from([200, 201, 302, 404, 429, 503]), bodies() | st.binary(max_size=40), HEADERS, st.booleans())
def test_any_answer_is_read(status_code: int, body: bytes, headers: dict[str, str], is_cut: bool) -> None:
    answer = Answer(status_code, body, headers, is_cut, redact, 1e9)
    check_response(wire.read_poll(replace(answer, excerpt=body)))
    for read in (wire.read_poll, wire.read_submission):
        response = read(answer)
        check_response(response)
        assert response.completed or read is wire.read_poll or response.url
        if status_code >= 300:
            assert response.status is ResponseStatus.FAILED


PIECES = st.sampled_from(
    [b"data: ", b"data", b"event: error\n", b"\n", b"\n\n", b"\r", b"\r\n", b": x\n", b"id: 7\n", b"[DONE]", b"text"]
)
STREAMS = st.lists(PIECES | bodies() | bodies().map(lambda body: b"data: " + body + b"\n\n"), max_size=4)
TYPES = st.sampled_from(["text/event-stream", "", "application/json"])


@FUZZ
@given(STREAMS, TYPES, st.booleans())
def test_any_stream_is_read(pieces: list[bytes], content_type: str, is_lost: bool) -> None:
    def arrive() -> Iterator[bytes]:
        yield from pieces
        if is_lost:
            raise ConnectionError("reset")

    transcript = Transcript()
    chunks = list(ModelResponseStreamer(OpenAnswer(200, content_type, arrive(), redact=redact)))
    for chunk in chunks:
        check_response(chunk)
        transcript.add(chunk)
    assert chunks
    assert {chunk.status for chunk in chunks[:-1]} <= {ResponseStatus.IN_PROGRESS}
    check_response(transcript.response())


def stream_of(*pieces: bytes, content_type: str = "text/event-stream") -> Callable[[], Any]:
    def run() -> None:
        transcript = Transcript()
        for chunk in ModelResponseStreamer(OpenAnswer(200, content_type, pieces, redact=redact)):
            transcript.add(chunk)
        transcript.response()

    return run


def poll_of(body: bytes) -> Callable[[], Any]:
    return lambda: wire.read_poll(Answer(200, body, redact=redact))


def chunk_of(**delta: Any) -> bytes:
    return f"data: {json.dumps({'choices': [{'delta': delta}]})}\n\n".encode()


def excerpt_of(body: bytes) -> Callable[[], Any]:
    def run() -> None:
        excerpt = Excerpt(b'{"data":', 10**9)
        for start in range(0, len(body), 1000):
            excerpt.add(body[start : start + 1000])

    return run


GROWING: dict[str, Callable[[int], Callable[[], Any]]] = {
    "deep": lambda n: poll_of(b"[" + b",".join([b"[" * 400 + b"]" * 400] * (n // 8)) + b"]"),
    "at depth": lambda n: poll_of(b'{"a":' * 99 + b"[" + b",".join([b"[[1]]"] * n) + b"]" + b"}" * 99),
    "open": lambda n: poll_of(b"[" * 100 * n),
    "escapes": lambda n: poll_of(b'{"a": "' + b"\\u0000\\\\" * 50 * n + b'"}'),
    "steps": lambda n: poll_of(b'{"data": {"steps": [' + b",".join([b'{"credits": 0.1}'] * n) + b"]}}"),
    "a large string": lambda n: excerpt_of(b'["' + b'\\\\\\"' * 50 * n + b'"]'),
    "a large top level": lambda n: excerpt_of(b'[],"":' * 20 * n),
    "large and open": lambda n: excerpt_of(b'["' + b"[" * 50 * n),
    "no JSON": lambda n: poll_of(b"<" + b"\xff\0" * 500 * n),
    "a line in pieces": lambda n: stream_of(b"data: ", *[b"x" * 50] * 20 * n, b"\n\n"),
    "an event of many lines": lambda n: stream_of(*[b"data: x\r"] * 10 * n, b"\r"),
    "no blank lines": lambda n: stream_of(*[b'data: {"a": 1}\n'] * n),
    "white space": lambda n: stream_of(*[b"\n"] * 20 * n, content_type=""),
    "line ends": lambda n: stream_of(b"\r" * 200 * n, content_type=""),
    "one call": lambda n: stream_of(*[chunk_of(tool_calls=[{"index": 0, "a": "x"}])] * n),
    "calls": lambda n: stream_of(*[chunk_of(tool_calls=[{"index": i}], **{str(i): "x"}) for i in range(n)]),
}


@pytest.mark.parametrize("name", GROWING)
def test_time_grows_with_the_size(name: str) -> None:
    def seconds(size: int) -> float:
        """Return the CPU time of the quickest of some runs; without the collector, whose time grows otherwise."""
        run, times = GROWING[name](size), []
        gc.disable()
        try:
            for _ in range(3):
                start = time.process_time()
                run()
                times.append(time.process_time() - start)
        finally:
            gc.enable()
        return min(times)

    assert seconds(2000) < 10 * max(seconds(500), 0.001)
