"""The public package in a process of its own, and a server that records what both sides ask."""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.unit.transport.scripted import Server, serve

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv/aixplain-0.2.48/bin/python"
KEY = "0123456789abcdef0123456789abcdef"


class Peer:
    """The package ``aixplain``, pointed at a server.

    :param url: where it finds the platform.
    :param folder: where it may write; it keeps a cache there.
    :param env: further settings of its environment.
    """

    def __init__(self, url: str, folder: Path, **env: str) -> None:
        if not PYTHON.exists():
            raise FileNotFoundError(f"{PYTHON}: make it with 'make {PYTHON.parents[1].relative_to(ROOT)}/.ready'")
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
                "BACKEND_URL": url,
                "MODELS_RUN_URL": f"{url}/api/v1/execute",
                "TEAM_API_KEY": KEY,
                "AIXPLAIN_ALLOW_INSECURE_URLS": "1",
                "AIXPLAIN_UPLOAD_HOST_ALLOWLIST": "127.0.0.1",
                **env,
            },
        )

    def call(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return ``{"gives": value}`` or ``{"raises": message}``."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"call": name, "arguments": arguments}) + "\n")
        self.process.stdin.flush()
        told: dict[str, Any] = json.loads(self.process.stdout.readline())
        return told

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


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The certificate of a server on this machine, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(private + certificate.public_bytes(pem))
    return path


@pytest.fixture
def tls_recorder(certificate: Path) -> Iterator[Server]:
    with serve(lambda http: http.answer(404), certificate) as server:
        yield server
