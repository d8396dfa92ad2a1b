"""What operators and triggers ask about tasks that start or finish in the triggerer."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from airflow_provider_aixplain import compat
from airflow_provider_aixplain.observability.metrics import count_end
from airflow_provider_aixplain.workerless.eligibility import (
    reason_not_end_from_trigger,
    reason_not_start_from_trigger,
)
from airflow_provider_aixplain.workerless.start_settings import StartSettings, with_xcom_references
from airflow_provider_aixplain.workerless.xcom_store import TooManyPushes, XComIdempotencyStore

if TYPE_CHECKING:
    from airflow.triggers.base import TriggerEvent

START_TRIGGER = "airflow_provider_aixplain.workerless.start_trigger.AixplainModelStartTrigger"


class TriggererPlacement:
    """Tasks start and finish in the triggerer if they ask for it and lose nothing."""

    reason_not_start = staticmethod(reason_not_start_from_trigger)
    reason_not_end = staticmethod(reason_not_end_from_trigger)

    def start_trigger_args(self, task: Any) -> Any:
        """Return Airflow's ``StartTriggerArgs`` of the trigger that starts a task; None if a worker starts it."""
        if not task.start_from_trigger or self.reason_not_start(task):
            return None
        from airflow.triggers.base import StartTriggerArgs

        settings = StartSettings(
            **task.run_settings().to_dict(),
            data=task.data,
            parameters=task.parameters,
            name=task.name,
            durable=task.durable,
            on_orphaned_submission=task.on_orphaned_submission,
            reason_not_end_from_trigger=self.reason_not_end(task) if task.ends_from_trigger else None,
        )
        return StartTriggerArgs(
            trigger_cls=START_TRIGGER,
            trigger_kwargs={name: with_xcom_references(value) for name, value in settings.to_dict().items()},
            next_method="resume_from_trigger",
        )

    async def finish(
        self,
        trigger: Any,
        response: dict[str, Any],
        more_fields: Mapping[str, Any] = MappingProxyType({}),
        store: XComIdempotencyStore | None = None,
    ) -> TriggerEvent | None:
        """Push a task's XComs and return the event that finishes the task; None if a worker has to finish it.

        :param trigger: an :class:`~airflow_provider_aixplain.triggers.aixplain.AixplainModelRunTrigger`.
        :param response: the ModelResponse of a run that has succeeded, as a dict.
        :param more_fields: XComs to push beside the fields of the response.
        :param store: pushes the XComs; default: that of the trigger's task instance.
        """
        from airflow.triggers.base import TaskSuccessEvent

        settings = trigger.settings
        if compat.is_inline(trigger):
            trigger.log.info(
                "No triggerer runs this trigger, so the task finishes in its own process: end_from_trigger is ignored"
            )
            return None
        try:
            # TaskSuccessEvent could carry the XComs, but Airflow 3.3.2 stores such XComs as JSON strings, and commits
            # each of them separately after the task has finished.
            if settings.do_xcom_push:
                fields = {**response, **more_fields} if settings.multiple_outputs else {}
                await (store or XComIdempotencyStore(trigger.task_instance)).push(response, fields)
        except TooManyPushes as error:
            trigger.log.info("A worker finishes the task, which is faster now: %s", error)
            return None
        except Exception as error:
            trigger.log.warning(
                "A worker finishes the task, as pushing its XComs failed: %s: %s", type(error).__name__, error
            )
            return None
        count_end(settings.model_id, "success", response, compat.triggerer_stats)
        return TaskSuccessEvent()
