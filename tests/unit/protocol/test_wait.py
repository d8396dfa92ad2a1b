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
from airflow_provider_aixplain.protocol.wait import DENIALS_BEFORE_FAILURE, MIN_POLL_TIMEOUT, Outcome, Wait

URL = "https://models.aixplain.com/api/v1/data/7e1b"
RUNNING = ModelResponse(ResponseStatus.IN_PROGRESS)
DONE = ModelResponse(ResponseStatus.SUCCESS, completed=True, data="hi")
FAILED = ModelResponse(ResponseStatus.FAILED, completed=True, error_message="no\nmore")


def no_news(status_code: int | None) -> ModelResponse:
    category = ErrorCategory.of(status_code) if status_code else ErrorCategory.PLATFORM
    return ModelResponse(
        ResponseStatus.FAILED, error_message=f"HTTP {status_code}", failure=Failure(category, status_code)
    )


def wait(timeout: float = 100) -> Wait:
    return Wait(wait_time=0.5, timeout=timeout)


def test_a_run_that_is_over_ends_the_wait_even_after_the_deadline() -> None:
    assert wait().judge(DONE, 1) == Outcome("success", "", DONE)
    assert wait(timeout=0).judge(DONE, 1e6) == Outcome("success", "", DONE)
    assert wait().judge(FAILED, 1) == Outcome("failed", "no more", FAILED)


def test_a_failed_run_without_a_reason_says_so() -> None:
    outcome = wait().judge(ModelResponse(ResponseStatus.FAILED, completed=True), 1)
    assert outcome is not None
    assert outcome.message == "the platform gives no reason"


@pytest.mark.parametrize("response", [RUNNING, no_news(None), no_news(429), no_news(500), no_news(503)])
def test_trouble_does_not_end_the_wait_before_the_deadline(response: ModelResponse) -> None:
    waiting = wait()
    assert all(waiting.judge(response, elapsed) is None for elapsed in range(100))
    outcome = waiting.judge(response, 100)
    assert outcome is not None
    assert outcome.status == "timeout"
    assert response.error_message in outcome.message


@pytest.mark.parametrize("status_code", [401, 403, 404])
def test_a_refusal_is_believed_when_it_repeats_without_a_break(status_code: int) -> None:
    waiting = wait()
    refused = no_news(status_code)
    for _ in range(DENIALS_BEFORE_FAILURE - 1):
        assert waiting.judge(refused, 1) is None
    assert waiting.judge(no_news(503), 1) is None
    for _ in range(DENIALS_BEFORE_FAILURE - 1):
        assert waiting.judge(refused, 1) is None
    assert waiting.judge(refused, 1) == Outcome("error", f"HTTP {status_code}", refused)


@given(st.floats(0, 1000), st.floats(0, 1))
def test_the_last_poll_falls_on_the_deadline_and_has_time_to_be_answered(elapsed: float, chance: float) -> None:
    waiting = wait()
    for delay in (waiting.delay(elapsed, chance), waiting.first_delay(elapsed, chance)):
        assert delay >= 0
        assert elapsed >= 100 or elapsed + delay <= 100 + 1e-9
    assert waiting.poll_timeout(elapsed) == max(100 - elapsed, MIN_POLL_TIMEOUT)


def test_the_log_is_told_at_growing_intervals() -> None:
    waiting = wait()
    told = [second for second in range(7200) if waiting.report(RUNNING, second)]
    assert told[:6] == [10, 20, 40, 80, 160, 320]
    assert max(later - sooner for sooner, later in pairwise(told)) == 600


def test_a_report_tells_of_trouble() -> None:
    waiting = wait()
    assert waiting.report(RUNNING, 0) is None
    waiting.judge(no_news(503), 1)
    assert not waiting.is_denied
    assert waiting.report(no_news(503), 20) == "not over after 20 s and 1 polls; the last poll brought: HTTP 503"
    waiting.judge(no_news(401), 21)
    assert waiting.is_denied
    assert waiting.report(RUNNING, 90) == "not over after 90 s and 2 polls"


@pytest.mark.parametrize(
    ("wait_time", "timeout", "named"), [(-1, 1, "wait_time is -1"), (1, "1", "timeout is '1'"), (1, 1e12, "timeout is")]
)
def test_durations_that_are_none(wait_time: Any, timeout: Any, named: str) -> None:
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


def test_a_refusal_is_believed_only_when_the_patience_is_over() -> None:
    waiting = Wait(wait_time=0.5, timeout=1000, retry_budget=60)
    refused = no_news(401)
    assert waiting.judge(RUNNING, 99) is None
    assert all(waiting.judge(refused, elapsed) is None for elapsed in range(100, 160))
    assert waiting.judge(RUNNING, 159.5) is None
    assert all(waiting.judge(refused, elapsed) is None for elapsed in range(200, 260))
    outcome = waiting.judge(refused, 260)
    assert outcome is not None
    assert outcome.status == "error"


@pytest.mark.parametrize("status_code", [429, 503])
@given(asked=st.floats(0, 1e9), chance=st.floats(0, 1))
def test_a_pause_that_the_platform_asks_for_is_kept_and_bounded(status_code: int, asked: float, chance: float) -> None:
    waiting = Wait(wait_time=0.5, timeout=1e9)
    response = no_news(status_code)
    response.failure = Failure(ErrorCategory.of(status_code), status_code, retry_after=asked)
    assert waiting.judge(response, 1) is None
    assert min(asked, MAX_RETRY_AFTER) <= waiting.delay(1, chance) <= MAX_RETRY_AFTER
    assert waiting.judge(RUNNING, 2) is None
    assert waiting.delay(2, chance) < 1, "an answer without it takes it back"


def test_a_pause_that_the_platform_asks_for_ends_with_the_deadline() -> None:
    waiting = wait(timeout=100)
    response = no_news(429)
    response.failure = Failure(ErrorCategory.RATE_LIMIT, 429, retry_after=60)
    assert waiting.judge(response, 90) is None
    assert waiting.delay(90, 0.5) == 10


def test_an_answer_that_is_too_large_ends_the_wait_at_once() -> None:
    response = no_news(200)
    response.failure = Failure(ErrorCategory.SIZE, 200)
    outcome = wait().judge(response, 1)
    assert outcome is not None
    assert (outcome.status, outcome.is_too_large) == ("error", True)
    assert not Outcome("success", "", DONE).is_too_large
    assert not Outcome("error", "").is_too_large
