"""Where this project deliberately differs from the public package, each with its reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

KNOWN = ("IN_PROGRESS", "SUCCESS", "FAILED")
EVERYTHING = frozenset({"*"})


@dataclass(frozen=True)
class Case:
    """A call, and the platform's response to it.

    :param call: the name of the call.
    :param arguments: its arguments.
    :param status_code: HTTP status code of the response.
    :param body: body of the response, or its JSON value.
    :param tls: whether the connection is encrypted, as it is to the real platform.
    """

    call: str
    arguments: dict[str, Any] = field(default_factory=dict)
    status_code: int = 200
    body: Any = b"{}"
    tls: bool = False

    @property
    def raw(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()

    @property
    def json_body(self) -> dict[str, Any]:
        """The JSON object in the response; empty if there is none."""
        try:
            value = json.loads(self.raw)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    @property
    def is_success(self) -> bool:
        return 200 <= self.status_code <= 299

    @property
    def submits(self) -> bool:
        return self.call in ("run", "run_async")

    @property
    def has_poll_url(self) -> bool:
        return isinstance(self.json_body.get("data"), str) and self.json_body["data"] != ""

    @property
    def is_final(self) -> bool:
        """Whether the response to a submission is the result."""
        return self.submits and self.is_success and self.json_body.get("status", "IN_PROGRESS") != "IN_PROGRESS"

    @property
    def logs(self) -> list[dict[str, Any]]:
        """The training logs in the response."""
        return list(self.json_body.get("logs") or [])

    @property
    def has_response_fields(self) -> bool:
        """Whether the response has the fields of a ``ModelResponse``."""
        return self.is_final or (self.call == "poll" and "completed" in self.json_body)


@dataclass(frozen=True)
class Difference:
    """A deliberate difference.

    :param what: what this project does.
    :param why: the reason.
    :param when: whether it applies to a case.
    :param where: the parts of requests and results that differ; ``*`` for the whole result.
    """

    what: str
    why: str
    when: Callable[[Case], bool]
    where: frozenset[str]


def _where(*names: str) -> frozenset[str]:
    return frozenset(names)


DIFFERENCES = [
    Difference(
        "a refusal is reported with its status code, category and the platform's message",
        "the package's messages omit the code, which leads to the cause",
        lambda case: case.submits and not case.is_success,
        _where("error_message"),
    ),
    Difference(
        "a response that cannot be parsed is quoted",
        "the package replaces it by 'An error occurred while processing your request' or the message of a KeyError",
        lambda case: (
            (case.submits and case.is_success and not case.is_final and not isinstance(case.json_body.get("data"), str))
            or (case.submits and case.json_body.get("data") == "")
            or (case.call == "poll" and not case.json_body)
        ),
        _where("error_message", "status", "url", "completed"),
    ),
    Difference(
        "a poll URL in url, or with an unknown status, is polled",
        "the package only reads data of a run in progress, so the run is billed and lost",
        lambda case: (
            case.submits and case.is_success and ("url" in case.json_body or case.json_body.get("status") == "QUEUED")
        ),
        EVERYTHING | {"requests", "media types"},
    ),
    Difference(
        "a poll with an error status code says nothing about the run, so the wait continues",
        "the package reads the body of any response, even of a gateway",
        lambda case: case.call == "poll" and not case.is_success,
        EVERYTHING,
    ),
    Difference(
        "a poll's response without completed is interpreted by its status",
        "the package fails with a KeyError, and polls until the timeout",
        lambda case: case.call == "poll" and "completed" not in case.json_body,
        EVERYTHING,
    ),
    Difference(
        "a success is in progress while completed is false; a failure and the result of a submission are completed",
        "the package returns both unchanged, so a failed run is polled until the timeout",
        lambda case: (
            case.has_response_fields
            and case.json_body.get("status") in ("SUCCESS", "FAILED")
            and case.json_body.get("completed") is not True
        ),
        _where("status", "completed", "additional_fields"),
    ),
    Difference(
        "a reason is read from any of its keys, and an empty one is ignored",
        "the package reads error_message and supplierError, and treats an empty one as a failure",
        lambda case: (
            case.call == "poll"
            and bool(case.json_body.keys() & {"error_message", "error", "supplierError", "errorDetails"})
        ),
        _where("status", "error_message", "error_code"),
    ),
    Difference(
        "the supplier's message is appended to any other reason",
        "the package drops it if there is an error_message",
        lambda case: (
            case.has_response_fields and bool(case.json_body.get("error_message")) and "supplierError" in case.json_body
        ),
        _where("error_message"),
    ),
    Difference(
        "an accepted submission keeps all other fields of the response",
        "no data from the platform is lost",
        lambda case: (
            case.submits and not case.is_final and bool(case.json_body.keys() - {"status", "data", "completed"})
        ),
        _where("additional_fields"),
    ),
    Difference(
        "run_async reads credits and run time of an immediate result, as run does",
        "the package leaves them in the additional fields",
        lambda case: (
            case.call == "run_async" and case.is_final and bool(case.json_body.keys() & {"usedCredits", "runTime"})
        ),
        _where("used_credits", "run_time", "additional_fields"),
    ),
    Difference(
        "error_code is a field",
        "the package passes it twice, which raises a TypeError, and poll returns a failure without the result",
        lambda case: case.has_response_fields and "error_code" in case.json_body,
        EVERYTHING,
    ),
    Difference(
        "the successor API's names and positions of credits, run time and reasons are read",
        "the package only reads the old ones, and raises a TypeError for used_credits and run_time",
        lambda case: (
            case.has_response_fields
            and (
                bool(case.json_body.keys() & {"errorMessage", "used_credits", "run_time"})
                or (
                    isinstance(case.json_body.get("data"), dict)
                    and bool(case.json_body["data"].keys() & {"executionStats", "steps", "usedCredits", "error"})
                )
            )
        ),
        EVERYTHING,
    ),
    Difference(
        "any other status than the three known ones is interpreted, and kept in the additional fields",
        "the package drops it, so ABORTED is a success, and returns values other than strings as the status",
        lambda case: case.has_response_fields and "status" in case.json_body and case.json_body["status"] not in KNOWN,
        _where("additional_fields", "error_message", "status", "completed"),
    ),
    Difference(
        "a submission's status of null is treated as missing: the run is accepted",
        "the package treats it as a result without a status, and the poll URL is lost in its data",
        lambda case: case.submits and case.is_success and "status" in case.json_body and not case.json_body["status"],
        EVERYTHING | {"requests", "media types"},
    ),
    Difference(
        "completed is a boolean; any other value is kept in the additional fields",
        "the package returns a string, which is true even if it is 'false'",
        lambda case: case.has_response_fields and not isinstance(case.json_body.get("completed", True), bool),
        _where("completed", "additional_fields"),
    ),
    Difference(
        "error_message is a string",
        "the package returns null and objects, for which 'in' and formatting fail",
        lambda case: (
            case.has_response_fields
            and any(
                not isinstance(case.json_body.get(key, ""), str) for key in ("error_message", "error", "supplierError")
            )
        ),
        _where("error_message", "additional_fields"),
    ),
    Difference(
        "values that Airflow cannot serialize become strings: integers over 64 bits, NaN, infinity, lone surrogates",
        "one of them stops the whole triggerer of Airflow 3.3.2",
        lambda case: any(
            odd in case.raw for odd in (b"NaN", b"1e999", b"99999999999999999999", b"\\ud800", b"\\u0000")
        ),
        _where("data", "used_credits", "details", "usage"),
    ),
    Difference(
        "sync_poll and run report why they stopped, and the poll URL",
        "the package reports 'No response from the service.', and the continuing run cannot be found",
        lambda case: case.call == "sync_poll" and case.json_body.get("completed") is not True,
        _where("error_message", "url"),
    ),
    Difference(
        "with a timeout of 0 one poll is made",
        "the run may have finished, and its result must not be lost",
        lambda case: case.call == "sync_poll" and case.arguments.get("timeout") == 0,
        EVERYTHING | {"requests", "media types"},
    ),
    Difference(
        "a string that is the path of a local file is sent unchanged",
        "the package uploads the file, so a string in upstream data could send any file that the worker can read",
        lambda case: case.arguments.get("data") == __file__,
        EVERYTHING | {"requests", "media types"},
    ),
    Difference(
        "a string that is not standard JSON is sent unchanged: NaN, Infinity, 1e999",
        "the package sends nan and inf, as strings or in an invalid JSON body",
        lambda case: case.arguments.get("data") in ("NaN", "-Infinity", "1e999", '{"a": NaN}'),
        _where("requests"),
    ),
    Difference(
        "input that JSON cannot represent is rejected",
        "the package sends an invalid JSON body",
        lambda case: case.submits and "__nan__" in json.dumps(case.arguments),
        EVERYTHING | {"requests", "media types"},
    ),
    Difference(
        "a poll URL with an untrusted origin is not requested",
        "the package sends the key to any host in a response",
        lambda case: case.call == "poll" and "localhost" in case.arguments["poll_url"],
        EVERYTHING | {"requests", "media types"},
    ),
    Difference(
        "blank lines of a stream are not chunks, and its end is one chunk",
        "the package returns an empty chunk for each separator",
        lambda case: case.call == "run_stream",
        _where("number of chunks"),
    ),
    Difference(
        "all fields of a chunk are kept",
        "the package drops all but the text: token counts, indices, reasons",
        lambda case: case.call == "run_stream" and b'{"data": {' in case.raw,
        _where("chunks"),
    ),
    Difference(
        "a stream that fails, is refused or is cut has the status FAILED",
        "the package leaves it in progress, or returns the page of a refusal as the model's text",
        lambda case: case.call == "run_stream" and (b"[DONE]" not in case.raw or not case.is_success),
        _where("chunks", "text", "status"),
    ),
    Difference(
        "OpenAI's chunks are read",
        "the package returns them as empty strings",
        lambda case: case.call == "run_stream" and b"choices" in case.raw,
        _where("chunks", "text"),
    ),
    Difference(
        "a fine-tuning whose status is unavailable is an error",
        "the package logs it and returns None",
        lambda case: (
            case.call == "check_finetune_status" and (not case.is_success or "finetuneStatus" not in case.json_body)
        ),
        EVERYTHING,
    ),
    Difference(
        "an unknown state of a fine-tuning is returned unchanged",
        "the package returns None, as on an error",
        lambda case: case.call == "check_finetune_status" and case.json_body.get("finetuneStatus") == "paused",
        EVERYTHING,
    ),
    Difference(
        "logs with fractional epochs, missing losses or no epoch are read",
        "the package returns None, as on an error",
        lambda case: (
            case.call == "check_finetune_status"
            and any(
                log.keys() != {"epoch", "trainLoss", "evalLoss"} or log["epoch"] in (0.5, None) for log in case.logs
            )
        ),
        EVERYTHING,
    ),
    Difference(
        "a model's supplier is the one in the argument or record",
        "the package looks it up in its own table, which becomes outdated, and falls back to aiXplain",
        lambda case: case.call in ("construct", "to_dict", "from_dict"),
        _where("supplier"),
    ),
    Difference(
        "an unknown state of a model is returned unchanged",
        "the package treats it as onboarded",
        lambda case: case.call == "construct" and case.arguments.get("status") == "paused",
        _where("status"),
    ),
    Difference(
        "to_dict returns every argument except the key",
        "the package's to_dict omits values that from_dict reads",
        lambda case: case.call == "to_dict",
        _where("version", "cost", "created_at", "is_subscribed", "supports_streaming", "function_type"),
    ),
    Difference(
        "to_dict works without parameters, and from_dict without a function",
        "the package raises an unrelated error",
        lambda case: (
            (case.call == "to_dict" and "model_params" not in case.arguments)
            or (case.call == "from_dict" and "function" not in case.arguments["data"])
        ),
        EVERYTHING,
    ),
    Difference(
        "from_dict reads every argument that to_dict returns",
        "the package's from_dict(to_dict()) loses the state",
        lambda case: case.call == "from_dict" and "status" in case.arguments["data"],
        _where("status"),
    ),
    Difference(
        "fields of a record that are not arguments of the class are kept by name",
        "the package keeps some, and values derived from its own tables",
        lambda case: case.call == "get_model",
        _where("additional_info"),
    ),
    Difference(
        "a record without function, supplier, price or version is a model",
        "the package raises a KeyError",
        lambda case: (
            case.call == "get_model" and not {"function", "supplier", "pricing", "version"} <= case.json_body.keys()
        ),
        EVERYTHING,
    ),
    Difference(
        "a completed run in progress is completed: failed if there is an error, else successful",
        "the package returns a completed response in progress, which callers cannot interpret",
        lambda case: (
            case.call == "poll"
            and case.json_body.get("completed") is True
            and case.json_body.get("status") == "IN_PROGRESS"
        ),
        _where("status", "additional_fields"),
    ),
    Difference(
        "input of None is rejected",
        "the package sends null, so an upstream task that returned nothing would cause a billed run",
        lambda case: case.call in ("run", "run_async", "run_stream") and case.arguments.get("data", "") is None,
        EVERYTHING | {"requests", "media types"},
    ),
    Difference(
        "input that violates the model's declared parameters is rejected, if they are known",
        "the package sends it, and the platform bills or refuses it",
        lambda case: case.call == "run_declared" and case.arguments["data"] in ({"text": 5}, {"speed": 1}),
        EVERYTHING | {"requests", "media types"},
    ),
    Difference(
        "a request is sent once",
        "the package repeats all but POST up to five times on a 5xx, and then raises; here the poll schedule decides",
        lambda case: case.tls and not case.submits,
        EVERYTHING | {"requests", "media types"},
    ),
    Difference(
        "the text of a stream is decoded as UTF-8, as for all server-sent events",
        "the package decodes it as Latin-1 unless a header sets the encoding",
        lambda case: case.call == "run_stream" and not case.raw.isascii(),
        _where("text", "chunks"),
    ),
    Difference(
        "the link of a file in a storage whose host name has no bucket is derived from the path",
        "the package uses the first label of the host, even of an IP address",
        lambda case: case.call == "upload" or (case.call == "link" and "127.0.0.1" in case.arguments["url"]),
        _where("value"),
    ),
    Difference(
        "an upload has the file's own media type",
        "the package sends text/csv for every temporary file",
        lambda case: case.call == "upload",
        _where("media types"),
    ),
]


SUBMISSION = EVERYTHING | {"submissions", "other requests"}

AGENT_DEFAULTS = {
    "output_format": (
        "outputFormat",
        "the format in its copy of the agent, even if that is text and there is a schema",
    ),
    "max_tokens": ("maxTokens", "the limit in its copy of the agent, by default 2048"),
    "max_time": ("maxTime", "300 seconds, whatever the limit of the agent"),
    "expected_output": ("expectedOutput", "null, if its copy of the agent has none"),
    "context_overflow_strategy": ("contextOverflowStrategy", "null, if its copy of the agent has none"),
}
"""Settings that this project sends only if they are given: their names in a request, and what the package sends."""


def _submits(case: Case, **arguments: Any) -> bool:
    """Whether a case submits a run of an agent, with one of these values of each argument."""
    given = case.arguments
    return case.call == "submit_agent" and all(given.get(name) in values for name, values in arguments.items())


def _has_answer_class(case: Case) -> bool:
    return _submits(case, expected_output=({"__answer__": 1},))


def _attachments(case: Case) -> list[Any]:
    return list(case.arguments.get("attachments", ())) if _submits(case) else []


def _data(case: Case) -> dict[str, Any]:
    """The data of a poll's response; empty if it is no object."""
    data = case.json_body.get("data") if case.call == "poll_agent" else None
    return data if isinstance(data, dict) else {}


def _is_odd_figure(value: Any) -> bool:
    return isinstance(value, (str, bool)) or (isinstance(value, (int, float)) and value < 0)


AGENT_DIFFERENCES = [
    Difference(
        "a run of an agent is one request",
        "the package reads the agent first, as it sends its settings with each run",
        _submits,
        _where("other requests"),
    ),
    Difference(
        "metaData has only the name of this client",
        "the package asks ipinfo.io, and sends the address, place, time zone and language of the machine",
        _submits,
        frozenset(
            f"metaData.{name}"
            for name in ("userAgent", "region", "language", "ipAddress", "latitude", "longitude", "timezone")
        ),
    ),
    *(
        Difference(
            f"{name} is sent only if it is given, so that the agent's own setting applies",
            f"the package sends {value}",
            lambda case, name=name: _submits(case) and name not in case.arguments,
            _where(f"executionParams.{key}"),
        )
        for name, (key, value) in AGENT_DEFAULTS.items()
    ),
    Difference(
        "an answer in JSON is requested with its generation",
        "the package requests none, with which the platform refuses JSON",
        lambda case: _has_answer_class(case) or _submits(case, output_format=("json",)),
        _where("runResponseGeneration"),
    ),
    Difference(
        "a session is continued by its id in the submission",
        "the package posts a message to the session: settings of a run change the session for all later runs, and"
        " variables and queries that are no text are refused",
        lambda case: case.call == "run_agent_in_session",
        SUBMISSION,
    ),
    Difference(
        "an empty query is refused",
        "the package sends it, so an upstream task that returned nothing would cause a billed run",
        lambda case: _submits(case, query=("", {})),
        SUBMISSION,
    ),
    Difference(
        "a variable that would replace the query is refused",
        "the package drops the query",
        lambda case: _submits(case) and "input" in case.arguments.get("variables", {}),
        SUBMISSION,
    ),
    Difference(
        "formats that do not exist, and limits of 0 or below, are refused",
        "the package sends them",
        lambda case: (
            _submits(case, output_format=("xml",))
            or _submits(case, max_tokens=(-1,))
            or _submits(case, budget=({"max_cost": -1}, {"max_iterations": 0}))
        ),
        SUBMISSION,
    ),
    Difference(
        "an unknown cap of a budget is refused",
        "the package ignores it, so nothing limits the run",
        lambda case: _submits(case, budget=({"most": 1},)),
        SUBMISSION,
    ),
    Difference(
        "an expected output that does not fit the format is refused",
        "the package sends it, and checks it only when it saves an agent",
        lambda case: (
            _submits(case, expected_output=("", "no JSON"))
            or (_has_answer_class(case) and _submits(case, output_format=("text",)))
        ),
        SUBMISSION,
    ),
    Difference(
        "members of enumerations are sent as their values",
        "the package raises a TypeError",
        lambda case: _submits(case) and "__enum__" in str(case.arguments),
        SUBMISSION,
    ),
    Difference(
        "a parameter of a tool can be null",
        "the package leaves it out, as it sends what its copy of the tool has",
        lambda case: (
            _submits(case) and any(None in tool["parameters"].values() for tool in case.arguments.get("tools", ()))
        ),
        _where("tools"),
    ),
    Difference(
        "a local path is refused as an attachment: Upload marks a file",
        "the package uploads it, so a string in upstream data could send any file that the worker can read",
        lambda case: __file__ in _attachments(case),
        SUBMISSION,
    ),
    Difference(
        "an attachment with unknown keys is refused",
        "the package sends them",
        lambda case: any(isinstance(one, dict) and "codec" in one for one in _attachments(case)),
        SUBMISSION,
    ),
    Difference(
        "every attachment has the name of its file",
        "the package sends none for a dict without one, and the fragment of a URL as part of a name",
        lambda case: any("name" not in one if isinstance(one, dict) else "#" in one for one in _attachments(case)),
        _where("attachments.name"),
    ),
    Difference(
        "the type of an attachment follows from its media type, if that is given",
        "the package derives it from the name",
        lambda case: any(isinstance(one, dict) and "mimeType" in one for one in _attachments(case)),
        _where("attachments.type"),
    ),
    Difference(
        "media types are those of uploads; a template of a document is a document, and unknown bytes have no type",
        "the package has tables of its own, and sends the type unknown for both",
        lambda case: any(str(one).endswith((".dotx", ".sqlite", ".bin")) for one in _attachments(case)),
        _where("attachments.type", "attachments.mimeType"),
    ),
    Difference(
        "the response to a submission has its session id",
        "the package drops it",
        lambda case: _submits(case) and case.json_body.get("status", "IN_PROGRESS") == "IN_PROGRESS",
        _where("session_id"),
    ),
    Difference(
        "a run that failed, was refused or cannot be polled is a response with all that is known",
        "the package raises an error without cost, output and error code",
        lambda case: (
            (_submits(case) or case.call == "poll_agent")
            and (
                not case.is_success
                or case.raw == b"<html>"
                or case.json_body.get("status") == "FAILED"
                or (_submits(case) and case.body == {})
            )
        ),
        EVERYTHING,
    ),
    Difference(
        "an error without status and completed is a gateway's, and says nothing about the run",
        "the package reads it as the state of the run",
        lambda case: (
            case.call == "poll_agent"
            and case.json_body.keys().isdisjoint({"status", "completed"})
            and ("error" in _data(case) or not case.json_body.keys().isdisjoint({"error", "errorMessage"}))
        ),
        EVERYTHING,
    ),
    Difference(
        "a response has its poll URL",
        "the package returns only one that the response repeats",
        lambda case: case.call == "poll_agent",
        _where("url"),
    ),
    Difference(
        "the status is one of three, and agrees with completed",
        "the package returns what the platform sends, such as ABORTED, or a finished run in progress",
        lambda case: (
            case.call == "poll_agent"
            and (case.json_body.get("status"), case.json_body.get("completed"))
            not in (("SUCCESS", True), ("IN_PROGRESS", False), ("IN_PROGRESS", None), (None, False))
        ),
        _where("status", "completed", "error_message"),
    ),
    Difference(
        "a reason is read from any of its keys",
        "the package reads errorMessage and data.error, also an empty one",
        lambda case: (
            case.call == "poll_agent"
            and (
                _data(case).get("error") == ""
                or not case.json_body.keys().isdisjoint({"error_message", "error", "supplierError", "errorDetails"})
            )
        ),
        _where("status", "error_message"),
    ),
    Difference(
        "an id is a text: an empty one, and one of another type, is unknown",
        "the package returns the one, and converts the other to a string",
        lambda case: any(
            ids.get(name) == "" or not isinstance(ids.get(name), (str, type(None)))
            for ids in (case.json_body, _data(case))
            for name in ("sessionId", "requestId", "session_id")
        ),
        _where("session_id", "request_id"),
    ),
    Difference(
        "the session id is also read from data.sessionId",
        "the package reads only data.session_id",
        lambda case: "sessionId" in _data(case),
        _where("session_id"),
    ),
    Difference(
        "the request id is also read from the poll URL",
        "the package has it in another attribute",
        lambda case: case.call == "poll_agent" and not case.json_body.get("requestId"),
        _where("request_id"),
    ),
    Difference(
        "an empty text is no output",
        "it is what a response without data has, as of a model",
        lambda case: case.call == "poll_agent" and case.json_body.get("data") == "",
        _where("output"),
    ),
    Difference(
        "artifacts are what the platform sends",
        "the package drops entries that are no objects, and converts their fields to strings",
        lambda case: any(
            not isinstance(one, dict) or not isinstance(one.get("url"), str) for one in _data(case).get("artifacts", ())
        ),
        _where("artifacts"),
    ),
    Difference(
        "a cost or duration is a number above 0, or is looked up in the next place",
        "the package returns the first value that is a number, also below 0, and reads true as 1",
        lambda case: any(_is_odd_figure(case.json_body.get(name)) for name in ("usedCredits", "runTime")),
        _where("used_credits", "run_time"),
    ),
]
