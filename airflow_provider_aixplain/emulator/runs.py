"""The runs on the emulator: when they finish, and what polls return."""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from airflow_provider_aixplain.emulator.models import credits_for

KEPT_POLLS = 10_000
"""Number of poll times to keep of one run."""

EXCERPT = 80
"""Characters of an input that the emulator's page shows."""


@dataclass
class Run:
    """One run on the emulator. Times are seconds since the epoch."""

    id: str
    payload: dict[str, Any]
    seconds: float
    submitted_at: float
    output: asyncio.Future[Any]
    model_id: str = ""
    agent_id: str = ""
    session_id: str = ""
    size: int = 0
    polled_at: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT_POLLS))
    polled_by: set[str] = field(default_factory=set)
    _end: tuple[str, float] | None = None

    @property
    def run_time(self) -> float:
        """The seconds that the run takes, unless its model takes longer."""
        return self.seconds

    @property
    def finishes_at(self) -> float:
        """When the run finishes, unless its model takes longer."""
        return self.submitted_at + self.run_time

    @property
    def is_finished(self) -> bool:
        """Whether a poll would return the result."""
        return time.time() >= self.finishes_at and self.output.done()

    @property
    def end(self) -> tuple[str, float] | None:
        """The status of the finished run and its credits, or None before. Answers can be large, so it is read once."""
        if self._end is None and self.is_finished:
            response = self.response()
            self._end = response["status"], response["usedCredits"]
        return self._end

    @cached_property
    def excerpt(self) -> str:
        """The beginning of the input."""
        data = self.payload.get("query", self.payload.get("data", self.payload.get("text", self.payload)))
        if isinstance(data, dict):
            data = data.get("input", data)
        return (data if isinstance(data, str) else json.dumps(data, ensure_ascii=False))[:EXCERPT]

    async def wait(self) -> None:
        """Wait until the run has finished."""
        await asyncio.sleep(max(0.0, self.finishes_at - time.time()))
        await asyncio.wait([self.output])

    def response(self) -> dict[str, Any]:
        """Return the response to a poll at this moment."""
        if not self.is_finished:
            return {"completed": False, "status": "IN_PROGRESS"}
        size = len(json.dumps(self.payload))
        response = {
            "completed": True,
            "usedCredits": credits_for(size),
            "runTime": self.run_time,
            "asset": {"assetId": self.model_id, "id": self.model_id},
            "requestId": self.id,
        }
        if error := self.output.exception():
            return {**response, "status": "FAILED", "error_message": str(error), "error_code": "EMULATED_FAILURE"}
        output = self.output.result()
        prompt, completion = -(-size // 4), -(-len(json.dumps(output.data)) // 4)
        return {
            **response,
            "status": "SUCCESS",
            "data": output.data,
            "details": output.details,
            "usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion},
        }

    def journal(self) -> dict[str, Any]:
        """Return the run's entry in the journal; ``used_credits`` is None until it has finished."""
        return {
            "id": self.id,
            "model_id": self.model_id or None,
            "agent_id": self.agent_id or None,
            "session_id": self.session_id or None,
            "payload": self.payload,
            "submitted_at": self.submitted_at,
            "finishes_at": self.finishes_at,
            "used_credits": self.end[1] if self.end else None,
            "polled_at": list(self.polled_at),
            "polled_by": sorted(self.polled_by),
        }

    def summary(self) -> dict[str, Any]:
        """Return the run's row on the emulator's page."""
        status, credits = self.end or ("IN_PROGRESS", None)
        return {
            "id": self.id,
            "model_id": self.model_id or None,
            "agent_id": self.agent_id or None,
            "input": self.excerpt,
            "status": status,
            "submitted_at": self.submitted_at,
            "finishes_at": self.finishes_at,
            "used_credits": credits,
            "polls": len(self.polled_at),
        }
