"""The hook: the Model API with the credentials and endpoints of an Airflow Connection."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.connection import get_async_connection
from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook

from airflow_provider_aixplain.exceptions import AixplainConfigurationError
from airflow_provider_aixplain.model import wire
from airflow_provider_aixplain.model.response import ModelResponse, ResponseStatus
from airflow_provider_aixplain.model.wait import Outcome, Wait
from airflow_provider_aixplain.transport.platform import Platform

if TYPE_CHECKING:
    import requests

    from airflow_provider_aixplain.transport.sync import PlatformSession


class AixplainHook(BaseHook):
    """Talks to aiXplain with the credentials of a Connection.

    The Connection is read once, when the first call needs it, and again when the platform refuses its key during a
    wait. Trouble on the way does not raise: the returned :class:`~airflow_provider_aixplain.model.ModelResponse` is
    failed and says what happened. What can make no valid request raises before anything is sent.

    :param aixplain_conn_id: the id of a Connection of type ``aixplain``.
    """

    conn_name_attr = "aixplain_conn_id"
    default_conn_name = "aixplain_default"
    conn_type = "aixplain"
    hook_name = "aiXplain"

    def __init__(self, aixplain_conn_id: str = default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.aixplain_conn_id = aixplain_conn_id
        self._platform: Platform | None = None
        self._session: PlatformSession | None = None

    def get_conn(self) -> requests.Session:
        """Return a session that adds the key to requests for the platform, and to no others.

        :raises AixplainConfigurationError: if the Connection cannot work.
        """
        return self._open()

    def run_async(
        self, model_id: str, data: Any, name: str = "model_process", parameters: Mapping[str, Any] | None = None
    ) -> ModelResponse:
        """Start a run and do not wait for it. It is billable, and sent exactly once.

        :param model_id: the model's id on the platform.
        :param data: the input: text, or any value that JSON can hold.
        :param name: a name for the log.
        :param parameters: further parameters of the model.
        :return: in progress with its poll URL as ``url``; or final at once; or failed, with the reason.
        :raises AixplainConfigurationError: if the Connection cannot work.
        :raises AixplainInputError: if the arguments can make no valid request.
        """
        from airflow_provider_aixplain.transport import sync

        session = self._open()
        request = session.platform.submission(model_id, data, parameters)
        self.log.debug("%s: submitting a run of model %s", name, model_id)
        return wire.read_submission(sync.send(session, request))

    def poll(self, poll_url: str, name: str = "model_process") -> ModelResponse:
        """Ask once how a run is doing.

        :param poll_url: the ``url`` of a submission's response.
        :param name: a name for the log.
        :return: the state of the run; failed and not completed if the poll itself went wrong.
        :raises AixplainConfigurationError: if the Connection cannot work.
        :raises AixplainUntrustedUrl: if the poll URL is on an origin that may not receive the key.
        """
        return self._poll(poll_url)

    def sync_poll(
        self, poll_url: str, name: str = "model_process", wait_time: float = 0.5, timeout: float = 300
    ) -> ModelResponse:
        """Poll until a run is over, blocking.

        :param poll_url: the ``url`` of a submission's response.
        :param name: a name for the log.
        :param wait_time: seconds before the second poll, at least 0.2; grows by 10 % a poll up to 60 seconds.
        :param timeout: seconds after which to give up; the run goes on.
        :return: the final response; failed and not completed if there was none in time.
        :raises AixplainConfigurationError: if the Connection cannot work.
        :raises AixplainUntrustedUrl: if the poll URL is on an origin that may not receive the key.
        """
        outcome = self.wait_for_run(poll_url, Wait(wait_time=wait_time, timeout=timeout), name)
        if outcome.response is not None and outcome.response.completed:
            return outcome.response
        return ModelResponse(
            ResponseStatus.FAILED, error_message=f"No response from the platform: {outcome.message}", url=poll_url
        )

    def wait_for_run(self, poll_url: str, wait: Wait, name: str = "model_process") -> Outcome:
        """Poll until a wait ends, blocking.

        :param poll_url: the ``url`` of a submission's response.
        :param wait: judges the answers; its times count from this call.
        :param name: a name for the log.
        :raises AixplainConfigurationError: if the Connection cannot work.
        :raises AixplainUntrustedUrl: if the poll URL is on an origin that may not receive the key.
        """
        start = time.monotonic()
        while True:
            response = self._poll(poll_url, wait.poll_timeout(time.monotonic() - start))
            elapsed = time.monotonic() - start
            if outcome := wait.judge(response, elapsed):
                return outcome
            self._report(response, wait, elapsed, name)
            if wait.denied:
                self._reread()
            time.sleep(wait.delay(elapsed, random.random()))

    async def arun_async(
        self, model_id: str, data: Any, name: str = "model_process", parameters: Mapping[str, Any] | None = None
    ) -> ModelResponse:
        """Start a run from an event loop; as :meth:`run_async`."""
        platform = await self._aplatform()
        request = platform.submission(model_id, data, parameters)
        self.log.debug("%s: submitting a run of model %s", name, model_id)
        return wire.read_submission(await self._asend(request))

    async def apoll(self, poll_url: str, timeout: float | None = None) -> ModelResponse:
        """Ask once, from an event loop, how a run is doing; as :meth:`poll`.

        :param timeout: seconds that the poll may take; default: as the Connection says.
        """
        return wire.read_poll(await self._asend(wire.poll(poll_url), timeout))

    async def await_run(self, poll_url: str, wait: Wait, elapsed: float = 0.0, name: str = "model_process") -> Outcome:
        """Poll until a wait ends, from an event loop; as :meth:`wait_for_run`.

        :param elapsed: seconds since the submission, at this call.
        """
        from airflow_provider_aixplain.transport import aio

        start = time.monotonic() - elapsed
        delay = wait.first_delay(elapsed, random.random())
        while True:
            # The session is held between polls, so that they share its connections, until the Connection changes.
            async with aio.open_session(platform := await self._aplatform()):
                while platform == self._platform:
                    await asyncio.sleep(delay)
                    response = await self.apoll(poll_url, wait.poll_timeout(time.monotonic() - start))
                    elapsed = time.monotonic() - start
                    if outcome := wait.judge(response, elapsed):
                        return outcome
                    self._report(response, wait, elapsed, name)
                    delay = wait.delay(elapsed, random.random())
                    if wait.denied:
                        await self._areread()

    def _report(self, response: ModelResponse, wait: Wait, elapsed: float, name: str) -> None:
        """Tell the log now and then that the run is waited for."""
        if wait.report_due(elapsed):
            trouble = f"; the last poll brought: {response.error_message}" if response.failure else ""
            self.log.info("%s: not over after %.0f s and %d polls%s", name, elapsed, wait.polls, trouble)

    def _open(self) -> PlatformSession:
        from airflow_provider_aixplain.transport.sync import PlatformSession

        if self._platform is None:
            self._platform = self._read()
        if self._session is None or self._session.platform != self._platform:
            self._session = PlatformSession(self._platform)
        return self._session

    def _poll(self, poll_url: str, timeout: float | None = None) -> ModelResponse:
        from airflow_provider_aixplain.transport import sync

        return wire.read_poll(sync.send(self._open(), wire.poll(poll_url), timeout))

    async def _aplatform(self) -> Platform:
        if self._platform is None:
            self._platform = await self._aread()
        return self._platform

    async def _asend(self, request: wire.Request, timeout: float | None = None) -> wire.Answer | wire.NoAnswer:
        from airflow_provider_aixplain.transport import aio

        platform = await self._aplatform()
        async with aio.open_session(platform) as session:
            return await aio.send(session, platform, request, timeout)

    def _read(self) -> Platform:
        try:
            return Platform.from_connection(self.get_connection(self.aixplain_conn_id))
        except AirflowNotFoundException:
            raise self._no_connection() from None

    async def _aread(self) -> Platform:
        try:
            return Platform.from_connection(await get_async_connection(self.aixplain_conn_id, hook=self))
        except AirflowNotFoundException:
            raise self._no_connection() from None

    def _no_connection(self) -> AixplainConfigurationError:
        return AixplainConfigurationError(
            f"Connection {self.aixplain_conn_id!r} does not exist: create one of type {self.conn_type} with the API key"
            " as its password, or name another in aixplain_conn_id."
        )

    # A refused key may have been rotated. While somebody is at it the Connection may be gone or half written, and the
    # secrets backend may be down: none of that ends a wait for a run that is paid for.

    def _reread(self) -> None:
        try:
            self._platform = self._read()
        except Exception as error:
            self.log.warning("The platform refuses the key, and the Connection cannot be read again: %s", error)

    async def _areread(self) -> None:
        try:
            self._platform = await self._aread()
        except Exception as error:
            self.log.warning("The platform refuses the key, and the Connection cannot be read again: %s", error)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the key out of copies and pickles."""
        return {**self.__dict__, "_platform": None, "_session": None}
