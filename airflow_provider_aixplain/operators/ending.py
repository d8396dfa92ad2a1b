"""Where a task may end: in its trigger, or on a worker that takes the result."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import BaseOperator, XCom, conf, get_listener_manager

HOOKS = ("post_execute", "take_event", "execute_complete")
"""What a worker calls when a run has succeeded."""


def needs_worker(task: BaseOperator, base: type[BaseOperator]) -> str | None:
    """Return what would be lost if a trigger ended a task, or None if nothing would.

    A trigger that ends its task pushes XComs and sets the task's state, and that is all.

    :param task: a task that succeeds.
    :param base: the class of operators whose own methods a trigger can do without.
    """
    listeners = get_listener_manager().hook.on_task_instance_success.get_hookimpls()
    overridden = [name for name in HOOKS if getattr(type(task), name) is not getattr(base, name)]
    backend = conf.get("core", "xcom_backend")
    has_backend = backend != conf.get_default_value("core", "xcom_backend")
    losses = {
        "the events of its outlets": task.outlets,
        "its on_success_callback": task.on_success_callback,
        "its post_execute": getattr(task, "_post_execute_hook", None),
        f"what its class does in {' and '.join(overridden)}": overridden,
        "its map_index_template": task.map_index_template,
        "its XComs, below Airflow 3.3": task.do_xcom_push and not hasattr(XCom, "aset"),
        "the result of its DAG": getattr(task, "returns_dag_result", False),
        "what tasks are mapped over": task.has_dag() and next(task.iter_mapped_dependants(), None),
        f"the XCom backend {backend}": task.do_xcom_push and has_backend,
        f"the listener {listeners[0].plugin_name if listeners else ''}": listeners,
    }
    return next((loss for loss, is_lost in losses.items() if is_lost), None)
