"""Guards the connections of ``aiohttp``: one answer per request, in bounded memory.

``aiohttp`` (at least 3.10 to 3.14) keeps reading an idle connection, and delivers an unsolicited answer to the next
request, which belongs to another run. It also does not limit headers, trailers and chunk extensions.
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
"""The size limit of an answer outside its body, in bytes."""

FRAMING = 8
"""The size limit of the framing per byte of a body, in bytes: a server may send chunks of one byte."""


class GuardedResponseHandler(ResponseHandler):
    """Closes the connection on bytes that do not belong to a request, and on answers that exceed ``MAX_OVERHEAD``."""

    _body: aiohttp.StreamReader | None = None
    _received = 0

    def is_connected(self) -> bool:
        """Return whether the connection is open and, if idle, has no unread bytes and was not closed by the server.

        ``urllib3`` checks the same before it reuses a connection.
        """
        if self.transport is None or not super().is_connected():
            return False
        return not (self._is_idle and wait_for_read(self.transport.get_extra_info("socket"), timeout=0.0))

    def set_response_params(self, **params: Any) -> None:
        """Start the exchange of a request and its answer."""
        self._body, self._received = None, 0
        super().set_response_params(**params)

    def feed_data(self, message: Any, size: int = 0) -> None:
        """Accept the head of an answer, unless the request already has one.

        :param message: the head, and the reader of the body.
        """
        head, body = message
        if self._body is not None:
            self._drop()
            return
        if head.code >= 200:  # otherwise it is informational, and the answer follows
            self._body = body
        super().feed_data(message, size)

    def data_received(self, data: bytes) -> None:
        """Accept bytes, unless the answer is complete. (``aiohttp`` also calls this with ``b""``.)"""
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
        """Whether the answer is complete, and the next request has not started."""
        return self._body is not None and self._body.is_eof()

    def _drop(self) -> None:
        if self.transport is not None:
            self.transport.abort()


_REQUIRED_METHODS = ("is_connected", "set_response_params", "feed_data", "data_received")


def guard_connections(connector: aiohttp.TCPConnector) -> aiohttp.TCPConnector:
    """Return the connector, with guarded connections.

    Only this function uses private members of ``aiohttp``.

    :raises AixplainConfigurationError: if the installed ``aiohttp`` creates connections in another way.
    """
    factory = getattr(getattr(connector, "_factory", None), "func", None)
    if factory is not ResponseHandler or not all(hasattr(ResponseHandler, name) for name in _REQUIRED_METHODS):
        raise AixplainConfigurationError(
            f"aiohttp {aiohttp.__version__} is not supported, as answers of different runs could be mixed up: install a"
            " version that the provider's documentation names."
        )
    connector._factory = partial(GuardedResponseHandler, loop=asyncio.get_running_loop())  # type: ignore[assignment]
    return connector
