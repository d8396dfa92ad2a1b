"""The body of the request that starts a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

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
        extra = to_sendable({} if parameters is None else parameters, "parameters", convert)
        value = parse_json(data) if isinstance(data, str) else data if isinstance(data, dict) else NOT_JSON
    except RecursionError:
        raise InvalidInput("data or parameters refer to themselves or nest too deeply for JSON") from None
    if not isinstance(extra, dict):
        raise InvalidInput(f"parameters is a {type(parameters).__name__}: give a dict from names to values")
    if stream is not None:
        options = extra.get("options", {})
        if not isinstance(options, dict):
            kind = type(options).__name__
            raise InvalidInput(f"parameters['options'] is a {kind}: give a dict from names to values")
        extra["options"] = {**options, "stream": stream}
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
