"""Where this project answers otherwise than the public package, on purpose: one row for each, with its reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

KNOWN = ("IN_PROGRESS", "SUCCESS", "FAILED")
EVERYTHING = frozenset({"*"})


@dataclass(frozen=True)
class Case:
    """A call, and what the platform answers to it.

    :param call: the name of the call.
    :param arguments: its arguments.
    :param status_code: the HTTP status code of the answer.
    :param body: the body of the answer, or a JSON value for it.
    :param tls: whether the way to the platform is encrypted, as it is in earnest.
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
    def said(self) -> dict[str, Any]:
        """The JSON object of the answer, if it is one."""
        try:
            value = json.loads(self.raw)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    @property
    def granted(self) -> bool:
        return 200 <= self.status_code <= 299

    @property
    def submits(self) -> bool:
        return self.call in ("run", "run_async")

    @property
    def names_url(self) -> bool:
        return isinstance(self.said.get("data"), str) and self.said["data"] != ""

    @property
    def is_final(self) -> bool:
        """Whether the answer to a submission is the result."""
        return self.submits and self.granted and self.said.get("status", "IN_PROGRESS") != "IN_PROGRESS"

    @property
    def logs(self) -> list[dict[str, Any]]:
        """The training logs of the answer."""
        return list(self.said.get("logs") or [])

    @property
    def tells(self) -> bool:
        """Whether the answer holds the fields of a response."""
        return self.is_final or (self.call == "poll" and "completed" in self.said)


@dataclass(frozen=True)
class Difference:
    """A deliberate difference.

    :param what: what is done otherwise here.
    :param why: the reason.
    :param when: whether it shows in a case.
    :param where: the parts of requests and results in which it shows; ``*`` for all of the result.
    """

    what: str
    why: str
    when: Callable[[Case], bool]
    where: frozenset[str]


def _where(*names: str) -> frozenset[str]:
    return frozenset(names)


DIFFERENCES = [
    Difference(
        "a refusal is told with its status code, its category and the platform's words",
        "the package's sentences leave the code out, by which a user finds the cause",
        lambda case: case.submits and not case.granted,
        _where("error_message"),
    ),
    Difference(
        "an answer that cannot be read is quoted",
        "the package swallows it: 'An error occurred while processing your request', or a KeyError's text",
        lambda case: (
            (case.submits and case.granted and not case.is_final and not isinstance(case.said.get("data"), str))
            or (case.submits and case.said.get("data") == "")
            or (case.call == "poll" and not case.said)
        ),
        _where("error_message", "status", "url", "completed"),
    ),
    Difference(
        "a poll URL in url is polled, and so is one beside a status that is not known",
        "the package reads data of a run in progress only: the run is paid for and lost",
        lambda case: case.submits and case.granted and ("url" in case.said or case.said.get("status") == "QUEUED"),
        EVERYTHING | {"requests", "media types"},
    ),
    Difference(
        "a poll that is answered with an error's status code states nothing of the run: the wait continues",
        "the package reads the body of any answer, as that of a gateway",
        lambda case: case.call == "poll" and not case.granted,
        EVERYTHING,
    ),
    Difference(
        "a poll's answer without completed is read by its status",
        "the package fails with a KeyError, and polls until the time is up",
        lambda case: case.call == "poll" and "completed" not in case.said,
        EVERYTHING,
    ),
    Difference(
        "a success is in progress while completed is false; a failure and the answer to a submission are completed",
        "the package passes on both as they are, so that a failed run is polled until the time is up",
        lambda case: (
            case.tells and case.said.get("status") in ("SUCCESS", "FAILED") and case.said.get("completed") is not True
        ),
        _where("status", "completed", "additional_fields"),
    ),
    Difference(
        "a reason is one wherever it stands, and an empty one is none",
        "the package looks for the keys error_message and supplierError, and takes an empty one for a failure",
        lambda case: (
            case.call == "poll" and bool(case.said.keys() & {"error_message", "error", "supplierError", "errorDetails"})
        ),
        _where("status", "error_message", "error_code"),
    ),
    Difference(
        "what the supplier says is appended to any other reason",
        "the package drops it if there is an error_message",
        lambda case: case.tells and bool(case.said.get("error_message")) and "supplierError" in case.said,
        _where("error_message"),
    ),
    Difference(
        "an accepted submission keeps what else the platform said",
        "nothing that the platform sent is lost",
        lambda case: case.submits and not case.is_final and bool(case.said.keys() - {"status", "data", "completed"}),
        _where("additional_fields"),
    ),
    Difference(
        "run_async reads credits and run time of a run that is over at once, as run does",
        "the package leaves them among the additional fields",
        lambda case: case.call == "run_async" and case.is_final and bool(case.said.keys() & {"usedCredits", "runTime"}),
        _where("used_credits", "run_time", "additional_fields"),
    ),
    Difference(
        "error_code is a field",
        "the package passes it twice: a TypeError, which poll turns into a failed answer without a result",
        lambda case: case.tells and "error_code" in case.said,
        EVERYTHING,
    ),
    Difference(
        "the successor's spellings and places of credits, run time and reasons are read",
        "the package reads the old ones only, and fails with a TypeError over used_credits and run_time",
        lambda case: (
            case.tells
            and (
                bool(case.said.keys() & {"errorMessage", "used_credits", "run_time"})
                or (
                    isinstance(case.said.get("data"), dict)
                    and bool(case.said["data"].keys() & {"executionStats", "steps", "usedCredits", "error"})
                )
            )
        ),
        EVERYTHING,
    ),
    Difference(
        "a status that is none of the three known ones counts in any case, and stays in the additional fields",
        "the package drops the word, so that ABORTED is a success, and passes on what is no text as the status",
        lambda case: case.tells and "status" in case.said and case.said["status"] not in KNOWN,
        _where("additional_fields", "error_message", "status", "completed"),
    ),
    Difference(
        "a submission's status of null counts as absent: the run is accepted",
        "the package takes it for a final answer without a status, and the poll URL is lost as its data",
        lambda case: case.submits and case.granted and "status" in case.said and not case.said["status"],
        EVERYTHING | {"requests", "media types"},
    ),
    Difference(
        "completed is a truth value; anything else stays in the additional fields",
        "the package passes on a text, which is true whatever it says",
        lambda case: case.tells and not isinstance(case.said.get("completed", True), bool),
        _where("completed", "additional_fields"),
    ),
    Difference(
        "error_message is a text",
        "the package passes on null and objects, over which 'in' and formatting fail",
        lambda case: (
            case.tells
            and any(not isinstance(case.said.get(key, ""), str) for key in ("error_message", "error", "supplierError"))
        ),
        _where("error_message", "additional_fields"),
    ),
    Difference(
        "what Airflow cannot hand on becomes text: numbers over 64 bits, NaN, infinite ones, half surrogate pairs",
        "one of them ends the whole triggerer of Airflow 3.3.2",
        lambda case: any(
            odd in case.raw for odd in (b"NaN", b"1e999", b"99999999999999999999", b"\\ud800", b"\\u0000")
        ),
        _where("data", "used_credits", "details", "usage"),
    ),
    Difference(
        "sync_poll and run say why they gave up, and name the poll URL",
        "the package says 'No response from the service.', and the run that goes on cannot be found again",
        lambda case: case.call == "sync_poll" and case.said.get("completed") is not True,
        _where("error_message", "url"),
    ),
    Difference(
        "with a timeout of 0 one poll is made",
        "the run may be over: its result must not be lost",
        lambda case: case.call == "sync_poll" and case.arguments.get("timeout") == 0,
        EVERYTHING | {"requests", "media types"},
    ),
    Difference(
        "a text that names a file of this machine is sent as it is",
        "the package uploads the file: a text from upstream data would send any file that the worker can read",
        lambda case: case.arguments.get("data") == __file__,
        EVERYTHING | {"requests", "media types"},
    ),
    Difference(
        "a text that is no JSON by the standard is sent as it is: NaN, Infinity, 1e999",
        "the package sends nan and inf, as texts or as a body that is no JSON",
        lambda case: case.arguments.get("data") in ("NaN", "-Infinity", "1e999", '{"a": NaN}'),
        _where("requests"),
    ),
    Difference(
        "input that JSON cannot hold is refused",
        "the package sends a body that is no JSON",
        lambda case: case.submits and "__nan__" in json.dumps(case.arguments),
        EVERYTHING | {"requests", "media types"},
    ),
    Difference(
        "a poll URL on a foreign origin is not asked",
        "the package sends the key to any host that an answer names",
        lambda case: case.call == "poll" and "localhost" in case.arguments["poll_url"],
        EVERYTHING | {"requests", "media types"},
    ),
    Difference(
        "blank lines of a stream are no chunks, and the end is one chunk",
        "the package gives an empty chunk for each separator",
        lambda case: case.call == "run_stream",
        _where("number of chunks"),
    ),
    Difference(
        "what a chunk says beside its text is kept",
        "the package throws it away: token counts, indices, reasons",
        lambda case: case.call == "run_stream" and b'{"data": {' in case.raw,
        _where("chunks"),
    ),
    Difference(
        "a stream that fails, is refused or is cut says so",
        "the package leaves it in progress, or shows a refusal's page as the model's text",
        lambda case: case.call == "run_stream" and (b"[DONE]" not in case.raw or not case.granted),
        _where("chunks", "text", "status"),
    ),
    Difference(
        "OpenAI's chunks are read",
        "the package gives them as empty texts",
        lambda case: case.call == "run_stream" and b"choices" in case.raw,
        _where("chunks", "text"),
    ),
    Difference(
        "fine-tuning that cannot be told of is an error",
        "the package logs it and returns None",
        lambda case: case.call == "check_finetune_status" and (not case.granted or "finetuneStatus" not in case.said),
        EVERYTHING,
    ),
    Difference(
        "a fine-tuning's state that is not known stays the word that it is",
        "the package returns None, as on an error",
        lambda case: case.call == "check_finetune_status" and case.said.get("finetuneStatus") == "paused",
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
        "a model's supplier is what was given or recorded",
        "the package looks it up in a table of its own, which ages, and takes aiXplain where it fails",
        lambda case: case.call in ("construct", "to_dict", "from_dict"),
        _where("supplier"),
    ),
    Difference(
        "a model's state that is not known stays the word that it is",
        "the package takes it for onboarded",
        lambda case: case.call == "construct" and case.arguments.get("status") == "paused",
        _where("status"),
    ),
    Difference(
        "to_dict gives every argument but the key",
        "the package's leaves out what from_dict reads",
        lambda case: case.call == "to_dict",
        _where("version", "cost", "created_at", "is_subscribed", "supports_streaming", "function_type"),
    ),
    Difference(
        "to_dict works without parameters, and from_dict without a function",
        "the package raises from inside",
        lambda case: (
            (case.call == "to_dict" and "model_params" not in case.arguments)
            or (case.call == "from_dict" and "function" not in case.arguments["data"])
        ),
        EVERYTHING,
    ),
    Difference(
        "from_dict reads every argument of the class, as to_dict gives them",
        "the package's from_dict(to_dict()) forgets the state",
        lambda case: case.call == "from_dict" and "status" in case.arguments["data"],
        _where("status"),
    ),
    Difference(
        "what a record says beyond the arguments of the class is kept by its own name",
        "the package keeps a choice, and what it derives from tables of its own",
        lambda case: case.call == "get_model",
        _where("additional_info"),
    ),
    Difference(
        "a record without function, supplier, price or version is a model",
        "the package raises a KeyError from inside",
        lambda case: (
            case.call == "get_model" and not {"function", "supplier", "pricing", "version"} <= case.said.keys()
        ),
        EVERYTHING,
    ),
    Difference(
        "a run that is over, and in progress, is over: it failed if there is an error, else it succeeded",
        "the package gives a completed response in progress, which no caller can make anything of",
        lambda case: (
            case.call == "poll" and case.said.get("completed") is True and case.said.get("status") == "IN_PROGRESS"
        ),
        _where("status", "additional_fields"),
    ),
    Difference(
        "input of None is refused",
        "the package sends null: a task upstream that returned nothing would be paid for",
        lambda case: case.call in ("run", "run_async", "run_stream") and case.arguments.get("data", "") is None,
        EVERYTHING | {"requests", "media types"},
    ),
    Difference(
        "input that misses what the model declares is refused, where its declarations are known",
        "the package sends it, and the platform bills or refuses it",
        lambda case: case.call == "run_declared" and case.arguments["data"] in ({"text": 5}, {"speed": 1}),
        EVERYTHING | {"requests", "media types"},
    ),
    Difference(
        "a request is sent once",
        "the package repeats what is no POST up to five times on a 5xx, and then raises; here the schedule decides",
        lambda case: case.tls and not case.submits,
        EVERYTHING | {"requests", "media types"},
    ),
    Difference(
        "the text of a stream is UTF-8, as server-sent events are",
        "the package takes it for Latin-1 unless the answer's header names the encoding",
        lambda case: case.call == "run_stream" and not case.raw.isascii(),
        _where("text", "chunks"),
    ),
    Difference(
        "the link of a file in a store that has no bucket in its host's name is made from the path",
        "the package takes the first label of the host, even of an address",
        lambda case: case.call == "upload" or (case.call == "link" and "127.0.0.1" in case.arguments["url"]),
        _where("value"),
    ),
    Difference(
        "an upload names the file's own media type",
        "the package says text/csv of every temporary file",
        lambda case: case.call == "upload",
        _where("media types"),
    ),
]
