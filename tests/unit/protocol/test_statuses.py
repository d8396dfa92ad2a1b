"""When a run has finished, how it ended, why, and what it cost."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_aixplain.protocol import wire
from airflow_provider_aixplain.protocol.response import ModelResponse, ResponseStatus, failure_reason, read_response
from airflow_provider_aixplain.protocol.statuses import sum_decimals
from airflow_provider_aixplain.protocol.stream import ModelResponseStreamer
from airflow_provider_aixplain.protocol.wait import Wait
from airflow_provider_aixplain.protocol.wire import Answer, OpenAnswer

ABSENT = object()
URL = "https://models.aixplain.com/api/v1/data/7e1b"


def answer(body: Any, status_code: int = 200) -> Answer:
    return Answer(status_code, json.dumps(body).encode())


def body_of(status: Any, completed: Any, **more: Any) -> dict[str, Any]:
    given = {"status": status, "completed": completed, **more}
    return {key: value for key, value in given.items() if value is not ABSENT}


RUNNING, SUCCESS, FAILED = (
    (ResponseStatus.IN_PROGRESS, False),
    (ResponseStatus.SUCCESS, True),
    (ResponseStatus.FAILED, True),
)


class TestState:
    @pytest.mark.parametrize("status", ["SUCCESS", "COMPLETED", "success", "Completed", " success "])
    @pytest.mark.parametrize(
        ("completed", "state"),
        [(True, SUCCESS), (ABSENT, SUCCESS), (None, SUCCESS), ("odd", SUCCESS), (False, RUNNING)],
    )
    def test_a_success_is_final_unless_completed_is_false(self, status: str, completed: Any, state: Any) -> None:
        response = wire.read_poll(answer(body_of(status, completed)))
        assert (response.status, response.completed) == state

    @pytest.mark.parametrize("status", ["FAILED", "ABORTED", "CANCELLED", "CANCELED", "ERROR", "failed", "Aborted"])
    @pytest.mark.parametrize("completed", [True, False, None, "odd", ABSENT])
    def test_a_failure_is_final(self, status: str, completed: Any) -> None:
        for body in (body_of(status, completed), body_of(status, completed, data=URL)):
            for read in (wire.read_poll, wire.read_submission):
                response = read(answer(body))
                assert (response.status, response.completed, response.failure) == (*FAILED, None)
                assert status.upper() in failure_reason(response) or status.upper() == "FAILED"

    @pytest.mark.parametrize("status", ["IN_PROGRESS", "in progress", "In-Progress", None, "", ABSENT])
    @pytest.mark.parametrize(
        ("completed", "state"), [(False, RUNNING), (None, RUNNING), (ABSENT, RUNNING), (True, SUCCESS)]
    )
    def test_a_run_in_progress_is_final_if_completed(self, status: Any, completed: Any, state: Any) -> None:
        response = wire.read_poll(answer(body_of(status, completed)))
        assert (response.status, response.completed) == state
        if completed is True:
            failed = wire.read_poll(answer(body_of(status, completed, errorMessage="no")))
            assert (failed.status, failed.completed, failed.error_message) == (*FAILED, "no")

    @pytest.mark.parametrize("status", ["QUEUED", "PARTIAL_SUCCESS", {"odd": 1}, 7, True])
    def test_an_unknown_status_is_decided_by_the_output(self, status: Any) -> None:
        for completed in (False, None, ABSENT):
            assert wire.read_poll(answer(body_of(status, completed, data="hi"))).status is ResponseStatus.IN_PROGRESS
        with_data = wire.read_poll(answer(body_of(status, True, data="hi")))
        assert (with_data.status, with_data.completed, with_data.data) == (*SUCCESS, "hi")
        for body in (
            body_of(status, True),
            body_of(status, True, data={}),
            body_of(status, True, data="x", error="no"),
        ):
            without = wire.read_poll(answer(body))
            assert (without.status, without.completed) == FAILED
            assert f"unknown status {status!r}" in without.error_message
        assert f"unknown status {status!r}" in with_data.error_message
        assert with_data.additional_fields["status"] == status

    def test_a_refused_request_has_no_status(self) -> None:
        for status_code in (302, 404, 500, 503):
            response = wire.read_poll(answer({"status": "FAILED", "completed": True, "data": "hi"}, status_code))
            assert (response.status, response.completed) == (ResponseStatus.FAILED, False)
            assert response.failure is not None
            assert Wait(1, 100).judge(response, 5) is None

    def test_the_platforms_word_is_kept(self) -> None:
        assert read_response({"status": "ABORTED"}).additional_fields == {"status": "ABORTED"}
        assert read_response({"status": "FAILED"}).additional_fields == {}


class TestReason:
    def test_a_budget_that_ends_a_run_is_a_warning(self) -> None:
        for status, warning in (("BLOCKED_BY_BUDGET", "BLOCKED_BY_BUDGET: spent"), ("ALLOWED", ""), (5, "")):
            data = {"governanceStatus": status, "governanceReason": "spent"}
            response = wire.read_poll(answer({"status": "SUCCESS", "completed": True, "data": data}))
            assert (response.status, response.error_message) == (ResponseStatus.SUCCESS, warning)

    @pytest.mark.parametrize(
        ("body", "reason"),
        [
            ({"error_message": "a", "errorMessage": "b"}, "a"),
            ({"error_message": "", "errorMessage": "b", "errorDetails": {"message": "c"}}, "b"),
            ({"errorDetails": {"code": "AX-1", "message": "c"}, "error": "d"}, "c (error code AX-1)"),
            ({"error": "d", "data": {"error": "e"}}, "d"),
            ({"error": {"message": "d", "code": 7}}, "d (error code 7)"),
            ({"error": {"odd": 1}}, '{"odd": 1}'),
            ({"data": {"error": "e"}}, "e"),
            ({"data": {"error": {"message": "e"}}}, "e"),
            ({"data": {"error": "e"}, "supplierError": "f"}, "e - f"),
            ({"error_message": "a", "supplierError": {"message": "f"}}, "a - f"),
            ({"error_message": "a: f", "supplierError": "f"}, "a: f"),
            (
                {"data": {"governanceStatus": "BLOCKED_BY_BUDGET", "governanceReason": "spent"}},
                "BLOCKED_BY_BUDGET: spent",
            ),
            ({"message": "g"}, "g"),
        ],
    )
    def test_the_first_reason_is_reported(self, body: dict[str, Any], reason: str) -> None:
        for read in (wire.read_poll, wire.read_submission):
            assert read(answer({"status": "FAILED", **body})).error_message == reason
            assert read(answer({"status": "ABORTED", **body})).error_message == f"ABORTED: {reason}"
        if "message" not in body:
            assert wire.read_poll(answer({"completed": True, **body})).status is ResponseStatus.FAILED
            stream = ModelResponseStreamer(
                OpenAnswer(200, "text/event-stream", [b"data: ", answer(body).body, b"\n\n"])
            )
            assert [(chunk.status, chunk.error_message) for chunk in stream] == [(ResponseStatus.FAILED, reason)]

    @pytest.mark.parametrize(
        "data", [{"error": 0.05}, {"error": None}, {"error": []}, {"error": ""}, ["error"], "error"]
    )
    def test_output_named_error_is_not_a_reason(self, data: Any) -> None:
        body = {
            "completed": True,
            "error": None,
            "error_message": "",
            "supplierError": None,
            "errorDetails": {},
            "data": data,
        }
        assert wire.read_poll(answer(body)).status is ResponseStatus.SUCCESS

    @pytest.mark.parametrize(
        "body",
        [
            {"errorDetails": {"code": "AX-1", "message": "quota"}, "error": {"code": "no"}},
            {"error_code": None, "error": {"code": "AX-1", "message": "quota"}},
        ],
    )
    def test_the_code_of_a_reason_is_shown(self, body: dict[str, Any]) -> None:
        response = wire.read_poll(answer({"status": "FAILED", **body}))
        assert response.error_code == "AX-1"
        outcome = Wait(1, 100).judge(response, 5)
        assert outcome is not None
        assert outcome.message == "quota (error code AX-1)"
        assert wire.read_poll(answer(body, 400)).error_message == "HTTP 400 (validation): quota (error code AX-1)"

    def test_a_separate_code_takes_precedence(self) -> None:
        assert read_response({"error_code": 0, "errorDetails": {"code": "no"}}).error_code == 0
        assert failure_reason(ModelResponse(ResponseStatus.FAILED)) == "the platform gives no reason"


class TestSubmission:
    @pytest.mark.parametrize(
        "body",
        [
            {"data": URL},
            {"url": URL},
            {"status": "IN_PROGRESS", "url": URL, "data": None},
            {"status": "in_progress", "url": URL, "data": "job 7"},
            {"status": "QUEUED", "url": URL},
            {"data": URL, "url": "https://elsewhere.example"},
            {"data": URL, "completed": True},
            {"url": URL, "completed": True},
            {"status": "SUCCESS", "completed": False, "data": URL},
        ],
    )
    def test_a_poll_url_is_read_from_data_or_url(self, body: dict[str, Any]) -> None:
        response = wire.read_submission(answer({"requestId": "r", **body}))
        assert (response.status, response.completed, response.url) == (*RUNNING, URL)
        assert response.additional_fields["requestId"] == "r"

    def test_an_immediate_result_is_not_a_poll_url(self) -> None:
        for body in (
            {"status": "SUCCESS", "data": URL},
            {"status": "completed", "completed": True, "data": URL},
            {"status": "SUCCESS", "completed": False, "data": "hi"},
            {"completed": True, "data": "hi", "url": URL},
            {"status": "DONE", "completed": True, "data": URL},
        ):
            response = wire.read_submission(answer(body))
            assert (response.status, response.completed) == SUCCESS
            assert response.data == body["data"]
        assert wire.read_submission(answer({"completed": True, "error": "no"})).failure is None

    def test_an_answer_with_only_a_request_id_shows_it(self) -> None:
        response = wire.read_submission(answer({"status": "IN_PROGRESS", "requestId": "r-7", "x": "y" * 9999}))
        assert response.failure is not None
        assert response.failure.may_be_accepted
        assert "without a poll URL for the request 'r-7'" in response.error_message


class TestCost:
    def test_sums_are_decimal(self) -> None:
        assert sum_decimals([0.1, 0.2]) == 0.3
        assert sum_decimals([0.1] * 3 + [1]) == 1.3
        assert sum_decimals([]) == 0
        steps = [{"usedCredits": 0.1, "runTime": 0.1}, {"used_credits": "0.2", "runTime": 0.2}, {"credits": "1e999"}]
        response = read_response({"data": {"steps": steps}})
        assert (response.used_credits, response.run_time) == (0.3, 0.3)

    @pytest.mark.parametrize("figure", [1e300, "1e999", "1" * 400, "NaN", 2**62])
    def test_an_unbounded_figure_is_ignored(self, figure: Any) -> None:
        response = read_response(
            {"usedCredits": figure, "data": {"usedCredits": figure, "executionStats": {"credits": 0.3}}}
        )
        assert response.used_credits == 0.3
        assert read_response({"data": {"executionStats": {"credits": figure}}}).used_credits == 0
