"""When to ask again: pure functions of the time since the submission.

:class:`Backoff` is the schedule of the platform's own client: wait ``wait_time`` before the second poll and 10 % longer
before each further one, up to a minute. A wait that grows by 10 % a poll is a tenth of the time that has passed, plus
the first wait; told that way it needs no count of polls, and a restarted triggerer goes on where the run's schedule
stands.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

MIN_WAIT = 0.2
MAX_WAIT = 60.0
GROWTH = 0.1
JITTER = 0.2

TICK = 0.05
"""Seconds between the moments at which a triggerer polls: what is due in between waits for the next one, as a process
that is woken for each poll alone needs half as much time again for each."""

MAX_RETRY_AFTER = 300.0
"""Seconds that a platform which asks for a longer pause gets: a gateway's slip must not stop a wait for hours."""


@dataclass(frozen=True)
class Backoff:
    """The schedule that knows nothing of the run. All times are seconds, and ``elapsed`` those since the submission.

    :param wait_time: the first wait; at least 0.2 is used, and more than 60 is kept as it is.
    """

    wait_time: float

    def interval(self, elapsed: float) -> float:
        """Return the wait between two polls, before jitter."""
        return min(self._first + GROWTH * elapsed, self._longest)

    def delay(self, elapsed: float, chance: float) -> float:
        """Return the time until the next poll: the interval, jittered by up to 20 %, so that runs do not poll in waves.

        :param chance: a random number from 0 to 1.
        """
        return self.interval(elapsed) * jitter(chance)

    def first_delay(self, elapsed: float, chance: float) -> float:
        """Return the time until a waiter's first poll.

        It is any part of an interval, so that a restarted triggerer does not poll its thousands of runs all at once.

        :param chance: a random number from 0 to 1.
        """
        return self.interval(elapsed) * chance

    def polls(self, elapsed: float) -> float:
        """Return how many intervals have passed."""
        growing = min(elapsed, self._knee)
        return math.log1p(GROWTH * growing / self._first) / _RATE + (elapsed - growing) / self._longest

    def elapsed(self, polls: float) -> float:
        """Return the time in which so many intervals pass: the inverse of :meth:`polls`."""
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
        """When the interval stops to grow."""
        return (self._longest - self._first) / GROWTH


_RATE = math.log1p(GROWTH)


def jitter(chance: float) -> float:
    """Return a factor from 0.8 to 1.2.

    :param chance: a random number from 0 to 1.
    """
    return 1 + JITTER * (2 * chance - 1)


def delay_until_tick(delay: float, now: float) -> float:
    """Return the seconds until the first tick at which so much time has passed.

    :param delay: seconds.
    :param now: seconds, by any clock that all waiters share.
    """
    return math.ceil((now + delay) / TICK) * TICK - now


def retry_after_delay(retry_after: float, chance: float) -> float:
    """Return the seconds to wait where the platform asks for a pause: those, and up to 20 % more, but at most 300.

    :param retry_after: the seconds that the platform asks for.
    :param chance: a random number from 0 to 1.
    """
    return min(retry_after * (1 + JITTER * chance), MAX_RETRY_AFTER)
