"""How to wait for a run."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_aixplain.protocol.failure import ErrorCategory, Failure, InvalidInput
from airflow_provider_aixplain.protocol.response import ModelResponse, ResponseStatus
from airflow_provider_aixplain.protocol.schedule import MAX_RETRY_AFTER
from airflow_provider_aixplain.protocol.wait import DENIALS_BEFORE_FAILURE, MIN_POLL_TIMEOUT, Outcome, Report, Wait

URL = "https://models.aixplain.com/api/v1/data/7e1b"
RUNNING = ModelResponse(ResponseStatus.IN_PROGRESS)
DONE = ModelResponse(ResponseStatus.SUCCESS, completed=True, data="hi")
FAILED = ModelResponse(ResponseStatus.FAILED, completed=True, error_message="no\nmore")


def failed_poll(status_code: int | None) -> ModelResponse:
    category = ErrorCategory.of(status_code) if status_code else ErrorCategory.PLATFORM
    return ModelResponse(
        ResponseStatus.FAILED, error_message=f"HTTP {status_code}", failure=Failure(category, status_code)
    )


def wait(timeout: float = 100) -> Wait:
    return Wait(wait_time=0.5, timeout=timeout)


def test_a_finished_run_ends_the_wait_even_after_the_deadline() -> None:
    assert wait().judge(DONE, 1) == Outcome("success", "", DONE)
    assert wait(timeout=0).judge(DONE, 1e6) == Outcome("success", "", DONE)
    assert wait().judge(FAILED, 1) == Outcome("failed", "no more", FAILED)


def test_a_failed_run_without_a_reason_has_a_message() -> None:
    outcome = wait().judge(ModelResponse(ResponseStatus.FAILED, completed=True), 1)
    assert outcome is not None
    assert outcome.message == "the platform gives no reason"


@pytest.mark.parametrize("response", [RUNNING, failed_poll(None), failed_poll(429), failed_poll(500), failed_poll(503)])
def test_failed_polls_do_not_end_the_wait_before_the_deadline(response: ModelResponse) -> None:
    waiting = wait()
    assert all(waiting.judge(response, elapsed) is None for elapsed in range(100))
    outcome = waiting.judge(response, 100)
    assert outcome is not None
    assert outcome.status == "timeout"
    assert response.error_message in outcome.message


@pytest.mark.parametrize("status_code", [401, 403, 404])
def test_consecutive_refusals_end_the_wait(status_code: int) -> None:
    waiting = wait()
    refused = failed_poll(status_code)
    for _ in range(DENIALS_BEFORE_FAILURE - 1):
        assert waiting.judge(refused, 1) is None
    assert waiting.judge(failed_poll(503), 1) is None
    for _ in range(DENIALS_BEFORE_FAILURE - 1):
        assert waiting.judge(refused, 1) is None
    assert waiting.judge(refused, 1) == Outcome("error", f"HTTP {status_code}", refused)


@given(st.floats(0, 1000), st.floats(0, 1))
def test_the_last_poll_is_at_the_deadline_and_may_be_answered(elapsed: float, chance: float) -> None:
    waiting = wait()
    for delay in (waiting.delay(elapsed, chance), waiting.first_delay(elapsed, chance)):
        assert delay >= 0
        assert elapsed >= 100 or elapsed + delay <= 100 + 1e-9
    assert waiting.poll_timeout(elapsed) == max(100 - elapsed, MIN_POLL_TIMEOUT)


def test_progress_is_reported_at_growing_intervals() -> None:
    waiting = wait()
    reported = [second for second in range(7200) if waiting.report(RUNNING, second)]
    assert reported[:6] == [10, 20, 40, 80, 160, 320]
    assert max(later - sooner for sooner, later in pairwise(reported)) == 600


def reports(waiting: Wait, answers: list[tuple[ModelResponse, float]]) -> list[Report | None]:
    reported = []
    for response, elapsed in answers:
        waiting.judge(response, elapsed)
        reported.append(waiting.report(response, elapsed))
    return reported


def test_the_first_failed_poll_and_the_recovery_are_warnings() -> None:
    refused = failed_poll(503)
    answers = [(RUNNING, 0), (refused, 3), (refused, 4), (refused, 19), (RUNNING, 20), (RUNNING, 41)]
    assert reports(wait(), answers) == [
        None,
        Report("Poll failed after 3 s, polling continues: HTTP 503", is_warning=True),
        None,
        Report("Still in progress after 19 s (4 polls); last poll failed: HTTP 503"),
        Report("Polling works again after 20 s; failed polls: 3", is_warning=True),
        Report("Still in progress after 41 s (6 polls)"),
    ]


def test_a_finished_run_reports_the_recovery_only() -> None:
    assert reports(wait(), [(DONE, 50)]) == [None]
    (_, recovery) = reports(wait(), [(failed_poll(503), 1), (DONE, 50)])
    assert recovery == Report("Polling works again after 50 s; failed polls: 1", is_warning=True)


def test_polls_that_sometimes_fail_do_not_flood_the_log() -> None:
    answers = [(failed_poll(503) if second % 2 else RUNNING, float(second)) for second in range(7200)]
    warnings = [report for report in reports(wait(timeout=1e6), answers) if report and report.is_warning]
    assert 2 < len(warnings) < 50


def test_a_refused_poll_is_denied_until_another_answer() -> None:
    waiting = wait()
    waiting.judge(failed_poll(503), 1)
    assert not waiting.is_denied
    waiting.judge(failed_poll(401), 2)
    assert waiting.is_denied
    waiting.judge(RUNNING, 3)
    assert not waiting.is_denied


@pytest.mark.parametrize(
    ("wait_time", "timeout", "named"), [(-1, 1, "wait_time is -1"), (1, "1", "timeout is '1'"), (1, 1e12, "timeout is")]
)
def test_invalid_durations_are_refused(wait_time: Any, timeout: Any, named: str) -> None:
    with pytest.raises(InvalidInput, match=f"{named}.*: give seconds"):
        Wait(wait_time, timeout)


def test_the_event_names_the_poll_url_and_holds_plain_types() -> None:
    assert Outcome("timeout", "late").to_event(URL) == {
        "status": "timeout",
        "message": "late",
        "response": None,
        "poll_url": URL,
    }
    event = Outcome("success", "", DONE).to_event(URL)
    assert event["response"] == {**DONE.to_dict(), "url": URL}
    assert type(event["response"]["status"]) is str


def test_refusals_end_the_wait_after_the_retry_budget() -> None:
    waiting = Wait(wait_time=0.5, timeout=1000, retry_budget=60)
    refused = failed_poll(401)
    assert waiting.judge(RUNNING, 99) is None
    assert all(waiting.judge(refused, elapsed) is None for elapsed in range(100, 160))
    assert waiting.judge(RUNNING, 159.5) is None
    assert all(waiting.judge(refused, elapsed) is None for elapsed in range(200, 260))
    outcome = waiting.judge(refused, 260)
    assert outcome is not None
    assert outcome.status == "error"


@pytest.mark.parametrize("status_code", [429, 503])
@given(retry_after=st.floats(0, 1e9), chance=st.floats(0, 1))
def test_retry_after_is_respected_and_bounded(status_code: int, retry_after: float, chance: float) -> None:
    waiting = Wait(wait_time=0.5, timeout=1e9)
    response = failed_poll(status_code)
    response.failure = Failure(ErrorCategory.of(status_code), status_code, retry_after=retry_after)
    assert waiting.judge(response, 1) is None
    assert min(retry_after, MAX_RETRY_AFTER) <= waiting.delay(1, chance) <= MAX_RETRY_AFTER
    assert waiting.judge(RUNNING, 2) is None
    assert waiting.delay(2, chance) < 1, "an answer without it resets it"


def test_retry_after_does_not_exceed_the_deadline() -> None:
    waiting = wait(timeout=100)
    response = failed_poll(429)
    response.failure = Failure(ErrorCategory.RATE_LIMIT, 429, retry_after=60)
    assert waiting.judge(response, 90) is None
    assert waiting.delay(90, 0.5) == 10


def test_an_answer_above_the_limit_ends_the_wait_at_once() -> None:
    response = failed_poll(200)
    response.failure = Failure(ErrorCategory.SIZE, 200)
    waiting = wait()
    outcome = waiting.judge(response, 1)
    assert outcome is not None
    assert (outcome.status, outcome.is_too_large) == ("error", True)
    assert waiting.report(response, 1) is None
    assert not Outcome("success", "", DONE).is_too_large
    assert not Outcome("error", "").is_too_large
