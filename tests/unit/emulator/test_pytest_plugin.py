"""The pytest fixtures for users' own tests."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

USERS_TEST = """
from airflow_provider_aixplain.hooks.aixplain import AixplainHook

def test_mine(aixplain_connection):
    hook = AixplainHook()
    response = hook.sync_poll(hook.run_async("echo", "hello").url, wait_time=0.2)
    assert (response.status, response.data) == ("SUCCESS", "hello")
    assert [run["payload"] for run in aixplain_connection.runs] == [{"data": "hello"}]

def test_another(aixplain_emulator, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", aixplain_emulator.connection)
    assert AixplainHook("other").test_connection()[0]
"""


def test_users_tests_run_with_the_fixtures(pytester: pytest.Pytester) -> None:
    pytester.makeconftest('pytest_plugins = ["airflow_provider_aixplain.emulator.pytest_plugin"]')
    pytester.makepyfile(USERS_TEST)
    result = pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=2)
    assert not list(Path(pytester.path).glob("*.run")), "runs are stored in a temporary folder"
