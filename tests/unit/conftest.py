"""Where batches keep their files in these tests: a folder, and a bucket of an object storage."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.airflow.deployment import free_port, wait_until

BUCKET = "batches"
_numbers = itertools.count()


@pytest.fixture(scope="session")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URI of a bucket: Airflow finds it in this process, and in those that it starts after ``attach``."""
    pytest.importorskip("moto", reason="of the extra faults, which Airflow 3.3.2 is tested with")
    from airflow.sdk.io import attach
    from s3fs import S3FileSystem

    port = free_port()
    url = f"http://127.0.0.1:{port}"
    log = (tmp_path_factory.mktemp("moto") / "log").open("w")
    command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(command, stdout=log, stderr=log)
    with pytest.MonkeyPatch.context() as patch:
        settings = {
            "ENDPOINT_URL": url,
            "ACCESS_KEY_ID": "any",
            "SECRET_ACCESS_KEY": "any",
            "DEFAULT_REGION": "us-east-1",
        }
        for name, value in settings.items():
            patch.setenv(f"AWS_{name}", value)
        try:
            wait_until(lambda: _answers(url), "the object storage", 30)
            fs = S3FileSystem()
            attach("s3", fs=fs)
            fs.mkdir(BUCKET)
            yield f"s3://{BUCKET}"
        finally:
            server.terminate()
            server.wait()


@pytest.fixture(params=["file", "objects"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URI of a folder that nobody has used."""
    if request.param == "file":
        return f"file://{tmp_path}/out"
    return f"{request.getfixturevalue('objects')}/{next(_numbers)}"


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.ConnectionError:
        return False
