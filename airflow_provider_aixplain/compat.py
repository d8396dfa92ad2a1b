"""Access to what is private in Airflow, or depends on its version, one function each.

If it is missing, the function raises :class:`UnsupportedAirflowError`, so that a renamed attribute does not disable a
safety check unnoticed. DAG files import this module, so it imports only what every DAG file imports.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar

import airflow

if TYPE_CHECKING:
    from airflow.sdk import BaseHook as BaseHook
    from airflow.sdk import BaseOperator as BaseOperator
    from airflow.sdk import BaseOperatorLink as BaseOperatorLink
    from airflow.sdk import BaseSensorOperator as BaseSensorOperator
    from airflow.sdk import Connection
    from airflow.sdk import ObjectStoragePath as ObjectStoragePath
    from airflow.sdk import PokeReturnValue as PokeReturnValue
    from airflow.sdk.bases.decorator import DecoratedOperator as DecoratedOperator
    from airflow.sdk.bases.decorator import TaskDecorator as TaskDecorator
    from airflow.sdk.bases.decorator import determine_kwargs as determine_kwargs
    from airflow.sdk.bases.decorator import task_decorator_factory as task_decorator_factory
    from airflow.sdk.configuration import conf as conf
    from airflow.sdk.definitions._internal.mixins import ResolveMixin as ResolveMixin
    from airflow.sdk.definitions.context import context_merge as context_merge
    from airflow.sdk.exceptions import AirflowException as AirflowException
    from airflow.sdk.exceptions import AirflowFailException as AirflowFailException
    from airflow.sdk.exceptions import AirflowNotFoundException as AirflowNotFoundException
    from airflow.sdk.exceptions import (
        AirflowOptionalProviderFeatureException as AirflowOptionalProviderFeatureException,
    )
    from airflow.sdk.exceptions import AirflowSensorTimeout as AirflowSensorTimeout
    from airflow.sdk.execution_time.xcom import XCom as XCom
    from airflow.sdk.plugins_manager import AirflowPlugin as AirflowPlugin

T = TypeVar("T")
SUPPORTED = "2.11 to 3.3"
RETURN_KEY = "return_value"
"""Airflow's ``XCOM_RETURN_KEY``, whose module imports Airflow's database models."""

_DESERIALIZERS = ("airflow.serialization", "airflow.sdk.serde")


class UnsupportedAirflowError(RuntimeError):
    """The installed Airflow lacks something that this provider relies on."""

    def __init__(self, missing: str) -> None:
        super().__init__(
            f"Airflow {airflow.__version__} has no {missing}, which airflow-provider-aixplain relies on. Supported is"
            f" Airflow {SUPPORTED}: install one of these, or a newer airflow-provider-aixplain"
        )


def require(owner: Any, name: str) -> Any:
    """Return an attribute of one of Airflow's objects.

    :raises UnsupportedAirflowError: if there is no such attribute.
    """
    try:
        return getattr(owner, name)
    except AttributeError:
        kind = owner if isinstance(owner, type) else type(owner)
        raise UnsupportedAirflowError(f"{kind.__module__}.{kind.__qualname__}.{name}") from None


def is_at_least(major: int, minor: int) -> bool:
    """Return whether Airflow has this version or a later one."""
    found = re.match(r"(\d+)\.(\d+)", airflow.__version__)
    if found is None:
        raise UnsupportedAirflowError(f"version number that can be read: {airflow.__version__!r}")
    return (int(found[1]), int(found[2])) >= (major, minor)


# Imports

_EXCEPTIONS = ("airflow.sdk.exceptions", "airflow.exceptions")
_DECORATORS = ("airflow.sdk.bases.decorator", "airflow.decorators.base")
_SENSORS = ("airflow.sdk", "airflow.sensors.base")
# The modules that have a name of Airflow, from the newest version to 2.11. It takes the place of the provider
# common.compat, of which the constraints of no Airflow below 3.3 permit a version with all these names.
_MODULES = {
    "AirflowException": _EXCEPTIONS,
    "AirflowFailException": _EXCEPTIONS,
    "AirflowNotFoundException": _EXCEPTIONS,
    "AirflowOptionalProviderFeatureException": _EXCEPTIONS,
    "AirflowPlugin": ("airflow.sdk.plugins_manager", "airflow.plugins_manager"),
    "AirflowSensorTimeout": _EXCEPTIONS,
    "BaseHook": ("airflow.sdk", "airflow.hooks.base"),
    "BaseOperator": ("airflow.sdk", "airflow.models.baseoperator"),
    "BaseOperatorLink": ("airflow.sdk", "airflow.models.baseoperatorlink"),
    "BaseSensorOperator": _SENSORS,
    "DecoratedOperator": _DECORATORS,
    "ObjectStoragePath": ("airflow.sdk", "airflow.io.path"),
    "PokeReturnValue": _SENSORS,
    "ResolveMixin": ("airflow.sdk.definitions._internal.mixins", "airflow.utils.mixins"),
    "TaskDecorator": _DECORATORS,
    "XCom": ("airflow.sdk.execution_time.xcom", "airflow.models.xcom"),
    "conf": ("airflow.sdk.configuration", "airflow.configuration"),
    "context_merge": ("airflow.sdk.definitions.context", "airflow.utils.context"),
    "determine_kwargs": ("airflow.sdk.bases.decorator", "airflow.utils.operator_helpers"),
    "task_decorator_factory": _DECORATORS,
}


def _import_first(name: str, *modules: str) -> Any:
    modules = modules or _MODULES[name]
    for module in modules:
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError):
            continue
    raise UnsupportedAirflowError(f"{name} in {' or '.join(modules)}")


if not TYPE_CHECKING:

    def __getattr__(name):
        """Import a name of Airflow from where this version has it, and only once it is needed."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return _import_first(name)


def retry_policy_types() -> tuple[Any, Any]:
    """Return Airflow's ``RetryPolicy`` and ``RetryDecision``.

    :raises ImportError: below Airflow 3.3.
    """
    if not is_at_least(3, 3):
        raise ImportError(f"AixplainRetryPolicy needs Airflow 3.3 or later; this is Airflow {airflow.__version__}")
    return _import_first("RetryPolicy", "airflow.sdk"), _import_first("RetryDecision", "airflow.sdk")


def worker_stats() -> Any:
    """Return the Stats that Airflow sets up on workers."""
    return _import_first("Stats", "airflow.sdk.observability.stats", "airflow.stats")


def triggerer_stats() -> Any:
    """Return the Stats that Airflow sets up in triggerers; in Airflow 3.3 they are not those of its SDK."""
    return _import_first("Stats", "airflow.observability.stats", "airflow.stats")


@lru_cache(1)
def deserializer_modules() -> tuple[str, ...]:
    """Return the prefixes of the modules that create objects from serialized data."""
    for module in _DESERIALIZERS if is_at_least(3, 3) else _DESERIALIZERS[:1]:
        if find_spec(module) is None:
            raise UnsupportedAirflowError(f"module {module}")
    return _DESERIALIZERS


# Tasks and their context


def running_task(context: Mapping[str, Any]) -> BaseOperator | None:
    """Return the task whose execution a context belongs to; None for the context of a unit test."""
    task_instance = context.get("ti")
    task = require(task_instance, "task") if _is_of_airflow(task_instance) else getattr(task_instance, "task", None)
    return task if isinstance(task, _import_first("BaseOperator")) else None


def task_state_store(context: Mapping[str, Any]) -> Any:
    """Return the store of a task's state; None below Airflow 3.3 and in a unit test."""
    if is_at_least(3, 3) and "task_state_store" not in context and _is_of_airflow(context.get("ti")):
        raise UnsupportedAirflowError("task_state_store in a task's context")
    return context.get("task_state_store")


async def read_connection(hook: BaseHook, conn_id: str, read: Callable[[Connection], T]) -> T:
    """Read a Connection without blocking the event loop.

    Below Airflow 3.1 a thread does so, the fields included: as Airflow 3.0 masks their secrets, it sends a message to
    the triggerer, which fails in the thread of the event loop.
    """
    if is_at_least(3, 1):
        return read(await hook.aget_connection(conn_id))
    from asgiref.sync import sync_to_async

    return await sync_to_async(lambda: read(hook.get_connection(conn_id)))()


def try_number(task_instance: Any) -> int:
    """Return the number of a task's try; 1 in a unit test."""
    if _is_of_airflow(task_instance):
        return int(require(task_instance, "try_number"))
    number = getattr(task_instance, "try_number", 1)
    return number if isinstance(number, int) else 1


def max_tries(task_instance: Any) -> int | None:
    """Return how many tries a task may have: a clear raises it, a retry does not. None without a task instance."""
    return None if task_instance is None else require(task_instance, "max_tries")


def has_earlier_result(task_instance: Any) -> bool | None:
    """Return whether an earlier try has left a result, which Airflow deletes when this try starts (Airflow 3.3).

    None if it has left no XCom at all.
    """
    started = None if task_instance is None else require(task_instance, "_ti_context_from_server")
    keys = None if started is None else require(started, "xcom_keys_to_clear")
    return RETURN_KEY in keys if keys else None


def xcom_address(task_instance: Any) -> dict[str, Any]:
    """Return what names a task instance to Airflow's XComs."""
    return {name: require(task_instance, name) for name in ("dag_id", "task_id", "run_id", "map_index")}


def check_rendering(kind: type) -> None:
    """Check that Airflow renders the templates of a class by the method that this provider overrides."""
    if not any("_do_render_template_fields" in vars(base) for base in kind.__mro__ if _is_of_airflow(base)):
        raise UnsupportedAirflowError(f"_do_render_template_fields in the bases of {kind.__qualname__}")


def pre_execute_hook(task: BaseOperator) -> Any:
    """Return a task's argument ``pre_execute``."""
    return require(task, "_pre_execute_hook")


def post_execute_hook(task: BaseOperator) -> Any:
    """Return a task's argument ``post_execute``."""
    return require(task, "_post_execute_hook")


def is_mapped_instance(task: BaseOperator) -> bool:
    """Return whether a task is an instance of a mapped task."""
    return bool(require(task, "_BaseOperator__from_mapped"))


def returns_dag_result(task: BaseOperator) -> bool:
    """Return whether a task's result is that of its DAG (Airflow 3.3)."""
    return is_at_least(3, 3) and bool(require(task, "returns_dag_result"))


def listeners(event: str) -> list[Any]:
    """Return the listeners for an event, such as ``on_task_instance_success``."""
    manager = _import_first("get_listener_manager", "airflow.sdk.listener", "airflow.listeners.listener")()
    implementations: list[Any] = require(require(manager, "hook"), event).get_hookimpls()
    return implementations


def check_start_trigger() -> None:
    """Check that Airflow's tasks have the attributes that name the trigger of their start."""
    for name in ("start_from_trigger", "start_trigger_args"):
        require(_import_first("BaseOperator"), name)


def stores_links() -> bool:
    """Return whether Airflow stores the URL of a task's link on the worker (Airflow 3)."""
    return is_at_least(3, 0) and require(_import_first("BaseOperatorLink"), "xcom_key") is not None


# Triggers


def can_push_xcoms() -> bool:
    """Return whether a trigger can push XComs (Airflow 3.3)."""
    if not is_at_least(3, 3):
        return False
    xcom = _import_first("XCom")
    return all(require(xcom, name) for name in ("aset", "aget_one", "delete"))


def is_inline(trigger: Any) -> bool:
    """Return whether ``dag.test()`` runs a trigger in its task's process, without scheduler and triggerer.

    A triggerer sets the id and the task instance of every trigger that it runs; ``dag.test()`` sets neither.
    """
    return require(trigger, "trigger_id") is None and require(trigger, "task_instance") is None


def worker_release_delay() -> float:
    """Return the seconds after a deferral within which the worker may still report the end of its process.

    Airflow 3 fails a task that is queued again before that report ("finished with state success, but the task
    instance's state attribute is queued"), and a worker reports only every ``[workers] min_heartbeat_interval``. Of 40
    runs of 2 s that Airflow 3.3.2 resumed at once, 12 were lost in that way, and billed.
    """
    if not is_at_least(3, 0):
        return 0.0
    interval: float = _import_first("conf").getfloat("workers", "min_heartbeat_interval", fallback=-1.0)
    if interval < 0:
        raise UnsupportedAirflowError("option min_heartbeat_interval in section workers of its configuration")
    return interval + 1 if interval else 0.0


def _is_of_airflow(value: Any) -> bool:
    kind = value if isinstance(value, type) else type(value)
    module = kind.__module__
    return module.partition(".")[0] == "airflow" and not module.startswith("airflow.providers")


# The page in Airflow's UI, from Airflow 3.1 on


@lru_cache
def table(name: str) -> Any:
    """Return a table of Airflow's database, such as ``dag_run``."""
    require(importlib.import_module("airflow.models"), "import_all_models")()
    tables = _import_first("Base", "airflow.models.base").metadata.tables
    if name not in tables:
        raise UnsupportedAirflowError(f"table {name} in its database")
    return tables[name]


def database_session() -> Any:
    """Return a context manager with a session on Airflow's database, in the API server."""
    return _import_first("create_session", "airflow.utils.session")(scoped=False)


def current_user() -> Any:
    """Return FastAPI's dependency for the user of Airflow's session, which answers 401 without one."""
    return _import_first("get_user", "airflow.api_fastapi.core_api.security")


def readable_dag_ids(user: Any, session: Any) -> set[str]:
    """Return the DAGs that a user may read."""
    manager = _import_first("get_auth_manager", "airflow.api_fastapi.app")()
    readable: set[str] = require(manager, "get_authorized_dag_ids")(user=user, session=session)
    return readable
