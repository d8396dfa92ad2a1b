"""The Model API: ``Model`` and its types."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from enum import Enum
from typing import Any

from airflow_provider_aixplain.client.account import Platform, validate_endpoint, validate_key
from airflow_provider_aixplain.client.blocking import Client
from airflow_provider_aixplain.exceptions import (
    AixplainConfigurationError,
    AixplainInputError,
    AixplainNoStreaming,
    translate_protocol_errors,
)
from airflow_provider_aixplain.protocol.finetune import FinetuneStatus
from airflow_provider_aixplain.protocol.model_record import (
    AssetStatus,
    FunctionType,
    ModelParameters,
    to_member,
)
from airflow_provider_aixplain.protocol.payload import build_payload
from airflow_provider_aixplain.protocol.response import ModelResponse, ResponseStatus
from airflow_provider_aixplain.protocol.stream import ModelResponseStreamer
from airflow_provider_aixplain.protocol.values import parse_time, to_printable, to_storable

__all__ = [
    "AssetStatus",
    "FinetuneStatus",
    "FunctionType",
    "Model",
    "ModelParameters",
    "ModelResponse",
    "ModelResponseStreamer",
    "ResponseStatus",
    "build_payload",
]


class Model:
    """A model on aiXplain that can be run.

    It calls the public endpoints with ``api_key``. A model from
    :meth:`AixplainHook.get_model <airflow_provider_aixplain.hooks.aixplain.AixplainHook.get_model>` calls those of the
    hook's Connection and has the platform's record of the model. If the declarations of the parameters are known, the
    input of a run is checked against them before anything is sent.

    :param id: the model's id on the platform.
    :param name: the model's name.
    :param description: what the model does.
    :param api_key: the key; default: ``TEAM_API_KEY`` or ``AIXPLAIN_API_KEY`` of the environment.
    :param supplier: the supplier's name, or the platform's record of it.
    :param version: the model's version.
    :param function: the id of the model's function, such as ``translation``.
    :param is_subscribed: whether the account has subscribed to the model.
    :param cost: the model's price.
    :param created_at: when the model was created.
    :param input_params: the input parameters, by name.
    :param output_params: the output parameters.
    :param model_params: the declarations of the parameters, by name, with the platform's keys.
    :param supports_streaming: whether the model supports streaming.
    :param status: the model's state; a string if it is unknown.
    :param function_type: the kind of the model's function; a string if it is unknown.
    :param additional_info: further fields of the record.
    :raises AixplainInputError: if ``id`` is not a string, or ``model_params`` not a dict.
    """

    def __init__(
        self,
        id: str,
        name: str = "",
        description: str = "",
        api_key: str | None = None,
        supplier: Mapping[str, Any] | str | int | Enum = "aiXplain",
        version: str | None = None,
        function: str | Enum | Mapping[str, Any] | None = None,
        is_subscribed: bool = False,
        cost: Mapping[str, Any] | None = None,
        created_at: datetime | None = None,
        input_params: Mapping[str, Any] | None = None,
        output_params: Mapping[str, Any] | None = None,
        model_params: Mapping[str, Any] | None = None,
        supports_streaming: bool = False,
        status: AssetStatus | str | None = AssetStatus.ONBOARDED,
        function_type: FunctionType | str | None = FunctionType.AI,
        **additional_info: Any,
    ) -> None:
        if not isinstance(id, str):
            raise AixplainInputError(f"id is {id!r}: give the id of a model, as shown on its page on the platform")
        self.id = id
        self.name = name
        self.description = description
        self.supplier = supplier.value if isinstance(supplier, Enum) else supplier
        self.version = version
        self.function = _function_id(function)
        self.is_subscribed = is_subscribed
        self.cost = cost
        self.created_at = created_at
        self.input_params = input_params
        self.output_params = output_params
        self.model_params = model_params
        self.supports_streaming = supports_streaming
        self.status = to_member(AssetStatus, status)
        self.function_type = to_member(FunctionType, function_type)
        self.additional_info = additional_info
        self._client = _public_client(api_key)

    @classmethod
    def get(
        cls,
        model_id: str | None = None,
        *,
        name: str | None = None,
        api_key: str | None = None,
        client: Client | None = None,
    ) -> Model:
        """Return a model with the platform's record of it.

        :param model_id: the model's id on the platform.
        :param name: the model's name on the platform, instead of its id.
        :param api_key: the key; default: as for the class.
        :param client: the account to read the record from and to bind the model to; default: the public endpoints with
            ``api_key``.
        :raises AixplainInputError: unless exactly one of ``model_id`` and ``name`` is given.
        :raises AixplainError: if the platform refuses, or knows no such model.
        """
        client = client or _public_client(api_key)
        model = cls(**client.model_record(model_id, name=name))
        model._client = client
        return model

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Model:
        """Return a model from the result of :meth:`to_dict`, or from other arguments of the class.

        :param data: the arguments of the class by name, with ``additional_info`` as a dict, and ``created_at`` in ISO
            8601. Missing arguments have their defaults, except that ``version`` is 1.0.
        :raises AixplainInputError: if ``created_at`` is not a time, or ``additional_info`` not a dict.
        """
        if not isinstance(data, Mapping):
            raise AixplainInputError(f"data is a {type(data).__name__}: give a dict from names to values")
        additional_info = data.get("additional_info") or {}
        if not isinstance(additional_info, Mapping):
            raise AixplainInputError(f"additional_info is a {type(additional_info).__name__}: give a dict")
        created_at = data.get("created_at")
        if created_at and not isinstance(created_at, datetime) and parse_time(created_at) is None:
            raise AixplainInputError(f"created_at is {created_at!r}: give a time like 2026-11-23T18:00:00Z")
        arguments = {name: data[name] for name in _ARGUMENTS if name in data}
        arguments["created_at"] = created_at if isinstance(created_at, datetime) else parse_time(created_at)
        model = cls(**{"id": "", "version": "1.0", **arguments})
        model.additional_info.update(additional_info)
        return model

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration of the model as plain JSON types, for :meth:`from_dict`.

        :return: the arguments of the class by name, without the key and without empty ``additional_info``.
        """
        fields = {name: getattr(self, name) for name in _ARGUMENTS if name != "api_key"}
        fields["model_params"] = self.model_params.to_dict() if self.model_params else None
        fields["created_at"] = self.created_at.isoformat() if self.created_at else None
        fields["additional_info"] = {k: v for k, v in self.additional_info.items() if v not in (None, [], {})}
        plain: dict[str, Any] = to_storable(fields)
        return plain

    def get_parameters(self) -> ModelParameters | None:
        """Return the parameters that the model declares, or None if unknown."""
        return self._model_params

    @property
    def model_params(self) -> ModelParameters | None:
        """The parameters that the model declares, or None if unknown. It can be set to a dict of declarations."""
        return self._model_params

    @model_params.setter
    def model_params(self, declared: Mapping[str, Any] | ModelParameters | None) -> None:
        if isinstance(declared, ModelParameters):
            self._model_params: ModelParameters | None = declared
            return
        with translate_protocol_errors():
            self._model_params = ModelParameters(declared) if declared else None

    def __repr__(self) -> str:
        """Return ``Model: <name> by <supplier> (id=<id>)``."""
        supplier = self.supplier
        by = supplier.get("name", supplier) if isinstance(supplier, Mapping) else supplier
        return f"Model: {self.name} by {by} (id={self.id})"

    @property
    def api_key(self) -> str:
        """The key."""
        return self._client.platform.api_key

    @api_key.setter
    def api_key(self, api_key: str) -> None:
        self._client = _KeyClient(replace(self._client.platform, api_key=_key(api_key)))

    @property
    def url(self) -> str:
        """The execution URL, without the model's id; default: the public one."""
        return self._client.platform.models_run_url

    @url.setter
    def url(self, url: str) -> None:
        self._client = self._client_with(models_run_url=_endpoint("url", url))

    @property
    def backend_url(self) -> str:
        """The base URL of the backend; default: the public one."""
        return self._client.platform.backend_url

    @backend_url.setter
    def backend_url(self, url: str) -> None:
        self._client = self._client_with(backend_url=_endpoint("backend_url", url))

    def _client_with(self, **changes: Any) -> Client:
        return _KeyClient(replace(self._client.platform, **changes), self._client.key_source)

    def run(
        self,
        data: Any,
        name: str = "model_process",
        timeout: float = 300,
        parameters: Mapping[str, Any] | None = None,
        wait_time: float = 0.5,
        stream: bool = False,
    ) -> ModelResponse | ModelResponseStreamer:
        """Run the model and wait for its result, blocking. It is billed, and sent exactly once.

        :param data: the input: a string, or any other JSON value. Each ``Upload`` in it, or in ``parameters``, is
            uploaded and replaced by a link.
        :param name: a prefix for log lines.
        :param timeout: seconds after which to stop waiting; the run continues.
        :param parameters: further parameters of the model.
        :param wait_time: seconds before the second poll, at least 0.2; grows by 10 % per poll up to 60 seconds.
        :param stream: whether to return the output as it is generated, as :meth:`run_stream`.
        :return: the final response; failed, with the reason, after ``timeout``. Or a stream.
        :raises AixplainConfigurationError: if the account is invalid.
        :raises AixplainInputError: if the arguments are invalid, or do not match the model's declared parameters.
        :raises AssertionError: if the model does not support streaming.
        """
        if stream:
            return self._stream(data, parameters, timeout)
        return self._client.run(self.id, data, name, timeout, parameters, wait_time, declared=self.model_params)

    def run_async(
        self, data: Any, name: str = "model_process", parameters: Mapping[str, Any] | None = None
    ) -> ModelResponse:
        """Start a run and do not wait for it. It is billed, and sent exactly once.

        Arguments and errors are those of :meth:`run`.

        :return: in progress with its poll URL as ``url``; or the final result; or failed, with the reason.
        """
        return self._client.run_async(self.id, data, name, parameters, declared=self.model_params)

    def run_stream(self, data: Any, parameters: Mapping[str, Any] | None = None) -> ModelResponseStreamer:
        """Run the model and return its output as it is generated. It is billed, and sent exactly once.

        Arguments and errors are those of :meth:`run`.

        :return: an iterator over chunks, and a context manager.
        :raises AssertionError: if the model does not support streaming.
        """
        return self._stream(data, parameters, None)

    def poll(self, poll_url: str, name: str = "model_process") -> ModelResponse:
        """Poll a run once; see
        :meth:`AixplainHook.poll <airflow_provider_aixplain.hooks.aixplain.AixplainHook.poll>`.
        """
        return self._client.poll(poll_url, name)

    def sync_poll(
        self, poll_url: str, name: str = "model_process", wait_time: float = 0.5, timeout: float = 300
    ) -> ModelResponse:
        """Poll until a run has finished, blocking.

        See :meth:`AixplainHook.sync_poll <airflow_provider_aixplain.hooks.aixplain.AixplainHook.sync_poll>`.
        """
        return self._client.sync_poll(poll_url, name, wait_time, timeout)

    def check_finetune_status(self, after_epoch: int | None = None) -> FinetuneStatus:
        """Return the progress of the model's fine-tuning.

        :param after_epoch: return the losses of the first epoch after this one; default: of the last.
        :raises AixplainError: if the platform refuses.
        """
        return self._client.check_finetune_status(self.id, after_epoch)

    def delete(self) -> None:
        """Delete the model, which must belong to the account.

        :raises AixplainError: if the platform refuses.
        """
        self._client.delete_model(self.id)

    def _stream(self, data: Any, parameters: Mapping[str, Any] | None, timeout: float | None) -> ModelResponseStreamer:
        if not self.supports_streaming:
            raise AixplainNoStreaming(
                f"Model {self.id!r} does not support streaming, or is not known to: use stream=False. If it does, use"
                " Model.get, which reads the model's record, or supports_streaming=True"
            )
        return self._client.stream(self.id, data, parameters, timeout, declared=self.model_params)

    def add_additional_info_for_benchmark(self, display_name: str, configuration: Mapping[str, Any]) -> None:
        """Store in ``additional_info`` how a benchmark shows and configures the model.

        :param display_name: stored as ``displayName``.
        :param configuration: stored as ``configuration``.
        """
        self.additional_info["displayName"] = display_name
        self.additional_info["configuration"] = configuration


class _KeyClient(Client):
    """A client with a key instead of a Connection. Copies have the key; pickles have neither the key nor the proxy.

    An unpickled client reads the key from the environment, like a new :class:`Model`.
    """

    def __copy__(self) -> _KeyClient:
        return _KeyClient(self.platform, self.key_source)

    def __deepcopy__(self, _: dict[int, Any]) -> _KeyClient:
        return self.__copy__()

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickle_client, (replace(self.platform, api_key="", proxy=None),)


def _unpickle_client(platform: Platform) -> _KeyClient:
    return _KeyClient(replace(platform, api_key=_read_key_from_environment()))


_ARGUMENTS = [name for name in inspect.signature(Model).parameters if name != "additional_info"]


def _function_id(function: str | Enum | Mapping[str, Any] | None) -> str | None:
    value = function.value if isinstance(function, Enum) else function
    value = value.get("id") if isinstance(value, Mapping) else value
    return value if isinstance(value, str) else None


def _public_client(api_key: str | None) -> Client:
    return _KeyClient(Platform(api_key=_read_key_from_environment() if api_key is None else _key(api_key)))


def _read_key_from_environment() -> str:
    return _key(os.environ.get("TEAM_API_KEY") or os.environ.get("AIXPLAIN_API_KEY") or "")


def _key(api_key: str) -> str:
    try:
        return validate_key(api_key)
    except ValueError as error:
        raise AixplainConfigurationError(f"api_key {error}.") from None


def _endpoint(name: str, url: str) -> str:
    try:
        return validate_endpoint(url)
    except ValueError as error:
        raise AixplainConfigurationError(f"{name} is {to_printable(url)!r}: {error}") from None
