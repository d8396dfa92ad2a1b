"""The settings of a trigger that starts a task, and the references in them to the output of other tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from airflow_provider_aixplain.compat import RETURN_KEY
from airflow_provider_aixplain.exceptions import AixplainInputError
from airflow_provider_aixplain.protocol.agent import input_type
from airflow_provider_aixplain.run_settings import RunSettings

if TYPE_CHECKING:
    from typing_extensions import Self

    from airflow_provider_aixplain.workerless.xcom_store import XComIdempotencyStore

_XCOM = "__aixplain_xcom__"


@dataclass(frozen=True, kw_only=True)
class StartSettings(RunSettings):
    """What a trigger needs to submit a run and wait for it. ``timeout`` counts from the start of the try.

    :param run_input: the fields of ``ModelInput`` or ``AgentInput``, by name.
    :param name: the name of the run in the log; default: the task's id.
    :param durable: whether to resume the run of an earlier try; a trigger that is started again always does.
    :param max_credits: what all tries of the task may cost together, in credits; None: no limit.
    :param on_orphaned_submission: what to do if it is unknown whether an earlier submission was accepted: ``resubmit``,
        or ``fail``.
    :param reason_not_end_from_trigger: for the log: what would be lost if the trigger finished the task, if anything.
    """

    run_input: Mapping[str, Any]
    name: str | None = None
    durable: bool = True
    max_credits: float | None = None
    on_orphaned_submission: str = "resubmit"
    reason_not_end_from_trigger: str | None = None

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Self:
        """Return what :meth:`to_dict` has stored."""
        names = {field.name for field in fields(cls)}
        settings = {name: value for name, value in stored.items() if name in names}
        rest = {name: value for name, value in stored.items() if name not in names}
        kind = input_type(stored)
        return cls(**settings, run_input=vars(kind(stored.get(kind.id_name, ""), **rest)))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name.

        Those of the input are at the same level as the others, because Airflow renders only attributes of a trigger.
        """
        stored = super().to_dict()
        run_input: dict[str, Any] = stored.pop("run_input")
        return {**run_input, **stored}


def xcom_reference(task_id: str, key: str, *, is_required: bool) -> dict[str, Any]:
    """Return the reference to another task's XCom in :class:`StartSettings`.

    :param task_id: of a task that is not mapped, in the same DAG.
    :param key: the XCom's key.
    :param is_required: whether a missing XCom is an error.
    """
    return {_XCOM: {"task_id": task_id, "key": key, "is_required": is_required}}


def insert_references(value: Any) -> Any:
    """Return an operator's argument, with the output of other tasks replaced by references."""
    if hasattr(value, "resolve"):
        is_required = value.key != RETURN_KEY and not value.operator.multiple_outputs
        return xcom_reference(value.operator.task_id, value.key, is_required=is_required)
    if isinstance(value, Mapping):
        return {key: insert_references(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [insert_references(item) for item in value]
    return value


async def resolve_references(value: Any, store: XComIdempotencyStore) -> Any:
    """Return a setting, with references replaced by the XComs of other tasks.

    :raises AixplainInputError: if a required XCom does not exist.
    """
    if isinstance(value, Mapping) and set(value) == {_XCOM}:
        reference = value[_XCOM]
        pulled = await store.pull(reference["task_id"], reference["key"])
        if pulled is None and reference["is_required"]:
            raise AixplainInputError(f"Task {reference['task_id']!r} has no XCom {reference['key']!r}")
        return pulled
    if isinstance(value, Mapping):
        return {key: await resolve_references(item, store) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [await resolve_references(item, store) for item in value]
    return value
