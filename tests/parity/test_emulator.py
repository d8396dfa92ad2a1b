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


def test_runs_and_polls(call: Any) -> None:
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
