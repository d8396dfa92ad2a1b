"""Every example in the documentation does what it says: DAGs in a real Airflow, the rest as whoever copies it does."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests
from airflow.models.connection import Connection

from airflow_provider_aixplain.hooks.connection import read_connection
from airflow_provider_aixplain.operators.aixplain import AixplainRunModelOperator
from airflow_provider_aixplain.sensors.aixplain import AixplainModelRunSensor
from airflow_provider_aixplain.triggers.aixplain import AixplainModelRunTrigger
from tests.support.deployment import AIRFLOW_3, wait_until
from tests.support.documentation import PAGES, ROOT, Example, examples
from tests.support.home import Home

pytestmark = pytest.mark.skipif(not AIRFLOW_3, reason="the documentation's examples import airflow.sdk, of Airflow 3")


def named(kind: str) -> list[Any]:
    return [pytest.param(example, id=example.name) for example in examples(kind)]


def dag_id(example: Example) -> str:
    """The id that a block gives its DAG: the first argument of ``DAG``, or the name of the function under ``@dag``."""
    for node in ast.walk(ast.parse(example.code)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "DAG":
            (first,) = [*node.args[:1], *(word.value for word in node.keywords if word.arg == "dag_id")]
            return str(ast.literal_eval(first))
        if isinstance(node, ast.FunctionDef) and any("dag" in ast.unparse(used) for used in node.decorator_list):
            return node.name
    raise AssertionError(f"{example.name} makes no DAG")


@pytest.fixture(scope="module")
def runs(home: Home) -> dict[str, str]:
    """A run of each DAG, by its id: all at a time, as each waits for most of its time."""
    triggered: dict[str, str] = {}

    def trigger(name: str) -> bool:
        with suppress(requests.HTTPError):  # SQLite takes one writer at a time, and is not always waited for
            triggered[name] = home.airflow.trigger(name)
        return name in triggered

    for example in examples("dag"):
        wait_until(partial(trigger, dag_id(example)), f"a run of {example.name}")
    return triggered


@pytest.mark.parametrize("example", named("dag"))
def test_a_dag(example: Example, home: Home, runs: dict[str, str]) -> None:
    name = dag_id(example)
    run_id = runs[name]
    home.airflow.finish(name, run_id)
    states = {ti["task_id"]: ti["state"] for ti in home.airflow.tasks(name, run_id)}
    assert states
    assert set(states.values()) <= {"success", "skipped"}, states


@pytest.mark.parametrize("example", named("script"))
def test_a_script(example: Example, home: Home, tmp_path: Path) -> None:
    script = tmp_path / "example.py"
    script.write_text(example.code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env=home.airflow.processes.env,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("example", named("tests"))
def test_tests(example: Example, home: Home, tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["airflow_provider_aixplain.emulator.pytest_plugin"]\n')
    (tmp_path / "test_example.py").write_text(example.code, encoding="utf-8")
    env = {name: value for name, value in home.airflow.processes.env.items() if "AIXPLAIN" not in name}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout


def test_the_connection_as_json_and_as_a_uri_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both of docs/connection.md, also after a round trip through Airflow's own forms of them."""
    page = (ROOT / "docs" / "connection.md").read_text(encoding="utf-8")
    blocks = [block for block in re.findall(r"^```shell\n(.*?)^```$", page, re.M | re.S) if "web_url" in block]
    command = 'printf %s "$AIRFLOW_CONN_AIXPLAIN_DEFAULT"'
    told = [
        subprocess.run(["bash", "-c", block + command], capture_output=True, text=True, check=True).stdout
        for block in blocks
    ]
    assert len(told) == 2
    monkeypatch.setattr("os.path.isfile", lambda path: path == "/etc/ssl/certs/company.pem")
    read = [Connection.from_json(text) if text.startswith("{") else Connection(uri=text) for text in told]
    again = [Connection(uri=connection.get_uri()) for connection in read]
    again += [Connection.from_json(connection.as_json()) for connection in read]
    platforms = [read_connection(connection) for connection in [*read, *again]]
    assert platforms[0].timeout == 30
    assert [platform == platforms[0] for platform in platforms] == [True] * 6


@pytest.mark.parametrize(
    ("kind", "page"),
    [
        (AixplainRunModelOperator, "operator"),
        (AixplainModelRunSensor, "sensor"),
        (AixplainModelRunTrigger, "trigger"),
    ],
)
def test_every_parameter_has_its_place(kind: Any, page: str) -> None:
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    missing = [name for name in inspect.signature(kind).parameters if f"`{name}" not in text and name != "kwargs"]
    assert not missing


def test_each_dag_has_its_own_id() -> None:
    ids = [dag_id(example) for example in examples("dag")]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{page.relative_to(ROOT)}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", there.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in anchors, f"{page.relative_to(ROOT)}: {target}"
