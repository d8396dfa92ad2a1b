"""What all tests share: an emulator to talk to, and a Connection to it."""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.airflow.deployment import Emulator, Processes

# Timings belong in benchmarks; and a landing must not hang on luck, so CI tries the same examples every time.
hypothesis.settings.register_profile("project", deadline=None, derandomize=bool(os.environ.get("CI")))
hypothesis.settings.load_profile("project")

# Among Airflow's examples is a listener, which every worker of theirs would have.
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"

# A test run that is asked to end, by a CI's time limit say, ends what it started too.
signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """An emulator whose runs take half a second."""
    home: Path = tmp_path_factory.mktemp("emulator")
    with Processes(home) as processes:
        yield Emulator(processes, seconds=0.5)


@pytest.fixture
def connection(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """The Connection ``aixplain_default`` to the emulator, as the environment holds it."""
    monkeypatch.setenv("AIRFLOW_CONN_AIXPLAIN_DEFAULT", emulator.connection)
    fields: dict[str, object] = json.loads(emulator.connection)
    return fields


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The certificate of a server on this machine, and its key, in one file."""
    return write_certificate(tmp_path_factory.mktemp("tls") / "server.pem")


def write_certificate(path: Path) -> Path:
    """Write the certificate of a server on this machine, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(private + certificate.public_bytes(pem))
    return path
