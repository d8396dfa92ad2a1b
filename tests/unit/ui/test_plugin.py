"""The plugin is registered with every supported Airflow, and costs workers nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from airflow_provider_aixplain.ui.plugin import AixplainPlugin
from tests.support.deployment import AIRFLOW_3


def test_the_plugin_is_an_entry_point() -> None:
    (entry,) = [entry for entry in entry_points(group="airflow.plugins") if "aixplain" in entry.value]
    assert entry.load() is AixplainPlugin


def test_only_airflow_3_1_shows_a_page() -> None:
    assert bool(getattr(AixplainPlugin, "react_apps", [])) is AIRFLOW_3
    assert bool(getattr(AixplainPlugin, "fastapi_apps", [])) is AIRFLOW_3


@pytest.mark.skipif(not AIRFLOW_3, reason="Airflow 2 shows no page")
def test_the_bundle_has_airflows_base_path() -> None:
    code = (
        "from airflow_provider_aixplain.ui.plugin import AixplainPlugin\n"
        "print({page['bundle_url'].partition('?')[0] for page in AixplainPlugin.react_apps})"
    )
    env = {**os.environ, "AIRFLOW__API__BASE_URL": "https://example.com/airflow/"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "{'/airflow/aixplain/static/aixplain.js'}"


def test_the_plugin_imports_no_web_framework() -> None:
    code = (
        "import sys, airflow, airflow.plugins_manager; before = set(sys.modules)\n"
        "import airflow_provider_aixplain.ui.plugin\n"
        "print({name.partition('.')[0] for name in set(sys.modules) - before} & {'fastapi', 'starlette', 'sqlalchemy'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


@pytest.mark.skipif(not AIRFLOW_3, reason="Airflow 3 has FastAPI")
class TestBundle:
    @pytest.fixture
    def static(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        from airflow_provider_aixplain.ui import api

        monkeypatch.setattr(api, "STATIC", tmp_path)
        return tmp_path

    def test_a_browser_loads_a_bundle_once(self, static: Path) -> None:
        from fastapi.testclient import TestClient

        from airflow_provider_aixplain.ui.plugin import app

        (static / "aixplain.js").write_text("one")
        client = TestClient(app)
        first = client.get("/static/aixplain.js?v=1")
        assert (first.text, first.headers["cache-control"]) == ("one", "no-cache")
        assert "javascript" in first.headers["content-type"]
        known = {"If-None-Match": first.headers["etag"]}
        assert client.get("/static/aixplain.js?v=1", headers=known).status_code == 304
        (static / "aixplain.js").write_text("changed")
        assert client.get("/static/aixplain.js?v=1", headers=known).text == "changed"

    def test_a_missing_bundle_is_explained(self, static: Path) -> None:
        from fastapi.testclient import TestClient

        from airflow_provider_aixplain.ui.plugin import app

        response = TestClient(app).get("/static/aixplain.js")
        assert (response.status_code, response.json()["detail"]) == (
            404,
            f"aixplain.js is missing in {static.name}/: create it with make ui",
        )
