"""A cheap server for polls of runs on four platforms. A run finishes after a number of polls.

Instead, the path of a run of aiXplain may contain the time at which the run finishes.

``python -m tests.benchmarks.poll_server POLLS [CERTIFICATE]`` prints its port; ``/counts`` returns the numbers of polls
and connections.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import time
from collections import Counter
from typing import ClassVar

RUNNING, FINISHED = 0, 1
ANSWERS = {
    # aiXplain, and the bare loop
    "/api/v1/data/": [
        (200, {"completed": False, "status": "IN_PROGRESS"}),
        (200, {"completed": True, "status": "SUCCESS", "data": "hi", "usedCredits": 0.001, "runTime": 10.0}),
    ],
    # dbt Cloud
    "/api/v2/accounts/": [(200, {"data": {"status": 3}}), (200, {"data": {"status": 10}})],
    # Databricks
    "/api/2": [
        (200, {"state": {"life_cycle_state": "RUNNING", "state_message": ""}}),
        (200, {"state": {"life_cycle_state": "TERMINATED", "state_message": "", "result_state": "SUCCESS"}}),
    ],
    # a sensor waits for status 200
    "/sensed/": [(404, {}), (200, {})],
}


def encode(status: int, body: object) -> bytes:
    text = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
    return head.encode() + text


ENCODED = {prefix: [encode(*answer) for answer in answers] for prefix, answers in ANSWERS.items()}


class Connection(asyncio.Protocol):
    """Answers polls."""

    polls = 20
    requested: ClassVar[Counter[bytes]] = Counter()
    opened = open_now = most = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.unread = b""
        Connection.opened += 1
        Connection.open_now += 1
        Connection.most = max(Connection.most, Connection.open_now)

    def connection_lost(self, _: Exception | None) -> None:
        Connection.open_now -= 1

    def data_received(self, data: bytes) -> None:
        self.unread += data
        while b"\r\n\r\n" in self.unread:
            head, _, rest = self.unread.partition(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
            if len(rest) < length:
                return
            self.unread = rest[length:]
            self.transport.write(
                self.answer(head.split(b" ", 2)[1], rest[:length])
            )  # Databricks names the run in a body

    def answer(self, path: bytes, body: bytes) -> bytes:
        if path == b"/counts":
            return encode(200, {"polls": self.requested.total(), "opened": self.opened, "most": self.most})
        self.requested[path + body] += 1
        is_finished = self.requested[path + body] >= self.polls
        if path.startswith(b"/api/v1/data/until/"):
            is_finished = time.time() >= float(path.split(b"/")[5])
        state = FINISHED if is_finished else RUNNING
        return next(answers[state] for prefix, answers in ENCODED.items() if path.startswith(prefix.encode()))


async def serve() -> None:
    Connection.polls = int(sys.argv[1])
    tls = None
    if len(sys.argv) > 2:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(sys.argv[2])
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", 0, ssl=tls, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve())
