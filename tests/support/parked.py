"""A trigger that stops at one of its steps when it is started first, and waits there to be killed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from airflow_provider_aixplain.compat import XCom
from airflow_provider_aixplain.operators.aixplain import AixplainRunModelOperator
from airflow_provider_aixplain.protocol.response import ModelResponse
from airflow_provider_aixplain.workerless import submission_slots
from airflow_provider_aixplain.workerless.start_trigger import AixplainModelStartTrigger
from airflow_provider_aixplain.workerless.xcom_store import IdempotencyRecord, XComIdempotencyStore

# A trigger that stops during its submission keeps its slot, and more triggers stop than there are slots by default.
submission_slots.MAX_CONCURRENT_SUBMISSIONS = 16

STEPS = (
    "before the intent",
    "after the intent",
    "answered",
    "recorded",
    "before the XComs",
    "amid the XComs",
    "after the XComs",
)

FAILS = "after the intent, and then to fail"
"""As ``after the intent``, in a task that fails if its submission is in doubt."""


def parking(step: str) -> Path:
    """The file that exists once a trigger has stopped at a step."""
    return Path(os.environ["PARKING"]) / step.replace(" ", "_")


async def park(step: str, name: str | None) -> None:
    if name == step and not parking(step).exists():
        parking(step).touch()
        await asyncio.sleep(600)


class ParkedStore(XComIdempotencyStore):
    name: str | None

    async def write(self, submission: IdempotencyRecord) -> None:
        if submission.poll_url:
            return await super().write(submission)
        await park("before the intent", self.name)
        await super().write(submission)
        await park("after the intent", self.name)
        return await park(FAILS, self.name)

    async def push(self, response: Mapping[str, Any], fields: Mapping[str, Any]) -> None:
        await park("before the XComs", self.name)
        if self.name == "amid the XComs":
            await XCom.aset("data", "half", **self._task)
        await park("amid the XComs", self.name)
        await super().push(response, fields)
        await park("after the XComs", self.name)


class ParkedTrigger(AixplainModelStartTrigger):
    @property
    def store(self) -> ParkedStore:
        store = ParkedStore(self.task_instance)
        store.name = self.name
        return store

    async def _record_outcome(self, intent: IdempotencyRecord, response: ModelResponse) -> None:
        await park("answered", self.name)
        await super()._record_outcome(intent, response)
        await park("recorded", self.name)


class ParkedOperator(AixplainRunModelOperator):
    @property
    def start_trigger_args(self) -> Any:
        arguments = super().start_trigger_args
        path = f"{ParkedTrigger.__module__}.{ParkedTrigger.__qualname__}"
        return arguments and replace(arguments, trigger_cls=path)
