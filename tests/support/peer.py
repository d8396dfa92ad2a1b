"""The platform's own package ``aixplain``, in its own environment and process."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.support.documentation import ROOT

PEER_VENV = ".venv/aixplain-0.2.48"
PEER_PYTHON = ROOT / PEER_VENV / "bin" / "python"
KEY = "0123456789abcdef0123456789abcdef"


def peer_settings(url: str) -> dict[str, str]:
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
        if not PEER_PYTHON.exists():
            raise FileNotFoundError(f"{PEER_PYTHON}: create it with make {PEER_VENV}/.ready")
        self.process = subprocess.Popen(
            [PEER_PYTHON, "-m", "tests.parity.peer"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(folder / "stderr").open("w"),
            text=True,
            cwd=folder,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(ROOT),
                # Before it runs an agent, the package looks up its own IP address: this proxy refuses the connection.
                "HTTPS_PROXY": "http://127.0.0.1:9",
                "NO_PROXY": "127.0.0.1,localhost",
                **peer_settings(url),
                "AIXPLAIN_UPLOAD_HOST_ALLOWLIST": "127.0.0.1",
                **env,
            },
        )

    def call(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Call a function of ``tests.parity.peer``; return ``{"returns": value}`` or ``{"raises": message}``."""
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
