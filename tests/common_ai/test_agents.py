"""The hook for common.ai through that provider's own toolset, in an environment of its own: ``make common-ai``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from airflow.providers.common.ai.exceptions import ManagedAgentInvocationError, ManagedAgentRejected
from airflow.providers.common.ai.managed_agents import FailoverManagedAgentClient, ManagedAgentClient
from airflow.providers.common.ai.managed_agents import ManagedAgentRequest as Request
from airflow.providers.common.ai.toolsets import ManagedAgentToolset
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, RetryPromptPart, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from airflow_provider_aixplain.exceptions import AixplainError, AixplainInputError, AixplainRunTimeout
from airflow_provider_aixplain.hooks.agents import AixplainManagedAgentHook
from tests.support.deployment import Emulator
from tests.support.scripted import Handler, Server, serve

ANSWER = {"completed": True, "status": "SUCCESS", "sessionId": "s1", "requestId": "r1", "data": {"output": "Four."}}


class Platform:
    """A server whose agents answer as a test sets it.

    :param submissions: the status and the body of the answer to each submission; the last one is repeated. A body of
        None accepts the run, a status of 0 cuts the connection.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.submissions: list[tuple[int, Any]] = [(201, None)]
        self.poll: dict[str, Any] = ANSWER
        server.script = self.answer

    @property
    def submitted(self) -> list[Any]:
        """The bodies of the submissions."""
        return [json.loads(asked.body) for asked in self.server.asked if asked.method == "POST"]

    def answer(self, http: Handler) -> None:
        if http.command == "GET":
            return http.answer(200, json.dumps(self.poll).encode())
        status, body = self.submissions.pop(0) if len(self.submissions) > 1 else self.submissions[0]
        if status == 0:
            return http.reset()
        accepted = {"requestId": "r1", "sessionId": "s1", "data": f"{self.server.url}/sdk/agents/r1/result"}
        return http.answer(status, json.dumps(accepted if body is None else body).encode())


@pytest.fixture
def platform(monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    with serve(lambda http: http.answer(500)) as server:
        monkeypatch.setenv("AIRFLOW_CONN_SCRIPTED", json.dumps({"host": server.url, "password": "key"}))
        yield Platform(server)


@pytest.fixture
def agent(platform: Platform) -> ManagedAgentClient:
    return AixplainManagedAgentHook("scripted").agent("analyst")


def consult(agent: ManagedAgentClient, *prompts: str, **settings: Any) -> list[Any]:
    """Return what a calling model receives from the toolset for each of its prompts."""
    received: list[Any] = []
    waiting = iter(prompts)

    def respond(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        last = messages[-1].parts[-1]
        if isinstance(last, (ToolReturnPart, RetryPromptPart)):
            received.append(last.content)
        prompt = next(waiting, None)
        return ModelResponse([TextPart("done") if prompt is None else ToolCallPart("ask_analyst", {"prompt": prompt})])

    toolset = ManagedAgentToolset(agent, tool_name="ask_analyst", **settings)
    Agent(FunctionModel(respond), toolsets=[toolset]).run_sync("How many?")
    return received


@pytest.mark.usefixtures("connection")
def test_a_calling_model_receives_the_answers() -> None:
    agent = AixplainManagedAgentHook().agent("review-analyst")
    assert consult(agent, "The coffee is wonderful.\nThe cake is terrible.", "Das Wetter ist heute schön.") == [
        "reviews 2, positive 1, neutral 0, negative 1, languages (en 2)",
        "reviews 1, positive 0, neutral 1, negative 0, languages (de 1)",
    ]


@pytest.mark.usefixtures("connection")
def test_a_session_continues_a_conversation(emulator: Emulator) -> None:
    agent = AixplainManagedAgentHook().agent("review-analyst")
    first = agent.invoke(Request(prompt="The coffee is wonderful."))
    second = agent.invoke(Request(prompt="The cake is terrible.", session_id=first.session_id))
    assert first.session_id
    assert second.session_id == first.session_id
    assert [run["id"] for run in emulator.runs()[-2:]] == [first.trace_ref, second.trace_ref]
    assert second.raw["used_credits"] > 0
    assert [artifact["name"] for artifact in second.raw["artifacts"]] == ["reviews.csv"]


def test_a_response_has_session_and_run(platform: Platform, agent: ManagedAgentClient) -> None:
    platform.poll = {**ANSWER, "usedCredits": 0.25, "data": {"output": '{"count": 4}', "steps": [{"id": 1}]}}
    response = agent.invoke(Request(prompt="How many?", session_id="s0"))
    assert platform.submitted[0]["sessionId"] == "s0"
    assert (response.text, response.structured) == ('{"count": 4}', {"count": 4})
    assert (response.session_id, response.trace_ref) == ("s1", "r1")
    assert response.raw["used_credits"] == 0.25
    assert response.raw["data"]["steps"] == [{"id": 1}]


def test_cost_and_warnings_are_logged(
    platform: Platform, agent: ManagedAgentClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    platform.poll = {**ANSWER, "usedCredits": 0.25, "runTime": 3, "status": "DONE"}
    consult(agent, "How many?")
    assert "Agent analyst succeeded after 3.0 s, for 0.25 credits" in caplog.text
    assert "with a warning: the platform reports the unknown status 'DONE'" in caplog.text


def test_an_answer_that_is_an_object_becomes_text(platform: Platform, agent: ManagedAgentClient) -> None:
    platform.poll = {**ANSWER, "data": {"output": {"Größe": 4}}}
    response = agent.invoke(Request(prompt="How many?"))
    assert (response.text, response.structured) == ('{"Größe": 4}', {"Größe": 4})


def test_options_are_settings_of_the_run(platform: Platform, agent: ManagedAgentClient) -> None:
    consult(agent, "How many?", vendor_options={"budget": {"max_cost": 0.5}, "variables": {"shop": "Bonn"}})
    (body,) = platform.submitted
    assert body["executionParams"] == {"budget": {"maxCost": 0.5}}
    assert body["query"] == {"input": "How many?", "shop": "Bonn"}


@pytest.mark.parametrize("options", [{"agent_id": "other"}, {"session_id": "s"}, {"timeout": 1}, {"max_tokens": -1}])
def test_invalid_options_are_errors_of_the_dag(
    options: dict[str, Any], platform: Platform, agent: ManagedAgentClient
) -> None:
    with pytest.raises(AixplainInputError, match=next(iter(options))):
        consult(agent, "How many?", vendor_options=options)
    assert not platform.submitted


def test_one_message_is_a_prompt(platform: Platform, agent: ManagedAgentClient) -> None:
    agent.invoke(Request(messages=[{"role": "user", "content": "How many?"}]))
    assert platform.submitted[0]["query"] == {"input": "How many?"}


@pytest.mark.parametrize("roles", [["user", "assistant", "user"], ["system"], []])
def test_other_messages_are_refused(roles: list[str], platform: Platform, agent: ManagedAgentClient) -> None:
    with pytest.raises(AixplainInputError, match="session_id"):
        agent.invoke(Request(messages=[{"role": role, "content": "Hi"} for role in roles]))
    assert not platform.submitted


def test_a_rejected_prompt_can_be_rephrased(platform: Platform, agent: ManagedAgentClient) -> None:
    platform.submissions = [(400, {"error": "ask one question"}), (201, None)]
    rejection, answer = consult(agent, "How many? Why?", "How many?")
    assert "ask one question" in rejection
    assert answer == "Four."
    assert len(platform.submitted) == 2


def test_an_empty_prompt_is_rejected_without_a_run(platform: Platform, agent: ManagedAgentClient) -> None:
    with pytest.raises(ManagedAgentRejected, match="prompt is empty"):
        agent.invoke(Request(prompt=" "))
    assert not platform.submitted


@pytest.mark.parametrize("status", [401, 402, 403, 404, 413, 475])
def test_a_refusal_is_terminal(status: int, platform: Platform, agent: ManagedAgentClient) -> None:
    platform.submissions = [(status, {"error": "not for you"})]
    with pytest.raises(ManagedAgentInvocationError, match=f"HTTP {status} .*not for you"):
        consult(agent, "How many?")
    assert len(platform.submitted) == 1


@pytest.mark.parametrize("status", ["FAILED", "ABORTED"])
def test_a_failed_run_is_terminal(status: str, platform: Platform, agent: ManagedAgentClient) -> None:
    platform.poll = {"completed": True, "status": status, "error": "the budget is spent"}
    with pytest.raises(ManagedAgentInvocationError, match=r"Agent analyst: the run failed: .*the budget is spent"):
        consult(agent, "How many?")


def test_an_untrusted_poll_url_is_terminal(platform: Platform, agent: ManagedAgentClient) -> None:
    platform.submissions = [(201, {"data": "https://foreign.invalid/result"})]
    with pytest.raises(ManagedAgentInvocationError, match="untrusted origin"):
        consult(agent, "How many?")


def test_an_invalid_connection_is_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_WITHOUT_KEY", '{"conn_type": "aixplain"}')
    with pytest.raises(ManagedAgentInvocationError, match="password is empty"):
        consult(AixplainManagedAgentHook("without_key").agent("analyst"), "How many?")


@pytest.mark.parametrize("status", [0, 429, 485, 500, 503])
def test_a_temporary_failure_is_left_to_the_task(status: int, platform: Platform, agent: ManagedAgentClient) -> None:
    platform.submissions = [(status, {"error": "busy"})]
    with pytest.raises(AixplainError) as raised:
        consult(agent, "How many?")
    assert (type(raised.value), raised.value.retryable) == (AixplainError, True)
    assert len(platform.submitted) == 1


def test_a_timeout_names_the_run_that_continues(platform: Platform, agent: ManagedAgentClient) -> None:
    platform.poll = {"completed": False}
    with pytest.raises(AixplainRunTimeout, match=f"still in progress after 0.3 s.*{platform.server.url}/sdk/agents/r1"):
        consult(agent, "How many?", timeout=0.3)


def test_another_agent_answers_for_a_failed_one(platform: Platform, agent: ManagedAgentClient) -> None:
    platform.submissions = [(503, {}), (201, None)]
    standby = AixplainManagedAgentHook("scripted").agent("standby")
    assert consult(FailoverManagedAgentClient([agent, standby]), "How many?") == ["Four."]
    assert [body["id"] for body in platform.submitted] == ["analyst", "standby"]


def test_identity_and_capabilities_need_no_request(agent: ManagedAgentClient, platform: Platform) -> None:
    assert (agent.ref.platform, agent.ref.name) == ("aixplain.agent", "analyst")
    assert agent.capabilities.sessions
    assert not agent.capabilities.usage
    assert not platform.server.asked
