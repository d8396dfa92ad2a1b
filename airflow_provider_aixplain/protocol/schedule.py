"""When to poll: pure functions of the time since the submission.

:class:`Backoff` is the schedule of the platform's own client: the second poll follows after ``wait_time``, and each
further interval is 10 % longer, up to a minute. An interval that grows by 10 % a poll equals the first interval plus a
tenth of the elapsed time. That needs no count of polls, so a restarted triggerer continues the schedule.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

MIN_WAIT = 0.2
MAX_WAIT = 60.0
GROWTH = 0.1
JITTER = 0.2

TICK = 0.05
"""Seconds between the moments at which a triggerer polls. Polls that are due in between are sent together at the next
one: waking the process for each poll separately costs 50 % more CPU time."""

MAX_RETRY_AFTER = 300.0
"""The longest delay that ``Retry-After`` can cause, in seconds: a gateway's mistake must not delay a wait by hours."""


@dataclass(frozen=True)
class Backoff:
    """A schedule with growing intervals. All times are seconds, ``elapsed`` since the submission.

    :param wait_time: the first interval; below 0.2 it counts as 0.2, and above 60 it does not grow.
    """

    wait_time: float

    def interval(self, elapsed: float) -> float:
        """Return the interval between two polls, without jitter."""
        return min(self._first + GROWTH * elapsed, self._longest)

    def delay(self, elapsed: float, chance: float) -> float:
        """Return the time until the next poll: the interval, with a jitter of up to 20 % against synchronized polls.

        :param chance: a random number from 0 to 1.
        """
        return self.interval(elapsed) * jitter(chance)

    def first_delay(self, elapsed: float, chance: float) -> float:
        """Return the time until the first poll of a wait.

        It is a random share of an interval, so that a restarted triggerer does not poll its thousands of runs at once.

        :param chance: a random number from 0 to 1.
        """
        return self.interval(elapsed) * chance

    def polls(self, elapsed: float) -> float:
        """Return the number of intervals, with fractions, until a time."""
        growing = min(elapsed, self._knee)
        return math.log1p(GROWTH * growing / self._first) / _RATE + (elapsed - growing) / self._longest

    def elapsed(self, polls: float) -> float:
        """Return the time at which a number of intervals has passed: the inverse of :meth:`polls`."""
        growing = min(polls, self.polls(self._knee))
        return self._first * math.expm1(growing * _RATE) / GROWTH + (polls - growing) * self._longest

    @property
    def _first(self) -> float:
        return max(self.wait_time, MIN_WAIT)

    @property
    def _longest(self) -> float:
        return max(MAX_WAIT, self._first)

    @property
    def _knee(self) -> float:
        """The time after which the interval is constant."""
        return (self._longest - self._first) / GROWTH


_RATE = math.log1p(GROWTH)


def jitter(chance: float) -> float:
    """Return a factor from 0.8 to 1.2.

    :param chance: a random number from 0 to 1.
    """
    return 1 + JITTER * (2 * chance - 1)


def delay_until_tick(delay: float, now: float) -> float:
    """Return the seconds until the first tick after a delay.

    :param delay: seconds.
    :param now: seconds, by a clock that all waits of the process share.
    """
    return math.ceil((now + delay) / TICK) * TICK - now


def retry_after_delay(retry_after: float, chance: float) -> float:
    """Return the seconds to wait after a ``Retry-After`` header: its value plus up to 20 %, but at most 300.

    :param retry_after: the header's value, in seconds.
    :param chance: a random number from 0 to 1.
    """
    return min(retry_after * (1 + JITTER * chance), MAX_RETRY_AFTER)
