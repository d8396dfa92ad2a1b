"""A real PostgreSQL and a real Redis on this machine, each with a folder and a port of its own.

``python -m tests.airflow.services`` installs what is absent, where it may: as root, with ``apt-get``. Where it may
not, it fails in CI, and says so elsewhere.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from tests.airflow.deployment import Processes, free_port, wait_until

# What the tests need, and the package of Debian that has it.
BINARIES = {"postgres": "postgresql", "redis-server": "redis-server"}


def find(binary: str) -> Path | None:
    """Return where a program is; Debian keeps those of PostgreSQL off the path."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = shutil.which(binary, path=os.pathsep.join([*map(str, folders), os.environ.get("PATH", "")]))
    return Path(found) if found else None


def missing() -> str:
    """Return what is absent, and how to get it; empty if nothing is."""
    absent = [package for binary, package in BINARIES.items() if not find(binary)]
    return f"absent on this machine: {', '.join(absent)} (on Debian: apt install {' '.join(absent)})" if absent else ""


class Postgres:
    """A PostgreSQL server.

    :param processes: starts and ends it.
    """

    def __init__(self, processes: Processes) -> None:
        self.processes = processes
        self.port = free_port()
        self.dsn = f"postgresql://airflow@127.0.0.1:{self.port}/postgres"
        self.url = self.dsn.replace("postgresql", "postgresql+psycopg2")
        # Not among the other files: another user has to reach it, as PostgreSQL refuses to run as root.
        self.folder = Path(tempfile.mkdtemp(prefix="airflow-postgres-"))
        processes.at_the_end(lambda: shutil.rmtree(self.folder, ignore_errors=True))
        self.user = None if os.getuid() else _somebody()
        if self.user:
            shutil.chown(self.folder, self.user)
        settings = "-c fsync=off -c max_connections=200 -c listen_addresses=127.0.0.1"
        data = str(self.folder / "data")
        self._run("initdb", "-D", data, "-U", "airflow", "-A", "trust", "-E", "UTF8", "--locale=C")
        self._command = ["-D", data, "-p", str(self.port), "-k", str(self.folder), *settings.split()]
        self.start()

    def start(self) -> None:
        """Start the server and wait until it answers."""
        self.processes.start("postgres", str(_found("postgres")), *self._command, user=self.user, cwd="/")
        wait_until(lambda: self.processes.check("postgres") or _listens(self.port), "PostgreSQL", 60)

    def stop(self) -> None:
        """Cut all its connections and stop it."""
        process = self.processes.running["postgres"]
        process.send_signal(signal.SIGINT)
        process.wait(60)
        del self.processes.running["postgres"]

    def _run(self, binary: str, *arguments: str) -> None:
        subprocess.run([_found(binary), *arguments], check=True, user=self.user, stdout=subprocess.DEVNULL, cwd="/")


class Redis:
    """A Redis server that keeps everything in memory.

    :param processes: starts and ends it.
    """

    def __init__(self, processes: Processes) -> None:
        port = free_port()
        self.url = f"redis://127.0.0.1:{port}/0"
        arguments = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
        processes.start("redis", str(_found("redis-server")), *arguments)
        wait_until(lambda: _listens(port), "Redis", 30)


def _somebody() -> str:
    """Return a user who is not root."""
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _found(binary: str) -> Path:
    path = find(binary)
    if path is None:
        raise FileNotFoundError(missing())
    return path


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def install() -> int:
    """Install what is absent. Where that is not possible the tests that need it say so."""
    packages = [package for binary, package in BINARIES.items() if not find(binary)]
    if packages and os.getuid() == 0 and shutil.which("apt-get"):
        # In runlevel 1 Debian starts no service: the tests start their own.
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        for command in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
            subprocess.run(["apt-get", "-q", *command], env=env, stdout=subprocess.DEVNULL)
    if absent := missing():
        print(absent, file=sys.stderr)
    return 1 if absent and os.environ.get("CI") else 0


if __name__ == "__main__":
    sys.exit(install())
