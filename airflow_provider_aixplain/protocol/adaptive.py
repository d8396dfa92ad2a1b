"""A poll schedule learned from the durations of earlier runs of the same model or agent.

It polls rarely while a run is unlikely to have finished, and often when it is likely to finish.

Each poll has a cost, and so has the delay between a run's end and the next poll. If a run finishes with the hazard rate
``h(t)``, and a poll costs as much as ``w`` seconds of delay, the best interval between polls is ``sqrt(2 w / h)``
seconds
(J. B. Keller, "Optimum checking schedules for systems subject to random failure", Management Science 21, 1974). The
rate is estimated from the known run times: a run is equally likely to finish in each interval between two of them.
``w`` is the cost that the fallback schedule implies for the same run times: its mean delay divided by its mean number
of polls. Delay and polls then decrease by the same factor.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence

from airflow_provider_aixplain.protocol.schedule import MIN_WAIT, Backoff, jitter
from airflow_provider_aixplain.protocol.values import parse_number

MAX_SAMPLES = 64
"""Run times that are kept of a model or agent; the oldest are dropped, so that the schedule follows changes."""

MIN_SAMPLES = 5
"""Run times that a schedule needs."""

SAMPLES_PER_PLAN = 8
"""New run times after which a schedule is computed again."""

RESOLUTION = 0.01
"""Equal run times are spread over this share of themselves, so that the estimated rate is finite."""

MIN_POLL_SHARE = 0.25
"""The least share of the fallback's polls that is made between two run times; before the first it may be less."""

MAX_START_DELAY = 10.0
"""Seconds after the submission within which a wait must have started, so that it has observed the whole run."""


class Plan:
    """A schedule for a model or agent with known run times. All times are seconds, ``elapsed`` since the submission.

    :param run_times: at least one, not negative.
    :param fallback: the schedule for runs that take longer than all known ones.
    """

    def __init__(self, run_times: Sequence[float], fallback: Backoff) -> None:
        self._fallback = fallback
        known = sorted(run_times)
        polls = sum(fallback.polls(run_time) + 1 for run_time in known)
        delays = sum(fallback.interval(run_time) / 2 for run_time in known)
        self._times, self._polls = [0.0], [0.0]
        for index, run_time in enumerate(known):
            last = self._times[-1]
            time = max(run_time, last + max(MIN_WAIT, RESOLUTION * run_time) / len(known))
            still_running = len(known) - index - 0.5
            best = math.sqrt(polls / delays * (time - last) / (2 * still_running))
            least = MIN_POLL_SHARE * (fallback.polls(time) - fallback.polls(last)) if index else 0.0
            self._times.append(time)
            self._polls.append(self._polls[-1] + max(best, least))

    def delay(self, elapsed: float, chance: float) -> float:
        """Return the time until the next poll, with a jitter of up to a fifth of a poll.

        :param chance: a random number from 0 to 1.
        """
        return max(self.elapsed(self.polls(elapsed) + jitter(chance)) - elapsed, MIN_WAIT)

    def first_delay(self, elapsed: float, chance: float) -> float:
        """Return the time until the first poll of a wait: a random part of an interval.

        :param chance: a random number from 0 to 1.
        """
        return max(self.elapsed(self.polls(elapsed) + chance) - elapsed, 0.0)

    def polls(self, elapsed: float) -> float:
        """Return the number of polls that are due by a time."""
        index = bisect_right(self._times, elapsed)
        if index == len(self._times):
            return self._polls[-1] + self._fallback.polls(elapsed) - self._fallback.polls(self._times[-1])
        return _interpolate(elapsed, self._times, self._polls, index)

    def elapsed(self, polls: float) -> float:
        """Return the time by which a number of polls is due: the inverse of :meth:`polls`."""
        index = bisect_right(self._polls, polls)
        if index == len(self._polls):
            return self._fallback.elapsed(self._fallback.polls(self._times[-1]) + polls - self._polls[-1])
        return _interpolate(polls, self._polls, self._times, index)


class RunTimes:
    """The durations of the last runs of a model or agent, from submission to completion.

    They are as accurate as the waits observed them.
    """

    def __init__(self) -> None:
        self._samples: deque[float] = deque(maxlen=MAX_SAMPLES)
        self._new_samples = 0
        self._plans: dict[float, Plan] = {}

    def add(
        self, reported: object, started_at: float, last_in_progress: float, finished_by: float, chance: float
    ) -> None:
        """Add a run that has finished. All times are seconds since its submission.

        :param reported: the run time that the platform reports, without the time in a queue; ignored if the polls
            contradict it.
        :param started_at: when its wait started.
        :param last_in_progress: when a poll last found it in progress; 0 if none did.
        :param finished_by: when a poll found it finished.
        :param chance: a random number from 0 to 1.
        """
        run_time = parse_number(reported)
        if run_time is not None and last_in_progress < run_time <= finished_by:
            self._add(float(run_time))
        elif last_in_progress or started_at <= MAX_START_DELAY:
            # The end of the run is unknown: a random time between the last two polls is used; or, if the first poll
            # found it finished, a random time in the tenth before that poll.
            earliest = last_in_progress or 0.9 * finished_by
            self._add(earliest + chance * (finished_by - earliest))

    def schedule(self, fallback: Backoff) -> Plan | Backoff:
        """Return the schedule for the next run.

        :param fallback: the schedule while too few run times are known.
        """
        if len(self._samples) < MIN_SAMPLES:
            return fallback
        if self._new_samples >= SAMPLES_PER_PLAN:
            self._plans.clear()
            self._new_samples = 0
        if fallback.wait_time not in self._plans:
            self._plans[fallback.wait_time] = Plan(self._samples, fallback)
        return self._plans[fallback.wait_time]

    def _add(self, run_time: float) -> None:
        self._samples.append(run_time)
        self._new_samples += 1


def _interpolate(x: float, xs: Sequence[float], ys: Sequence[float], index: int) -> float:
    """Return the ``y`` of an ``x`` on the line between the points ``index - 1`` and ``index``."""
    share = (x - xs[index - 1]) / (xs[index] - xs[index - 1])
    return ys[index - 1] + share * (ys[index] - ys[index - 1])
