"""Connection tests that cost nothing: requests for a model and a run that do not exist.

The platform checks the key first, so the answer that there is no such model proves that it accepts the key.
"""

from __future__ import annotations

from collections.abc import Iterator

from airflow_provider_aixplain.protocol import wire
from airflow_provider_aixplain.protocol.failure import RETRYABLE, ErrorCategory

NO_MODEL = "000000000000000000000000"
NO_RUN = "00000000-0000-0000-0000-000000000000"


def requests(backend_url: str, models_run_url: str) -> Iterator[tuple[str, str, wire.Request]]:
    """Return the requests that test a Connection, each with its endpoint: the Connection's field and the URL."""
    yield "host", backend_url, wire.model_record_request(backend_url, NO_MODEL)
    poll_url = f"{models_run_url.removesuffix('/execute')}/data/{NO_RUN}"
    yield "models_run_url", models_run_url, wire.poll_request(poll_url)


def find_problem(outcome: wire.Answer | wire.NoResponse, url: str, field: str) -> str:
    """Return what is wrong with an endpoint; empty if it works.

    :param outcome: the answer to one of :func:`requests`.
    :param url: the endpoint.
    :param field: the Connection's field that names it.
    """
    if isinstance(outcome, wire.NoResponse):
        return f"No response ({outcome.reason}). Check {field}, proxy, verify and the network: {url}"
    status = f"(HTTP {outcome.status_code})"
    if outcome.status_code in (401, 403):
        return f"The key is refused {status}. Check the API key (password) and its kind, team or personal: {url}"
    if ErrorCategory.of(outcome.status_code) in RETRYABLE:
        return f"The platform is unavailable {status}. Try again later: {url}"
    is_platform = outcome.status_code in (200, 404) and isinstance(outcome.value(), dict)
    return "" if is_platform else f"This is not the platform {status}. Check {field}: {url}"
