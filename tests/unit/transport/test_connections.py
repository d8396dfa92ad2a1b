"""The connections of triggers: which ones are reused, and that one never affects another."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from pytest_mock import MockerFixture

from airflow_provider_aixplain.exceptions import AixplainConfigurationError
from airflow_provider_aixplain.protocol.wire import Answer, NoResponse, Request
from airflow_provider_aixplain.transport import aio, guard
from airflow_provider_aixplain.transport.aio import PooledSession
from tests.support.scripted import Handler, serve
from tests.unit.transport.transports import platform, send_aio


def use(url: str, user: Callable[[PooledSession], Awaitable[Any]], certificate: Path | None = None) -> Any:
    """Run a user of the shared session until it ends."""

    async def run() -> Any:
        async with aio.Lease() as lease:
            return await user(await lease.session(platform(url, verify=str(certificate) if certificate else True)))

    return asyncio.run(run())


async def get(pooled: PooledSession, url: str, seconds: float = 5) -> Answer | NoResponse:
    return await aio.send(pooled, Request("GET", url), seconds)


@pytest.fixture(params=["plain", "TLS"])
def tls(request: pytest.FixtureRequest, certificate: Path) -> Path | None:
    return certificate if request.param == "TLS" else None


Surplus = Callable[[bytes], list[bytes]]

SURPLUS: dict[str, Surplus] = {
    "at once": lambda answer: [answer + answer],
    "later": lambda answer: [answer, answer],
    "with the end of the answer": lambda answer: [answer[:-2], answer[-2:] + answer],
    "in two parts": lambda answer: [answer + answer[:20], answer[20:]],
    "only its beginning": lambda answer: [answer + b"H"],
}


class GenerousServer:
    """Answers each request with its path, and then sends more than it is asked.

    :param surplus: returns what it sends for a request, from the answer to it.
    :param certificate: a file with a certificate and its key; with it, the server speaks TLS.
    """

    def __init__(self, surplus: Surplus, certificate: Path | None) -> None:
        self._surplus = surplus
        self._context = None
        if certificate:
            self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            self._context.load_cert_chain(certificate)
        self.sending = 0

    async def __aenter__(self) -> GenerousServer:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context, backlog=1000)
        self.url = f"{'https' if self._context else 'http'}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                path = head.split(b" ")[1]
                self.sending += 1
                try:
                    for piece in self._surplus(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(path), path)):
                        writer.write(piece)
                        await writer.drain()
                        await asyncio.sleep(0)
                finally:
                    self.sending -= 1
        writer.close()

    async def has_sent_all(self) -> None:
        while self.sending:  # noqa: ASYNC110 # it ends when the last writer does
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("surplus", SURPLUS.values(), ids=SURPLUS)
def test_a_surplus_answer_reaches_no_other_run(surplus: Surplus, tls: Path | None) -> None:
    """24 runs share a session with a server that sends one answer too many, which aiohttp delivers to the next run."""

    async def run() -> list[tuple[str, Any]]:
        pairs: list[tuple[str, Any]] = []
        async with GenerousServer(surplus, tls) as server, aio.Lease() as lease:
            account = platform(server.url, verify=str(tls) if tls else True)
            pooled = await lease.session(account)
            for number in range(8):
                paths = [f"/{run}-{number}" for run in range(24)]
                answers = await asyncio.gather(*(get(pooled, f"{server.url}{path}") for path in paths))
                pairs += zip(paths, answers, strict=True)
                await server.has_sent_all()  # what arrives after the next request was sent looks like its answer
        return pairs

    pairs = asyncio.run(run())
    answered = [(path, answer.body.decode()) for path, answer in pairs if isinstance(answer, Answer)]
    assert [body for _, body in answered] == [path for path, _ in answered]
    assert len(answered) == len(pairs)


def test_early_hints_are_not_an_answer() -> None:
    hint, answer = b"HTTP/1.1 103 Early\r\nLink: </a>\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"

    def script(http: Handler) -> None:
        http.wfile.write(hint + hint + answer)

    async def user(pooled: PooledSession) -> None:
        for _ in range(3):
            received = await get(pooled, f"{server.url}/x")
            assert isinstance(received, Answer)
            assert (received.status_code, received.body) == (200, b"{}")

    with serve(script) as server:
        use(server.url, user)
    assert len({asked.client_port for asked in server.asked}) == 1


@pytest.mark.parametrize("change", ["the factory is gone", "another handler", "a method is gone"])
def test_an_unsupported_aiohttp_is_refused(change: str, mocker: MockerFixture) -> None:
    if change == "the factory is gone":
        mocker.patch.object(
            aio, "guard_connections", lambda connector: guard.guard_connections(_without_factory(connector))
        )
    elif change == "another handler":
        mocker.patch.object(guard, "ResponseHandler", type("Other", (guard.ResponseHandler,), {}))
    else:
        mocker.patch.object(guard, "_REQUIRED_METHODS", (*guard._REQUIRED_METHODS, "feed_everything"))
    with pytest.raises(AixplainConfigurationError, match=f"aiohttp {aiohttp.__version__}"):
        send_aio(platform("https://platform.invalid"), Request("GET", "https://platform.invalid/x"))


def _without_factory(connector: Any) -> Any:
    del connector._factory
    return connector


def test_a_connection_carries_one_exchange_after_another(tls: Path | None) -> None:
    async def user(pooled: PooledSession) -> None:
        for _ in range(5):
            assert isinstance(await get(pooled, f"{server.url}/x"), Answer)

    with serve(lambda http: http.answer(200), tls) as server:
        use(server.url, user, tls)
    assert len({asked.client_port for asked in server.asked}) == 1


@pytest.mark.parametrize("how", ["end", "cut"])
def test_a_closed_idle_connection_loses_no_poll(how: str) -> None:
    """Whether the client sees it before it sends, or only by the silence that follows."""

    def script(http: Handler) -> None:
        is_first_here = [asked.client_port for asked in server.asked].count(http.client_address[1]) == 1
        if is_first_here:
            http.answer(200)
        http.close_connection = how == "end" or not is_first_here

    async def user(pooled: PooledSession) -> None:
        for _ in range(3):
            assert isinstance(await get(pooled, f"{server.url}/x"), Answer)
            await asyncio.sleep(0.05 if how == "end" else 0)

    with serve(script) as server:
        use(server.url, user)
    assert len({asked.client_port for asked in server.asked}) == 3


def test_a_submission_on_a_closed_connection_is_not_repeated() -> None:
    def script(http: Handler) -> None:
        if http.command == "GET":
            http.answer(200)
        http.close_connection = http.command == "POST"

    async def user(pooled: PooledSession) -> Any:
        await get(pooled, f"{server.url}/x")
        return await aio.send(pooled, Request("POST", f"{server.url}/x", b"{}"))

    with serve(script) as server:
        outcome = use(server.url, user)
    assert isinstance(outcome, NoResponse)
    assert outcome.is_sent
    assert [asked.method for asked in server.asked] == ["GET", "POST"]


def test_a_connection_is_not_reused_after_a_timed_out_poll() -> None:
    """Its answer may still arrive, and would be taken for another run's."""

    async def user(pooled: PooledSession) -> None:
        late = asyncio.create_task(get(pooled, f"{server.url}/late"))
        await asyncio.to_thread(has_arrived.wait, 5)
        late.cancel()
        await asyncio.wait([late])
        may_answer.set()
        following = await get(pooled, f"{server.url}/next")
        assert isinstance(following, Answer)
        assert following.body == b"/next"

    def script(http: Handler) -> None:
        if http.path == "/late":
            has_arrived.set()
            may_answer.wait(5)
        http.answer(200, http.path.encode())

    has_arrived, may_answer = threading.Event(), threading.Event()
    with serve(script) as server:
        use(server.url, user)


def test_a_submission_that_waits_for_a_connection_is_not_sent(mocker: MockerFixture) -> None:
    async def user(pooled: PooledSession) -> list[Any]:
        posts = [
            asyncio.create_task(aio.send(pooled, Request("POST", f"{server.url}/x", b"{}"), seconds))
            for seconds in (30, 30, 0.2, 0.2, 0.2, 0.2)
        ]
        outcomes = await asyncio.gather(*posts[2:])
        may_answer.set()
        return [*await asyncio.gather(*posts[:2]), *outcomes]

    mocker.patch.object(aio, "MAX_CONNECTIONS", 2)
    may_answer = threading.Event()
    with serve(lambda http: may_answer.wait(30) and http.answer(200)) as server:
        first, second, *others = use(server.url, user)
    assert isinstance(first, Answer)
    assert isinstance(second, Answer)
    assert len(server.asked) == 2
    assert [outcome.is_sent for outcome in others] == [False] * 4


@pytest.mark.parametrize("change", ["data_received", "feed_data"])
def test_an_unexpected_error_after_a_submission_is_not_a_refusal(change: str, mocker: MockerFixture) -> None:
    mocker.patch.object(guard.GuardedResponseHandler, change, side_effect=RuntimeError("unlike other versions"))
    with serve(lambda http: http.answer(200)) as server:
        outcome = send_aio(platform(server.url), Request("POST", f"{server.url}/x", b"{}"), 5)
    assert isinstance(outcome, NoResponse)
    assert outcome.is_sent
    assert len(server.asked) == 1


@pytest.mark.parametrize("moments", [0.0, 0.02, 0.2])
def test_cancelling_connecting_waits_affects_no_others(moments: float, tls: Path | None) -> None:
    """A DAG run is marked failed: 200 waits end together while they connect, and 100 others continue."""

    async def user(pooled: PooledSession) -> None:
        async def poll_on(path: str) -> list[Any]:
            return [await get(pooled, f"{server.url}/{path}", 20) for _ in range(3)]

        async def wait_on() -> None:
            while True:
                await get(pooled, f"{server.url}/cancelled", 20)

        cancelled = [asyncio.create_task(wait_on()) for _ in range(200)]
        others = [asyncio.create_task(poll_on(f"other-{number}")) for number in range(100)]
        for number, task in enumerate(cancelled):
            asyncio.get_running_loop().call_later(moments * number / 200, task.cancel)
        done, left = await asyncio.wait(cancelled, timeout=20)
        assert not left
        assert all(task.cancelled() for task in done)
        for number, task in enumerate(others):
            for answer in await task:
                assert isinstance(answer, Answer), answer
                assert answer.body == f"/other-{number}".encode()

    with serve(lambda http: http.answer(200, http.path.encode()), tls) as server:
        use(server.url, user, tls)


def test_a_flooded_idle_connection_is_closed() -> None:
    async def user(pooled: PooledSession) -> None:
        assert isinstance(await get(pooled, f"{server.url}/x"), Answer)
        is_idle.set()
        await asyncio.to_thread(is_closed.wait, 10)

    def script(http: Handler) -> None:
        http.answer(200)
        is_idle.wait(10)
        with suppress(OSError):
            while True:
                http.connection.sendall(b"x" * 65536)
        is_closed.set()
        http.close_connection = True

    is_idle, is_closed = threading.Event(), threading.Event()
    with serve(script) as server:
        use(server.url, user)
    assert is_closed.is_set()


def test_a_hanging_connect_times_out() -> None:
    """A socket whose backlog is full accepts no connection."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, socket.socket() as one, socket.socket() as two:
        for client in (one, two):
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        start = time.monotonic()
        outcome = send_aio(platform(url), Request("POST", f"{url}/x", b"{}"), 0.5)
        assert time.monotonic() - start < 5
    assert isinstance(outcome, NoResponse)
