"""What goes wrong on the way to a platform, on demand: the emulator answers a share of the polls with it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from itertools import cycle

from aiohttp import web

HANG = 30.0
"""Seconds without an answer, or with one that drips."""

RETRY_AFTER = "2"
FOREIGN = "http://foreign.invalid/take"
STATUSES = (401, 403, 404, 429, 500, 502, 503, 504)
GARBAGE = (b"", b"<html><h1>Bad Gateway</h1></html>", b'{"completed": tr', b"null", b"[]", b"\xff\xfe\x00", b'{"x": 1}')

_statuses, _garbage = cycle(STATUSES), cycle(GARBAGE)


async def status(request: web.Request) -> web.StreamResponse:
    """Answer with an error, each in its turn; where that is usual, with a time to come back."""
    code = next(_statuses)
    headers = {"Retry-After": RETRY_AFTER} if code in (429, 503) else {}
    return web.json_response({"error": "a fault on demand"}, status=code, headers=headers)


async def reset(request: web.Request) -> web.StreamResponse:
    """Cut the connection."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


async def hang(request: web.Request) -> web.StreamResponse:
    """Do not answer, and cut the connection in the end."""
    await asyncio.sleep(HANG)
    return await reset(request)


async def slow(request: web.Request) -> web.StreamResponse:
    """Answer byte by byte."""
    body = b'{"completed": false}'
    response = web.StreamResponse(headers={"Content-Length": str(len(body))})
    await response.prepare(request)
    with suppress(ConnectionResetError):  # the client has had enough
        for index in range(len(body)):
            await asyncio.sleep(HANG / len(body))
            await response.write(body[index : index + 1])
    return response


async def garbage(request: web.Request) -> web.StreamResponse:
    """Answer with what says nothing of the run, each in its turn."""
    return web.Response(body=next(_garbage))


async def redirect(request: web.Request) -> web.StreamResponse:
    """Send the client round in a circle."""
    return web.Response(status=302, headers={"Location": str(request.url)})


async def foreign(request: web.Request) -> web.StreamResponse:
    """Send the client, and the key that it carries, to somebody else."""
    return web.Response(status=302, headers={"Location": FOREIGN})


Fault = Callable[[web.Request], Awaitable[web.StreamResponse]]
FAULTS: dict[str, Fault] = {fault.__name__: fault for fault in (status, reset, hang, slow, garbage, redirect, foreign)}


class Faults:
    """What goes wrong, and how often.

    :param rate: the share of the polls that go wrong, from 0 to 1.
    :param kinds: what they bring, names in :data:`FAULTS`, each as often as the others; default: everything.
    :param foreign_poll_urls: the share of the submissions whose poll URL is on somebody else's host, from 0 to 1.
    :param submission_seconds: how long a submission that was accepted goes unanswered.
    """

    def __init__(
        self,
        rate: float = 0.0,
        kinds: Sequence[str] = tuple(FAULTS),
        foreign_poll_urls: float = 0.0,
        submission_seconds: float = 0.0,
    ) -> None:
        self.rate = float(rate)
        self.submission_seconds = float(submission_seconds)
        self.kinds = {kind: FAULTS[kind] for kind in kinds}
        self.foreign_poll_urls = float(foreign_poll_urls)
        self.made = dict.fromkeys(self.kinds, 0)

    def poll_url(self, url: str) -> str:
        """Return the poll URL that a submission is answered with."""
        return FOREIGN if random.random() < self.foreign_poll_urls else url

    async def answer(self, request: web.Request) -> web.StreamResponse | None:
        """Return what a poll brings instead of an answer, if anything."""
        if random.random() >= self.rate:
            return None
        kind = random.choice(list(self.kinds))
        self.made[kind] += 1
        return await self.kinds[kind](request)
