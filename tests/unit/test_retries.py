"""The retry policy: a rule from an error to what Airflow does."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_aixplain.exceptions import (
    AixplainError,
    AixplainInputError,
    AixplainRunFailed,
    AixplainRunTimeout,
    error_from_failure,
    from_event,
    submission_error,
    to_event,
)
from airflow_provider_aixplain.protocol.failure import ErrorCategory, Failure
from airflow_provider_aixplain.protocol.values import MAX_FIGURE
from airflow_provider_aixplain.protocol.wire import Answer, read_submission
from tests.support.deployment import AIRFLOW_3

if not AIRFLOW_3:
    pytest.skip("retry policies came with Airflow 3.3", allow_module_level=True)

from airflow.providers.common.compat.sdk import RetryAction

from airflow_provider_aixplain.retries import ACTIONS, RUN_FAILED, RUN_TIMEOUT, AixplainRetryPolicy


def refused(status_code: int, retry_after: float | None = None) -> AixplainError:
    return error_from_failure(Failure(ErrorCategory.of(status_code), status_code, retry_after=retry_after), "no")


def decision(error: BaseException, **actions: Any) -> tuple[RetryAction, timedelta | None]:
    decided = AixplainRetryPolicy(actions).evaluate(error, 1, 3)
    return decided.action, decided.retry_delay


def test_a_retry_waits_for_the_platforms_retry_after() -> None:
    assert decision(refused(429, 7)) == (RetryAction.RETRY, timedelta(seconds=7))
    assert decision(refused(503, 0.5)) == (RetryAction.RETRY, timedelta(seconds=0.5))
    assert decision(refused(429, 1e9)) == (RetryAction.RETRY, timedelta(hours=1))
    assert decision(refused(429)) == (RetryAction.DEFAULT, None), "then the task's own delay holds"


def test_retry_after_survives_the_event_of_a_trigger() -> None:
    assert decision(from_event(to_event(refused(429, 7)))) == (RetryAction.RETRY, timedelta(seconds=7))


@pytest.mark.parametrize("header", ["9" * 400, "9" * 400 + ".5", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_huge_retry_after_is_bounded(header: str) -> None:
    answer = Answer(429, b"", {"retry-after": header}, received_at=0)
    error = submission_error(read_submission(answer), "m")
    assert error.retry_after == MAX_FIGURE or header.startswith("Fri")
    json.dumps(to_event(error), allow_nan=False)
    assert decision(from_event(to_event(error))) == (RetryAction.RETRY, timedelta(hours=1))


def test_no_error_is_retried_at_once_by_default() -> None:
    assert all(action != "now" for action in ACTIONS.values())


def test_the_user_can_set_each_action() -> None:
    assert decision(AixplainRunFailed("bad")) == (RetryAction.DEFAULT, None)
    assert decision(AixplainRunFailed("bad"), **{RUN_FAILED: "fail"}) == (RetryAction.FAIL, None)
    assert decision(refused(503, 9), **{"platform or network": "now"}) == (RetryAction.RETRY, timedelta(0))
    assert decision(AixplainRunTimeout("late")) == (RetryAction.DEFAULT, None)
    assert decision(AixplainRunTimeout("late"), **{RUN_TIMEOUT: "now"}) == (RetryAction.RETRY, timedelta(0))


@pytest.mark.parametrize("error", [ValueError("a"), AixplainError("a")])
def test_other_errors_are_left_to_airflow(error: Exception) -> None:
    assert decision(error) == (RetryAction.DEFAULT, None)


def test_every_retryable_category_has_an_action() -> None:
    retryable = {category.value for category in ErrorCategory if Failure(category).retryable is not False}
    assert retryable | {RUN_FAILED, RUN_TIMEOUT} == set(ACTIONS)


@pytest.mark.parametrize(
    ("actions", "named"), [({"rate": "fail"}, "actions has 'rate': use rate limit"), ({"supplier": "stop"}, "'stop'")]
)
def test_an_unknown_action_is_refused(actions: Any, named: str) -> None:
    with pytest.raises(AixplainInputError, match=named):
        AixplainRetryPolicy(actions)


def test_it_can_be_stored() -> None:
    policy = AixplainRetryPolicy({"supplier": "fail"})
    assert AixplainRetryPolicy.deserialize(policy.serialize()).actions == policy.actions
