"""Services that tests need: PostgreSQL, Redis, an S3 server, Prometheus and a browser.

``python -m tests.support.services PROGRAM...`` installs missing programs with ``apt-get``, if it runs as root.
Otherwise it reports them, and tests that need them are skipped. With ``--required`` it fails in CI.
"""

from __future__ import annotations

import argparse
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import ExitStack, closing, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from tests.support.deployment import Processes, free_port, wait_until
from tests.support.scripted import Handler, serve

PACKAGES = {
    "postgres": "postgresql",
    "redis-server": "redis-server",
    "chromium": "chromium",
    "prometheus": "prometheus",
}
"""Debian's package of each program."""

SERVICES = ("postgres", "redis-server")


def find(binary: str) -> Path | None:
    """Return the path of a program. Those of PostgreSQL are not on Debian's PATH."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    path = shutil.which(binary, path=os.pathsep.join([*map(str, folders), os.environ.get("PATH", "")]))
    return Path(path) if path else None


def missing(*binaries: str) -> str:
    """Return a message that names the programs that are not installed; empty if all are."""
    absent = [PACKAGES[binary] for binary in binaries if not find(binary)]
    return f"missing on this machine: {', '.join(absent)} (on Debian: apt install {' '.join(absent)})" if absent else ""


class Postgres:
    """A PostgreSQL server.

    :param processes: the deployment that it belongs to.
    """

    def __init__(self, processes: Processes) -> None:
        self.processes = processes
        self.port = free_port()
        self.dsn = f"postgresql://airflow@127.0.0.1:{self.port}/postgres"
        self.url = self.dsn.replace("postgresql", "postgresql+psycopg2")
        # In its own folder, as PostgreSQL does not run as root and its user cannot read the others.
        self.folder = Path(tempfile.mkdtemp(prefix="airflow-postgres-"))
        processes.add_cleanup(lambda: shutil.rmtree(self.folder, ignore_errors=True))
        self.user = None if os.getuid() else _unprivileged_user()
        if self.user:
            shutil.chown(self.folder, self.user)
        settings = "-c fsync=off -c max_connections=200 -c listen_addresses=127.0.0.1"
        data = str(self.folder / "data")
        self._run("initdb", "-D", data, "-U", "airflow", "-A", "trust", "-E", "UTF8", "--locale=C")
        self._command = ["-D", data, "-p", str(self.port), "-k", str(self.folder), *settings.split()]
        self.start()

    def start(self) -> None:
        """Start the server and wait until it answers."""
        self.processes.start("postgres", str(_require("postgres")), *self._command, user=self.user, cwd="/")
        wait_until(lambda: self.processes.check("postgres") or _listens(self.port), "PostgreSQL", 60)

    def stop(self) -> None:
        """Close all connections and stop the server."""
        process = self.processes.running["postgres"]
        process.send_signal(signal.SIGINT)
        process.wait(60)
        del self.processes.running["postgres"]

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query, in a connection of its own."""
        import psycopg2  # only the environments with the dependency group faults have it

        with closing(psycopg2.connect(self.dsn)) as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())

    def _run(self, binary: str, *arguments: str) -> None:
        subprocess.run([_require(binary), *arguments], check=True, user=self.user, stdout=subprocess.DEVNULL, cwd="/")


class Redis:
    """A Redis server that stores its data in memory.

    :param processes: the deployment that it belongs to.
    """

    def __init__(self, processes: Processes) -> None:
        port = free_port()
        self.url = f"redis://127.0.0.1:{port}/0"
        arguments = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
        processes.start("redis", str(_require("redis-server")), *arguments)
        wait_until(lambda: _listens(port), "Redis", 30)


class ObjectStore:
    """An S3 server that stores its data in memory.

    :param processes: the deployment that it belongs to.
    """

    bucket = "batches"

    def __init__(self, processes: Processes) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        # environment variables that every S3 client reads
        settings = {"ENDPOINT_URL": self.url, "ACCESS_KEY_ID": "any", "SECRET_ACCESS_KEY": "any", "REGION": "us-east-1"}
        self.env = {f"AWS_{name}": value for name, value in settings.items()}
        arguments = ["-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
        processes.start("objects", sys.executable, *arguments)
        wait_until(lambda: processes.check("objects") or _listens(port), "the object storage", 60)
        self.fs.mkdir(self.bucket)

    @property
    def fs(self) -> Any:
        """A client of it."""
        from s3fs import S3FileSystem

        return S3FileSystem(endpoint_url=self.url, key="any", secret="any")

    def attach(self, home: Path) -> None:
        """Register the scheme ``s3`` in all processes of an Airflow, as Amazon's provider does."""
        (home / "config").mkdir()
        (home / "config" / "airflow_local_settings.py").write_text(ATTACH)


class StandInExporter:
    """Shows what the statsd exporter shows of Airflow's metrics, without the buckets of timers."""

    def __init__(self) -> None:
        self._series: dict[str, Decimal] = {}

    def __call__(self, http: Handler) -> None:
        text = "".join(f"{series} {value}\n" for series, value in list(self._series.items()))
        http.answer(200, text.encode(), **{"Content-Type": "text/plain"})

    def receive(self, lines: list[str]) -> None:
        """Add up lines in StatsD's format, with tags in InfluxDB's."""
        for line in lines:
            metric, _, sent = line.rpartition(":")
            value, kind, *_ = sent.split("|")
            name, *tags = metric.split(",")
            labels = ",".join('{}="{}"'.format(*tag.split("=")) for tag in tags)
            suffix, unit = ("_sum", 1000) if kind == "ms" else ("", 1)
            series = f"{re.sub('[^a-zA-Z0-9]', '_', name)}{suffix}{{{labels}}}"
            before = Decimal(0) if kind == "g" else self._series.get(series, Decimal(0))
            self._series[series] = before + Decimal(value) / unit


class Prometheus:
    """A Prometheus server that reads a statsd exporter, or its stand-in: Debian 12 has no package of the exporter.

    :param processes: the deployment that they belong to.
    :param mapping: the configuration of the exporter.
    :param config: the configuration of Prometheus, in which ``localhost:9102`` is the exporter.
    """

    def __init__(self, processes: Processes, mapping: str, config: str) -> None:
        self._statsd, exporter, server = free_port(), free_port(), free_port()
        self._url, self._stand_in = f"http://127.0.0.1:{server}", StandInExporter()
        address, ports = f"127.0.0.1:{exporter}", [server]
        if path := find("statsd_exporter"):
            mapping_path = processes.home / "statsd.yml"
            mapping_path.write_text(mapping)
            addresses = f"--statsd.listen-tcp=127.0.0.1:{self._statsd}", f"--web.listen-address={address}"
            options = f"--statsd.mapping-config={mapping_path}", "--statsd.listen-udp=", *addresses
            processes.start("exporter", str(path), *options)
            ports.append(self._statsd)
        else:
            stack = ExitStack()
            address = urlsplit(stack.enter_context(serve(self._stand_in)).url).netloc
            processes.add_cleanup(stack.close)
        config_path = processes.home / "prometheus.yml"
        config_path.write_text(config.replace("localhost:9102", address))
        processes.start(
            "prometheus",
            str(_require("prometheus")),
            f"--config.file={config_path}",
            f"--storage.tsdb.path={processes.home / 'prometheus'}",
            f"--web.listen-address=127.0.0.1:{server}",
        )
        wait_until(lambda: processes.check() or all(map(_listens, ports)), "Prometheus", 60)

    def send(self, lines: list[str]) -> None:
        """Send lines in StatsD's format to the exporter, over TCP, which loses none."""
        if not find("statsd_exporter"):
            self._stand_in.receive(lines)
            return
        with socket.create_connection(("127.0.0.1", self._statsd)) as connection:
            connection.sendall("".join(f"{line}\n" for line in lines).encode())

    def query(self, expression: str, time: float) -> list[dict[str, Any]]:
        """Return the result of a query, one element per series.

        :param time: when it is evaluated, in seconds since the epoch.
        """
        response = requests.get(f"{self._url}/api/v1/query", {"query": expression, "time": f"{time:.3f}"}, timeout=10)
        response.raise_for_status()
        result: list[dict[str, Any]] = response.json()["data"]["result"]
        return result


ATTACH = """
from airflow.sdk.io import fs as filesystems
from s3fs import S3FileSystem
filesystems._BUILTIN_SCHEME_TO_FS["s3"] = lambda conn_id, options: S3FileSystem()
filesystems._register_filesystems.cache_clear()
"""
"""Registers the scheme ``s3`` in Airflow, as Amazon's provider does, which needs 60 more packages."""


def _unprivileged_user() -> str:
    """Return the name of a user other than root."""
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _require(binary: str) -> Path:
    path = find(binary)
    if path is None:
        raise FileNotFoundError(missing(binary))
    return path


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def install(*binaries: str) -> str:
    """Install missing programs, and return a message about those still missing."""
    packages = [PACKAGES[binary] for binary in binaries if not find(binary)]
    if packages and os.getuid() == 0 and shutil.which("apt-get"):
        # In runlevel 1 Debian starts no services; the tests start their own.
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        for command in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
            subprocess.run(["apt-get", "-q", *command], env=env, stdout=subprocess.DEVNULL)
    return missing(*binaries)


def main() -> None:
    """Install programs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("programs", nargs="+", choices=PACKAGES)
    parser.add_argument("--required", action="store_true", help="fail in CI if one is missing")
    arguments = parser.parse_args()
    if absent := install(*arguments.programs):
        print(absent, file=sys.stderr)
    sys.exit(1 if absent and arguments.required and os.environ.get("CI") else 0)


if __name__ == "__main__":
    main()
