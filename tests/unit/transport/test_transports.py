"""Both transports against real sockets: the same rules for each."""

from __future__ import annotations

import asyncio
import gzip
import json
import signal
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from email.utils import formatdate
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import certifi
import pytest
import requests
from pytest_mock import MockerFixture

from airflow_provider_aixplain.client.account import Platform
from airflow_provider_aixplain.client.blocking import Client
from airflow_provider_aixplain.compat import ObjectStoragePath
from airflow_provider_aixplain.exceptions import AixplainConfigurationError, AixplainUntrustedUrl
from airflow_provider_aixplain.protocol import wire
from airflow_provider_aixplain.protocol.stream import ModelResponseStreamer
from airflow_provider_aixplain.protocol.wire import Answer, Credential, NoResponse, OpenAnswer, Request
from airflow_provider_aixplain.transport import aio, sync
from tests.support.certificate import write_certificate
from tests.support.scripted import Handler, serve
from tests.unit.transport.transports import KEY, Send, platform, send_aio, send_sync


def test_a_request_is_sent_and_its_answer_returned(send: Send) -> None:
    with serve(lambda http: http.answer(418, b"tea", **{"Retry-After": "3"})) as server:
        answer = send(platform(server.url), Request("POST", f"{server.url}/api/v1/execute/a%20b", b'{"data": 1}'))
    assert (answer.status_code, answer.body, answer.headers["retry-after"]) == (418, b"tea", "3")
    (asked,) = server.asked
    assert (asked.method, asked.path, asked.body) == ("POST", "/api/v1/execute/a%20b", b'{"data": 1}')
    assert asked.headers["x-api-key"] == KEY
    assert asked.headers["content-type"] == "application/json"
    assert asked.headers["user-agent"].startswith("airflow-provider-aixplain/")


@pytest.mark.parametrize("script", [Handler.reset, lambda http: http.hang(5)], ids=["reset", "hang"])
def test_a_submission_that_may_have_arrived_is_not_repeated(send: Send, script: Any) -> None:
    with serve(script) as server:
        start = time.monotonic()
        outcome = send(platform(server.url), Request("POST", f"{server.url}/x", b"{}"), 0.5)
        assert time.monotonic() - start < 4
    assert isinstance(outcome, NoResponse)
    assert outcome.is_sent
    assert outcome.reason
    assert len(server.asked) == 1


class TaskEnded(BaseException):
    """What Airflow raises in a task after its execution_timeout."""


@pytest.mark.parametrize("ending", ["time limit", "signal"])
def test_an_abandoned_submission_is_not_sent_later(ending: str) -> None:
    """The server accepts the connection, but its TLS handshake comes after the client stopped waiting."""

    def end(*_: object) -> None:
        raise TaskEnded

    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"https://127.0.0.1:{server.getsockname()[1]}"
        account = platform(url, verify=False)
        before = signal.signal(signal.SIGALRM, end)
        try:
            if ending == "signal":
                signal.setitimer(signal.ITIMER_REAL, 0.3)
                with pytest.raises(TaskEnded):
                    send_sync(account, Request("POST", f"{url}/x", b"{}"), 20)
            else:
                outcome = send_sync(account, Request("POST", f"{url}/x", b"{}"), 0.3)
                assert isinstance(outcome, NoResponse)
                assert not outcome.is_sent
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(write_certificate(Path(tempfile.mkdtemp()) / "server.pem"))
        connection, _ = server.accept()
        connection.settimeout(5)
        received = b""
        with suppress(OSError), context.wrap_socket(connection, server_side=True) as secure:
            while data := secure.recv(65536):
                received += data
    assert b"{}" not in received


def answer_with_two_lengths(http: Handler) -> None:
    http.wfile.write(b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}")
    http.close_connection = True


def answer_with_nonsense(http: Handler) -> None:
    http.wfile.write(b"\x16\x03\x01 no HTTP at all\r\n\r\n")
    http.close_connection = True


@pytest.mark.parametrize("script", [answer_with_two_lengths, answer_with_nonsense])
def test_an_invalid_answer_counts_as_sent(send: Send, script: Any) -> None:
    """Also if the call is made while another connection's error is handled."""
    with serve(script) as server:
        try:
            raise ConnectionRefusedError("another matter") from requests.ConnectTimeout()
        except ConnectionRefusedError:
            outcome = send(platform(server.url), Request("POST", f"{server.url}/x", b"{}"))
    assert not isinstance(outcome, NoResponse) or outcome.is_sent
    assert len(server.asked) == 1


def test_nothing_is_sent_without_a_listener(send: Send) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    for host in (url, "http://no-such-host.invalid"):
        outcome = send(platform(host), Request("POST", f"{host}/x", b"{}"))
        assert isinstance(outcome, NoResponse)
        assert not outcome.is_sent
        assert KEY not in outcome.reason


def test_a_returned_key_is_hidden(send: Send) -> None:
    with serve(lambda http: http.answer(401, f"bad key {http.headers['x-api-key']}".encode())) as server:
        answer = send(platform(server.url), Request("GET", f"{server.url}/x"))
    assert answer.text() == "bad key ***"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("spell", [str, lambda key: "".join(f"\\u{ord(c):04x}" for c in key)])
def test_a_key_in_an_answers_json_is_hidden(send: Send, encoding: str, spell: Callable[[str], str]) -> None:
    body = f'{{"completed": true, "data": {{"{spell(KEY)}": ["is {spell(KEY)}\\n"]}}}}'.encode(encoding)
    with serve(lambda http: http.answer(200, body)) as server:
        response = wire.read_poll(send(platform(server.url), Request("GET", f"{server.url}/x")))
    assert response.data == {"***": ["is ***\n"]}


def test_a_retry_date_needs_no_date_header(send: Send) -> None:
    later = formatdate(time.time() + 100, usegmt=True)

    def answer(http: Handler) -> None:
        http.wfile.write(f"HTTP/1.1 503 Busy\r\nRetry-After: {later}\r\nContent-Length: 0\r\n\r\n".encode())

    with serve(answer) as server:
        failure = wire.read_poll(send(platform(server.url), Request("GET", f"{server.url}/x"))).failure
    assert failure is not None
    assert failure.retry_after is not None
    assert 0 < failure.retry_after <= 100


def test_nothing_is_sent_to_a_server_without_tls(send: Send) -> None:
    with serve(lambda http: http.answer(200)) as server:
        url = server.url.replace("http://", "https://")
        outcome = send(platform(url), Request("POST", f"{url}/x", b"{}"))
    assert isinstance(outcome, NoResponse)
    assert not outcome.is_sent


def test_a_cut_answer_is_not_an_answer(send: Send) -> None:
    def cut(http: Handler) -> None:
        http.send_response(200)
        http.send_header("Content-Length", "1000")
        http.end_headers()
        http.wfile.write(b"{")
        http.wfile.flush()
        http.reset()

    with serve(cut) as server:
        outcome = send(platform(server.url), Request("GET", f"{server.url}/x"))
    assert isinstance(outcome, NoResponse)
    assert outcome.is_sent


def test_a_redirect_within_trusted_origins_is_followed(send: Send) -> None:
    with (
        serve(lambda http: http.answer(200, b"here")) as other,
        serve(lambda http: http.answer(302, Location=f"{other.url}/there")) as server,
    ):
        answer = send(platform(server.url, trusted_origins=frozenset({other.url})), Request("GET", f"{server.url}/x"))
    assert (answer.status_code, answer.body) == (200, b"here")
    assert other.asked[0].headers["x-api-key"] == KEY


def test_no_entry_of_a_netrc_file_is_sent(send: Send, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with (
        serve(lambda http: http.answer(200)) as other,
        serve(lambda http: http.answer(302, Location=f"{other.url}/there")) as server,
    ):
        send(platform(server.url, trusted_origins=frozenset({other.url})), Request("GET", f"{server.url}/x"))
    for asked in (server.asked[0], other.asked[0]):
        assert asked.headers["x-api-key"] == KEY
        assert "authorization" not in asked.headers


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_sends_the_key_to_an_untrusted_origin(send: Send, status: int) -> None:
    with (
        serve(lambda http: http.answer(200)) as foreign,
        serve(lambda http: http.answer(status, Location=f"{foreign.url}/take")) as server,
    ):
        answer = send(platform(server.url), Request("GET", f"{server.url}/x"))
    assert answer.status_code == status
    assert foreign.asked == []


@pytest.mark.parametrize("status", [302, 307, 308])
def test_a_submission_follows_no_redirect(send: Send, status: int) -> None:
    with serve(lambda http: http.answer(status, Location="/again")) as server:
        answer = send(platform(server.url), Request("POST", f"{server.url}/x", b"{}"))
    assert answer.status_code == status
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [200, 201, 304, 302])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_invalid_location_loses_no_answer(send: Send, method: str, status: int) -> None:
    for location in ({}, {"Location": "http://["}, {"Location": "//[\xff\xfe"}):
        with serve(
            lambda http, location=location: http.answer(status, b"" if status == 304 else b"{}", **location)
        ) as server:
            answer = send(platform(server.url), Request(method, f"{server.url}/x"))
        assert answer.status_code == status
        assert len(server.asked) == 1


def test_redirects_in_a_circle_end(send: Send) -> None:
    with serve(lambda http: http.answer(302, Location="/x")) as server:
        send(platform(server.url), Request("GET", f"{server.url}/x"))
    assert len(server.asked) == 6


def test_the_connections_proxy_takes_precedence(send: Send, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(lambda http: http.answer(200, b"mine")) as mine, serve(lambda http: http.answer(200, b"env")) as env:
        monkeypatch.setenv("http_proxy", env.url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        foreign = "http://platform.invalid"
        request = Request("GET", f"{foreign}/x")
        assert send(platform(foreign), request).body == b"env"
        assert send(platform(foreign, proxy=mine.url), request).body == b"mine"
        monkeypatch.setenv("no_proxy", "platform.invalid")
        assert isinstance(send(platform(foreign), request), NoResponse)


def test_a_proxys_password_is_not_shown(send: Send) -> None:
    with serve(lambda http: http.answer(407)) as proxy:
        address = proxy.url.replace("http://", "http://user:s3cr3t-pw@")
        outcome = send(
            platform("https://platform.invalid", proxy=address), Request("GET", "https://platform.invalid/x")
        )
    assert isinstance(outcome, NoResponse)
    assert "s3cr3t-pw" not in outcome.reason


def test_runs_that_start_together_share_one_session() -> None:
    async def use() -> int:
        account = platform("https://platform.invalid", verify=certifi.where())
        seen = []
        all_in = asyncio.Event()

        async def hold() -> None:
            async with aio.Lease() as lease:
                seen.append(await lease.session(account))
                if len(seen) == 20:
                    all_in.set()
                await all_in.wait()

        await asyncio.gather(*(hold() for _ in range(20)))
        assert not aio.sessions.keys()
        assert all(shared.session.closed for shared in seen)
        return len(set(seen))

    assert asyncio.run(use()) == 1


def test_an_invalid_ca_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("no certificate")
    with pytest.raises(AixplainConfigurationError, match="verify"):
        send_aio(platform("https://platform.invalid", verify=str(path)), Request("GET", "https://platform.invalid/x"))


@pytest.mark.parametrize("url", ["http://[", "http://[::1].evil:80/", ""])
def test_an_invalid_url_is_not_requested(send: Send, url: str) -> None:
    with pytest.raises(AixplainUntrustedUrl):
        send(platform("https://models.aixplain.com"), Request("GET", url))


def test_an_untrusted_url_is_not_requested(send: Send) -> None:
    with serve(lambda http: http.answer(200)) as foreign, pytest.raises(AixplainUntrustedUrl):
        send(platform("https://models.aixplain.com"), Request("GET", f"{foreign.url}/x"))
    assert foreign.asked == []


def test_the_hooks_session_sends_the_key_to_trusted_origins_only(tmp_path: Any, monkeypatch: Any) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with (
        serve(lambda http: http.answer(200)) as foreign,
        serve(lambda http: http.answer(200)) as server,
        sync.PlatformSession(platform(server.url)) as session,
    ):
        session.get(f"{server.url}/x")
        session.get(f"{foreign.url}/x")
    assert server.asked[0].headers["x-api-key"] == KEY
    assert "x-api-key" not in foreign.asked[0].headers
    assert "authorization" not in {**server.asked[0].headers, **foreign.asked[0].headers}


def test_runs_of_one_account_share_a_session() -> None:
    with serve(lambda http: http.answer(200)) as server:

        async def use() -> None:
            one, other = platform(server.url), Platform(api_key="other", backend_url=server.url)
            async with aio.Lease() as lease:
                first = await lease.session(one)
                async with aio.Lease() as another:
                    assert await another.session(platform(server.url)) is first
                    third = await another.session(other)
                    assert third is not first
                assert third.session.closed
                assert not first.session.closed
                for _ in range(5):
                    await aio.send(first, Request("GET", f"{server.url}/x"))
            assert first.session.closed
            assert not aio.sessions.keys()

        asyncio.run(use())
    assert len(server.asked) == 5


def drip_headers(http: Handler) -> None:
    http.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    drip(http)


def drip_body(http: Handler) -> None:
    http.send_response(200)
    http.send_header("Content-Length", "1000")
    http.end_headers()
    drip(http)


def redirect_slowly(http: Handler) -> None:
    time.sleep(0.3)
    http.answer(302, Location="/again")


def drip(http: Handler) -> None:
    with suppress(OSError):
        for _ in range(100):
            http.wfile.write(b"x")
            time.sleep(0.05)


@pytest.mark.parametrize("script", [drip_headers, drip_body, redirect_slowly])
def test_the_whole_exchange_has_one_time_limit(send: Send, script: Any) -> None:
    """A limit for each read or redirect would allow five times as much."""
    with serve(script) as server:
        start = time.monotonic()
        outcome = send(platform(server.url), Request("GET", f"{server.url}/x"), 0.5)
        assert time.monotonic() - start < 1.5
    assert isinstance(outcome, NoResponse)


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
@pytest.mark.parametrize(("size", "is_cut"), [(1000, False), (1001, True), (50_000_000, True)])
def test_an_answer_is_read_up_to_its_size_limit(send: Send, size: int, is_cut: bool, encoding: str) -> None:
    body = b" " * size
    sent = gzip.compress(body) if encoding == "gzip" else body
    with serve(lambda http: http.answer(200, sent, **{"Content-Encoding": encoding})) as server:
        account = platform(server.url, max_answer=1000)
        answer = send(account, Request("GET", f"{server.url}/x"))
    assert (answer.status_code, len(answer.body), answer.is_cut) == (200, min(size, 1000), is_cut)


def test_a_fixed_ca_file_is_read_again(certificate: Path, tmp_path: Path) -> None:
    """A session reads the file when it opens, and again after it refused a certificate."""
    trusted, fixed = tmp_path / "ca.pem", certificate.read_bytes()
    trusted.write_bytes(Path(certifi.where()).read_bytes())

    async def use() -> None:
        account = platform(server.url, verify=str(trusted))
        request = Request("POST", f"{server.url}/x", b"{}")
        async with aio.Lease() as early, aio.Lease() as late:
            first = await early.session(account)
            refused = await aio.send(first, request)
            assert isinstance(refused, NoResponse)
            assert not refused.is_sent
            trusted.write_bytes(fixed)
            second = await late.session(account)
            await aio.send(first, request)  # a lease of the first session does not affect the second
            assert await early.session(account) is second
            assert first.session.closed
            assert isinstance(await aio.send(second, request), Answer)
        assert not aio.sessions.keys()

    with serve(lambda http: http.answer(200), certificate) as server:
        asyncio.run(use())


def test_an_upload_may_take_longer_than_a_request(tmp_path: Path) -> None:
    """A slow store is not subject to the time limit of a request, unless it is silent."""
    size = 40 * 1024 * 1024  # many times the sockets' buffers, so that the sender is slowed down

    def take_slowly() -> None:
        connection, _ = store.accept()
        with connection, connection.makefile("rb") as received:
            while received.readline().strip():
                pass
            for _ in range(20):
                received.read(size // 20)
                time.sleep(0.2)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    (tmp_path / "a.wav").write_bytes(b"x" * size)
    with socket.create_server(("127.0.0.1", 0)) as store:
        store.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)  # nothing waits there to be taken
        url = f"http://127.0.0.1:{store.getsockname()[1]}"
        slot = {"key": "k/a.wav", "uploadUrl": f"{url}/bucket/k/a.wav", "downloadUrl": f"{url}/bucket/k/a.wav"}
        taker = threading.Thread(target=take_slowly)
        taker.start()
        with serve(lambda http: http.answer(200, json.dumps(slot).encode())) as server:
            account = platform(server.url, trusted_origins=frozenset({url}), timeout=2)
            link = Client(account).upload_file(ObjectStoragePath(f"file://{tmp_path}/a.wav"))
        taker.join()
    assert link.startswith("s3://")


class TestOpenAnswer:
    """A stream, as it arrives."""

    @staticmethod
    def stream(url: str, timeout: float | None = None) -> OpenAnswer | Answer | NoResponse:
        session = sync.PlatformSession(platform(url))
        return sync.open_answer(session, Request("POST", f"{url}/api/v2/execute/a", b"{}"), 5, timeout)

    @pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "until the connection ends"])
    def test_each_piece_is_returned_as_it_arrives(self, chunked: bool) -> None:
        taken = threading.Event()

        def write(http: Handler, text: str) -> None:
            data = f"data: {text}\n\n".encode()
            http.wfile.write(b"%x\r\n%s\r\n" % (len(data), data) if chunked else data)

        def script(http: Handler) -> None:
            http.send_response(200)
            http.send_header("Content-Type", "text/event-stream")
            http.send_header("Transfer-Encoding" if chunked else "Connection", "chunked" if chunked else "close")
            http.end_headers()
            write(http, '{"data": "first"}')
            assert taken.wait(10)
            write(http, "[DONE]")
            if chunked:
                http.wfile.write(b"0\r\n\r\n")
            http.close_connection = True

        with serve(script) as server, ModelResponseStreamer(self.stream(server.url)) as chunks:
            assert next(chunks).data == "first"
            taken.set()
            assert [chunk.status for chunk in chunks] == ["SUCCESS"]

    def test_a_compressed_stream_is_decoded(self) -> None:
        body = gzip.compress(b'data: {"data": "hi"}\n\ndata: [DONE]\n\n')
        with serve(lambda http: http.answer(200, body, **{"Content-Encoding": "gzip"})) as server:
            assert [chunk.data for chunk in ModelResponseStreamer(self.stream(server.url))] == ["hi", ""]

    @pytest.mark.parametrize("script", [Handler.reset, lambda http: http.hang(5)], ids=["reset", "silent"])
    @pytest.mark.parametrize("headers", [{"Content-Length": "999"}, {"Transfer-Encoding": "chunked"}])
    def test_a_cut_stream_is_an_error(self, headers: dict[str, str], script: Any) -> None:
        def begin(http: Handler) -> None:
            http.send_response(200)
            for name, value in {"Content-Type": "text/event-stream", **headers}.items():
                http.send_header(name, value)
            http.end_headers()
            data = b'data: {"data": "hi"}\n\n'
            http.wfile.write(b"%x\r\n%s\r\n" % (len(data), data) if "Transfer-Encoding" in headers else data)
            script(http)

        with serve(begin) as server:
            *_, last = ModelResponseStreamer(self.stream(server.url, timeout=0.5))
            assert last.status == "FAILED"
            assert last.error_message.startswith("The stream was cut: ")
            assert last.failure is not None
            assert last.failure.retryable

    def test_endless_pings_time_out(self) -> None:
        def script(http: Handler) -> None:
            http.send_response(200)
            http.send_header("Content-Type", "text/event-stream")
            http.end_headers()
            with suppress(OSError):
                while True:
                    http.wfile.write(b": ping\n\n")
                    time.sleep(0.05)
            http.close_connection = True

        with serve(script) as server:
            (last,) = ModelResponseStreamer(self.stream(server.url, timeout=0.3))
        assert "it timed out" in last.error_message

    def test_a_redirect_is_not_a_stream(self) -> None:
        body = b'{"status": "SUCCESS", "data": "from a login page"}'
        with serve(lambda http: http.answer(302, body, Location="https://login.example")) as server:
            (chunk,) = ModelResponseStreamer(self.stream(server.url))
        assert chunk.status == "FAILED"
        assert chunk.error_message.startswith("HTTP 302")

    def test_a_refusal_and_a_missing_answer_are_not_streams(self) -> None:
        with serve(lambda http: http.answer(402, b"no credits")) as server:
            assert self.stream(server.url) == Answer(402, b"no credits", ANY)
        outcome = self.stream(server.url)
        assert isinstance(outcome, NoResponse)
        assert not outcome.is_sent

    def test_the_key_is_removed(self) -> None:
        body = f'data: {{"data": "{KEY}"}}\n\n'.encode()
        with serve(lambda http: http.answer(200, body)) as server:
            assert next(ModelResponseStreamer(self.stream(server.url))).data == "***"

    def test_closing_it_closes_the_connection(self) -> None:
        ended = threading.Event()

        def script(http: Handler) -> None:
            http.send_response(200)
            http.send_header("Content-Type", "text/event-stream")
            http.end_headers()
            try:
                while True:
                    http.wfile.write(b'data: {"data": "more"}\n\n')
            except OSError:
                ended.set()
                http.close_connection = True

        with serve(script) as server:
            with ModelResponseStreamer(self.stream(server.url)) as chunks:
                assert next(chunks).data == "more"
            assert ended.wait(10)


class TestFiles:
    def test_a_file_is_streamed_without_the_key(self, tmp_path: Path) -> None:
        path = tmp_path / "a.wav"
        path.write_bytes(b"RIFF" * 100_000)
        with serve(lambda http: http.answer(200)) as server, path.open("rb") as file:
            request = Request("PUT", f"{server.url}/store/a.wav?s=1", file, "audio/wav", Credential.NONE)
            assert isinstance(send_sync(platform(server.url), request), Answer)
        (asked,) = server.asked
        assert asked.body == path.read_bytes()
        assert asked.headers["content-length"] == "400000"
        assert asked.headers["content-type"] == "audio/wav"
        assert KEY not in str(asked.headers)

    @pytest.mark.parametrize("header", ["X-Plain", "X-Malformed "])
    def test_the_log_does_not_show_a_presigned_url(self, header: str, caplog: pytest.LogCaptureFixture) -> None:
        with serve(lambda http: http.answer(200, **{header: "1"})) as server, caplog.at_level("DEBUG"):
            url = f"{server.url}/a?signature=s3cret"
            send_sync(platform(server.url), Request("PUT", url, b"x", "", Credential.NONE))
            assert f"PUT {server.url}: HTTP 200" in caplog.text
            assert "s3cret" not in caplog.text

    def test_an_error_does_not_show_a_presigned_url(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as unused:
            url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        outcome = send_sync(platform(url), Request("PUT", f"{url}/a?signature=s3cret", b"x", "", Credential.NONE))
        assert isinstance(outcome, NoResponse)
        assert "s3cret" not in outcome.reason


def test_a_slow_body_is_cut_at_the_deadline(send: Send) -> None:
    def script(http: Handler) -> None:
        http.send_response(200)
        http.send_header("Content-Length", "1000")
        http.end_headers()
        with suppress(OSError):
            for _ in range(200):
                http.wfile.write(b"x")
                time.sleep(0.05)
        http.reset()

    with serve(script) as server:
        outcome = send(platform(server.url), Request("GET", f"{server.url}/run"), 0.3)
    assert isinstance(outcome, NoResponse)
    assert outcome.reason
    assert outcome.is_sent


def test_a_users_session_has_the_connections_settings(mocker: MockerFixture) -> None:
    request = mocker.patch("requests.Session.request")
    account = platform("https://h", proxy="http://proxy:3128", timeout=7, verify=False)
    with sync.PlatformSession(account) as session:
        session.get("https://h/x")
        session.get("https://h/x", timeout=1, verify=True, proxies={})
    theirs, own = (call.kwargs for call in request.call_args_list)
    proxies = {"http": "http://proxy:3128", "https": "http://proxy:3128"}
    assert (theirs["timeout"], theirs["verify"], theirs["proxies"]) == (7, False, proxies)
    assert (own["timeout"], own["verify"], own["proxies"]) == (1, True, {})


def test_a_users_session_sends_the_key_to_the_backend() -> None:
    with serve(lambda http: http.answer(200)) as server, sync.PlatformSession(platform(server.url)) as session:
        session.get(f"{server.url}/sdk/models", timeout=5)
        session.get(f"{server.url}/sdk/models", headers={"Authorization": f"Token {KEY}"}, timeout=5)
    first, second = server.asked
    assert first.headers["x-api-key"] == KEY
    assert "x-api-key" not in second.headers
