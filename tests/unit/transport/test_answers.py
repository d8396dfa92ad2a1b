"""Answers in pieces, compressed, too large, incomplete or missing; over both transports."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import os
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_aixplain.client.aio import MAX_RESPONSE_BYTES
from airflow_provider_aixplain.protocol.statuses import ResponseStatus
from airflow_provider_aixplain.protocol.wire import Answer, NoResponse, Request, read_poll
from airflow_provider_aixplain.transport import aio
from airflow_provider_aixplain.transport.decoding import ACCEPTED_CODINGS, PIECE, Decoder
from tests.support.scripted import Handler, serve
from tests.unit.transport.transports import Send, platform

LIMIT = 100_000


@contextmanager
def answering(*pieces: bytes, endless: bytes = b"") -> Iterator[str]:
    """The URL of a server that answers each request with these pieces, and ends the connection."""

    def answer(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            asked = b""
            while b"\r\n\r\n" not in asked:
                asked += connection.recv(4096)
            for piece in pieces:
                connection.sendall(piece)
            while endless and not is_over.is_set():
                connection.sendall(endless)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(server.accept()[0],), daemon=True).start()

    is_over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            is_over.set()
            server.shutdown(socket.SHUT_RDWR)


def answer_to(send: Send, *pieces: bytes, method: str = "GET", max_size: int = LIMIT, endless: bytes = b"") -> Any:
    with answering(*pieces, endless=endless) as url:
        body = b"{}" if method == "POST" else None
        return send(platform(url, max_answer=max_size), Request(method, f"{url}/x", body), 5)


def head(**headers: object) -> bytes:
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 200 OK\r\n{lines}\r\n".encode("latin-1")


def raw_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


ENCODINGS: dict[str, Callable[[bytes], bytes]] = {
    "identity": bytes,
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "GZIP": gzip.compress,
    "deflate": zlib.compress,
    "Deflate": raw_deflate,
    "gzip, deflate": lambda data: zlib.compress(gzip.compress(data)),
}


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.binary(max_size=3000),
    encoding=st.sampled_from(sorted(ENCODINGS)),
    ends=st.sampled_from(["length", "chunks", "end"]),
    is_hinted=st.booleans(),
    cuts=st.lists(st.integers(0, 3000), max_size=5),
)
def test_an_answer_is_read_in_any_pieces(
    send: Send, body: bytes, encoding: str, ends: str, is_hinted: bool, cuts: list[int]
) -> None:
    sent = ENCODINGS[encoding](body)
    how = {"length": f"Content-Length: {len(sent)}", "chunks": "Transfer-Encoding: chunked", "end": "Connection: close"}
    start = f"HTTP/1.1 203 Fine\r\nContent-Encoding: {encoding}\r\nX-Word: under\r\n{how[ends]}\r\n\r\n".encode()
    if ends == "chunks":
        half = len(sent) // 2
        chunks = [chunk for chunk in (sent[:half], sent[half:]) if chunk]
        sent = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    # http.client skips a 100 only; early hints are no answer to requests, but to aiohttp.
    whole = (b"HTTP/1.1 100 Continue\r\n\r\n" if is_hinted else b"") + start + sent
    places = sorted({min(cut, len(whole)) for cut in cuts} | {0, len(whole)})
    answer = answer_to(send, *(whole[start:end] for start, end in pairwise(places)))
    assert (answer.status_code, answer.body, answer.headers["x-word"]) == (203, body, "under")


@pytest.mark.parametrize(
    "encoding", ["UTF-8", "utf8", "none", "binary", "", "8bit", "gzip2", "identity", "aws-chunked", "UTF-8, none"]
)
def test_an_unknown_content_encoding_is_ignored(send: Send, encoding: str) -> None:
    answer = answer_to(send, head(Content_Encoding=encoding, Content_Length=2), b"{}")
    assert answer.body == b"{}"


@pytest.mark.parametrize(
    ("encoding", "sent"),
    [
        ("gzip", gzip.compress(b'{"a"') + gzip.compress(b": 1}")),
        ("gzip", gzip.compress(b'{"a": 1}') + b"\0" * 20),
        ("gzip", gzip.compress(b'{"a": 1}') + b"what is this?"),
        ("gzip ", gzip.compress(b'{"a": 1}')),
        (" gzip\t", gzip.compress(b'{"a": 1}')),
        ("gzip, UTF-8", gzip.compress(b'{"a": 1}')),
        ("deflate", raw_deflate(b'{"a": 1}')),
        ("deflate", zlib.compress(b'{"a": 1}')),
    ],
)
def test_compressed_answers_are_read_as_servers_write_them(send: Send, encoding: str, sent: bytes) -> None:
    answer = answer_to(send, head(Content_Encoding=encoding, Content_Length=len(sent)), sent)
    assert answer.body == b'{"a": 1}'


def test_accepted_encodings_are_the_decoded_ones() -> None:
    packed = zlib.compress(gzip.compress(b"{}"))
    assert list(Decoder(ACCEPTED_CODINGS).decode(packed)) == [b"{}"]
    assert list(Decoder("br, zstd").decode(packed)) == [packed]


@pytest.mark.parametrize(("number", "outcome"), [(5, Answer), (6, NoResponse)])
def test_too_many_codings_are_refused(send: Send, number: int, outcome: type) -> None:
    packed = b"{}"
    for _ in range(number):
        packed = gzip.compress(packed)
    encoding = ", ".join(["gzip"] * number)
    assert isinstance(answer_to(send, head(Content_Encoding=encoding, Content_Length=len(packed)), packed), outcome)


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 1_000_000 + b"\r\n\r\n",
        b"SSH-2.0-OpenSSH_9\r\n",
    ],
    ids=lambda answer: str(answer[15:50]),
)
def test_an_incomplete_answer_is_not_an_answer(send: Send, answer: bytes, method: str) -> None:
    outcome = answer_to(send, answer, method=method)
    if isinstance(outcome, Answer):  # http.client treats cut headers as complete
        assert outcome.body == b""
        assert b"Content-Le" in answer
        return
    assert isinstance(outcome, NoResponse)
    assert outcome.is_sent
    assert outcome.reason


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "gzip, gzip"])
def test_an_answer_that_decompresses_without_end_is_cut(send: Send, method: str, encoding: str) -> None:
    packed = zlib.compress(bytes(10_000_000)) if encoding == "deflate" else gzip.compress(bytes(10_000_000))
    packed = gzip.compress(packed) if encoding == "gzip, gzip" else packed
    start = head(Content_Encoding=encoding, Content_Length=len(packed))
    answer = answer_to(send, start, packed, method=method, max_size=1000)
    assert (answer.body, answer.is_cut) == (bytes(1000), True)


CHUNK = b"2\r\n{}\r\n0\r\n"


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    ("start", "endless"),
    [
        (head(), b" " * 65536),
        (head(Transfer_Encoding="chunked"), b"10000\r\n" + b" " * 65536 + b"\r\n"),
        (head(Transfer_Encoding="chunked") + CHUNK, b"X-Trailer: " + b"x" * 1000 + b"\r\n"),
        (head(Transfer_Encoding="chunked") + CHUNK, b"x" * 65536),
        (head(Transfer_Encoding="chunked"), b"1;" + b"x" * 1000 + b"\r\n \r\n"),
        (head(Transfer_Encoding="chunked"), b"1;" + b"x" * 65536),
        (b"HTTP/1.1 200 OK\r\n", b"X-Header: " + b"x" * 1000 + b"\r\n"),
        (b"HTTP/1.1 200 OK\r\nX-Long: ", b"x" * 65536),
        (b"", b"HTTP/1.1 100 Continue\r\nX-Header: " + b"x" * 1000 + b"\r\n\r\n"),
        (b"", b"\r\n" * 1000),
        (head(Content_Encoding="gzip") + gzip.compress(b"{}"), bytes(65536)),
    ],
    ids=["body", "chunks", "trailers", "a trailer", "extensions", "an extension", "headers", "a header", "hints",
         "blank lines", "after gzip"],
)  # fmt: skip
def test_endless_answers_are_read_in_bounded_memory(send: Send, method: str, start: bytes, endless: bytes) -> None:
    with answering(start, endless=endless) as url, peak_memory() as grown:
        body = b"{}" if method == "POST" else None
        outcome = send(platform(url, max_answer=100_000), Request(method, f"{url}/x", body), 1)
    assert isinstance(outcome, NoResponse) or outcome.is_cut or outcome.body == b"{}"
    assert grown() < 30 * 1024 * 1024


@pytest.mark.parametrize("length", [{}, {"Content_Length": 1 << 40}], ids=["to its end", "long"])
def test_the_body_of_a_redirect_is_not_read(send: Send, length: dict[str, int]) -> None:
    redirect = head(Location="/x", **length).replace(b"200 OK", b"302 Found")
    with answering(redirect, endless=bytes(65536)) as url, peak_memory() as grown:
        answer = send(platform(url, max_answer=100_000), Request("GET", f"{url}/x"), 5)
    assert (answer.status_code, answer.is_cut) == (302, True)
    assert grown() < 30 * 1024 * 1024


@contextmanager
def peak_memory() -> Iterator[Callable[[], int]]:
    """The peak growth of this process, in bytes, since the block started."""
    grown = before = resident()
    is_over = threading.Event()

    def watch() -> None:
        nonlocal grown
        while not is_over.wait(0.01):
            grown = max(grown, resident())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield lambda: grown - before
    finally:
        is_over.set()
        thread.join()


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("coding", ["gzip", "deflate", "gzip, gzip", "identity"])
def test_an_answer_is_decoded_in_small_pieces(coding: str) -> None:
    packed = ENCODINGS[coding.partition(",")[0]](bytes(200_000_000))
    packed = gzip.compress(packed) if coding == "gzip, gzip" else packed
    sizes = []
    with peak_memory() as grown:
        sizes = [len(piece) for piece in Decoder(coding).decode(packed)]
    assert (sum(sizes), max(sizes)) == (200_000_000, PIECE)
    assert grown() < 10 * 1024 * 1024


def test_a_complete_answer_is_an_answer(send: Send) -> None:
    assert isinstance(answer_to(send, head(Content_Length=2), b"{}"), Answer)


STEPS = [{"id": index, "agent": {"name": "Analyst"}, "output": 'an "answer" ' * 50} for index in range(16000)]
STATE = {"status": "IN_PROGRESS", "completed": False}
LARGE = {
    "steps": json.dumps({"data": {"steps": STEPS}, **STATE}).encode(),
    "one step": json.dumps({"data": {"steps": [{"id": 0}, {"output": 'an "answer" ' * 800_000}]}, **STATE}).encode(),
}


def poll(url: str, timeout: float = 60, **fields: Any) -> Answer:
    async def send() -> Any:
        async with aio.Lease() as lease:
            return await lease.send(platform(url, **fields), Request("GET", f"{url}/x"), timeout, MAX_RESPONSE_BYTES)

    answer = asyncio.run(send())
    assert isinstance(answer, Answer)
    return answer


@pytest.mark.parametrize("encoding", ["identity", "gzip", "deflate"])
@pytest.mark.parametrize("body", LARGE.values(), ids=LARGE)
def test_a_large_unfinished_answer_is_read_in_bounded_memory(encoding: str, body: bytes) -> None:
    sent = ENCODINGS[encoding](body)
    with answering(head(Content_Encoding=encoding, Content_Length=len(sent)), sent) as url, peak_memory() as grown:
        answer = poll(url)
    assert (answer.is_cut, answer.body) == (True, body[:MAX_RESPONSE_BYTES])
    assert grown() < len(body) / 2
    response = read_poll(answer)
    assert (response.status, response.failure) == (ResponseStatus.IN_PROGRESS, None)
    assert response.data["steps"][0]["id"] == 0


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_a_large_answer_does_not_block_the_event_loop(encoding: str) -> None:
    """The longest turn of the loop is compared with all turns, by the CPU time of this thread."""
    turns = []

    async def watch() -> None:
        while True:
            start = time.thread_time()
            await asyncio.sleep(0)
            turns.append(time.thread_time() - start)

    async def send() -> Answer:
        watching = asyncio.create_task(watch())
        async with aio.Lease() as lease:
            answer = await lease.send(platform(url), Request("GET", f"{url}/x"), 60, MAX_RESPONSE_BYTES)
        watching.cancel()
        assert isinstance(answer, Answer)
        return answer

    sent = ENCODINGS[encoding](LARGE["steps"])
    with answering(head(Content_Encoding=encoding, Content_Length=len(sent)), sent) as url:
        gc.disable()  # it would take one turn
        try:
            assert read_poll(asyncio.run(send())).failure is None
        finally:
            gc.enable()
    assert max(turns) < sum(turns) / 4


@pytest.mark.parametrize(
    ("start", "state"),
    [
        (b'{"status": "IN_PROGRESS", "completed": false, "data": ["', ResponseStatus.IN_PROGRESS),
        (b'{"completed": true, "data": "', None),
        (b'["', None),
    ],
)
def test_an_answer_is_not_read_on_without_need(start: bytes, state: ResponseStatus | None) -> None:
    with answering(head(), start, endless=b"x" * 65536) as url:
        response = read_poll(poll(url))
    assert (response.failure is None) == (state is ResponseStatus.IN_PROGRESS)
    assert response.failure is None or response.failure.is_too_large


@pytest.mark.parametrize("limit", [{"max_answer": 250_000}, {"timeout": 0.5}])
def test_an_answer_beyond_a_limit_is_left_to_a_worker(limit: dict[str, float]) -> None:
    def stall(http: Handler) -> None:
        http.answer(200, b'{"data": "' + b"x" * 300_000, **{"Content-Length": "300012"})
        http.hang(5)

    with serve(stall) as server:
        failure = read_poll(poll(server.url, **limit)).failure
    assert failure is not None
    assert failure.is_too_large
