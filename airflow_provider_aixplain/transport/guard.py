"""A guard for the connections of ``aiohttp``: one answer per request, in bounded memory.

``aiohttp`` (3.10 to 3.14 at least) keeps reading an idle connection and hands an unsolicited answer to the next
request, which belongs to another run. It also does not bound what is outside a body: headers, trailers and chunk
extensions.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from urllib3.util import wait_for_read

from airflow_provider_aixplain.exceptions import AixplainConfigurationError

MAX_OVERHEAD = 512 * 1024
"""Bytes of one answer outside its body that are read."""

FRAMING = 8
"""Bytes that may frame each byte of a body: a server may send it in chunks of one byte."""


class GuardedResponseHandler(ResponseHandler):
    """Closes its connection on bytes that belong to no request, and on answers with too much around their body."""

    _body: aiohttp.StreamReader | None = None
    _received = 0

    def is_connected(self) -> bool:
        """Whether the connection is open and, between two requests, no unread bytes and no end of it have arrived.

        ``urllib3`` checks the same before it uses a connection again.
        """
        if self.transport is None or not super().is_connected():
            return False
        return not (self._is_idle and wait_for_read(self.transport.get_extra_info("socket"), timeout=0.0))

    def set_response_params(self, **params: Any) -> None:
        """Begin the exchange of one request and its answer."""
        self._body, self._received = None, 0
        super().set_response_params(**params)

    def feed_data(self, message: Any, size: int = 0) -> None:
        """Accept the head of an answer, unless the request has had one.

        :param message: the head, and the reader of the body.
        """
        head, body = message
        if self._body is not None:
            self._drop()
            return
        if head.code >= 200:  # or else it is informational, and the answer follows
            self._body = body
        super().feed_data(message, size)

    def data_received(self, data: bytes) -> None:
        """Accept bytes, unless the answer is complete. (``aiohttp`` itself calls this without any.)"""
        if data and self._is_idle:
            self._drop()
            return
        super().data_received(data)
        self._received += len(data)
        in_body = self._body.total_bytes if self._body is not None else 0
        if self._received > MAX_OVERHEAD + FRAMING * in_body:
            self._drop()

    @property
    def _is_idle(self) -> bool:
        """Whether an answer has been received, and no request has followed."""
        return self._body is not None and self._body.is_eof()

    def _drop(self) -> None:
        if self.transport is not None:
            self.transport.abort()


_REQUIRED_METHODS = ("is_connected", "set_response_params", "feed_data", "data_received")


def guard_connections(connector: aiohttp.TCPConnector) -> aiohttp.TCPConnector:
    """Return a connector, changed so that its connections are guarded.

    This is the only place that uses private members of ``aiohttp``.

    :raises AixplainConfigurationError: if the installed ``aiohttp`` makes connections in another way.
    """
    factory = getattr(getattr(connector, "_factory", None), "func", None)
    if factory is not ResponseHandler or not all(hasattr(ResponseHandler, name) for name in _REQUIRED_METHODS):
        raise AixplainConfigurationError(
            f"aiohttp {aiohttp.__version__} makes connections in a way that this provider does not know, so it cannot"
            " keep the answers of different runs apart: install a version that its documentation names."
        )
    connector._factory = partial(GuardedResponseHandler, loop=asyncio.get_running_loop())  # type: ignore[assignment]
    return connector
