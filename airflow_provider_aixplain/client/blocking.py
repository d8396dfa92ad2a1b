"""The platform's API as blocking calls on one account."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_aixplain.client.account import MAX_TIMEOUT
from airflow_provider_aixplain.exceptions import (
    AixplainInputError,
    AixplainNoStreaming,
    AixplainPermanentError,
    translate_protocol_errors,
)
from airflow_provider_aixplain.files import Upload, is_object_path, open_upload, read_upload_size, to_printable_path
from airflow_provider_aixplain.protocol import upload, wire
from airflow_provider_aixplain.protocol.agent import AgentInput
from airflow_provider_aixplain.protocol.assets import RunInput
from airflow_provider_aixplain.protocol.failure import ErrorCategory, Failure, InvalidInput
from airflow_provider_aixplain.protocol.payload import ModelInput
from airflow_provider_aixplain.protocol.response import ModelResponse, ResponseStatus
from airflow_provider_aixplain.protocol.values import NOT_JSON, to_printable
from airflow_provider_aixplain.protocol.wait import Outcome, Wait, to_seconds

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

    from airflow_provider_aixplain.client.account import Platform
    from airflow_provider_aixplain.protocol.finetune import FinetuneStatus
    from airflow_provider_aixplain.protocol.model_record import ModelParameters
    from airflow_provider_aixplain.protocol.stream import ModelResponseStreamer
    from airflow_provider_aixplain.protocol.values import Convert
    from airflow_provider_aixplain.transport.sync import PlatformSession

log = logging.getLogger(__name__)

MAX_POLL_TIMEOUT = 600.0
"""The time limit of a poll in a wait, in seconds: a large response may take that long, if it keeps arriving."""

MAX_TRANSFER_TIMEOUT = 3600.0
"""The time limit of an upload or a download, in seconds, if the platform keeps responding."""

STREAM_SILENCE = 300.0
"""Seconds for which a stream may send nothing: a model may take long before its first output."""


class Client:
    """Calls aiXplain with the credentials and endpoints of one account.

    A call that returns a :class:`~airflow_provider_aixplain.model.ModelResponse` does not raise when the platform
    refuses the request or the network fails: the response is failed and states the reason. Other calls raise an
    :class:`~airflow_provider_aixplain.exceptions.AixplainError`. Invalid arguments raise before anything is sent.

    :param platform: the account.
    :param key_source: where its key comes from and how to test it, for errors when the key is refused.
    """

    def __init__(
        self,
        platform: Platform,
        key_source: str = "the key (api_key, or TEAM_API_KEY or AIXPLAIN_API_KEY of the environment)",
    ) -> None:
        self.platform = platform
        self.key_source = key_source
        self._session: PlatformSession | None = None

    def run_async(
        self,
        model_id: str,
        data: Any,
        name: str = "model_process",
        parameters: Mapping[str, Any] | None = None,
        *,
        declared: ModelParameters | None = None,
    ) -> ModelResponse:
        """Start a run and do not wait for it. It is billed, and sent exactly once.

        :param model_id: the model's id on the platform.
        :param data: the input: a string, or any other JSON value. Each ``Upload`` in it, or in ``parameters``, is
            uploaded and replaced by a link.
        :param name: a prefix for log lines.
        :param parameters: further parameters of the model.
        :param declared: the parameters that the model declares; the input is checked against them.
        :return: in progress with its poll URL as ``url``; or the final result; or failed, with the reason.
        :raises AixplainConfigurationError: if the account is invalid.
        :raises AixplainInputError: if the arguments are invalid.
        """
        return self.submit(ModelInput(model_id, data, parameters), name, declared=declared)

    def run_agent_async(
        self, agent_id: str, query: str | Mapping[str, Any], name: str = "agent", **settings: Any
    ) -> ModelResponse:
        """Start the run of an agent or a team agent and do not wait for it. It is billed, and sent exactly once.

        :param agent_id: the agent's id on the platform.
        :param query: the question or task: a string, or a dict that is sent unchanged.
        :param name: a prefix for log lines.
        :param settings: the other fields of :class:`~airflow_provider_aixplain.protocol.agent.AgentInput`, such as
            ``session_id`` and ``budget``. Each ``Upload`` in ``query``, ``variables`` or ``attachments`` is uploaded
            and replaced by a link.
        :return: as :meth:`run_async`.
        :raises AixplainConfigurationError: if the account is invalid.
        :raises AixplainInputError: if the arguments are invalid.
        """
        return self.submit(AgentInput(agent_id, query, **settings), name)

    def run_agent(
        self,
        agent_id: str,
        query: str | Mapping[str, Any],
        name: str = "agent",
        timeout: float = 300,
        wait_time: float = 0.5,
        **settings: Any,
    ) -> ModelResponse:
        """Run an agent or a team agent and wait for its result, blocking. It is billed, and sent exactly once.

        :param timeout: seconds after which to stop waiting; the run continues.
        :param wait_time: seconds before the second poll, at least 0.2; grows by 10 % per poll up to 60 seconds.
        :return: the final response; failed, with the reason, after ``timeout``.
        :raises AixplainUntrustedUrl: if the poll URL has an untrusted origin.

        Other arguments and errors are those of :meth:`run_agent_async`.
        """
        with translate_protocol_errors():
            wait = Wait(wait_time=wait_time, timeout=timeout)
        start = time.monotonic()
        return self._finish(self.run_agent_async(agent_id, query, name, **settings), wait, name, start)

    def submit(self, run: RunInput, name: str, *, declared: ModelParameters | None = None) -> ModelResponse:
        """Start a run and do not wait for it. It is billed, and sent exactly once.

        :param run: the input, which names its asset.
        :param name: a prefix for log lines.
        :param declared: the parameters that a model declares; the input is checked against them.
        :return: in progress with its poll URL as ``url``; or the final result; or failed, with the reason.
        :raises AixplainConfigurationError: if the account is invalid.
        :raises AixplainInputError: if the input is invalid.
        """
        log.debug("%s: submitting a run of %s", name, run.asset)
        return wire.read_submission(self._send(self._request(run.request, declared)))

    def run(
        self,
        model_id: str,
        data: Any,
        name: str = "model_process",
        timeout: float = 300,
        parameters: Mapping[str, Any] | None = None,
        wait_time: float = 0.5,
        stream: bool = False,
        *,
        declared: ModelParameters | None = None,
    ) -> ModelResponse | ModelResponseStreamer:
        """Run a model and wait for its result, blocking. It is billed, and sent exactly once.

        The platform answers with the result, or with a poll URL, which is then polled.

        :param model_id: the model's id on the platform.
        :param data: the input, as for :meth:`run_async`.
        :param name: a prefix for log lines.
        :param timeout: seconds after which to stop waiting; the run continues. Each request has at least 10 seconds, as
            the result is billed.
        :param parameters: further parameters of the model.
        :param wait_time: seconds before the second poll, at least 0.2; grows by 10 % per poll up to 60 seconds.
        :param stream: whether to return the output as it is generated, as :meth:`run_stream`.
        :param declared: the parameters that the model declares; the input is checked against them.
        :return: the final response; failed, with the reason, after ``timeout``. Or a stream.
        :raises AixplainConfigurationError: if the account is invalid.
        :raises AixplainInputError: if the arguments are invalid.
        :raises AixplainUntrustedUrl: if the poll URL has an untrusted origin.
        """
        with translate_protocol_errors():
            wait = Wait(wait_time=wait_time, timeout=timeout)
        if stream:
            return self.run_stream(model_id, data, parameters, timeout)
        request = self._request(ModelInput(model_id, data, parameters).direct_request, declared)
        start = time.monotonic()
        limit = min(wait.poll_timeout(0), MAX_TIMEOUT)
        return self._finish(wire.read_submission(self._send(request, limit)), wait, name, start)

    def run_stream(
        self,
        model_id: str,
        data: Any,
        parameters: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> ModelResponseStreamer:
        """Run a model and return its output as it is generated, as :meth:`stream`, if the model supports that.

        The model's record is read first, and the input is checked against the parameters that it declares. Other errors
        are those of :meth:`stream`, and so are the arguments.

        :raises AssertionError: if the model does not support streaming.
        :raises AixplainError: if the platform refuses, or knows no such model.
        """
        from airflow_provider_aixplain.protocol.model_record import ModelParameters

        record = self.model_record(model_id)
        if not record["supports_streaming"]:
            raise AixplainNoStreaming(f"Model {model_id!r} does not support streaming: use stream=False")
        return self.stream(model_id, data, parameters, timeout, declared=ModelParameters(record["model_params"]))

    def stream(
        self,
        model_id: str,
        data: Any,
        parameters: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        *,
        declared: ModelParameters | None = None,
    ) -> ModelResponseStreamer:
        """Run a model and return its output as it is generated. It is billed, and sent exactly once.

        :param model_id: the id of a model that supports streaming.
        :param data: the input, as for :meth:`run_async`.
        :param parameters: further parameters of the model.
        :param timeout: seconds after which the stream is cut; the run continues. Default: no limit. A stream that is
            silent for 300 seconds, or for the Connection's ``timeout`` if that is longer, is always cut.
        :param declared: the parameters that the model declares; the input is checked against them.
        :return: an iterator over chunks, and a context manager.
        :raises AixplainConfigurationError: if the account is invalid.
        :raises AixplainInputError: if the arguments are invalid.
        """
        from airflow_provider_aixplain.protocol.stream import ModelResponseStreamer
        from airflow_provider_aixplain.transport import sync

        with translate_protocol_errors():
            timeout = None if timeout is None else to_seconds("timeout", timeout)
        request = self._request(partial(ModelInput(model_id, data, parameters).direct_request, stream=True), declared)
        silence = max(STREAM_SILENCE, self.platform.timeout)
        answer = sync.open_answer(self._get_session(), request, silence, timeout)
        return ModelResponseStreamer(wire.name_refused_key(answer, request, self.key_source))

    def poll(self, poll_url: str, name: str = "model_process", timeout: float | None = None) -> ModelResponse:
        """Poll a run once.

        :param poll_url: the ``url`` of a submission's response.
        :param name: a prefix for log lines.
        :param timeout: the time limit of the poll, in seconds; default: the Connection's.
        :return: the state of the run; failed and not completed if the poll failed.
        :raises AixplainConfigurationError: if the account is invalid.
        :raises AixplainUntrustedUrl: if the poll URL has an untrusted origin.
        """
        log.debug("%s: polling", name)
        with translate_protocol_errors():
            return wire.read_poll(self._send(wire.poll_request(poll_url), timeout, silence=self.platform.timeout))

    def poll_tolerant(self, poll_url: str, name: str, timeout: float) -> ModelResponse:
        """Poll once without raising: see :func:`unusable_account_response`."""
        try:
            return self.poll(poll_url, name, timeout)
        except Exception as error:
            return unusable_account_response(error)

    def sync_poll(
        self, poll_url: str, name: str = "model_process", wait_time: float = 0.5, timeout: float = 300
    ) -> ModelResponse:
        """Poll until a run has finished.

        :param poll_url: the ``url`` of a submission's response.
        :param name: a prefix for log lines.
        :param wait_time: seconds before the second poll, at least 0.2; grows by 10 % per poll up to 60 seconds.
        :param timeout: seconds after which to stop waiting; the run continues.
        :return: the final response; failed and not completed after ``timeout``.
        :raises AixplainConfigurationError: if the account is invalid.
        :raises AixplainInputError: if a duration is invalid.
        :raises AixplainUntrustedUrl: if the poll URL has an untrusted origin.
        """
        with translate_protocol_errors():
            wait = Wait(wait_time=wait_time, timeout=timeout)
        return self._wait_for_response(poll_url, wait, name, time.monotonic())

    def wait_for_run(
        self, poll_url: str, wait: Wait, name: str = "model_process", start: float | None = None
    ) -> Outcome:
        """Poll until a wait ends.

        :param poll_url: the ``url`` of a submission's response.
        :param wait: the schedule, and the conditions under which the wait ends.
        :param name: a prefix for log lines.
        :param start: when the run was submitted, by the monotonic clock; default: now.
        :raises AixplainConfigurationError: if the account is invalid.
        :raises AixplainUntrustedUrl: if the poll URL has an untrusted origin.
        """
        with translate_protocol_errors():
            self.platform.headers(wire.poll_request(poll_url))  # raises before the wait if the run cannot be polled
        start = time.monotonic() if start is None else start
        while True:
            limit = min(wait.poll_timeout(time.monotonic() - start), MAX_POLL_TIMEOUT)
            response = self.poll_tolerant(poll_url, name, limit)
            elapsed = time.monotonic() - start
            outcome = wait.judge(response, elapsed)
            problem = self.reload_credentials() if wait.is_denied and not outcome else ""
            self.log_wait(wait, response, elapsed, name, problem)
            self.log_steps(wait, response, name)
            if outcome:
                return outcome
            time.sleep(wait.delay(elapsed, random.random()))

    def check_finetune_status(self, model_id: str, after_epoch: int | None = None) -> FinetuneStatus:
        """Return the progress of a fine-tuning.

        :param model_id: the id of a model that is being fine-tuned.
        :param after_epoch: return the losses of the first epoch after this one; default: of the last.
        :raises AixplainError: if the platform refuses.
        """
        from airflow_provider_aixplain.protocol import finetune

        with translate_protocol_errors():
            finetune.check_epoch(after_epoch)
            outcome = self._send(wire.finetune_logs_request(self.platform.backend_url, model_id))
            return finetune.read_finetune_status(outcome, after_epoch)

    def delete_model(self, model_id: str) -> None:
        """Delete a model that belongs to the account.

        :raises AixplainError: if the platform refuses.
        """
        with translate_protocol_errors():
            wire.read_deletion(self._send(wire.deletion_request(self.platform.backend_url, model_id)))

    def model_record(self, model_id: str | None = None, *, name: str | None = None) -> dict[str, Any]:
        """Return a model's record, as the arguments of :class:`~airflow_provider_aixplain.model.Model`.

        :param model_id: the model's id on the platform.
        :param name: the model's name on the platform, instead of its id.
        :raises AixplainInputError: unless exactly one of them is given.
        :raises AixplainError: if the platform refuses, or knows no such model.
        """
        from airflow_provider_aixplain.protocol.model_record import read_model

        backend = self.platform.backend_url
        with translate_protocol_errors():
            if (model_id is None) == (name is None):
                raise InvalidInput("give either model_id or name")
            if name is None:
                return read_model(self._send(wire.model_record_request(backend, model_id or "")))
            return read_model(self._send(wire.model_record_by_name_request(backend, name)))

    def upload_file(self, path: ObjectStoragePath) -> str:
        """Upload a file, and return a link that a model or an agent accepts as input.

        :param path: a local file, or one in object storage. It is streamed, not held in memory.
        :return: ``s3://bucket/key``. The platform keeps the file for a limited time.
        :raises AixplainInputError: if the file does not exist, or exceeds the platform's size limit.
        :raises AixplainError: if the platform refuses.
        """
        if not is_object_path(path):
            raise AixplainInputError(
                f"path is {to_printable_path(path)!r}: give an ObjectStoragePath, like ObjectStoragePath('file:///a.wav')"
            )
        with translate_protocol_errors(), open_upload(path) as file:
            slot = upload.read_slot(self._send(upload.slot_request(self.platform.backend_url, path.name)))
            transfer = upload.transfer_request(slot, path.name, file)
            upload.read_transfer(self._send(transfer, MAX_TRANSFER_TIMEOUT, silence=self.platform.timeout))
        log.info("Uploaded %s as %s", to_printable_path(path), slot.link)
        return slot.link

    def iter_download(self, url: str, timeout: float = MAX_TRANSFER_TIMEOUT) -> Iterator[bytes]:
        """Download a file from one of the platform's stores, such as an artifact. The key is not sent.

        :param url: a presigned link, or one that everybody can read.
        :param timeout: the time limit, in seconds; default: an hour.
        :return: the content in pieces. Nothing is sent before the first one is requested.
        :raises AixplainUntrustedUrl: if the link is in no store, and its origin is not trusted.
        :raises AixplainError: if the store refuses.
        :raises OSError: if the file does not arrive completely; as its subclass ``AnswerTooLarge`` if it exceeds
            ``max_answer_mib`` of the Connection.
        """
        from airflow_provider_aixplain.protocol.artifacts import download_request
        from airflow_provider_aixplain.transport import sync

        request = download_request(url)
        answer = sync.open_answer(self._get_session(), request, self.platform.timeout, timeout)
        if isinstance(answer, wire.OpenAnswer):
            with closing(answer):
                yield from answer.body
        else:
            with translate_protocol_errors():
                upload.read_transfer(answer, "download")

    def fingerprint(self, run: RunInput) -> str:
        """Return a hash of the endpoint, the asset and the input of a run. Nothing is sent.

        A file counts by its path and size. Errors are those of :meth:`submit`.
        """

        def describe_upload(value: Any) -> Any:
            if not isinstance(value, Upload):
                return NOT_JSON
            file = value.file
            return f"{file}, {read_upload_size(file)} bytes"

        with translate_protocol_errors():
            request = run.request(self.platform, describe_upload)
        content = json.dumps([request.url, _read_body(request)], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def _request(
        self, build: Callable[[Platform, Convert], wire.Request], declared: ModelParameters | None = None
    ) -> wire.Request:
        """Return the request of a run. Files are uploaded after everything else has been checked."""
        files: dict[str, ObjectStoragePath] = {}
        links: dict[str, str] = {}

        def replace_upload(value: Any) -> Any:
            if not isinstance(value, Upload):
                return NOT_JSON
            file = value.file
            if str(file) not in links:
                read_upload_size(file)
                files[str(file)] = file
            return links.get(str(file), str(file))

        with translate_protocol_errors():
            request = build(self.platform, replace_upload)
            if declared is not None:
                declared.check(_read_body(request))
        if not files:
            return request
        links = {name: self.upload_file(file) for name, file in files.items()}
        with translate_protocol_errors():
            return build(self.platform, replace_upload)

    def close(self) -> None:
        """Close the idle connections; never raises. A later call opens another one."""
        session, self._session = self._session, None
        with suppress(Exception):  # the answer to a submission must not be lost
            if session is not None:
                session.close()

    def __getstate__(self) -> dict[str, Any]:
        """Leave connections out of copies and pickles."""
        return {**self.__dict__, "_session": None}

    def _finish(self, submitted: ModelResponse, wait: Wait, name: str, start: float) -> ModelResponse:
        """Return the response to a submission if it is final; otherwise wait for the run."""
        if submitted.status is not ResponseStatus.IN_PROGRESS:
            return submitted
        return self._wait_for_response(submitted.url or "", wait, name, start)

    def _wait_for_response(self, poll_url: str, wait: Wait, name: str, start: float) -> ModelResponse:
        outcome = self.wait_for_run(poll_url, wait, name, start)
        if outcome.response is not None and outcome.response.completed:
            return outcome.response
        message = f"Stopped waiting: {outcome.message}"
        return ModelResponse(ResponseStatus.FAILED, error_message=message, url=poll_url)

    def _get_session(self) -> PlatformSession:
        from airflow_provider_aixplain.transport.sync import PlatformSession

        if self._session is None or self._session.platform != self.platform:
            self._session = PlatformSession(self.platform)
        return self._session

    def _send(
        self, request: wire.Request, timeout: float | None = None, silence: float = math.inf
    ) -> wire.Answer | wire.NoResponse:
        from airflow_provider_aixplain.transport import sync

        answer = sync.send(self._get_session(), request, timeout, silence)
        return wire.name_refused_key(answer, request, self.key_source)

    def reload_credentials(self) -> str:
        """Read the account again after the platform refused its key. This client's account is fixed; a hook reads it.

        :return: why that failed, as the end of a log line; empty if it did not fail.
        """
        return ""

    @staticmethod
    def log_wait(wait: Wait, response: ModelResponse, elapsed: float, name: str = "", problem: str = "") -> None:
        """Log the wait's report of its last poll, if there is one.

        :param response: the answer to the poll.
        :param elapsed: seconds since the submission.
        :param name: a prefix for the log line.
        :param problem: appended to the log line.
        """
        if report := wait.report(response, elapsed):
            level = logging.WARNING if report.is_warning else logging.INFO
            log.log(level, "%s%s%s", f"{name}: " if name else "", report.message, problem)

    @staticmethod
    def log_steps(wait: Wait, response: ModelResponse, name: str = "") -> None:
        """Log what an agent has done since the wait's last poll. Arguments are those of :meth:`log_wait`."""
        for line in wait.steps.new_lines(response):
            log.info("%s%s", f"{name}: " if name else "", line)


def _read_body(request: wire.Request) -> Any:
    """Return the JSON value of a run's body."""
    assert isinstance(request.body, bytes)
    return json.loads(request.body)


def unusable_account_response(error: Exception) -> ModelResponse:
    """Return the response to a poll that cannot be sent, as the account cannot be read or is invalid.

    It is failed and not completed, so that the wait for a run that is already billed continues. An invalid Connection
    counts as a refusal of the key, so it uses up the wait's retry budget. Any other error counts as temporary, also a
    missing Connection: Airflow reports the same while its secrets backend is down.
    """
    is_refusal = isinstance(error, AixplainPermanentError) and not error.retryable
    message = to_printable(error if is_refusal else f"The poll could not be sent: {type(error).__name__}: {error}")
    category = ErrorCategory.AUTHENTICATION if is_refusal else ErrorCategory.PLATFORM
    return ModelResponse(ResponseStatus.FAILED, error_message=message, failure=Failure(category, is_sent=False))
