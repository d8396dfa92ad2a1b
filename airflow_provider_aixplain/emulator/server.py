"""The emulator's server: submissions, polls, and a journal of both for tests."""

from __future__ import annotations

import asyncio
import json
import math
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from airflow_provider_aixplain.emulator.models import MODELS, Output

KEY_HEADERS = ("x-api-key", "x-aixplain-key")
CREDITS_PER_CHARACTER = 0.00002
MAX_BODY = 64 * 1024 * 1024


@dataclass
class Run:
    """One run on the emulator. Times are seconds since the epoch."""

    id: str
    model_id: str
    payload: dict[str, Any]
    seconds: float
    output: asyncio.Future[Output]
    submitted_at: float = field(default_factory=time.time)
    polled_at: list[float] = field(default_factory=list)
    polled_by: set[str] = field(default_factory=set)

    @property
    def is_due(self) -> bool:
        """Whether the run's time has passed."""
        return time.time() >= self.submitted_at + self.seconds

    def answer(self) -> dict[str, Any]:
        """What the platform says of this run now."""
        if not (self.is_due and self.output.done()):
            return {"completed": False, "status": "IN_PROGRESS"}
        size = len(json.dumps(self.payload))
        answer = {
            "completed": True,
            "usedCredits": round(size * CREDITS_PER_CHARACTER, 6),
            "runTime": self.seconds,
            "asset": {"assetId": self.model_id, "id": self.model_id},
            "requestId": self.id,
        }
        if raised := self.output.exception():
            return {**answer, "status": "FAILED", "error_message": str(raised), "error_code": "EMULATED_FAILURE"}
        output = self.output.result()
        read, written = -(-size // 4), -(-len(json.dumps(output.data)) // 4)
        return {
            **answer,
            "status": "SUCCESS",
            "data": output.data,
            "details": output.details,
            "usage": {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written},
        }

    def journal(self) -> dict[str, Any]:
        """What tests want to know of this run."""
        return {
            "id": self.id,
            "model_id": self.model_id,
            "payload": self.payload,
            "submitted_at": self.submitted_at,
            "over_at": self.submitted_at + self.seconds,
            "polled_at": self.polled_at,
            "polled_by": sorted(self.polled_by),
        }


class Emulator:
    """The platform's side of the wire.

    :param seconds: how long a run takes unless its payload says otherwise with ``delay``.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.runs: dict[str, Run] = {}

    async def submit(self, request: web.Request) -> web.Response:
        """Start a run and name its poll URL."""
        model_id = request.match_info["model_id"]
        model = MODELS.get(model_id)
        if model is None:
            raise error(web.HTTPNotFound, f"no model {model_id}; there are {', '.join(MODELS)}")
        try:
            payload = json.loads(await request.text())
        except (ValueError, LookupError, RecursionError):
            raise error(web.HTTPBadRequest, "the body is not JSON") from None
        if not isinstance(payload, dict):
            raise error(web.HTTPBadRequest, "the body is no JSON object")
        run = Run(
            id=secrets.token_urlsafe(24),
            model_id=model_id,
            payload=payload,
            seconds=self.duration(payload),
            output=asyncio.ensure_future(asyncio.to_thread(model, payload)),
        )
        self.runs[run.id] = run
        url = request.url.origin() / "api/v1/data" / run.id
        return web.json_response({"status": "IN_PROGRESS", "data": str(url)}, status=201)

    async def poll(self, request: web.Request) -> web.Response:
        """Tell how a run is doing."""
        run = self.runs.get(request.match_info["run_id"])
        if run is None:
            raise error(web.HTTPNotFound, "no such run")
        run.polled_at.append(time.time())
        run.polled_by.add(request.headers.get("User-Agent", ""))
        if run.is_due:
            await asyncio.wait([run.output])
        return web.json_response(run.answer())

    async def journal(self, request: web.Request) -> web.Response:
        """Tell tests what was submitted and polled."""
        return web.json_response([run.journal() for run in self.runs.values()])

    def duration(self, payload: dict[str, Any]) -> float:
        """Return how long a run takes, in seconds: its ``delay``, else the emulator's time."""
        try:
            seconds = float(payload.get("delay", self.seconds))
        except (TypeError, ValueError, OverflowError):
            seconds = math.nan
        if not 0 <= seconds < math.inf:
            raise error(web.HTTPBadRequest, "delay is not a number of seconds")
        return seconds


def create_app(seconds: float = 5.0) -> web.Application:
    """Return the emulator as an aiohttp application.

    :param seconds: how long a run takes unless its payload says otherwise with ``delay``.
    """
    emulator = Emulator(seconds)
    app = web.Application(middlewares=[_require_key], client_max_size=MAX_BODY)
    app.router.add_post("/api/v1/execute/{model_id:.+}", emulator.submit)
    app.router.add_get("/api/v1/data/{run_id}", emulator.poll)
    app.router.add_get("/emulator/runs", emulator.journal)
    return app


def error(kind: type[web.HTTPException], message: str) -> web.HTTPException:
    """Return an HTTP error with the body that the platform gives it."""
    return kind(text=json.dumps({"error": message}), content_type="application/json")


@web.middleware
async def _require_key(request: web.Request, handler: Any) -> web.StreamResponse:
    public = request.path.startswith("/emulator/")
    if not public and not any(request.headers.get(name) for name in KEY_HEADERS):
        raise error(web.HTTPUnauthorized, "no API key in the request")
    response: web.StreamResponse = await handler(request)
    return response
