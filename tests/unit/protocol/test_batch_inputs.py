"""The inputs of the runs of a batch: what they share, and what a row adds."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest
from pydantic import BaseModel

from airflow_provider_aixplain.protocol.agent import AgentInput, shared_input
from airflow_provider_aixplain.protocol.assets import PreparedInput
from airflow_provider_aixplain.protocol.failure import InvalidInput
from airflow_provider_aixplain.protocol.payload import ModelInput


class Answer(BaseModel):
    """The answer to a row."""

    reviews: int


class Urls(NamedTuple):
    """The endpoints of a platform."""

    models_run_url: str = "https://models/execute"
    backend_url: str = "https://backend"


SETTINGS: dict[str, Any] = {
    "tools": [{"id": "t", "parameters": {"k": 1}}],
    "output_format": "json",
    "expected_output": Answer,
    "max_tokens": 10,
    "max_time": 2.5,
    "budget": {"max_cost": 1},
}


def test_a_row_is_added_to_what_all_share() -> None:
    agent = shared_input(None, "a", SETTINGS).with_row({"input": "x"}, {"lang": "en"})
    assert agent == AgentInput("a", {"input": "x"}, {"lang": "en"}, **SETTINGS)
    assert shared_input("m", None, None).with_row({"data": "x"}, {"n": 1}) == ModelInput("m", {"data": "x"}, {"n": 1})


@pytest.mark.parametrize("run", [ModelInput("m", "x", {"n": 1}), AgentInput("a", "x", **SETTINGS)])
def test_a_prepared_body_makes_the_same_request(run: ModelInput | AgentInput) -> None:
    assert PreparedInput(run.asset, run.body()).request(Urls()) == run.request(Urls())


@pytest.mark.parametrize(
    ("ids", "settings", "problem"),
    [
        ((None, None), None, "give either model_id or agent_id"),
        (("m", "a"), None, "give either model_id or agent_id"),
        (("m", None), {}, "agent_settings are for an agent: give agent_id"),
        ((None, "a"), {"session_id": "s"}, "agent_settings has the key 'session_id': the keys are tools, "),
        ((None, "a"), {"attachments": []}, "agent_settings has the key 'attachments'"),
        ((None, "a"), ["budget"], "agent_settings is a list: give a dict"),
        ((None, "a"), {"budget": {"max_cost": -1}}, r"budget\['max_cost'\] is -1"),
    ],
)
def test_what_no_batch_can_share_is_refused(ids: Any, settings: Any, problem: str) -> None:
    with pytest.raises(InvalidInput, match=f"^{problem}"):
        shared_input(*ids, settings)


def test_only_attachments_make_up_for_a_blank_text() -> None:
    body = AgentInput("a", {"input": " "}, attachments=["https://x/a.wav"]).body()
    assert json.loads(body)["query"] == {"input": " "}
    with pytest.raises(InvalidInput, match=r"^query is {'input': ' '}: give a text"):
        AgentInput("a", {"input": " "}).body()
