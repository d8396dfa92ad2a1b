"""Which visits of a worker a task can do without: the first if its trigger starts it, the last if that ends it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from airflow.providers.common.compat.sdk import BaseOperator, XCom, conf, get_listener_manager

from airflow_provider_aixplain.files import Upload
from airflow_provider_aixplain.submission import RETURN_KEY

AT_START = ("pre_execute", "render_template_fields", "prepare_template", "execute", "hook", "run_name", "_submit")
"""What a worker calls when it starts a task."""

AT_END = ("post_execute", "resume_from_trigger", "execute_complete")
"""What a worker calls when a run has succeeded."""

_NO_DELIVERY_MARKER = "the mark of its delivery, as it pushes no XComs"

BELOW_3_3 = "its XComs, below Airflow 3.3"

RENDERED = {
    *("params", "dag_run", "run_id", "var", "conn", "macros", "ds", "ds_nodash", "ts", "ts_nodash"),
    *("ts_nodash_with_tz", "logical_date", "data_interval_start", "data_interval_end"),
}
"""What Airflow 3.3.2's triggerer can render. It never answers what asks for more, as ``ti.xcom_pull`` does."""


def reason_not_end_from_trigger(task: BaseOperator) -> str | None:
    """Return what would be lost if a trigger ended a task, or None if nothing would.

    A trigger that ends its task pushes XComs and sets the task's state, and that is all.

    :param task: a task that succeeds.
    """
    return _first(
        {
            "the events of its outlets": task.outlets,
            "its on_success_callback": task.on_success_callback,
            "its post_execute": getattr(task, "_post_execute_hook", None),
            **_overridden(task, AT_END),
            "its map_index_template": task.map_index_template,
            "the result of its DAG": getattr(task, "returns_dag_result", False),
            "what tasks are mapped over": task.has_dag() and next(task.iter_mapped_dependants(), None),
            **(_xcoms(task) if task.do_xcom_push else {_NO_DELIVERY_MARKER: getattr(task, "durable", False)}),
            **_listener("on_task_instance_success"),
        }
    )


def reason_not_start_from_trigger(task: Any) -> str | None:
    """Return what would be lost if a trigger started a task, or None if nothing would.

    A trigger that starts its task renders what templates the triggerer can, and submits a run.

    :param task: a task that runs a model.
    """
    if not hasattr(XCom, "aset"):
        return BELOW_3_3
    given = [getattr(task, name) for name in _provided(task).template_fields]
    return _first(
        {
            "its text, which a worker writes to the log": task.stream,
            "its wait, which is to be on a worker": not task.deferrable,
            "its end, which is to be at once": not task.wait_for_completion,
            "its function, which makes the input": hasattr(task, "python_callable"),
            "its pre_execute": getattr(task, "_pre_execute_hook", None),
            "its on_execute_callback": task.on_execute_callback,
            **_overridden(task, AT_START),
            "its place among mapped tasks": getattr(task, "_BaseOperator__from_mapped", False)
            or task.get_closest_mapped_task_group(),
            "the limits that count workers": task.pool != "default_pool"
            or task.max_active_tis_per_dag
            or task.max_active_tis_per_dagrun,
            "the place for its record, as it pushes no XComs": not task.do_xcom_push,
            **_xcoms(task),
            "the files of its templates": task.template_ext,
            "its DAG's own Jinja settings": task.has_dag() and _has_own_jinja(task),
            **{f"its input: {reason}": True for value in given for reason in _unserializable_parts(value)},
            **_listener("on_task_instance_running"),
        }
    )


def with_xcom_references(value: Any) -> Any:
    """Return an argument as a trigger that starts a task takes it: with references for the output of other tasks."""
    if hasattr(value, "resolve"):
        is_required = value.key != RETURN_KEY and not value.operator.multiple_outputs
        from airflow_provider_aixplain.triggers.aixplain import xcom_reference

        return xcom_reference(value.operator.task_id, value.key, is_required=is_required)
    if isinstance(value, Mapping):
        return {key: with_xcom_references(held) for key, held in value.items()}
    if isinstance(value, (list, tuple)):
        return [with_xcom_references(held) for held in value]
    return value


def _unserializable_parts(value: Any) -> Iterator[str]:
    """Tell what of an argument a trigger that starts a task cannot take: anything but JSON and plain XComs."""
    if isinstance(value, str):
        yield from _unsupported_template_names(value)
    elif isinstance(value, Mapping):
        for key, held in value.items():
            if not isinstance(key, str) or key.startswith("__"):
                yield f"the key {key!r}"
            yield from _unserializable_parts(held)
    elif isinstance(value, (list, tuple)):
        for held in value:
            yield from _unserializable_parts(held)
    elif isinstance(value, Upload):
        yield "a file to upload"
    elif hasattr(value, "resolve") and hasattr(value, "operator"):
        if not hasattr(value, "key") or value.operator.is_mapped or value.operator.get_closest_mapped_task_group():
            yield "XComs of mapped tasks"
    elif type(value) not in (int, float, bool, type(None)) or (isinstance(value, float) and not math.isfinite(value)):
        yield f"a {type(value).__name__} that JSON does not hold"


def _unsupported_template_names(text: str) -> Iterator[str]:
    """Tell what of a template the triggerer cannot render."""
    if "{" not in text:
        return
    from jinja2 import TemplateError, meta
    from jinja2.sandbox import SandboxedEnvironment

    try:
        names = meta.find_undeclared_variables(SandboxedEnvironment().parse(text))
    except TemplateError:
        return  # the triggerer raises it again, before anything is sent
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


def _overridden(task: BaseOperator, names: tuple[str, ...]) -> dict[str, Any]:
    base = _provided(task)
    overridden = [name for name in names if getattr(type(task), name) is not getattr(base, name)]
    return {f"what its class does in {' and '.join(overridden)}": overridden}


def _provided(task: BaseOperator) -> type[BaseOperator]:
    """Return the class of a task that this provider knows, without what a subclass adds."""
    package = __name__.partition(".")[0]
    return next(kind for kind in type(task).__mro__ if kind.__module__.partition(".")[0] == package)


def _xcoms(task: BaseOperator) -> dict[str, Any]:
    backend = conf.get("core", "xcom_backend")
    return {
        BELOW_3_3: not hasattr(XCom, "aset"),
        f"the XCom backend {backend}": backend != conf.get_default_value("core", "xcom_backend"),
    }


def _listener(event: str) -> dict[str, Any]:
    listeners = getattr(get_listener_manager().hook, event).get_hookimpls()
    return {f"the listener {listeners[0].plugin_name if listeners else ''}": listeners}


def _first(losses: Mapping[str, Any]) -> str | None:
    return next((loss for loss, is_lost in losses.items() if is_lost), None)
