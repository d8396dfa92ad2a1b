"""Which tasks a trigger can start or finish."""

from __future__ import annotations

import json
from typing import Any

import pendulum
import pytest
from airflow.providers.common.compat.sdk import DAG, Asset, ObjectStoragePath, get_listener_manager, hookimpl
from jinja2 import Undefined

from airflow_provider_aixplain.compat import UnsupportedAirflowError
from airflow_provider_aixplain.decorators.aixplain import AixplainDecoratedOperator
from airflow_provider_aixplain.files import Upload
from airflow_provider_aixplain.operators.aixplain import AixplainRunAgentOperator, AixplainRunModelOperator
from airflow_provider_aixplain.workerless.eligibility import reason_not_end_from_trigger, reason_not_start_from_trigger
from tests.support.deployment import AIRFLOW_3


class Shortens(AixplainRunModelOperator):
    def execute_complete(self, context: Any, event: dict[str, Any]) -> dict[str, Any]:
        return {"data": super().execute_complete(context, event)["data"][:80]}


class Renamed(AixplainRunModelOperator):
    """Overrides nothing that a worker calls."""

    ui_color = "#ffffff"


class Listener:
    @hookimpl
    def on_task_instance_success(self) -> None: ...


def loss(kind: type[AixplainRunModelOperator] = AixplainRunModelOperator, **arguments: Any) -> str | None:
    task = kind(**{"task_id": "run", "model_id": "echo", "data": "a", "end_from_trigger": True, **arguments})
    return reason_not_end_from_trigger(task)


@pytest.mark.skipif(not AIRFLOW_3, reason="below Airflow 3.3 only a worker can push XComs")
@pytest.mark.parametrize("kind", [AixplainRunModelOperator, Renamed])
def test_a_trigger_can_finish_most_tasks(kind: type[AixplainRunModelOperator]) -> None:
    assert loss(kind) is None
    assert loss(kind, multiple_outputs=False, retries=3, on_failure_callback=print) is None


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"outlets": [Asset("a")]}, "outlets"),
        ({"on_success_callback": print}, "on_success_callback"),
        ({"post_execute": print}, "post_execute"),
        ({"map_index_template": "{{ task.data }}"}, "map_index_template"),
        ({"kind": Shortens}, "execute_complete"),
    ],
)
def test_a_worker_is_needed_for_its_features(arguments: dict[str, Any], named: str) -> None:
    assert named in str(loss(do_xcom_push=False, durable=False, **arguments))


def test_an_xcom_backend_needs_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__XCOM_BACKEND", "somebodys.Backend")
    assert loss(do_xcom_push=False, durable=False), "the usage record is an XCom too"
    if AIRFLOW_3:
        assert loss() == "the XCom backend somebodys.Backend"


@pytest.mark.skipif(not AIRFLOW_3, reason="below Airflow 3.3 a worker finishes every task")
def test_a_durable_task_without_xcoms_needs_a_worker() -> None:
    assert "its result was delivered" in str(loss(do_xcom_push=False))


@pytest.mark.skipif(not AIRFLOW_3, reason="below Airflow 3.3 a worker finishes every task")
def test_a_listener_needs_a_worker() -> None:
    manager, listener = get_listener_manager(), Listener()
    manager.pm.register(listener, "lineage")
    try:
        assert loss(do_xcom_push=False, durable=False) == "the listener lineage"
    finally:
        manager.pm.unregister(listener)


@pytest.mark.skipif(not AIRFLOW_3, reason="below Airflow 3.3 a worker finishes every task")
def test_tasks_mapped_over_the_result_need_a_worker() -> None:
    with DAG("over", start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), schedule=None):
        task = AixplainRunModelOperator(task_id="run", model_id="echo", data="a", do_xcom_push=False, durable=False)
        assert reason_not_end_from_trigger(task) is None
        AixplainRunModelOperator.partial(task_id="each", model_id="echo").expand(data=task.output)
    assert reason_not_end_from_trigger(task) == "what tasks are mapped over"


@pytest.mark.skipif(AIRFLOW_3, reason="Airflow 3.3 has XCom.aset")
def test_xcoms_below_airflow_3_3_need_a_worker() -> None:
    assert loss() == "its XComs, below Airflow 3.3"


def test_a_worker_starts_a_decorated_function() -> None:
    task = AixplainDecoratedOperator(
        task_id="run", model_id="echo", python_callable=lambda: "a", start_from_trigger=True
    )
    assert task.start_trigger_args is None
    assert ("its function" if AIRFLOW_3 else "below Airflow 3.3") in str(reason_not_start_from_trigger(task))


class SubmitsItself(AixplainRunModelOperator):
    def execute(self, context: Any) -> Any:
        return super().execute(context)


class OwnHook(AixplainRunModelOperator):
    hook = None  # type: ignore[assignment]


class OwnInput(AixplainRunModelOperator):
    def run_input(self) -> Any:
        return super().run_input()


class OwnField(AixplainRunModelOperator):
    template_fields = (*AixplainRunModelOperator.template_fields, "language")

    def __init__(self, *, language: str, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.language = language


def start_loss(kind: type[AixplainRunModelOperator] = AixplainRunModelOperator, **arguments: Any) -> str | None:
    given = {"task_id": "run", "model_id": "echo", "data": "a", "start_from_trigger": True, **arguments}
    task = kind(**given)
    loss = reason_not_start_from_trigger(task)
    assert (task.start_trigger_args is None) == (loss is not None)
    return loss


@pytest.mark.skipif(AIRFLOW_3, reason="Airflow 3.3 starts tasks in the triggerer")
def test_below_airflow_3_3_workers_start_all_tasks() -> None:
    assert start_loss() == "its XComs, below Airflow 3.3"


@pytest.mark.skipif(not AIRFLOW_3, reason="below Airflow 3.3 a worker starts all")
class TestStart:
    @pytest.mark.parametrize(
        "data",
        [
            "{{ params.text }} of {{ ds }}{% if dag_run.conf %}, {{ var.value.more }}{% endif %}",
            {"a": ["{{ run_id }}", 1, 1.5, None, True, {"b": "{ no template }"}]},
            5,
            "{{ this is no template",  # the triggerer raises it, before it sends anything
        ],
    )
    def test_most_input_can_start_in_a_trigger(self, data: Any) -> None:
        assert start_loss(data=data) is None

    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            ({"stream": True}, "stream"),
            ({"deferrable": False}, "on a worker"),
            ({"wait_for_completion": False}, "right after the submission"),
            ({"pre_execute": print}, "pre_execute"),
            ({"on_execute_callback": print}, "on_execute_callback"),
            ({"kind": SubmitsItself}, "execute"),
            ({"pool": "few"}, "limits"),
            ({"max_active_tis_per_dag": 1}, "limits"),
            ({"do_xcom_push": False}, "record"),
            ({"data": "{{ ti.xcom_pull('a') }}"}, "ti in a template"),
            ({"parameters": {"a": "{{ prev_start_date_success }}"}}, "prev_start_date_success in a template"),
            ({"data": ObjectStoragePath("file:///a.wav")}, "ObjectStoragePath"),
            ({"data": {"text": Upload("file:///a.wav")}}, "a file to upload"),
            ({"parameters": {"a": [Upload("file:///a.wav")]}}, "a file to upload"),
            ({"data": {"a": {1, 2}}}, "a set"),
            ({"data": [float("nan")]}, "a float that JSON does not hold"),
            ({"kind": OwnHook}, "hook"),
            ({"kind": OwnInput}, "run_input"),
            ({"data": {"__type": "a"}}, "the key '__type'"),
        ],
    )
    def test_a_worker_is_needed_for_its_features(self, arguments: dict[str, Any], named: str) -> None:
        assert named in str(start_loss(**arguments))

    def test_a_subclass_may_add_a_template_field(self) -> None:
        assert start_loss(OwnField, language="{{ ti.task_id }}") is None

    def test_a_listener_needs_a_worker(self) -> None:
        class Starts:
            @hookimpl
            def on_task_instance_running(self) -> None: ...

        manager, listener = get_listener_manager(), Starts()
        manager.pm.register(listener, "lineage")
        try:
            assert start_loss() == "the listener lineage"
        finally:
            manager.pm.unregister(listener)

    @pytest.mark.parametrize(
        "settings",
        [
            {"user_defined_macros": {"a": print}},
            {"render_template_as_native_obj": True},
            {"template_undefined": Undefined},
        ],
    )
    def test_jinja_settings_of_the_dag_need_a_worker(self, settings: dict[str, Any]) -> None:
        with DAG("jinja", start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), schedule=None, **settings):
            assert start_loss() == "its DAG's own Jinja settings"

    def test_output_of_other_tasks_becomes_a_reference(self) -> None:
        with DAG("chain", start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), schedule=None):
            plain = AixplainRunModelOperator(task_id="plain", model_id="echo", data="a", multiple_outputs=False)
            fields = AixplainRunModelOperator(task_id="fields", model_id="echo", data="a")
            mapped = AixplainRunModelOperator.partial(task_id="mapped", model_id="echo").expand(data=["a"])
            assert start_loss(task_id="1", data={"a": [plain.output, fields.output["data"]]}) is None
            assert start_loss(task_id="2", data=mapped.output) == "its input: XComs of mapped tasks"
            session_id = plain.output["session_id"]
            ask = AixplainRunAgentOperator(
                task_id="ask",
                agent_id="a",
                query={"input": ["{{ params.text }}", plain.output]},
                session_id=session_id,
                budget={"max_cost": 1},
                start_from_trigger=True,
            )
            task = AixplainRunModelOperator(
                task_id="3",
                model_id="echo",
                data=[plain.output, plain.output["x"], fields.output["x"]],
                start_from_trigger=True,
            )
        stored = task.start_trigger_args.trigger_kwargs["data"]
        assert [reference["__aixplain_xcom__"] for reference in stored] == [
            {"task_id": "plain", "key": "return_value", "is_required": False},
            {"task_id": "plain", "key": "x", "is_required": True},
            {"task_id": "fields", "key": "x", "is_required": False},
        ]
        assert task.upstream_task_ids == {"plain", "fields"}
        settings = ask.start_trigger_args.trigger_kwargs
        reference = {"task_id": "plain", "key": "session_id", "is_required": True}
        assert settings["session_id"] == {"__aixplain_xcom__": reference}
        assert (settings["agent_id"], settings["budget"]) == ("a", {"max_cost": 1})
        json.dumps(settings)

    def test_the_class_itself_has_no_start_trigger(self) -> None:
        """So workers start mapped tasks."""
        assert AixplainRunModelOperator.start_trigger_args is None
        assert start_loss(start_from_trigger=True) is None
        plain = AixplainRunModelOperator(task_id="run", model_id="echo", data="a")
        assert plain.start_trigger_args is None

    def test_an_attribute_that_airflow_lacks_is_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Airflow would read an AttributeError as "this task has no trigger"."""
        task = AixplainRunModelOperator(task_id="run", model_id="echo", data="a", start_from_trigger=True)
        assert task.start_trigger_args is not None
        kind = next(kind for kind in type(task).__mro__ if "get_closest_mapped_task_group" in vars(kind))
        monkeypatch.delattr(kind, "get_closest_mapped_task_group")
        with pytest.raises(UnsupportedAirflowError, match="get_closest_mapped_task_group"):
            _ = task.start_trigger_args
