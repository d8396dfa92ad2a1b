"""Where a task starts and finishes: on a worker, or in the triggerer if ``workerless/`` allows it.

No other module imports ``workerless/``. Without that folder, ``PLACEMENT`` is ``WorkerPlacement()``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_aixplain.workerless.placement import TriggererPlacement

if TYPE_CHECKING:
    from airflow.triggers.base import TriggerEvent


class Placement(Protocol):
    """The decisions that operators and triggers request."""

    def reason_not_start(self, task: Any) -> str | None:
        """Return what would be lost if a trigger started a task; None if nothing would."""

    def reason_not_end(self, task: Any) -> str | None:
        """Return what would be lost if a trigger finished a task; None if nothing would."""

    def start_trigger_args(self, task: Any) -> Any:
        """Return Airflow's ``StartTriggerArgs`` of the trigger that starts a task; None if a worker starts it."""

    async def finish(self, trigger: Any, response: dict[str, Any]) -> TriggerEvent | None:
        """Push a task's XComs and return the event that finishes the task; None if a worker has to finish it.

        :param trigger: an :class:`~airflow_provider_aixplain.triggers.aixplain.AixplainModelRunTrigger`.
        :param response: the ModelResponse of a run that has succeeded, as a dict.
        """


class WorkerPlacement:
    """Every task starts and finishes on a worker."""

    def reason_not_start(self, task: Any) -> str | None:
        """Return that a trigger can start no task."""
        return "the whole task, as workerless/ is not installed"

    def reason_not_end(self, task: Any) -> str | None:
        """Return that a trigger can finish no task."""
        return self.reason_not_start(task)

    def start_trigger_args(self, task: Any) -> Any:
        """Return None: a worker starts the task."""
        return None

    async def finish(self, trigger: Any, response: dict[str, Any]) -> TriggerEvent | None:
        """Return None: a worker finishes the task."""
        return None


PLACEMENT: Placement = TriggererPlacement()
