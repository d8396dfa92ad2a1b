"""The request that starts the run of a model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from airflow_provider_aixplain.protocol import wire
from airflow_provider_aixplain.protocol.assets import Asset, Endpoints, require_mapping
from airflow_provider_aixplain.protocol.failure import InvalidInput
from airflow_provider_aixplain.protocol.values import NOT_JSON, Convert, parse_json, to_sendable


def build_payload(
    data: Any,
    parameters: Mapping[str, Any] | None = None,
    stream: bool | None = None,
    *,
    convert: Convert | None = None,
) -> str:
    """Return the JSON body of a run.

    An object, or a string that holds one as JSON, is the payload itself. A string that holds another JSON value becomes
    ``{"data": value}``, a number or a boolean as Python's string of it (``"5"`` gives ``{"data": "5"}``, and ``"true"``
    gives ``{"data": "True"}``). Anything else is sent as ``{"data": data}``. Enum members are sent as their values. The
    caller's objects are not changed.

    :param data: the input of the model: a string, or any other JSON value.
    :param parameters: merged into the payload; ``parameters`` take precedence, except that they do not replace input
        that is sent as ``{"data": data}``.
    :param stream: if given, sent as ``options.stream``.
    :param convert: returns the replacement of a value that JSON cannot hold, or ``NOT_JSON``.
    :raises InvalidInput: if ``data`` is None, or JSON cannot hold a value; the message names the path to it.
    """
    if data is None:
        raise InvalidInput(
            "data is None: give the model's input; if it comes from another task, that task returned nothing"
        )
    try:
        data = to_sendable(data, "data", convert)
        extra: Any = to_sendable(require_mapping("parameters", parameters), "parameters", convert)
        value = parse_json(data) if isinstance(data, str) else data if isinstance(data, dict) else NOT_JSON
    except RecursionError:
        raise InvalidInput("data or parameters refer to themselves or nest too deeply for JSON") from None
    if stream is not None:
        options = extra.get("options", {})
        extra["options"] = {**require_mapping("parameters['options']", options), "stream": stream}
    if value is NOT_JSON:
        payload = {**extra, "data": data}
    elif isinstance(value, dict):
        payload = {**value, **extra}
    else:
        payload = {"data": str(value) if isinstance(value, (int, float)) else value, **extra}
    try:
        return json.dumps(payload)
    except ValueError as error:
        raise InvalidInput(f"data or parameters contain a value that JSON cannot hold: {error}") from None


@dataclass(frozen=True)
class ModelInput:
    """The input of a model's run.

    :param model_id: the model's id on the platform.
    :param data: the input of the model: a string, or any other JSON value.
    :param parameters: further parameters of the model, by name.
    """

    id_name: ClassVar[str] = "model_id"
    row_name: ClassVar[str] = "data"

    model_id: str
    data: Any
    parameters: Mapping[str, Any] | None = None

    @property
    def asset(self) -> Asset:
        """The model."""
        return Asset("model", self.model_id)

    def with_row(self, fields: Mapping[str, Any], parameters: Mapping[str, Any]) -> ModelInput:
        """Return the input of the run of a row.

        :param fields: the fields of the payload; of a row that is a single value only ``row_name``.
        :param parameters: further parameters of the model, by name.
        """
        return ModelInput(self.model_id, fields, parameters)

    def body(self, convert: Convert | None = None) -> str:
        """Return the body of the request as JSON; see :func:`build_payload` for the argument and the errors."""
        return build_payload(self.data, self.parameters, convert=convert)

    def request(self, endpoints: Endpoints, convert: Convert | None = None) -> wire.Request:
        """Return the request that starts the run, as :meth:`body`."""
        return self.asset.run_request(endpoints, self.body(convert))

    def direct_request(
        self, endpoints: Endpoints, convert: Convert | None = None, *, stream: bool | None = None
    ) -> wire.Request:
        """Return the request of ``run`` and ``run_stream``, which the platform may answer with the result itself.

        :param stream: if given, sent as ``options.stream``.
        """
        payload = build_payload(self.data, self.parameters, stream, convert=convert)
        return wire.direct_run_request(endpoints.models_run_url, self.model_id, payload)
