"""Whether a Connection works, judged by what costs nothing: questions for a model and a run that there are not."""

from __future__ import annotations

from airflow_provider_aixplain.protocol import wire
from airflow_provider_aixplain.protocol.failure import ErrorCategory

NO_MODEL = "000000000000000000000000"
NO_RUN = "00000000-0000-0000-0000-000000000000"
PASSES = (ErrorCategory.RATE_LIMIT, ErrorCategory.SUPPLIER, ErrorCategory.PLATFORM)
REFUSED = "refuses the key: check the API key (password), and whether its kind is team or personal"


def backend_request(backend_url: str) -> wire.Request:
    """Return the request that asks the backend for a model that it does not have."""
    return wire.model_record_request(backend_url, NO_MODEL)


def execution_request(models_run_url: str) -> wire.Request:
    """Return the request that asks the execution endpoint for a run that it does not have."""
    return wire.poll_request(f"{models_run_url.removesuffix('/execute')}/data/{NO_RUN}")


def backend_problem(outcome: wire.Answer | wire.NoResponse, backend_url: str) -> str:
    """Return what is wrong with a Connection by what came back for :func:`backend_request`; nothing if nothing is.

    The platform asks for the key first: who is told that there is no such model has the right one.
    """
    return _problem(outcome, backend_url, "host")


def execution_problem(outcome: wire.Answer | wire.NoResponse, models_run_url: str) -> str:
    """Return what is wrong with a Connection by what came back for :func:`execution_request`; nothing if nothing is."""
    return _problem(outcome, models_run_url, "models_run_url")


def _problem(outcome: wire.Answer | wire.NoResponse, url: str, name: str) -> str:
    if isinstance(outcome, wire.NoResponse):
        return f"{url} does not answer: check {name}, proxy and verify, and the network from here: {outcome.reason}"
    if outcome.status_code in (401, 403):
        return f"{url} {REFUSED} (HTTP {outcome.status_code})"
    if ErrorCategory.of(outcome.status_code) in PASSES:
        return f"{url} has trouble, try again later (HTTP {outcome.status_code})"
    is_one = outcome.status_code in (200, 404) and isinstance(outcome.value(), dict)
    return "" if is_one else f"{url} is not the platform: check {name} (HTTP {outcome.status_code})"
