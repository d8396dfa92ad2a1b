"""How to wait for a run: judges each answer to a poll and says when to ask again.

The trigger (asyncio) and the hook (blocking) drive the same :class:`Wait`; they own the clock, the dice and the socket.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from airflow_provider_aixplain.protocol.adaptive import RunTimes
from airflow_provider_aixplain.protocol.failure import InvalidInput
from airflow_provider_aixplain.protocol.response import ModelResponse, ResponseStatus, failure_reason
from airflow_provider_aixplain.protocol.schedule import Backoff, retry_after_delay
from airflow_provider_aixplain.protocol.values import to_printable

DENIALS_BEFORE_FAILURE = 3
"""Answers in a row that refuse the key or do not know the run before the wait ends: one alone is often a gateway's."""

RETRY_BUDGET = 300.0
"""Seconds that a task's wait goes on while it is refused, in which somebody may rotate a key or mend a Connection."""

MIN_POLL_TIMEOUT = 10.0
"""Seconds that a poll gets even if less is left of the time: a run that is over in the end must not be lost."""

MAX_DURATION = 1e9
"""The longest duration that makes sense, in seconds: some thirty years."""

FIRST_REPORT = 10.0
LONGEST_UNREPORTED = 600.0


@dataclass(frozen=True)
class Outcome:
    """How a wait ended.

    :param status: ``success`` or ``failed``: the run is over; ``timeout``: it is not, and the time is up; ``error``:
        the platform refuses to tell, and asking again does not mend it.
    :param message: what happened, for people, in the platform's words where it has some.
    :param response: the last answer of the platform, if any.
    """

    status: Literal["success", "failed", "timeout", "error"]
    message: str
    response: ModelResponse | None = None

    @property
    def is_too_large(self) -> bool:
        """Whether the wait ended because the answer is larger than its reader takes."""
        failure = self.response.failure if self.response else None
        return failure is not None and failure.is_too_large

    def to_event(self, poll_url: str) -> dict[str, Any]:
        """Return the payload of the trigger's event. Its response names the poll URL, as the submission's does."""
        response = self.response.to_dict() if self.response else None
        if response and not response["url"]:
            response["url"] = poll_url
        return {"status": self.status, "message": self.message, "response": response, "poll_url": poll_url}


class Wait:
    """One run's wait. All times are seconds since the submission.

    :param wait_time: the first wait between two polls, in seconds or as a timedelta.
    :param timeout: when the wait ends, in seconds or as a timedelta; the run goes on, as the platform cannot cancel it.
    :param retry_budget: for how long, in seconds, the platform must have refused before it is believed.
    :param run_times: how long earlier runs of the model took, for a schedule that knows; default: one that does not.
    :raises InvalidInput: if one of them is negative or no duration.
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
        backoff = Backoff(self.wait_time)
        self._schedule = run_times.schedule(backoff) if run_times else backoff
        self._run_times = run_times
        self._began: float | None = None
        self._pending = 0.0
        self._denials = 0
        self._denied_at = 0.0
        self._retry_after = 0.0
        self._report_at: float | None = None

    @property
    def is_denied(self) -> bool:
        """Whether the platform refused the last poll."""
        return self._denials > 0

    def first_delay(self, elapsed: float, chance: float) -> float:
        """Return the seconds until the first poll. However late it is, one poll is made."""
        self._began = elapsed
        return self._until_deadline(elapsed, self._schedule.first_delay(elapsed, chance))

    def poll_timeout(self, elapsed: float) -> float:
        """Return the seconds that a poll may take: what is left of the time, and enough for one at the deadline."""
        return max(self.timeout - elapsed, MIN_POLL_TIMEOUT)

    def judge(self, response: ModelResponse, elapsed: float) -> Outcome | None:
        """Return how the wait ended, or None if it goes on.

        :param response: the answer to the poll just made.
        """
        self.polls += 1
        if response.completed:
            succeeded = response.status is ResponseStatus.SUCCESS
            message = "" if succeeded else failure_reason(response)
            return Outcome("success" if succeeded else "failed", message, response)
        failure = response.failure
        if failure is None:
            self._pending = elapsed
        self._retry_after = (failure.retry_after if failure else None) or 0.0
        self._denials = self._denials + 1 if failure and failure.is_denied else 0
        if self._denials == 1:
            self._denied_at = elapsed
        is_believed = self._denials >= DENIALS_BEFORE_FAILURE and elapsed - self._denied_at >= self.retry_budget
        if is_believed or (failure and failure.is_too_large):
            return Outcome("error", to_printable(response.error_message), response)
        if elapsed >= self.timeout:
            last = f" The last poll brought: {to_printable(response.error_message)}" if response.failure else ""
            return Outcome("timeout", f"not over after {self.timeout:g} s.{last}", response)
        return None

    def delay(self, elapsed: float, chance: float) -> float:
        """Return the seconds until the next poll; the last one falls on the deadline."""
        scheduled = self._schedule.delay(elapsed, chance)
        return self._until_deadline(elapsed, max(scheduled, retry_after_delay(self._retry_after, chance)))

    def learn(self, response: ModelResponse, elapsed: float, chance: float) -> None:
        """Let later waits know how long the run took.

        :param response: the answer that told of its end.
        :param chance: a random number from 0 to 1.
        """
        if self._run_times is not None and self._began is not None:
            self._run_times.add(response.run_time, self._began, self._pending, elapsed, chance)

    def report(self, response: ModelResponse, elapsed: float) -> str | None:
        """Return what to tell the log now, if anything: at intervals that double from 10 seconds to 10 minutes.

        :param response: the answer to the poll just made.
        """
        if self._report_at is None:
            self._report_at = elapsed + FIRST_REPORT
        if elapsed < self._report_at:
            return None
        self._report_at = elapsed + min(max(elapsed, FIRST_REPORT), LONGEST_UNREPORTED)
        trouble = f"; the last poll brought: {to_printable(response.error_message)}" if response.failure else ""
        return f"not over after {elapsed:.0f} s and {self.polls} polls{trouble}"

    def _until_deadline(self, elapsed: float, seconds: float) -> float:
        return max(0.0, min(seconds, self.timeout - elapsed))


def to_seconds(name: str, value: float | timedelta) -> float:
    """Return a duration in seconds.

    :param name: what to call it in an error.
    :raises InvalidInput: if it is negative or no duration.
    """
    given = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not 0 <= given <= MAX_DURATION:
        raise InvalidInput(f"{name} is {value!r}: give seconds, from 0 to {MAX_DURATION:g}, or a timedelta")
    return float(given)
