"""What a test of a Connection makes of what came back."""

from __future__ import annotations

import re

import pytest

from airflow_provider_aixplain.protocol import probe
from airflow_provider_aixplain.protocol.wire import Answer, Credential, NoResponse

BACKEND = "https://backend.example.com"
EXECUTION = "https://models.example.com/api/v1/execute"


def test_it_only_asks() -> None:
    """What costs something is a POST."""
    backend, execution = probe.backend_request(BACKEND), probe.execution_request(EXECUTION)
    assert (backend.method, execution.method) == ("GET", "GET")
    assert backend.url.startswith(f"{BACKEND}/sdk/models/")
    assert execution.url.startswith("https://models.example.com/api/v1/data/")
    assert {backend.credential, execution.credential} == {Credential.AUTHORIZATION, Credential.HEADER}


@pytest.mark.parametrize("answer", [Answer(200, b"{}"), Answer(404, b'{"error": "no such model"}')])
def test_a_backend_that_takes_the_key(answer: Answer) -> None:
    assert probe.backend_problem(answer, BACKEND) == ""


@pytest.mark.parametrize(
    ("outcome", "told"),
    [
        (NoResponse("no such name", is_sent=False), "does not answer: check host, proxy and verify.*no such name"),
        (Answer(401, b"{}"), "refuses the key: check the API key"),
        (Answer(403, b"{}"), "refuses the key"),
        (Answer(429), "has trouble, try again later"),
        (Answer(503, b"<html>"), "has trouble, try again later"),
        (Answer(404, b"<html>Not found"), "is not the platform: check host"),
        (Answer(200, b"<html>Welcome"), "is not the platform"),
        (Answer(200, b"[]"), "is not the platform"),
        (Answer(400, b"{}"), "is not the platform"),
        (Answer(302), "is not the platform"),
    ],
)
def test_a_backend_that_does_not(outcome: Answer | NoResponse, told: str) -> None:
    problem = probe.backend_problem(outcome, BACKEND)
    assert problem.startswith(BACKEND)
    assert re.search(told, problem)


@pytest.mark.parametrize("answer", [Answer(404, b"{}"), Answer(200, b"{}")])
def test_an_execution_endpoint_that_answers(answer: Answer) -> None:
    assert probe.execution_problem(answer, EXECUTION) == ""


def test_an_execution_endpoint_that_does_not() -> None:
    assert "does not answer: check models_run_url" in probe.execution_problem(
        NoResponse("refused", is_sent=False), EXECUTION
    )
    assert "refuses the key" in probe.execution_problem(Answer(401), EXECUTION)
    assert "is not the platform: check models_run_url" in probe.execution_problem(Answer(404, b"<html>"), EXECUTION)
