"""The bound on the submissions that the triggers of one event loop make at the same time."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from airflow_provider_aixplain.loop_local import LoopLocal

MAX_CONCURRENT_SUBMISSIONS = 4
"""The most submissions that can be in doubt after the triggerer is killed. A slot is held from reading the record until
the outcome is recorded, as Airflow 3.3.2's triggerer answers many concurrent requests only after seconds."""


class SubmissionSlots:
    """Bounds the concurrent submissions, and runs them in threads.

    A triggerer that stops cancels the tasks of its event loop but no threads, so the answer to a submission in flight
    is not lost. The threads end when this object is freed.

    :param limit: the most concurrent submissions.
    """

    def __init__(self, limit: int) -> None:
        self.free = asyncio.Semaphore(limit)
        self.threads = ThreadPoolExecutor(limit, thread_name_prefix="aixplain-submission")


SLOTS = LoopLocal(lambda: SubmissionSlots(MAX_CONCURRENT_SUBMISSIONS))
