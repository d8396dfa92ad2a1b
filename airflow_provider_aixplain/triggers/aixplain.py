"""The triggers: wait for a run in the triggerer, off the worker; one of them submits it there too."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from airflow.providers.common.compat.sdk import conf
from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent

from airflow_provider_aixplain.exceptions import (
    AixplainError,
    AixplainInputError,
    AixplainPermanentError,
    submission_error,
    to_event,
    translate_protocol_errors,
)
from airflow_provider_aixplain.hooks.aixplain import AixplainHook
from airflow_provider_aixplain.observability.links import MODEL_LINK
from airflow_provider_aixplain.observability.metrics import count_end, count_wait, triggerer_stats
from airflow_provider_aixplain.protocol.adaptive import RunTimes
from airflow_provider_aixplain.protocol.response import FIELDS, ModelResponse, ResponseStatus, format_cost
from airflow_provider_aixplain.protocol.values import to_printable
from airflow_provider_aixplain.protocol.wait import MAX_DURATION, RETRY_BUDGET, Outcome, Wait
from airflow_provider_aixplain.submission import (
    CLEARED,
    IN_FLIGHT_MARGIN,
    NOT_FOUND_ATTEMPTS,
    NOT_FOUND_DELAY,
    NOT_REMEMBERED,
    IdempotencyRecord,
    XComBackpressure,
    XComIdempotencyStore,
    is_not_found,
    is_rejected,
    now,
    seconds_since,
)
from airflow_provider_aixplain.templates import TemplateChecks
from airflow_provider_aixplain.triggers.worker_release import runs_inline, wait_for_worker_release

LARGEST_RESPONSE = 128 * 1024
"""Bytes of an answer that the triggerer reads: all its other triggers stand still while one of 10 MB is parsed, for a
tenth of a second (one text) to more than a whole one (a list of objects)."""


class AixplainModelRunTrigger(BaseTrigger):
    """Polls until a run is over and fires one event.

    The payload of the event is ``{"status": "success" | "failed" | "timeout" | "error", "message": str, "response": the
    ModelResponse as a dict or None, "poll_url": str}``. An event goes through the triggerer's memory and Airflow's
    database, so a response of more than 128 KiB is not read to its end there: ``success`` without a response says that
    the poll URL has it, which may turn out to be that of a failed run.

    With ``end_from_trigger`` a success whose response is there ends the task instead (``TaskSuccessEvent``).

    Airflow's database stores exactly the arguments below.

    :param poll_url: the ``url`` of the submission's response.
    :param aixplain_conn_id: the id of a Connection of type ``aixplain``.
    :param wait_time: seconds before the second poll, at least 0.2; grows by 10 % a poll up to 60 seconds.
    :param timeout: seconds after the submission when to stop waiting; the run itself goes on.
    :param submitted_at: when the run was submitted, in ISO 8601; default: now. Schedule and deadline count from it, so
        that they survive a restart of the triggerer.
    :param deferred_at: when the task was deferred, in ISO 8601; default: now. Its worker may hold on to it for a while.
    :param end_from_trigger: whether this trigger ends the task when the run has succeeded, and pushes its XComs.
    :param do_xcom_push: whether it pushes any.
    :param multiple_outputs: whether each field of the response is an XCom of its own, beside ``return_value``.
    :param polling: ``backoff``: as ``wait_time`` says; or ``adaptive``: as the triggerer has learnt from earlier runs
        of the model, and as ``wait_time`` says where it has not.
    :param model_id: of which model the run is, for ``adaptive``.
    """

    _stored: ClassVar[Sequence[str]] = (
        "poll_url",
        "aixplain_conn_id",
        "wait_time",
        "timeout",
        "submitted_at",
        "deferred_at",
        "end_from_trigger",
        "do_xcom_push",
        "multiple_outputs",
        "polling",
        "model_id",
    )

    def __init__(
        self,
        poll_url: str,
        aixplain_conn_id: str = AixplainHook.default_conn_name,
        wait_time: float = 0.5,
        timeout: float = 86400,
        submitted_at: str | None = None,
        deferred_at: str | None = None,
        end_from_trigger: bool = False,
        do_xcom_push: bool = True,
        multiple_outputs: bool = True,
        polling: str = "backoff",
        model_id: str = "",
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # Airflow types only what it names a parameter of
        self.poll_url = poll_url
        self.aixplain_conn_id = aixplain_conn_id
        with translate_protocol_errors():
            wait = Wait(wait_time, timeout)
        self.wait_time = wait.wait_time
        self.timeout = wait.timeout
        self.submitted_at = submitted_at or now()
        self.deferred_at = deferred_at or now()
        self.end_from_trigger = end_from_trigger
        self.do_xcom_push = do_xcom_push
        self.multiple_outputs = multiple_outputs
        self.polling = polling
        self.model_id = model_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what Airflow stores to start this trigger anywhere, any time."""
        stored = {name: getattr(self, name) for name in self._stored}
        return f"{type(self).__module__}.{type(self).__qualname__}", stored

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll until the run is over, the time is up, or the platform refuses to tell."""
        if not self.end_from_trigger:  # who has to wait for the worker anyway need not poll meanwhile
            await self._wait_for_worker_release()
        yield await self._end(await self._wait())

    async def _wait(self) -> Outcome:
        """Return how the wait for the run ended."""
        elapsed = seconds_since(self.submitted_at)
        wait = Wait(self.wait_time, self.timeout, RETRY_BUDGET, self._run_times())
        self.log.info("Waiting for the run at %s, for %.0f s so far", to_printable(self.poll_url), elapsed)
        try:
            outcome = await self.hook.await_run(self.poll_url, wait, elapsed, max_size=LARGEST_RESPONSE)
        except AixplainPermanentError as error:
            outcome = Outcome("error", str(error))
        if outcome.is_too_large:
            outcome = Outcome("success", "its response is too large for an event: whoever takes it has to poll")
        cost = f"after {format_cost(outcome.response)}" if outcome.response and outcome.response.completed else ""
        ended = " ".join(filter(None, [outcome.status, cost, outcome.message]))
        self.log.info("The wait ended after %d polls: %s", wait.polls, ended)
        warning = outcome.response.error_message if outcome.status == "success" and outcome.response else ""
        if warning and self.end_from_trigger:  # no worker is going to log it
            self.log.warning("The run succeeded with a warning: %s", to_printable(warning))
        count_wait(self.model_id, outcome, wait.polls, seconds_since(self.submitted_at), triggerer_stats)
        return outcome

    def _run_times(self) -> RunTimes | None:
        """Return what this triggerer knows of the model's earlier runs, if the schedule is to follow from that."""
        is_adaptive = self.polling == "adaptive" and self.model_id
        return _run_times(self.aixplain_conn_id, self.model_id) if is_adaptive else None

    async def _end(self, outcome: Outcome) -> TriggerEvent:
        """Return the event that ends the task, once its XComs are pushed, or that a worker takes."""
        event = outcome.to_event(self.poll_url)
        can_end_task = self.end_from_trigger and outcome.status == "success" and event["response"] is not None
        if can_end_task and runs_inline(self):
            self.log.info("The task finishes in its own process, as there is no triggerer: end_from_trigger is ignored")
        elif can_end_task:
            try:
                # TaskSuccessEvent could take them along, but Airflow 3.3.2 hands such XComs on as JSON text, and
                # commits each by itself when the task is over already.
                if self.do_xcom_push:
                    fields = {**event["response"], **await self._link()} if self.multiple_outputs else {}
                    await self.record.push(event["response"], fields)
            except XComBackpressure as error:
                self.log.info("A worker takes the result, as it is sooner: %s", error)
            except Exception as error:
                self.log.warning("A worker takes the result, as here it fails: %s: %s", type(error).__name__, error)
            else:
                count_end(self.model_id, "success", event["response"], triggerer_stats)
                return TaskSuccessEvent()
        await self._wait_for_worker_release()
        return TriggerEvent(event)

    async def _link(self) -> dict[str, str]:
        """Return the XCom of the task's link, by its key, if no worker has stored it."""
        return {}

    @cached_property
    def hook(self) -> AixplainHook:
        """The hook that carries this trigger's calls."""
        return AixplainHook(self.aixplain_conn_id)

    @property
    def record(self) -> XComIdempotencyStore:
        """What this trigger's task has in its XComs."""
        return XComIdempotencyStore(self.task_instance)

    async def on_kill(self) -> None:
        """Tell whoever has cleared, failed or skipped the task that its run goes on. (Airflow 3.3 and later)

        Airflow 3.3.2 calls it too when another triggerer has taken over meanwhile.
        """
        self.log.warning(
            "This triggerer waits no longer: the task was ended, or went to another triggerer. Unless it is over,"
            " the run goes on, and is billed, as the platform cannot cancel it: %s",
            to_printable(self.poll_url),
        )

    async def _wait_for_worker_release(self) -> None:
        """Return when the worker that deferred the task has surely released it."""
        await wait_for_worker_release(self, self.deferred_at)


class AixplainModelStartTrigger(AixplainModelRunTrigger, TemplateChecks):
    """Submits a run, waits for it as :class:`AixplainModelRunTrigger` does, and fires one event as that does.

    Airflow's scheduler makes it, so that no worker starts the task, and the triggerer renders its templates. It may be
    started again at any time, elsewhere, and even while it still runs. So it records in XComs of the task that it
    begins a submission (``aixplain_submission``), and then where the run can be polled (``aixplain_run``); whoever
    starts later goes on with that run. The payload of its event may also be ``{"status": "refused", "message": str,
    "response": None, "poll_url": str, "error": dict}``: there is no run, or none that may be polled.

    :param model_id: the model's id on the platform.
    :param data: the input: text, or any value that JSON can hold. The output of another task stands in it as
        :func:`xcom_reference` tells.
    :param parameters: further parameters of the model, by name.
    :param name: what the log calls the run; default: the task's id.
    :param aixplain_conn_id: the id of a Connection of type ``aixplain``.
    :param wait_time: seconds before the second poll, at least 0.2; grows by 10 % a poll up to 60 seconds.
    :param timeout: seconds after which to stop waiting; the run itself goes on.
    :param durable: whether to go on with the run of an earlier try of the task; its own try always does.
    :param on_orphaned_submission: what to do if nobody knows whether an earlier submission was accepted: ``resubmit``,
        or ``fail``.
    :param end_from_trigger: whether this trigger ends the task when the run has succeeded, and pushes its XComs.
    :param reason_not_end_from_trigger: why this trigger may not end the task, if so; a worker does it then, and the log
        states the reason.
    :param multiple_outputs: whether each field of the response is an XCom of its own, beside ``return_value``.
    :param polling: ``backoff`` or ``adaptive``.
    """

    _stored = (
        "model_id",
        "data",
        "parameters",
        "name",
        "aixplain_conn_id",
        "wait_time",
        "timeout",
        "durable",
        "on_orphaned_submission",
        "end_from_trigger",
        "reason_not_end_from_trigger",
        "multiple_outputs",
        "polling",
    )

    def __init__(
        self,
        model_id: str,
        data: Any,
        parameters: Mapping[str, Any] | None = None,
        name: str | None = None,
        aixplain_conn_id: str = AixplainHook.default_conn_name,
        wait_time: float = 0.5,
        timeout: float = 86400,
        durable: bool = True,
        on_orphaned_submission: str = "resubmit",
        end_from_trigger: bool = False,
        reason_not_end_from_trigger: str | None = None,
        multiple_outputs: bool = True,
        polling: str = "backoff",
    ) -> None:
        super().__init__(
            "",
            aixplain_conn_id,
            wait_time,
            timeout,
            end_from_trigger=end_from_trigger and not reason_not_end_from_trigger,
            multiple_outputs=multiple_outputs,
            polling=polling,
            model_id=model_id,
        )
        self.data = data
        self.parameters = parameters
        self.name = name
        self.durable = durable
        self.on_orphaned_submission = on_orphaned_submission
        self.reason_not_end_from_trigger = reason_not_end_from_trigger

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Submit the run, or find the one that was submitted before, and poll until it is over."""
        try:
            await self._pull("model_id", "name", "aixplain_conn_id")
            if self.reason_not_end_from_trigger:
                told_why = "%s: a worker takes the result, as a trigger that ends the task loses %s"
                self.log.info(told_why, self.run_name, self.reason_not_end_from_trigger)
            final = await self._submitted()
        except AixplainError as error:
            event = {"status": "refused", "message": str(error), "response": None, "poll_url": self.poll_url}
            yield TriggerEvent({**event, "error": to_event(error)})
            return
        yield await self._end(Outcome("success", "", final) if final else await self._wait())

    async def on_kill(self) -> None:
        """Tell whoever has cleared, failed or skipped the task that its run goes on."""
        if self.poll_url:
            await super().on_kill()

    @property
    def run_name(self) -> str:
        """What the log calls the run."""
        return self.name or str(self.task_id)

    def get_template_env(self, dag: Any = None) -> Any:
        """Return what renders the templates: an undefined name in one is an error, as on a worker, and not sent."""
        from jinja2 import StrictUndefined

        return super().get_template_env(dag).overlay(undefined=StrictUndefined)

    def _do_render_template_fields(
        self, parent: Any, template_fields: Iterable[str], context: Any, jinja_env: Any, seen_oids: set[int]
    ) -> None:
        self.store_unrendered(parent, template_fields, seen_oids)
        super()._do_render_template_fields(parent, template_fields, context, jinja_env, seen_oids)

    async def _wait_for_worker_release(self) -> None:
        """Return at once: no worker has deferred the task."""

    async def _link(self) -> dict[str, str]:
        return {MODEL_LINK.xcom_key: (await self.hook.aplatform()).model_page(self.model_id)}

    async def _submitted(self) -> ModelResponse | None:
        """Submit the run, or find the one that was submitted before, and remember where to poll.

        :return: the response, if it is final already.
        :raises AixplainError: if there is no run.
        """
        record = self.record
        fingerprint, discarded = "", None
        while True:
            async with _slots.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(MAX_CONCURRENT_SUBMISSIONS)):
                read_at = time.monotonic()
                earlier = await record.read()
                if earlier and earlier.try_id == record.try_id and (earlier.poll_url or earlier.response):
                    # Nothing more is asked for: the Connection may be out of reach for a while.
                    self._adopt(earlier)
                    return earlier.final()
                fingerprint = fingerprint or await self._prepare()
                if earlier == discarded:
                    started_at = now()
                    mine = IdempotencyRecord(fingerprint, started_at, try_id=record.try_id, tried_at=started_at)
                    await record.write(mine)
                    if time.monotonic() - read_at < _lease_duration():
                        return await self._submit(mine)
                    discarded = mine  # not sent; somebody else may have taken over meanwhile
                    continue
            if earlier and earlier.is_open:
                earlier = await self._await_in_flight_submission(earlier)
            if earlier and not (discarded := await self._reattach_or_discard(earlier, fingerprint)):
                return earlier.final()

    async def _prepare(self) -> str:
        """Look up all that a submission needs.

        :return: its fingerprint.
        """
        await self.hook.aplatform()
        await self._pull("data", "parameters")
        self.check_templates("model_id", "data", "parameters")
        self.warn_of_payload(self.data)
        return await asyncio.to_thread(self.hook.fingerprint, self.model_id, self.data, self.parameters)

    async def _pull(self, *names: str) -> None:
        """Put other tasks' XComs in the place of what stands for them in these arguments."""
        for name in names:
            setattr(self, name, await _pulled(getattr(self, name), self.record))

    async def _await_in_flight_submission(self, earlier: IdempotencyRecord) -> IdempotencyRecord | None:
        """Return what became of a submission that may still be under way elsewhere, once it cannot be any more."""
        self.log.info("%s: a submission may be under way elsewhere; waiting for its end", self.run_name)
        while earlier.age < self.hook.platform.timeout + IN_FLIGHT_MARGIN:
            await asyncio.sleep(IN_FLIGHT_MARGIN)
            found = await self.record.read()
            if found is None or not found.is_open:
                return found
            earlier = found
        return earlier

    async def _reattach_or_discard(self, earlier: IdempotencyRecord, fingerprint: str) -> IdempotencyRecord | None:
        """Decide whether to wait for the run of an earlier submission; if so, remember where.

        :return: if not, what the record says of it now.
        :raises AixplainPermanentError: if an orphaned submission is to end the task.
        """
        record = self.record
        is_own = earlier.try_id == record.try_id
        if not is_own and await record.is_delivered(earlier):
            self.log.info("%s: %s", self.run_name, CLEARED)
            return await record.start_over(earlier, FIELDS)
        if not is_own and not self.durable:
            self.log.info("%s: %s", self.run_name, NOT_REMEMBERED)
            return earlier
        if not earlier.poll_url and not earlier.response:
            if self.on_orphaned_submission == "fail":
                await record.write(replace(earlier, is_delivered=True))
                raise AixplainPermanentError(
                    f"Model {self.model_id}: {earlier.orphan_message}. Clear the task to submit again."
                )
            self.log.warning("%s: %s. Submitting again", self.run_name, earlier.orphan_message)
            return earlier
        if not is_own:
            useless = earlier.reason_not_resumable(fingerprint)
            if not useless and earlier.poll_url:
                useless = earlier.reason_not_resumable(fingerprint, await self._ask(earlier.poll_url))
            if useless:
                self.log.warning("%s: submitting again, as %s", self.run_name, useless)
                return earlier
            earlier = replace(earlier, try_id=record.try_id, tried_at=now())
            await record.write(earlier)
        self._adopt(earlier)
        self.log.info("%s: going on with the run of an earlier try: %s", self.run_name, to_printable(earlier.poll_url))
        return None

    async def _ask(self, poll_url: str) -> ModelResponse:
        """Poll, for a minute if the platform does not know the run."""
        response = await self.hook.apoll(poll_url, max_size=LARGEST_RESPONSE)
        for _ in range(NOT_FOUND_ATTEMPTS - 1):
            if not is_not_found(response):
                break
            await asyncio.sleep(NOT_FOUND_DELAY)
            response = await self.hook.apoll(poll_url, max_size=LARGEST_RESPONSE)
        return response

    async def _submit(self, mine: IdempotencyRecord) -> ModelResponse | None:
        """Submit the run that the record tells of, and record where it can be polled.

        :return: the response, if it is final already.
        :raises AixplainError: if there is no run.
        """
        arguments = (self.model_id, self.data, self.run_name, self.parameters)
        answer = asyncio.wrap_future(_threads.submit(self.hook.run_async, *arguments))
        try:
            response = await asyncio.shield(answer)
        except asyncio.CancelledError:
            # The triggerer is being stopped, or somebody ends the task. The run is paid for, so first its poll URL is
            # recorded. A triggerer that is being stopped takes messages for some ten seconds more, but answers none.
            while not answer.done():
                with suppress(asyncio.CancelledError, Exception):
                    await asyncio.shield(answer)
            with suppress(Exception):
                await asyncio.wait_for(self._record_in_flight_outcome(mine, answer), IN_FLIGHT_MARGIN)
            raise
        except AixplainError:
            await self._record_in_flight_outcome(mine, answer)
            raise
        await self._record_outcome(mine, response)
        if response.status is ResponseStatus.FAILED:
            raise submission_error(response, self.model_id)
        is_over = response.status is ResponseStatus.SUCCESS
        told = "%s: model %s answered" if is_over else "%s: the run of model %s is at %s"
        self.log.info(told, self.run_name, self.model_id, *([] if is_over else [to_printable(self.poll_url)]))
        if is_over:
            return response
        self.hook.platform.check(self.poll_url)
        return None

    async def _record_in_flight_outcome(self, mine: IdempotencyRecord, answer: asyncio.Future[ModelResponse]) -> None:
        """Record what became of a submission, or that nothing was sent, as an error tells."""
        if isinstance(answer.exception(), AixplainError):
            with suppress(Exception):
                await self.record.forget()
        else:
            await self._record_outcome(mine, answer.result())

    async def _record_outcome(self, mine: IdempotencyRecord, response: ModelResponse) -> None:
        """Record what became of a submission. It is made: trouble with the record is no reason to lose its run too."""
        try:
            if is_rejected(response):
                await self.record.forget()
            elif response.status is not ResponseStatus.FAILED:
                is_over = response.status is ResponseStatus.SUCCESS
                mine = replace(mine, poll_url=response.url, response=response.to_dict() if is_over else None)
                self._adopt(mine)
                await self.record.write(mine)
        except Exception as error:
            told = "%s: a later start will not find this submission: %s: %s"
            self.log.warning(told, self.run_name, type(error).__name__, error)

    def _adopt(self, submission: IdempotencyRecord) -> None:
        """Wait for the run of this submission, as long after the try's begin as this trigger's timeout says."""
        self.poll_url = submission.poll_url or ""
        self.submitted_at = submission.submitted_at
        before = max(0.0, seconds_since(submission.submitted_at) - seconds_since(submission.tried_at))
        self.timeout = min(self.timeout + before, MAX_DURATION)


MAX_CONCURRENT_SUBMISSIONS = 4
"""Submissions under way at a time in one process: so many may be made twice where it is killed. They take turns from
the look at their record to its last word, as what many ask of Airflow 3.3.2's triggerer waits for seconds."""

_threads = ThreadPoolExecutor(MAX_CONCURRENT_SUBMISSIONS, thread_name_prefix="aixplain-submission")
"""Send submissions. Where the triggerer stops, its event loop cancels all that it runs, but nothing that a thread does:
so the answer to a submission that is under way is not lost."""

_slots: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()


@lru_cache(1024)
def _run_times(aixplain_conn_id: str, model_id: str) -> RunTimes:
    """Return what this process remembers of a model's runs."""
    return RunTimes()


_XCOM = "__aixplain_xcom__"


def xcom_reference(task_id: str, key: str, *, is_required: bool) -> dict[str, Any]:
    """Return what stands for another task's XCom in the input of an :class:`AixplainModelStartTrigger`.

    :param task_id: of a task that is not mapped, in the same DAG.
    :param key: the XCom's.
    :param is_required: whether that there is none is an error.
    """
    return {_XCOM: {"task_id": task_id, "key": key, "is_required": is_required}}


async def _pulled(value: Any, record: XComIdempotencyStore) -> Any:
    """Return a value with other tasks' XComs in the place of what stands for them.

    :raises AixplainInputError: if there is no such XCom.
    """
    if isinstance(value, Mapping) and set(value) == {_XCOM}:
        told = value[_XCOM]
        pulled = await record.pull(told["task_id"], told["key"])
        if pulled is None and told["is_required"]:
            raise AixplainInputError(f"Task {told['task_id']!r} has no XCom {told['key']!r}")
        return pulled
    if isinstance(value, Mapping):
        return {key: await _pulled(held, record) for key, held in value.items()}
    if isinstance(value, (list, tuple)):
        return [await _pulled(held, record) for held in value]
    return value


def _lease_duration() -> float:
    """Return for how long a triggerer may stand still, in seconds, and surely has not been taken for dead."""
    threshold: float = conf.getfloat("triggerer", "triggerer_health_check_threshold")
    return threshold / 2
