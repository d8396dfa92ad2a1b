"""The emulator's server: runs, streams, agents, catalogue, fine-tuning, files, and a journal of runs for tests."""

from __future__ import annotations

import asyncio
import html
import inspect
import ipaddress
import json
import math
import re
import secrets
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Coroutine
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from airflow_provider_aixplain.emulator.agents import AGENTS, AgentRun, EmulatedAgent, Outcome, check, query_of, work
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
"""Paths that need no API key, in addition to the page at ``/``."""

PAGE = Path(__file__).with_name("page.html")
SHOWN_RUNS = 50
"""Number of runs that the page shows."""

POLICY = (
    "default-src 'none'; script-src 'nonce-{0}'; style-src 'nonce-{0}'; connect-src 'self'; img-src data:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The content security policy of the page."""


class Emulator:
    """The handlers of all requests to the emulator.

    :param seconds: duration of a run whose payload has no ``delay``, and of an epoch of a training.
    :param store: folder for uploaded files and runs; an emulator that starts with this folder restores the runs.
    :param faults: faults of polls and submissions.
    :param key: the only API key that it accepts; default: any.
    :param host: address or name that it listens on.
    :param keep: number of runs to keep.
    :param allowed_hosts: further names that requests may use for it.
    """

    def __init__(
        self,
        seconds: float,
        store: Path,
        faults: Faults,
        key: str | None = None,
        host: str = "127.0.0.1",
        keep: int = KEEP,
        allowed_hosts: Collection[str] = (),
    ) -> None:
        self.seconds = seconds
        self.hosts = (host, *allowed_hosts)
        self.deleted_credits = 0.0
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
        if not is_own_host(request.headers.get("Host", ""), *self.hosts):
            raise error(
                web.HTTPMisdirectedRequest,
                "the Host header names neither this machine (localhost, 127.0.0.1) nor the emulator's --host or an"
                " --allowed-host",
            )
        response: web.StreamResponse = await handler(request)
        return response

    @web.middleware
    async def require_key(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """Refuse a request without a valid key."""
        key = _key(request)
        needs_key = request.path != "/" and not request.path.startswith(NO_KEY_PATHS)
        if needs_key and (not key or (self.key and key != self.key)):
            raise error(web.HTTPUnauthorized, "no valid API key in the request")
        response: web.StreamResponse = await handler(request)
        return response

    async def submit(self, request: web.Request) -> web.StreamResponse:
        """Start a run and return its poll URL."""
        run = await self.start(request)
        await asyncio.sleep(self.faults.submission_seconds)
        return self.accepted(request, run)

    async def submit_to_agent(self, request: web.Request) -> web.StreamResponse:
        """Start a run of an agent and return its poll URL."""
        agent_id = request.match_info["agent_id"]
        self.agent(agent_id)
        payload = await read_object(request)
        try:
            check(payload)
        except ValueError as cause:
            raise error(web.HTTPBadRequest, str(cause)) from None
        for attachment in payload.get("attachments") or []:
            link = attachment.get("url") if isinstance(attachment, dict) else attachment
            if self.file_of(link) is None:
                raise error(web.HTTPBadRequest, f"attachments: no uploaded file {link}")
        session_id = payload.get("sessionId")
        # The legacy package creates the ids of its sessions itself.
        is_legacy_session = request.path.startswith("/sdk/") and str(session_id).startswith(f"{agent_id}_")
        if session_id and not self.conversation(agent_id, session_id) and not is_legacy_session:
            raise error(web.HTTPBadRequest, f"sessionId: agent {agent_id} has no session {session_id}")
        run = self.add_run(
            id=secrets.token_urlsafe(24),
            agent_id=agent_id,
            session_id=session_id or f"{agent_id}_{secrets.token_urlsafe(16)}",
            origin=str(request.url.origin()),
            payload=payload,
            seconds=self.duration(query_of(payload)),
            submitted_at=time.time(),
        )
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
        if not self.model(run.model_id).supports_streaming:
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
        """Return a page about a model or agent, as the platform's web site has."""
        record = self.record_of(request)
        name, description, asset_id = (html.escape(record[key]) for key in ("name", "description", "id"))
        page = f"<!doctype html><title>{name}</title><h1>{name}</h1><p>{description}</p><p>{asset_id}</p>"
        return web.Response(text=page, content_type="text/html")

    async def record(self, request: web.Request) -> web.StreamResponse:
        """Return the record of a model or agent."""
        return web.json_response(self.record_of(request))

    def record_of(self, request: web.Request) -> dict[str, Any]:
        """Return the record of the model or agent that a URL names."""
        if agent_id := request.match_info.get("agent_id"):
            return self.agent(agent_id).record(agent_id)
        model_id = request.match_info["model_id"]
        return self.model(model_id).record(model_id)

    async def artifact(self, request: web.Request) -> web.StreamResponse:
        """Return the artifact of a run of an agent, until its link expires."""
        run = self.runs.get(request.query.get("signature", ""))
        if not isinstance(run, AgentRun) or not run.is_finished or time.time() >= run.link_expires_at:
            raise error(web.HTTPForbidden, "the link is not valid, or has expired")
        return web.Response(text=run.artifact(), content_type="text/csv")

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
        self.files[token] = self.store / token
        url = request.url.origin() / "emulator/store" / key
        return web.json_response({"key": key, "uploadUrl": str(url), "downloadUrl": str(url)})

    async def upload(self, request: web.Request) -> web.StreamResponse:
        """Store an uploaded file."""
        path = self.files.get(request.match_info["token"])
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
            given = json.loads(await request.text())
            if unknown := set(given) - set(inspect.signature(Faults).parameters):
                raise ValueError(f"unknown fault {', '.join(sorted(unknown))}")
            self.faults = Faults(**given)
        except (ValueError, TypeError) as cause:
            raise error(web.HTTPBadRequest, f"invalid faults: {cause}") from None
        return await self.get_faults(request)

    async def get_faults(self, request: web.Request) -> web.StreamResponse:
        """Return the faults, and how many polls got each kind."""
        return web.json_response(self.faults.state())

    async def front_page(self, _: web.Request) -> web.StreamResponse:
        """Return the page of the emulator, which shows its state."""
        nonce = secrets.token_urlsafe(16)
        headers = {"Content-Security-Policy": POLICY.format(nonce), "Cache-Control": "no-store"}
        text = PAGE.read_text(encoding="utf-8").replace("NONCE", nonce)
        return web.Response(text=text, content_type="text/html", headers=headers)

    async def get_state(self, request: web.Request) -> web.StreamResponse:
        """Return what the page shows: the catalogue, the newest runs, all credits, the faults, how to connect."""
        models = {name: model.run.__doc__ for name, model in self.models.items()}
        runs = list(self.runs.values())
        ends = [run.end for run in runs]
        return web.json_response(
            {
                "now": time.time(),
                "connection": connection_to(str(request.url.origin()), "THE-VALUE-OF-KEY" if self.key else None),
                "key": "The key is the value of --key." if self.key else "Any key is accepted.",
                "models": _entries(models, EmulatedModel.price),
                "agents": _entries({name: agent.plan.__doc__ for name, agent in AGENTS.items()}, EmulatedAgent.price),
                "runs": [run.summary() for run in runs[: -SHOWN_RUNS - 1 : -1]],
                "total": len(runs),
                "statuses": Counter(end[0] if end else "IN_PROGRESS" for end in ends),
                "credits": round(self.deleted_credits + sum(end[1] for end in ends if end), 6),
                "faults": self.faults.state(),
            }
        )

    async def start(self, request: web.Request) -> Run:
        """Start the run that a request submits."""
        model_id = request.match_info["model_id"]
        self.model(model_id)
        payload = await read_object(request)
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
        :param fields: those of :class:`Run` or :class:`AgentRun` that are stored.
        """
        payload, stored = fields["payload"], json.dumps(fields)
        kind: type[Run] = Run
        job: Coroutine[Any, Any, Any]
        if agent_id := fields.get("agent_id"):
            kind = AgentRun
            earlier = self.conversation(agent_id, fields["session_id"]) if payload.get("sessionId") else []
            job = self.run_agent(agent_id, payload, fields["seconds"], [run.output for run in earlier])
        else:
            model = self.model(fields["model_id"])
            job = asyncio.to_thread(lambda: model.run(self.with_files(payload)))
        run = self.runs[fields["id"]] = kind(**fields, output=asyncio.ensure_future(job), size=len(stored))
        self.bytes += run.size
        if is_new:
            self._path_of(run).write_text(stored)
        self.delete_old_runs()
        return run

    async def run_agent(
        self, agent_id: str, payload: dict[str, Any], seconds: float, earlier: list[asyncio.Future[Outcome]]
    ) -> Outcome:
        """Run an agent once the earlier runs of its conversation have finished."""
        steps = [step for outcome in await asyncio.gather(*earlier) for step in outcome.steps]

        def read_and_work() -> Outcome:
            texts = [self.with_files(attachment)["url"] for attachment in payload.get("attachments") or []]
            return work(agent_id, payload, seconds, texts, steps)

        return await asyncio.to_thread(read_and_work)

    def conversation(self, agent_id: str, session_id: str) -> list[Run]:
        """Return the runs of a session of an agent."""
        return [run for run in self.runs.values() if (run.agent_id, run.session_id) == (agent_id, session_id)]

    def _path_of(self, run: Run) -> Path:
        return self.store / f"{run.id}.run"

    def delete_old_runs(self) -> None:
        """Delete the oldest finished runs beyond the limits."""
        while len(self.runs) > self.keep or self.bytes > KEPT_BYTES:
            oldest = next((run for run in self.runs.values() if run.is_finished), None)
            if oldest is None:
                return
            del self.runs[oldest.id]
            self.deleted_credits += oldest.end[1] if oldest.end else 0.0
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
        """Read the runs that an earlier emulator stored in this folder, and find the files that were uploaded to it."""
        uploads = [path for path in self.store.iterdir() if re.fullmatch(r"[\w-]{32}", path.name)]
        self.files = {path.name: path for path in sorted(uploads, key=lambda path: path.stat().st_mtime)}
        stored = []
        for path in self.store.glob("*.run"):
            with suppress(ValueError):  # a file that was not written to its end, so the run was not answered
                stored.append(json.loads(path.read_text()))
        for fields in sorted(stored, key=lambda fields: fields["submitted_at"]):
            self.add_run(is_new=False, **fields)

    def accepted(self, request: web.Request, run: Run) -> web.StreamResponse:
        """Return the response to an accepted submission: its poll URL."""
        path = f"sdk/agents/{run.id}/result" if run.agent_id else f"api/v1/data/{run.id}"
        ids = {"requestId": run.id, "sessionId": run.session_id} if run.agent_id else {}
        url = self.faults.poll_url(str(request.url.origin() / path))
        return web.json_response({"status": "IN_PROGRESS", "data": url, **ids}, status=201)

    def model(self, model_id: str) -> EmulatedModel:
        """Return a model of the catalogue."""
        model = self.models.get(model_id)
        if model is None:
            raise error(web.HTTPNotFound, f"no model {model_id}; there are {', '.join(self.models)}")
        return model

    def agent(self, agent_id: str) -> EmulatedAgent:
        """Return an agent of the catalogue."""
        if agent_id not in AGENTS:
            raise error(web.HTTPNotFound, f"no agent {agent_id}; there are {', '.join(AGENTS)}")
        return AGENTS[agent_id]

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
        paths = {key: self.file_of(value) for key, value in payload.items()}
        return {key: path.read_text(errors="replace") if (path := paths[key]) else payload[key] for key in payload}

    def file_of(self, link: Any) -> Path | None:
        """Return the uploaded file that a link names, or None."""
        links = r"(?:s3://[^/]+|https?://[^/]+/emulator/store)/([^/]+)/[^/]+"
        match = re.fullmatch(links, link) if isinstance(link, str) else None
        path = self.files.get(match[1]) if match else None
        return path if path and path.is_file() else None


def is_own_host(header: str, listens_on: str, *allowed: str) -> bool:
    """Return whether a ``Host`` header names this server: ``localhost``, a loopback address, or a name of its own.

    This stops DNS rebinding, by which a web page sends requests to this machine under a name of its own. A server that
    listens on all addresses accepts any address.

    :param header: the header's value, with or without a port.
    :param listens_on: the server's address or name.
    :param allowed: further names of the server.
    """
    try:
        url = urlsplit(f"//{header}")
        host, _ = url.hostname or "", url.port  # raises for an invalid port
    except ValueError:
        return False
    if url.netloc != header or "@" in header:
        return False
    if host in {"localhost", *(name.lower() for name in (listens_on, *allowed))}:
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
    allowed_hosts: Collection[str] = (),
) -> web.Application:
    """Return the emulator as an aiohttp application.

    :param seconds: duration of a run whose payload has no ``delay``.
    :param fault_rate: share of the polls that get a fault, from 0 to 1.
    :param folder: folder for files and runs; default: a temporary one, which is deleted at the end.
    :param key: the only API key that it accepts; default: any.
    :param host: address or name that it listens on; requests for hosts other than that and loopback are refused.
    :param keep: number of runs to keep.
    :param allowed_hosts: further names that requests may use for it.
    """
    resources = ExitStack()
    if folder is None:
        folder = Path(resources.enter_context(tempfile.TemporaryDirectory(prefix="aixplain-emulator-")))
    emulator = Emulator(seconds, folder, Faults(fault_rate), key, host, keep, allowed_hosts)
    app = web.Application(middlewares=[emulator.require_host, emulator.require_key], client_max_size=MAX_BODY)
    app.router.add_post("/api/v1/execute/{model_id:.+}", emulator.submit)
    app.router.add_post("/api/v2/execute/{model_id:.+}", emulator.run_directly)
    app.router.add_get("/api/v1/data/{run_id}", emulator.poll)
    for path in ("/v2/agents", "/sdk/agents", "/sdk/agent-communities"):
        app.router.add_post(f"{path}/{{agent_id}}/run", emulator.submit_to_agent)
    app.router.add_get("/sdk/agents/{run_id}/result", emulator.poll)
    app.router.add_get("/v2/agents/{agent_id}", emulator.record)
    app.router.add_get("/sdk/models/by-name/{name:.+}", emulator.record_by_name)
    app.router.add_get("/sdk/models/{model_id:.+}", emulator.record)
    app.router.add_delete("/sdk/models/{model_id:.+}", emulator.delete)
    app.router.add_get("/sdk/finetune/{model_id:.+}/ml-logs", emulator.finetune_logs)
    app.router.add_post("/sdk/file/upload/temp-url", emulator.create_upload)
    app.router.add_put("/emulator/store/{token}/{name:.*}", emulator.upload)
    app.router.add_get("/emulator/artifacts/{name}", emulator.artifact)
    app.router.add_get("/discover/model/{model_id:.+}", emulator.page)
    app.router.add_get("/discover/agent/{agent_id}", emulator.page)
    app.router.add_get("/", emulator.front_page)
    app.router.add_get("/emulator/state", emulator.get_state)
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
    # Airflow masks the password in all logs, so it must not be a word that they contain anyway.
    fields = {"conn_type": "aixplain", "host": url, "password": key or "any-key", "extra": {"web_url": url, **extra}}
    return json.dumps(fields)


async def read_object(request: web.Request) -> dict[str, Any]:
    """Return the JSON object in the body of a request."""
    try:
        payload = json.loads(await request.text())
    except (ValueError, LookupError, RecursionError):
        raise error(web.HTTPBadRequest, "the body is not JSON") from None
    if not isinstance(payload, dict):
        raise error(web.HTTPBadRequest, "the body is not a JSON object")
    return payload


def _entries(descriptions: dict[str, str | None], price: str) -> list[dict[str, str]]:
    """Return the rows of models or agents on the page, from the docstrings by id."""
    texts = {asset_id: str(text).replace("``", "") for asset_id, text in descriptions.items()}
    return [{"id": asset_id, "description": text, "price": price} for asset_id, text in texts.items()]


def error(kind: type[web.HTTPException], message: str) -> web.HTTPException:
    """Return an HTTP error with a body like the platform's."""
    return kind(text=json.dumps({"error": message}), content_type="application/json")


def _key(request: web.Request) -> str | None:
    """Return the key of a request, if it is in the header that its endpoint reads."""
    if request.path.startswith(("/sdk/models", "/sdk/file")):
        token = re.fullmatch(r"token (\S+)", request.headers.get("Authorization", ""), re.IGNORECASE)
        return token[1] if token else None
    return request.headers.get("x-api-key") or request.headers.get("x-aixplain-key")
