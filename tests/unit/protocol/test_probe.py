"""Connection tests: which requests they send, and what their answers mean."""

from __future__ import annotations

import re

import pytest

from airflow_provider_aixplain.protocol import probe
from airflow_provider_aixplain.protocol.wire import Answer, Credential, NoResponse

BACKEND = "https://backend.example.com"
EXECUTION = "https://models.example.com/api/v1/execute"


def test_a_connection_test_starts_no_run() -> None:
    (host, backend_url, backend), (field, execution_url, execution) = probe.requests(BACKEND, EXECUTION)
    assert (host, backend_url, field, execution_url) == ("host", BACKEND, "models_run_url", EXECUTION)
    assert (backend.method, execution.method) == ("GET", "GET")
    assert backend.url.startswith(f"{BACKEND}/sdk/models/")
    assert execution.url.startswith("https://models.example.com/api/v1/data/")
    assert (backend.credential, execution.credential) == (Credential.AUTHORIZATION, Credential.HEADER)


@pytest.mark.parametrize("answer", [Answer(200, b"{}"), Answer(404, b'{"error": "no such model"}')])
def test_an_endpoint_that_works_has_no_problem(answer: Answer) -> None:
    assert probe.find_problem(answer, BACKEND, "host") == ""


@pytest.mark.parametrize(
    ("outcome", "message"),
    [
        (NoResponse("no such name", is_sent=False), r"No response \(no such name\). Check host, proxy, verify"),
        (Answer(401, b"{}"), r"The key is refused \(HTTP 401\). Check the API key"),
        (Answer(403, b"{}"), "The key is refused"),
        (Answer(429), r"The platform is unavailable \(HTTP 429\). Try again later"),
        (Answer(503, b"<html>"), "The platform is unavailable"),
        (Answer(404, b"<html>Not found"), r"This is not the platform \(HTTP 404\). Check host"),
        (Answer(200, b"<html>Welcome"), "This is not the platform"),
        (Answer(200, b"[]"), "This is not the platform"),
        (Answer(400, b"{}"), "This is not the platform"),
        (Answer(302), "This is not the platform"),
    ],
)
def test_a_problem_names_its_remedy_and_ends_with_the_url(outcome: Answer | NoResponse, message: str) -> None:
    problem = probe.find_problem(outcome, BACKEND, "host")
    assert re.match(message, problem)
    assert problem.endswith(f": {BACKEND}")
