"""Checks that operators and sensors share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_aixplain import compat
from airflow_provider_aixplain.compat import BaseOperator, conf
from airflow_provider_aixplain.exceptions import AixplainInputError

RESUMED_WITHOUT_EVENT = (
    "The task was resumed without the event of its trigger, as when `airflow dags test` uses the database of a running"
    " scheduler: use another AIRFLOW_HOME for it"
)


def one_of(name: str, value: Any, *choices: str) -> Any:
    """Return an argument that has to be one of some strings.

    :param name: the argument's name, for the error.
    :raises AixplainInputError: if it is none of them.
    """
    if value not in choices:
        raise AixplainInputError(f"{name} is {value!r}: use {' or '.join(choices)}")
    return value


def positive(name: str, value: Any, kind: Any = (int, float)) -> Any:
    """Return an argument that has to be a finite number above 0.

    :param name: the argument's name, for the error.
    :param kind: the types that it may have.
    :raises AixplainInputError: if it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, kind) or not 0 < value < float("inf"):
        raise AixplainInputError(f"{name} is {value!r}: give {'an integer' if kind is int else 'a number'} above 0")
    return value


def deferrable_or_default(deferrable: bool | None) -> bool:
    """Return the argument ``deferrable``, or ``[aixplain] deferrable`` of Airflow's configuration if it is None."""
    return conf.getboolean("aixplain", "deferrable", fallback=True) if deferrable is None else deferrable


def is_nested(task: BaseOperator, context: Mapping[str, Any]) -> bool:
    """Return whether ``task.execute`` is called from within another task, such as a function of ``@task``.

    Copies of one task (mapped, or prepared for execution) are the same task.

    :param context: the argument of ``execute``.
    """
    running = compat.running_task(context)
    if running is None or running is task:
        return False
    return running.task_id != task.task_id or type(running) is not type(task)


def refuse_nested(task: BaseOperator, context: Mapping[str, Any], *, releases_worker: bool, remedy: str) -> None:
    """Check that a task which releases its worker does not run within another task: Airflow would resume that one.

    :param context: the argument of ``execute``.
    :param releases_worker: whether the task defers or reschedules itself.
    :param remedy: the arguments with which it does neither, for the error.
    :raises AixplainInputError: if it is called from within another task.
    """
    if releases_worker and is_nested(task, context):
        outer = context["ti"].task.task_id
        raise AixplainInputError(
            f"{task.task_id}: {type(task).__name__} is called within task {outer!r}, and cannot defer there; nothing"
            f" was sent. Make it a task of its own, give it {remedy}, or call AixplainHook instead"
        )
