"""The public package in its own process, and a server that records the requests of both sides."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.scripted import Server, serve

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv/aixplain-0.2.48/bin/python"
KEY = "0123456789abcdef0123456789abcdef"


def settings(url: str) -> dict[str, str]:
    """Return environment variables for the package.

    :param url: base URL of the platform.
    """
    return {
        "BACKEND_URL": url,
        "MODELS_RUN_URL": f"{url}/api/v1/execute",
        "TEAM_API_KEY": KEY,
        "AIXPLAIN_ALLOW_INSECURE_URLS": "1",
    }


class Peer:
    """The package ``aixplain`` in its own process.

    :param url: base URL of the platform.
    :param folder: its working directory, with its cache.
    :param env: further environment variables.
    """

    def __init__(self, url: str, folder: Path, **env: str) -> None:
        if not PYTHON.exists():
            raise FileNotFoundError(f"{PYTHON}: create it with 'make {PYTHON.parents[1].relative_to(ROOT)}/.ready'")
        self.process = subprocess.Popen(
            [PYTHON, "-m", "tests.parity.peer"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(folder / "stderr").open("w"),
            text=True,
            cwd=folder,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(ROOT),
                "NO_PROXY": "127.0.0.1,localhost",
                **settings(url),
                "AIXPLAIN_UPLOAD_HOST_ALLOWLIST": "127.0.0.1",
                **env,
            },
        )

    def call(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return ``{"returns": value}`` or ``{"raises": message}``."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"call": name, "arguments": arguments}) + "\n")
        self.process.stdin.flush()
        response: dict[str, Any] = json.loads(self.process.stdout.readline())
        return response

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()


@pytest.fixture(scope="session")
def recorder() -> Iterator[Server]:
    with serve(lambda http: http.answer(404)) as server:
        yield server


@pytest.fixture(scope="session")
def peer(recorder: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    with Peer(recorder.url, tmp_path_factory.mktemp("peer")) as peer:
        yield peer


@pytest.fixture
def tls_recorder(certificate: Path) -> Iterator[Server]:
    with serve(lambda http: http.answer(404), certificate) as server:
        yield server
