"""The trigger that starts a task: it submits the run, and then waits for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import closing, suppress
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_aixplain import compat
from airflow_provider_aixplain.client.aio import MAX_RESPONSE_BYTES
from airflow_provider_aixplain.compat import conf
from airflow_provider_aixplain.exceptions import AixplainError, AixplainPermanentError, submission_error, to_event
from airflow_provider_aixplain.protocol.agent import input_type
from airflow_provider_aixplain.protocol.assets import RunInput
from airflow_provider_aixplain.protocol.response import FIELDS, ModelResponse, ResponseStatus
from airflow_provider_aixplain.protocol.resumption import Action, decide, is_not_found, is_rejected
from airflow_provider_aixplain.protocol.usage import add_usage, earlier_usage, has_counted
from airflow_provider_aixplain.protocol.values import to_printable
from airflow_provider_aixplain.protocol.wait import MAX_DURATION, Outcome
from airflow_provider_aixplain.submission import (
    IN_FLIGHT_MARGIN,
    NOT_FOUND_ATTEMPTS,
    NOT_FOUND_DELAY,
    check_budget,
    log_resubmission,
    now,
    seconds_since,
)
from airflow_provider_aixplain.templates import TemplateChecks
from airflow_provider_aixplain.triggers.aixplain import AixplainModelRunTrigger
from airflow_provider_aixplain.workerless.start_settings import StartSettings, resolve_references
from airflow_provider_aixplain.workerless.submission_slots import SLOTS
from airflow_provider_aixplain.workerless.xcom_store import IdempotencyRecord, XComIdempotencyStore


class AixplainModelStartTrigger(AixplainModelRunTrigger, TemplateChecks):
    """Submits a run, waits for it as :class:`AixplainModelRunTrigger` does, and fires one event as that does.

    Airflow's scheduler creates it, so that no worker starts the task, and the triggerer renders its templates. Airflow
    may start it again at any time, in another triggerer, and even while it still runs. So it records each submission in
    XComs of the task: the intent (``aixplain_submission``), and then the poll URL (``aixplain_run``). A later start
    resumes that run. The payload of its event may also be ``{"status": "refused", "message": str, "response": None,
    "poll_url": str, "error": dict}``: there is no run, or none that may be polled.

    :param settings: the fields of :class:`~airflow_provider_aixplain.workerless.start_settings.StartSettings`.
    :raises TypeError: if there is no such setting.
    """

    settings: StartSettings
    name: Any
    aixplain_conn_id: Any

    def __init__(self, **settings: Any) -> None:
        BaseTrigger.__init__(self)
        self.settings = StartSettings.from_dict(settings)
        self.name, self.aixplain_conn_id = self.settings.name, self.settings.aixplain_conn_id
        self._answer: dict[str, Any] = {"response": None}
        for name, value in self.settings.run_input.items():  # Airflow renders attributes of a trigger
            setattr(self, name, value)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Submit the run, or find the one that was submitted before, and poll until it has finished."""
        compat.is_inline(self)  # raises here, before the submission, if the check after the run cannot work
        try:
            await self._resolve_settings()
            if reason := self.settings.reason_not_end_from_trigger:
                self.log.info("%s: a worker finishes the task, as a trigger would lose %s", self.run_name, reason)
            final = await self._submit_or_reattach()
        except AixplainError as error:
            event = {"status": "refused", "message": str(error), "poll_url": self.settings.poll_url}
            yield TriggerEvent({**event, **self._answer, "error": to_event(error)})
            return
        yield await self._finish(Outcome("success", "", final) if final else await self._wait())

    async def on_kill(self) -> None:
        """Log that the run of a task that was cleared, failed or skipped continues."""
        if self.settings.poll_url:
            await super().on_kill()

    @property
    def run_name(self) -> str:
        """The name of the run in the log."""
        return self.settings.name or str(self.task_id)

    @cached_property
    def store(self) -> XComIdempotencyStore:
        """The store of this trigger's task."""
        return XComIdempotencyStore(self.task_instance)

    def get_template_env(self, dag: Any = None) -> Any:
        """Return the Jinja environment, in which an undefined name is an error, as on a worker."""
        from jinja2 import StrictUndefined

        return super().get_template_env(dag).overlay(undefined=StrictUndefined)

    def _do_render_template_fields(
        self, parent: Any, template_fields: Iterable[str], context: Any, jinja_env: Any, seen_oids: set[int]
    ) -> None:
        self.store_unrendered(parent, template_fields, seen_oids)
        super()._do_render_template_fields(parent, template_fields, context, jinja_env, seen_oids)

    async def _wait_for_worker_release(self) -> None:
        """Return at once: no worker has deferred the task."""

    async def _submit_or_reattach(self) -> ModelResponse | None:
        """Submit the run, or find the one that was submitted before, and adopt it.

        :return: the response, if it is final already.
        :raises AixplainError: if there is no run.
        """
        store = self.store
        fingerprint, discarded = "", None
        slots = SLOTS.get()
        while True:
            async with slots.free:
                read_at = time.monotonic()
                earlier = await store.read()
                if earlier and earlier.try_id == store.try_id and earlier.is_answered:
                    # Nothing else is looked up: the Connection may be unavailable for a while.
                    self._adopt(earlier)
                    return earlier.final_response()
                fingerprint = fingerprint or await self._prepare()
                if earlier == discarded:  # no record, or still the one that this trigger has discarded
                    if self.settings.max_credits is not None:
                        check_budget(self.settings.max_credits, await store.usage())
                    started_at = now()
                    intent = IdempotencyRecord(fingerprint, started_at, try_id=store.try_id, tried_at=started_at)
                    await store.write(intent)
                    if time.monotonic() - read_at < _lease_duration():
                        return await self._submit(intent)
                    discarded = intent  # not sent: the lease has expired, and another process may have taken over
                    continue
            if earlier and earlier.is_open:
                earlier = await self._await_in_flight_submission(earlier)
            if earlier and not (discarded := await self._reattach_or_discard(earlier, fingerprint)):
                return earlier.final_response()

    async def _prepare(self) -> str:
        """Look up everything that a submission needs.

        :return: its fingerprint.
        """
        await self.hook.aplatform()
        await self._resolve(*self.settings.run_input)
        self.check_input(*self.settings.run_input)
        return await asyncio.to_thread(self.hook.fingerprint, self._run_input())

    def _run_input(self) -> RunInput:
        """Return the input of the run, from the rendered attributes."""
        names = self.settings.run_input
        return input_type(names)(**{name: getattr(self, name) for name in names})

    async def _resolve_settings(self) -> None:
        """Replace the settings by the rendered ones."""
        names = (input_type(self.settings.run_input).id_name, "name", "aixplain_conn_id")
        await self._resolve(*names)
        self.settings = replace(self.settings, **{name: getattr(self, name) for name in names})

    async def _resolve(self, *names: str) -> None:
        """Replace references in rendered attributes by the XComs of other tasks."""
        for name in names:
            setattr(self, name, await resolve_references(getattr(self, name), self.store))

    async def _await_in_flight_submission(self, earlier: IdempotencyRecord) -> IdempotencyRecord | None:
        """Wait while a submission may be in flight in another process, and return its record after that."""
        self.log.info("%s: another process may be submitting the run; waiting for its record", self.run_name)
        while seconds_since(earlier.submitted_at) < self.hook.platform.timeout + IN_FLIGHT_MARGIN:
            await asyncio.sleep(IN_FLIGHT_MARGIN)
            record = await self.store.read()
            if record is None or not record.is_open:
                return record
            earlier = record
        return earlier

    async def _reattach_or_discard(self, earlier: IdempotencyRecord, fingerprint: str) -> IdempotencyRecord | None:
        """Adopt the run of an earlier submission, or discard it.

        :return: the current record of a discarded submission; None if its run was adopted.
        :raises AixplainPermanentError: if the submission is orphaned and the task is to fail then.
        """
        store = self.store
        is_same_try = earlier.try_id == store.try_id
        is_cleared = not is_same_try and await store.is_delivered(earlier)
        decide_now = partial(
            decide,
            earlier,
            fingerprint,
            on_orphaned=self.settings.on_orphaned_submission,
            is_same_try=is_same_try,
            is_durable=self.settings.durable,
            is_cleared=is_cleared,
        )
        decision, response = decide_now(), earlier.final_response()
        if decision.action is Action.REATTACH and not is_same_try and earlier.poll_url:
            response = await self._poll(earlier.poll_url)
            decision = decide_now(response=response)
        if decision.action is not Action.REATTACH:
            await self._count_earlier(earlier, response)
        if decision.action is Action.FAIL:
            await store.write(replace(earlier, is_delivered=True))  # a cleared task submits again
            title = self.settings.asset.title
            raise AixplainPermanentError(f"{title}: {decision.reason}. Clear the task to submit again")
        if decision.action is Action.RESUBMIT:
            log_resubmission(self.log, self.run_name, decision)
            keys = (*FIELDS, *self.settings.asset.output_names)
            return await store.start_over(earlier, keys) if is_cleared else earlier
        if not is_same_try:
            earlier = replace(earlier, try_id=store.try_id, tried_at=now())
            await store.write(earlier)
        self._adopt(earlier)
        self.log.info("%s: re-attached to the run of an earlier try: %s", self.run_name, to_printable(earlier.poll_url))
        return None

    async def _count_earlier(self, earlier: IdempotencyRecord, response: ModelResponse | None) -> None:
        """Add an earlier run to the usage record, unless its try did it. Errors are only logged.

        :param response: the answer to a poll of it, or to its submission, if there was one.
        """
        try:
            usage = await self.store.usage()
            if not has_counted(usage, earlier.run_id):
                if earlier.poll_url and response is None:
                    response = await self.hook.apoll(earlier.poll_url)
                asset = self.settings.asset
                page = (await self.hook.aplatform()).page_url(asset)
                await self.store.write_usage(add_usage(usage, earlier_usage(earlier, response), asset, page))
        except Exception as error:
            self.log.warning("The cost of earlier runs could not be recorded: %s: %s", type(error).__name__, error)

    async def _poll(self, poll_url: str) -> ModelResponse:
        """Poll once, or for a minute while the platform does not know the run."""
        response = await self.hook.apoll(poll_url, max_size=MAX_RESPONSE_BYTES)
        for _ in range(NOT_FOUND_ATTEMPTS - 1):
            if not is_not_found(response):
                break
            await asyncio.sleep(NOT_FOUND_DELAY)
            response = await self.hook.apoll(poll_url, max_size=MAX_RESPONSE_BYTES)
        return response

    async def _submit(self, intent: IdempotencyRecord) -> ModelResponse | None:
        """Submit a run whose intent is recorded, and record the outcome.

        :return: the response, if it is final already.
        :raises AixplainError: if there is no run.
        """
        answer = asyncio.wrap_future(SLOTS.get().threads.submit(self._send_submission))
        try:
            response = await asyncio.shield(answer)
        except asyncio.CancelledError:
            # The triggerer is being stopped, or a user ends the task. The run is billed, so its poll URL is recorded
            # first. A triggerer that is being stopped accepts messages for about ten seconds, but answers none.
            while not answer.done():
                with suppress(asyncio.CancelledError, Exception):
                    await asyncio.shield(answer)
            with suppress(Exception):
                await asyncio.wait_for(self._record_in_flight_outcome(intent, answer), IN_FLIGHT_MARGIN)
            raise
        except AixplainError:
            await self._record_in_flight_outcome(intent, answer)
            raise
        await self._record_outcome(intent, response)
        if response.status is ResponseStatus.FAILED:
            self._answer = {"response": response.to_dict(), "submitted_at": intent.submitted_at}
            raise submission_error(response, self.settings.asset)
        if response.status is ResponseStatus.SUCCESS:
            self.log.info("%s: %s answered at once", self.run_name, self.settings.asset)
            return response
        url = self.settings.poll_url
        self.log.info("%s: submitted a run of %s: %s", self.run_name, self.settings.asset, to_printable(url))
        self.hook.platform.check_trusted(url)
        return None

    def _send_submission(self) -> ModelResponse:
        # Otherwise each run would keep a socket open during its wait, in addition to those that polls share.
        with closing(self.hook) as hook:
            return hook.submit(self._run_input(), self.run_name)

    async def _record_in_flight_outcome(self, intent: IdempotencyRecord, answer: asyncio.Future[ModelResponse]) -> None:
        """Record the outcome of a submission that has ended; an error means that nothing was sent."""
        if isinstance(answer.exception(), AixplainError):
            with suppress(Exception):
                await self.store.clear()
        else:
            await self._record_outcome(intent, answer.result())

    async def _record_outcome(self, intent: IdempotencyRecord, response: ModelResponse) -> None:
        """Record the outcome of a submission. Errors are only logged, as the run exists."""
        try:
            if is_rejected(response):
                await self.store.clear()
            elif response.status is not ResponseStatus.FAILED:
                is_final = response.status is ResponseStatus.SUCCESS
                record = replace(intent, poll_url=response.url, response=response.to_dict() if is_final else None)
                self._adopt(record)
                await self.store.write(record)
        except Exception as error:
            self.log.warning(
                "%s: the outcome of the submission could not be recorded, so a later start submits again: %s: %s",
                self.run_name,
                type(error).__name__,
                error,
            )

    def _adopt(self, submission: IdempotencyRecord) -> None:
        """Set the poll URL and the times of a submission. The timeout counts from the start of its try."""
        age_at_try = max(0.0, seconds_since(submission.submitted_at) - seconds_since(submission.tried_at))
        self.settings = replace(
            self.settings,
            poll_url=submission.poll_url or "",
            submitted_at=submission.submitted_at,
            timeout=min(self.settings.timeout + age_at_try, MAX_DURATION),
        )


def _lease_duration() -> float:
    """Return the seconds for which a triggerer may be frozen before another one takes over its triggers."""
    threshold: float = conf.getfloat("triggerer", "triggerer_health_check_threshold")
    return threshold / 2
