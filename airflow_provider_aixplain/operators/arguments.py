"""Checks that operators and sensors share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.providers.common.compat.sdk import BaseOperator, conf

from airflow_provider_aixplain.exceptions import AixplainInputError

RESUMED_WITHOUT_EVENT = (
    "The task was resumed without the event of its trigger, as when `airflow dags test` uses the database of a running"
    " scheduler: use another AIRFLOW_HOME for it"
)


def one_of(name: str, value: Any, *known: str) -> Any:
    """Return an argument that is one of some words.

    :param name: what to call it in an error.
    :raises AixplainInputError: if it is none of them.
    """
    if value not in known:
        raise AixplainInputError(f"{name} is {value!r}: use {' or '.join(known)}")
    return value


def deferrable_or_default(deferrable: bool | None) -> bool:
    """Return the argument ``deferrable``, or ``[aixplain] deferrable`` of Airflow's configuration if it is None."""
    return conf.getboolean("aixplain", "deferrable", fallback=True) if deferrable is None else deferrable


def is_nested(task: BaseOperator, context: Mapping[str, Any]) -> bool:
    """Return whether ``task.execute`` is called from within another task, such as a function of ``@task``.

    Copies of one task (mapped, or prepared for execution) are the same task. A context without a task instance, as in
    unit tests, is not another task's.

    :param context: what ``execute`` was given.
    """
    running = getattr(context.get("ti"), "task", None)
    if not isinstance(running, BaseOperator) or running is task:
        return False
    return running.task_id != task.task_id or type(running) is not type(task)


def refuse_nested(task: BaseOperator, context: Mapping[str, Any], *, gives_up_worker: bool, remedy: str) -> None:
    """Check that a task which gives up its worker runs as a task of its own: Airflow would resume the outer task.

    :param context: what ``execute`` was given.
    :param gives_up_worker: whether the task defers or reschedules itself.
    :param remedy: the arguments with which it does not.
    :raises AixplainInputError: if it is called from within another task.
    """
    if gives_up_worker and is_nested(task, context):
        raise AixplainInputError(
            f"{task.task_id}: {type(task).__name__} is called within task {context['ti'].task.task_id!r}, and cannot"
            f" defer there; nothing was sent. Make it a task of its own, give it {remedy}, or call AixplainHook instead"
        )
