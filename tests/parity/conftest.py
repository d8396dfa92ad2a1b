"""Fixtures: the public package in its own process, and a server that records the requests of both sides."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.peer import Peer
from tests.support.scripted import Server, serve


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
