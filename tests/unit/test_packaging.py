"""What Airflow discovers of the provider."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import requires, version
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred
from airflow.providers_manager import ProvidersManager
from flit_core import buildapi

import airflow_provider_aixplain
from airflow_provider_aixplain.get_provider_info import CONN_FIELDS, HIDDEN_FIELDS, RELABELING
from airflow_provider_aixplain.operators.aixplain import AixplainRunModelOperator
from tests.support.deployment import AIRFLOW_3
from tests.unit.triggers.test_aixplain import event_of

ROOT = Path(__file__).parents[2]


def test_airflow_shows_the_connection_form() -> None:
    """Airflow 3 reads it in the provider's info, Airflow 2 makes it of the hook's widgets."""
    known = ProvidersManager()
    widgets = {name for name in known.connection_form_widgets if name.startswith("extra__aixplain__")}
    assert widgets == {f"extra__aixplain__{name}" for name in CONN_FIELDS}
    behaviour = known.field_behaviours["aixplain"]
    assert behaviour["hidden_fields"] == HIDDEN_FIELDS
    assert behaviour["relabeling"] == RELABELING
    assert behaviour["placeholders"]["host"] == "https://platform-api.aixplain.com"
    assert {name for name, widget in known.connection_form_widgets.items() if widget.is_sensitive} >= {
        "extra__aixplain__proxy"
    }


@pytest.mark.parametrize(
    ("environment", "shown"), [({}, "True"), ({"AIRFLOW__AIXPLAIN__DEFERRABLE": "False"}, "False")]
)
def test_the_command_line_shows_the_configuration(environment: dict[str, str], shown: str) -> None:
    command = [sys.executable, "-m", "airflow", "config", "get-value", "aixplain", "deferrable"]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == [shown], done.stderr


def test_the_form_asks_for_the_port() -> None:
    """The button "Test Connection" of Airflow 3.3.2 sends 0 for an empty port, and is answered with "Bad Request"."""
    assert "enter 443" in ProvidersManager().field_behaviours["aixplain"]["placeholders"]["port"]


def test_distributions_are_complete_and_reproducible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1795478400")
    built = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        built.append([folder / build(str(folder)) for build in (buildapi.build_wheel, buildapi.build_sdist)])
    for one, two in zip(*built, strict=True):
        assert one.read_bytes() == two.read_bytes(), one.name
    if AIRFLOW_3:  # with Airflow 2 comes a twine that does not know today's metadata
        checked = subprocess.run(
            [sys.executable, "-m", "twine", "check", "--strict", *map(str, built[0])], capture_output=True, text=True
        )
        assert checked.returncode == 0, checked.stdout
    with zipfile.ZipFile(built[0][0]) as wheel:
        inside = [name for name in wheel.namelist() if not name.startswith("airflow_provider_aixplain-")]
        (metadata,) = [wheel.read(name).decode() for name in wheel.namelist() if name.endswith("/METADATA")]
    extras = {line.removeprefix("Provides-Extra: ") for line in metadata.splitlines() if "Provides-Extra" in line}
    assert extras == {"azure", "common-ai", "emulator", "gcs", "parquet", "s3"}, (
        "development dependencies are groups, not extras"
    )
    package = ROOT / "airflow_provider_aixplain"
    data = (package / "ui/static", package / "example_dags/data")
    assert set(inside) == {
        str(path.relative_to(ROOT))
        for path in package.rglob("*")
        if path.suffix in (".py", ".html") or path.name == "py.typed" or path.parent in data
    }
    with tarfile.open(built[0][1]) as sdist:
        files = {member.name.partition("/")[2] for member in sdist if member.isreg()}
    examples = {path.relative_to(package).as_posix() for path in package.glob("example_dags/**/*.*") if path.is_file()}
    assert {name for name in examples if not name.endswith(".pyc")} <= files, "files, as a link may not be unpacked"


@pytest.mark.skipif(not AIRFLOW_3, reason="Airflow 2 lists no examples of providers")
def test_airflow_shows_the_examples(tmp_path: Path) -> None:
    def airflow(*arguments: str) -> str:
        env = {**os.environ, "AIRFLOW_HOME": str(tmp_path), "AIRFLOW__CORE__LOAD_EXAMPLES": "True"}
        command = [sys.executable, "-m", "airflow", *arguments]
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()[-1]

    airflow("db", "migrate")
    bundle = ["--local", "-B", "airflow-provider-aixplain-example-dags", "-o", "json"]
    listed = json.loads(airflow("dags", "list", "--columns", "dag_id,tags", *bundle))
    assert {dag["dag_id"] for dag in listed} == {path.stem for path in (ROOT / "example_dags").glob("*.py")}
    assert all("example" in str(dag["tags"]) for dag in listed)
    assert json.loads(airflow("dags", "list-import-errors", *bundle)) == []


def test_the_version_is_stated_once() -> None:
    assert version("airflow-provider-aixplain") == airflow_provider_aixplain.__version__


def test_the_platforms_package_is_not_a_dependency() -> None:
    assert not [line for line in requires("airflow-provider-aixplain") or [] if line.startswith("aixplain")]


def test_constraints_are_plain_lines() -> None:
    for path in (ROOT / "constraints").glob("*.txt"):
        for line in path.read_text().splitlines():
            name, _, pinned = line.partition("==")
            assert name
            assert pinned
            assert not set(line) & set(" /@;#"), line


AIRFLOW = "airflow.sdk" if AIRFLOW_3 else "airflow.models"
IN_DAG_FILE = """
from airflow_provider_aixplain.operators.aixplain import AixplainRunModelOperator
task = AixplainRunModelOperator(task_id="a", model_id="echo", data="a", deferrable=True)
"""
FIRST_VISIT = """
from airflow.providers.common.compat.sdk import TaskDeferred
try:
    task.execute({})
except TaskDeferred:
    pass
"""


def imported_by(code: str) -> set[str]:
    """The names of the modules that code imports, except those that Airflow has imported."""
    names = "print(sorted(set(sys.modules) - before))"
    whole = f"import sys, {AIRFLOW}; before = set(sys.modules)\n{code}\n{names}"
    printed = subprocess.run([sys.executable, "-c", whole], capture_output=True, text=True, check=True).stdout
    return set(ast.literal_eval(printed.splitlines()[-1]))


def test_a_dag_file_imports_no_http_client() -> None:
    """They are imported where they are used; ``make bench`` measures what is left."""
    code = IN_DAG_FILE + "type(task)(task_id='b', model_id='b', data='{{ b }}', start_from_trigger=True)"
    assert not {"aiohttp", "openlineage", "requests", "urllib3", "numpy", "pandas"} & imported_by(code)


@pytest.mark.usefixtures("connection")
def test_workers_import_an_http_client_only_to_submit() -> None:
    with pytest.raises(TaskDeferred) as deferred:
        AixplainRunModelOperator(task_id="a", model_id="echo", data="a", deferrable=True).execute({})
    kwargs = {**(deferred.value.kwargs or {}), "event": event_of(deferred.value.trigger)}
    of_other_calls = {f"airflow_provider_aixplain.protocol.{name}" for name in ("finetune", "model_record", "stream")}
    assert not {"aiohttp", *of_other_calls} & imported_by(IN_DAG_FILE + FIRST_VISIT)
    second = imported_by(IN_DAG_FILE + f"task.resume_execution('resume_from_trigger', {kwargs}, {{}})")
    assert not {"aiohttp", "requests", "urllib3"} & second
