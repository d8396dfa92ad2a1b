"""Faults that the emulator injects on demand: a share of the polls gets one instead of a response."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Sequence
from contextlib import suppress
from itertools import cycle
from typing import Any

from aiohttp import web

HANG = 30.0
"""Duration of the faults ``hang`` and ``slow``, in seconds."""

FOREIGN_URL = "http://foreign.invalid/take"
STATUSES = (401, 403, 404, 429, 500, 502, 503, 504)
GARBAGE = (b"", b"<html><h1>Bad Gateway</h1></html>", b'{"completed": tr', b"null", b"[]", b"\xff\xfe\x00", b'{"x": 1}')
KINDS = ("status", "reset", "hang", "slow", "garbage", "redirect", "foreign")


class Faults:
    """What goes wrong, and how often.

    :param rate: the share of the polls that get a fault, from 0 to 1.
    :param kinds: names in :data:`KINDS`, equally likely; default: all.
    :param foreign_poll_urls: the share of the submissions whose poll URL has a foreign host, from 0 to 1.
    :param submission_seconds: the delay before an accepted submission is answered.
    :raises ValueError: for an unknown kind, or a number that is not in its range.
    """

    def __init__(
        self,
        rate: float = 0.0,
        kinds: Sequence[str] = KINDS,
        foreign_poll_urls: float = 0.0,
        submission_seconds: float = 0.0,
    ) -> None:
        if unknown := set(kinds) - set(KINDS):
            raise ValueError(f"unknown kinds {sorted(unknown)}")
        self.rate = float(rate)
        self.kinds = tuple(kinds)
        self.foreign_poll_urls = float(foreign_poll_urls)
        self.submission_seconds = float(submission_seconds)
        if not (0 <= self.rate <= 1 and 0 <= self.foreign_poll_urls <= 1 and 0 <= self.submission_seconds < math.inf):
            raise ValueError("rate and foreign_poll_urls are from 0 to 1, submission_seconds is not negative")
        self.counts = dict.fromkeys(self.kinds, 0)
        self._statuses = cycle(STATUSES)
        self._garbage = cycle(GARBAGE)

    def state(self) -> dict[str, Any]:
        """Return the arguments, and how many polls got each kind of fault."""
        return {
            "rate": self.rate,
            "kinds": self.kinds,
            "foreign_poll_urls": self.foreign_poll_urls,
            "submission_seconds": self.submission_seconds,
            "counts": self.counts,
        }

    def poll_url(self, url: str) -> str:
        """Return the poll URL for a submission: the argument, or a URL on a foreign host."""
        return FOREIGN_URL if random.random() < self.foreign_poll_urls else url

    async def respond(self, request: web.Request) -> web.StreamResponse | None:
        """Return the faulty response to a poll, or None if this poll gets no fault."""
        if random.random() >= self.rate:
            return None
        kind = random.choice(self.kinds)
        self.counts[kind] += 1
        match kind:
            case "status":
                status = next(self._statuses)
                headers = {"Retry-After": "2"} if status in (429, 503) else {}
                return web.json_response({"error": "a fault on demand"}, status=status, headers=headers)
            case "garbage":
                return web.Response(body=next(self._garbage))
            case "redirect":  # to itself
                return web.Response(status=302, headers={"Location": str(request.url)})
            case "foreign":
                return web.Response(status=302, headers={"Location": FOREIGN_URL})
            case "slow":
                return await _respond_slowly(request)
            case "hang":
                await asyncio.sleep(HANG)
        if request.transport is not None:  # "reset"; and "hang", when its time has passed
            request.transport.abort()
        return web.Response()


async def _respond_slowly(request: web.Request) -> web.StreamResponse:
    """Respond byte by byte."""
    body = b'{"completed": false}'
    response = web.StreamResponse(headers={"Content-Length": str(len(body))})
    await response.prepare(request)
    with suppress(ConnectionResetError):  # the client closed the connection
        for index in range(len(body)):
            await asyncio.sleep(HANG / len(body))
            await response.write(body[index : index + 1])
    return response
