"""``python -m tests.benchmarks.instrumented NAME`` runs a component of Airflow 3 that records what tasks cost in it.

Task processes are forks of the scheduler, so this module imports only the standard library before its measures begin.
"""

from __future__ import annotations

import asyncio
import builtins
import concurrent.futures.thread
import importlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from types import SimpleNamespace
from typing import Any

PATH = "BENCH_COSTS"
"""The environment variable with the path of the file to which each process appends its records, as lines of JSON."""

PACKAGE = "airflow_provider_aixplain"


def append(**record: Any) -> None:
    """Append a record. Lines of several processes do not mix."""
    with open(os.environ[PATH], "ab", buffering=0) as file:
        file.write(json.dumps(record).encode() + b"\n")


def wrap(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Replace a function by what ``make`` returns for it."""
    original = getattr(owner, name)
    setattr(owner, name, wraps(original)(make(original)))


class Costs:
    """Divides the CPU time of a process among activities. That of an inner activity does not count for an outer one."""

    def __init__(self) -> None:
        self.milliseconds: Counter[str] = Counter()
        self.modules: Counter[str] = Counter()
        self.activities = ["airflow"]
        self._charged_until = time.process_time()

    def charge(self) -> None:
        """Charge the time since the last call to the current activity."""
        now = time.process_time()
        self.milliseconds[self.activities[-1]] += 1e3 * (now - self._charged_until)
        self._charged_until = now

    @contextmanager
    def spend_on(self, activity: str) -> Iterator[None]:
        """Charge the time of a block, and the modules that it imports, to an activity."""
        before = len(sys.modules)
        self.charge()
        self.activities.append(activity)
        try:
            yield
        finally:
            self.charge()
            self.activities.pop()
            self.modules[activity] += len(sys.modules) - before


def measure_tasks() -> None:
    """Record the CPU time and the imports of each task process."""
    from airflow.sdk.execution_time import comms, task_runner

    costs = Costs()

    def spending_on(activity: str) -> Callable[[Any], Any]:
        def make(original: Any) -> Any:
            def measured(*args: Any, **kwargs: Any) -> Any:
                with costs.spend_on(activity):
                    return original(*args, **kwargs)

            return measured

        return make

    def importing(original: Any) -> Any:
        def measured(name: str, *args: Any, **kwargs: Any) -> Any:
            current = costs.activities[-1]
            if "imports" in current:
                return original(name, *args, **kwargs)
            of_provider = current == "parse" and name.startswith(PACKAGE)
            with costs.spend_on("imports of the provider" if of_provider else f"imports in {current}"):
                return original(name, *args, **kwargs)

        return measured

    def beginning(original: Any) -> Any:
        def measured() -> None:
            nonlocal costs
            costs = Costs()
            original()

        return measured

    def finishing(original: Any) -> Any:
        def measured(*args: Any, **kwargs: Any) -> None:
            original(*args, **kwargs)
            costs.charge()
            append(kind="visit", milliseconds=costs.milliseconds, modules=costs.modules)

        return measured

    wrap(task_runner, "main", beginning)
    wrap(task_runner, "finalize", finishing)
    wrap(task_runner, "parse", spending_on("parse"))
    wrap(task_runner, "_execute_task", spending_on("execute"))
    wrap(comms.CommsDecoder, "send", spending_on("messages"))
    wrap(builtins, "__import__", importing)
    wrap(importlib, "import_module", importing)


def measure_triggers() -> None:
    """Record the CPU time of triggers, and each message that they send to the triggerer's main process."""
    from airflow.jobs.triggerer_job_runner import TriggerCommsDecoder, TriggerRunner, TriggerRunnerSupervisor

    is_trigger = ContextVar("is_trigger", default=False)
    seconds = Counter[str]()

    def starting(original: Any) -> Any:
        async def measured(*args: Any, **kwargs: Any) -> Any:
            is_trigger.set(True)  # for all callbacks of this task, and of the tasks that it creates
            return await original(*args, **kwargs)

        return measured

    def running(original: Any) -> Any:
        def measured(callback: Any) -> Any:
            begin = time.thread_time()
            try:
                return original(callback)
            finally:  # a work item, which only triggers submit, has no context
                if not hasattr(callback, "_context") or callback._context.get(is_trigger):
                    seconds["triggers"] += time.thread_time() - begin

        return measured

    def sending(original: Any) -> Any:
        async def measured(self: Any, msg: Any) -> Any:
            if getattr(msg, "events", None):
                append(kind="trigger", milliseconds=1e3 * seconds.pop("triggers", 0.0))
            return await original(self, msg)

        return measured

    def handling(original: Any) -> Any:
        def measured(self: Any, msg: Any, *args: Any) -> None:
            begin = time.process_time()
            original(self, msg, *args)
            if getattr(msg, "events", True):  # the runner also reports every second that there are none
                milliseconds = 1e3 * (time.process_time() - begin)
                append(kind="message", name=type(msg).__name__, key=getattr(msg, "key", ""), milliseconds=milliseconds)

        return measured

    wrap(TriggerRunner, "run_trigger", starting)
    wrap(asyncio.Handle, "_run", running)
    wrap(concurrent.futures.thread._WorkItem, "run", running)
    wrap(TriggerCommsDecoder, "asend", sending)
    wrap(TriggerRunnerSupervisor, "_handle_request", handling)


def measure_requests() -> None:
    """Let the access log of the API server state the CPU time of requests, instead of their duration."""
    from airflow.api_fastapi.common import http_access_log

    http_access_log.time = SimpleNamespace(monotonic_ns=time.process_time_ns)  # type: ignore[attr-defined]


MEASURES = {"scheduler": measure_tasks, "triggerer": measure_triggers, "api-server": measure_requests}


def main() -> None:
    """Run the component."""
    from airflow.__main__ import main as run

    if measure := MEASURES.get(sys.argv[1]):
        measure()
    run()


if __name__ == "__main__":
    main()
