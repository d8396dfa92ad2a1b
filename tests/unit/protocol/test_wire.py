"""Requests and answers."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_aixplain.protocol import values, wire
from airflow_provider_aixplain.protocol.failure import ErrorCategory, Failure, InvalidInput, RequestFailed
from airflow_provider_aixplain.protocol.response import ModelResponse, ResponseStatus
from airflow_provider_aixplain.protocol.values import MAX_FIGURE
from airflow_provider_aixplain.protocol.wire import Answer, NoResponse
from tests.unit.protocol.strategies import JSON

URL = "https://models.aixplain.com/api/v1/data/7e1b"


class TestSubmission:
    def test_the_request_is_built(self) -> None:
        request = wire.submission_request("https://h/api/v1/execute", "openai/gpt 4?", '{"data": "é"}')
        assert (request.method, request.url) == ("POST", "https://h/api/v1/execute/openai/gpt%204%3F")
        assert request.body == '{"data": "é"}'.encode()

    @pytest.mark.parametrize("model_id", ["", "  ", None, 5, "../../sdk/models", "a/./b", "\ud800"])
    def test_an_invalid_id_is_refused(self, model_id: Any) -> None:
        with pytest.raises(InvalidInput, match="model_id is"):
            wire.submission_request("https://h", model_id, "{}")

    def test_an_accepted_submission_has_the_poll_url(self) -> None:
        accepted = ModelResponse(ResponseStatus.IN_PROGRESS, url=URL)
        for extra in ({}, {"status": "IN_PROGRESS"}, {"status": None}, {"completed": True}):
            assert wire.read_submission(_answer({"data": URL, **extra}, 201)) == accepted

    def test_an_immediate_result_is_final(self) -> None:
        response = wire.read_submission(_answer({"status": "SUCCESS", "completed": True, "data": "hi", "x": 1}))
        assert response == ModelResponse(ResponseStatus.SUCCESS, completed=True, data="hi", additional_fields={"x": 1})

    def test_an_unknown_status_with_a_poll_url_is_accepted(self) -> None:
        response = wire.read_submission(_answer({"status": "QUEUED", "data": URL}))
        assert (response.status, response.url) == (ResponseStatus.IN_PROGRESS, URL)
        assert response.additional_fields == {"status": "QUEUED"}

    def test_an_unknown_status_without_a_poll_url_is_a_failure(self) -> None:
        response = wire.read_submission(_answer({"status": "QUEUED", "data": "job 7"}))
        assert (response.status, response.completed, response.data) == (ResponseStatus.FAILED, True, "job 7")
        assert "'QUEUED'" in response.error_message
        assert "'job 7'" in response.error_message

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"<html>",
            b"[]",
            b"{}",
            b'{"data": null}',
            b'{"data": {"url": 1}}',
            b'{"data": ""}',
            b'{"data": "a\\nb"}',
        ],
    )
    def test_a_success_without_a_poll_url_is_the_result(self, body: bytes) -> None:
        response = wire.read_submission(Answer(200, body))
        assert (response.status, response.completed, response.url) == (ResponseStatus.FAILED, True, None)
        assert response.failure == Failure(ErrorCategory.PLATFORM, 200)
        assert body.decode() in response.error_message

    @pytest.mark.parametrize(
        ("status_code", "category", "retryable"),
        [
            (400, "validation", False),
            (401, "authentication", False),
            (402, "billing", False),
            (403, "resource", False),
            (404, "resource", False),
            (418, "internal", False),
            (429, "rate limit", True),
            (460, "resource", False),
            (475, "billing", False),
            (489, "supplier", True),
            (490, "validation", False),
            (500, "platform or network", True),
            (501, "internal", None),
            (503, "platform or network", True),
        ],
    )
    def test_a_refusal_has_its_category(self, status_code: int, category: str, retryable: bool | None) -> None:
        response = wire.read_submission(_answer({"error": "the platform's words"}, status_code))
        assert response.error_message == f"HTTP {status_code} ({category}): the platform's words"
        assert response.failure is not None
        assert response.failure.retryable is retryable
        assert response.completed
        assert response.failure.may_be_accepted is (status_code >= 500)
        assert response.failure.is_denied is (status_code in (401, 403, 404, 460))

    def test_a_redirect_names_its_target_and_the_remedy(self) -> None:
        key, headers = "a-secret-key", {"location": "https://h/login?key=a-secret-key"}
        moved = Answer(301, b"<html>", headers, redact=lambda text: text.replace(key, "***"))
        expected = "to https://h/login?key=***; check the URLs in the Connection"
        assert expected in wire.read_submission(moved).error_message
        assert expected in wire.read_poll(moved).error_message
        assert wire.read_submission(Answer(304, b"")).error_message.endswith("no details")

    def test_a_refusal_without_a_reason_shows_the_body(self) -> None:
        for body in ({"error": None, "message": "retired"}, {"message": "retired"}):
            assert "retired" in wire.read_submission(_answer(body, 404)).error_message

    @pytest.mark.parametrize(("sent", "words"), [(True, "may have received"), (False, "nothing was sent")])
    def test_a_missing_response_states_whether_it_was_sent(self, sent: bool, words: str) -> None:
        response = wire.read_submission(NoResponse("connection reset", sent))
        assert response.failure == Failure(ErrorCategory.PLATFORM, is_sent=sent)
        assert response.failure.may_be_accepted is sent
        assert response.completed
        assert words in response.error_message
        assert "connection reset" in response.error_message


class TestPoll:
    def test_the_request_is_built(self) -> None:
        assert wire.poll_request(URL) == wire.Request("GET", URL)

    @pytest.mark.parametrize("poll_url", ["", None, 5])
    def test_an_invalid_url_is_refused(self, poll_url: Any) -> None:
        with pytest.raises(InvalidInput, match=r"poll_url is .*: give the url of a submission's response"):
            wire.poll_request(poll_url)

    @pytest.mark.parametrize(
        ("body", "status"),
        [
            ({"completed": False}, "IN_PROGRESS"),
            ({"completed": "true"}, "IN_PROGRESS"),
            ({"completed": None}, "IN_PROGRESS"),
            ({"completed": True}, "SUCCESS"),
            ({"completed": True, "error_message": "bad"}, "FAILED"),
            ({"completed": True, "errorMessage": "bad"}, "FAILED"),
            ({"completed": True, "supplierError": "bad"}, "FAILED"),
            ({"completed": True, "status": "SUCCESS", "error_message": "a warning"}, "SUCCESS"),
            ({"completed": True, "status": "FAILED"}, "FAILED"),
            ({"completed": True, "status": "IN_PROGRESS"}, "SUCCESS"),
            ({"completed": True, "status": "IN_PROGRESS", "supplierError": "bad"}, "FAILED"),
        ],
    )
    def test_the_status_is_read(self, body: dict[str, Any], status: str) -> None:
        response = wire.read_poll(_answer(body))
        assert response.status == status
        assert response.completed is (body["completed"] is True)
        assert response.failure is None

    @pytest.mark.parametrize("spelling", [("usedCredits", "runTime"), ("used_credits", "run_time")])
    def test_every_field_is_read(self, spelling: tuple[str, str]) -> None:
        credits, run_time = spelling
        response = wire.read_poll(
            _answer(
                {
                    "completed": True,
                    "data": {"text": "é"},
                    "details": [1],
                    credits: 0.5,
                    run_time: 1.5,
                    "usage": {"total_tokens": "NaN"},
                    "asset": {"id": "a"},
                    "error_code": None,
                    "requestId": "r",
                }
            )
        )
        assert response.to_dict() == {
            "status": "SUCCESS",
            "data": {"text": "é"},
            "details": [1],
            "completed": True,
            "error_message": "",
            "used_credits": 0.5,
            "run_time": 1.5,
            "usage": {"total_tokens": "NaN"},
            "url": None,
            "error_code": None,
            "asset": {"id": "a"},
            "additional_fields": {"requestId": "r"},
        }

    def test_the_error_message_includes_the_suppliers(self) -> None:
        body = {"completed": True, "error": "no", "supplierError": "quota"}
        assert wire.read_poll(_answer(body)).error_message == "no - quota"
        assert wire.read_poll(_answer({**body, "error_message": None})).error_message == "no - quota"
        assert wire.read_poll(_answer({**body, "error": None})).error_message == " - quota"

    @pytest.mark.parametrize(
        "outcome",
        [
            Answer(200),
            Answer(200, b"<html>502</html>"),
            Answer(200, b'{"message": "no such run", "error": "gateway"}'),
            Answer(404, b'{"error": "no such run"}'),
            Answer(404, b'{"completed": true, "data": "hi"}'),
            Answer(500, b'{"completed": true, "status": "SUCCESS", "data": "hi"}'),
            Answer(503, b"\xff\xfe"),
            NoResponse("timed out", is_sent=True),
        ],
    )
    def test_a_failed_poll_is_not_completed(self, outcome: Answer | NoResponse) -> None:
        response = wire.read_poll(outcome)
        assert (response.status, response.completed) == (ResponseStatus.FAILED, False)
        assert response.failure is not None
        assert response.error_message

    @pytest.mark.parametrize(
        ("sent", "kept"),
        [
            ("1" + 5000 * "0", "1" + 5000 * "0"),
            (str(2**63), str(2**63)),
            (str(2**63 - 1), 2**63 - 1),
            (str(-(2**63)), -(2**63)),
            ("1e999", "1e999"),
            ("-1.5e3", -1500.0),
            ("NaN", "NaN"),
            ("-Infinity", "-Infinity"),
            (r'"a\u0000b"', "a\ufffdb"),
            (r'"\uDBFF"', "\ufffd"),
            (r'{"a\u0000": ["\ud83d", "\ud83d\ude00", "\u0041"]}', {"a\ufffd": ["\ufffd", "😀", "A"]}),
        ],
    )
    def test_values_that_airflow_cannot_store_are_replaced(self, sent: str, kept: Any) -> None:
        for read in (wire.read_poll, wire.read_submission):
            body = f'{{"completed": true, "status": "SUCCESS", "data": {sent}}}'
            assert read(Answer(200, body.encode())).data == kept

    @pytest.mark.parametrize("text", ["half \ud800 pair", "é 😀"])
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
    def test_raw_half_surrogates_are_replaced(self, text: str, encoding: str) -> None:
        body = json.dumps({"completed": True, "data": text}, ensure_ascii=False).encode(encoding, "surrogatepass")
        data = wire.read_poll(Answer(200, body)).data
        assert data.encode()
        assert data == text or "\ufffd" in data

    def test_invalid_utf_8_keeps_the_rest(self) -> None:
        assert wire.read_poll(Answer(200, b'{"completed": true, "data": "a\xffb"}')).data == "a\ufffdb"

    @given(st.integers(90, 400))
    def test_deep_values_become_text(self, depth: int) -> None:
        data: Any = "deep"
        for _ in range(depth):
            data = [data]
        kept: Any = wire.read_poll(_answer({"completed": True, "data": data})).data
        levels = 0
        while isinstance(kept, list):
            (kept,), levels = kept, levels + 1
        assert levels == min(depth, values.MAX_DEPTH - 1)
        assert kept == "deep" or json.loads(kept)

    @given(st.integers(200, 599), st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
    def test_any_answer_can_be_read(self, status_code: int, body: bytes) -> None:
        for read in (wire.read_poll, wire.read_submission):
            json.dumps(read(Answer(status_code, body)).to_dict(), allow_nan=False)


def _answer(body: Any, status_code: int = 200) -> Answer:
    return Answer(status_code, json.dumps(body).encode())


class TestCatalogue:
    def test_the_requests_are_built(self) -> None:
        record = wire.model_record_request("https://h", "openai/gpt 4")
        assert (record.method, record.url) == ("GET", "https://h/sdk/models/openai%2Fgpt%204")
        by_name = wire.model_record_by_name_request("https://h", "GPT 4")
        assert (by_name.method, by_name.url) == ("GET", "https://h/sdk/models/by-name/GPT%204")
        deletion = wire.deletion_request("https://h", "team/mine")
        assert (deletion.method, deletion.url) == ("DELETE", "https://h/sdk/models/team/mine")
        logs = wire.finetune_logs_request("https://h", "a")
        assert (logs.method, logs.url) == ("GET", "https://h/sdk/finetune/a/ml-logs")
        credentials = [request.credential for request in (record, by_name, deletion, logs)]
        assert credentials == [wire.Credential.AUTHORIZATION] * 3 + [wire.Credential.HEADER]

    def test_a_direct_run_goes_to_version_2(self) -> None:
        assert wire.direct_run_request("https://h/api/v1/execute", "a", "{}").url == "https://h/api/v2/execute/a"
        assert wire.direct_run_request("https://h/own", "a", "{}").url == "https://h/own/a"

    def test_invalid_names_are_refused(self) -> None:
        for make in (
            wire.model_record_request,
            wire.model_record_by_name_request,
            wire.deletion_request,
            wire.finetune_logs_request,
        ):
            with pytest.raises(InvalidInput, match=r"is '\.\./x'"):
                make("https://h", "../x")

    def test_only_200_confirms_a_deletion(self) -> None:
        wire.read_deletion(Answer(200))
        for status_code in (204, 202, 404, 500):
            with pytest.raises(RequestFailed, match=f"deletion: HTTP {status_code}"):
                wire.read_deletion(_answer({"error": "no"}, status_code))


def test_an_accepted_submission_keeps_other_fields() -> None:
    assert wire.read_submission(_answer({"data": URL, "sessionId": "s"})).additional_fields == {"sessionId": "s"}


NOW = "Mon, 23 Nov 2026 20:00:00 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after": " 7 "}, 7),
        ({"retry-after": "Mon, 23 Nov 2026 20:02:00 GMT", "date": NOW}, 120),
        ({"retry-after": "Mon, 23 Nov 2026 19:00:00 GMT", "date": NOW}, 0),
        ({"retry-after": "0.4"}, 0.4),
        ({"retry-after": "7."}, 7),
        ({"retry-after": "Monday, 23-Nov-26 20:02:00 GMT", "date": NOW}, 120),
        ({"retry-after": "Mon Nov 23 20:02:00 2026", "date": NOW}, 120),
        ({"retry-after": "Mon, 23 Nov 2026 20:02:00 GMT", "date": "Monday, 23-Nov-26 20:00:00 GMT"}, 120),
        ({"retry-after": "Mon, 23 Nov 2026 20:02:00 GMT", "date": "Mon Nov 23 20:00:00 2026"}, 120),
        ({"retry-after": "9" * 400}, MAX_FIGURE),
        ({"retry-after": "9" * 400 + ".5"}, MAX_FIGURE),
        ({"retry-after": "Mon, 23 Nov 9999999999999 20:02:00 GMT", "date": NOW}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1e5"}, None),
        ({"retry-after": "Mon, 23 Nov 2026 20:02:00 GMT"}, None),
        ({"retry-after": "-7"}, None),
        ({"retry-after": "\u0667"}, None),
        ({"retry-after": "soon", "date": NOW}, None),
        ({"date": NOW}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read(headers: dict[str, str], seconds: float | None) -> None:
    for read in (wire.read_poll, wire.read_submission):
        failure = read(Answer(429, b"", headers)).failure
        assert failure is not None
        assert failure.retry_after == seconds


@pytest.mark.parametrize("date", [{}, {"date": "soon"}])
def test_a_retry_date_counts_from_the_receipt(date: dict[str, str]) -> None:
    received_at = datetime(2026, 11, 23, 20, tzinfo=timezone.utc).timestamp()
    headers = {"retry-after": "Mon, 23 Nov 2026 20:02:00 GMT", **date}
    failure = wire.read_poll(Answer(503, b"", headers, received_at=received_at)).failure
    assert failure is not None
    assert failure.retry_after == 120


def test_a_key_is_hidden_in_any_encoding() -> None:
    def redact(text: str) -> str:
        return text.replace("KEY", "***")

    for encoding in ("utf-8", "utf-16", "utf-16-le", "utf-16-be", "utf-32"):
        for text in ("bad KEY", '{"error": "bad KEY"}', '{"error": "bad \\u004bEY"}'):
            for status_code in (200, 401):
                response = wire.read_submission(Answer(status_code, text.encode(encoding), redact=redact))
                assert "bad ***" in response.error_message
    assert wire.read_poll(Answer(401, b"bad \0K\0E\0Y", redact=redact)).error_message.endswith("bad ***")


def test_the_error_for_a_large_answer_names_the_remedy() -> None:
    for response in (
        wire.read_poll(Answer(200, b'{"data": "', is_cut=True)),
        wire.read_submission(Answer(200, b"{", is_cut=True)),
    ):
        assert response.failure is not None
        assert response.failure.category is ErrorCategory.SIZE
        assert response.failure.retryable is False
        assert response.failure.may_be_accepted
        assert "to raise it, set max_answer_mib" in response.error_message
    for body in (b"<html>", b'{"completed": true, "details": "'):
        refused = wire.read_poll(Answer(502, body, is_cut=True))
        assert refused.failure is not None
        assert refused.failure.category is ErrorCategory.PLATFORM


def test_a_large_unfinished_answer_has_the_steps_that_fit() -> None:
    def read(excerpt: bytes) -> ModelResponse:
        return wire.read_poll(Answer(200, b'{"data": ', is_cut=True, excerpt=excerpt, redact=redact))

    def redact(text: str) -> str:
        return text.replace("KEY", "***")

    unfinished = read(b'{"data": {"steps": [{"id": "KEY"}]}, "completed": false}')
    assert (unfinished.status, unfinished.failure) == (ResponseStatus.IN_PROGRESS, None)
    assert unfinished.data == {"steps": [{"id": "***"}]}
    for excerpt in (b'{"data": {}, "completed": true}', b'{"status": "FAILED"}', b'{"error": "no"}', b'{"data":', b""):
        failure = read(excerpt).failure
        assert failure is not None
        assert failure.is_too_large


@pytest.mark.parametrize("status_code", [401, 403])
def test_a_refused_key_is_named_unless_the_url_is_presigned(status_code: int) -> None:
    refusal = Answer(status_code, b"{}")
    named = wire.name_refused_key(refusal, wire.poll_request("https://h/run"), "the key of Connection 'c'")
    assert named.refused_key == "the key of Connection 'c'"
    upload = wire.Request("PUT", "https://store.example", credential=wire.Credential.NONE)
    assert wire.name_refused_key(refusal, upload, "the key") is refusal
    other = NoResponse("reset", is_sent=True)
    assert wire.name_refused_key(other, wire.poll_request("https://h/run"), "the key") is other
