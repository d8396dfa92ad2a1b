"""Assets: the models and agents that the platform runs. They differ in the input and the result of a run.

The input is a :class:`RunInput`: a ``ModelInput`` or an ``AgentInput``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol
from urllib.parse import quote

from airflow_provider_aixplain.protocol import wire
from airflow_provider_aixplain.protocol.failure import InvalidInput

if TYPE_CHECKING:
    from airflow_provider_aixplain.protocol.response import ModelResponse
    from airflow_provider_aixplain.protocol.values import Convert


MAX_ID_LENGTH = 200
"""Characters that are kept of an id that only a response states."""


@dataclass(frozen=True)
class Asset:
    """A model or an agent.

    :param kind: which of them it is. Team agents are agents.
    :param id: its id on the platform; empty if it is not known.
    """

    kind: Literal["model", "agent"] = "model"
    id: str = ""

    def __str__(self) -> str:
        """Return the subject of log lines and errors."""
        return f"{self.kind} {self.id}" if self.id else "the run"

    @property
    def title(self) -> str:
        """The subject at the beginning of a sentence."""
        return f"{str(self)[0].upper()}{str(self)[1:]}"

    @property
    def id_name(self) -> str:
        """The name of the id in arguments and metrics: ``model_id`` or ``agent_id``."""
        return f"{self.kind}_id"

    @property
    def page_path(self) -> str:
        """The path of its page on the platform's site."""
        return f"discover/{self.kind}/{quote(self.id, safe='')}"

    def or_reported(self, response: ModelResponse | Mapping[str, Any] | None) -> Asset:
        """Return this asset or, if its id is not known, the one that the response of its run names.

        :param response: the ModelResponse, also as a dict, if there is one.
        """
        record = response.get("asset") if response and not self.id else None
        reported = (record.get("assetId") or record.get("id")) if isinstance(record, Mapping) else None
        return Asset(self.kind, reported[:MAX_ID_LENGTH]) if reported and isinstance(reported, str) else self

    def run_request(self, endpoints: Endpoints, body: str) -> wire.Request:
        """Return the request that starts a run.

        :param body: its body, as JSON.
        :raises InvalidInput: if the id is empty or not an id.
        """
        if self.kind == "agent":
            return wire.agent_run_request(endpoints.backend_url, self.id, body)
        return wire.submission_request(endpoints.models_run_url, self.id, body)

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names of the fields that :meth:`outputs` returns."""
        return tuple(self.outputs({"data": None, "additional_fields": {}}))

    def outputs(self, response: ModelResponse | Mapping[str, Any]) -> dict[str, Any]:
        """Return what the result of a run has in addition to the fields of the ModelResponse.

        :param response: the ModelResponse, also as a dict.
        :return: for an agent ``output`` (its answer), ``session_id``, ``request_id`` and ``artifacts`` (a list); for a
            model nothing. What is not known is None.
        """
        return _agent_outputs(response) if self.kind == "agent" else {}

    def result(self, response: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a task returns: the fields of the ModelResponse, and :meth:`outputs`.

        :param response: the ModelResponse as a dict.
        """
        return {**response, **self.outputs(response)}


def make_asset(model_id: str = "", agent_id: str = "") -> Asset:
    """Return the asset of an id; an agent if both are given."""
    return Asset("agent", agent_id) if agent_id else Asset("model", model_id)


class Endpoints(Protocol):
    """The base URLs of a platform."""

    @property
    def models_run_url(self) -> str:
        """The execution URL, without a model's id."""

    @property
    def backend_url(self) -> str:
        """The base URL of the backend."""


class RunInput(Protocol):
    """The input of a run, and the asset that it is for."""

    @property
    def asset(self) -> Asset:
        """The asset to run."""

    def request(self, endpoints: Endpoints, convert: Convert | None = None) -> wire.Request:
        """Return the request that starts the run.

        :param convert: returns the replacement of a value that JSON cannot hold, or ``NOT_JSON``.
        :raises InvalidInput: naming the field that cannot be sent, and the remedy.
        """


@dataclass(frozen=True)
class PreparedInput:
    """The input of a run whose request is already complete, such as that of a batch's row.

    :param asset: the asset to run.
    :param body: the body of the request, as JSON.
    """

    asset: Asset
    body: str

    def request(self, endpoints: Endpoints, convert: Convert | None = None) -> wire.Request:
        """Return the request that starts the run.

        :raises InvalidInput: if the asset's id is empty or not an id.
        """
        return self.asset.run_request(endpoints, self.body)


def require_mapping(name: str, value: Any) -> Mapping[str, Any]:
    """Return an argument that has to be a dict from names to values; None counts as an empty one.

    :raises InvalidInput: if it is something else.
    """
    if value is not None and not isinstance(value, Mapping):
        raise InvalidInput(f"{name} is a {type(value).__name__}: give a dict from names to values")
    return value or {}


def _agent_outputs(response: ModelResponse | Mapping[str, Any]) -> dict[str, Any]:
    answer, fields, url = response["data"], response["additional_fields"], response.get("url")
    data = answer if isinstance(answer, Mapping) else {"output": None if answer == "" else answer}
    artifacts = data.get("artifacts")
    # The result of a run need not repeat the id, which its poll URL contains.
    url_match = re.search("/agents/([^/]+)/result", url) if isinstance(url, str) else None
    return {
        "output": data.get("output"),
        "session_id": _first_id(fields.get("sessionId"), data.get("session_id"), data.get("sessionId")),
        "request_id": _first_id(
            fields.get("requestId"), data.get("request_id"), data.get("requestId"), url_match and url_match[1]
        ),
        "artifacts": artifacts if isinstance(artifacts, list) else [],
    }


def _first_id(*values: Any) -> str | None:
    return next((value for value in values if value and isinstance(value, str)), None)
