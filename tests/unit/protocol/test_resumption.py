"""The decision about the submission of an earlier try, as a table."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_aixplain.protocol.failure import ErrorCategory, Failure
from airflow_provider_aixplain.protocol.response import ModelResponse, ResponseStatus
from airflow_provider_aixplain.protocol.resumption import (
    CLEARED,
    NOT_DURABLE,
    Action,
    Submission,
    decide,
    is_not_found,
    is_rejected,
)

REATTACH, RESUBMIT, FAIL = Action.REATTACH, Action.RESUBMIT, Action.FAIL
ACCEPTED = Submission("same", "2026-01-01T00:00:00Z", "https://h/run")
ORPHANED = Submission("same", "2026-01-01T00:00:00Z")
ANSWERED = replace(ORPHANED, response=ModelResponse(ResponseStatus.SUCCESS, data="hi", completed=True).to_dict())


def failed_request(status_code: int | None, category: ErrorCategory, **fields: Any) -> ModelResponse:
    return ModelResponse(ResponseStatus.FAILED, failure=Failure(category, status_code, **fields))


NOT_FOUND = failed_request(404, ErrorCategory.RESOURCE)
UNREACHABLE = failed_request(None, ErrorCategory.PLATFORM)
RUNNING = ModelResponse(ResponseStatus.IN_PROGRESS)
FINISHED = ModelResponse(ResponseStatus.SUCCESS, completed=True)
FAILED = ModelResponse(ResponseStatus.FAILED, completed=True)


@pytest.mark.parametrize(
    ("earlier", "facts", "action", "reason"),
    [
        (None, {}, RESUBMIT, "^$"),
        (None, {"is_durable": False}, RESUBMIT, NOT_DURABLE[:50]),
        (ACCEPTED, {"is_durable": False}, RESUBMIT, NOT_DURABLE[:50]),
        (ACCEPTED, {"is_durable": False, "is_same_try": True}, REATTACH, "^$"),
        (ACCEPTED, {"is_cleared": True}, RESUBMIT, CLEARED),
        (ACCEPTED, {"is_cleared": True, "is_durable": False}, RESUBMIT, CLEARED),
        (ORPHANED, {"is_cleared": True, "on_orphaned": "fail"}, RESUBMIT, CLEARED),
        (ORPHANED, {}, RESUBMIT, "unknown whether the platform accepted it"),
        (ORPHANED, {"on_orphaned": "fail"}, FAIL, "unknown whether the platform accepted it"),
        (ORPHANED, {"is_same_try": True}, RESUBMIT, "unknown whether the platform accepted it"),
        (ORPHANED, {"is_same_try": True, "on_orphaned": "fail"}, FAIL, "unknown whether the platform accepted it"),
        (ACCEPTED, {}, REATTACH, "^$"),
        (ANSWERED, {"on_orphaned": "fail"}, REATTACH, "^$"),
        (ACCEPTED, {"response": RUNNING}, REATTACH, "^$"),
        (ACCEPTED, {"response": FINISHED}, REATTACH, "^$"),
        (ACCEPTED, {"response": UNREACHABLE}, REATTACH, "^$"),
        (ACCEPTED, {"response": NOT_FOUND}, RESUBMIT, "does not know the run of the earlier try: https://h/run$"),
        (ACCEPTED, {"response": FAILED}, RESUBMIT, "has failed: https://h/run$"),
        (ACCEPTED, {"fingerprint": "other"}, RESUBMIT, "differ from those of the earlier try"),
        (ACCEPTED, {"fingerprint": "other", "is_same_try": True}, REATTACH, "^$"),
        (ACCEPTED, {"response": FAILED, "is_same_try": True}, REATTACH, "^$"),
    ],
)
def test_each_case_has_one_decision(
    earlier: Submission | None, facts: dict[str, Any], action: Action, reason: str
) -> None:
    decision = decide(earlier, **{"fingerprint": "same", "on_orphaned": "resubmit", **facts})
    assert decision.action is action
    assert decision.is_expected is (decision.reason in (CLEARED, NOT_DURABLE))
    assert re.search(reason, decision.reason)


def test_a_recorded_answer_is_the_response() -> None:
    assert ANSWERED.final_response() == ModelResponse(ResponseStatus.SUCCESS, data="hi", completed=True)
    assert ACCEPTED.final_response() is None


def test_unknown_fields_of_a_stored_record_are_ignored() -> None:
    assert Submission.from_stored({"fingerprint": "a", "submitted_at": "b", "max_tries": 1}) == Submission("a", "b")


@pytest.mark.parametrize(
    ("response", "rejected"),
    [
        (RUNNING, False),
        (FAILED, True),
        (NOT_FOUND, True),
        (UNREACHABLE, False),
        (failed_request(None, ErrorCategory.PLATFORM, is_sent=False), True),
        (failed_request(503, ErrorCategory.PLATFORM), False),
    ],
)
def test_only_a_refused_or_unsent_submission_is_rejected(response: ModelResponse, rejected: bool) -> None:
    assert is_rejected(response) is rejected


def test_only_http_404_means_that_the_run_is_unknown() -> None:
    assert [is_not_found(response) for response in (NOT_FOUND, UNREACHABLE, FAILED)] == [True, False, False]
