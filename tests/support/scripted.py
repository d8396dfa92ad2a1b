"""A local HTTP server that answers as a test's script decides, and records requests."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Script = Callable[["Handler"], None]


@dataclass
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    client_port: int


@dataclass
class Server:
    """A running server.

    :param script: answers one request.
    :param tunnels: where tunnels lead, instead of to the ``host:port`` that the client names.
    """

    url: str
    script: Script
    asked: list[Asked] = field(default_factory=list)
    tunnels: dict[str, str] = field(default_factory=dict)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen: Server

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.seen.asked.append(Asked(self.command, self.path, headers, body, self.client_address[1]))
        self.seen.script(self)

    do_GET = do_POST = do_PUT = do_DELETE = handle_any

    def do_CONNECT(self) -> None:
        """Tunnel to the target that the client names, as a proxy does."""
        self.seen.asked.append(Asked("CONNECT", self.path, dict(self.headers.items()), b"", self.client_address[1]))
        host, _, port = self.seen.tunnels.get(self.path, self.path).rpartition(":")
        with socket.create_connection((host, int(port))) as target:
            self.send_response(200)
            self.end_headers()
            back = threading.Thread(target=copy, args=(target, self.connection))
            back.start()
            copy(self.connection, target)
            back.join()
        self.close_connection = True

    def answer(self, status: int, body: bytes = b"{}", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def reset(self) -> None:
        """Cut the connection with a TCP reset."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def hang(self, seconds: float) -> None:
        time.sleep(seconds)
        self.reset()

    def finish(self) -> None:
        if not self.wfile.closed:
            super().finish()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


class _HTTPServer(ThreadingHTTPServer):
    request_queue_size = 1024  # with the default of 5, hundreds of clients wait for seconds to connect


def copy(source: socket.socket, target: socket.socket) -> None:
    """Copy bytes until one side closes the connection."""
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@contextmanager
def serve(script: Script, certificate: Path | None = None) -> Iterator[Server]:
    """Run a server for the duration of a block.

    :param certificate: a file with a certificate and its key; with it, the server speaks TLS.
    """
    handler = type("Bound", (Handler,), {})
    with _HTTPServer(("127.0.0.1", 0), handler) as httpd:
        httpd.daemon_threads = True
        httpd.handle_error = lambda *_: None  # type: ignore[method-assign]
        if certificate is not None:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(certificate)
            httpd.socket = tls.wrap_socket(httpd.socket, server_side=True)
        scheme = "https" if certificate else "http"
        server = Server(f"{scheme}://127.0.0.1:{httpd.server_port}", script)
        handler.seen = server  # type: ignore[attr-defined]
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            httpd.shutdown()
            thread.join()
