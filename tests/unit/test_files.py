"""Uploads: files that DAG code marks, and nothing else."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import importlib
import json
import pickle
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import jinja2
import pendulum
import pytest
from airflow.providers.common.compat.sdk import (
    DAG,
    AirflowFailException,
    ObjectStoragePath,
    TaskDeferred,
    XCom,
    task,
    task_group,
)
from airflow.serialization import serialized_objects
from airflow.serialization.enums import DagAttributeTypes
from airflow.serialization.helpers import serialize_template_field
from airflow.serialization.serialized_objects import BaseSerialization

from airflow_provider_aixplain.client.account import Platform
from airflow_provider_aixplain.client.blocking import Client
from airflow_provider_aixplain.exceptions import AixplainInputError
from airflow_provider_aixplain.files import Upload
from airflow_provider_aixplain.hooks.aixplain import AixplainHook
from airflow_provider_aixplain.inputs.rows import BadRow, Mapper, read
from airflow_provider_aixplain.operators.aixplain import AixplainRunModelOperator
from airflow_provider_aixplain.protocol.payload import ModelInput
from airflow_provider_aixplain.protocol.upload import Slot
from tests.support.deployment import AIRFLOW_3, Emulator
from tests.support.scripted import serve

serde = importlib.import_module("airflow.sdk.serde" if AIRFLOW_3 else "airflow.serialization.serde")
dag_serialization: Any = getattr(serialized_objects, "DagSerialization" if AIRFLOW_3 else "SerializedDAG")
UPLOAD = "airflow_provider_aixplain.files.Upload"
PATH = "airflow.sdk.io.path.ObjectStoragePath" if AIRFLOW_3 else "airflow.io.path.ObjectStoragePath"
START = pendulum.datetime(2026, 1, 1, tz="UTC")


def operator(**arguments: Any) -> AixplainRunModelOperator:
    return AixplainRunModelOperator(**{"task_id": "analyse", "model_id": "sentiment", "data": "a", **arguments})


def rendered(run: Any, **context: Any) -> Any:
    """Return the data of a task as its worker sees it."""
    run = copy.deepcopy(run)
    render(run, **context)
    return run.data


def render(run: Any, **context: Any) -> None:
    """Render a task as its worker does."""
    run.render_template_fields({"task": run, "expanded_ti_count": None, **context})


class Result(SimpleNamespace):
    """A task instance that pulls the same result from every task."""

    def xcom_pull(self, *_: Any, **__: Any) -> Any:
        return self.result

    def get_relevant_upstream_map_indexes(self, *_: Any, **__: Any) -> None:
        """Of no mapped task."""


class TestPath:
    def test_an_upload_is_rendered_into_a_copy(self) -> None:
        upload = Upload("s3://aws_default@calls/{{ ds }}/first.wav")
        run = operator(data={"text": upload, "more": [(upload,)]})
        for day in ("2026-01-01", "2026-01-02"):
            data = rendered(run, ds=day)
            assert data["text"].path == data["more"][0][0].path == f"s3://aws_default@calls/{day}/first.wav"
        assert upload.path == "s3://aws_default@calls/{{ ds }}/first.wav"

    def test_an_object_storage_path_is_rendered_too(self) -> None:
        run = operator(data=Upload(ObjectStoragePath("s3://aws_default@calls/{{ ds }}/first.wav")))
        assert str(rendered(run, ds="today").file) == "s3://aws_default@calls/today/first.wav"

    @pytest.mark.parametrize("result", ["file:///{{ ds }}.wav", ObjectStoragePath("file:///{{ ds }}.wav")])
    def test_the_output_of_a_task_is_not_a_template(self, result: Any) -> None:
        with DAG("chain", start_date=START, schedule=None):
            upstream = operator(task_id="upstream")
            run = operator(data={"text": Upload(upstream.output)})
        assert run.upstream_task_ids == {"upstream"}
        assert rendered(run, ds="today", ti=Result(result=result))["text"].path == result

    def test_an_undefined_name_is_an_error(self) -> None:
        with DAG("undefined", start_date=START, schedule=None):
            run = operator(data=Upload("file:///{{ no_such_name }}"))
        with pytest.raises(jinja2.UndefinedError, match="no_such_name"):
            rendered(run)

    @pytest.mark.parametrize("missing", ["", " ", "None"])
    def test_a_missing_path_is_named(self, missing: str) -> None:
        message = f"path is {missing!r}: give the URI of a file; if the path comes from a task"
        with pytest.raises(AixplainInputError, match=message) as raised:
            rendered(operator(data={"text": Upload("{{ missing }}")}), missing=missing)
        assert isinstance(raised.value, AirflowFailException), "retrying cannot fix it"
        with pytest.raises(AixplainInputError, match=message):
            Upload(missing)

    @pytest.mark.parametrize(
        ("path", "message"),
        [(None, "path is None"), (5, "path is a int"), (["file:///a"], "a list"), (Path("/a.wav"), "a PosixPath")],
    )
    def test_an_invalid_path_is_named(self, path: Any, message: str) -> None:
        with pytest.raises(AixplainInputError, match=f"{message}: give .*URI"):
            Upload(path)
        with DAG("chain", start_date=START, schedule=None):
            run = operator(data=Upload(operator(task_id="upstream").output))
        with pytest.raises(AixplainInputError, match=f"{message}: give .*URI"):
            rendered(run, ti=Result(result=path))

    @pytest.mark.usefixtures("connection")
    @pytest.mark.parametrize(
        ("path", "message"),
        [
            ("a.wav", r"data\['text'\]: Upload\('a.wav'\): path is not a URI: give one, such as file:///"),
            ("/data/a.wav", "path is not a URI"),
            ("nowhere://a/b.wav", "Airflow has no filesystem for nowhere://"),
            ("file:///no/such/file.wav", r"data\['text'\]: the file 'file:///no/such/file.wav' does not exist"),
        ],
    )
    def test_a_missing_file_is_named_before_anything_is_sent(self, path: str, message: str, emulator: Emulator) -> None:
        before = len(emulator.runs())
        for durable in (True, False):
            with pytest.raises(AixplainInputError, match=message):
                operator(data={"text": Upload(path)}, durable=durable).execute({})
        assert len(emulator.runs()) == before

    @pytest.mark.usefixtures("connection")
    def test_an_upload_that_was_not_rendered_is_named(self) -> None:
        with DAG("chain", start_date=START, schedule=None):
            run = operator(data={"text": Upload(operator(task_id="upstream").output)})
        with pytest.raises(AixplainInputError, match="was not rendered: Airflow renders plain dicts"):
            AixplainHook().run_async("echo", run.data)


def test_the_repr_is_stable_and_hides_secrets() -> None:
    with DAG("texts", start_date=START, schedule=None, params={"file": "a"}) as dag:
        upstream = operator(task_id="upstream")
        for path, text in (
            ("s3://aws_default@calls/{{ ds }}/a.wav", "Upload('s3://aws_default@calls/{{ ds }}/a.wav')"),
            (ObjectStoragePath("s3://c@b/a.wav", key="hidden"), "Upload('s3://c@b/a.wav')"),
            (upstream.output["data"], "Upload(upstream['data'])"),
            (upstream.output.map(str), "Upload(upstream['return_value'])"),
            (dag.param("file"), "Upload(DagParam)"),
            ("ftp://me:hidden@host/a.wav", "Upload('ftp://me:***@host/a.wav')"),
            ("ftp://me:hid@den@host/a.wav", "Upload('ftp://me:***@host/a.wav')"),
            ("https://host/a.wav?X-Amz-Signature=hidden", "Upload('https://host/a.wav?***')"),
        ):
            assert repr(Upload(path)) == str(Upload(path)) == text


def build_dag() -> Any:
    with DAG("uploads", start_date=START, schedule=None) as dag:

        @task
        def one() -> str:
            return "file:///a"

        @task
        def files() -> list[str]:
            return ["file:///a", "file:///b"]

        first, many = one(), files()
        mapped = AixplainRunModelOperator.partial
        operator(task_id="in_data", data={"text": [Upload(first)]})
        operator(task_id="in_parameters", parameters={"audio": Upload(first)})
        operator(task_id="alone", data=Upload(first))
        mapped(task_id="partial", model_id="echo", data={"text": Upload(first)}).expand(name=["a", "b"])
        mapped(task_id="literal", model_id="echo").expand(data=[{"text": Upload("file:///{{ ds }}")}, Upload(first)])
        mapped(task_id="map", model_id="echo").expand(data=many.map(lambda path: {"text": Upload(path)}))
        mapped(task_id="map_itself", model_id="echo").expand(data=many.map(Upload))
        mapped(task_id="kwargs", model_id="echo").expand_kwargs([{"data": {"text": Upload(first)}}])
        mapped(task_id="map_kwargs", model_id="echo").expand_kwargs(many.map(lambda path: {"data": Upload(path)}))

        @task_group
        def group(path: Any) -> None:
            operator(task_id="member", data={"text": Upload(path)})

        group.expand(path=many)
    return dag


class TestDag:
    def test_the_output_of_a_task_sets_the_dependency(self) -> None:
        dag = build_dag()
        for source, downstream in {
            "one": {"in_data", "in_parameters", "alone", "partial", "literal", "kwargs"},
            "files": {"map", "map_itself", "map_kwargs", "group.member"},
        }.items():
            assert dag.get_task(source).downstream_task_ids == downstream

    def test_the_serialized_dag_is_stable(self) -> None:
        stored, again = (json.dumps(dag_serialization.to_dict(build_dag()), sort_keys=True) for _ in range(2))
        assert stored == again
        assert " at 0x" not in stored
        assert "Upload('file:///{{ ds }}')" in stored
        shown = serialize_template_field({"text": Upload("file:///a")}, "data")
        assert "Upload('file:///a')" in str(shown), "among the rendered templates in Airflow's UI"
        read_again = dag_serialization.from_dict(json.loads(stored))
        assert read_again.get_task("partial").upstream_task_ids == {"one"}

    @pytest.mark.parametrize(
        "mapped",
        [
            lambda partial: partial(data={"text": Upload("file:///{{ n }}")}).expand(name=["a", "b"]),
            lambda partial: partial().expand(data=[{"text": Upload("file:///{{ n }}")}] * 2),
            lambda partial: partial().expand_kwargs([{"data": {"text": Upload("file:///{{ n }}")}}] * 2),
        ],
    )
    def test_each_map_index_has_its_own_path(self, mapped: Any) -> None:
        with DAG("mapped", start_date=START, schedule=None):
            run = mapped(lambda **more: AixplainRunModelOperator.partial(task_id="a", model_id="echo", **more))
        tasks = []
        for index in (0, 1):
            instance = SimpleNamespace(map_index=index, task=run)
            context: Any = {"ti": instance, "task_instance": instance, "task": run, "run_id": "a", "n": index}
            context |= {"dag": run.dag, "dag_run": SimpleNamespace(conf={}), "params": {}}
            run.render_template_fields(context)
            tasks.append(context["task"])
        assert [unmapped.data["text"].path for unmapped in tasks] == ["file:///0", "file:///1"]


@pytest.fixture
def created(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The paths of all Uploads that are created."""
    paths: list[Any] = []
    monkeypatch.setattr(Upload, "__init__", lambda self, path=None, *_, **__: paths.append(path))
    return paths


@pytest.fixture(params=["", "*", "[a-z]*", "regexp"])
def allowed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[bool]:
    """Whether Airflow may deserialize every class that it can. What it documents as ``*`` is no valid pattern to it."""
    if request.param == "regexp":
        monkeypatch.setenv("AIRFLOW__CORE__ALLOWED_DESERIALIZATION_CLASSES_REGEXP", ".*")
    elif request.param:
        monkeypatch.setenv("AIRFLOW__CORE__ALLOWED_DESERIALIZATION_CLASSES", request.param)

    def clear() -> None:
        for name in ("_get_patterns", "_get_regexp_patterns", "_match_glob", "_match_regexp"):
            getattr(serde, name).cache_clear()

    clear()
    yield request.param in ("[a-z]*", "regexp")
    monkeypatch.undo()
    clear()


def json_forms(classname: str) -> list[Any]:
    """Return the serialized object of a class, in the current and the former format of serde."""
    path = "file:///etc/hostname"
    forms: list[Any] = []
    for data in ({"path": path}, path, [path], {"path": path, "conn_id": None, "kwargs": {}}, None):
        forms += [{"__classname__": classname, "__version__": version, "__data__": data} for version in (0, 1, 2)]
        forms.append({"__type": classname, "__var": data})
        forms.append({"__source": None, "__type": classname, "__var": data})
    return forms


class TestOutside:
    """JSON from outside never becomes an Upload."""

    def test_upload_is_a_plain_class(self) -> None:
        assert not dataclasses.is_dataclass(Upload)
        assert not attrs.has(Upload)
        for name in ("serialize", "deserialize", "template_fields", "model_config", "model_fields", "__version__"):
            assert not hasattr(Upload, name)

    def test_serde_creates_none(self, created: list[Any], allowed: bool) -> None:
        plain = {"key": "a", "upload_url": "https://a.example"}
        dataclass = {"__classname__": "airflow_provider_aixplain.protocol.upload.Slot", "__version__": 0}
        with nullcontext() if allowed else pytest.raises(Exception, match=r"not found in allow list|repeat|repetition"):
            assert serde.deserialize({**dataclass, "__data__": plain}) == Slot(**plain)
        for form in json_forms(UPLOAD):
            for value in (form, [form], {"a": {"b": form}}):
                with pytest.raises(TypeError if allowed else Exception):
                    serde.deserialize(value)
            assert not isinstance(serde.deserialize({"__type": "dict", "__var": {"a": 1, **form}}, full=False), Upload)
        with pytest.raises(TypeError if allowed else Exception):
            serde.deserialize({"__version__": 0, "path": "file:///a"}, type_hint=Upload)
        assert created == []

    def test_base_serialization_creates_none(self, created: list[Any]) -> None:
        path = "file:///etc/hostname"
        arguments = {"path": path}
        exception = {"exc_cls_name": UPLOAD, "args": [path], "kwargs": {}}
        encoded = {"__type": "dict", "__var": {**exception, "kwargs": {"__type": "dict", "__var": {}}}}
        trigger = {"__type": "tuple", "__var": [UPLOAD, {"__type": "dict", "__var": arguments}]}
        param = {"__class": UPLOAD, "default": path, "schema": {"__type": "dict", "__var": {}}}
        for kind in (*DagAttributeTypes, UPLOAD):
            for var in (arguments, exception, encoded, trigger, param, [UPLOAD, arguments], path, *json_forms(UPLOAD)):
                value = {"__type": str(getattr(kind, "value", kind)), "__var": var}
                for form in (value, {"__type": "dict", "__var": {"a": value}}, [value]):
                    with suppress(Exception):
                        BaseSerialization.deserialize(form)
        assert created == []

    @pytest.mark.skipif(AIRFLOW_3, reason="Airflow 3 calls only classes of exceptions")
    @pytest.mark.parametrize("kind", ["airflow_exc_ser", "base_trigger"])
    def test_airflow_2_is_refused_when_it_calls_the_class(self, kind: str) -> None:
        empty = {"__type": "dict", "__var": {}}
        exception = {"exc_cls_name": UPLOAD, "args": ["file:///a"], "kwargs": empty}
        arguments = {"__type": "dict", "__var": {"path": "file:///a"}}
        var = {
            "airflow_exc_ser": {"__type": "dict", "__var": exception},
            "base_trigger": {"__type": "tuple", "__var": [UPLOAD, arguments]},
        }[kind]
        with pytest.raises(TypeError, match="cannot be deserialized"):
            BaseSerialization.deserialize({"__type": kind, "__var": var})

    def test_trigger_arguments_are_not_changed(self, created: list[Any]) -> None:
        for form in json_forms(UPLOAD):
            arguments = {"data": form, "more": [form]}
            assert BaseSerialization.deserialize(BaseSerialization.serialize(arguments)) == arguments
        assert created == []

    @pytest.mark.parametrize("pickled", [False, pytest.param(True, marks=pytest.mark.skipif(AIRFLOW_3, reason="gone"))])
    def test_it_cannot_be_stored_in_an_xcom(self, pickled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AIRFLOW__CORE__ENABLE_XCOM_PICKLING", str(pickled))
        for value in (Upload("file:///a"), {"a": [Upload("file:///a")]}):
            with pytest.raises(TypeError, match=r"annot serialize|be pickled|not JSON serializable"):
                XCom.serialize_value(value)
            with pytest.raises(TypeError, match="cannot be pickled or stored in an XCom"):
                pickle.dumps(value)
        stored = BaseSerialization.serialize({"data": Upload("file:///a")})
        assert BaseSerialization.deserialize(stored) == {"data": "Upload('file:///a')"}, "a text"

    @pytest.mark.parametrize("field", ["data", "parameters"])
    def test_a_path_from_an_xcom_is_not_uploaded(
        self, field: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        secret = tmp_path / "secret.txt"
        secret.write_text("only for the worker")
        fields = {"path": f"file://{secret}", "conn_id": None, "kwargs": {}}
        with DAG("outside", start_date=START, schedule=None):
            upstream = operator(task_id="upstream")
            run = operator(**{field: {"a": [upstream.output]}}, aixplain_conn_id="listening")
        for form in (
            {"__classname__": PATH, "__version__": 1, "__data__": fields},
            {"__type": PATH, "__var": fields},
        ):
            path = serde.deserialize(form)
            assert isinstance(path, ObjectStoragePath), "Airflow has created a path from it"
            with serve(lambda http: http.answer(500)) as server:
                monkeypatch.setenv("AIRFLOW_CONN_LISTENING", json.dumps({"host": server.url, "password": "key"}))
                attempt = copy.deepcopy(run)
                render(attempt, ti=Result(result=path))
                with pytest.raises(AixplainInputError, match=r"\['a'\]\[0\] is a ObjectStoragePath.*wrap it in Upload"):
                    attempt.execute({})
            assert server.asked == []

    def test_a_native_template_marks_nothing(self, connection: object, tmp_path: Path) -> None:
        path = ObjectStoragePath(f"file://{tmp_path}")
        with DAG("native", start_date=START, schedule=None, render_template_as_native_obj=True):
            run = operator(data="{{ ti.xcom_pull('a') }}")
        render(run, ti=Result(result=path))
        with pytest.raises(AixplainInputError, match=r"data is a ObjectStoragePath.*wrap it in Upload"):
            run.execute({})


@pytest.mark.usefixtures("connection")
class TestCalls:
    def test_the_fingerprint_contains_path_and_size(self, tmp_path: Path) -> None:
        client = Client(Platform("key"))
        path = tmp_path / "a.txt"
        path.write_text("one")
        first = client.fingerprint(ModelInput("echo", {"text": Upload(f"file://{path}")}))
        assert client.fingerprint(ModelInput("echo", {"text": Upload(ObjectStoragePath(f"file://{path}"))})) == first
        path.write_text("three")
        assert client.fingerprint(ModelInput("echo", {"text": Upload(f"file://{path}")})) != first

    def test_a_function_can_return_an_upload(self, tmp_path: Path, emulator: Emulator) -> None:
        path = tmp_path / "a.txt"
        path.write_text("What a terrible disappointment")

        @task.aixplain(model_id="sentiment")
        def marked() -> Any:
            return {"text": Upload(f"file://{path}")}

        with DAG("decorated", start_date=START, schedule=None), pytest.raises(TaskDeferred):
            marked().operator.execute({})
        assert emulator.runs()[-1]["payload"]["text"].endswith("/a.txt")

    def test_a_row_of_a_batch_uploads_nothing(self) -> None:
        rows = [{"text": Upload("file:///a")}, {"text": ObjectStoragePath("file:///a")}]
        for row in read(rows, Mapper()):
            assert isinstance(row, BadRow)
            assert "data['text']: " in str(row)
            assert "files are not uploaded here: upload it first with AixplainHook().upload_file" in str(row)

    def test_an_event_loop_uploads_nothing(self, emulator: Emulator) -> None:
        before = len(emulator.runs())
        with pytest.raises(AixplainInputError, match="files are not uploaded here: upload it first"):
            asyncio.run(AixplainHook().arun_async("echo", {"text": Upload("file:///a")}))
        assert len(emulator.runs()) == before
