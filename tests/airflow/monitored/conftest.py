"""One Airflow for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.deployment import Processes
from tests.support.monitored import Monitored, dags_for


@pytest.fixture(scope="package")
def monitored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Monitored]:
    folder = tmp_path_factory.mktemp("monitored")
    with Processes(folder / "airflow") as processes:
        yield Monitored(processes, dags_for(folder / "dags"))
