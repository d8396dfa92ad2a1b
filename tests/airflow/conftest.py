"""What the tests in a real Airflow share: one that is told everything."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.deployment import Processes
from tests.support.home import Home, dags_for


@pytest.fixture(scope="package")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    folder = tmp_path_factory.mktemp("home")
    with Processes(folder / "airflow") as processes:
        yield Home(processes, dags_for(folder / "dags"))
