"""Decides which tasks start or finish in the triggerer, and finishes them; used by operators and triggers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_aixplain import compat
from airflow_provider_aixplain.observability.links import ASSET_LINK
from airflow_provider_aixplain.observability.metrics import RunMetrics
from airflow_provider_aixplain.protocol.usage import USAGE_KEY, add_usage, run_usage
from airflow_provider_aixplain.protocol.values import fields_with_values
from airflow_provider_aixplain.submission import seconds_since
from airflow_provider_aixplain.workerless.eligibility import (
    reason_not_end_from_trigger,
    reason_not_start_from_trigger,
)
from airflow_provider_aixplain.workerless.start_settings import StartSettings, insert_references
from airflow_provider_aixplain.workerless.xcom_store import TooManyPushes, XComIdempotencyStore

if TYPE_CHECKING:
    from airflow.triggers.base import TriggerEvent

START_TRIGGER = "airflow_provider_aixplain.workerless.start_trigger.AixplainModelStartTrigger"


class TriggererPlacement:
    """Tasks start and finish in the triggerer if their arguments request it and nothing would be lost."""

    reason_not_start = staticmethod(reason_not_start_from_trigger)
    reason_not_end = staticmethod(reason_not_end_from_trigger)

    def start_trigger_args(self, task: Any) -> Any:
        """Return Airflow's ``StartTriggerArgs`` of the trigger that starts a task; None if a worker starts it."""
        if not task.start_from_trigger or self.reason_not_start(task):
            return None
        from airflow.triggers.base import StartTriggerArgs

        reason = self.reason_not_end(task) if task.ends_from_trigger else None
        settings = StartSettings(
            **task.run_settings(end_from_trigger=task.ends_from_trigger and not reason).to_dict(),
            run_input=vars(task.run_input()),
            name=task.name,
            durable=task.durable,
            max_credits=task.max_credits,
            on_orphaned_submission=task.on_orphaned_submission,
            reason_not_end_from_trigger=reason,
        )
        return StartTriggerArgs(
            trigger_cls=START_TRIGGER,
            trigger_kwargs={name: insert_references(value) for name, value in settings.to_dict().items()},
            next_method="resume_from_trigger",
        )

    async def finish(self, trigger: Any, response: dict[str, Any]) -> TriggerEvent | None:
        """Push a task's XComs and return the event that finishes the task; None if a worker has to finish it.

        :param trigger: an :class:`~airflow_provider_aixplain.triggers.aixplain.AixplainModelRunTrigger`.
        :param response: the ModelResponse of a run that has succeeded, as a dict.
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
            result = settings.asset.result(response) if settings.do_xcom_push else None
            fields = fields_with_values(result) if result and settings.multiple_outputs else {}
            if isinstance(settings, StartSettings):
                store: XComIdempotencyStore = trigger.store
                page, earlier = (await trigger.hook.aplatform()).page_url(settings.asset), await store.usage()
                if fields:
                    fields[ASSET_LINK.xcom_key] = page  # no worker stores the link
            else:
                store = XComIdempotencyStore(trigger.task_instance)
                page, earlier = settings.asset_page, settings.usage
            run_id = settings.poll_url or str(settings.submitted_at)  # without a poll URL, as the record identifies it
            usage = run_usage("success", response, run_id, seconds_since(str(settings.submitted_at)))
            fields[USAGE_KEY] = add_usage(earlier, usage, settings.asset.or_reported(response), page)
            await store.push(result, fields)
        except TooManyPushes as error:
            trigger.log.info("A worker finishes the task, which is faster now: %s", error)
            return None
        except Exception as error:
            trigger.log.warning(
                "A worker finishes the task, as pushing its XComs failed: %s: %s", type(error).__name__, error
            )
            return None
        RunMetrics().add_end(settings.asset, "success", response).send(trigger.task_instance, compat.triggerer_stats)
        return TaskSuccessEvent()
