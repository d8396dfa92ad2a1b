"""Summarizes the failures that a batch survives, for the task log."""

from __future__ import annotations

import math
from collections import Counter
from threading import Lock

from airflow_provider_aixplain.protocol.values import to_printable

FIRST_INTERVAL = 10.0
"""Seconds between the first two reports."""

LONGEST_INTERVAL = 300.0
"""The maximum number of seconds between two reports."""


class FailureSummary:
    """Counts failures, and limits how often they are logged.

    The first failure is reported at once, later ones together at intervals that double from 10 seconds to five minutes.
    After an interval without a failure they start again at 10 seconds. One thread may add failures while another one
    reports them.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._counts: Counter[str] = Counter()
        self._last = ""
        self._report_at = -math.inf
        self._interval = FIRST_INTERVAL

    def add(self, kind: str, problem: object, place: str = "") -> None:
        """Count a failure.

        :param kind: a plural, such as ``failed polls``.
        :param problem: an error or a message.
        :param place: a prefix of the problem in the report.
        """
        name = f"{type(problem).__name__}: " if isinstance(problem, Exception) else ""
        with self._lock:
            self._counts[kind] += 1
            self._last = to_printable(f"{place}{name}{problem}")

    def report(self, now: float) -> str | None:
        """Return the line to log now, if any.

        :param now: the time in seconds, by a monotonic clock.
        """
        if now < self._report_at:
            return None
        with self._lock:
            counts, self._counts = self._counts, Counter()
        if not counts:
            self._interval = FIRST_INTERVAL
            return None
        self._report_at = now + self._interval
        self._interval = min(self._interval * 2, LONGEST_INTERVAL)
        summary = ", ".join(f"{kind}: {count}" for kind, count in counts.items())
        return f"The batch continues after failures ({summary} since the last report). Last failure: {self._last}"
