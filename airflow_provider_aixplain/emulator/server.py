"""The emulator's server: runs, streams, catalogue, fine-tuning, files, and a journal of runs for tests."""

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
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from airflow_provider_aixplain.emulator.faults import Faults
from airflow_provider_aixplain.emulator.models import MODELS, EmulatedModel
from airflow_provider_aixplain.emulator.runs import Run

MAX_BODY = 64 * 1024 * 1024
MAX_DIRECT_SECONDS = 1.0
"""Longer runs are answered with a poll URL, even by the endpoint that returns results directly."""

EPOCHS = 3

KEEP = 10_000
"""Number of runs to keep: beyond it the oldest finished ones are deleted."""

KEPT_BYTES = 256 * 1024 * 1024
"""Bytes of payloads to keep, and of uploaded files: beyond it the oldest are deleted."""

KEPT_FILES = 1_000

JOURNAL: web.AppKey[Callable[[], list[dict[str, Any]]]] = web.AppKey("journal")
"""The application's function that returns all runs."""

NO_KEY_PATHS = ("/emulator/", "/discover/")
"""Paths that need no API key."""


class Emulator:
    """The handlers of all requests to the emulator.

    :param seconds: duration of a run whose payload has no ``delay``, and of an epoch of a training.
    :param store: folder for uploaded files and runs; an emulator that starts with this folder restores the runs.
    :param faults: faults of polls and submissions.
    :param key: the only API key that it accepts; default: any.
    :param host: address or name that it listens on.
    :param keep: number of runs to keep.
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
        """Refuse a request for another host, which may come from a web page: see :func:`is_own_host`."""
        if not is_own_host(request.headers.get("Host", ""), self.host):
            raise error(
                web.HTTPMisdirectedRequest,
                "the Host header names neither this machine (localhost, 127.0.0.1) nor the emulator's --host",
            )
        response: web.StreamResponse = await handler(request)
        return response

    @web.middleware
    async def require_key(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """Refuse a request without a valid key."""
        key = _key(request)
        if not request.path.startswith(NO_KEY_PATHS) and (not key or (self.key and key != self.key)):
            raise error(web.HTTPUnauthorized, "no valid API key in the request")
        response: web.StreamResponse = await handler(request)
        return response

    async def submit(self, request: web.Request) -> web.StreamResponse:
        """Start a run and return its poll URL."""
        run = await self.start(request)
        await asyncio.sleep(self.faults.submission_seconds)
        return self.accepted(request, run)

    async def run_directly(self, request: web.Request) -> web.StreamResponse:
        """Start a run, and return its result if it is short; as a stream if the payload asks for one."""
        run = await self.start(request)
        options = run.payload.get("options")
        if isinstance(options, dict) and options.get("stream") is True:
            return await self.stream(request, run)
        if run.seconds > MAX_DIRECT_SECONDS:
            return self.accepted(request, run)
        await run.wait()
        return web.json_response(run.response())

    async def stream(self, request: web.Request, run: Run) -> web.StreamResponse:
        """Return the words of the output as server-sent events, or the whole output if the model cannot stream."""
        if not self.models[run.model_id].supports_streaming:
            await run.wait()
            return web.json_response(run.response())
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)

        async def send(data: str) -> None:
            await response.write(f"data: {data}\n\n".encode())

        await asyncio.wait([run.output])
        if failure := run.output.exception():
            await run.wait()
            await send(json.dumps({"error": str(failure)}))
            return response
        data = run.output.result().data
        words = re.findall(r"\s*\S+\s*", data if isinstance(data, str) else json.dumps(data))
        for word in words:
            await asyncio.sleep(run.seconds / len(words))
            await send(json.dumps({"data": word}))
        await run.wait()
        await send(json.dumps({**run.response(), "data": ""}))
        await send("[DONE]")
        return response

    async def poll(self, request: web.Request) -> web.StreamResponse:
        """Return the state of a run."""
        run = self.runs.get(request.match_info["run_id"])
        if run is None:
            raise error(web.HTTPNotFound, "no such run")
        run.polled_at.append(time.time())
        run.polled_by.add(request.headers.get("User-Agent", ""))
        if (fault := await self.faults.respond(request)) is not None:
            return fault
        if time.time() >= run.finishes_at:
            await asyncio.wait([run.output])
        return web.json_response(run.response())

    async def page(self, request: web.Request) -> web.StreamResponse:
        """Return a page about a model, as the platform's web site has."""
        model_id = request.match_info["model_id"]
        record = self.model(model_id).record(model_id)
        name, description = html.escape(record["name"]), html.escape(record["description"])
        page = f"<!doctype html><title>{name}</title><h1>{name}</h1><p>{description}</p><p>{html.escape(model_id)}</p>"
        return web.Response(text=page, content_type="text/html")

    async def record(self, request: web.Request) -> web.StreamResponse:
        """Return a model's record."""
        model_id = request.match_info["model_id"]
        return web.json_response(self.model(model_id).record(model_id))

    async def record_by_name(self, request: web.Request) -> web.StreamResponse:
        """Return the record of the model with a name."""
        name = request.match_info["name"]
        for model_id, model in self.models.items():
            if model.name == name:
                return web.json_response(model.record(model_id))
        names = ", ".join(model.name for model in self.models.values())
        raise error(web.HTTPNotFound, f"no model is called {name}; there are {names}")

    async def delete(self, request: web.Request) -> web.StreamResponse:
        """Delete a model that the account owns."""
        model_id = request.match_info["model_id"]
        if not self.model(model_id).is_own:
            raise error(web.HTTPForbidden, f"model {model_id} is not yours")
        del self.models[model_id]
        return web.json_response({})

    async def finetune_logs(self, request: web.Request) -> web.StreamResponse:
        """Return the progress of a model's training, which starts together with the emulator."""
        model_id = request.match_info["model_id"]
        if not self.model(model_id).is_own:
            raise error(web.HTTPNotFound, f"model {model_id} is not fine-tuned")
        elapsed = time.time() - self.started_at
        epochs = EPOCHS if elapsed >= EPOCHS * self.seconds else int(elapsed // self.seconds)
        logs = [{"epoch": n, "trainLoss": 1 / n, "evalLoss": 1.5 / n} for n in range(1, epochs + 1)]
        states = ("completed", "onboarded") if epochs == EPOCHS else ("training", "training")
        return web.json_response({"finetuneStatus": states[0], "modelStatus": states[1], "logs": logs})

    async def create_upload(self, request: web.Request) -> web.StreamResponse:
        """Return the URL to which a file may be uploaded."""
        form = await request.post()
        token = secrets.token_urlsafe(24)
        key = f"{token}/{Path(str(form.get('originalName'))).name}"
        self.files[key] = self.store / token
        url = request.url.origin() / "emulator/store" / key
        return web.json_response({"key": key, "uploadUrl": str(url), "downloadUrl": str(url)})

    async def upload(self, request: web.Request) -> web.StreamResponse:
        """Store an uploaded file."""
        path = self.files.get(request.match_info["key"])
        if path is None:
            raise error(web.HTTPForbidden, "no such upload")
        with path.open("wb") as file:
            async for chunk in request.content.iter_chunked(64 * 1024):
                file.write(chunk)
        self.delete_old_files()
        return web.Response()

    def journal(self) -> list[dict[str, Any]]:
        """Return all runs, oldest first."""
        return [run.journal() for run in list(self.runs.values())]

    async def get_journal(self, request: web.Request) -> web.StreamResponse:
        """Return all runs, oldest first."""
        return web.json_response(self.journal())

    async def set_faults(self, request: web.Request) -> web.StreamResponse:
        """Replace the faults; the body has the arguments of :class:`Faults`."""
        try:
            self.faults = Faults(**json.loads(await request.text()))
        except (ValueError, TypeError) as cause:
            raise error(web.HTTPBadRequest, f"invalid faults: {cause}") from None
        return await self.get_faults(request)

    async def get_faults(self, request: web.Request) -> web.StreamResponse:
        """Return the rate of faults, and how many polls got each kind."""
        return web.json_response({"rate": self.faults.rate, "counts": self.faults.counts})

    async def start(self, request: web.Request) -> Run:
        """Start the run that a request submits."""
        model_id = request.match_info["model_id"]
        self.model(model_id)
        try:
            payload = json.loads(await request.text())
        except (ValueError, LookupError, RecursionError):
            raise error(web.HTTPBadRequest, "the body is not JSON") from None
        if not isinstance(payload, dict):
            raise error(web.HTTPBadRequest, "the body is not a JSON object")
        return self.add_run(
            id=secrets.token_urlsafe(24),
            model_id=model_id,
            payload=payload,
            seconds=self.duration(payload),
            submitted_at=time.time(),
        )

    def add_run(self, *, is_new: bool = True, **fields: Any) -> Run:
        """Start computing a run's output.

        :param is_new: whether to store the run, so that it survives a restart of the emulator.
        :param fields: those of :class:`Run` that are stored.
        """
        model, payload = self.model(fields["model_id"]), fields["payload"]
        output = asyncio.ensure_future(asyncio.to_thread(lambda: model.run(self.with_files(payload))))
        stored = json.dumps(fields)
        run = self.runs[fields["id"]] = Run(**fields, output=output, size=len(stored))
        self.bytes += run.size
        if is_new:
            self._path_of(run).write_text(stored)
        self.delete_old_runs()
        return run

    def _path_of(self, run: Run) -> Path:
        return self.store / f"{run.id}.run"

    def delete_old_runs(self) -> None:
        """Delete the oldest finished runs beyond the limits."""
        while len(self.runs) > self.keep or self.bytes > KEPT_BYTES:
            oldest = next((run for run in self.runs.values() if run.is_finished), None)
            if oldest is None:
                return
            del self.runs[oldest.id]
            self.bytes -= oldest.size
            self._path_of(oldest).unlink(missing_ok=True)

    def delete_old_files(self) -> None:
        """Delete the oldest uploaded files beyond the limits."""
        sizes = {key: path.stat().st_size for key, path in self.files.items() if path.exists()}
        total = sum(sizes.values())
        for key, size in sizes.items():
            if len(self.files) <= KEPT_FILES and total <= KEPT_BYTES:
                return
            total -= size
            self.files.pop(key).unlink()

    async def restore(self, _: web.Application) -> None:
        """Read the runs that an earlier emulator stored in this folder."""
        stored = [json.loads(path.read_text()) for path in self.store.glob("*.run")]
        for fields in sorted(stored, key=lambda fields: fields["submitted_at"]):
            self.add_run(is_new=False, **fields)

    def accepted(self, request: web.Request, run: Run) -> web.StreamResponse:
        """Return the response to an accepted submission: its poll URL."""
        url = request.url.origin() / "api/v1/data" / run.id
        return web.json_response({"status": "IN_PROGRESS", "data": self.faults.poll_url(str(url))}, status=201)

    def model(self, model_id: str) -> EmulatedModel:
        """Return a model of the catalogue."""
        if model_id not in self.models:
            raise error(web.HTTPNotFound, f"no model {model_id}; there are {', '.join(self.models)}")
        return self.models[model_id]

    def duration(self, payload: dict[str, Any]) -> float:
        """Return the seconds that a run takes: its ``delay``, or the emulator's default."""
        try:
            seconds = float(payload.get("delay", self.seconds))
        except (TypeError, ValueError, OverflowError):
            seconds = math.nan
        if not 0 <= seconds < math.inf:
            raise error(web.HTTPBadRequest, "delay is not a number of seconds")
        return seconds

    def with_files(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Return a payload in which links to uploaded files are replaced by their contents."""

        def content(value: Any) -> Any:
            is_link = isinstance(value, str) and value.startswith("s3://")
            path = self.files.get(value.removeprefix("s3://").partition("/")[2]) if is_link else None
            return path.read_text(errors="replace") if path and path.is_file() else value

        return {key: content(value) for key, value in payload.items()}


def is_own_host(header: str, listens_on: str) -> bool:
    """Return whether a ``Host`` header names this server: ``localhost``, a loopback address, or what it listens on.

    This stops DNS rebinding, by which a web page sends requests to this machine under a name of its own. A server that
    listens on all addresses accepts any address.

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

    :param seconds: duration of a run whose payload has no ``delay``.
    :param fault_rate: share of the polls that get a fault, from 0 to 1.
    :param folder: folder for files and runs; default: a temporary one, which is deleted at the end.
    :param key: the only API key that it accepts; default: any.
    :param host: address or name that it listens on; requests for hosts other than that and loopback are refused.
    :param keep: number of runs to keep.
    """
    resources = ExitStack()
    if folder is None:
        folder = Path(resources.enter_context(tempfile.TemporaryDirectory(prefix="aixplain-emulator-")))
    emulator = Emulator(seconds, folder, Faults(fault_rate), key, host, keep)
    app = web.Application(middlewares=[emulator.require_host, emulator.require_key], client_max_size=MAX_BODY)
    app.router.add_post("/api/v1/execute/{model_id:.+}", emulator.submit)
    app.router.add_post("/api/v2/execute/{model_id:.+}", emulator.run_directly)
    app.router.add_get("/api/v1/data/{run_id}", emulator.poll)
    app.router.add_get("/sdk/models/by-name/{name:.+}", emulator.record_by_name)
    app.router.add_get("/sdk/models/{model_id:.+}", emulator.record)
    app.router.add_delete("/sdk/models/{model_id:.+}", emulator.delete)
    app.router.add_get("/sdk/finetune/{model_id:.+}/ml-logs", emulator.finetune_logs)
    app.router.add_post("/sdk/file/upload/temp-url", emulator.create_upload)
    app.router.add_put("/emulator/store/{key:.+}", emulator.upload)
    app.router.add_get("/discover/model/{model_id:.+}", emulator.page)
    app.router.add_get("/emulator/runs", emulator.get_journal)
    app.router.add_get("/emulator/faults", emulator.get_faults)
    app.router.add_put("/emulator/faults", emulator.set_faults)

    async def clean_up(_: web.Application) -> None:
        resources.close()

    app[JOURNAL] = emulator.journal
    app.on_startup.append(emulator.restore)
    app.on_cleanup.append(clean_up)
    return app


def connection_to(url: str, key: str | None = None, **extra: Any) -> str:
    """Return an Airflow Connection to an emulator, as JSON for an ``AIRFLOW_CONN_…`` variable.

    :param url: its base URL.
    :param key: the API key; default: any.
    :param extra: further fields of the Connection's extra.
    """
    fields = {"conn_type": "aixplain", "host": url, "password": key or "emulator", "extra": {"web_url": url, **extra}}
    return json.dumps(fields)


def error(kind: type[web.HTTPException], message: str) -> web.HTTPException:
    """Return an HTTP error with a body like the platform's."""
    return kind(text=json.dumps({"error": message}), content_type="application/json")


def _key(request: web.Request) -> str | None:
    """Return the key of a request, if it is in the header that its endpoint reads."""
    if request.path.startswith(("/sdk/models", "/sdk/file")):
        token = re.fullmatch(r"token (\S+)", request.headers.get("Authorization", ""), re.IGNORECASE)
        return token[1] if token else None
    return request.headers.get("x-api-key") or request.headers.get("x-aixplain-key")
