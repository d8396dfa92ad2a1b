"""The rules of the Model API: requests out and answers in, as pure functions."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Any
from urllib.parse import quote

from airflow_provider_aixplain.model.failure import ErrorCategory, Failure
from airflow_provider_aixplain.model.response import ModelResponse, ResponseStatus

MAX_ERROR_LENGTH = 2000
"""Characters of an error text that are kept: a gateway's page or a stack trace belongs in no task log."""

MAX_DEPTH = 100
"""Levels of nesting that an answer keeps; what lies deeper stays as JSON text. Airflow 3.3.2 hands on some 200."""


class InvalidInput(ValueError):
    """An argument that can make no valid request; the message names it and the remedy."""


@dataclass(frozen=True)
class Request:
    """An HTTP request, the credential still missing: only ``transport`` knows who may receive it."""

    method: str
    url: str
    body: bytes | None = None


@dataclass(frozen=True)
class Answer:
    """An HTTP answer. Header names are lower-case."""

    status_code: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class NoAnswer:
    """A request that brought no HTTP answer.

    :param reason: what happened, for people.
    :param sent: whether the platform may have received the request.
    """

    reason: str
    sent: bool


def build_payload(data: Any, parameters: Mapping[str, Any] | None = None, stream: bool | None = None) -> str:
    """Return the JSON body of a run.

    An object, or a string that holds one as JSON, is the payload itself. A string that holds another JSON value becomes
    ``{"data": value}``, a number or a boolean as its string (``"5"`` gives ``{"data": "5"}``). Anything else is sent as
    ``{"data": data}``. Enum members are sent as their values. The caller's objects are not changed.

    :param data: the input of the model: text, or any value that JSON can hold.
    :param parameters: merged over the payload, theirs winning; only text that is no JSON keeps its place as ``data``.
    :param stream: if given, sent as ``options.stream``.
    :raises InvalidInput: if a value cannot be held by JSON; the message names the path to it.
    """
    try:
        data, extra = _plain(data, "data"), _plain({} if parameters is None else parameters, "parameters")
        value = _parse(data, _strict)
        value = value if value is _NOT_JSON else _plain(value, "data")
    except RecursionError:
        raise InvalidInput("data or parameters contain themselves, or nest too deeply to be sent as JSON") from None
    if not isinstance(extra, dict):
        raise InvalidInput(f"parameters is a {type(parameters).__name__}: give a dict from names to values")
    if stream is not None:
        extra["options"] = {**extra.get("options", {}), "stream": stream}
    if isinstance(data, dict):
        payload = {**data, **extra}
    elif value is _NOT_JSON:
        payload = {**extra, "data": data}
    elif isinstance(value, dict):
        payload = {**value, **extra}
    else:
        payload = {"data": str(value) if isinstance(value, (int, float)) else value, **extra}
    try:
        return json.dumps(payload)
    except ValueError as error:
        raise InvalidInput(f"data or parameters hold a value that cannot be sent as JSON: {error}") from None


def submission(models_run_url: str, model_id: str, payload: str) -> Request:
    """Return the request that starts a run (``run_async``).

    :param models_run_url: the execution URL, without the model's id.
    :param model_id: the model's id on the platform.
    :param payload: the body, from :func:`build_payload`.
    :raises InvalidInput: if ``model_id`` is empty or no id.
    """
    if not isinstance(model_id, str) or not model_id.strip() or not model_id.isprintable():
        raise InvalidInput(f"model_id is {model_id!r}: give the id of a model, as its page on the platform shows it")
    if {".", ".."} & set(model_id.split("/")):
        raise InvalidInput(f"model_id is {model_id!r}: an id has no '.' or '..' between slashes")
    return Request("POST", f"{models_run_url}/{quote(model_id, safe='/')}", payload.encode())


def poll(poll_url: str) -> Request:
    """Return the request that asks how a run is doing.

    :param poll_url: the URL that the answer to the submission named.
    """
    return Request("GET", poll_url)


def read_submission(outcome: Answer | NoAnswer) -> ModelResponse:
    """Return what the platform made of a submission.

    :param outcome: what came back for a :func:`submission`.
    :return: in progress, with the poll URL as ``url``; or final at once; or failed, with ``failure`` saying why.
    """
    if isinstance(outcome, NoAnswer):
        arrived = "the platform may have received the submission" if outcome.sent else "nothing was sent"
        return _failed(Failure(ErrorCategory.PLATFORM), f"No answer, {arrived}: {outcome.reason}", completed=True)
    body = _read(outcome.body)
    if not 200 <= outcome.status_code <= 299:
        return _refused(outcome, body, completed=True)
    if not isinstance(body, dict):
        return _malformed(outcome, "is no JSON object", completed=True)
    status = body.get("status") or ResponseStatus.IN_PROGRESS
    if status == ResponseStatus.IN_PROGRESS:
        url = body.get("data")
        if not isinstance(url, str) or not url or not url.isprintable():
            return _malformed(outcome, "accepts the run and names no poll URL", completed=True)
        return ModelResponse(ResponseStatus.IN_PROGRESS, url=url)
    response = _response(body, otherwise=ResponseStatus.FAILED)
    if response.status is ResponseStatus.FAILED and not response.error_message:
        response.error_message = printable(f"the platform answers with the status {status!r} and {response.data!r}")
    return response


def read_poll(outcome: Answer | NoAnswer) -> ModelResponse:
    """Return what the platform says of a run.

    :param outcome: what came back for a :func:`poll`.
    :return: the response; failed and not completed, with ``failure`` saying why, if this poll brought no news.
    """
    if isinstance(outcome, NoAnswer):
        return _failed(Failure(ErrorCategory.PLATFORM), f"No answer: {outcome.reason}", completed=False)
    body = _read(outcome.body)
    if isinstance(body, dict) and "completed" in body:
        if body["completed"] is not True:
            return _response(body, otherwise=ResponseStatus.IN_PROGRESS)
        went_wrong = "error_message" in body or "errorMessage" in body or "supplierError" in body
        return _response(body, otherwise=ResponseStatus.FAILED if went_wrong else ResponseStatus.SUCCESS)
    if not 200 <= outcome.status_code <= 299:
        return _refused(outcome, body, completed=False)
    return _malformed(outcome, "does not say whether the run is over", completed=False)


def printable(text: object) -> str:
    """Return a text from outside, bounded and without control characters that could forge log lines."""
    shown = "".join(c if c.isprintable() else " " for c in str(text)[: MAX_ERROR_LENGTH + 1])
    return shown if len(shown) <= MAX_ERROR_LENGTH else f"{shown[:MAX_ERROR_LENGTH]}…"


_NOT_JSON = object()
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_UNSTORABLE_ESCAPE = re.compile(r"\\u(0000|[dD][89a-fA-F])")


def _parse(text: Any, loads: Callable[..., Any] = json.loads) -> Any:
    """Return the JSON value of a string or bytes, or ``_NOT_JSON``."""
    if not isinstance(text, (str, bytes)):
        return _NOT_JSON
    try:
        return loads(text)
    except (ValueError, RecursionError):
        return _NOT_JSON


def _read(body: bytes) -> Any:
    """Return the JSON value of an answer, in types that Airflow can hand on; or ``_NOT_JSON``.

    Numbers that do not fit 64 bits, infinite ones and NaN stay as their text, and so does what nests too deeply; half
    surrogate pairs and NUL become U+FFFD. A trigger's event with such a value ends Airflow's whole triggerer or fails
    the task that takes it (seen in Airflow 3.3.2), and PostgreSQL refuses NUL as an XCom.
    """
    # Decoded here: given bytes, json lets raw half pairs pass, and gives a whole answer up for one odd byte.
    text = body.decode(json.detect_encoding(body), "replace")
    value = _parse(text, partial(json.loads, parse_int=_integer, parse_float=_float, parse_constant=str))
    may_be_deep = text.count("[") + text.count("{") > MAX_DEPTH
    try:
        return _storable(value) if may_be_deep or _UNSTORABLE_ESCAPE.search(text) else value
    except RecursionError:
        return _NOT_JSON


def _strict(text: str | bytes) -> Any:
    """Return the JSON value of a text; NaN and Infinity, which Python reads, are no JSON."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def _integer(text: str) -> int | str:
    return text if len(text) > 20 or not -(2**63) <= int(text) < 2**63 else int(text)


def _float(text: str) -> float | str:
    return number if math.isfinite(number := float(text)) else text


def _storable(value: Any, depth: int = 0) -> Any:
    if isinstance(value, str):
        return _UNSTORABLE.sub("\ufffd", value)
    if isinstance(value, (list, dict)) and depth == MAX_DEPTH:
        return json.dumps(value)
    if isinstance(value, list):
        return [_storable(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {_storable(key): _storable(item, depth + 1) for key, item in value.items()}
    return value


def _plain(value: Any, path: str) -> Any:
    """Return a copy of a value, in the types that JSON can hold.

    :raises InvalidInput: naming the path to what it cannot hold.
    """
    if isinstance(value, Enum):
        return _plain(value.value, path)
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidInput(f"{path} is {value}, which JSON cannot hold: send null or a text instead")
        return value
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, (str, int)):
                raise InvalidInput(f"{path} has the key {key!r}, a {type(key).__name__}: JSON keys are texts")
        return {key: _plain(item, f"{path}[{key!r}]") for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return [_plain(item, f"{path}[{index}]") for index, item in enumerate(value)]
    raise InvalidInput(f"{path} is a {type(value).__name__}, which JSON cannot hold: convert it to text or plain types")


def _response(body: dict[str, Any], *, otherwise: ResponseStatus) -> ModelResponse:
    """Read the fields of an answer; a status that is not one of the three known ones counts as ``otherwise``."""
    rest = dict(body)

    def take(default: Any, *keys: str) -> Any:
        found = [rest.pop(key) for key in keys if key in rest]
        return found[0] if found else default

    status = take(otherwise, "status")
    error_message = take("", "error_message", "errorMessage")
    if error_message in ("", None):
        error_message = rest.get("error") or ""
        if "supplierError" in rest:
            error_message = f"{error_message} - {rest['supplierError']}"
    return ModelResponse(
        status=ResponseStatus(status) if status in list(ResponseStatus) else otherwise,
        data=take("", "data"),
        details=take({}, "details"),
        completed=take(False, "completed") is True,
        error_message=error_message,
        used_credits=take(0, "usedCredits", "used_credits"),
        run_time=take(0, "runTime", "run_time"),
        usage=take(None, "usage"),
        url=take(None, "url"),
        error_code=take(None, "error_code"),
        asset=take(None, "asset"),
        additional_fields=rest,
    )


def _failed(failure: Failure, message: str, *, completed: bool) -> ModelResponse:
    return ModelResponse(ResponseStatus.FAILED, completed=completed, error_message=printable(message), failure=failure)


def _refused(answer: Answer, body: Any, *, completed: bool) -> ModelResponse:
    failure = Failure(ErrorCategory.of(answer.status_code), answer.status_code)
    details = body.get("error", body) if isinstance(body, dict) else answer.body.decode(errors="replace")
    message = f"HTTP {answer.status_code} ({failure.category.value}): {details or 'no details'}"
    return _failed(failure, message, completed=completed)


def _malformed(answer: Answer, what: str, *, completed: bool) -> ModelResponse:
    text = answer.body.decode(errors="replace") or "an empty body"
    return _failed(
        Failure(ErrorCategory.PLATFORM, answer.status_code),
        f"HTTP {answer.status_code} with an answer that {what}: {text}",
        completed=completed,
    )
