"""Every example in the documentation runs: DAGs in a real Airflow, tests with pytest, scripts with Python."""

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
from airflow_provider_aixplain.operators.aixplain import AixplainRunAgentOperator, AixplainRunModelOperator
from airflow_provider_aixplain.operators.run import RunBaseOperator
from airflow_provider_aixplain.run_settings import RunSettings
from airflow_provider_aixplain.sensors.aixplain import AixplainModelRunSensor
from tests.support.deployment import AIRFLOW_3, wait_until
from tests.support.documentation import PAGES, ROOT, Example, examples
from tests.support.monitored import Monitored

pytestmark = pytest.mark.skipif(not AIRFLOW_3, reason="the documentation's examples import airflow.sdk, of Airflow 3")


def parameters(kind: str) -> list[Any]:
    return [pytest.param(example, id=example.name) for example in examples(kind)]


def dag_id(example: Example) -> str:
    """Return the id of an example's DAG: the first argument of ``DAG``, or the name of the function under ``@dag``."""
    for node in ast.walk(ast.parse(example.code)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "DAG":
            (first,) = [*node.args[:1], *(word.value for word in node.keywords if word.arg == "dag_id")]
            return str(ast.literal_eval(first))
        if isinstance(node, ast.FunctionDef) and any("dag" in ast.unparse(used) for used in node.decorator_list):
            return node.name
    raise AssertionError(f"{example.name} defines no DAG")


@pytest.fixture(scope="module")
def runs(monitored: Monitored) -> dict[str, str]:
    """The ids of one run of each DAG, by DAG id. All run at the same time, as each mostly waits."""
    triggered: dict[str, str] = {}

    def trigger(name: str) -> bool:
        with suppress(requests.HTTPError):  # SQLite allows one writer, and Airflow does not always wait for it
            triggered[name] = monitored.airflow.trigger(name)
        return name in triggered

    for example in examples("dag"):
        wait_until(partial(trigger, dag_id(example)), f"a run of {example.name}")
    return triggered


@pytest.mark.parametrize("example", parameters("dag"))
def test_a_dag_succeeds(example: Example, monitored: Monitored, runs: dict[str, str]) -> None:
    name = dag_id(example)
    run_id = runs[name]
    monitored.airflow.finish(name, run_id)
    states = {ti["task_id"]: ti["state"] for ti in monitored.airflow.tasks(name, run_id)}
    assert states
    assert set(states.values()) <= {"success", "skipped"}, states


@pytest.mark.parametrize("example", parameters("script"))
def test_a_script_succeeds(example: Example, monitored: Monitored, tmp_path: Path) -> None:
    script = tmp_path / "example.py"
    script.write_text(example.code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env=monitored.airflow.processes.env,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("example", parameters("tests"))
def test_tests_pass(example: Example, monitored: Monitored, tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["airflow_provider_aixplain.emulator.pytest_plugin"]\n')
    (tmp_path / "test_example.py").write_text(example.code, encoding="utf-8")
    env = {name: value for name, value in monitored.airflow.processes.env.items() if "AIXPLAIN" not in name}
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


def test_the_connection_is_the_same_as_json_and_uri(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are in docs/connection.md; they stay the same when Airflow converts one into the other."""
    page = (ROOT / "docs" / "connection.md").read_text(encoding="utf-8")
    blocks = [block for block in re.findall(r"^```shell\n(.*?)^```$", page, re.M | re.S) if "web_url" in block]
    command = 'printf %s "$AIRFLOW_CONN_AIXPLAIN_DEFAULT"'
    variables = [
        subprocess.run(["bash", "-c", block + command], capture_output=True, text=True, check=True).stdout
        for block in blocks
    ]
    assert len(variables) == 2
    monkeypatch.setattr("os.path.isfile", lambda path: path == "/etc/ssl/certs/company.pem")
    read = [Connection.from_json(text) if text.startswith("{") else Connection(uri=text) for text in variables]
    again = [Connection(uri=connection.get_uri()) for connection in read]
    again += [Connection.from_json(connection.as_json()) for connection in read]
    platforms = [read_connection(connection) for connection in [*read, *again]]
    assert platforms[0].timeout == 30
    assert [platform == platforms[0] for platform in platforms] == [True] * 6


@pytest.mark.parametrize(
    ("kind", "page"),
    [
        (AixplainRunModelOperator, "operator"),
        (RunBaseOperator, "operator"),
        (AixplainRunAgentOperator, "agents"),
        (AixplainModelRunSensor, "sensor"),
        (RunSettings, "trigger"),
    ],
)
def test_every_parameter_is_documented(kind: Any, page: str) -> None:
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
