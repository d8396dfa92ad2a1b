"""The public package ``aixplain`` works against the emulator, unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.deployment import Emulator, Processes, wait_until
from tests.support.peer import Peer

TEXT = "The coffee is wonderful."


@pytest.fixture(scope="module")
def call(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("emulated")
    with Processes(folder / "emulator") as processes:
        emulator = Emulator(processes, seconds=0.2)
        with Peer(emulator.url, folder) as peer:

            def call(name: str, /, **arguments: Any) -> Any:
                outcome = peer.call(name, arguments)
                assert "raises" not in outcome, outcome["raises"]
                return outcome["returns"]

            yield call


def test_runs_and_polls_return_the_result(call: Any) -> None:
    submitted = call("run_async", model_id="sentiment", data=TEXT)
    assert submitted["status"] == "IN_PROGRESS"
    response = call("sync_poll", poll_url=submitted["url"])
    assert (response["status"], response["data"], response["completed"]) == ("SUCCESS", "positive", True)
    assert response["used_credits"] > 0
    assert call("poll", poll_url=submitted["url"]) == response
    assert call("run", model_id="sentiment", data=TEXT)["data"] == "positive"
    assert call("run", model_id="sentiment", data=TEXT, parameters={"delay": 1.2})["data"] == "positive"
    refused = call("run", model_id="nothing", data=TEXT)
    assert (refused["status"], refused["completed"]) == ("FAILED", True)


def test_a_stream_is_complete(call: Any) -> None:
    chunks = call("run_stream", model_id="echo", data=TEXT)
    assert "".join(chunk["data"] for chunk in chunks) == TEXT
    assert chunks[-1]["status"] == "SUCCESS"


def test_models_are_found_by_id_and_name(call: Any) -> None:
    for arguments in ({"model_id": "language"}, {"name": "py3langid"}):
        model = call("get_model", **arguments)
        assert (model["id"], model["function"], model["status"]) == ("language", "language-identification", "onboarded")


def test_a_training_finishes_and_its_model_is_deleted(call: Any) -> None:
    def finished() -> Any:
        status = call("check_finetune_status", model_id="tuned")
        return status if status["model_status"] == "onboarded" else None

    assert wait_until(finished, "the training", 10, every=0.1)["epoch"] == 3
    assert call("delete", model_id="tuned") is None
    with pytest.raises(AssertionError, match="Model Deletion Error"):
        call("delete", model_id="tuned")


def test_a_file_is_uploaded_and_analysed(call: Any, tmp_path: Path) -> None:
    path = tmp_path / "review.txt"
    path.write_text("What a terrible disappointment")
    link = call("upload", local_path=str(path))
    assert call("run", model_id="sentiment", data=link)["data"] == "negative"
    assert call("run", model_id="sentiment", data=str(path))["data"] == "negative"


@pytest.mark.parametrize("is_async", [False, True])
def test_agents_run_and_show_their_steps(call: Any, tmp_path: Path, is_async: bool) -> None:
    path = tmp_path / "reviews.txt"
    path.write_text("What a terrible disappointment")
    query = {"input": TEXT, "delay": 1.5}
    result = call("run_agent", agent_id="review-analyst", query=query, attachments=[str(path)], is_async=is_async)
    assert (result["status"], result["completed"]) == ("SUCCESS", True)
    assert result["data"]["output"] == "reviews 2, positive 1, neutral 0, negative 1, languages (en 2)"
    assert result["used_credits"] == pytest.approx(sum(step["used_credits"] for step in result["data"]["steps"]))
    assert (result["run_time"], result["data"]["artifacts"][0]["name"]) == (1.5, "reviews.csv")
    assert "✓ Step  4" in result["printed"]
    assert "Review analyst ⚒ VADER" in result["printed"]
    assert "✓ Completed 4 steps" in result["printed"]


def test_a_conversation_continues(call: Any) -> None:
    first = call("run_agent", agent_id="review-analyst", query=TEXT)
    second = call("run_agent", agent_id="review-analyst", query=TEXT, sessionId=first["session_id"])
    assert second["session_id"] == first["session_id"]
    assert "earlier (reviews 1, positive 1" in second["data"]["output"]
    legacy = call("run_legacy_agent", agent_id="review-analyst", query=TEXT, session_id=first["session_id"])
    assert (legacy["status"], legacy["session_id"]) == ("SUCCESS", first["session_id"])
    assert "earlier (reviews 2, positive 2" in legacy["output"]


def test_a_budget_ends_an_agent(call: Any) -> None:
    query = {"input": "hello", "steps": 3}
    result = call("run_agent", agent_id="echo-agent", query=query, budget={"max_iterations": 2})
    assert (result["status"], len(result["data"]["steps"])) == ("SUCCESS", 2)
    assert result["data"]["governance"]["status"] == "BLOCKED_BY_BUDGET"


def test_agents_fail_and_are_aborted(call: Any) -> None:
    with pytest.raises(AssertionError, match="neither the input nor an attachment has a review"):
        call("run_agent", agent_id="review-team", query={"topic": TEXT})
    with pytest.raises(AssertionError, match="no agent nothing"):
        call("run_agent", agent_id="nothing", query=TEXT)
    assert call("run_agent", agent_id="echo-agent", query={"input": TEXT, "outcome": "aborted"})["status"] == "ABORTED"
