"""The sensor: waits for a run that another task has submitted."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_aixplain.compat import AirflowSensorTimeout, BaseSensorOperator, PokeReturnValue
from airflow_provider_aixplain.exceptions import (
    AixplainAwaitedRunFailed,
    AixplainError,
    AixplainRunFailed,
    AixplainRunTimeout,
    translate_protocol_errors,
)
from airflow_provider_aixplain.observability.metrics import RunMetrics
from airflow_provider_aixplain.operators.arguments import deferrable_or_default, one_of, refuse_nested
from airflow_provider_aixplain.operators.base import DeferrableRunBaseOperator
from airflow_provider_aixplain.protocol import wire
from airflow_provider_aixplain.protocol.assets import Asset, make_asset
from airflow_provider_aixplain.protocol.wait import MAX_DURATION, RETRY_BUDGET, Wait, to_seconds

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_aixplain.protocol.wait import Outcome


class AixplainModelRunSensor(DeferrableRunBaseOperator, BaseSensorOperator):
    """Waits for a run that another task has submitted, and returns its response.

    It polls once on the worker, and then waits in the triggerer. It returns and pushes the same as
    :class:`~airflow_provider_aixplain.operators.aixplain.AixplainRunModelOperator`.

    :param poll_url: the ``url`` of a submission's response, on an origin that the Connection trusts. (templated)
    :param aixplain_conn_id: the id of a Connection of type ``aixplain``. (templated)
    :param model_id: the model's id, for the task's link to its page, for metrics and for ``polling="adaptive"``;
        default: none. (templated)
    :param agent_id: the agent's id, if the run is an agent's: the result then has the fields of
        :class:`~airflow_provider_aixplain.operators.aixplain.AixplainRunAgentOperator`. (templated)
    :param deferrable: if False, the task pokes on the worker, by ``mode`` and ``poke_interval``; default:
        ``[aixplain] deferrable`` of Airflow's configuration, which is True unless set.
    :param wait_time: seconds before the second poll in the triggerer, at least 0.2; increases by 10 % per poll up to
        60.
    :param timeout: how long to wait from the start of the task, in seconds or as a timedelta; default: Airflow's
        ``[sensors] default_timeout``, seven days unless set. The run itself continues. As with all sensors, no retry
        follows.
    :param soft_fail: whether to skip the task instead of failing it, if the timeout has passed, the run has failed or
        the platform refuses the polls.
    :param end_from_trigger: whether the trigger finishes the task when the run has succeeded, as the operator's does
        (Airflow 3.3 and later).
    :param polling: ``backoff`` or ``adaptive``, as the operator's.
    :param multiple_outputs: whether each field of the response is an XCom of its own.
    :raises AixplainInputError: if an argument is invalid.
    """

    template_fields: Sequence[str] = ("poll_url", "aixplain_conn_id", "model_id", "agent_id")
    ui_color = "#e5f0ff"

    def __init__(
        self,
        *,
        poll_url: str,
        aixplain_conn_id: str = "aixplain_default",
        model_id: str = "",
        agent_id: str = "",
        deferrable: bool | None = None,
        wait_time: float | timedelta = 0.5,
        end_from_trigger: bool = False,
        polling: Literal["backoff", "adaptive"] = "backoff",
        multiple_outputs: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(multiple_outputs=multiple_outputs, **kwargs)
        self.poll_url = poll_url
        self.aixplain_conn_id = aixplain_conn_id
        self.model_id = model_id
        self.agent_id = agent_id
        self.deferrable = deferrable_or_default(deferrable)
        with translate_protocol_errors():
            self.wait_time = to_seconds("wait_time", wait_time)
        self.ends_from_trigger = end_from_trigger
        self.polling = one_of("polling", polling, "backoff", "adaptive")

    @property
    def asset(self) -> Asset:
        """The model or agent whose run is awaited."""
        return make_asset(self.model_id, self.agent_id)

    def execute(self, context: Context) -> Any:
        """Poll once, and defer if the run has not finished.

        :return: the response as a dict.
        :raises AixplainInputError: if it would defer, or reschedule itself, within another task.
        """
        refuse_nested(self, context, releases_worker=self._releases_worker, remedy="deferrable=False and mode='poke'")
        self.check_templates("poll_url")
        with translate_protocol_errors():
            wire.poll_request(self.poll_url)
        self.hook.platform.check_trusted(self.poll_url)
        self.set_link(context)
        if not self.deferrable:
            return super().execute(context)
        outcome = self._poll(context)
        if outcome is None:
            self._defer(self.run_settings(poll_url=self.poll_url, timeout=min(self.longest_wait, MAX_DURATION)))
        # The sensor's method applies soft_fail; the override in DeferrableRunBaseOperator would omit the link.
        return super(DeferrableRunBaseOperator, self).resume_execution(
            "execute_complete", {"event": outcome.to_event(self.poll_url)}, context
        )

    def poke(self, context: Context) -> PokeReturnValue | bool:
        """Return whether the run has finished.

        :return: if it has, with the response as a dict as the value for XCom.
        """
        outcome = self._poll(context)
        if outcome is None:
            return False
        return PokeReturnValue(is_done=True, xcom_value=self.execute_complete(context, outcome.to_event(self.poll_url)))

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Return the result of the run, or raise its error.

        :raises AixplainAwaitedRunFailed: if the run failed; a retry would find the same.
        :raises AirflowSensorTimeout: if the run did not finish in time; Airflow does not retry a sensor then.
        """
        try:
            return super().execute_complete(context, event)
        except AixplainError as error:
            if self.soft_fail or getattr(self, "never_fail", False):
                self.log.info("%s", error)  # Airflow does not log why it skips a task
            if isinstance(error, AixplainRunFailed):
                raise AixplainAwaitedRunFailed(str(error)) from None
            if isinstance(error, AixplainRunTimeout):
                raise AirflowSensorTimeout(str(error)) from None
            raise

    @property
    def _releases_worker(self) -> bool:
        return self.deferrable or self.reschedule

    @cached_property
    def _wait(self) -> tuple[Wait, float]:
        """The wait that judges this worker's polls, and the time when it began."""
        return Wait(self.wait_time, MAX_DURATION, RETRY_BUDGET), time.monotonic()

    def _poll(self, context: Context) -> Outcome | None:
        from airflow_provider_aixplain.client.blocking import MAX_POLL_TIMEOUT

        wait, started_at = self._wait
        response = self.hook.poll_tolerant(self.poll_url, self.run_name, MAX_POLL_TIMEOUT)
        elapsed = time.monotonic() - started_at
        outcome = wait.judge(response, elapsed)
        problem = self.hook.reload_credentials() if wait.is_denied and not outcome else ""
        self.hook.log_wait(wait, response, elapsed, self.run_name, problem)
        if outcome or not self._releases_worker:  # otherwise the process that polls next would log the steps again
            self.hook.log_steps(wait, response, self.run_name)
        if outcome:
            RunMetrics().add_wait(self.asset, outcome, wait.polls, elapsed).send(context.get("ti") or self)
        return outcome
