"""Receives the metrics that a real Airflow sends."""

from __future__ import annotations

import socket
import threading
from decimal import Decimal
from typing import Any

from tests.support.deployment import Processes


class StatsListener:
    """A stand-in for a StatsD server, with tags in InfluxDB's format.

    :param processes: the deployment that it belongs to.
    """

    def __init__(self, processes: Processes) -> None:
        self.lines: list[str] = []
        """All metrics, in StatsD's format."""
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        threading.Thread(target=self._listen, daemon=True).start()
        processes.add_cleanup(self._socket.close)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of an Airflow that sends its metrics here."""
        return {
            "metrics__statsd_on": True,
            "metrics__statsd_host": "127.0.0.1",
            "metrics__statsd_port": self._socket.getsockname()[1],
            "metrics__statsd_influxdb_enabled": True,  # with tags
        }

    def metrics(self, name: str, **tags: str) -> list[str]:
        """Return the values of a metric of this provider with these tags, such as ``1|c``."""
        wanted = {f"{tag}={value}" for tag, value in tags.items()}
        values = []
        for line in list(self.lines):
            metric, _, value = line.partition(":")
            sent_name, *sent_tags = metric.split(",")
            if sent_name == f"airflow.aixplain.{name}" and wanted <= set(sent_tags):
                values.append(value)
        return values

    def credits(self, **tags: str) -> Decimal:
        """Return the sum of the credits with these tags."""
        return Decimal(sum(int(count.removesuffix("|c")) for count in self.metrics("credits", **tags))) / 1_000_000

    def _listen(self) -> None:
        while True:
            try:
                datagram = self._socket.recv(65536)
            except OSError:
                return
            self.lines += datagram.decode().splitlines()
