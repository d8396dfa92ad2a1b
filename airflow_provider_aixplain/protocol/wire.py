"""The wire protocol: pure functions that build requests and read answers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timezone
from enum import Enum
from typing import Any, BinaryIO, TypeVar
from urllib.parse import quote

from airflow_provider_aixplain.protocol import statuses
from airflow_provider_aixplain.protocol.failure import ErrorCategory, Failure, InvalidInput, RequestFailed
from airflow_provider_aixplain.protocol.response import ModelResponse, ResponseStatus, read_response
from airflow_provider_aixplain.protocol.values import MAX_FIGURE, NOT_JSON, Redact, decode, read_json, to_printable

_T = TypeVar("_T")


class Credential(Enum):
    """How a request carries the key."""

    HEADER = "key header"  # execution endpoints
    AUTHORIZATION = "Authorization header"  # backend
    NONE = "none"  # presigned URLs, of uploads and downloads


@dataclass(frozen=True)
class Request:
    """An HTTP request without the credential, which ``transport`` adds for trusted origins only."""

    method: str
    url: str
    body: bytes | BinaryIO | None = None
    content_type: str = "application/json"  # empty: without the header
    credential: Credential = Credential.HEADER


@dataclass(frozen=True)
class Answer:
    """An HTTP answer.

    :param status_code: the HTTP status code.
    :param body: the body, or its beginning if it exceeds the size limit. It may contain the key: only decoded text can
        be redacted.
    :param headers: by lower-case name.
    :param is_cut: whether the body exceeds the size limit.
    :param redact: removes the key from a text.
    :param received_at: when the answer arrived, in seconds since 1970, in case its ``Date`` is missing or malformed.
    :param refused_key: where the key comes from that the platform refuses, for the error.
    :param excerpt: the :class:`~airflow_provider_aixplain.protocol.excerpt.Excerpt` of an answer that is cut; empty if
        it was not read.
    """

    status_code: int
    body: bytes = field(default=b"", repr=False)  # not redacted, nor are the headers
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    is_cut: bool = False
    redact: Redact = field(default=str, compare=False)
    received_at: float | None = field(default=None, compare=False)
    refused_key: str = ""
    excerpt: bytes = field(default=b"", repr=False)

    def value(self) -> Any:
        """Return the JSON value of the body, or of its excerpt, without the key; or ``NOT_JSON``."""
        return read_json(self.excerpt or self.body, self.redact)

    def text(self) -> str:
        """Return the body as text without the key, for errors. JSON is encoded again, without escapes.

        NUL is removed from other text: in UTF-16 that was not recognized it separates the letters.
        """
        value = self.value()
        if value is NOT_JSON:
            return self.redact(decode(self.body).replace("\0", ""))
        return json.dumps(value, ensure_ascii=False)


@dataclass(frozen=True)
class NoResponse:
    """A request without an HTTP answer.

    :param reason: what happened.
    :param is_sent: whether the platform may have received the request.
    """

    reason: str
    is_sent: bool


class AnswerTooLarge(ConnectionError):
    """The body of an answer exceeds the size limit."""


@dataclass(frozen=True)
class OpenAnswer:
    """A successful HTTP answer whose body is still arriving.

    :param status_code: from 200 to 299.
    :param content_type: the media type, in lower case.
    :param body: the bytes as they arrive; raises :class:`ConnectionError` if the body is cut, and
        :class:`TimeoutError` if it takes too long.
    :param close: closes the connection.
    :param redact: removes the key from a text.
    """

    status_code: int
    content_type: str
    body: Iterable[bytes]
    close: Callable[[], None] = lambda: None
    redact: Redact = str


def submission_request(models_run_url: str, model_id: str, payload: str) -> Request:
    """Return the request that starts a run (``run_async``).

    :param models_run_url: the execution URL, without the model's id.
    :param model_id: the model's id on the platform.
    :param payload: the body, from :func:`~airflow_provider_aixplain.protocol.payload.build_payload`.
    :raises InvalidInput: if ``model_id`` is empty or not an id.
    """
    return Request("POST", f"{models_run_url}/{_quote_for_path('model_id', model_id)}", payload.encode())


def agent_run_request(backend_url: str, agent_id: str, payload: str) -> Request:
    """Return the request that starts the run of an agent or a team agent.

    :param payload: the body, as JSON.
    :raises InvalidInput: if ``agent_id`` is empty or not an id.
    """
    path = _quote_for_path("agent_id", agent_id).replace("/", "%2F")
    return Request("POST", f"{backend_url}/v2/agents/{path}/run", payload.encode())


def direct_run_request(models_run_url: str, model_id: str, payload: str) -> Request:
    """Return the request of ``run`` and ``run_stream``, which the platform may answer with the result itself.

    It uses version 2 of the endpoint. Arguments and errors are those of :func:`submission_request`.
    """
    return submission_request(models_run_url.replace("/api/v1/execute", "/api/v2/execute"), model_id, payload)


def poll_request(poll_url: str) -> Request:
    """Return the request that polls a run.

    :param poll_url: the ``url`` of a submission's response.
    :raises InvalidInput: if it is not a URL.
    """
    if not isinstance(poll_url, str) or not poll_url:
        raise InvalidInput(
            f"poll_url is {poll_url!r}: give the url of a submission's response; a refused submission has none, but an"
            " error_message"
        )
    return Request("GET", poll_url)


def model_record_request(backend_url: str, model_id: str) -> Request:
    """Return the request for a model's record.

    :raises InvalidInput: if ``model_id`` is empty or not an id.
    """
    path = _quote_for_path("model_id", model_id).replace("/", "%2F")
    return Request("GET", f"{backend_url}/sdk/models/{path}", credential=Credential.AUTHORIZATION)


def model_record_by_name_request(backend_url: str, name: str) -> Request:
    """Return the request for a model's record, by the model's name.

    :raises InvalidInput: if ``name`` is empty or not a name.
    """
    path = _quote_for_path("name", name)
    return Request("GET", f"{backend_url}/sdk/models/by-name/{path}", credential=Credential.AUTHORIZATION)


def deletion_request(backend_url: str, model_id: str) -> Request:
    """Return the request that deletes a model.

    :raises InvalidInput: if ``model_id`` is empty or not an id.
    """
    path = _quote_for_path("model_id", model_id)
    return Request("DELETE", f"{backend_url}/sdk/models/{path}", credential=Credential.AUTHORIZATION)


def finetune_logs_request(backend_url: str, model_id: str) -> Request:
    """Return the request for the training logs of a fine-tuned model.

    :raises InvalidInput: if ``model_id`` is empty or not an id.
    """
    return Request("GET", f"{backend_url}/sdk/finetune/{_quote_for_path('model_id', model_id)}/ml-logs")


def read_submission(outcome: Answer | NoResponse) -> ModelResponse:
    """Return the response to a submission.

    :param outcome: the outcome of a :func:`submission_request` or a :func:`direct_run_request`.
    :return: in progress, with the poll URL as ``url``; or the final result; or failed, with the reason as ``failure``.
    """
    if isinstance(outcome, NoResponse):
        effect = "the platform may have received the submission" if outcome.is_sent else "nothing was sent"
        failure = Failure(ErrorCategory.PLATFORM, is_sent=outcome.is_sent)
        return _failed(failure, f"No response, {effect}: {outcome.reason}", completed=True)
    body = outcome.value()
    if not _is_success(outcome):
        return _failed(*_refusal(outcome, body), completed=True)
    if not isinstance(body, dict):
        return _failed(*_malformed(outcome, "is not a JSON object"), completed=True)
    status = statuses.normalize_status(body)
    response = read_response(body)
    url = find_poll_url(body)
    has_result = statuses.has_output(body) and body.get("data") != url
    is_failed = response.status is ResponseStatus.FAILED and not url
    if response.completed and (not statuses.is_running(status) or has_result or is_failed):
        return response
    if url:
        rest = {key: value for key, value in body.items() if key != "completed" and value != url}
        if statuses.is_running(status):
            rest.pop("status", None)
        return ModelResponse(ResponseStatus.IN_PROGRESS, url=url, additional_fields=rest)
    if statuses.is_success(status):
        # Without a poll URL a success is the result, even if the answer states "completed": false.
        return read_response(body, completed=True)
    if not statuses.is_running(status):
        response.status, response.completed = ResponseStatus.FAILED, True
        response.error_message = to_printable(
            f"the platform returned the status {body['status']!r} without a poll URL: {body.get('data')!r}"
        )
        return response
    request_id = f" for the request {body['requestId']!r}" if body.get("requestId") else ""
    return _failed(*_malformed(outcome, f"accepts the run without a poll URL{request_id}"), completed=True)


def find_poll_url(body: Mapping[str, Any]) -> str | None:
    """Return the poll URL of a submission's answer: ``data``, or else ``url``, where pipelines have it."""
    return next((url for url in (body.get("data"), body.get("url")) if is_http_url(url)), None)


def is_http_url(value: Any) -> bool:
    """Return whether a value is a string that starts like an http(s) URL and has no control characters."""
    return isinstance(value, str) and value.isprintable() and value.lower().startswith(("https://", "http://"))


def read_poll(outcome: Answer | NoResponse) -> ModelResponse:
    """Return the response to a poll.

    :param outcome: the outcome of a :func:`poll_request`.
    :return: the run's state; failed and not completed, with the reason as ``failure``, if the poll failed, or if the
        run has finished and its answer is cut. If the run has not finished, a cut answer gives the steps that fit.
    """
    if isinstance(outcome, NoResponse):
        return _failed(Failure(ErrorCategory.PLATFORM), f"No response: {outcome.reason}", completed=False)
    body = outcome.value()
    if not _is_success(outcome):
        return _failed(*_refusal(outcome, body), completed=False)
    if isinstance(body, dict):
        response = read_response(body)
        # An error without either key is a gateway's, not the run's.
        is_run_state = not response.error_message or not body.keys().isdisjoint(("status", "completed"))
        if is_run_state and not (outcome.excerpt and response.completed):
            return response
    return _failed(*_malformed(outcome, "does not state whether the run has finished"), completed=False)


def name_refused_key(outcome: _T, request: Request, key_source: str) -> _T:
    """Return the outcome of a request. If the platform refuses the key, its error names where the key comes from.

    :param key_source: where the key comes from.
    """
    if isinstance(outcome, Answer) and outcome.status_code in (401, 403) and request.credential is not Credential.NONE:
        return replace(outcome, refused_key=key_source)
    return outcome


def read_object(outcome: Answer | NoResponse, what: str) -> dict[str, Any]:
    """Return the JSON object of an answer.

    :param what: what was requested, for the error.
    :raises RequestFailed: if the request failed, or the answer is not a JSON object.
    """
    answer = require_success(outcome, what)
    body = answer.value()
    if not isinstance(body, dict):
        raise _request_failed(what, *_malformed(answer, "is not a JSON object"))
    return body


def read_deletion(outcome: Answer | NoResponse) -> None:
    """Check that the platform deleted a model: only HTTP 200 confirms it.

    :raises RequestFailed: if it did not.
    """
    answer = require_success(outcome, "deletion")
    if answer.status_code != 200:
        raise _request_failed("deletion", *_refusal(answer, answer.value()))


def require_success(outcome: Answer | NoResponse, what: str) -> Answer:
    """Return a successful answer.

    :param what: what was requested, for the error.
    :raises RequestFailed: if the request was refused, or there is no answer.
    """
    if isinstance(outcome, NoResponse):
        raise _request_failed(what, Failure(ErrorCategory.PLATFORM), f"no response: {outcome.reason}")
    if not _is_success(outcome):
        raise _request_failed(what, *_refusal(outcome, outcome.value()))
    return outcome


def unusable_answer_error(what: str, problem: str, body: Any) -> RequestFailed:
    """Return the error for an answer that lacks required fields.

    :param what: what was requested.
    :param problem: what is wrong with the answer, as a verb phrase.
    """
    return _request_failed(what, Failure(ErrorCategory.PLATFORM), f"an answer that {problem}: {body}")


def _request_failed(what: str, failure: Failure, message: str) -> RequestFailed:
    return RequestFailed(failure, to_printable(f"{what}: {message}"))


def _quote_for_path(name: str, value: str) -> str:
    """Return an id or a name, encoded for a URL's path. ``name`` is the name of the argument, for an error."""
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise InvalidInput(f"{name} is {value!r}: copy it from its page on the platform")
    if {".", ".."} & set(value.split("/")):
        raise InvalidInput(f"{name} is {value!r}: it must not contain '.' or '..' between slashes")
    return quote(value, safe="/")


def _failed(failure: Failure, message: str, *, completed: bool) -> ModelResponse:
    return ModelResponse(
        ResponseStatus.FAILED, completed=completed, error_message=to_printable(message), failure=failure
    )


def _is_success(answer: Answer) -> bool:
    return 200 <= answer.status_code <= 299


def _refusal(answer: Answer, body: Any) -> tuple[Failure, str]:
    """Return the failure and the message of an answer that is not a success."""
    category = ErrorCategory.of(answer.status_code)
    failure = Failure(category, answer.status_code, retry_after=_retry_after(answer))
    reason = statuses.find_reason(body) if isinstance(body, dict) else ""
    key = f"the platform refuses {answer.refused_key}: " if answer.refused_key else ""
    if location := answer.headers.get("location", "") if 300 <= answer.status_code <= 399 else "":
        reason = f"a redirect that is not followed, to {answer.redact(location)}; check the URLs in the Connection"
    return failure, f"HTTP {answer.status_code} ({category.value}): {key}{reason or answer.text() or 'no details'}"


def _retry_after(answer: Answer) -> float | None:
    """Return the ``Retry-After`` of an answer, in seconds: a number, or a date relative to the answer's own."""
    text = answer.headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]+(\.[0-9]*)?", text):
        return min(float(text), MAX_FIGURE)
    then, now = _http_time(text), _http_time(answer.headers.get("date", ""))
    now = answer.received_at if now is None else now
    return None if then is None or now is None else min(max(0.0, then - now), MAX_FIGURE)


def _http_time(text: str) -> float | None:
    """Return the seconds since 1970 of a date, in any form that HTTP permits; or None."""
    from email.utils import parsedate_to_datetime  # imported late, as it imports socket

    try:
        date = parsedate_to_datetime(text)
        return (date if date.tzinfo else date.replace(tzinfo=timezone.utc)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _malformed(answer: Answer, what: str) -> tuple[Failure, str]:
    """Return the failure and the message of an answer that cannot be used; ``what`` states why, as a verb phrase."""
    if answer.is_cut:
        problem = f"with an answer that exceeds the limit of {len(answer.body)} bytes"
        remedy = "to raise it, set max_answer_mib in the extra of the Connection"
        return Failure(ErrorCategory.SIZE, answer.status_code), f"HTTP {answer.status_code} {problem}; {remedy}"
    failure = Failure(ErrorCategory.PLATFORM, answer.status_code)
    return failure, f"HTTP {answer.status_code} with an answer that {what}: {answer.text() or 'an empty body'}"
