"""A trigger that stops at a given step when it is started first, so that it can be killed there."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import XCom

from airflow_provider_aixplain.operators.aixplain import AixplainRunModelOperator
from airflow_provider_aixplain.protocol.response import ModelResponse
from airflow_provider_aixplain.submission import IdempotencyRecord, XComIdempotencyStore
from airflow_provider_aixplain.triggers import aixplain
from airflow_provider_aixplain.triggers.aixplain import AixplainModelStartTrigger

# A trigger that stops during its submission keeps its slot, and more of them stop than there are slots by default.
aixplain.MAX_CONCURRENT_SUBMISSIONS = 16
aixplain._threads = ThreadPoolExecutor(aixplain.MAX_CONCURRENT_SUBMISSIONS)

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
    """Return the file that a trigger creates when it stops at a step."""
    return Path(os.environ["PARKING"]) / step.replace(" ", "_")


async def park(step: str, name: str | None) -> None:
    if name == step and not parking(step).exists():
        parking(step).touch()
        await asyncio.sleep(600)


class ParkedRecord(XComIdempotencyStore):
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
            await XCom.aset("data", "half", **self._place)
        await park("amid the XComs", self.name)
        await super().push(response, fields)
        await park("after the XComs", self.name)


class ParkedTrigger(AixplainModelStartTrigger):
    @property
    def record(self) -> ParkedRecord:
        record = ParkedRecord(self.task_instance)
        record.name = self.name
        return record

    async def _record_outcome(self, mine: IdempotencyRecord, response: ModelResponse) -> None:
        await park("answered", self.name)
        await super()._record_outcome(mine, response)
        await park("recorded", self.name)


class ParkedOperator(AixplainRunModelOperator):
    def start_arguments(self) -> Any:
        return replace(
            super().start_arguments(), trigger_cls=f"{ParkedTrigger.__module__}.{ParkedTrigger.__qualname__}"
        )
