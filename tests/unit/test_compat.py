"""Each fact of Airflow that the provider relies on: it holds here, and raises an error where it does not."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    BaseOperator,
    BaseOperatorLink,
    XCom,
    conf,
    get_listener_manager,
)
from airflow.triggers.base import BaseTrigger

from airflow_provider_aixplain import compat
from airflow_provider_aixplain.compat import UnsupportedAirflowError
from airflow_provider_aixplain.operators.aixplain import AixplainRunModelOperator
from airflow_provider_aixplain.triggers.aixplain import AixplainModelRunTrigger
from tests.support.deployment import AIRFLOW_3

needs_airflow_3 = pytest.mark.skipif(not AIRFLOW_3, reason="Airflow 3.3 has it")


def task(**arguments: Any) -> AixplainRunModelOperator:
    return AixplainRunModelOperator(**{"task_id": "run", "model_id": "echo", "data": "a", **arguments})


def trigger() -> AixplainModelRunTrigger:
    return AixplainModelRunTrigger("https://h/run")


def remove(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
    """Remove an attribute from an object, its class and all base classes."""
    kind = owner if isinstance(owner, type) else type(owner)
    for place in [owner, *kind.__mro__]:
        if name in getattr(place, "__dict__", {}):
            monkeypatch.delattr(place, name)


def rename_worker_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    getfloat = conf.getfloat

    def without_interval(section: str, key: str, **kwargs: Any) -> float:
        return float(getfloat(section, f"{key}_renamed", **kwargs))

    monkeypatch.setattr(conf, "getfloat", without_interval)


def runtime_task_instance(*, without: str = "", **fields: Any) -> Any:
    """A task instance of a class of Airflow's, with or without an attribute."""
    known = {"task": task(), "try_number": 2, "max_tries": 1, "_ti_context_from_server": None, **fields}
    known.pop(without, None)
    return type("RuntimeTaskInstance", (SimpleNamespace,), {"__module__": "airflow.sdk.execution_time"})(**known)


class TestTasks:
    @pytest.mark.parametrize(
        ("read", "name"),
        [
            (compat.pre_execute_hook, "_pre_execute_hook"),
            (compat.post_execute_hook, "_post_execute_hook"),
            (compat.is_mapped_instance, "_BaseOperator__from_mapped"),
            pytest.param(compat.returns_dag_result, "returns_dag_result", marks=needs_airflow_3),
        ],
    )
    def test_a_missing_attribute_of_a_task_is_an_error(
        self, read: Callable[[Any], Any], name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one = task()
        assert not read(one)
        remove(monkeypatch, one, name)
        with pytest.raises(UnsupportedAirflowError, match=rf"{name}, which .* Supported is Airflow 2\.11 to 3\.3"):
            read(one)

    def test_a_renamed_rendering_method_is_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        compat.check_rendering(AixplainRunModelOperator)
        for kind in AixplainRunModelOperator.__mro__:
            if kind.__module__.startswith("airflow."):
                remove_own(monkeypatch, kind, "_do_render_template_fields")
        with pytest.raises(UnsupportedAirflowError, match="_do_render_template_fields"):
            task().check_templates("data")

    @pytest.mark.parametrize("name", ["start_trigger_args", "start_from_trigger"])
    def test_a_missing_start_trigger_is_an_error(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        compat.check_start_trigger()
        remove(monkeypatch, BaseOperator, name)
        with pytest.raises(UnsupportedAirflowError, match=name):
            compat.check_start_trigger()

    def test_a_missing_listener_event_is_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        hook = get_listener_manager().hook
        for event in ("on_task_instance_success", "on_task_instance_running"):
            assert compat.listeners(event) == []
            monkeypatch.delattr(hook, event)
            with pytest.raises(UnsupportedAirflowError, match=event):
                compat.listeners(event)

    @needs_airflow_3
    def test_a_missing_key_of_links_is_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert compat.stores_links()
        monkeypatch.delattr(BaseOperatorLink, "xcom_key")
        with pytest.raises(UnsupportedAirflowError, match="xcom_key"):
            compat.stores_links()


def remove_own(monkeypatch: pytest.MonkeyPatch, kind: type, name: str) -> None:
    if name in vars(kind):
        monkeypatch.delattr(kind, name)


class TestContext:
    @needs_airflow_3
    def test_airflows_task_instance_has_all_attributes(self) -> None:
        module = importlib.import_module("airflow.sdk.execution_time.task_runner")
        known = module.RuntimeTaskInstance.model_fields.keys() | module.RuntimeTaskInstance.__private_attributes__
        assert {"task", "try_number", "max_tries", "_ti_context_from_server"} <= set(known)
        started = importlib.import_module("airflow.sdk.api.datamodels._generated").TIRunContext
        assert "xcom_keys_to_clear" in started.model_fields

    @pytest.mark.parametrize(
        ("read", "name"),
        [
            (compat.try_number, "try_number"),
            (compat.max_tries, "max_tries"),
            (compat.has_earlier_result, "_ti_context_from_server"),
            (lambda instance: compat.running_task({"ti": instance}), "task"),
        ],
    )
    def test_a_missing_attribute_of_a_task_instance_is_an_error(self, read: Callable[[Any], Any], name: str) -> None:
        read(runtime_task_instance())
        with pytest.raises(UnsupportedAirflowError, match=name):
            read(runtime_task_instance(without=name))

    def test_an_earlier_result_is_read_from_the_xcoms_to_clear(self) -> None:
        for keys, expected in ((["return_value"], True), (["other"], False), ([], None), (None, None)):
            started = SimpleNamespace(xcom_keys_to_clear=keys)
            assert compat.has_earlier_result(runtime_task_instance(_ti_context_from_server=started)) is expected
        with pytest.raises(UnsupportedAirflowError, match="xcom_keys_to_clear"):
            compat.has_earlier_result(runtime_task_instance(_ti_context_from_server=SimpleNamespace()))

    @needs_airflow_3
    def test_a_missing_task_state_store_is_an_error(self) -> None:
        with pytest.raises(UnsupportedAirflowError, match="task_state_store"):
            compat.task_state_store({"ti": runtime_task_instance()})

    @pytest.mark.parametrize("context", [{}, {"ti": None}, {"ti": SimpleNamespace()}])
    def test_the_context_of_a_unit_test_may_be_empty(self, context: dict[str, Any]) -> None:
        instance = context.get("ti")
        assert (compat.task_state_store(context), compat.running_task(context)) == (None, None)
        assert compat.try_number(instance) == 1


class TestTriggers:
    @pytest.mark.parametrize("name", ["trigger_id", "task_instance"])
    def test_a_missing_attribute_of_a_trigger_is_an_error(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        one = trigger()
        assert compat.is_inline(one)
        remove(monkeypatch, one, name)
        with pytest.raises(UnsupportedAirflowError, match=name):
            compat.is_inline(one)

    @pytest.mark.parametrize("known", [{"trigger_id": 1}, {"task_instance": "any"}])
    def test_a_trigger_in_a_triggerer_is_not_inline(self, known: dict[str, Any]) -> None:
        assert not compat.is_inline(SimpleNamespace(**{"trigger_id": None, "task_instance": None, **known}))

    def test_triggers_need_no_more_than_airflows_base_class(self) -> None:
        assert issubclass(AixplainModelRunTrigger, BaseTrigger)
        with pytest.raises(TypeError, match="nothing_known"):
            AixplainModelRunTrigger("https://h/run", nothing_known=1)

    @needs_airflow_3
    def test_a_renamed_heartbeat_interval_is_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert compat.worker_release_delay() > 1
        rename_worker_interval(monkeypatch)
        with pytest.raises(UnsupportedAirflowError, match="min_heartbeat_interval"):
            compat.worker_release_delay()

    @pytest.mark.skipif(AIRFLOW_3, reason="Airflow 3 has a worker release delay")
    def test_airflow_2_has_no_release_delay(self) -> None:
        assert compat.worker_release_delay() == 0

    @needs_airflow_3
    @pytest.mark.parametrize("name", ["aset", "aget_one", "delete"])
    def test_a_missing_method_of_xcoms_is_an_error(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        assert compat.can_push_xcoms()
        remove(monkeypatch, XCom, name)
        with pytest.raises(UnsupportedAirflowError, match=name):
            compat.can_push_xcoms()


@needs_airflow_3
class TestPage:
    def test_a_missing_table_is_an_error(self) -> None:
        needed = {
            "dag_run": {"id", "dag_id", "run_id", "run_after", "updated_at"},
            "task_instance": {"dag_id", "run_id", "task_id", "map_index", "state"},
            "xcom": {"dag_run_id", "task_id", "map_index", "key", "value"},
            "task_state_store": {"dag_run_id", "task_id", "map_index", "key", "value"},
        }
        for name, columns in needed.items():
            assert columns <= set(compat.table(name).c.keys())
        with pytest.raises(UnsupportedAirflowError, match="table usage in its database"):
            compat.table("usage")

    @pytest.mark.parametrize(
        ("read", "module", "name"),
        [
            (compat.database_session, "airflow.utils.session", "create_session"),
            (compat.current_user, "airflow.api_fastapi.core_api.security", "get_user"),
            (lambda: compat.readable_dag_ids("user", None), "airflow.api_fastapi.app", "get_auth_manager"),
        ],
    )
    def test_a_missing_name_is_an_error(
        self, read: Callable[[], Any], module: str, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delattr(importlib.import_module(module), name)
        with pytest.raises(UnsupportedAirflowError, match=name):
            read()


class TestImports:
    @pytest.mark.parametrize(
        ("read", "modules", "name"),
        [
            (
                lambda: compat.ResolveMixin,
                ["airflow.sdk.definitions._internal.mixins", "airflow.utils.mixins"],
                "ResolveMixin",
            ),
            (compat.triggerer_stats, ["airflow.observability.stats", "airflow.stats"], "Stats"),
            (compat.worker_stats, ["airflow.sdk.observability.stats", "airflow.stats"], "Stats"),
            pytest.param(compat.retry_policy_types, ["airflow.sdk"], "RetryPolicy", marks=needs_airflow_3),
        ],
    )
    def test_a_missing_name_is_an_error(
        self, read: Callable[[], Any], modules: list[str], name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert read()
        for module in modules:
            monkeypatch.setitem(sys.modules, module, ModuleType(module))
        with pytest.raises(UnsupportedAirflowError, match=name):
            read()

    @pytest.mark.skipif(AIRFLOW_3, reason="Airflow 3.3 has retry policies")
    def test_retry_policies_need_airflow_3_3(self) -> None:
        with pytest.raises(ImportError, match=r"needs Airflow 3\.3 or later"):
            compat.retry_policy_types()

    def test_deserializers_are_where_uploads_look_for_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        serialized = importlib.import_module("airflow.serialization.serialized_objects").BaseSerialization
        assert serialized.__module__.startswith(compat.deserializer_modules())
        compat.deserializer_modules.cache_clear()
        monkeypatch.setattr(compat, "find_spec", lambda name: None)
        with pytest.raises(UnsupportedAirflowError, match=r"airflow\.serialization"):
            compat.deserializer_modules()

    @pytest.mark.parametrize(
        ("version", "is_3_3"), [("2.11.2", False), ("3.2.9", False), ("3.3.0rc1", True), ("3.10.0", True)]
    )
    def test_versions_are_compared_as_numbers(
        self, version: str, is_3_3: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("airflow.__version__", version)
        assert compat.is_at_least(3, 3) is is_3_3

    def test_an_unreadable_version_is_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("airflow.__version__", "main")
        with pytest.raises(UnsupportedAirflowError, match="version"):
            compat.is_at_least(3, 3)

    def test_importing_it_loads_no_database_models(self) -> None:
        first = "airflow.sdk" if AIRFLOW_3 else "airflow.models"
        code = (
            f"import sys, {first}; before = set(sys.modules); import airflow_provider_aixplain.compat\n"
            "print(sorted(name for name in set(sys.modules) - before if 'models' in name or 'sqlalchemy' in name))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "[]"
