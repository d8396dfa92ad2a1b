"""The emulator's page, and the state that it shows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import requests

from airflow_provider_aixplain.emulator.server import SHOWN_RUNS
from tests.support.deployment import Emulator, Processes, wait_until

KEY = {"x-api-key": "any"}
MARKUP = "<img src=x onerror=\"document.title = 'executed'\">"


@pytest.fixture
def own(tmp_path: Path) -> Any:
    """An emulator whose runs and faults belong to one test."""
    with Processes(tmp_path / "emulator") as processes:
        yield Emulator(processes, seconds=0)


def submit(emulator: Emulator, path: str, **payload: Any) -> str:
    answer = requests.post(f"{emulator.url}/{path}", json=payload, headers=KEY, timeout=10)
    return str(answer.json()["data"])


def state_of(emulator: Emulator) -> dict[str, Any]:
    state: dict[str, Any] = requests.get(f"{emulator.url}/emulator/state", timeout=10).json()
    return state


def finished(emulator: Emulator) -> dict[str, Any]:
    def is_finished() -> dict[str, Any] | None:
        state = state_of(emulator)
        return None if "IN_PROGRESS" in state["statuses"] else state

    state: dict[str, Any] = wait_until(is_finished, "the runs", 20, every=0.05)
    return state


def test_the_policy_permits_only_the_pages_own_code(emulator: Emulator) -> None:
    pages = [requests.get(emulator.url, timeout=10) for _ in range(2)]
    nonces = [re.findall(r'<(?:script|style) nonce="([\w-]{22})">', page.text) for page in pages]
    assert [len(set(found)) for found in nonces] == [1, 1]
    assert nonces[0] != nonces[1]
    policy = pages[0].headers["Content-Security-Policy"]
    assert f"script-src 'nonce-{nonces[0][0]}';" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<[^>]+ (?:src|on\w+)=|innerHTML", pages[0].text)


def test_the_state_sums_up_all_runs(own: Emulator) -> None:
    for model_id in ("echo", "fail", "sentiment"):
        submit(own, f"api/v1/execute/{model_id}", data="The coffee is wonderful.")
    submit(own, "v2/agents/echo-agent/run", query={"input": "hi", "outcome": "aborted"})
    state = finished(own)
    assert (state["total"], state["statuses"]) == (4, {"SUCCESS": 2, "FAILED": 1, "ABORTED": 1})
    newest = state["runs"][0]
    assert [newest[name] for name in ("agent_id", "input", "status", "polls")] == ["echo-agent", "hi", "ABORTED", 0]
    assert state["runs"][1]["model_id"] == "sentiment"
    assert state["credits"] == pytest.approx(sum(run["used_credits"] for run in own.runs()))
    assert state["credits"] > 0


def test_the_state_is_bounded(own: Emulator) -> None:
    for number in range(SHOWN_RUNS + 1):
        submit(own, "api/v1/execute/echo", data=f"{number} " + "a" * 1000)
    state = state_of(own)
    assert state["total"] == SHOWN_RUNS + 1
    assert [run["input"].split()[0] for run in state["runs"]] == [str(number) for number in range(SHOWN_RUNS, 0, -1)]
    assert max(len(run["input"]) for run in state["runs"]) == 80


def test_the_state_has_the_faults_that_are_on(own: Emulator) -> None:
    own.set_faults(rate=1, kinds=["garbage"], submission_seconds=0.01)
    requests.get(submit(own, "api/v1/execute/echo"), headers=KEY, timeout=10)
    assert state_of(own)["faults"] == {
        "rate": 1,
        "kinds": ["garbage"],
        "foreign_poll_urls": 0,
        "submission_seconds": 0.01,
        "counts": {"garbage": 1},
    }


def test_the_state_describes_models_and_agents(emulator: Emulator) -> None:
    state = state_of(emulator)
    assert {"sentiment", "tuned"} <= {model["id"] for model in state["models"]}
    assert {agent["id"] for agent in state["agents"]} == {"review-analyst", "echo-agent", "review-team"}
    assert all(asset["description"] and "credits" in asset["price"] for asset in state["models"])


def test_the_connection_works(emulator: Emulator) -> None:
    fields = json.loads(state_of(emulator)["connection"])
    record = f"{fields['host']}/sdk/models/echo"
    assert requests.get(record, headers={"Authorization": f"Token {fields['password']}"}, timeout=10).ok


def test_the_key_is_not_shown(tmp_path: Path) -> None:
    with Processes(tmp_path / "emulator") as processes:
        state = requests.get(f"{Emulator(processes, 0, key='secret').url}/emulator/state", timeout=10).text
    assert "THE-VALUE-OF-KEY" in state
    assert "secret" not in state


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_runs_and_executes_none(own: Emulator, scheme: str) -> None:
    expect = pytest.importorskip("playwright.sync_api", reason="only the environment of Airflow 3.3.2 has it").expect
    from tests.support.browser import open_page, picture

    problems: list[str] = []
    with open_page(own.url, color_scheme=scheme) as page:
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto("/")
        expect(page.get_by_role("status")).to_have_text("live")
        expect(page.get_by_text("No run yet")).to_be_visible()
        submit(own, "api/v1/execute/echo", data=MARKUP)
        row = page.get_by_role("row").filter(has_text="echo").filter(has_text=MARKUP)
        expect(row).to_contain_text("succeeded")
        expect(page.get_by_text("No run yet")).to_be_hidden()
        page.get_by_role("button", name="Copy").click()
        expect(page.get_by_role("button")).to_have_text(re.compile("Copied|Selected"))
        picture(page, f"emulator-{scheme}")
        assert page.title() == "aiXplain emulator"
        assert page.locator("img").count() == 0
        assert problems == []
        own.processes.stop("emulator")
        expect(page.get_by_role("status")).to_contain_text("does not answer")
