"""Example DAGs are parsed without a network and without a Connection."""

from __future__ import annotations

import importlib.util
import re
import socket
from pathlib import Path
from typing import Any, NoReturn

import pytest
from airflow.providers.common.compat.sdk import DAG

from tests.support.deployment import AIRFLOW_3
from tests.support.documentation import PAGES

EXAMPLES = sorted((Path(__file__).parents[2] / "example_dags").glob("*.py"))


@pytest.mark.skipif(not AIRFLOW_3, reason="the examples import airflow.sdk, of Airflow 3")
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_it_is_parsed_without_a_network(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> NoReturn:
        raise AssertionError("a DAG file used the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    dag = getattr(module, path.stem)()
    assert isinstance(dag, DAG)
    assert dag.dag_id == path.stem
    assert dag.task_ids


@pytest.mark.parametrize("path", [*EXAMPLES, *PAGES], ids=lambda path: path.stem)
def test_templated_text_cannot_set_parameters(path: Path) -> None:
    """A string that is a JSON object would set them, so examples pass ``{"data": text}``."""
    assert not re.search(r"""\bdata=f?["']\{\{""", path.read_text(encoding="utf-8"))
