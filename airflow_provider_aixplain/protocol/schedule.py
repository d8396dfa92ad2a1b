"""When to ask again: pure functions of the time since the submission.

The schedule is that of the platform's own client: wait ``wait_time`` before the second poll and 10 % longer before
each further one, up to a minute. A wait that grows by 10 % a poll is a tenth of the time that has passed, plus the
first wait; told that way it needs no count of polls, and a restarted triggerer goes on where the run's schedule stands.
"""

from __future__ import annotations

MIN_WAIT = 0.2
MAX_WAIT = 60.0
GROWTH = 0.1
JITTER = 0.2

MAX_RETRY_AFTER = 300.0
"""Seconds that a platform which asks for a longer pause gets: a gateway's slip must not stop a wait for hours."""


def interval(elapsed: float, wait_time: float) -> float:
    """Return the wait between two polls, in seconds, before jitter.

    :param elapsed: seconds since the submission.
    :param wait_time: the first wait, in seconds; at least 0.2 is used, and more than 60 is kept as it is.
    """
    first = max(wait_time, MIN_WAIT)
    return min(first + GROWTH * elapsed, max(MAX_WAIT, first))


def delay(elapsed: float, wait_time: float, chance: float) -> float:
    """Return the seconds until the next poll: the interval, jittered by up to 20 %, so that runs do not poll in waves.

    :param chance: a random number from 0 to 1.
    """
    return interval(elapsed, wait_time) * (1 + JITTER * (2 * chance - 1))


def asked_delay(retry_after: float, chance: float) -> float:
    """Return the seconds to wait where the platform asks for a pause: those, and up to 20 % more, but at most 300.

    :param retry_after: the seconds that the platform asks for.
    :param chance: a random number from 0 to 1.
    """
    return min(retry_after * (1 + JITTER * chance), MAX_RETRY_AFTER)


def first_delay(elapsed: float, wait_time: float, chance: float) -> float:
    """Return the seconds until a waiter's first poll.

    It is any part of an interval, so that a restarted triggerer does not poll its thousands of runs all at once.

    :param chance: a random number from 0 to 1.
    """
    return interval(elapsed, wait_time) * chance
