"""This project and the public package ``aixplain`` side by side, against one recording server.

Requests must be equal in method, path, JSON body and credential, and results in each field. The only exceptions are
those of :mod:`tests.parity.differences`, and each of them must occur.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_aixplain.client.account import Platform
from airflow_provider_aixplain.client.blocking import Client
from airflow_provider_aixplain.compat import ObjectStoragePath
from airflow_provider_aixplain.exceptions import AixplainError
from airflow_provider_aixplain.model import Model, ModelParameters
from airflow_provider_aixplain.protocol.upload import Slot
from tests.parity import differences
from tests.parity.differences import DIFFERENCES, Case, Difference
from tests.parity.plain import plain, revive
from tests.support.peer import KEY, Peer
from tests.support.scripted import Asked, Handler, Server

ACCEPTED = {"status": "IN_PROGRESS", "data": "SERVER/api/v1/data/7e1b"}
DONE = {"status": "SUCCESS", "completed": True, "data": "done"}
FORM = "application/x-www-form-urlencoded"
FIGURES = {"usedCredits": 0.5, "runTime": 2, "usage": {"prompt_tokens": 7, "total_tokens": "NaN"}}
RECORD = {
    "id": "6414bd3c",
    "name": "Sentiment",
    "description": "Detects sentiment",
    "supplier": {"id": 1, "name": "aixplain", "code": "aixplain"},
    "function": {"id": "sentiment-analysis"},
    "functionType": "ai",
    "pricing": {"price": 0.1},
    "version": {"id": "1.2"},
    "status": "onboarded",
    "createdAt": "2026-01-02T03:04:05.000Z",
    "params": [{"name": "text", "required": True, "dataType": "text", "values": [], "defaultValues": []}],
    "supportsStreaming": True,
}
LOGS = [
    {"epoch": 2, "trainLoss": 0.5, "evalLoss": None},
    {"epoch": 1, "trainLoss": 0.9, "evalLoss": 1.0},
    {"epoch": 2, "trainLoss": None, "evalLoss": 0.7},
    {"epoch": 10, "trainLoss": 0.1, "evalLoss": 0.2},
]
TUNED = {"finetuneStatus": "completed", "modelStatus": "onboarded", "logs": LOGS}
NOT_JSON: list[Any] = [b"", b"<html>502</html>", b"[1]", b'"text"', b"null", b"{", b"5"]


def polls() -> list[Case]:
    responses: list[Any] = [
        {"completed": False},
        {"completed": True},
        {
            "completed": True,
            "data": "hi",
            "details": [1],
            "usedCredits": 0.5,
            "runTime": 2,
            "usage": {"total_tokens": "NaN"},
        },
        {
            "completed": True,
            "data": {"text": "é"},
            "asset": {"assetId": "a", "id": "b"},
            "requestId": "r",
            "more": [None],
        },
        {"completed": True, "status": "FAILED", "error_message": "no"},
        {"completed": True, "error_message": "no"},
        {"completed": True, "error_message": ""},
        {"completed": True, "error_message": "", "error": "no"},
        {"completed": True, "error": "no"},
        {"completed": True, "supplierError": "quota"},
        {"completed": True, "error": "no", "supplierError": "quota"},
        {"completed": True, "status": "SUCCESS", "error_message": "a warning"},
        {"completed": True, "status": "ABORTED", "data": "hi"},
        {"completed": False, "status": "QUEUED"},
        {"completed": True, "status": None},
        {"completed": True, "status": {"odd": 1}},
        {"completed": "true", "status": "IN_PROGRESS"},
        {"completed": 1},
        {"completed": None, "data": None},
        {
            "completed": True,
            "data": None,
            "details": None,
            "usedCredits": None,
            "runTime": None,
            "usage": None,
            "asset": None,
        },
        {"completed": True, "details": 5, "usedCredits": "0.5", "runTime": "2", "usage": "many", "asset": 7},
        {"completed": True, "error_message": None},
        {"completed": True, "error_message": {"message": "no"}},
        {"completed": True, "error": {"message": "no"}, "supplierError": None},
        {"completed": True, "error_code": "AX-1", "error_message": "no"},
        {"completed": True, "errorMessage": "no"},
        {"completed": True, "data": "x", "used_credits": 1, "run_time": 2},
        {"completed": True, "data": {"executionStats": {"credits": 1, "runtime": 2}}},
        {"completed": True, "error_message": "no", "supplierError": "quota"},
        {"completed": True, "errorDetails": {"code": "AX-1", "message": "no"}},
        {"completed": True, "data": {"error": "no"}},
        {"completed": True, "status": "CANCELLED"},
        {"completed": True, "status": "success", "data": "hi"},
        {"completed": False, "status": "FAILED", "error_message": "no"},
        {"completed": True, "data": {"usedCredits": 0.3}, "usedCredits": 0.0},
        {"completed": True, "data": {"executionStats": {"credits": 0.3}}, "usedCredits": 0.0},
        {"status": "IN_PROGRESS"},
        {"completed": True, "url": "https://elsewhere.example"},
        {"completed": True, "status": "IN_PROGRESS", "data": "hi"},
        {"status": "SUCCESS", "data": "completed is missing"},
        b'{"completed": true, "data": [NaN, 1e999, 99999999999999999999, "\\ud800"]}',
    ]
    return [
        Case("poll", {"poll_url": "SERVER/api/v1/data/7e1b"}, status_code, body)
        for status_code in (200, 404, 503)
        for body in [*responses, *NOT_JSON]
    ] + [Case("poll", {"poll_url": "http://localhost:PORT/api/v1/data/7e1b"}, 200, {"completed": True, "data": "mine"})]


def submissions() -> list[Case]:
    responses: list[Any] = [
        ACCEPTED,
        {"data": "SERVER/api/v1/data/7e1b"},
        {**ACCEPTED, "completed": True},
        {**ACCEPTED, "sessionId": "s"},
        {**ACCEPTED, "status": None},
        {"status": "IN_PROGRESS"},
        {"status": "IN_PROGRESS", "url": "SERVER/api/v1/data/7e1b"},
        {"status": "QUEUED", "data": "SERVER/api/v1/data/7e1b"},
        {"status": "FAILED", "data": "SERVER/api/v1/data/7e1b", "error_message": "no"},
        {"status": "IN_PROGRESS", "data": ""},
        {"status": "IN_PROGRESS", "data": 5},
        {},
        DONE,
        {"status": "SUCCESS", "data": {"a": [1]}},
        {
            **DONE,
            "usedCredits": 0.5,
            "runTime": 2,
            "usage": {"total_tokens": 7},
            "asset": {"id": "a"},
            "details": {"x": 1},
        },
        {**DONE, "requestId": "r", "usage": None},
        {"status": "FAILED", "error_message": "no"},
        {"status": "FAILED", "completed": True},
        {"status": "FAILED", "error": "no", "supplierError": "quota"},
        {"status": "ABORTED", "error_message": "stopped"},
        {"status": "ABORTED", "data": "x"},
        {**DONE, "completed": "yes"},
        {**DONE, "error_code": None},
        {**DONE, "errorMessage": "no"},
    ]
    refusals = [400, 401, 402, 403, 404, 418, 429, 460, 475, 485, 495, 500, 501, 502, 503, 504, 507]
    errors: list[Any] = [{"error": "no"}, {"error": None}, {"message": "no"}, b"<html>", b""]
    return [
        Case(call, {"model_id": "6414bd3c", "data": "Hello"}, status_code, body)
        for call in ("run_async", "run")
        for status_code, bodies in (
            (200, [*responses, *NOT_JSON]),
            (201, [ACCEPTED]),
            *((code, errors) for code in refusals),
        )
        for body in bodies
        # run would poll the number 5 as a URL.
        if not (call == "run" and isinstance(body, dict) and body.get("data") == 5)
    ]


def inputs() -> list[Case]:
    table: list[tuple[Any, Any]] = [
        ("", None),
        ("5", None),
        ("-0", None),
        ("1.50", None),
        ("1e3", None),
        ("true", None),
        ("null", None),
        ('"quoted"', None),
        ("[1, 2]", {"language": "en"}),
        ('{"text": "Hello"}', {"text": "wins"}),
        ({"text": "Hello"}, {"language": {"__enum__": "en"}}),
        ({"deep": [{"__enum__": 7}]}, {}),
        ({}, {"a": 1}),
        ("Hello", {"data": "loses"}),
        ("https://files.example/a.wav", None),
        ("s3://bucket/key", None),
        ("NaN", None),
        ("-Infinity", None),
        ("1e999", None),
        ('{"a": NaN}', None),
        ({"a": {"__nan__": 1}}, None),
        (differences.__file__, None),
        (None, None),
        ("long " * 200_000, None),
    ]
    return [
        Case(call, {"model_id": model_id, "data": data, "parameters": parameters}, 200, body)
        for call, body in (("run_async", ACCEPTED), ("run", DONE))
        for model_id in ("6414bd3cd09663e9225130e8", "openai/gpt-4o")
        for data, parameters in table
    ]


def streams() -> list[Case]:
    lines = b'data: {"data": "Hel"}\n\ndata: {"data": "lo \xc3\xa9"}\n\n'
    table = [
        lines + b"data: [DONE]\n\n",
        b'data: {"data": {"text": "a"}}\n\ndata: {"data": {"output": "b"}}\n\ndata: [DONE]\n\n',
        b"data: plain\n\ndata: [DONE]\n\n",
        lines,
        lines + b'data: {"error": "no"}\n\n',
        b'data: {"choices": [{"delta": {"content": "Hi"}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n',
    ]
    arguments = {"model_id": "6414bd3c", "data": "Hello", "parameters": {"options": {"a": 1}}}
    return [Case("run_stream", arguments, 200, body) for body in table] + [
        Case("run_stream", arguments, 503, b'{"error": "no"}')
    ]


def waits() -> list[Case]:
    url = {"poll_url": "SERVER/api/v1/data/7e1b"}
    return [
        Case("sync_poll", url, 200, DONE),
        Case("sync_poll", {**url, "timeout": 0.3, "wait_time": 0.2}, 200, {"completed": False}),
        Case("sync_poll", {**url, "timeout": 0.3, "wait_time": 0.2}, 503, b""),
        Case("sync_poll", {**url, "timeout": 0}, 200, DONE),
        Case("sync_poll", url, 200, {"completed": True, "error_message": "no"}),
    ]


def catalogue() -> list[Case]:
    known = {"id": "6414bd3c"}
    given = {"id": "a", "name": "A", "supplier": "openai", "function": "translation", "extra": 1, "empty": None}
    declared = {"model_params": {"text": {"required": True}}}
    return [
        *(Case("get_model", {"model_id": i}, 200, RECORD) for i in ("6414bd3c", "openai/gpt-4o")),
        Case("get_model", {"name": "Sentiment by us"}, 200, RECORD),
        Case(
            "get_model", {"model_id": "a"}, 200, {**RECORD, "status": "training", "subscription": {}, "hosting": "own"}
        ),
        *(Case("get_model", {"model_id": "a"}, code, {"error": "no"}) for code in (401, 404, 503)),
        *(
            Case("get_model", {"model_id": "a"}, 200, {k: v for k, v in RECORD.items() if k != missing})
            for missing in ("function", "supplier", "pricing", "version")
        ),
        Case("delete", {"model_id": "6414bd3c"}, 200, {}),
        Case("delete", {"model_id": "team/mine"}, 200, b""),
        *(Case("delete", {"model_id": "a"}, code, {"error": "no"}) for code in (204, 403, 404, 500)),
        Case("construct", known),
        Case("construct", {**given, "status": "training", "cost": {"price": 1}, "is_subscribed": True, "version": "2"}),
        Case("construct", {**known, "status": "paused"}),
        Case("repr", {**known, "name": "A", "supplier": "a supplier that nobody knows"}),
        Case("to_dict", {**given, **declared}),
        Case("to_dict", given),
        Case("from_dict", {"data": {"id": "a", "function": "translation", "created_at": "2026-01-02T03:04:05+00:00"}}),
        Case("from_dict", {"data": {**known, "function": "translation", "additional_info": {"x": 1}, **declared}}),
        Case("from_dict", {"data": {**known, "function": "translation", "status": "draft"}}),
        Case("from_dict", {"data": known}),
        Case("parameters", {"declared": declared["model_params"], "values": {"text": "Hello"}}),
        Case("parameters", {"declared": declared["model_params"], "values": {"undeclared": 1}}),
        Case(
            "parameters",
            {
                "declared": {
                    "a": {"isFixed": True, "values": [{"value": 1}], "defaultValues": [2], "dataType": "text"},
                    "b": {"availableOptions": [{"value": 3}], "dataSubType": "json", "multipleValues": True},
                },
                "values": {"b": [1]},
            },
        ),
    ]


def declared() -> list[Case]:
    parameters = {"text": {"required": True, "dataType": "text"}, "speed": {"dataType": "number"}}
    return [
        Case("run_declared", {"model_id": "a", "declared": parameters, "data": data}, 200, ACCEPTED)
        for data in ("Hello", {"text": "Hello", "speed": 1}, {"text": 5}, {"speed": 1})
    ]


def trainings() -> list[Case]:
    model = {"model_id": "6414bd3c"}
    odd = [{"epoch": 0.5, "trainLoss": 1, "evalLoss": 1}, {"epoch": None, "trainLoss": 1, "evalLoss": 1}, {"epoch": 3}]
    return [
        *(Case("check_finetune_status", {**model, "after_epoch": after}, 200, TUNED) for after in (None, 0, 1, 2, 10)),
        Case("check_finetune_status", model, 200, {**TUNED, "logs": []}),
        Case("check_finetune_status", model, 200, {**TUNED, "finetuneStatus": "paused"}),
        Case("check_finetune_status", model, 200, {**TUNED, "logs": odd}),
        Case("check_finetune_status", {**model, "after_epoch": 0}, 200, {**TUNED, "logs": odd}),
        *(
            Case("check_finetune_status", model, code, {"statusCode": code, "message": "no"})
            for code in (401, 404, 500)
        ),
        Case("check_finetune_status", model, 200, b"<html>"),
    ]


def files() -> list[Case]:
    hosts = (
        "bucket.s3.amazonaws.com",
        "bucket.s3.us-east-1.amazonaws.com",
        "s3.us-east-1.amazonaws.com/bucket",
        "127.0.0.1:8088/bucket",
    )
    return [
        Case("upload"),
        *(Case("link", {"url": f"https://{host}/u/a.wav?signature=1", "key": "u/a.wav"}) for host in hosts),
    ]


class Sides:
    """Both sides at work on one case.

    :param peer: the public package.
    :param recorder: the server.
    :param verify: how our side knows the server's certificate.
    """

    def __init__(self, peer: Peer, recorder: Server, folder: Path, verify: bool | str = True) -> None:
        self.peer = peer
        self.verify = verify
        self.recorder = recorder
        self.upload = folder / "audio.wav"
        self.upload.write_bytes(b"RIFF1234WAVEfmt ")

    def differing(self, case: Case) -> dict[str, tuple[Any, Any]]:
        """Return the parts of requests and result that differ, theirs and ours."""
        theirs = self.seen(case, lambda a: self.peer.call(case.call, a))
        ours = self.seen(case, lambda a: self.ours(case.call, revive(a)))
        return {
            name: (theirs.get(name), ours.get(name))
            for name in theirs.keys() | ours.keys()
            if theirs.get(name) != ours.get(name)
        }

    def seen(self, case: Case, call: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
        """Return the parts of one side's requests and result."""

        def answer(http: Handler) -> None:
            kind = "text/event-stream" if case.call == "run_stream" and case.is_success else "application/json"
            body = json.dumps(DONE).encode() if case.call == "run" and http.command == "GET" else case.raw
            if case.call == "upload":
                body = json.dumps({"key": "u/audio.wav", "uploadUrl": "SERVER/bucket/u/audio.wav?s=1"}).encode()
            http.answer(case.status_code, self.placed(body), **{"Content-Type": kind})

        self.recorder.script = answer
        self.recorder.asked.clear()
        arguments = json.loads(self.placed(json.dumps(case.arguments).encode()))
        outcome = call({**arguments, "local_path": str(self.upload)} if case.call == "upload" else arguments)
        requests = [self.request(asked) for asked in self.recorder.asked]
        media_types = [self.media_types(asked) for asked in self.recorder.asked]
        if case.call == "sync_poll":
            requests = requests[:1]  # how many there are is a matter of jitter
        return {"requests": requests, "media types": media_types[: len(requests)], **self.parts(outcome)}

    def placed(self, text: bytes) -> bytes:
        port = self.recorder.url.rpartition(":")[2]
        return text.replace(b"SERVER", self.recorder.url.encode()).replace(b"PORT", port.encode())

    @staticmethod
    def request(asked: Asked) -> tuple[Any, ...]:
        credential = {name: asked.headers.get(name) for name in ("x-api-key", "x-aixplain-key", "authorization")}
        if credential["authorization"]:
            credential["authorization"] = credential["authorization"].replace("token ", "Token ")
        try:
            body = json.loads(asked.body)
        except ValueError:
            body = asked.body
            if asked.headers.get("content-type") == FORM:
                body = {name: value for name, value in parse_qs(asked.body.decode()).items() if name != "contentType"}
        return asked.method, asked.path, body, credential

    @staticmethod
    def media_types(asked: Asked) -> tuple[Any, ...]:
        kind = asked.headers.get("content-type")
        return kind, parse_qs(asked.body.decode()).get("contentType") if kind == FORM else None

    @staticmethod
    def parts(outcome: dict[str, Any]) -> dict[str, Any]:
        value = outcome.get("returns")
        if "raises" in outcome:
            return {"raises": True}
        if isinstance(value, list):
            texts = [chunk for chunk in value if chunk["data"]]
            status = value[-1]["status"] if value else None
            text = "".join(chunk["data"] for chunk in value)
            return {"number of chunks": len(value), "chunks": texts, "text": text, "status": status}
        return value if isinstance(value, dict) else {"value": value}

    def ours(self, call: str, arguments: dict[str, Any]) -> dict[str, Any]:
        url = self.recorder.url
        client = Client(
            Platform(KEY, backend_url=url, models_run_url=f"{url}/api/v1/execute", verify=self.verify, timeout=10)
        )

        def model() -> Model:
            model = Model(arguments.pop("model_id", "any"), supports_streaming=True)
            model._client = client
            return model

        def parameters() -> dict[str, Any]:
            declared = ModelParameters(arguments["declared"])
            for name, value in arguments["values"].items():
                setattr(declared, name, value)
            return {"dict": declared.to_dict(), "list": declared.to_list()}

        calls: dict[str, Callable[[], Any]] = {
            "run_async": lambda: model().run_async(**arguments),
            "run": lambda: model().run(**arguments),
            "run_stream": lambda: list(model().run_stream(**arguments)),
            "poll": lambda: model().poll(**arguments),
            "sync_poll": lambda: model().sync_poll(**arguments),
            "check_finetune_status": lambda: model().check_finetune_status(**arguments),
            "delete": lambda: model().delete(),
            "get_model": lambda: Model.get(**arguments, client=client),
            "upload": lambda: client.upload_file(ObjectStoragePath(f"file://{arguments['local_path']}")),
            "construct": lambda: Model(**arguments),
            "run_declared": lambda: client.run_async(
                arguments["model_id"], arguments["data"], declared=ModelParameters(arguments["declared"])
            ),
            "repr": lambda: repr(Model(**arguments)),
            "to_dict": lambda: Model(**arguments).to_dict(),
            "from_dict": lambda: Model.from_dict(arguments["data"]),
            "parameters": parameters,
            "link": lambda: Slot(arguments["key"], arguments["url"]).link,
        }
        # This project raises only its own errors, except AttributeError for undeclared parameters.
        expected = AttributeError if call == "parameters" else AixplainError
        try:
            return {"returns": plain(calls[call]())}
        except expected as error:
            return {"raises": f"{type(error).__name__}: {error}"}


@pytest.fixture(scope="module")
def sides(peer: Peer, recorder: Server, tmp_path_factory: pytest.TempPathFactory) -> Sides:
    return Sides(peer, recorder, tmp_path_factory.mktemp("upload"))


def unexplained(sides: Sides, case: Case, rows: list[Difference] = DIFFERENCES) -> dict[str, tuple[Any, Any]]:
    """Return the parts that differ without a row that explains them, and record which rows apply."""
    differing = sides.differing(case)
    known = set()
    for row in rows:
        if row.when(case):
            covered = {name for name in differing if name in row.where or ("*" in row.where and name not in ASKED)}
            known |= covered
            if covered:
                SHOWN.add(row.what)
    return {name: both for name, both in differing.items() if name not in known}


SHOWN: set[str] = set()
RUN: list[Case] = []
ASKED = ("requests", "media types")
CASES = [*polls(), *submissions(), *inputs(), *streams(), *waits(), *catalogue(), *trainings(), *declared(), *files()]


def named(case: Case) -> str:
    return f"{case.call}-{case.status_code}-{case.raw[:60]!r}-{json.dumps(case.arguments)[:60]}"


@pytest.mark.parametrize("case", CASES, ids=named)
def test_requests_and_results_are_equal(sides: Sides, case: Case) -> None:
    RUN.append(case)
    assert unexplained(sides, case) == {}


def test_a_request_is_sent_once(tls_recorder: Server, certificate: Path, tmp_path: Path) -> None:
    with Peer(tls_recorder.url, tmp_path, REQUESTS_CA_BUNDLE=str(certificate)) as peer:
        sides = Sides(peer, tls_recorder, tmp_path, verify=str(certificate))
        for call in ("run_async", "run", "delete", "poll"):
            arguments = {"poll_url": "SERVER/x"} if call == "poll" else {"model_id": "a"}
            arguments |= {"data": "Hello"} if call.startswith("run") else {}
            case = Case(call, arguments, 503, {"error": "no"}, tls=True)
            differing = sides.differing(case)
            theirs, ours = differing.get("requests", ([None], [None]))
            assert len(ours) == 1
            assert (len(theirs) > 1) == (call in ("delete", "poll"))
            assert unexplained(sides, case) == {}


def test_every_listed_difference_occurs() -> None:
    """A row that no case shows is stale."""
    if len(RUN) < len(CASES):
        pytest.skip("only part of the cases ran")
    assert {row.what for row in DIFFERENCES} - SHOWN == set()


ANYTHING = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
TEXT = st.text(st.characters()) | st.text().map(lambda text: text * 1000)
KEYS = TEXT.filter(lambda text: text not in ("__enum__", "__nan__"))  # Hypothesis tries strings of this file
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(KEYS, inner, max_size=4)
        | (TEXT | st.integers()).map(lambda value: {"__enum__": value})
    ),
    max_leaves=10,
)
OBJECTS = st.dictionaries(KEYS, JSON, max_size=4)
WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(-1e300, 1e300) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)


@ANYTHING
@given(
    call=st.sampled_from(["run_async", "run", "run_stream"]),
    data=TEXT | JSON | JSON.map(json.dumps) | OBJECTS | st.integers().map(str) | st.floats(allow_nan=False).map(str),
    parameters=st.none() | OBJECTS,
)
def test_any_input_is_sent_alike(sides: Sides, call: str, data: Any, parameters: Any) -> None:
    if call == "run_stream" and parameters:
        parameters.pop("options", None)
    body = b'data: {"data": "hi"}\n\ndata: [DONE]\n\n' if call == "run_stream" else ACCEPTED
    case = Case(call, {"model_id": "6414bd3c", "data": data, "parameters": parameters}, 200, body)
    assert unexplained(sides, case) == {}


ANSWERS = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("data", "details", "usedCredits", "runTime", "usage", "asset", "status", "requestId"), PLAIN),
        "completed": st.booleans(),
        "status": st.sampled_from(["SUCCESS", "FAILED", "IN_PROGRESS", "ABORTED", "", "success"]),
        "error_message": PLAIN,
        "error": PLAIN,
        "supplierError": PLAIN,
    },
)


@ANYTHING
@given(
    call=st.sampled_from(["poll", "run_async", "run"]), status_code=st.sampled_from([200, 201, 404, 503]), body=ANSWERS
)
def test_any_response_is_read_alike(sides: Sides, call: str, status_code: int, body: dict[str, Any]) -> None:
    if call != "poll" and body.get("status", "IN_PROGRESS") == "IN_PROGRESS":
        body["data"] = "SERVER/api/v1/data/7e1b"
    arguments = {"poll_url": "SERVER/x"} if call == "poll" else {"model_id": "6414bd3c", "data": "Hello"}
    assert unexplained(sides, Case(call, arguments, status_code, body)) == {}
