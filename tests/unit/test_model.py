"""The Model class, unbound and bound to a hook, against the emulator."""

from __future__ import annotations

import copy
import importlib
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, ObjectStoragePath
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem

from airflow_provider_aixplain.client.account import Platform
from airflow_provider_aixplain.client.blocking import Client
from airflow_provider_aixplain.exceptions import (
    AixplainConfigurationError,
    AixplainError,
    AixplainInputError,
    AixplainPermanentError,
    AixplainUntrustedUrl,
    from_event,
    to_event,
)
from airflow_provider_aixplain.files import Upload
from airflow_provider_aixplain.hooks.aixplain import AixplainHook
from airflow_provider_aixplain.model import (
    AssetStatus,
    FunctionType,
    Model,
    ModelParameters,
    ModelResponse,
    ModelResponseStreamer,
    ResponseStatus,
    build_payload,
)
from tests.support.deployment import AIRFLOW_3, Emulator, Processes
from tests.support.scripted import Handler, serve

attach = importlib.import_module("airflow.sdk.io" if AIRFLOW_3 else "airflow.io.store").attach

TEXT = "The coffee is wonderful."
KEY = "0123456789abcdef0123456789abcdef"


def on_its_own(emulator: Emulator, model_id: str = "sentiment", **fields: Any) -> Model:
    model = Model(model_id, api_key=KEY, **fields)
    model.url, model.backend_url = f"{emulator.url}/api/v1/execute", emulator.url
    return model


@pytest.fixture(params=["on its own", "from the hook"])
def model(request: pytest.FixtureRequest, emulator: Emulator, connection: dict[str, object]) -> Model:
    return on_its_own(emulator) if request.param == "on its own" else AixplainHook().get_model("sentiment")


def whole(response: ModelResponse | ModelResponseStreamer) -> ModelResponse:
    assert isinstance(response, ModelResponse)
    return response


class TestRuns:
    def test_run_returns_an_immediate_result(self, model: Model, emulator: Emulator) -> None:
        response = whole(model.run(TEXT, parameters={"delay": 0.1}))
        assert (response.status, response.data, response.completed) == (ResponseStatus.SUCCESS, "positive", True)
        assert polls_of(emulator, response) == 0

    def test_run_polls_an_asynchronous_run(self, model: Model, emulator: Emulator) -> None:
        response = whole(model.run(TEXT, parameters={"delay": 1.5}))
        assert (response.status, response.data) == (ResponseStatus.SUCCESS, "positive")
        assert polls_of(emulator, response) > 0

    def test_run_stops_after_its_timeout_and_names_the_run(self, model: Model) -> None:
        response = whole(model.run(TEXT, timeout=0.5, parameters={"delay": 60}))
        assert (response.status, response.completed) == (ResponseStatus.FAILED, False)
        assert model.poll(str(response.url)).status is ResponseStatus.IN_PROGRESS

    def test_sync_poll_returns_the_result_of_run_async(self, model: Model) -> None:
        submitted = model.run_async(TEXT)
        assert (submitted.status, submitted.completed) == (ResponseStatus.IN_PROGRESS, False)
        assert model.sync_poll(str(submitted.url)).data == "positive"

    def test_a_failed_run_has_its_reason(self, emulator: Emulator) -> None:
        response = whole(on_its_own(emulator, "fail").run(TEXT))
        assert (response.status, response.error_message) == (ResponseStatus.FAILED, "this model always fails")

    def test_a_refusal_is_a_response(self, emulator: Emulator) -> None:
        model = on_its_own(emulator, "nothing")
        for response in (whole(model.run(TEXT)), model.run_async(TEXT), model.poll(f"{emulator.url}/api/v1/data/x")):
            assert (response.status, response.data) == (ResponseStatus.FAILED, "")
            assert "HTTP 404" in response.error_message

    def test_invalid_input_is_not_sent(self, model: Model, emulator: Emulator) -> None:
        before = len(emulator.runs())
        endless: list[Any] = []
        endless.append(endless)
        for data in (endless, bytearray(b"abc"), {"data": memoryview(b"abc")}, None):
            with pytest.raises(AixplainInputError, match=r"data|refer to themselves"):
                model.run_async(data)
        with pytest.raises(AixplainInputError, match="poll_url is None"):
            model.poll(None)  # type: ignore[arg-type]
        for call in (model.run, model.run_async):
            with pytest.raises(AixplainInputError, match="data is a object"):
                call(object())
        with pytest.raises(AixplainInputError, match="timeout is -1"):
            model.run(TEXT, timeout=-1)
        with pytest.raises(AixplainInputError, match="wait_time is 'x'"):
            model.sync_poll(f"{emulator.url}/x", wait_time="x")  # type: ignore[arg-type]
        with pytest.raises(AixplainUntrustedUrl):
            model.sync_poll("https://evil.example/x")
        assert len(emulator.runs()) == before


class TestDeclaredParameters:
    """A fetched record declares the parameters."""

    @pytest.mark.parametrize(
        ("data", "parameters", "message"),
        [
            ({}, None, "the model requires text"),
            ({"text": 5}, None, "text is 5, but the model accepts text"),
            (TEXT, {"delay": "soon"}, "delay is 'soon', but the model accepts number"),
            (None, None, "data is None"),
        ],
    )
    def test_wrong_parameters_are_named_before_the_run(
        self, connection: object, emulator: Emulator, data: Any, parameters: Any, message: str
    ) -> None:
        model = AixplainHook().get_model("sentiment")
        before = len(emulator.runs())
        for call in (model.run, model.run_async):
            with pytest.raises(AixplainInputError, match=message):
                call(data, parameters=parameters)
        assert len(emulator.runs()) == before

    def test_declared_parameters_can_be_read(self, connection: object) -> None:
        parameters = AixplainHook().get_model("sentiment").get_parameters()
        assert isinstance(parameters, ModelParameters)
        assert str(parameters) == (
            "Parameters:\n  - text: not set (required, text)\n  - delay: not set (optional, number)"
        )

    def test_without_a_record_no_parameters_are_known(self, emulator: Emulator) -> None:
        model = on_its_own(emulator)
        assert model.get_parameters() is None
        assert model.run_async({}).status is ResponseStatus.IN_PROGRESS


class TestStream:
    def test_a_fetched_model_streams(self, connection: object) -> None:
        model = AixplainHook().get_model("echo")
        with model.run_stream(TEXT, {"delay": 0.2}) as stream:
            chunks = list(stream)
        assert "".join(chunk.data for chunk in chunks) == TEXT
        assert len(chunks) > 3
        assert stream.status is ResponseStatus.SUCCESS

    def test_run_can_stream(self, emulator: Emulator) -> None:
        stream = on_its_own(emulator, "echo", supports_streaming=True).run(TEXT, stream=True)
        assert isinstance(stream, ModelResponseStreamer)
        assert "".join(chunk.data for chunk in stream) == TEXT

    def test_the_hook_offers_the_same(self, connection: object) -> None:
        hook = AixplainHook()
        for stream in (hook.run_stream("echo", TEXT), hook.run("echo", TEXT, stream=True)):
            assert isinstance(stream, ModelResponseStreamer)
            assert "".join(chunk.data for chunk in stream) == TEXT

    def test_a_failure_and_a_refusal_are_the_last_chunk(self, emulator: Emulator) -> None:
        for model_id, reason in (("fail", "always fails"), ("nothing", "HTTP 404")):
            stream = on_its_own(emulator, model_id, supports_streaming=True).run_stream(TEXT)
            *_, last = stream
            assert stream.status is last.status is ResponseStatus.FAILED
            assert reason in last.error_message

    def test_a_plain_answer_is_the_only_chunk(self, emulator: Emulator) -> None:
        (chunk,) = on_its_own(emulator, supports_streaming=True).run_stream(TEXT)
        assert (chunk.status, chunk.data) == (ResponseStatus.SUCCESS, "positive")

    def test_a_model_without_streaming_is_refused(self, model: Model, emulator: Emulator) -> None:
        before = len(emulator.runs())
        for call in (
            lambda: model.run_stream(TEXT),
            lambda: model.run(TEXT, stream=True),
            lambda: AixplainHook().run_stream("sentiment", TEXT),
        ):
            with pytest.raises(
                AssertionError, match=r"'sentiment' does not support streaming.*: use stream=False"
            ) as raised:
                call()
            assert isinstance(raised.value, AirflowFailException)
            assert "get_model" not in str(raised.value)
            assert type(from_event(to_event(raised.value))) is type(raised.value)  # type: ignore[arg-type]
        assert len(emulator.runs()) == before


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_without_a_connection_is_named(status: int) -> None:
    with serve(lambda http: http.answer(status, b'{"error": "the platform\'s words"}')) as server:
        model = Model("sentiment", api_key=KEY, supports_streaming=True)
        model.url, model.backend_url = f"{server.url}/api/v1/execute", server.url
        *_, chunk = model.run_stream(TEXT)
        for message in (
            model.run_async(TEXT).error_message,
            whole(model.run(TEXT)).error_message,
            model.poll(f"{server.url}/run").error_message,
            chunk.error_message,
        ):
            assert "the platform refuses the key (api_key, or TEAM_API_KEY" in message
            assert "the platform's words" in message
            assert KEY not in message


class TestCatalogue:
    def test_a_record_is_found_by_id_and_by_name(self, connection: object) -> None:
        hook = AixplainHook()
        for model in (hook.get_model("language"), hook.get_model(name="py3langid")):
            assert (model.id, model.name, model.function) == ("language", "py3langid", "language-identification")
            assert repr(model) == "Model: py3langid by aixplain (id=language)"
            assert model.status is AssetStatus.ONBOARDED
            assert model.function_type is FunctionType.AI
            assert model.created_at == datetime(2026, 1, 1, tzinfo=timezone.utc)
            assert model.version == "1.0"
            assert not model.supports_streaming

    def test_either_id_or_name_is_required(self, connection: object) -> None:
        for arguments in ({}, {"model_id": "a", "name": "b"}):
            with pytest.raises(AixplainInputError, match="give either model_id or name"):
                AixplainHook().get_model(**arguments)

    def test_an_unknown_model_is_an_error(self, connection: object) -> None:
        with pytest.raises(AixplainPermanentError, match="no model nothing") as raised:
            AixplainHook().get_model("nothing")
        assert (raised.value.status_code, raised.value.category) == (404, "resource")

    def test_get_works_without_a_hook(self, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(AixplainConfigurationError, match="No API key"):
            Model.get("sentiment", api_key="")

    def test_a_training_finishes_and_the_model_can_be_deleted(self, tmp_path: Path) -> None:
        with Processes(tmp_path / "emulator") as processes:
            emulator = Emulator(processes, seconds=0.2)
            tuned = on_its_own(emulator, "tuned")
            while not (status := tuned.check_finetune_status()).is_ready:
                assert status.status is AssetStatus.TRAINING
            assert (status.status, status.epoch, status.training_loss) == (AssetStatus.COMPLETED, 3, 1 / 3)
            assert tuned.check_finetune_status(after_epoch=1).epoch == 2
            assert tuned.check_finetune_status(after_epoch=3).epoch is None
            tuned.delete()
            for call in (tuned.check_finetune_status, tuned.delete):
                with pytest.raises(AixplainPermanentError, match="no model tuned"):
                    call()
            with pytest.raises(AixplainPermanentError, match="model echo is not yours"):
                on_its_own(emulator, "echo").delete()

    def test_the_hook_offers_the_same(self, connection: object) -> None:
        hook = AixplainHook()
        assert hook.check_finetune_status("tuned").model_status in (AssetStatus.TRAINING, AssetStatus.ONBOARDED)
        with pytest.raises(AixplainInputError, match="after_epoch is 'x'"):
            hook.check_finetune_status("tuned", after_epoch="x")  # type: ignore[arg-type]
        with pytest.raises(AixplainError, match="model sentiment is not yours"):
            hook.delete_model("sentiment")


class TestFiles:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Upload:
        path = tmp_path / "review.txt"
        path.write_text("What a terrible disappointment")
        return Upload(f"file://{path}")

    def test_an_upload_is_sent_as_a_link_to_its_contents(self, emulator: Emulator, file: Upload) -> None:
        model = on_its_own(emulator)
        assert whole(model.run(file)).data == "negative"
        response = whole(model.run({"text": file, "more": [Upload(file.file)]}, parameters={"again": file}))
        assert response.data == "negative"
        (run,) = [run for run in emulator.runs() if run["id"] == response["requestId"]]
        link = run["payload"]["text"]
        assert link.startswith("s3://")
        assert link.endswith("/review.txt")
        assert run["payload"] == {"text": link, "more": [link], "again": link}

    def test_a_string_with_a_path_is_not_uploaded(self, emulator: Emulator, file: Upload) -> None:
        for text in (str(file.path), file.file.path, repr(file)):
            response = whole(on_its_own(emulator, "echo").run(text, parameters={"delay": 0}))
            assert response.data == text

    def test_a_file_in_object_storage_is_streamed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        attach(protocol="memory", conn_id="store", fs=MemoryFileSystem())
        path = ObjectStoragePath("memory://store@bucket/call.wav", conn_id="store")
        contents = b"RIFF" * 500_000
        path.write_bytes(contents)
        pieces = []
        reads = MemoryFile.read

        def read(file: MemoryFile, size: int = -1) -> bytes:
            pieces.append(size)
            return bytes(reads(file, size))

        monkeypatch.setattr(MemoryFile, "read", read)
        slot = {"key": "u/call.wav", "uploadUrl": "SERVER/bucket/u/call.wav?s=1"}

        def answer(http: Handler) -> None:
            http.answer(200, json.dumps(slot).replace("SERVER", server.url).encode())

        with serve(answer) as server:
            link = Client(Platform(KEY, backend_url=server.url, models_run_url=server.url)).upload_file(path)
        assert link == "s3://bucket/u/call.wav"
        asked, put = server.asked
        assert (asked.body, asked.headers["authorization"]) == (
            b"contentType=audio%2Fwav&originalName=call.wav",
            f"Token {KEY}",
        )
        assert (put.method, put.path, put.body == contents) == ("PUT", "/bucket/u/call.wav?s=1", True)
        assert (put.headers["content-length"], put.headers["content-type"]) == ("2000000", "audio/wav")
        assert pieces
        assert 0 < max(pieces) < 1_000_000, "the file was read at once"

    def test_upload_file_returns_a_link(self, connection: object, file: Upload) -> None:
        hook = AixplainHook()
        assert whole(hook.run("sentiment", hook.upload_file(file.file))).data == "negative"

    def test_an_invalid_file_is_refused_before_anything_is_sent(
        self, emulator: Emulator, file: Upload, tmp_path: Path
    ) -> None:
        model = on_its_own(emulator)
        before = len(emulator.runs())
        empty = tmp_path / "empty.txt"
        empty.touch()
        huge = tmp_path / "huge.pdf"
        with huge.open("wb") as sparse:
            sparse.truncate(26 * 1024 * 1024)
        for path, message in (
            (tmp_path / "nothing", "does not exist"),
            (tmp_path, "does not exist"),
            (empty, "is empty"),
            (huge, r"has 26\.0 MiB, and the limit for the kind 'application' is 25 MiB"),
        ):
            with pytest.raises(AixplainInputError, match=message):
                model.run([file, Upload(f"file://{path}")])
        for path in (tmp_path / "review.txt", file.file):
            for data, parameters, field in ((path, {}, "data"), ("", {"a": [path]}, r"parameters\['a'\]\[0\]")):
                with pytest.raises(AixplainInputError, match=f"{field} is a .*Path.*wrap it in Upload"):
                    model.run_async(data, parameters=parameters)
        with pytest.raises(AixplainInputError, match="give an ObjectStoragePath"):
            model._client.upload_file("file:///a.wav")  # type: ignore[arg-type]
        assert len(emulator.runs()) == before

    def test_all_files_are_checked_before_the_first_upload(self, file: Upload) -> None:
        with serve(lambda http: http.answer(500)) as server:
            model = Model("a", api_key=KEY)
            model.url, model.backend_url = f"{server.url}/api/v1/execute", server.url
            with pytest.raises(AixplainInputError, match="does not exist"):
                model.run([file, Upload("file:///nowhere")])
        assert server.asked == []

    def test_a_file_that_changes_during_the_upload_is_not_submitted(self, tmp_path: Path) -> None:
        path = tmp_path / "growing.txt"
        path.write_text("begun")
        slot = {"key": "u/growing.txt", "uploadUrl": "SERVER/bucket/u/growing.txt"}

        def answer(http: Handler) -> None:
            path.write_text("begun, and continued")
            http.answer(200, json.dumps(slot).replace("SERVER", server.url).encode())

        with serve(answer) as server:
            model = Model("a", api_key=KEY)
            model.url, model.backend_url = f"{server.url}/api/v1/execute", server.url
            with pytest.raises(AixplainInputError, match="changed during the upload"):
                model.run(Upload(f"file://{path}"))
        assert [asked.method for asked in server.asked if "execute" in asked.path] == []


class TestAttributes:
    def test_attributes_have_defaults(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("TEAM_API_KEY", "AIXPLAIN_API_KEY"):
            monkeypatch.delenv(name, raising=False)
        model = Model("a")
        assert model.url == "https://models.aixplain.com/api/v1/execute"
        assert model.backend_url == "https://platform-api.aixplain.com"
        assert (model.api_key, model.name, model.description, model.supplier) == ("", "", "", "aiXplain")
        assert (model.status, model.function_type) == (AssetStatus.ONBOARDED, FunctionType.AI)
        assert model.additional_info == {}
        for name in ("version", "function", "cost", "created_at", "input_params", "output_params", "model_params"):
            assert getattr(model, name) is None
        assert not model.is_subscribed
        assert not model.supports_streaming
        assert repr(model) == "Model:  by aiXplain (id=a)"
        with pytest.raises(AixplainConfigurationError, match="No API key"):
            model.run_async(TEXT)

    def test_the_key_comes_from_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AIXPLAIN_API_KEY", "second")
        monkeypatch.delenv("TEAM_API_KEY", raising=False)
        assert Model("a").api_key == "second"
        monkeypatch.setenv("TEAM_API_KEY", "first")
        assert Model("a").api_key == "first"
        assert Model("a", api_key="own").api_key == "own"

    def test_states_and_ids_are_normalized(self) -> None:
        class Function(Enum):
            TRANSLATION = "translation"

        supplier = Enum("Supplier", {"OPENAI": {"id": 1777, "name": "OpenAI"}})["OPENAI"]
        model = Model("a", "A", supplier=supplier, function=Function.TRANSLATION, status="draft")
        assert (model.function, model.status) == ("translation", AssetStatus.DRAFT)
        assert repr(model) == "Model: A by OpenAI (id=a)"
        assert Model("a", function={"id": "translation"}).function == "translation"
        odd = Model("a", function=5, supplier=None, status="paused", function_type="odd")  # type: ignore[arg-type]
        assert (odd.function, odd.status, odd.function_type) == (None, "paused", "odd")
        assert repr(odd) == "Model:  by None (id=a)"

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [({"id": None}, "id is None"), ({"id": "a", "model_params": ["text"]}, "model_params is a list")],
    )
    def test_invalid_arguments_are_refused(self, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(AixplainInputError, match=message):
            Model(**arguments)

    @pytest.mark.parametrize(
        ("key", "message"),
        [(KEY.encode(), "api_key is a bytes"), (5, "api_key is a int"), (f"{KEY}€", "characters that no API key has")],
    )
    def test_invalid_keys_are_refused(self, key: Any, message: str) -> None:
        model = Model("a", api_key=KEY)
        with pytest.raises(AixplainConfigurationError, match=message) as raised:
            model.api_key = key
        assert KEY not in str(raised.value)
        with pytest.raises(AixplainConfigurationError, match=message):
            Model("a", api_key=key)

    def test_whitespace_around_a_key_is_ignored(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TEAM_API_KEY", f"{KEY}\n")
        assert Model("a").api_key == KEY

    def test_declarations_can_be_set_as_a_dict(self) -> None:
        model = Model("a", api_key=KEY)
        model.model_params = {"text": {"required": True}}  # type: ignore[assignment]
        with pytest.raises(AixplainInputError, match="requires text"):
            model.run_async({})

    def test_invalid_endpoints_are_refused(self) -> None:
        model = Model("a", api_key=KEY)
        with pytest.raises(AixplainConfigurationError, match=r"url is 'http://a\.example': it would send"):
            model.url = "http://a.example"
        with pytest.raises(AixplainConfigurationError, match="backend_url is '5': it is not a URL"):
            model.backend_url = 5  # type: ignore[assignment]

    def test_a_bound_model_keeps_its_hook_until_changed(
        self, emulator: Emulator, connection: dict[str, object]
    ) -> None:
        model = AixplainHook().get_model("sentiment")
        assert (model.api_key, model.backend_url) == (connection["password"], emulator.url)
        model.api_key = "other"
        assert (model.api_key, model.backend_url) == ("other", emulator.url)

    def test_the_key_is_not_shown(self, emulator: Emulator, connection: dict[str, object]) -> None:
        model = on_its_own(emulator)
        model.run_async(TEXT)
        assert KEY not in repr(model) + str(vars(model)) + str(model.to_dict())
        bound = AixplainHook().get_model("sentiment")
        assert str(connection["password"]).encode() not in pickle.dumps(bound)

    @pytest.mark.parametrize("make_copy", [copy.copy, copy.deepcopy])
    def test_copies_work(self, model: Model, make_copy: Callable[[Model], Model]) -> None:
        model.run_async(TEXT)
        copied = make_copy(model)
        assert copied.run_async(TEXT).status is ResponseStatus.IN_PROGRESS
        assert (copied.api_key, copied.url, copied.to_dict()) == (model.api_key, model.url, model.to_dict())

    def test_a_pickle_contains_no_secret(self, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
        proxied = {"host": emulator.url, "password": KEY, "extra": {"proxy": "http://me:s3cret-proxy@127.0.0.1:9"}}
        monkeypatch.setenv("AIRFLOW_CONN_PROXIED", json.dumps({"conn_type": "aixplain", **proxied}))
        alone = on_its_own(emulator)
        alone.run_async(TEXT)
        bound, moved = Model("sentiment"), Model("sentiment")
        bound._client = moved._client = AixplainHook("proxied")
        moved.url = alone.url
        for original in (alone, bound, moved):
            assert original.api_key == KEY
            pickled = pickle.dumps(original)
            assert KEY.encode() not in pickled
            assert b"s3cret-proxy" not in pickled

    def test_an_unpickled_model_reads_its_key_from_the_environment(
        self, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("AIXPLAIN_API_KEY", raising=False)
        monkeypatch.delenv("TEAM_API_KEY", raising=False)
        pickled = pickle.dumps(on_its_own(emulator))
        with pytest.raises(AixplainConfigurationError, match="pass it as api_key, or set TEAM_API_KEY"):
            pickle.loads(pickled).run_async(TEXT)
        fixed = pickle.loads(pickled)
        fixed.api_key = KEY
        assert fixed.run_async(TEXT).status is ResponseStatus.IN_PROGRESS
        monkeypatch.setenv("TEAM_API_KEY", KEY)
        assert pickle.loads(pickled).run_async(TEXT).status is ResponseStatus.IN_PROGRESS

    def test_an_unpickled_bound_model_reads_its_connection(self, connection: dict[str, object]) -> None:
        copied = pickle.loads(pickle.dumps(AixplainHook().get_model("sentiment")))
        assert copied.run_async(TEXT).status is ResponseStatus.IN_PROGRESS


def test_it_runs_without_airflows_database(emulator: Emulator, tmp_path: Path) -> None:
    code = f"""
from airflow_provider_aixplain.model import Model
model = Model("sentiment", api_key="any-key")
model.url = {emulator.url + "/api/v1/execute"!r}
print(model.run({TEXT!r}, parameters={{"delay": 0}}).data)
"""
    database = tmp_path / "airflow.db"
    env = {**os.environ, "AIRFLOW_HOME": str(tmp_path), "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{database}"}
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert printed.stdout.splitlines()[-1:] == ["positive"], printed.stderr
    assert not database.exists()


SEED_KEYS = (
    "id",
    "name",
    "description",
    "supplier",
    "additional_info",
    "input_params",
    "output_params",
    "model_params",
    "function",
    "status",
)


class TestDicts:
    def test_to_dict_has_all_arguments_but_the_key(self) -> None:
        model = Model(
            "a",
            "A",
            "does things",
            function="translation",
            model_params={"text": {"required": True}},
            extra=1,
            empty=[],
        )
        model.add_additional_info_for_benchmark("My A", {"beams": 5})
        fields = model.to_dict()
        assert {name: fields[name] for name in SEED_KEYS} == {
            "id": "a",
            "name": "A",
            "description": "does things",
            "supplier": "aiXplain",
            "additional_info": {"extra": 1, "displayName": "My A", "configuration": {"beams": 5}},
            "input_params": None,
            "output_params": None,
            "model_params": model.get_parameters().to_dict(),  # type: ignore[union-attr]
            "function": "translation",
            "status": "onboarded",
        }
        assert Model.from_dict(json.loads(json.dumps(fields))).to_dict() == fields

    def test_a_fetched_model_survives_the_round_trip(self, connection: object) -> None:
        fields = AixplainHook().get_model("echo").to_dict()
        again = Model.from_dict(json.loads(json.dumps(fields)))
        assert again.to_dict() == fields
        assert (again.supports_streaming, again.created_at) == (True, datetime(2026, 1, 1, tzinfo=timezone.utc))
        assert "api_key" not in fields
        odd = Model("a", when=datetime(2026, 1, 1), some={1, 2}, input_params={"a": {}})
        fields = json.loads(json.dumps(odd.to_dict()))
        assert fields["additional_info"]["some"] == [1, 2]
        odd.to_dict()["input_params"]["a"]["changed"] = True
        assert odd.input_params == {"a": {}}
        assert Model.from_dict({"id": "a", "additional_info": {"self": 1, 2: 3}}).additional_info == {"self": 1, 2: 3}

    def test_from_dict_sets_fields_and_defaults(self) -> None:
        fields = {"id": "a", "api_key": KEY, "cost": {"price": 1}, "is_subscribed": True}
        model = Model.from_dict({**fields, "created_at": "2026-01-02T03:04:05Z"})
        assert (model.api_key, model.cost, model.version, model.is_subscribed) == (KEY, {"price": 1}, "1.0", True)
        assert model.created_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
        assert Model.from_dict({"id": "a", "created_at": model.created_at}).created_at == model.created_at
        assert Model.from_dict({"id": "a", "additional_info": None}).additional_info == {}

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            ({"created_at": "soon"}, "created_at is 'soon'"),
            ({"additional_info": 5}, "additional_info is a int"),
            ({"id": 5}, "id is 5"),
            ([1], "data is a list"),
            (None, "data is a NoneType"),
        ],
    )
    def test_from_dict_refuses_invalid_dicts(self, data: Any, message: str) -> None:
        with pytest.raises(AixplainInputError, match=message):
            Model.from_dict(data)


def test_build_payload_is_public() -> None:
    assert build_payload("5") == '{"data": "5"}'


def polls_of(emulator: Emulator, response: ModelResponse) -> int:
    (run,) = [run for run in emulator.runs() if run["id"] == response["requestId"]]
    return len(run["polled_at"])
