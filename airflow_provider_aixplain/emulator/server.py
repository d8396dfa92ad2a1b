"""The emulator's server: runs, streams, the catalogue, fine-tuning, files, and a journal of the runs for tests."""

from __future__ import annotations

import asyncio
import html
import ipaddress
import json
import math
import re
import secrets
import tempfile
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from airflow_provider_aixplain.emulator.faults import Faults
from airflow_provider_aixplain.emulator.models import CREDITS_PER_CHARACTER, MODELS, EmulatedModel, Output

MAX_BODY = 64 * 1024 * 1024
AT_ONCE = 1.0
"""Seconds that a run may take to be answered with its result, where the client asks for that."""

EPOCHS = 3

KEEP = 10_000
"""Runs that are kept: if there are more, the finished ones that were submitted first are deleted."""

KEPT_BYTES = 256 * 1024 * 1024
"""Bytes that are kept of runs' payloads, and as many of uploaded files: if there are more, the first are deleted."""

KEPT_FILES = 1_000
KEPT_POLLS = 10_000
"""Times of polls that are kept of one run."""

JOURNAL: web.AppKey[Callable[[], list[dict[str, Any]]]] = web.AppKey("journal")
"""Of the application: returns what was submitted and polled."""


@dataclass
class Run:
    """One run on the emulator. Times are seconds since the epoch."""

    id: str
    model_id: str
    payload: dict[str, Any]
    seconds: float
    submitted_at: float
    output: asyncio.Future[Output]
    size: int = 0
    polled_at: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT_POLLS))
    polled_by: set[str] = field(default_factory=set)

    @property
    def over_at(self) -> float:
        """When the run's time has passed."""
        return self.submitted_at + self.seconds

    @property
    def is_over(self) -> bool:
        """Whether a poll would return the result."""
        return time.time() >= self.over_at and self.output.done()

    async def over(self) -> None:
        """Return when the run is over."""
        await asyncio.sleep(max(0.0, self.over_at - time.time()))
        await asyncio.wait([self.output])

    def answer(self) -> dict[str, Any]:
        """What the platform says of this run now."""
        if not self.is_over:
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
            "over_at": self.over_at,
            "polled_at": list(self.polled_at),
            "polled_by": sorted(self.polled_by),
        }


class Emulator:
    """The platform's side of the wire.

    :param seconds: how long a run, or an epoch of a training, takes unless a run's payload says otherwise with
        ``delay``.
    :param store: the folder for uploaded files, and for the runs: an emulator that is started there again knows them.
    :param faults: what goes wrong with polls.
    :param key: the only API key that it takes; default: any.
    :param host: the address or name that it listens on.
    :param keep: how many runs to keep.
    """

    def __init__(
        self,
        seconds: float,
        store: Path,
        faults: Faults,
        key: str | None = None,
        host: str = "127.0.0.1",
        keep: int = KEEP,
    ) -> None:
        self.seconds = seconds
        self.host = host
        self.keep = keep
        self.bytes = 0
        self.key = key
        self.store = store
        self.faults = faults
        self.started_at = time.time()
        self.runs: dict[str, Run] = {}
        self.models = dict(MODELS)
        self.files: dict[str, Path] = {}

    @web.middleware
    async def require_host(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """Refuse a request for another host: a page in a browser that had its own name resolve to this machine."""
        if not is_own_host(request.headers.get("Host", ""), self.host):
            raise error(
                web.HTTPMisdirectedRequest,
                "the Host header names neither this machine (localhost, 127.0.0.1) nor the emulator's --host",
            )
        response: web.StreamResponse = await handler(request)
        return response

    @web.middleware
    async def require_key(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """Refuse who has no key, or not the right one."""
        key = _key(request)
        if not request.path.startswith(OPEN_TO_ALL) and (not key or (self.key and key != self.key)):
            raise error(web.HTTPUnauthorized, "no valid API key in the request")
        response: web.StreamResponse = await handler(request)
        return response

    async def submit(self, request: web.Request) -> web.StreamResponse:
        """Start a run and name its poll URL."""
        run = await self.start(request)
        await asyncio.sleep(self.faults.submission_seconds)
        return self.accepted(request, run)

    async def run_directly(self, request: web.Request) -> web.StreamResponse:
        """Start a run, and answer with its result if it is short, as a stream if that is asked for."""
        run = await self.start(request)
        options = run.payload.get("options")
        if isinstance(options, dict) and options.get("stream") is True:
            return await self.stream(request, run)
        if run.seconds > AT_ONCE:
            return self.accepted(request, run)
        await run.over()
        return web.json_response(run.answer())

    async def stream(self, request: web.Request, run: Run) -> web.StreamResponse:
        """Answer with the words of the output as server-sent events; with the whole, if the model does not stream."""
        if not self.models[run.model_id].supports_streaming:
            await run.over()
            return web.json_response(run.answer())
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)

        async def send(data: str) -> None:
            await response.write(f"data: {data}\n\n".encode())

        await asyncio.wait([run.output])
        if raised := run.output.exception():
            await run.over()
            await send(json.dumps({"error": str(raised)}))
            return response
        data = run.output.result().data
        words = re.findall(r"\s*\S+\s*", data if isinstance(data, str) else json.dumps(data))
        for word in words:
            await asyncio.sleep(run.seconds / len(words))
            await send(json.dumps({"data": word}))
        await run.over()
        await send(json.dumps({**run.answer(), "data": ""}))
        await send("[DONE]")
        return response

    async def poll(self, request: web.Request) -> web.StreamResponse:
        """Tell how a run is doing."""
        run = self.runs.get(request.match_info["run_id"])
        if run is None:
            raise error(web.HTTPNotFound, "no such run")
        run.polled_at.append(time.time())
        run.polled_by.add(request.headers.get("User-Agent", ""))
        if (fault := await self.faults.answer(request)) is not None:
            return fault
        if time.time() >= run.over_at:
            await asyncio.wait([run.output])
        return web.json_response(run.answer())

    async def page(self, request: web.Request) -> web.StreamResponse:
        """Tell people of a model, as its page on the platform does."""
        model_id = request.match_info["model_id"]
        record = self.model(model_id).record(model_id)
        told = "".join(f"<p>{html.escape(str(record[name]))}</p>" for name in ("description", "id"))
        name = html.escape(record["name"])
        return web.Response(text=f"<!doctype html><title>{name}</title><h1>{name}</h1>{told}", content_type="text/html")

    async def record(self, request: web.Request) -> web.StreamResponse:
        """Tell of a model by its id."""
        model_id = request.match_info["model_id"]
        return web.json_response(self.model(model_id).record(model_id))

    async def record_by_name(self, request: web.Request) -> web.StreamResponse:
        """Tell of a model by its name."""
        name = request.match_info["name"]
        for model_id, model in self.models.items():
            if model.name == name:
                return web.json_response(model.record(model_id))
        names = ", ".join(model.name for model in self.models.values())
        raise error(web.HTTPNotFound, f"no model is called {name}; there are {names}")

    async def delete(self, request: web.Request) -> web.StreamResponse:
        """Delete a model of the account's own."""
        model_id = request.match_info["model_id"]
        if not self.model(model_id).is_own:
            raise error(web.HTTPForbidden, f"model {model_id} is not yours")
        del self.models[model_id]
        return web.json_response({})

    async def finetune_logs(self, request: web.Request) -> web.StreamResponse:
        """Tell how far the training of a model is. It began with the emulator."""
        model_id = request.match_info["model_id"]
        if not self.model(model_id).is_own:
            raise error(web.HTTPNotFound, f"model {model_id} is not fine-tuned")
        elapsed = time.time() - self.started_at
        epochs = EPOCHS if elapsed >= EPOCHS * self.seconds else int(elapsed // self.seconds)
        logs = [{"epoch": n, "trainLoss": 1 / n, "evalLoss": 1.5 / n} for n in range(1, epochs + 1)]
        states = ("completed", "onboarded") if epochs == EPOCHS else ("training", "training")
        return web.json_response({"finetuneStatus": states[0], "modelStatus": states[1], "logs": logs})

    async def offer_place(self, request: web.Request) -> web.StreamResponse:
        """Name a place for a file."""
        form = await request.post()
        token = secrets.token_urlsafe(24)
        key = f"{token}/{Path(str(form.get('originalName'))).name}"
        self.files[key] = self.store / token
        url = request.url.origin() / "emulator/store" / key
        return web.json_response({"key": key, "uploadUrl": str(url), "downloadUrl": str(url)})

    async def receive_file(self, request: web.Request) -> web.StreamResponse:
        """Keep a file."""
        place = self.files.get(request.match_info["key"])
        if place is None:
            raise error(web.HTTPForbidden, "no such place")
        with place.open("wb") as file:
            async for piece in request.content.iter_chunked(64 * 1024):
                file.write(piece)
        self.delete_old_files()
        return web.Response()

    def journal(self) -> list[dict[str, Any]]:
        """Return what was submitted and polled."""
        return [run.journal() for run in list(self.runs.values())]

    async def tell_journal(self, request: web.Request) -> web.StreamResponse:
        """Tell tests what was submitted and polled."""
        return web.json_response(self.journal())

    async def set_faults(self, request: web.Request) -> web.StreamResponse:
        """Let things go wrong from now on, told as the arguments of :class:`Faults`."""
        try:
            self.faults = Faults(**json.loads(await request.text()))
        except (ValueError, TypeError, KeyError) as problem:
            raise error(web.HTTPBadRequest, f"these are no faults: {problem}") from None
        return await self.tell_faults(request)

    async def tell_faults(self, request: web.Request) -> web.StreamResponse:
        """Tell how many polls went wrong, and how."""
        return web.json_response({"rate": self.faults.rate, "made": self.faults.made})

    async def start(self, request: web.Request) -> Run:
        """Start the run that a request asks for."""
        model_id = request.match_info["model_id"]
        self.model(model_id)
        try:
            payload = json.loads(await request.text())
        except (ValueError, LookupError, RecursionError):
            raise error(web.HTTPBadRequest, "the body is not JSON") from None
        if not isinstance(payload, dict):
            raise error(web.HTTPBadRequest, "the body is no JSON object")
        told = {"id": secrets.token_urlsafe(24), "model_id": model_id, "payload": payload}
        return self.remember({**told, "seconds": self.duration(payload), "submitted_at": time.time()})

    def remember(self, told: dict[str, Any], *, write: bool = True) -> Run:
        """Return a run that goes on, also when the emulator is killed and started again."""
        model, payload = self.model(told["model_id"]), told["payload"]
        output = asyncio.ensure_future(asyncio.to_thread(lambda: model.run(self.with_files(payload))))
        text = json.dumps(told)
        run = self.runs[told["id"]] = Run(**told, output=output, size=len(text))
        self.bytes += run.size
        if write:
            self._file_of(run).write_text(text)
        self.delete_old_runs()
        return run

    def _file_of(self, run: Run) -> Path:
        return self.store / f"{run.id}.run"

    def delete_old_runs(self) -> None:
        """Delete the finished runs that were submitted first, until there are no more than are kept."""
        for run in list(self.runs.values()):
            if len(self.runs) <= self.keep and self.bytes <= KEPT_BYTES:
                return
            if run.is_over:
                del self.runs[run.id]
                self.bytes -= run.size
                self._file_of(run).unlink(missing_ok=True)

    def delete_old_files(self) -> None:
        """Delete the files that were uploaded first, until there are no more than are kept."""
        sizes = {key: place.stat().st_size for key, place in self.files.items() if place.exists()}
        total = sum(sizes.values())
        for key, size in sizes.items():
            if len(self.files) <= KEPT_FILES and total <= KEPT_BYTES:
                return
            total -= size
            self.files.pop(key).unlink()

    async def restore(self, _: web.Application) -> None:
        """Find the runs that an earlier emulator in this folder has accepted."""
        found = [json.loads(path.read_text()) for path in self.store.glob("*.run")]
        for record in sorted(found, key=lambda record: record["submitted_at"]):
            self.remember(record, write=False)

    def accepted(self, request: web.Request, run: Run) -> web.StreamResponse:
        """Answer with a poll URL."""
        url = request.url.origin() / "api/v1/data" / run.id
        return web.json_response({"status": "IN_PROGRESS", "data": self.faults.poll_url(str(url))}, status=201)

    def model(self, model_id: str) -> EmulatedModel:
        """Return a model of the catalogue."""
        if model_id not in self.models:
            raise error(web.HTTPNotFound, f"no model {model_id}; there are {', '.join(self.models)}")
        return self.models[model_id]

    def duration(self, payload: dict[str, Any]) -> float:
        """Return how long a run takes, in seconds: its ``delay``, else the emulator's time."""
        try:
            seconds = float(payload.get("delay", self.seconds))
        except (TypeError, ValueError, OverflowError):
            seconds = math.nan
        if not 0 <= seconds < math.inf:
            raise error(web.HTTPBadRequest, "delay is not a number of seconds")
        return seconds

    def with_files(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Return a payload with the text of each file that it names by a link."""

        def content(value: Any) -> Any:
            is_link = isinstance(value, str) and value.startswith("s3://")
            place = self.files.get(value.removeprefix("s3://").partition("/")[2]) if is_link else None
            return place.read_text(errors="replace") if place and place.is_file() else value

        return {key: content(value) for key, value in payload.items()}


def is_own_host(header: str, listens_on: str) -> bool:
    """Return whether a ``Host`` header names a server on this machine.

    A page in a browser can send requests to this machine under a name of its own (DNS rebinding), but not under these:
    ``localhost``, a loopback address, and what the server listens on. One that listens on all addresses accepts each.

    :param header: the header's value, with or without a port.
    :param listens_on: the server's address or name.
    """
    try:
        host = urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return False
    if host in ("localhost", listens_on.lower()):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or listens_on in ("", "0.0.0.0", "::") or str(address) == listens_on  # noqa: S104


def create_app(
    seconds: float = 5.0,
    fault_rate: float = 0.0,
    folder: Path | None = None,
    key: str | None = None,
    host: str = "127.0.0.1",
    keep: int = KEEP,
) -> web.Application:
    """Return the emulator as an aiohttp application.

    :param seconds: how long a run takes unless its payload says otherwise with ``delay``.
    :param fault_rate: the share of the polls that go wrong, from 0 to 1.
    :param folder: where it keeps files and runs; default: in a temporary one, which goes when it ends.
    :param key: the only API key that it takes; default: any.
    :param host: the address or name that it listens on; requests for other hosts than that and loopback are refused.
    :param keep: how many runs to keep.
    """
    temporary = tempfile.TemporaryDirectory(prefix="aixplain-emulator-")
    emulator = Emulator(seconds, folder or Path(temporary.name), Faults(fault_rate), key, host, keep)
    app = web.Application(middlewares=[emulator.require_host, emulator.require_key], client_max_size=MAX_BODY)
    app.router.add_post("/api/v1/execute/{model_id:.+}", emulator.submit)
    app.router.add_post("/api/v2/execute/{model_id:.+}", emulator.run_directly)
    app.router.add_get("/api/v1/data/{run_id}", emulator.poll)
    app.router.add_get("/sdk/models/by-name/{name:.+}", emulator.record_by_name)
    app.router.add_get("/sdk/models/{model_id:.+}", emulator.record)
    app.router.add_delete("/sdk/models/{model_id:.+}", emulator.delete)
    app.router.add_get("/sdk/finetune/{model_id:.+}/ml-logs", emulator.finetune_logs)
    app.router.add_post("/sdk/file/upload/temp-url", emulator.offer_place)
    app.router.add_put("/emulator/store/{key:.+}", emulator.receive_file)
    app.router.add_get("/discover/model/{model_id:.+}", emulator.page)
    app.router.add_get("/emulator/runs", emulator.tell_journal)
    app.router.add_get("/emulator/faults", emulator.tell_faults)
    app.router.add_put("/emulator/faults", emulator.set_faults)

    async def clean_up(_: web.Application) -> None:
        temporary.cleanup()

    app[JOURNAL] = emulator.journal
    app.on_startup.append(emulator.restore)
    app.on_cleanup.append(clean_up)
    return app


def connection_to(url: str, key: str | None = None, **extra: Any) -> str:
    """Return an Airflow Connection to an emulator, as the JSON that an ``AIRFLOW_CONN_…`` variable takes.

    :param url: where it listens.
    :param key: the API key; default: any.
    :param extra: more of the Connection's extra.
    """
    fields = {"conn_type": "aixplain", "host": url, "password": key or "emulator", "extra": {"web_url": url, **extra}}
    return json.dumps(fields)


def error(kind: type[web.HTTPException], message: str) -> web.HTTPException:
    """Return an HTTP error with the body that the platform gives it."""
    return kind(text=json.dumps({"error": message}), content_type="application/json")


OPEN_TO_ALL = ("/emulator/", "/discover/")


def _key(request: web.Request) -> str | None:
    """Return the key that a request carries, if it carries one the way that its endpoint wants it."""
    if request.path.startswith(("/sdk/models", "/sdk/file")):
        found = re.fullmatch(r"token (\S+)", request.headers.get("Authorization", ""), re.IGNORECASE)
        return found[1] if found else None
    return request.headers.get("x-api-key") or request.headers.get("x-aixplain-key")
