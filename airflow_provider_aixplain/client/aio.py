"""The platform's API as coroutines: submissions, polls and waits on one account."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_aixplain.client.blocking import Client, log, unusable_account_response
from airflow_provider_aixplain.exceptions import translate_protocol_errors
from airflow_provider_aixplain.files import refuse_upload
from airflow_provider_aixplain.protocol import wire
from airflow_provider_aixplain.protocol.payload import ModelInput
from airflow_provider_aixplain.protocol.schedule import delay_until_tick

if TYPE_CHECKING:
    from airflow_provider_aixplain.client.account import Platform
    from airflow_provider_aixplain.protocol.assets import RunInput
    from airflow_provider_aixplain.protocol.response import ModelResponse
    from airflow_provider_aixplain.protocol.wait import Outcome, Wait
    from airflow_provider_aixplain.transport.aio import Lease

MAX_RESPONSE_BYTES = 128 * 1024
"""Bytes of an answer that an event loop parses at once. Parsing 10 MB blocks everything else in the loop for 0.1 s (one
string) to more than 1 s (a list of objects)."""


class AsyncClient(Client):
    """Adds coroutines to the calls of :class:`~airflow_provider_aixplain.client.blocking.Client`.

    A subclass that has to read its account first overrides :meth:`aplatform` and :meth:`areload_credentials`.
    """

    async def arun_async(
        self, model_id: str, data: Any, name: str = "model_process", parameters: Mapping[str, Any] | None = None
    ) -> ModelResponse:
        """Start a run of a model, as :meth:`run_async`, but an ``Upload`` is refused: upload the file first."""
        return await self.asubmit(ModelInput(model_id, data, parameters), name)

    async def asubmit(self, run: RunInput, name: str) -> ModelResponse:
        """Start a run, as :meth:`submit`, but an ``Upload`` is refused."""
        log.debug("%s: submitting a run of %s", name, run.asset)
        platform = await self.aplatform()
        with translate_protocol_errors():
            request = run.request(platform, refuse_upload)
        async with self._lease() as lease:
            return wire.read_submission(await self._asend(lease, request))

    async def apoll(self, poll_url: str, timeout: float | None = None, max_size: int | None = None) -> ModelResponse:
        """Poll a run once, as :meth:`poll`. The response to an unfinished run has only the steps in its first 128 KiB.

        :param timeout: the time limit of a request, in seconds; default and maximum: the Connection's ``timeout``.
        :param max_size: the size limit of the answer of a finished run, in bytes; default and maximum: the
            Connection's.
        """
        with translate_protocol_errors():
            request = wire.poll_request(poll_url)
        async with self._lease() as lease:
            return await self._apoll(lease, request, timeout, max_size)

    async def await_run(
        self,
        poll_url: str,
        wait: Wait,
        elapsed: float = 0.0,
        name: str = "",
        max_size: int | None = None,
        on_failed_poll: Callable[[str], object] | None = None,
    ) -> Outcome:
        """Poll until a wait ends, as :meth:`wait_for_run`.

        :param elapsed: seconds since the submission, at this call.
        :param name: a prefix for log lines.
        :param max_size: the size limit of the answer of a finished run, in bytes; default and maximum: the
            Connection's.
        :param on_failed_poll: called with the message of each failed poll, instead of logging the wait.
        """
        with translate_protocol_errors():
            request = wire.poll_request(poll_url)
        start = time.monotonic() - elapsed
        delay = wait.first_delay(elapsed, random.random())
        async with self._lease() as lease:  # kept between polls, so that they share its connections
            while True:
                await asyncio.sleep(delay_until_tick(delay, time.monotonic()))
                try:
                    timeout = wait.poll_timeout(time.monotonic() - start)
                    response = await self._apoll(lease, request, timeout, max_size)
                except Exception as error:
                    response = unusable_account_response(error)
                elapsed = time.monotonic() - start
                outcome = wait.judge(response, elapsed)
                problem = await self.areload_credentials() if wait.is_denied and not outcome else ""
                if on_failed_poll is None:
                    self.log_wait(wait, response, elapsed, name, problem)
                    self.log_steps(wait, response, name)
                elif response.failure and not outcome:
                    on_failed_poll(f"{name}: {response.error_message}{problem}")
                if outcome:
                    if response.completed:
                        wait.learn(response, elapsed, random.random())
                    return outcome
                delay = wait.delay(elapsed, random.random())

    async def aplatform(self) -> Platform:
        """Return the account; :attr:`platform` is set afterwards."""
        return self.platform

    async def areload_credentials(self) -> str:
        """Read the account again, as :meth:`reload_credentials`."""
        return ""

    async def _apoll(
        self, lease: Lease, request: wire.Request, timeout: float | None, max_size: int | None
    ) -> ModelResponse:
        """Poll once. Without ``max_size``, read the answer of a finished run again if it exceeds 128 KiB."""
        first_size = MAX_RESPONSE_BYTES if max_size is None else max_size
        response = wire.read_poll(await self._asend(lease, request, timeout, first_size))
        if max_size is None and response.failure and response.failure.is_too_large:  # the run has finished
            response = wire.read_poll(await self._asend(lease, request, timeout))
        return response

    async def _asend(
        self, lease: Lease, request: wire.Request, timeout: float | None = None, max_size: int | None = None
    ) -> wire.Answer | wire.NoResponse:
        answer = await lease.send(await self.aplatform(), request, timeout, max_size)
        return wire.name_refused_key(answer, request, self.key_source)

    def _lease(self) -> Lease:
        from airflow_provider_aixplain.transport.aio import Lease  # imported late: DAG files need no HTTP client

        return Lease()
