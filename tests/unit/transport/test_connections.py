"""Connections of our own against real sockets: how answers arrive, and which connections are used again."""

from __future__ import annotations

import asyncio
import gzip
import socket
import threading
import time
import zlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_aixplain.transport.connections import Connections, NotConnected, Reply, _asked
from airflow_provider_aixplain.transport.once import Once
from tests.unit.transport.scripted import Handler, serve

MOST = 100_000


async def get(connections: Connections, url: str, seconds: float = 5, most: int = MOST) -> Reply:
    return await connections.get(url, {"x-api-key": "k"}, time.monotonic() + seconds, most)


def use(user: Callable[[Connections], Awaitable[Any]], most: int = 10) -> Any:
    """Run a user of connections until it ends, and close them."""

    async def run() -> Any:
        connections = Connections(tls=None, most=most)  # type: ignore[arg-type] # nothing here speaks TLS
        try:
            return await user(connections)
        finally:
            connections.close()

    return asyncio.run(run())


@contextmanager
def saying(*pieces: bytes) -> Iterator[str]:
    """The URL of a server that answers a request with these pieces, then ends the connection."""

    def answer() -> None:
        connection, _ = server.accept()
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            asked = b""
            while b"\r\n\r\n" not in asked:
                asked += connection.recv(4096)
            for piece in pieces:
                connection.sendall(piece)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/x"
        thread.join()


def said(*pieces: bytes, most: int = MOST) -> Reply:
    with saying(*pieces) as url:
        return use(lambda connections: get(connections, url, most=most))


ENCODINGS = {"identity": bytes, "gzip": gzip.compress, "deflate": zlib.compress}


@settings(max_examples=40, deadline=None)
@given(
    body=st.binary(max_size=3000),
    encoding=st.sampled_from(sorted(ENCODINGS)),
    ends=st.sampled_from(["length", "chunks", "end"]),
    hints=st.booleans(),
    cuts=st.lists(st.integers(0, 3000), max_size=5),
)
def test_an_answer_is_read_however_it_is_cut_into_pieces(
    body: bytes, encoding: str, ends: str, hints: bool, cuts: list[int]
) -> None:
    sent = ENCODINGS[encoding](body)
    how = {"length": f"Content-Length: {len(sent)}", "chunks": "Transfer-Encoding: chunked", "end": "X-Nothing: here"}
    head = f"HTTP/1.1 203 Fine\r\nContent-Encoding: {encoding}\r\nX-Word: Ünder\r\n{how[ends]}\r\n\r\n".encode(
        "latin-1"
    )
    if ends == "chunks":
        half = len(sent) // 2
        chunks = [chunk for chunk in (sent[:half], sent[half:]) if chunk]
        sent = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    whole = (b"HTTP/1.1 103 Early\r\nLink: </a>\r\n\r\n" if hints else b"") + head + sent
    places = sorted({min(cut, len(whole)) for cut in cuts} | {0, len(whole)})
    reply = said(*(whole[start:end] for start, end in pairwise(places)))
    assert (reply.status_code, bytes(reply.body), reply.headers["x-word"]) == (203, body, "Ünder")
    assert "link" not in reply.headers


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 1_000_000 + b"\r\n\r\n",
        b"SSH-2.0-OpenSSH_9\r\n",
    ],
    ids=lambda answer: str(answer[15:50]),
)
def test_what_is_no_whole_answer_is_none(answer: bytes) -> None:
    with pytest.raises(ConnectionError) as raised:
        said(answer)
    assert not isinstance(raised.value, NotConnected)  # the request has left
    assert str(raised.value)


def test_a_small_answer_that_unfolds_without_end_is_cut() -> None:
    packed = gzip.compress(bytes(10_000_000))
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    assert len(said(head, packed, most=1000).body) == 1001


def test_a_connection_carries_one_exchange_after_another() -> None:
    async def user(connections: Connections) -> None:
        for _ in range(5):
            assert (await get(connections, f"{server.url}/x")).status_code == 200

    with serve(lambda http: http.answer(200)) as server:
        use(user)
    assert len({asked.client_port for asked in server.asked}) == 1


@pytest.mark.parametrize("how", ["end", "cut"])
def test_a_kept_connection_that_the_server_closes_loses_no_poll(how: str) -> None:
    """Whether the client sees it before it sends, or only by the silence that follows."""

    def script(http: Handler) -> None:
        first_here = [asked.client_port for asked in server.asked].count(http.client_address[1]) == 1
        if first_here:
            http.answer(200)
        http.close_connection = how == "end" or not first_here

    async def user(connections: Connections) -> None:
        for _ in range(3):
            assert (await get(connections, f"{server.url}/x")).status_code == 200
            await asyncio.sleep(0.05 if how == "end" else 0)

    with serve(script) as server:
        use(user)
    assert len({asked.client_port for asked in server.asked}) == 3


def test_a_new_connection_that_brings_no_answer_is_not_tried_again() -> None:
    def script(http: Handler) -> None:
        http.close_connection = True

    with serve(script) as server, pytest.raises(ConnectionError, match="closed without an answer"):
        use(lambda connections: get(connections, f"{server.url}/x"))
    assert len(server.asked) == 1


@pytest.mark.parametrize("header", [{"Connection": "close"}, {"X-Too": "much"}], ids=["it says so", "it says more"])
def test_a_connection_that_cannot_be_used_again_is_not(header: dict[str, str]) -> None:
    def script(http: Handler) -> None:
        http.answer(200, **header)
        if "X-Too" in header:
            http.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother")

    async def user(connections: Connections) -> None:
        for _ in range(3):
            assert bytes((await get(connections, f"{server.url}/x")).body) == b"{}"
            await asyncio.sleep(0.05)

    with serve(script) as server:
        use(user)
    assert len({asked.client_port for asked in server.asked}) == 3


def test_a_poll_that_is_given_up_leaves_no_connection_for_the_next() -> None:
    """Its answer may still come, and would be taken for another run's."""

    async def user(connections: Connections) -> None:
        late = asyncio.create_task(get(connections, f"{server.url}/late"))
        await asyncio.to_thread(has_arrived.wait, 5)
        late.cancel()
        await asyncio.wait([late])
        may_answer.set()
        assert bytes((await get(connections, f"{server.url}/next")).body) == b"/next"

    def script(http: Handler) -> None:
        if http.path == "/late":
            has_arrived.set()
            may_answer.wait(5)
        http.answer(200, http.path.encode())

    has_arrived, may_answer = threading.Event(), threading.Event()
    with serve(script) as server:
        use(user)


def test_no_more_connections_than_allowed_and_the_wait_for_one_ends_in_time() -> None:
    async def user(connections: Connections) -> list[Any]:
        polls = [get(connections, f"{server.url}/x", seconds=0.5) for _ in range(6)]
        return await asyncio.gather(*polls, return_exceptions=True)

    may_answer = threading.Event()
    with serve(lambda http: may_answer.wait(5) and None) as server:
        ended = use(user, most=2)
        may_answer.set()
    assert len(server.asked) == 2
    assert sum(isinstance(error, NotConnected) for error in ended) == 4
    assert sum(type(error) is TimeoutError for error in ended) == 2


def test_a_connection_that_was_idle_for_long_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def user(connections: Connections) -> None:
        for _ in range(2):
            await get(connections, f"{server.url}/x")

    monkeypatch.setattr("airflow_provider_aixplain.transport.connections.IDLE", -1.0)
    with serve(lambda http: http.answer(200)) as server:
        use(user)
    assert len({asked.client_port for asked in server.asked}) == 2


@given(
    st.text(st.characters(blacklist_characters="/?#@:[]\\", blacklist_categories=["Cs"])),
    st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="#")),
)
def test_a_url_cannot_write_lines_of_its_own(path: str, query: str) -> None:
    place, written = _asked(f"https://h.example:8443/{path}?{query}")
    first, second, rest = written.split("\r\n")
    method, target, version = first.split(" ")
    assert (place, method, version, second, rest) == (
        ("https", "h.example", 8443),
        "GET",
        "HTTP/1.1",
        "Host: h.example:8443",
        "",
    )
    assert target.startswith("/")
    assert target.isascii()
    assert target.isprintable()


def test_what_many_look_up_is_looked_up_once() -> None:
    calls = []

    async def look_up() -> int:
        calls.append(None)
        await asyncio.sleep(0.02)
        if len(calls) == 1:
            raise OSError("not there yet")
        return len(calls)

    async def user() -> None:
        once, start = Once[int](), time.monotonic()
        failed = await asyncio.gather(*(once.get(look_up, start) for _ in range(5)), return_exceptions=True)
        assert {type(error) for error in failed} == {OSError}
        first, *others = (asyncio.create_task(once.get(look_up, start)) for _ in range(5))
        await asyncio.sleep(0)
        first.cancel()
        assert {(await other)[1] for other in others} == {2}
        at, found = await once.get(look_up, start)
        assert found == 2
        assert (await once.get(look_up, at))[1] == 3

    asyncio.run(user())
