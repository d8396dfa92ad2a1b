"""The request that starts the run of an agent."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_aixplain.protocol import wire
from airflow_provider_aixplain.protocol.assets import Asset, Endpoints, require_mapping
from airflow_provider_aixplain.protocol.failure import InvalidInput
from airflow_provider_aixplain.protocol.payload import ModelInput
from airflow_provider_aixplain.protocol.upload import UNKNOWN_TYPE, content_type
from airflow_provider_aixplain.protocol.values import NOT_JSON, parse_json, parse_number, to_sendable

if TYPE_CHECKING:
    from airflow_provider_aixplain.protocol.values import Convert

OUTPUT_FORMATS = ("text", "markdown", "json")

SHARED_SETTINGS = ("tools", "output_format", "expected_output", "max_tokens", "max_time", "budget")
"""The fields of an ``AgentInput`` that the runs of a batch share."""

BUDGET = {"max_cost": "maxCost", "max_duration_seconds": "maxDurationSeconds", "max_iterations": "maxIterations"}
"""The caps of a budget: the names of the arguments, and those in the request."""

USER_AGENT = "airflow-provider-aixplain"
"""Without a version: the request has to be the same on a later try, also after an upgrade."""

_ATTACHMENT_KEYS = ("url", "name", "type", "mimeType")
_LINK_PREFIXES = ("https://", "http://", "s3://")
# Subtypes of media types, by the platform's kind of attachment.
_DOCUMENTS = ("pdf", "msword", "vnd.ms-excel", "vnd.ms-powerpoint")
_OFFICE = "vnd.openxmlformats-officedocument."
_LANGUAGES = ("c", "c++", "go", "java-source", "javascript", "python", "ruby", "rust", "shellscript")
_CODE = ("javascript", "typescript", *(f"x-{name}" for name in _LANGUAGES))


@dataclass(frozen=True)
class AgentInput:
    """The input of an agent's run. A field that is None is not sent: the agent's own setting applies.

    :param agent_id: the id of an agent or a team agent on the platform.
    :param query: the question or task: a string, or a dict that is sent unchanged.
    :param variables: the values of the placeholders in the agent's instructions, by name.
    :param session_id: the session of an earlier run, to continue its conversation.
    :param attachments: links, ``Upload`` objects, or dicts of ``url`` (one of them), ``name``, ``type`` and
        ``mimeType``.
    :param tools: parameters of the agent's tools for this run: dicts of ``id`` and ``parameters`` (values by name).
    :param output_format: ``text``, ``markdown`` or ``json``.
    :param expected_output: a description of the answer: a string, a dict, or a pydantic class, whose schema is sent.
    :param max_tokens: the maximum length of the answer, in tokens.
    :param max_time: the maximum duration of the run, in seconds.
    :param budget: the caps at which the platform ends the run: a dict of ``max_cost`` (in credits),
        ``max_duration_seconds`` and ``max_iterations``.
    """

    id_name: ClassVar[str] = "agent_id"
    row_name: ClassVar[str] = "input"

    agent_id: str
    query: Any
    variables: Mapping[str, Any] | None = None
    session_id: str | None = None
    attachments: Any = None
    tools: Any = None
    output_format: str | None = None
    expected_output: Any = None
    max_tokens: int | None = None
    max_time: float | None = None
    budget: Mapping[str, Any] | None = None

    @property
    def asset(self) -> Asset:
        """The agent."""
        return Asset("agent", self.agent_id)

    def with_row(self, fields: Mapping[str, Any], parameters: Mapping[str, Any]) -> AgentInput:
        """Return the input of the run of a row.

        :param fields: the fields of the query; of a row that is a single value only ``row_name``.
        :param parameters: the variables of the query, by name.
        """
        return replace(self, query=fields, variables=parameters)

    def request(self, endpoints: Endpoints, convert: Convert | None = None) -> wire.Request:
        """Return the request that starts the run, as :meth:`body`."""
        return self.asset.run_request(endpoints, self.body(convert))

    def body(self, convert: Convert | None = None) -> str:
        """Return the body of the request as JSON.

        :param convert: returns the replacement of a value that JSON cannot hold, or ``NOT_JSON``.
        :raises InvalidInput: naming the field that cannot be sent, and the remedy.
        """
        params = self._execution_params()
        body = {
            "id": str(self.agent_id),
            "query": self._query(convert),
            "executionParams": params,
            # By aiXplain's instructions for builders of agents, the platform refuses JSON without it (AX-VAL-1000).
            "runResponseGeneration": params.get("outputFormat") == "json",
            "metaData": {"userAgent": USER_AGENT},
            "sessionId": _check_session(self.session_id),
            "attachments": [
                _make_attachment(f"attachments[{index}]", value, convert)
                for index, value in enumerate(_require_list("attachments", self.attachments))
            ],
            "tools": self._tools(),
        }
        try:
            return json.dumps({key: value for key, value in body.items() if value is not None and value != []})
        except ValueError as error:
            raise InvalidInput(f"the query or a setting contains a value that JSON cannot hold: {error}") from None

    def check_settings(self) -> None:
        """Check what does not depend on templates, such as the budget.

        :raises InvalidInput: naming the field and the remedy.
        """
        self._execution_params()
        self._tools()

    def _tools(self) -> list[Any]:
        tools = [_make_tool(f"tools[{index}]", tool) for index, tool in enumerate(_require_list("tools", self.tools))]
        return [tool for tool in tools if tool["parameters"]]

    def _query(self, convert: Convert | None) -> dict[str, Any]:
        query = _to_sendable("query", self.query, convert)
        variables = _to_sendable("variables", require_mapping("variables", self.variables), convert)
        if isinstance(query, str) and not _is_blank(query):
            if "input" in variables:
                raise InvalidInput(
                    "variables has the key 'input', which is the query: rename it, or use a dict as query"
                )
            return {"input": query, **variables}
        if isinstance(query, dict) and query and (self.attachments or not _is_blank(query.get("input"))):
            return {**query, **variables}
        raise InvalidInput(f"query is {query!r:.100}: give a text, or a dict that is not empty")

    def _execution_params(self) -> dict[str, Any]:
        if self.output_format not in (None, *OUTPUT_FORMATS):
            raise InvalidInput(f"output_format is {self.output_format!r}: use {', '.join(OUTPUT_FORMATS)}")
        schema = self._expected_output()
        params = {
            "outputFormat": self.output_format or ("json" if isinstance(schema, dict) else None),
            "expectedOutput": schema,
            "maxTokens": _require_number("max_tokens", self.max_tokens, is_integer=True),
            "maxTime": _require_number("max_time", self.max_time),
            "budget": self._budget() or None,
        }
        return {key: value for key, value in params.items() if value is not None}

    def _expected_output(self) -> Any:
        value = self.expected_output
        if value is None:
            return None
        is_text_format = self.output_format in ("text", "markdown")
        if is_pydantic_class(value) and not is_text_format:
            try:
                schema = _schema(value)
            except Exception as error:  # of pydantic, which protocol/ does not import
                raise InvalidInput(f"expected_output is {value.__name__}, which has no JSON schema: {error}") from None
            return _to_sendable("expected_output", schema)
        if isinstance(value, Mapping) and value and not is_text_format:
            return json.dumps(_to_sendable("expected_output", value))
        if isinstance(value, str) and value.strip():
            if self.output_format != "json" or parse_json(value) is not NOT_JSON:
                return value
            raise InvalidInput("expected_output is not JSON, while output_format is json: give a dict, or JSON text")
        accepted = "a text" if is_text_format else "a text, a dict or a pydantic class"
        raise InvalidInput(f"expected_output is {value!r:.100}: give {accepted}")

    def _budget(self) -> dict[str, Any]:
        budget = require_mapping("budget", self.budget)
        if unknown := [name for name in budget if name not in BUDGET]:
            raise InvalidInput(f"budget has the unknown key {unknown[0]!r}: the keys are {', '.join(BUDGET)}")
        caps = {
            wire_name: _require_number(f"budget[{name!r}]", budget.get(name), is_integer=name == "max_iterations")
            for name, wire_name in BUDGET.items()
        }
        return {name: cap for name, cap in caps.items() if cap is not None}


def shared_input(
    model_id: str | None, agent_id: str | None, settings: Mapping[str, Any] | None
) -> ModelInput | AgentInput:
    """Return what the runs of a batch share: an input without ``data`` or ``query``.

    :param model_id: the id of a model; None for an agent.
    :param agent_id: the id of an agent; None for a model.
    :param settings: the :data:`SHARED_SETTINGS` of the agent, by name; None for a model.
    :raises InvalidInput: unless exactly one id is given; or if a setting is invalid, or is given for a model.
    """
    if model_id is not None and agent_id is None:
        if settings is not None:
            raise InvalidInput("agent_settings are for an agent: give agent_id, or use parameters for a model")
        return ModelInput(model_id, None)
    if agent_id is None or model_id is not None:
        raise InvalidInput("give either model_id or agent_id")
    settings = require_mapping("agent_settings", settings)
    if unknown := [name for name in settings if name not in SHARED_SETTINGS]:
        raise InvalidInput(f"agent_settings has the key {unknown[0]!r}: the keys are {', '.join(SHARED_SETTINGS)}")
    run = AgentInput(agent_id, None, **settings)
    run.check_settings()
    return run


def is_pydantic_class(value: Any) -> bool:
    """Return whether an ``expected_output`` is a pydantic class."""
    return isinstance(value, type) and hasattr(value, "model_json_schema")


def input_type(arguments: Collection[str]) -> type[ModelInput] | type[AgentInput]:
    """Return the class of the input that has these arguments."""
    return AgentInput if "query" in arguments else ModelInput


@lru_cache(maxsize=32)
def _schema(kind: Any) -> Any:
    """Return the schema of a pydantic class. Computing it takes a millisecond, and each row of a batch needs it."""
    return kind.model_json_schema()


def _is_blank(value: Any) -> bool:
    return isinstance(value, str) and not value.strip()


def _to_sendable(name: str, value: Any, convert: Convert | None = None) -> Any:
    try:
        return to_sendable(value, name, convert)
    except RecursionError:
        raise InvalidInput(f"{name} refers to itself or nests too deeply for JSON") from None


def _check_session(value: Any) -> str | None:
    if value is not None and not (isinstance(value, str) and value.strip() and value.isprintable()):
        raise InvalidInput(f"session_id is {value!r:.100}: give the session_id of an earlier run, or None")
    return value


def _require_list(name: str, value: Any) -> Sequence[Any]:
    # Airflow passes the results of mapped tasks as a sequence of its own.
    if value is not None and (not isinstance(value, Sequence) or isinstance(value, (str, bytes, bytearray))):
        raise InvalidInput(f"{name} is a {type(value).__name__}: give a list")
    return value or ()


def _require_number(name: str, value: Any, *, is_integer: bool = False) -> Any:
    number = None if isinstance(value, str) else parse_number(value)
    if value is not None and (number is None or number <= 0 or (is_integer and number != int(number))):
        raise InvalidInput(f"{name} is {value!r:.100}: give {'an integer' if is_integer else 'a number'} above 0")
    return int(number) if is_integer and number is not None else number


def _make_attachment(place: str, value: Any, convert: Convert | None) -> dict[str, Any]:
    fields = dict(value) if isinstance(value, Mapping) else {"url": value}
    if unknown := [key for key in fields if key not in _ATTACHMENT_KEYS]:
        raise InvalidInput(
            f"{place} has the unknown key {unknown[0]!r}: the keys are {', '.join(_ATTACHMENT_KEYS)};"
            " to send a file, give an Upload of it as url"
        )
    source = fields.pop("url", None)
    for key, text in fields.items():
        if text is not None and not isinstance(text, str):
            raise InvalidInput(f"{place}[{key!r}] is a {type(text).__name__}: give a string, or None")
    if source is None or (isinstance(source, str) and not source.startswith(_LINK_PREFIXES)):
        raise InvalidInput(f"{place} is {source!r:.200}: give a link (https:// or s3://), or an Upload of a file")
    url = _to_sendable(place, source, convert)
    if not isinstance(url, str):
        raise InvalidInput(f"{place} is a {type(source).__name__}: give a link, or an Upload of a file")
    url_name = re.split("[?#]", url)[0].rpartition("/")[2]
    name = fields.get("name") or (url_name if isinstance(source, str) else str(getattr(source, "name", url_name)))
    guess = content_type(name)
    media_type = fields.get("mimeType") or (None if guess == UNKNOWN_TYPE else guess)
    kind = fields.get("type") or (media_type and _attachment_type(media_type))
    types = {"type": kind, "mimeType": media_type}
    url = getattr(url, "download_url", url)  # of an uploaded file
    return {"url": url, "name": name, **{key: text for key, text in types.items() if text}}


def _attachment_type(media_type: str) -> str:
    """Return the platform's kind of a media type."""
    main, _, sub = media_type.partition("/")
    if sub in _CODE:
        return "code"
    if sub in _DOCUMENTS or sub.startswith(_OFFICE):
        return "document"
    return main if main in ("image", "video", "audio", "text") else "unknown"


def _make_tool(place: str, tool: Any) -> dict[str, Any]:
    tool_id = tool.get("id") if isinstance(tool, Mapping) else None
    if not isinstance(tool_id, str) or not tool_id.strip() or tool.keys() - {"id", "parameters"}:
        raise InvalidInput(f"{place} is {tool!r:.200}: give a dict of id and parameters")
    place = f"{place}['parameters']"
    parameters = _to_sendable(place, require_mapping(place, tool.get("parameters")))
    return {"id": tool_id, "parameters": [{"name": name, "value": value} for name, value in parameters.items()]}
