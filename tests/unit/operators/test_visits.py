"""Which tasks have to end on a worker."""

from __future__ import annotations

from typing import Any

import pendulum
import pytest
from airflow.providers.common.compat.sdk import DAG, Asset, get_listener_manager, hookimpl

from airflow_provider_aixplain.operators.aixplain import AixplainRunModelOperator
from airflow_provider_aixplain.operators.visits import lost_at_end
from tests.airflow.deployment import AIRFLOW_3


class Shortens(AixplainRunModelOperator):
    def execute_complete(self, context: Any, event: dict[str, Any]) -> dict[str, Any]:
        return {"data": super().execute_complete(context, event)["data"][:80]}


class Renamed(AixplainRunModelOperator):
    """Changes nothing that a worker does at the end."""

    ui_color = "#ffffff"


class Listener:
    @hookimpl
    def on_task_instance_success(self) -> None: ...


def loss(kind: type[AixplainRunModelOperator] = AixplainRunModelOperator, **arguments: Any) -> str | None:
    task = kind(**{"task_id": "run", "model_id": "echo", "data": "a", "end_from_trigger": True, **arguments})
    return lost_at_end(task, AixplainRunModelOperator)


@pytest.mark.skipif(not AIRFLOW_3, reason="below Airflow 3.3 only a worker can push XComs")
@pytest.mark.parametrize("kind", [AixplainRunModelOperator, Renamed])
def test_most_tasks_do_not(kind: type[AixplainRunModelOperator]) -> None:
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
def test_what_only_a_worker_does(arguments: dict[str, Any], named: str) -> None:
    assert named in str(loss(do_xcom_push=False, **arguments))


def test_a_backend_of_xcoms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__XCOM_BACKEND", "somebodys.Backend")
    assert loss(do_xcom_push=False) is None, "what pushes nothing needs none"
    if AIRFLOW_3:
        assert loss() == "the XCom backend somebodys.Backend"


def test_a_listener() -> None:
    manager, listener = get_listener_manager(), Listener()
    manager.pm.register(listener, "lineage")
    try:
        assert loss(do_xcom_push=False) == "the listener lineage"
    finally:
        manager.pm.unregister(listener)


def test_what_others_are_mapped_over() -> None:
    with DAG("over", start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), schedule=None):
        task = AixplainRunModelOperator(task_id="run", model_id="echo", data="a", do_xcom_push=False)
        assert lost_at_end(task, AixplainRunModelOperator) is None
        AixplainRunModelOperator.partial(task_id="each", model_id="echo").expand(data=task.output)
    assert lost_at_end(task, AixplainRunModelOperator) == "what tasks are mapped over"


@pytest.mark.skipif(AIRFLOW_3, reason="Airflow 3.3 has XCom.aset")
def test_xcoms_below_airflow_3_3() -> None:
    assert loss() == "its XComs, below Airflow 3.3"
