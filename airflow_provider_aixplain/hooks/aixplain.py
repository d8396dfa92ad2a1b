"""The hook: the Model API with the credentials and endpoints of an Airflow Connection."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from airflow.providers.common.compat.connection import get_async_connection
from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook

from airflow_provider_aixplain.client.account import Platform
from airflow_provider_aixplain.client.blocking import Client, unusable_account_response
from airflow_provider_aixplain.exceptions import AixplainConfigurationError, AixplainError, translate_protocol_errors
from airflow_provider_aixplain.files import refuse_upload
from airflow_provider_aixplain.hooks.connection import read_connection
from airflow_provider_aixplain.protocol import wire
from airflow_provider_aixplain.protocol.payload import build_payload
from airflow_provider_aixplain.protocol.schedule import delay_until_tick
from airflow_provider_aixplain.transport.single_flight import SingleFlight

if TYPE_CHECKING:
    import requests

    from airflow_provider_aixplain.model import Model, ModelResponse
    from airflow_provider_aixplain.protocol.wait import Outcome, Wait
    from airflow_provider_aixplain.transport import aio


TEST_TIMEOUT = 15.0
"""Seconds that each of the two requests of a connection test may take, while somebody looks at a form."""

ACCOUNT_FRESH = 10.0
"""Seconds for which a Connection that was read is not read again, unless its key is refused."""


class AixplainHook(Client, BaseHook):
    """Talks to aiXplain with the credentials of a Connection.

    The Connection is read once, when the first call needs it, and again when the platform refuses its key during a
    wait. Beside what is here it has the calls of :class:`~airflow_provider_aixplain.client.blocking.Client`.

    :param aixplain_conn_id: the id of a Connection of type ``aixplain``.
    """

    conn_name_attr = "aixplain_conn_id"
    default_conn_name = "aixplain_default"
    conn_type = "aixplain"
    hook_name = "aiXplain"

    def __init__(self, aixplain_conn_id: str = default_conn_name, **kwargs: Any) -> None:
        BaseHook.__init__(self, **kwargs)
        self.aixplain_conn_id = aixplain_conn_id
        self.key_source = (
            f"the key of Connection {aixplain_conn_id!r} (to test it: airflow connections test {aixplain_conn_id})"
        )
        self._platform: Platform | None = None
        self._read_at = -math.inf
        self._session = None

    @staticmethod
    def get_ui_field_behaviour() -> dict[str, Any]:
        """Return how Airflow 2's form for Connections shows the standard fields; Airflow 3 reads the provider info."""
        from airflow_provider_aixplain.get_provider_info import HIDDEN_FIELDS, PLACEHOLDERS, RELABELING

        return {"hidden_fields": HIDDEN_FIELDS, "relabeling": RELABELING, "placeholders": PLACEHOLDERS}

    @staticmethod
    def get_connection_form_widgets() -> dict[str, Any]:
        """Return the fields that Airflow 2's form shows beside the standard ones."""
        from flask_appbuilder.fieldwidgets import BS3PasswordFieldWidget, BS3TextFieldWidget
        from wtforms import BooleanField, IntegerField, PasswordField, StringField
        from wtforms.validators import Optional

        from airflow_provider_aixplain.get_provider_info import CONN_FIELDS

        def field(label: str, schema: Mapping[str, Any], description: str) -> Any:
            told = {"label": label, "description": description, "default": schema.get("default")}
            if schema.get("format") == "password":
                return PasswordField(widget=BS3PasswordFieldWidget(), **told)
            if "boolean" in schema["type"]:
                return BooleanField(**told)
            kind = IntegerField if "integer" in schema["type"] else StringField
            return kind(widget=BS3TextFieldWidget(), validators=[Optional()], **told)

        return {name: field(**told) for name, told in CONN_FIELDS.items()}

    def test_connection(self) -> tuple[bool, str]:
        """Say whether the Connection works. It costs nothing: no run is made.

        :return: whether it does, and what is wrong if it does not: the key, a URL, or the way to it.
        """
        from airflow_provider_aixplain.protocol import probe

        try:
            platform = self.platform
            limit = min(platform.timeout, TEST_TIMEOUT)
            backend, execution = platform.backend_url, platform.models_run_url
            problem = probe.backend_problem(self._send(probe.backend_request(backend), limit), backend)
            problem = problem or probe.execution_problem(
                self._send(probe.execution_request(execution), limit), execution
            )
        except AixplainError as error:
            problem = str(error)
        return not problem, problem or f"{backend} takes the key"

    @property
    def platform(self) -> Platform:  # type: ignore[override] # a client is given what a hook has to look up
        """The account that the Connection tells of.

        :raises AixplainConfigurationError: if the Connection cannot work.
        """
        if self._platform is None:
            self._platform = self._read()
        return self._platform

    def get_conn(self) -> requests.Session:
        """Return a session that adds the key to requests for the platform, and to no others.

        :raises AixplainConfigurationError: if the Connection cannot work.
        """
        return self._open()

    def get_model(self, model_id: str | None = None, *, name: str | None = None) -> Model:
        """Return a model with what the platform tells of it, bound to this hook's credentials and endpoints.

        :param model_id: the model's id on the platform.
        :param name: the model's name on the platform, instead of its id.
        :raises AixplainInputError: if not exactly one of them is given.
        :raises AixplainError: if the platform refuses, or knows no such model.
        """
        from airflow_provider_aixplain.model import Model

        return Model.get(model_id, name=name, client=self)

    async def arun_async(
        self, model_id: str, data: Any, name: str = "model_process", parameters: Mapping[str, Any] | None = None
    ) -> ModelResponse:
        """Start a run from an event loop; as :meth:`run_async`, but an ``Upload`` is refused: upload files before."""
        from airflow_provider_aixplain.transport import aio

        self.log.debug("%s: submitting a run of model %s", name, model_id)
        platform = await self.aplatform()
        with translate_protocol_errors():
            request = wire.submission_request(
                platform.models_run_url, model_id, build_payload(data, parameters, convert=refuse_upload)
            )
        async with aio.Lease() as lease:
            return wire.read_submission(await self._asend(lease, request))

    async def apoll(self, poll_url: str, timeout: float | None = None, most: int | None = None) -> ModelResponse:
        """Ask once, from an event loop, how a run is doing; as :meth:`poll`.

        :param timeout: seconds that the poll may take, if the Connection does not say less; default: as it says.
        :param most: bytes of the answer that are read, if the Connection does not say less; default: as it says.
        """
        from airflow_provider_aixplain.transport import aio

        with translate_protocol_errors():
            request = wire.poll_request(poll_url)
        async with aio.Lease() as lease:
            return await self._apoll(lease, request, timeout, most)

    async def await_run(
        self,
        poll_url: str,
        wait: Wait,
        elapsed: float = 0.0,
        name: str = "model_process",
        most: int | None = None,
        on_trouble: Callable[[str], object] | None = None,
    ) -> Outcome:
        """Poll until a wait ends, from an event loop; as :meth:`wait_for_run`.

        A Connection that cannot be read does not end it before its patience: a secrets backend comes back.

        :param elapsed: seconds since the submission, at this call.
        :param most: bytes of an answer that are read, if the Connection does not say less; default: as it says.
        :param on_trouble: is called with the message of each poll that failed; the wait is not logged then.
        """
        from airflow_provider_aixplain.transport import aio

        with translate_protocol_errors():
            request = wire.poll_request(poll_url)
        start = time.monotonic() - elapsed
        delay = wait.first_delay(elapsed, random.random())
        async with aio.Lease() as lease:  # held between polls, so that they share its connections
            while True:
                await asyncio.sleep(delay_until_tick(delay, time.monotonic()))
                try:
                    response = await self._apoll(lease, request, wait.poll_timeout(time.monotonic() - start), most)
                except Exception as error:
                    response = unusable_account_response(error)
                elapsed = time.monotonic() - start
                if outcome := wait.judge(response, elapsed):
                    if response.completed:
                        wait.learn(response, elapsed, random.random())
                    return outcome
                trouble = await self.areload_credentials() if wait.is_denied and self._platform else ""
                if on_trouble is not None:
                    if response.failure:
                        on_trouble(f"{name}: {response.error_message}{trouble}")
                elif report := wait.report(response, elapsed):
                    self.log.info("%s: %s%s", name, report, trouble)
                delay = wait.delay(elapsed, random.random())

    async def aplatform(self) -> Platform:
        """Return the account that the Connection tells of, from an event loop; :attr:`platform` has it then.

        A Connection that was read for another hook in the last ten seconds is not read again.
        """
        if self._platform is None:
            self._read_at, self._platform = await _read_once(self, time.monotonic() - ACCOUNT_FRESH)
        return self._platform

    async def _apoll(
        self, lease: aio.Lease, request: wire.Request, timeout: float | None, most: int | None
    ) -> ModelResponse:
        limit = (await self.aplatform()).limit(timeout)
        return wire.read_poll(await self._asend(lease, request, limit, most))

    async def _asend(
        self, lease: aio.Lease, request: wire.Request, timeout: float | None = None, most: int | None = None
    ) -> wire.Answer | wire.NoResponse:
        from airflow_provider_aixplain.transport import aio

        platform = await self.aplatform()
        answer = await aio.send(await lease.session(platform), request, timeout, most)
        return self._explain_refusal(answer, request)

    def _read(self) -> Platform:
        try:
            return read_connection(self.get_connection(self.aixplain_conn_id))
        except AirflowNotFoundException:
            raise self._no_connection() from None

    async def _aread(self) -> Platform:
        try:
            return read_connection(await get_async_connection(self.aixplain_conn_id, hook=self))
        except AirflowNotFoundException:
            raise self._no_connection() from None

    def _no_connection(self) -> AixplainConfigurationError:
        return AixplainConfigurationError(
            f"Connection {self.aixplain_conn_id!r} does not exist: create one of type {self.conn_type} with the API key"
            " as its password, or name another in aixplain_conn_id. If there is one, the secrets backend may be down.",
            retryable=True,
        )

    # A refused key may have been rotated. While somebody is at it the Connection may be gone or half written, and the
    # secrets backend may be down: none of that ends a wait for a run that is paid for.

    def reload_credentials(self) -> str:
        """Read the Connection again.

        :return: the reason if it could not be read, as the end of a log line; else empty.
        """
        try:
            self._platform = self._read()
        except Exception as error:
            return _NOT_RENEWED.format(error)
        return ""

    async def areload_credentials(self) -> str:
        """Read the Connection again, from an event loop; as :meth:`reload_credentials`."""
        try:
            self._read_at, self._platform = await _read_once(self, self._read_at)
        except Exception as error:
            return _NOT_RENEWED.format(error)
        return ""

    def __getstate__(self) -> dict[str, Any]:
        """Leave the key out of copies and pickles, and the logger that Airflow has bound."""
        return {**super().__getstate__(), "_platform": None, "_log": None}


_reads: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, SingleFlight[Platform]]] = WeakKeyDictionary()


async def _read_once(hook: AixplainHook, since: float) -> tuple[float, Platform]:
    """Return the account of a hook's Connection, read after a time, once for all who ask for it in an event loop.

    A triggerer that starts with thousands of runs asks for it thousands of times, and Airflow 3.3.2's answers some
    forty questions a second.

    :param since: by the monotonic clock.
    :return: when it was read, too.
    """
    reads = _reads.setdefault(asyncio.get_running_loop(), {})
    return await reads.setdefault(hook.aixplain_conn_id, SingleFlight()).get(hook._aread, since)


_NOT_RENEWED = "; and the Connection cannot be read again: {}"
