"""Streams."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_aixplain.protocol import sse
from airflow_provider_aixplain.protocol.failure import ErrorCategory, Failure
from airflow_provider_aixplain.protocol.response import ModelResponse, ResponseStatus
from airflow_provider_aixplain.protocol.stream import ModelResponseStreamer, Transcript
from airflow_provider_aixplain.protocol.wire import Answer, NoResponse, OpenAnswer

SSE = "text/event-stream; charset=utf-8"


def events(*data: Any, end: str | None = "[DONE]") -> bytes:
    texts = [item if isinstance(item, str) else json.dumps(item) for item in data]
    return "".join(f"data: {text}\n\n" for text in [*texts, *([end] if end else [])]).encode()


def opened(body: Iterable[bytes], content_type: str = SSE) -> ModelResponseStreamer:
    return ModelResponseStreamer(OpenAnswer(200, content_type, body))


def read(body: bytes, content_type: str = SSE) -> tuple[str, ModelResponse]:
    """Return the text of a stream and its last chunk; the others are in progress."""
    streamer = opened([body], content_type)
    chunks = list(streamer)
    *others, last = chunks
    assert {chunk.status for chunk in others} <= {ResponseStatus.IN_PROGRESS}
    assert not any(chunk.completed for chunk in others)
    assert streamer.status is last.status
    return "".join(chunk.data for chunk in chunks), last


def cut(reason: str) -> ModelResponse:
    return ModelResponse(
        ResponseStatus.FAILED, error_message=f"The stream was cut: {reason}", failure=Failure(ErrorCategory.PLATFORM)
    )


DONE = ModelResponse(ResponseStatus.SUCCESS, completed=True)
NO_END = "it ended without a completion event"


class TestText:
    @pytest.mark.parametrize(
        ("data", "text"),
        [
            ([{"data": "Hel"}, {"data": "lo"}], "Hello"),
            ([{"data": {"text": "a"}}, {"data": {"output": "b"}}, {"data": {"text": "c", "output": "d"}}], "abc"),
            ([{"data": {"other": 1}}, {"data": [1]}, {"data": 5}, {"data": None}, {}], '{"other": 1}[1]5'),
            ([{"choices": [{"delta": {"content": "Hi"}}]}, {"choices": [{"delta": {"role": "assistant"}}]}], "Hi"),
            ([{"choices": []}, {"choices": "odd"}, {"choices": ["odd"]}, {"choices": [{"delta": None}]}], ""),
            (["plain", " text", '"quoted"', "5", "true"], "plain textquoted5true"),
            ([{"data": "é 世界 \u2028 \x85 end"}], "é 世界 \u2028 \x85 end"),
        ],
    )
    def test_the_text_of_a_chunk_is_read(self, data: list[Any], text: str) -> None:
        assert read(events(*data)) == (text, DONE)

    @pytest.mark.parametrize(
        ("choices", "text"),
        [
            (
                [
                    {
                        "delta": {
                            "content": [{"type": "text", "text": "a"}, "b", {"type": "image_url"}, 5, {"text": None}]
                        }
                    }
                ],
                "ab",
            ),
            ([{"index": 1, "delta": {"content": "other"}}, {"index": 0, "delta": {"content": "mine"}}], "mine"),
            ([{"index": 1, "delta": {"content": "other"}}], ""),
            ([{"text": "legacy"}], "legacy"),
            ([{"message": {"content": "whole"}}], "whole"),
        ],
    )
    def test_the_text_of_openai_chunks_is_read(self, choices: Any, text: str) -> None:
        assert read(events({"choices": choices})) == (text, DONE)

    def test_a_whole_message_after_its_deltas_is_not_repeated(self) -> None:
        pieces = {"choices": [{"delta": {"content": "Hi"}}]}
        assert read(events(pieces, {"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]})) == (
            "Hi",
            DONE,
        )

    @pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
    def test_events_without_blank_lines_are_separated(self, line_end: str) -> None:
        lines = ['data: {"data": "Hi"}', 'data: {"data": "!"}', "data: [DONE]", ""]
        for body in (lines, [*lines, ""], [*lines[:2], "data: ", *lines[2:]][:2] + lines[2:]):
            assert read(line_end.join(body).encode()) == ("Hi!", DONE)

    @pytest.mark.parametrize("value", ["null", "5", "[1]", "true", '{"data": "a"} and text', "[DONE] and text"])
    def test_json_that_is_not_an_object_is_text(self, value: str) -> None:
        assert read(events(value)) == (value, DONE)

    def test_empty_events_are_skipped(self) -> None:
        assert [chunk.data for chunk in opened([b"data\n\n", b"data:\n\n", events({"data": "Hi"})])] == ["Hi", ""]

    def test_whitespace_before_the_first_event_is_skipped(self) -> None:
        assert read(b"", "") == ("", read(b"", "")[1])
        assert [c.data for c in opened([b"", b"\n ", b"\n", events({"data": "Hi"})], "")] == ["Hi", ""]

    def test_other_fields_of_a_chunk_are_kept(self) -> None:
        body = events({"data": {"text": "a", "index": 0}, "usage": {"total_tokens": 7}, "id": "x", "usedCredits": 0.5})
        chunk, _ = opened([body])
        assert (chunk.data, chunk.usage, chunk.used_credits) == ("a", {"total_tokens": 7}, 0.5)
        assert chunk.additional_fields == {"id": "x", "data": {"text": "a", "index": 0}}

    def test_the_lines_of_an_event_are_joined(self) -> None:
        body = b'data: {"data":\ndata: "Hi"}\n\ndata: two\ndata: lines\n\ndata: [DONE]\n\n'
        assert read(body) == ("Hitwo\nlines", DONE)

    def test_lines_without_data_are_ignored(self) -> None:
        others = b": comment\nevent: message\nid: 7\nretry: 5\n"
        body = others + b'data: {"data": "Hi"}\n\ndata:{"data": "!"}\n\ndata: [DONE]\n\n'
        assert read(body) == ("Hi!", DONE)
        assert read(body, "text/plain") == ("Hi!", DONE)
        assert read(b'data: {"data": "Hi"}\n' + b"data: [DONE]\n", "") == ("Hi", DONE)
        assert read(b'\xef\xbb\xbfdata: {"data": "Hi"}\n\ndata: [DONE]\n', "") == ("Hi", DONE)

    def test_json_lines_without_a_field_name_are_events(self) -> None:
        body = b'{"data": "Hi"}\r\n{"data": "!"}\r\n[DONE]\r\n'
        assert read(body) == ("Hi!", DONE)
        assert read(body, "application/x-ndjson") == ("Hi!", DONE)

    @given(st.lists(st.text(), max_size=8), st.integers(1, 9), st.sampled_from([b"\n", b"\r\n"]))
    def test_text_does_not_depend_on_the_pieces(self, texts: list[str], size: int, line_end: bytes) -> None:
        body = events(*({"data": text} for text in texts if "[DONE]" not in text)).replace(b"\n", line_end)
        pieces = [body[start : start + size] for start in range(0, len(body), size)]
        assert [c.data for c in opened(pieces)] == [c.data for c in opened([body])]
        assert "".join(c.data for c in opened(pieces)) == stored("".join(t for t in texts if "[DONE]" not in t))

    def test_a_chunk_is_returned_before_the_next_one_arrives(self) -> None:
        arrived = []

        def body() -> Iterator[bytes]:
            for text in ("a", "b"):
                arrived.append(text)
                yield events({"data": text}, end=None)

        streamer = opened(body())
        assert next(streamer).data == "a"
        assert arrived == ["a"]


class TestEnd:
    @pytest.mark.parametrize(
        "last",
        [
            {"status": "SUCCESS"},
            {"status": "completed", "completed": True},
            {"choices": [{"delta": {}, "finish_reason": "stop"}]},
            {"choices": [{"finish_reason": "end_turn"}]},
            {"data": "[DONE]"},
            {"completed": True},
        ],
    )
    def test_a_final_chunk_completes_the_stream_without_done(self, last: dict[str, Any]) -> None:
        assert read(events({"data": "Hi"}, last, end=None)) == ("Hi", DONE)

    def test_events_after_a_terminal_event_are_read(self) -> None:
        body = events(
            {"choices": [{"delta": {"content": "Hi"}, "finish_reason": "stop"}]}, {"usage": {"total_tokens": 7}}
        )
        assert [chunk.usage for chunk in opened([body])] == [None, {"total_tokens": 7}, None]

    def test_text_after_an_apparent_end_continues_the_stream(self) -> None:
        said = {"data": "[DONE]"}
        assert read(events({"data": "It says "}, said, {"data": " here"})) == ("It says [DONE] here", DONE)
        assert read(events(said, {"data": " here"}, end=None)) == ("[DONE] here", cut(NO_END))
        ended = {"data": "a", "status": "SUCCESS"}
        assert read(events(ended, {"data": "b", "status": "IN_PROGRESS"}, end=None)) == ("ab", cut(NO_END))
        assert read(events(ended, ended, end=None)) == ("aa", DONE)

    def test_nothing_is_read_after_done(self) -> None:
        assert read(events({"data": "Hi"}) + events({"data": "more"})) == ("Hi", DONE)

    @pytest.mark.parametrize(
        "last",
        [
            [],
            [{"status": "IN_PROGRESS"}],
            [{"choices": [{"finish_reason": None}]}],
            [{"choices": [{"finish_reason": ""}]}],
        ],
    )
    def test_a_cut_stream_fails(self, last: list[Any]) -> None:
        assert read(events({"data": "Hi"}, *last, end=None)) == ("Hi", cut(NO_END))

    def test_a_cut_event_is_not_returned(self) -> None:
        assert read(events({"data": "Hi"}, end=None) + b'data: {"da') == ("Hi", cut(NO_END))
        assert read(events({"data": "Hi", "status": "SUCCESS"}, end=None) + b'data: {"usa') == ("Hi", DONE)
        assert read(events({"data": "Hi"}, end=None) + b"data: text") == ("Hitext", cut(NO_END))

    @pytest.mark.parametrize("body", [[], [b""], [b"\n\n"]])
    def test_an_empty_stream_fails(self, body: list[bytes]) -> None:
        assert list(opened(body)) == [cut(NO_END)]

    def test_a_long_event_is_read_once(self) -> None:
        """In pieces of the size of a TLS record: scanning the whole event again for each would take minutes."""
        piece = b"x" * 16 * 1024
        whole = opened([b'data: {"data": "', *[piece] * 2000, b'"}\n\n', b"data: [DONE]\n\n"])
        assert len(next(whole).data) == 2000 * len(piece)

    @pytest.mark.parametrize("kind", [ConnectionError, TimeoutError])
    @pytest.mark.parametrize(
        ("status", "rest", "last"),
        [
            ("IN_PROGRESS", b"", cut("reset")),
            ("SUCCESS", b"", DONE),
            ("SUCCESS", b'data: {"da', cut("reset")),
            ("SUCCESS", b'data: {"data":\n', cut("reset")),
        ],
    )
    def test_a_lost_connection_ends_the_stream(self, status: str, rest: bytes, last: ModelResponse, kind: Any) -> None:
        def body() -> Iterator[bytes]:
            yield events({"data": "Hi", "status": status}, end=None) + rest
            raise kind("reset")

        *_, end = opened(body())
        assert end == last

    @pytest.mark.parametrize(
        ("last", "message"),
        [
            ({"error": "no"}, "no"),
            ({"error": {"message": "no", "code": 1}}, "no (error code 1)"),
            ({"error": {"code": 1}}, '{"code": 1}'),
            ({"status": "FAILED", "error_message": "no"}, "no"),
            ({"status": "error", "errorMessage": "no"}, "ERROR: no"),
            ({"status": "Error", "message": "no"}, "ERROR: no"),
            ({"choices": [{"finish_reason": "error", "error": "no"}]}, "no"),
            ({"status": "FAILED"}, "the platform gives no reason"),
            ({"completed": True, "error_message": "no"}, "no"),
            ({"supplierError": "no"}, " - no"),
            ({"status": "ABORTED"}, "ABORTED: the platform gives no reason"),
            ({"status": "CANCELLED", "completed": False, "errorDetails": {"message": "no"}}, "CANCELLED: no"),
            ({"choices": [{"finish_reason": "error"}]}, "the platform gives no reason"),
        ],
    )
    def test_a_failure_is_the_last_chunk(self, last: dict[str, Any], message: str) -> None:
        text, chunk = read(events({"data": "Hi"}, {**last, "data": "ignored"}, {"data": "more"}))
        assert (text, chunk.status, chunk.completed) == ("Hi", ResponseStatus.FAILED, True)
        assert chunk.error_message == message
        assert chunk.failure is None

    def test_an_unknown_final_status_is_decided_by_the_text(self) -> None:
        ended = {"status": "DONE", "completed": True}
        assert read(events({"data": "Hi"}, ended, end=None)) == ("Hi", DONE)
        assert read(events({"choices": [{"delta": {"content": "Hi"}}]}, ended, end=None)) == ("Hi", DONE)
        _, chunk = read(events(ended, end=None))
        assert (chunk.status, chunk.error_message) == (
            ResponseStatus.FAILED,
            "the platform reports the unknown status 'DONE' and no data",
        )
        transcript = Transcript()
        for chunk in opened([events({"data": "Hi"}, ended, end=None)]):
            transcript.add(chunk)
        assert transcript.response().status is ResponseStatus.SUCCESS
        assert "unknown status 'DONE'" in transcript.response().error_message

    def test_a_success_that_is_not_completed_continues(self) -> None:
        going_on = {"data": "Hi", "status": "SUCCESS", "completed": False, "error_message": "a warning"}
        assert read(events(going_on, end=None)) == ("Hi", cut(NO_END))

    def test_a_warning_is_not_a_failure(self) -> None:
        assert read(events({"data": "Hi", "status": "SUCCESS", "error_message": "a warning"})) == ("Hi", DONE)

    @pytest.mark.parametrize(
        ("data", "message"),
        [('{"message": "overloaded"}', "overloaded"), ("overloaded", "overloaded"), ("", "true")],
    )
    def test_an_event_named_error_is_a_failure(self, data: str, message: str) -> None:
        body = events({"data": "Hi"}, end=None) + f"event: error\ndata: {data}\n\n".encode() + events()
        text, chunk = read(body)
        assert (text, chunk.status, chunk.error_message) == ("Hi", ResponseStatus.FAILED, message)


class TestWithoutStreaming:
    def test_a_plain_answer_is_the_response(self) -> None:
        body = {"status": "SUCCESS", "completed": True, "data": {"a": 1}, "usedCredits": 0.5}
        pieces = [piece.encode() for piece in json.dumps(body, indent=1).splitlines(keepends=True)]
        (chunk,) = opened(pieces, "application/json")
        assert chunk == ModelResponse(ResponseStatus.SUCCESS, completed=True, data={"a": 1}, used_credits=0.5)

    def test_an_asynchronous_run_can_be_polled(self) -> None:
        (chunk,) = opened([b'{"status": "IN_PROGRESS", "data": "https://h/7"}'], "application/json")
        assert (chunk.status, chunk.url) == (ResponseStatus.IN_PROGRESS, "https://h/7")

    def test_an_html_page_is_a_failure(self) -> None:
        (chunk,) = opened([b"<html>", b"oops"], "text/html")
        assert chunk.status is ResponseStatus.FAILED
        assert "<html>oops" in chunk.error_message
        (chunk,) = ModelResponseStreamer(OpenAnswer(204, "", []))
        assert "HTTP 204 with an answer that is not a JSON object: an empty body" in chunk.error_message

    def test_a_refusal_is_the_only_chunk(self) -> None:
        streamer = ModelResponseStreamer(Answer(402, b'{"error": "no credits"}'))
        (chunk,) = streamer
        assert streamer.status is ResponseStatus.FAILED
        assert chunk.error_message == "HTTP 402 (billing): no credits"

    def test_a_missing_response_is_the_only_chunk(self) -> None:
        (chunk,) = ModelResponseStreamer(NoResponse("reset", is_sent=True))
        assert "may have received" in chunk.error_message


class TestMemory:
    @pytest.fixture(autouse=True)
    def small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sse, "MAX_EVENT", 100)

    def test_a_line_an_event_and_a_plain_answer_are_bounded(self) -> None:
        too_long = cut("an event exceeds 100 bytes")
        assert list(opened([b"data: ", *[b"x" * 50] * 9]))[-1] == too_long
        assert list(opened([b"data: xxxxxxxxxx\n"] * 99))[-1] == too_long
        assert list(opened([b'{"data":\n'] * 99, "application/json"))[-1] == too_long

    def test_the_whole_stream_is_not_bounded(self) -> None:
        assert read(events(*[{"data": "0123456789"}] * 99)) == ("0123456789" * 99, DONE)


class TestClosing:
    def test_the_connection_is_closed_at_the_end_and_on_exit(self) -> None:
        closed = []
        answer = OpenAnswer(200, SSE, [events({"data": "a"}, {"data": "b"})], close=lambda: closed.append(1))
        with ModelResponseStreamer(answer) as streamer:
            next(streamer)
        assert closed == [1]
        assert len(list(ModelResponseStreamer(answer))) == 3
        assert closed == [1, 1]
        ModelResponseStreamer(Answer(404)).close()


def test_the_key_is_removed_from_whole_lines() -> None:
    pieces = [b'data: {"data": "my KE', b'Y"}\n\ndata: [DONE]\n\n']
    answer = OpenAnswer(200, SSE, pieces, redact=lambda text: text.replace("KEY", "***"))
    assert [chunk.data for chunk in ModelResponseStreamer(answer)] == ["my ***", ""]


class TestTranscript:
    def test_chunks_are_joined(self) -> None:
        transcript = Transcript()
        body = events(
            {"data": "Hel", "id": 1},
            {"data": "lo", "id": 2},
            {"id": "", "usage": {"total_tokens": 7}, "usedCredits": 0.5},
        )
        assert "".join(map(transcript.add, opened([body]))) == "Hello"
        assert transcript.response() == ModelResponse(
            ResponseStatus.SUCCESS,
            data="Hello",
            completed=True,
            usage={"total_tokens": 7},
            used_credits=0.5,
            additional_fields={"id": 2},
        )

    def test_the_deltas_of_tool_calls_are_joined(self) -> None:
        def chunk(finish: str | None = None, **delta: Any) -> dict[str, Any]:
            return {"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

        def call(index: int, **function: Any) -> dict[str, Any]:
            return {"index": index, **function}

        transcript = Transcript()
        body = events(
            chunk(role="assistant", content=None),
            chunk(content="Let me "),
            chunk(content=[{"type": "text", "text": "see"}, {"type": "image_url", "image_url": "u"}]),
            chunk(tool_calls=[call(0, id="a", type="function", function={"name": "find", "arguments": ""})]),
            chunk(tool_calls=[call(1, id="b", type="function", function={"name": "add", "arguments": "1"})]),
            chunk(tool_calls=[call(0, function={"arguments": '{"q"'}), call(1, id="b", function={"arguments": "1"})]),
            chunk(tool_calls=[call(0, function={"name": "find", "arguments": ": 1}"})], reasoning_content="be"),
            chunk(reasoning_content="cause", odd=[1], mixed="a"),
            chunk("tool_calls", odd=[{"x": 1}], mixed=7),
            {"choices": [{"index": 1, "delta": {"content": "oth"}}]},
            {"choices": [{"index": 1, "delta": {"content": "er"}, "finish_reason": "stop"}, "odd"]},
        )
        assert "".join(map(transcript.add, opened([body]))) == "Let me see"
        message = {
            "role": "assistant",
            "content": [{"type": "image_url", "image_url": "u"}],
            "tool_calls": [
                {"index": 0, "id": "a", "type": "function", "function": {"name": "find", "arguments": '{"q": 1}'}},
                {"index": 1, "id": "b", "type": "function", "function": {"name": "add", "arguments": "11"}},
            ],
            "reasoning_content": "because",
            "odd": [1, {"x": 1}],
            "mixed": 7,
        }
        response = transcript.response()
        assert response.data == "Let me see"
        assert response.additional_fields == {
            "id": "c",
            "choices": [
                {"index": 0, "finish_reason": "tool_calls", "message": message},
                {"index": 1, "finish_reason": "stop", "message": {"content": "other"}},
            ],
        }

    def test_choices_with_only_text_leave_no_additional_field(self) -> None:
        transcript = Transcript()
        body = events({"choices": [{"delta": {"content": "a"}}]}, {"choices": [{"delta": {"content": ["b"]}}]})
        assert "".join(map(transcript.add, opened([body]))) == "ab"
        assert transcript.response().additional_fields == {}

    def test_a_plain_answer_keeps_its_output(self) -> None:
        transcript = Transcript()
        for chunk in opened([b'{"status": "SUCCESS", "data": {"a": 1}}'], "application/json"):
            assert transcript.add(chunk) == '{"a": 1}'
        assert transcript.response().data == {"a": 1}

    def test_a_failure_keeps_the_text_so_far(self) -> None:
        transcript = Transcript()
        for chunk in opened([events({"data": "Hel"}, end=None)]):
            transcript.add(chunk)
        assert transcript.response() == ModelResponse(
            ResponseStatus.FAILED, data="Hel", error_message=cut(NO_END).error_message, failure=cut(NO_END).failure
        )


def stored(text: str) -> str:
    return text.replace("\0", "\ufffd")
