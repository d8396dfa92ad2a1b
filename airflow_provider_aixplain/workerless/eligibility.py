"""Which tasks a trigger can start or finish without losing something that only a worker does."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from airflow_provider_aixplain import compat
from airflow_provider_aixplain.compat import BaseOperator, conf
from airflow_provider_aixplain.files import Upload

CALLED_AT_START = (
    "pre_execute",
    "render_template_fields",
    "prepare_template",
    "execute",
    "hook",
    "run_name",
    "run_input",
    "_submit",
)
"""The methods that a worker calls when it starts a task. A trigger would ignore a subclass's override."""

CALLED_AT_END = ("post_execute", "resume_from_trigger", "execute_complete")
"""The methods that a worker calls when a run has succeeded. A trigger would ignore a subclass's override."""

_NO_DELIVERY_MARKER = "the record that its result was delivered, as it pushes no XComs"

BELOW_3_3 = "its XComs, below Airflow 3.3"

RENDERED = {
    *("params", "dag_run", "run_id", "var", "conn", "macros", "ds", "ds_nodash", "ts", "ts_nodash"),
    *("ts_nodash_with_tz", "logical_date", "data_interval_start", "data_interval_end"),
}
"""The names that Airflow 3.3.2's triggerer can render. It hangs on any other, such as ``ti.xcom_pull``."""


def reason_not_end_from_trigger(task: BaseOperator) -> str | None:
    """Return what would be lost if a trigger finished a task, or None if nothing would.

    A trigger can only push XComs and set the state.

    :param task: a task whose run succeeds.
    """
    return _first_loss(
        {
            "the events of its outlets": task.outlets,
            "its on_success_callback": task.on_success_callback,
            "its post_execute": compat.post_execute_hook(task),
            **_override_losses(task, CALLED_AT_END),
            "its map_index_template": task.map_index_template,
            "the check of its answer": getattr(task, "output_type", None),
            "its artifacts, which a worker downloads": getattr(task, "artifacts_path", None),
            "the result of its DAG": compat.returns_dag_result(task),
            "what tasks are mapped over": task.has_dag() and next(task.iter_mapped_dependants(), None),
            **_xcom_losses(),
            _NO_DELIVERY_MARKER: not task.do_xcom_push and getattr(task, "durable", False),
            **_listener_losses("on_task_instance_success"),
        }
    )


def reason_not_start_from_trigger(task: Any) -> str | None:
    """Return what would be lost if a trigger started a task, or None if nothing would.

    A trigger that starts its task renders the templates that the triggerer can render, and submits a run.

    :param task: a task that submits a run.
    """
    if not compat.can_push_xcoms():
        return BELOW_3_3
    compat.check_start_trigger()
    arguments = [task.name, task.aixplain_conn_id, *vars(task.run_input()).values()]
    return _first_loss(
        {
            "its stream, which a worker writes to the log": getattr(task, "stream", False),
            "its wait on a worker": not task.deferrable,
            "its end right after the submission": not task.wait_for_completion,
            "its function, which computes the input": hasattr(task, "python_callable"),
            "its pre_execute": compat.pre_execute_hook(task),
            "its on_execute_callback": task.on_execute_callback,
            **_override_losses(task, CALLED_AT_START),
            "its place among mapped tasks": compat.is_mapped_instance(task) or task.get_closest_mapped_task_group(),
            "the limits that count workers": task.pool != "default_pool"
            or task.max_active_tis_per_dag
            or task.max_active_tis_per_dagrun,
            "the place for its record, as it pushes no XComs": not task.do_xcom_push,
            **_xcom_losses(),
            "the files of its templates": task.template_ext,
            "its DAG's own Jinja settings": task.has_dag() and _has_own_jinja(task),
            **{f"its input: {reason}": True for value in arguments for reason in _unsupported_parts(value)},
            **_listener_losses("on_task_instance_running"),
        }
    )


def _unsupported_parts(value: Any) -> Iterator[str]:
    """Yield the parts of an argument that a trigger cannot read: not JSON, a template or the XCom of one task."""
    if isinstance(value, str):
        yield from _unsupported_template_names(value)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str) or key.startswith("__"):
                yield f"the key {key!r}"
            yield from _unsupported_parts(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _unsupported_parts(item)
    elif isinstance(value, Upload):
        yield "a file to upload"
    elif hasattr(value, "resolve") and hasattr(value, "operator"):
        if not hasattr(value, "key") or value.operator.is_mapped or value.operator.get_closest_mapped_task_group():
            yield "XComs of mapped tasks"
    elif type(value) not in (int, float, bool, type(None)) or (isinstance(value, float) and not math.isfinite(value)):
        yield f"a {type(value).__name__} that JSON does not hold"


def _unsupported_template_names(template: str) -> Iterator[str]:
    """Yield the names in a template that the triggerer cannot render."""
    if "{" not in template:
        return
    from jinja2 import TemplateError, meta
    from jinja2.sandbox import SandboxedEnvironment

    try:
        names = meta.find_undeclared_variables(SandboxedEnvironment().parse(template))
    except TemplateError:
        return  # the triggerer raises it too, before it sends anything
    for name in sorted(names - RENDERED):
        yield f"{name} in a template"


def _has_own_jinja(task: BaseOperator) -> Any:
    dag = task.dag
    return (
        dag.user_defined_macros
        or dag.user_defined_filters
        or dag.jinja_environment_kwargs
        or dag.render_template_as_native_obj
        or task.render_template_as_native_obj
        or dag.template_undefined.__name__ != "StrictUndefined"
    )


def _override_losses(task: BaseOperator, names: tuple[str, ...]) -> dict[str, Any]:
    base = _provided_class(task)
    overridden = [name for name in names if getattr(type(task), name) is not getattr(base, name)]
    return {f"what its class does in {' and '.join(overridden)}": overridden}


def _provided_class(task: BaseOperator) -> type[BaseOperator]:
    """Return this provider's class of a task, without what a user's subclass adds."""
    package = __name__.partition(".")[0]
    return next(kind for kind in type(task).__mro__ if kind.__module__.partition(".")[0] == package)


def _xcom_losses() -> dict[str, Any]:
    backend = conf.get("core", "xcom_backend")
    return {
        BELOW_3_3: not compat.can_push_xcoms(),
        f"the XCom backend {backend}": backend != conf.get_default_value("core", "xcom_backend"),
    }


def _listener_losses(event: str) -> dict[str, Any]:
    listeners = compat.listeners(event)
    return {f"the listener {listeners[0].plugin_name if listeners else ''}": listeners}


def _first_loss(losses: Mapping[str, Any]) -> str | None:
    return next((loss for loss, is_lost in losses.items() if is_lost), None)
