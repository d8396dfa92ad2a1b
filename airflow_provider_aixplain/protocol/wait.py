"""How to wait for a run: a :class:`Wait` judges each answer to a poll and schedules the next poll.

Triggers (asyncio) and the blocking client share it, and supply the times, the random numbers and the answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from airflow_provider_aixplain.protocol.adaptive import RunTimes
from airflow_provider_aixplain.protocol.failure import InvalidInput
from airflow_provider_aixplain.protocol.response import ModelResponse, ResponseStatus, failure_reason
from airflow_provider_aixplain.protocol.schedule import Backoff, retry_after_delay
from airflow_provider_aixplain.protocol.steps import Steps
from airflow_provider_aixplain.protocol.values import to_printable

DENIALS_BEFORE_FAILURE = 3
"""Consecutive answers that refuse the key or do not know the run, for a wait to fail: a gateway may send one or two."""

RETRY_BUDGET = 300.0
"""Seconds for which a task's wait tolerates refusals: time to rotate a key or fix a Connection."""

MIN_POLL_TIMEOUT = 10.0
"""Seconds that a poll may take even at the deadline: the result of a run that finishes just then must not be lost."""

MAX_DURATION = 1e9
"""The longest duration that is accepted, in seconds: about thirty years."""

FIRST_REPORT = 10.0
MAX_REPORT_INTERVAL = 600.0


@dataclass(frozen=True)
class Outcome:
    """How a wait ended.

    :param status: ``success`` or ``failed``: the run has finished; ``timeout``: it has not, within the time limit;
        ``error``: the platform refuses to answer, and retrying does not help.
    :param message: what happened; the platform's message if it sent one.
    :param response: the platform's last answer, if any.
    """

    status: Literal["success", "failed", "timeout", "error"]
    message: str
    response: ModelResponse | None = None

    @property
    def is_too_large(self) -> bool:
        """Whether the wait ended because the answer exceeds the size limit of its reader."""
        failure = self.response.failure if self.response else None
        return failure is not None and failure.is_too_large

    def to_event(self, poll_url: str) -> dict[str, Any]:
        """Return the payload of the trigger's event. Its response has the poll URL as ``url``, as the submission's."""
        response = self.response.to_dict() if self.response else None
        if response and not response["url"]:
            response["url"] = poll_url
        return {"status": self.status, "message": self.message, "response": response, "poll_url": poll_url}


@dataclass(frozen=True)
class Report:
    """A log line about a wait.

    :param message: what happened.
    :param is_warning: whether it is a warning, as the user may have to act; otherwise it is information.
    """

    message: str
    is_warning: bool = False


class Wait:
    """The wait for one run. All times are seconds since the submission.

    :param wait_time: the first interval between two polls, in seconds or as a timedelta.
    :param timeout: when the wait ends, in seconds or as a timedelta. The run continues: the platform cannot cancel it.
    :param retry_budget: seconds of consecutive refusals after which the wait fails.
    :param run_times: durations of earlier runs of the same model or agent, for an adaptive schedule; default: backoff.
    :raises InvalidInput: if a duration is negative or not a duration.
    """

    def __init__(
        self,
        wait_time: float | timedelta,
        timeout: float | timedelta,
        retry_budget: float = 0.0,
        run_times: RunTimes | None = None,
    ) -> None:
        self.wait_time = to_seconds("wait_time", wait_time)
        self.timeout = to_seconds("timeout", timeout)
        self.retry_budget = retry_budget
        self.polls = 0
        self.steps = Steps()
        backoff = Backoff(self.wait_time)
        self._schedule = run_times.schedule(backoff) if run_times else backoff
        self._run_times = run_times
        self._started_at: float | None = None
        self._last_in_progress = 0.0
        self._denials = 0
        self._denied_at = 0.0
        self._retry_after = 0.0
        self._report_at: float | None = None
        self._warn_at = 0.0
        self._failed_polls = 0

    @property
    def is_denied(self) -> bool:
        """Whether the platform refused the last poll."""
        return self._denials > 0

    def first_delay(self, elapsed: float, chance: float) -> float:
        """Return the seconds until the first poll. One poll is made even after the deadline."""
        self._started_at = elapsed
        return self._limit_to_deadline(elapsed, self._schedule.first_delay(elapsed, chance))

    def poll_timeout(self, elapsed: float) -> float:
        """Return the seconds that a poll may take: the time that is left, but at least ``MIN_POLL_TIMEOUT``."""
        return max(self.timeout - elapsed, MIN_POLL_TIMEOUT)

    def judge(self, response: ModelResponse, elapsed: float) -> Outcome | None:
        """Return how the wait ended, or None if it continues.

        :param response: the answer to the last poll.
        """
        self.polls += 1
        if response.completed:
            is_success = response.status is ResponseStatus.SUCCESS
            message = "" if is_success else failure_reason(response)
            return Outcome("success" if is_success else "failed", message, response)
        failure = response.failure
        if failure is None:
            self._last_in_progress = elapsed
        self._retry_after = (failure.retry_after if failure else None) or 0.0
        self._denials = self._denials + 1 if failure and failure.is_denied else 0
        if self._denials == 1:
            self._denied_at = elapsed
        is_refused = self._denials >= DENIALS_BEFORE_FAILURE and elapsed - self._denied_at >= self.retry_budget
        if is_refused or (failure and failure.is_too_large):
            return Outcome("error", to_printable(response.error_message), response)
        if elapsed >= self.timeout:
            return Outcome("timeout", f"still in progress after {self.timeout:g} s{_last_failure(response)}", response)
        return None

    def delay(self, elapsed: float, chance: float) -> float:
        """Return the seconds until the next poll; the last poll falls on the deadline."""
        scheduled = self._schedule.delay(elapsed, chance)
        return self._limit_to_deadline(elapsed, max(scheduled, retry_after_delay(self._retry_after, chance)))

    def learn(self, response: ModelResponse, elapsed: float, chance: float) -> None:
        """Add the run's duration to ``run_times``, for the schedules of later waits.

        :param response: the answer that reported the run's completion.
        :param chance: a random number from 0 to 1.
        """
        if self._run_times is not None and self._started_at is not None:
            self._run_times.add(response.run_time, self._started_at, self._last_in_progress, elapsed, chance)

    def report(self, response: ModelResponse, elapsed: float) -> Report | None:
        """Return what to log after a poll, if anything.

        Progress is reported at intervals that double from 10 seconds to 10 minutes. The first failed poll and the
        recovery are warnings; further outages are warnings too, at the same growing intervals. An answer that is too
        large is not reported, as it ends the wait.

        :param response: the answer to the last poll.
        """
        if self._report_at is None:
            self._report_at = elapsed + FIRST_REPORT
        if response.failure and response.failure.is_too_large:
            return None
        if response.failure and (self._failed_polls or elapsed >= self._warn_at):
            self._failed_polls += 1
            if self._failed_polls == 1:
                problem = to_printable(response.error_message)
                return Report(f"Poll failed after {elapsed:.0f} s, polling continues: {problem}", is_warning=True)
        elif self._failed_polls and not response.failure:
            failed, self._failed_polls = self._failed_polls, 0
            self._warn_at = _next_report(elapsed)
            return Report(f"Polling works again after {elapsed:.0f} s; failed polls: {failed}", is_warning=True)
        if response.completed or elapsed < self._report_at:
            return None
        self._report_at = _next_report(elapsed)
        return Report(f"Still in progress after {elapsed:.0f} s ({self.polls} polls){_last_failure(response)}")

    def _limit_to_deadline(self, elapsed: float, delay: float) -> float:
        return max(0.0, min(delay, self.timeout - elapsed))


def _next_report(elapsed: float) -> float:
    return elapsed + min(max(elapsed, FIRST_REPORT), MAX_REPORT_INTERVAL)


def _last_failure(response: ModelResponse) -> str:
    return f"; last poll failed: {to_printable(response.error_message)}" if response.failure else ""


def to_seconds(name: str, value: float | timedelta) -> float:
    """Return a duration in seconds.

    :param name: the name of the argument, for an error.
    :raises InvalidInput: if it is negative or not a duration.
    """
    number = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 <= number <= MAX_DURATION:
        raise InvalidInput(f"{name} is {value!r}: give seconds, from 0 to {MAX_DURATION:g}, or a timedelta")
    return float(number)
