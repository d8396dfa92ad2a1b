"""The rules of the Model API, as pure functions."""

from __future__ import annotations

import copy
import json
from enum import Enum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_aixplain.model import wire
from airflow_provider_aixplain.model.failure import ErrorCategory, Failure
from airflow_provider_aixplain.model.response import ModelResponse, ResponseStatus
from airflow_provider_aixplain.model.wire import Answer, InvalidInput, NoAnswer, build_payload

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(), JSON, max_size=4)
URL = "https://models.aixplain.com/api/v1/data/7e1b"


class Colour(Enum):
    RED = "red"


class TestBuildPayload:
    @pytest.mark.parametrize(
        ("data", "parameters", "payload"),
        [
            ("Hello", None, {"data": "Hello"}),
            ("", None, {"data": ""}),
            ("5", None, {"data": "5"}),
            ("1.50", None, {"data": "1.5"}),
            ("true", None, {"data": "True"}),
            ("null", None, {"data": None}),
            ("[1, 2]", None, {"data": [1, 2]}),
            ('"quoted"', None, {"data": "quoted"}),
            ('{"text": "Hello"}', None, {"text": "Hello"}),
            ('{"text": "Hello"}', {"text": "wins"}, {"text": "wins"}),
            ({"text": "Hello"}, {"language": "en"}, {"text": "Hello", "language": "en"}),
            ({}, {"language": "en"}, {"language": "en"}),
            ({"c": Colour.RED, "l": [Colour.RED]}, {"p": Colour.RED}, {"c": "red", "l": ["red"], "p": "red"}),
            (["a", ("b",)], None, {"data": ["a", ["b"]]}),
            (7, None, {"data": 7}),
            ("Hello", {"data": "loses"}, {"data": "Hello"}),
            ("{not json", None, {"data": "{not json"}),
            ("NaN", None, {"data": "NaN"}),
            ('{"a": NaN}', None, {"data": '{"a": NaN}'}),
        ],
    )
    def test_table(self, data: Any, parameters: Any, payload: dict[str, Any]) -> None:
        assert json.loads(build_payload(data, parameters)) == payload

    @given(OBJECTS, OBJECTS)
    def test_an_object_is_the_payload_and_parameters_win(self, data: Any, parameters: Any) -> None:
        before = copy.deepcopy((data, parameters))
        assert json.loads(build_payload(data, parameters)) == {**data, **parameters}
        assert json.loads(build_payload(json.dumps(data), parameters)) == {**data, **parameters}
        assert (data, parameters) == before

    @given(st.text(), OBJECTS)
    def test_text_never_gets_lost(self, data: str, parameters: Any) -> None:
        payload = json.loads(build_payload(f"text: {data}", parameters))
        assert payload == {**parameters, "data": f"text: {data}"}

    def test_stream_is_an_option_beside_the_others(self) -> None:
        parameters = {"options": {"a": 1}}
        assert json.loads(build_payload("x", parameters, stream=True))["options"] == {"a": 1, "stream": True}
        assert parameters == {"options": {"a": 1}}

    @pytest.mark.parametrize(
        ("data", "parameters", "named"),
        [
            ({"a": [1, {2}]}, None, r"data\['a'\]\[1\] is a set"),
            (b"bytes", None, "data is a bytes"),
            ({"a": float("nan")}, None, r"data\['a'\] is nan"),
            ({("a", 1): 1}, None, r"data has the key \('a', 1\), a tuple"),
            ("x", {"when": object()}, r"parameters\['when'\] is a object"),
            ("x", ["not", "a", "dict"], "parameters is a list"),
            ("x", "", "parameters is a str"),
            ('{"a": 1e999}', None, r"data\['a'\] is inf"),
            ([10**5000], None, "cannot be sent as JSON"),
        ],
    )
    def test_what_json_cannot_hold_is_named_with_its_path(self, data: Any, parameters: Any, named: str) -> None:
        with pytest.raises(InvalidInput, match=named):
            build_payload(data, parameters)

    def test_a_value_that_contains_itself(self) -> None:
        endless: list[Any] = []
        endless.append(endless)
        with pytest.raises(InvalidInput, match="contain themselves"):
            build_payload(endless)


class TestSubmission:
    def test_the_request(self) -> None:
        request = wire.submission("https://h/api/v1/execute", "openai/gpt 4?", '{"data": "é"}')
        assert (request.method, request.url) == ("POST", "https://h/api/v1/execute/openai/gpt%204%3F")
        assert request.body == '{"data": "é"}'.encode()

    @pytest.mark.parametrize("model_id", ["", "  ", None, 5, "../../sdk/models", "a/./b", "\ud800"])
    def test_an_id_that_is_none(self, model_id: Any) -> None:
        with pytest.raises(InvalidInput, match="model_id is"):
            wire.submission("https://h", model_id, "{}")

    def test_accepted(self) -> None:
        accepted = ModelResponse(ResponseStatus.IN_PROGRESS, url=URL)
        for extra in ({}, {"status": "IN_PROGRESS"}, {"status": None}, {"completed": True}):
            assert wire.read_submission(_answer({"data": URL, **extra}, 201)) == accepted

    def test_final_at_once(self) -> None:
        response = wire.read_submission(_answer({"status": "SUCCESS", "completed": True, "data": "hi", "x": 1}))
        assert response == ModelResponse(ResponseStatus.SUCCESS, completed=True, data="hi", additional_fields={"x": 1})

    def test_an_unknown_status_is_a_failure(self) -> None:
        response = wire.read_submission(_answer({"status": "QUEUED", "data": URL}))
        assert response.status is ResponseStatus.FAILED
        assert "'QUEUED'" in response.error_message
        assert URL in response.error_message

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"<html>",
            b"[]",
            b"{}",
            b'{"data": null}',
            b'{"data": {"url": 1}}',
            b'{"data": ""}',
            b'{"data": "a\\nb"}',
        ],
    )
    def test_a_success_that_names_no_run(self, body: bytes) -> None:
        response = wire.read_submission(Answer(200, body))
        assert (response.status, response.completed, response.url) == (ResponseStatus.FAILED, True, None)
        assert response.failure == Failure(ErrorCategory.PLATFORM, 200)
        assert body.decode() in response.error_message

    @pytest.mark.parametrize(
        ("status_code", "category", "retryable"),
        [
            (400, "validation", False),
            (401, "authentication", False),
            (402, "billing", False),
            (403, "resource", False),
            (404, "resource", False),
            (418, "internal", False),
            (429, "rate limit", True),
            (460, "resource", False),
            (475, "billing", False),
            (489, "supplier", True),
            (490, "validation", False),
            (500, "platform or network", True),
            (501, "internal", None),
            (503, "platform or network", True),
        ],
    )
    def test_refused(self, status_code: int, category: str, retryable: bool | None) -> None:
        response = wire.read_submission(_answer({"error": "the platform's words"}, status_code))
        assert response.error_message == f"HTTP {status_code} ({category}): the platform's words"
        assert response.failure is not None
        assert response.failure.retryable is retryable
        assert response.failure.denied is (status_code in (401, 403, 404, 460))

    @pytest.mark.parametrize(("sent", "words"), [(True, "may have received"), (False, "nothing was sent")])
    def test_no_answer(self, sent: bool, words: str) -> None:
        response = wire.read_submission(NoAnswer("connection reset", sent))
        assert response.failure == Failure(ErrorCategory.PLATFORM)
        assert response.completed
        assert words in response.error_message
        assert "connection reset" in response.error_message


class TestPoll:
    def test_the_request(self) -> None:
        assert wire.poll(URL) == wire.Request("GET", URL)

    @pytest.mark.parametrize(
        ("body", "status"),
        [
            ({"completed": False}, "IN_PROGRESS"),
            ({"completed": "true"}, "IN_PROGRESS"),
            ({"completed": None}, "IN_PROGRESS"),
            ({"completed": True}, "SUCCESS"),
            ({"completed": True, "error_message": "bad"}, "FAILED"),
            ({"completed": True, "errorMessage": "bad"}, "FAILED"),
            ({"completed": True, "supplierError": "bad"}, "FAILED"),
            ({"completed": True, "status": "SUCCESS", "error_message": "a warning"}, "SUCCESS"),
            ({"completed": True, "status": "FAILED"}, "FAILED"),
            ({"completed": True, "status": "no known word"}, "SUCCESS"),
            ({"completed": True, "status": {"odd": 1}}, "SUCCESS"),
        ],
    )
    def test_status(self, body: dict[str, Any], status: str) -> None:
        response = wire.read_poll(_answer(body))
        assert response.status == status
        assert response.completed is (body["completed"] is True)
        assert response.failure is None

    @pytest.mark.parametrize("spelling", [("usedCredits", "runTime"), ("used_credits", "run_time")])
    def test_every_field(self, spelling: tuple[str, str]) -> None:
        credits, run_time = spelling
        response = wire.read_poll(
            _answer(
                {
                    "completed": True,
                    "data": {"text": "é"},
                    "details": [1],
                    credits: 0.5,
                    run_time: 1.5,
                    "usage": {"total_tokens": "NaN"},
                    "asset": {"id": "a"},
                    "error_code": None,
                    "requestId": "r",
                }
            )
        )
        assert response.to_dict() == {
            "status": "SUCCESS",
            "data": {"text": "é"},
            "details": [1],
            "completed": True,
            "error_message": "",
            "used_credits": 0.5,
            "run_time": 1.5,
            "usage": {"total_tokens": "NaN"},
            "url": None,
            "error_code": None,
            "asset": {"id": "a"},
            "additional_fields": {"requestId": "r"},
        }

    def test_the_error_message_takes_in_what_the_supplier_says(self) -> None:
        body = {"completed": True, "error": "no", "supplierError": "quota"}
        assert wire.read_poll(_answer(body)).error_message == "no - quota"
        assert wire.read_poll(_answer({**body, "error_message": None})).error_message == "no - quota"
        assert wire.read_poll(_answer({**body, "error": None})).error_message == " - quota"

    @pytest.mark.parametrize(
        "outcome",
        [
            Answer(200),
            Answer(200, b"<html>502</html>"),
            Answer(200, b'{"status": "SUCCESS"}'),
            Answer(404, b'{"error": "no such run"}'),
            Answer(503, b"\xff\xfe"),
            NoAnswer("timed out", sent=True),
        ],
    )
    def test_a_poll_that_brings_no_news(self, outcome: Answer | NoAnswer) -> None:
        response = wire.read_poll(outcome)
        assert (response.status, response.completed) == (ResponseStatus.FAILED, False)
        assert response.failure is not None
        assert response.error_message

    @pytest.mark.parametrize(
        ("sent", "kept"),
        [
            ("1" + 5000 * "0", "1" + 5000 * "0"),
            (str(2**63), str(2**63)),
            (str(2**63 - 1), 2**63 - 1),
            (str(-(2**63)), -(2**63)),
            ("1e999", "1e999"),
            ("-1.5e3", -1500.0),
            ("NaN", "NaN"),
            ("-Infinity", "-Infinity"),
            (r'{"a\u0000": ["\ud83d", "\ud83d\ude00", "\u0041"]}', {"a\ufffd": ["\ufffd", "😀", "A"]}),
        ],
    )
    def test_values_that_airflow_cannot_hand_on(self, sent: str, kept: Any) -> None:
        for read in (wire.read_poll, wire.read_submission):
            body = f'{{"completed": true, "status": "SUCCESS", "data": {sent}}}'
            assert read(Answer(200, body.encode())).data == kept

    @pytest.mark.parametrize("text", ["half \ud800 pair", "é 😀"])
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
    def test_raw_half_pairs_in_any_encoding_of_json(self, text: str, encoding: str) -> None:
        body = json.dumps({"completed": True, "data": text}, ensure_ascii=False).encode(encoding, "surrogatepass")
        data = wire.read_poll(Answer(200, body)).data
        assert data.encode()
        assert data == text or "\ufffd" in data

    def test_bytes_that_are_no_utf_8_do_not_lose_the_rest(self) -> None:
        assert wire.read_poll(Answer(200, b'{"completed": true, "data": "a\xffb"}')).data == "a\ufffdb"

    @given(st.integers(90, 400))
    def test_what_nests_too_deeply_stays_as_text(self, depth: int) -> None:
        data: Any = "deep"
        for _ in range(depth):
            data = [data]
        kept: Any = wire.read_poll(_answer({"completed": True, "data": data})).data
        levels = 0
        while isinstance(kept, list):
            (kept,), levels = kept, levels + 1
        assert levels == min(depth, wire.MAX_DEPTH - 1)
        assert kept == "deep" or json.loads(kept)

    @given(st.integers(200, 599), st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
    def test_no_answer_is_too_odd_to_read(self, status_code: int, body: bytes) -> None:
        for read in (wire.read_poll, wire.read_submission):
            json.dumps(read(Answer(status_code, body)).to_dict(), allow_nan=False)


class TestPrintable:
    @given(st.text())
    def test_it_forges_no_lines_and_is_bounded(self, text: str) -> None:
        shown = wire.printable(text * 50)
        assert shown.isprintable()
        assert len(shown) <= wire.MAX_ERROR_LENGTH + 1

    def test_ordinary_text_stays(self) -> None:
        assert wire.printable("Grüße, 世界!") == "Grüße, 世界!"


def _answer(body: Any, status_code: int = 200) -> Answer:
    return Answer(status_code, json.dumps(body).encode())
