"""The hook: the platform's API with the credentials and endpoints of an Airflow Connection."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow_provider_aixplain import compat
from airflow_provider_aixplain.client.account import Platform
from airflow_provider_aixplain.client.aio import AsyncClient
from airflow_provider_aixplain.compat import AirflowNotFoundException, BaseHook
from airflow_provider_aixplain.exceptions import AixplainConfigurationError, AixplainError
from airflow_provider_aixplain.hooks.connection import read_connection
from airflow_provider_aixplain.loop_local import LoopCache

if TYPE_CHECKING:
    import requests

    from airflow_provider_aixplain.model import Model

TEST_TIMEOUT = 15.0
"""The time limit of each of a connection test's two requests, in seconds: the user waits at a form."""

ACCOUNT_TTL = 10.0
"""Seconds for which an account is cached in an event loop, unless its key is refused."""


class AixplainHook(AsyncClient, BaseHook):
    """Calls aiXplain with the credentials of a Connection.

    The Connection is read when the first call needs it, and again when the platform refuses its key during a wait. The
    calls are those of :class:`~airflow_provider_aixplain.client.blocking.Client` and
    :class:`~airflow_provider_aixplain.client.aio.AsyncClient`.

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
        """Return how Airflow 2's Connection form shows the standard fields; Airflow 3 reads the provider info."""
        from airflow_provider_aixplain.get_provider_info import HIDDEN_FIELDS, PLACEHOLDERS, RELABELING

        return {"hidden_fields": HIDDEN_FIELDS, "relabeling": RELABELING, "placeholders": PLACEHOLDERS}

    @staticmethod
    def get_connection_form_widgets() -> dict[str, Any]:
        """Return the additional fields of Airflow 2's Connection form."""
        from flask_appbuilder.fieldwidgets import BS3PasswordFieldWidget, BS3TextFieldWidget
        from wtforms import BooleanField, IntegerField, PasswordField, StringField
        from wtforms.validators import Optional

        from airflow_provider_aixplain.get_provider_info import CONN_FIELDS

        def create_field(label: str, schema: Mapping[str, Any], description: str) -> Any:
            arguments = {"label": label, "description": description, "default": schema.get("default")}
            if schema.get("format") == "password":
                return PasswordField(widget=BS3PasswordFieldWidget(), **arguments)
            if "boolean" in schema["type"]:
                return BooleanField(**arguments)
            kind = IntegerField if "integer" in schema["type"] else StringField
            return kind(widget=BS3TextFieldWidget(), validators=[Optional()], **arguments)

        return {name: create_field(**attributes) for name, attributes in CONN_FIELDS.items()}

    def test_connection(self) -> tuple[bool, str]:
        """Test the Connection. It costs nothing: no model or agent runs.

        :return: whether it works, and a message: which URL accepts the key, or what is wrong.
        """
        from airflow_provider_aixplain.protocol import probe

        try:
            platform = self.platform
            limit = min(platform.timeout, TEST_TIMEOUT)
            for field, url, request in probe.requests(platform.backend_url, platform.models_run_url):
                if problem := probe.find_problem(self._send(request, limit), url, field):
                    return False, problem
        except AixplainError as error:
            return False, str(error)
        return True, f"The key is accepted: {platform.backend_url}"

    @property
    def platform(self) -> Platform:  # type: ignore[override] # an attribute of the client
        """The account of the Connection.

        :raises AixplainConfigurationError: if the Connection does not exist or is invalid.
        """
        if self._platform is None:
            self._platform = self.read_account()
        return self._platform

    def get_conn(self) -> requests.Session:
        """Return a session that adds the key to requests to the platform, and to no others.

        :raises AixplainConfigurationError: if the Connection does not exist or is invalid.
        """
        return self._get_session()

    def get_model(self, model_id: str | None = None, *, name: str | None = None) -> Model:
        """Return a model with the platform's record of it, bound to this hook's credentials and endpoints.

        :param model_id: the model's id on the platform.
        :param name: the model's name on the platform, instead of its id.
        :raises AixplainInputError: unless exactly one of them is given.
        :raises AixplainError: if the platform refuses, or knows no such model.
        """
        from airflow_provider_aixplain.model import Model

        return Model.get(model_id, name=name, client=self)

    async def aplatform(self) -> Platform:
        """Return the account of the Connection, from an event loop; :attr:`platform` is set afterwards.

        The hooks of an event loop share what one of them has read, for ten seconds.
        """
        if self._platform is None:
            await self._aload(time.monotonic() - ACCOUNT_TTL)
        assert self._platform is not None
        return self._platform

    def read_account(self) -> Platform:
        """Read the Connection.

        :raises AixplainConfigurationError: if it does not exist or is invalid.
        """
        with self._explain_missing_connection():
            return read_connection(self.get_connection(self.aixplain_conn_id))

    async def aread_account(self) -> Platform:
        """Read the Connection from an event loop, as :meth:`read_account`."""
        with self._explain_missing_connection():
            return await compat.read_connection(self, self.aixplain_conn_id, read_connection)

    def reload_credentials(self) -> str:
        """Read the Connection again after the platform refused its key, which may have been rotated.

        Errors are returned, not raised: a Connection that is being edited, or a secrets backend that is down, must not
        end the wait for a run that is already billed.

        :return: why the Connection cannot be read, as the end of a log line; empty if it can.
        """
        try:
            if self._platform is not None:  # otherwise the next call reads it
                self._platform = self.read_account()
        except Exception as error:
            return _NOT_RELOADED.format(error)
        return ""

    async def areload_credentials(self) -> str:
        """Read the Connection again from an event loop, as :meth:`reload_credentials`."""
        try:
            if self._platform is not None:
                await self._aload(self._read_at)
        except Exception as error:
            return _NOT_RELOADED.format(error)
        return ""

    async def _aload(self, since: float) -> None:
        """Set the account. All hooks of this event loop share one read, unless it started at ``since`` or before.

        A triggerer that starts with thousands of runs has as many hooks, and Airflow 3.3.2 reads about forty
        Connections per second.
        """
        self._read_at, self._platform = await _accounts.get(self.aixplain_conn_id, self.aread_account, since)

    @contextmanager
    def _explain_missing_connection(self) -> Iterator[None]:
        try:
            yield
        except AirflowNotFoundException:
            raise AixplainConfigurationError(
                f"Connection {self.aixplain_conn_id!r} does not exist: create one of type {self.conn_type} with the API"
                " key as its password, or name another in aixplain_conn_id. If it exists, the secrets backend may be"
                " down.",
                retryable=True,
            ) from None

    def __getstate__(self) -> dict[str, Any]:
        """Leave the key, and the logger that Airflow has bound, out of copies and pickles."""
        return {**super().__getstate__(), "_platform": None, "_log": None}


_accounts: LoopCache[str, Platform] = LoopCache()
_NOT_RELOADED = "; the Connection cannot be read again: {}"
