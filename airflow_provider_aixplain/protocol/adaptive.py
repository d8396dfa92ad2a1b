"""When to ask again if it is known how long earlier runs of the model took.

That is seldom while a run can hardly be over, and often when it is likely to be.

Polls cost, and so does a result that waits for the next one. Where a run ends with the hazard rate ``h(t)``, polls that
cost as much as ``w`` seconds of waiting each are best made ``sqrt(2 w / h)`` seconds apart (J. B. Keller, "Optimum
checking schedules for systems subject to random failure", Management Science 21, 1974). The rate is read off the run
times seen, each interval between two of them counting alike; and ``w`` is what the schedule that knows nothing pays:
its mean delay over its mean number of polls, for the same run times. So both get smaller by the same factor.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence

from airflow_provider_aixplain.protocol.schedule import MIN_WAIT, Backoff, jitter
from airflow_provider_aixplain.protocol.values import parse_number

MAX_SAMPLES = 64
"""Run times of a model; few enough that what it was like a hundred runs ago is forgotten."""

MIN_SAMPLES = 5
"""Run times that make a schedule."""

SAMPLES_PER_PLAN = 8
"""New run times after which a schedule is made anew."""

RESOLUTION = 0.01
"""The share of a run time by which it cannot be told from others."""

MIN_POLL_SHARE = 0.25
"""The share of the polls of a schedule that knows nothing that are made even where no run was ever over, as between two
humps; before the first such time fewer are."""

MAX_START_DELAY = 10.0
"""Seconds after its submission in which a wait for a run began that was waited for all the time."""


class Plan:
    """A schedule for a model whose run times are known. All times are seconds, ``elapsed`` since the submission.

    :param run_times: at least one, from 0.
    :param fallback: the schedule for runs that take longer than all known.
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
            made = math.sqrt(polls / delays * (time - last) / (2 * still_running))
            least = MIN_POLL_SHARE * (fallback.polls(time) - fallback.polls(last)) if index else 0.0
            self._times.append(time)
            self._polls.append(self._polls[-1] + max(made, least))

    def delay(self, elapsed: float, chance: float) -> float:
        """Return the time until the next poll, jittered by up to a fifth of a poll.

        :param chance: a random number from 0 to 1.
        """
        return max(self.elapsed(self.polls(elapsed) + jitter(chance)) - elapsed, MIN_WAIT)

    def first_delay(self, elapsed: float, chance: float) -> float:
        """Return the time until a waiter's first poll: any part of that between two polls.

        :param chance: a random number from 0 to 1.
        """
        return max(self.elapsed(self.polls(elapsed) + chance) - elapsed, 0.0)

    def polls(self, elapsed: float) -> float:
        """Return how many polls are due by then."""
        index = bisect_right(self._times, elapsed)
        if index == len(self._times):
            return self._polls[-1] + self._fallback.polls(elapsed) - self._fallback.polls(self._times[-1])
        return _between(elapsed, self._times, self._polls, index)

    def elapsed(self, polls: float) -> float:
        """Return when so many polls are due: the inverse of :meth:`polls`."""
        index = bisect_right(self._polls, polls)
        if index == len(self._polls):
            return self._fallback.elapsed(self._fallback.polls(self._times[-1]) + polls - self._polls[-1])
        return _between(polls, self._polls, self._times, index)


class RunTimes:
    """How long the last runs of a model took, from submission to end, as far as their waits could see."""

    def __init__(self) -> None:
        self._known: deque[float] = deque(maxlen=MAX_SAMPLES)
        self._new = 0
        self._plans: dict[float, Plan] = {}

    def add(self, told: object, began: float, pending: float, over: float, chance: float) -> None:
        """Remember a run that is over. All times are seconds since its submission.

        :param told: what the platform says of its run time; that leaves out how long it waited to be run.
        :param began: when its wait began.
        :param pending: when it was last seen to go on; 0 if never.
        :param over: when it was seen to be over.
        :param chance: a random number from 0 to 1.
        """
        run_time = parse_number(told)
        if run_time is not None and pending < run_time <= over:
            self._record_outcome(float(run_time))
        elif pending or began <= MAX_START_DELAY:
            # Somewhere in between. A first poll that finds it over was too late, but nobody knows by how much.
            earliest = pending or 0.9 * over
            self._record_outcome(earliest + chance * (over - earliest))

    def schedule(self, fallback: Backoff) -> Plan | Backoff:
        """Return the schedule for the model's next run.

        :param fallback: the schedule where too little is known.
        """
        if len(self._known) < MIN_SAMPLES:
            return fallback
        if self._new >= SAMPLES_PER_PLAN or fallback.wait_time not in self._plans:
            if self._new >= SAMPLES_PER_PLAN:
                self._plans.clear()
                self._new = 0
            self._plans[fallback.wait_time] = Plan(self._known, fallback)
        return self._plans[fallback.wait_time]

    def _record_outcome(self, run_time: float) -> None:
        self._known.append(run_time)
        self._new += 1


def _between(x: float, xs: Sequence[float], ys: Sequence[float], index: int) -> float:
    """Return the ``y`` of an ``x`` between the points ``index - 1`` and ``index`` of a line."""
    share = (x - xs[index - 1]) / (xs[index] - xs[index - 1])
    return ys[index - 1] + share * (ys[index] - ys[index - 1])
